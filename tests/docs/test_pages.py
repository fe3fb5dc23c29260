"""The code of every page of the documentation runs, top to bottom, on local models and a loopback cloud."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
FENCE = re.compile(r"^```python[ \t]*(.*?)$\n(.*?)^```", re.DOTALL | re.MULTILINE)


def blocks(page):
    """(line, words behind the language, code) of each Python block."""
    text = page.read_text(encoding="utf-8")
    return [(text[: found.start()].count("\n") + 2, found[1], found[2]) for found in FENCE.finditer(text)]


PAGES = [page for page in sorted(DOCS.glob("*.md")) if any(not words for _, words, _ in blocks(page))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
@pytest.mark.usefixtures("openai_server")
def test_every_python_block_of_a_page_runs(page, tmp_path, monkeypatch):
    """In one namespace and an empty folder, as a reader who follows the page would."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "page"}
    for line, words, code in blocks(page):
        if not words:
            # Errors then name the line of the page.
            # The larger local model, 1.1 GB, stands for a cloud in what is shown; here the loopback server does.
            ran = code.replace("local:qwen2.5-coder-1.5b", "openai:gpt-4o-mini")
            exec(compile("\n" * (line - 1) + ran, str(page), "exec"), namespace)


def test_blocks_that_do_not_run_say_why():
    """`python notest: reason` is the only other kind."""
    for page in DOCS.glob("*.md"):
        for line, words, _ in blocks(page):
            assert not words or re.fullmatch(r"notest: .{10,}", words), f"{page.name}:{line}: {words!r}"
