"""Commands whose models are behind an OpenAI-compatible server need `openai` and no host: neither LangChain nor LlamaIndex, nor torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

BLOCKED = (
    *("langchain", "langchain_core", "langchain_openai", "langchain_confroute"),
    *("llama_index", "llamaindex_confroute", "torch", "transformers"),
)
RUN = f"""
import sys
for name in {BLOCKED}:
    sys.modules[name] = None
from confroute.cli import main
sys.exit(main(sys.argv[1:]))
"""


def confroute(*arguments, code=0):
    """Run a command where no host can be imported, and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, arguments)], check=False, capture_output=True, text=True
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


@pytest.fixture
def models(openai_server):
    """The same server as edge and cloud, under two names."""
    openai_server.respond = lambda body: ("Paris.", -0.1) if body["model"] == "small" else ("Lyon.", -0.2)
    urls = ("--edge-base-url", openai_server.url, "--cloud-base-url", openai_server.url)
    return ("--edge", "openai:small", "--cloud", "openai:large", *urls)


@pytest.fixture
def prompts(tmp_path):
    """One question with its answer."""
    path = tmp_path / "prompts.jsonl"
    path.write_text(json.dumps({"id": "1", "prompt": "Capital of France?", "reference": "Paris"}) + "\n")
    return path


def test_doctor(models, openai_server):
    """Tools and structured output are tried in OpenAI's own way."""
    told = json.loads(confroute("doctor", *models, "--json"))
    checks = told["tiers"]["edge"]["checks"]
    works = {name: check["ok"] for name, check in checks.items()}
    assert works["answers"] is works["logprobs"] is works["usage"] is True
    assert works["sampling"] is works["tools"] is works["structured output"] is False
    assert told["signals"]["token_logprob"] == "possible"
    assert {"tools", "response_format"} <= {name for body in openai_server.bodies for name in body}


def test_record(models, prompts, tmp_path):
    """A row with both answers and all that a server can tell."""
    out = tmp_path / "run.jsonl"
    confroute("record", prompts, "--out", out, *models, "--samples", "2", "--signals", "token_logprob.mean")
    (row,) = map(json.loads, out.read_text().splitlines())
    assert (row["edge"]["text"], row["edge"]["quality"], row["cloud"]["text"]) == ("Paris.", 1.0, "Lyon.")
    assert row["signals"] == {"token_logprob.mean": pytest.approx(0.1)}
    assert len(row["edge"]["samples"]) == 2


def test_label(models, prompts, tmp_path):
    """By the graded answers."""
    out = tmp_path / "labels.jsonl"
    confroute("label", prompts, "--out", out, *models, "--source", "correctness")
    assert json.loads(out.read_text().splitlines()[0])["winner_model_a"] == 1


def test_judge(models, openai_server, prompts, tmp_path):
    """Grades of a judge behind the same server."""
    out, graded = tmp_path / "run.jsonl", tmp_path / "graded.jsonl"
    rows = [{"id": "1", "prompt": "Capital of France?", "edge": {"text": "Paris."}}]
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    openai_server.respond = lambda body: ("Right.\nSCORE: 10", None)
    judge = ("--judge", "openai:j", "--judge-base-url", openai_server.url)
    confroute("judge", "grade", out, "--out", graded, *judge)
    assert json.loads(graded.read_text())["edge"]["quality"] == 1.0


def test_what_needs_more_says_what(prompts, tmp_path):
    """A local model wants torch, and a name that only LangChain knows LangChain: the smallest extra is named."""
    command = ("record", prompts, "--out", tmp_path / "run.jsonl", "--edge")
    assert "pip install 'confroute[local]'" in confroute(*command, "local:smollm2-135m", code=1)
    assert "pip install 'confroute[agents]'" in confroute(*command, "anthropic:claude-x", code=1)
