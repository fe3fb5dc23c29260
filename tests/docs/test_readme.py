"""The README's code runs, in order, on the local edge and a loopback cloud; what it shows is what was printed."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
KEPT = ROOT / "docs" / "pictures" / "decisions.jsonl"


def blocks(language, text=README):
    """The fenced blocks of one language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


@pytest.mark.usefixtures("openai_server")
def test_every_python_block_runs(tmp_path, monkeypatch, capsys):
    """In one namespace; the loopback cloud stands for the first example's local one, which takes 1.1 GB."""
    monkeypatch.chdir(tmp_path)
    found = blocks("python")
    assert len(found) == 3
    namespace = {}
    for code in found:
        ran = code.replace("local:qwen2.5-coder-1.5b", "openai:gpt-4o-mini")
        exec(compile(ran, "README.md", "exec"), namespace)
    printed = capsys.readouterr().out
    assert printed.count("answer kept") + printed.count("answer not kept") == 2
    assert len(printed.splitlines()) >= 6


def test_the_shown_output_is_that_of_the_front_picture():
    """The lines below the first example are made of the decisions that `make pictures` keeps."""
    kept = [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()]
    lines = [
        f"{one['answer']}\n    {one['decision']['route']}: {one['decision']['reason']}\n" for one in kept
    ]
    assert blocks("text")[0] == "".join(lines)
    assert all(f'"{one["question"]}"' in blocks("python")[0] for one in kept)
    assert {one["decision"]["route"] for one in kept} == {"edge", "cloud"}


def test_a_host_takes_five_lines():
    """As the README's reader counts them."""
    for code in blocks("python")[1:]:
        assert len([line for line in code.splitlines() if line.strip()]) <= 5


def test_the_shown_decision_has_the_fields_of_a_real_one():
    """The JSON of the concepts' page names only fields that decisions have."""
    from confroute.decision import Decision

    page = (ROOT / "docs" / "concepts.md").read_text(encoding="utf-8")
    shown = json.loads(blocks("json", page)[0])
    assert set(shown) <= set(Decision(route="edge", stage="draft", reason="").to_dict())


def test_the_limits_say_what_the_results_say():
    """Counts of runs and benchmarks, against the opening of the page that `make results` writes."""
    opening = (ROOT / "docs" / "results.md").read_text(encoding="utf-8").partition("<!-- /opening -->")[0]
    (runs,) = re.findall(r"(\d+ of \d+) recorded runs", README)
    assert f"{runs} recorded runs" in opening
    ours = [(float(a), float(b)) for a, b in re.findall(r"([\d.]+) on \S+ \(published: ([\d.]+)\)", opening)]
    above = sum(published > mine for mine, published in ours)
    assert f"above ours on {above} of {len(ours)} benchmarks" in README
