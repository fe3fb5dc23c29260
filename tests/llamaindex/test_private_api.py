"""What is not the host's public API is used in one file."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from llama_index.core.llms.function_calling import FunctionCallingLLM

import llamaindex_confroute

PACKAGE = Path(llamaindex_confroute.__file__).parent
FILES = sorted(path for path in PACKAGE.glob("*.py") if path.name != "compat.py")
# A subclass may call and override its own base class's; these are other models' insides.
INSIDES = {name for name in dir(FunctionCallingLLM) if name.startswith("_") and not name.startswith("__")}
# The host's context variables, which its own functions set and read.
VARIABLES = {"active_instrument_tags", "active_span_id"}


def private_uses(source):
    """Imports of private parts, and looks into other objects."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llama_index"):
            names = [*node.module.split("."), *(one.name for one in node.names)]
            yield from (name for name in names if name.startswith("_") or name in VARIABLES)
        if isinstance(node, ast.Attribute) and node.attr in INSIDES and ast.unparse(node.value) != "self":
            yield ast.unparse(node)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_private_parts_of_the_host_stand_in_one_file(path):
    """A new version of LlamaIndex then breaks one file."""
    assert list(private_uses(path.read_text(encoding="utf-8"))) == []


def test_the_one_file_is_where_they_stand():
    """The check finds what it looks for."""
    found = set(private_uses((PACKAGE / "compat.py").read_text(encoding="utf-8")))
    assert found == {*VARIABLES, "llm._extend_messages"}
