"""The README's code runs, in order, on the local edge and a loopback cloud."""

import re
from pathlib import Path

import pytest

README = Path(__file__).parents[2] / "README.md"


def blocks(language):
    """The fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.usefixtures("openai_server")
def test_every_python_block_runs(tmp_path, monkeypatch, capsys):
    """All blocks share one namespace, as a reader's notebook does, and print decisions of both hosts."""
    monkeypatch.chdir(tmp_path)
    found = blocks("python")
    assert len(found) == 5
    namespace = {}
    for code in found:
        exec(compile(code, str(README), "exec"), namespace)
    printed = capsys.readouterr().out
    assert len(namespace["uncertainty"]) == len(namespace["edge_right"]) == 8
    assert None not in namespace["uncertainty"], "every draft is measured and kept, whatever its length"
    assert printed.count("answer kept") + printed.count("answer not kept") == 4
    assert (tmp_path / "policy.json").exists()


def test_the_host_examples_are_ten_lines():
    """An example that promises ten lines has at most eleven lines of code."""
    for code in blocks("python")[:2]:
        lines = [line for line in code.splitlines() if line.strip()]
        assert len(lines) <= 11


def test_the_shown_decision_has_the_fields_of_a_real_one():
    """The JSON in the README names only fields that decisions have."""
    import json

    from confroute.decision import Decision

    shown = json.loads(blocks("json")[0])
    assert set(shown) <= set(Decision(route="edge", stage="draft", reason="").to_dict())
