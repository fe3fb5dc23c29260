"""`confroute doctor` and `confroute record` against real servers."""

import json
import sys

import pytest

from confroute.cli import main
from confroute.recording import read_rows

pytestmark = pytest.mark.slow


@pytest.fixture
def doctor(tmp_path, monkeypatch, capsys):
    """The exit code and the JSON of the command, with a function as the cloud."""
    (tmp_path / "cloud_of_this_test.py").write_text("def answer(messages):\n    return '4'\n")
    monkeypatch.syspath_prepend(tmp_path)

    def examine(server, model):
        cloud = ["--cloud", "cloud_of_this_test:answer"]
        code = main(["doctor", "--edge", f"openai:{model}", "--edge-base-url", server.url, *cloud, "--json"])
        return code, json.loads(capsys.readouterr().out)

    yield examine
    sys.modules.pop("cloud_of_this_test", None)


def abilities(found):
    """What works on the edge, by name, where it could be found out."""
    checks = found["tiers"]["edge"]["checks"]
    return {name: check["ok"] for name, check in checks.items() if check["ok"] is not None}


def test_the_doctor_finds_what_a_server_can_do(server, doctor):
    """The small model calls no tool that it was shown no call of; llama.cpp alone is bound by a schema and says its context."""
    code, found = doctor(server, server.model)
    assert code == 0
    assert abilities(found) == {
        "answers": True,
        "logprobs": server.scores,
        "usage": True,
        "sampling": True,
        "streaming": True,
        "tools": False,
        "structured output": server.scores,
        "several at once": False,
        "usage in streams": True,
    } | ({"context": True} if server.scores else {})
    assert (found["signals"]["token_logprob"] == "possible") is server.scores
    assert found["signals"]["self_consistency"] == "possible"
    signals = [gate["signal"]["class"] for gate in found["policy"]["policy"]["gates"]]
    assert signals == (["TokenLogprob", "SelfConsistency"] if server.scores else ["SelfConsistency"])


def test_the_doctor_finds_a_model_that_cannot_be_measured(transformers_serve, doctor):
    """No log-probabilities, and samples that never differ: nothing to route by, and exit code 1."""
    code, found = doctor(transformers_serve, "greedy")
    assert (code, found["policy"]) == (1, None)
    assert abilities(found)["sampling"] is False
    assert "ignored temperature" in found["tiers"]["edge"]["checks"]["sampling"]["detail"]
    assert "do not differ" in found["signals"]["self_consistency"]


PROMPTS = {
    "What is the capital of France?": ("Paris", "The capital of France is Paris.", 1.0),
    "How many legs do 3 dogs have? Give the number.": ("12", "The answer is 3.", 0.0),
}


def test_rows_hold_what_the_server_said(server, tmp_path):
    """Texts, grades, usage and samples; log-probabilities and what is measured by them where there are any."""
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "run.jsonl"
    rows = [{"id": prompt, "prompt": prompt, "reference": PROMPTS[prompt][0]} for prompt in PROMPTS]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    edge = ["--edge", f"openai:{server.model}", "--edge-base-url", server.url]
    command = ["record", str(prompts), "--out", str(out), *edge, "--max-tokens", "30", "--samples", "3"]
    assert main(command) == 0
    recorded = list(read_rows(out))
    assert [row.prompt for row in recorded] == list(PROMPTS)
    for row in recorded:
        said = server.post(messages=[{"role": "user", "content": row.prompt}], temperature=0)
        assert (row.edge.text, row.edge.quality) == PROMPTS[row.prompt][1:]
        assert row.edge.text == said["choices"][0]["message"]["content"]
        assert row.edge.usage["input_tokens"] == said["usage"]["prompt_tokens"]
        assert row.edge.usage["output_tokens"] == said["usage"]["completion_tokens"]
        assert (row.edge.error, len(row.edge.samples)) == (None, 3)
        assert row.signals["self_consistency"] is not None
        for column in ("token_logprob.mean", "token_entropy", "token_margin"):
            assert (row.signals[column] is not None) is server.scores
        if server.scores:
            assert "".join(row.edge.tokens) == row.edge.text
            assert len(row.edge.logprobs) == row.edge.usage["output_tokens"]
        else:
            assert (row.edge.logprobs, row.edge.tokens) == (None, None)
