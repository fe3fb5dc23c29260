"""What the pages name is there: modules, attributes, commands with their options, make's targets and files."""

import importlib
import re
from pathlib import Path

import pytest

from confroute.cli import _parser

ROOT = Path(__file__).parents[2]
# The changelog names what is gone as well.
PAGES = [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
DOTTED = re.compile(r"(?<![\w./-])(?:langchain_|llamaindex_)?confroute(?:\.\w+)+(?!\w*/)")
FILES = re.compile(
    r"(?<![\w/.-])(?:benchmarks|docs|examples|tests|langchain_confroute|llamaindex_confroute)/[\w./-]*\w"
)
# `confroute best` is a router of the results.
COMMAND = re.compile(r"(?:`|^\$ |^    |\.venv/bin/)confroute (?!best\b)([a-z].*?)(?:`|$)", re.MULTILINE)
EACH_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def text_of(page):
    """A page whose commands stand on one line each."""
    return page.read_text(encoding="utf-8").replace("\\\n", " ")


def resolved(name):
    """The module or attribute of a dotted name."""
    package, *parts = name.split(".")
    value = importlib.import_module(package)
    for part in parts:
        package += f".{part}"
        value = getattr(value, part) if hasattr(value, part) else importlib.import_module(package)
    return value


def parsers():
    """Each command's parser, and its subcommands' ones."""
    known = {}
    todo = [("", _parser())]
    while todo:
        name, parser = todo.pop()
        known[name] = parser
        for action in parser._actions:
            if isinstance(action.choices, dict):
                todo += [(f"{name} {choice}".strip(), inner) for choice, inner in action.choices.items()]
    return known


@EACH_PAGE
def test_every_dotted_name_can_be_imported(page):
    """`confroute.x.y`, in words, in code and in tables."""
    names = {name for name in DOTTED.findall(text_of(page)) if not name.endswith((".svg", ".toml"))}
    for name in names:
        try:
            resolved(name)
        except ImportError as error:
            pytest.fail(f"{page.name} names {name}: {error}")


@EACH_PAGE
def test_every_command_takes_the_options_that_are_named(page):
    """`confroute COMMAND --option`, of whatever subcommand."""
    known = parsers()
    for line in COMMAND.findall(text_of(page)):
        words = line.split("#")[0].replace("|", " ").split()
        name = words[0].rstrip(",")
        assert name in known, f"{page.name}: confroute {line}"
        deeper = f"{name} {words[1]}" if len(words) > 1 else name
        options = known.get(deeper, known[name])._option_string_actions
        for option in re.findall(r"(?<!\S)--[a-z0-9][a-z0-9-]*", " ".join(words)):
            assert option in options, f"{page.name}: confroute {line}"


@EACH_PAGE
def test_every_file_and_target_that_is_named_exists(page):
    """Files by their path from the root, and `make TARGET`."""
    text, makefile = text_of(page), (ROOT / "Makefile").read_text(encoding="utf-8")
    for name in FILES.findall(text):
        assert (ROOT / name).exists(), f"{page.name}: {name}"
    for target in re.findall(r"(?:`|^\$ )make ([a-z-]+)", text, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{page.name}: make {target}"


def test_names_that_are_gone_are_found():
    """The checks above see what they look for."""
    assert DOTTED.findall("see `confroute.no.such`, langchain_confroute.chat.") == [
        "confroute.no.such",
        "langchain_confroute.chat",
    ]
    with pytest.raises(ImportError):
        resolved("confroute.no.such")
    assert "judge grade" in parsers()
