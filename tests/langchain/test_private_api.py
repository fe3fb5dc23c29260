"""What is not the host's public API is used in one file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from langchain_core.language_models import BaseChatModel

import langchain_confroute

PACKAGE = Path(langchain_confroute.__file__).parent
FILES = sorted(path for path in PACKAGE.glob("*.py") if path.name != "compat.py")
# A subclass may call and override its own base class's; these are other models' insides.
INSIDES = {name for name in dir(BaseChatModel) if name.startswith("_") and not name.startswith("__")}


def private_uses(source):
    """Imports of private parts, and looks into other objects."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(
            ("langchain_core", "langgraph")
        ):
            names = [*node.module.split("."), *(one.name for one in node.names)]
            yield from (f"{node.module}: {name}" for name in names if name.startswith("_"))
        if isinstance(node, ast.Attribute) and node.attr in INSIDES and not is_own(node.value):
            yield ast.unparse(node)


def is_own(owner):
    return ast.unparse(owner) in {"self", "super()", "cls"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_private_parts_of_the_host_stand_in_one_file(path):
    """A new version of LangChain then breaks one file."""
    assert list(private_uses(path.read_text(encoding="utf-8"))) == []


def test_the_one_file_is_where_they_stand():
    """The check finds what it looks for."""
    found = list(private_uses((PACKAGE / "compat.py").read_text(encoding="utf-8")))
    assert "self._chat._generate_with_cache" in found
    assert "langchain_core.tracers._streaming: _StreamingCallbackHandler" in found
