"""What an error tells people to install exists."""

import re
from importlib.metadata import metadata
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_extra_that_is_named_exists():
    """`pip install 'confroute[x]'` in an error, a docstring or the README installs something."""
    known = set(metadata("confroute").get_all("Provides-Extra"))
    texts = [ROOT / "README.md", *ROOT.glob("*_confroute/**/*.py"), *(ROOT / "shared").rglob("*.py")]
    named = set()
    for path in texts:
        text = path.read_text(encoding="utf-8")
        named |= {extra for group in re.findall(r"confroute\[([\w,]+)\]", text) for extra in group.split(",")}
        named |= set(re.findall(r'MissingExtraError\(\s*extra="(\w+)"', text))
    assert {"langchain", "llamaindex", "local"} <= named
    assert named <= known
