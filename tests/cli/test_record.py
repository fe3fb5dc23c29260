"""`confroute record` with real models: what a row holds, going on after a kill, errors kept and done again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("langchain_core")

from confroute.cli import main
from confroute.recording import read_rows
from confroute.recording.grade import graded

QUESTION = "Where did the cat sit?\nA. on the mat\nB. on the bed\nAnswer:"


@pytest.fixture(scope="session")
def folder(tiny_folder: Path) -> Path:
    """Folder of a tiny random chat model."""
    return tiny_folder


def write(path: Path, count: int, **more: Any) -> Path:
    """A file of prompts."""
    rows = [
        {"id": f"row/{i}", "dataset": "cats", "prompt": QUESTION, "reference": "A", **more}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def record(folder: Path, tmp_path: Path) -> Callable[..., int]:
    """Records two prompts with the tiny model into run.jsonl."""

    def run(*more: str, count: int = 2, edge: str | None = None) -> int:
        prompts = write(tmp_path / "prompts.jsonl", count)
        out, model = tmp_path / "run.jsonl", edge or f"local:{folder}"
        return main(["record", str(prompts), "--out", str(out), "--edge", model, "--max-tokens", "6", *more])

    return run


def test_a_row_holds_all_that_was_asked_for(record: Callable[..., int], tmp_path: Path) -> None:
    """Draft, samples, log-probabilities, options, signals, usage, latencies, cost and hidden states."""
    from safetensors.numpy import load_file

    more = ["--samples", "3", "--dropout", "2", "--dropout-rates", "0.1", "--hidden", "0", "2"]
    assert record(*more, "--edge-price", "1000000,2000000", "--limit", "1") == 0
    (row,) = read_rows(tmp_path / "run.jsonl")
    edge = row.edge
    assert row.id == "row/0"
    assert len(edge.samples) == 3
    assert edge.logprobs is not None
    assert edge.tokens is not None
    assert len(edge.logprobs) == len(edge.tokens) > 0
    # A sample may end at once: then there is nothing to score.
    assert all(sample.logprobs or not sample.text for sample in edge.samples)
    assert edge.quality in (0.0, 1.0)
    assert set(edge.extra["options"]) == {"A", "B"}
    tops = edge.extra["top_logprobs"]
    assert [len(top) for top in tops] == [10] * len(edge.tokens)  # type: ignore[arg-type,union-attr]
    assert row.signals["token_entropy"] is not None
    assert edge.usage is not None
    sent, made = edge.usage["input_tokens"], edge.usage["output_tokens"]
    assert edge.cost_usd == sent + 2 * made
    assert edge.latency_s is not None
    assert {"draft", "sample", "score", "hidden"} <= set(row.extra["latency_s"])
    assert row.signals["mc_dropout@0.1.mutual_information"] is not None
    assert row.signals["token_logprob.mean"] == pytest.approx(-sum(edge.logprobs) / len(edge.logprobs))
    states = load_file(tmp_path / row.extra["hidden"]["file"])  # type: ignore[index,call-overload]
    assert {name: state.shape for name, state in states.items()} == {"layer.0": (32,), "layer.2": (32,)}


def test_only_the_chosen_signals_are_measured(
    record: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    """Their alternatives are asked for and kept, none where none is read; an unknown name is refused."""
    assert record("--limit", "1", "--signals", "token_margin", "token_logprob.mean") == 0
    assert record("--signals", "token_logprob.mean") == 0
    first, second = read_rows(tmp_path / "run.jsonl")
    assert [*first.signals] == ["token_margin", "token_logprob.mean"]
    assert {len(top) for top in first.edge.extra["top_logprobs"]} == {2}  # type: ignore[arg-type,union-attr]
    assert [*second.signals] == ["token_logprob.mean"]
    assert "top_logprobs" not in second.edge.extra
    assert record("--signals", "token_magic", count=3) == 1
    assert "--signals token_magic: expected names of token_logprob.mean" in capsys.readouterr().err


def test_recorded_dropout_is_that_of_the_function(
    record: Callable[..., int], folder: Path, tmp_path: Path
) -> None:
    """Sharing the reading of the prompt changes no number."""
    from confroute.models.dropout import dropout_passes
    from confroute.models.local import LocalModel
    from confroute.signals.mc_dropout import decompose
    from confroute.types import Message

    assert record("--dropout", "3", "--dropout-rates", "0.1", "--limit", "1") == 0
    (row,) = read_rows(tmp_path / "run.jsonl")
    ask = [Message(role="user", text=QUESTION)]
    passes = dropout_passes(LocalModel.load(folder), ask, row.edge.text or "", passes=3, rate=0.1)
    for name, value in decompose(passes).answer.items():
        assert row.signals[f"mc_dropout@0.1.{name}"] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_recording_again_records_nothing_twice(
    record: Callable[..., int], tmp_path: Path, capsys: Any
) -> None:
    """A finished run stays as it is; a larger limit goes on behind it."""
    assert record("--limit", "1") == 0
    first = (tmp_path / "run.jsonl").read_bytes()
    assert record("--limit", "1") == 0
    assert (tmp_path / "run.jsonl").read_bytes() == first
    assert record(count=3) == 0
    assert (tmp_path / "run.jsonl").read_bytes().startswith(first)
    assert [row.id for row in read_rows(tmp_path / "run.jsonl")] == ["row/0", "row/1", "row/2"]
    assert "2 rows recorded, 1 there before, 0 with an error" in capsys.readouterr().out


@pytest.mark.slow
def test_a_killed_run_goes_on_without_loss_or_repetition(folder: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle, twice: in the end each prompt stands in the run once, and all lines are whole."""
    prompts, out = write(tmp_path / "prompts.jsonl", 40), tmp_path / "run.jsonl"
    command = [sys.executable, "-m", "confroute", "record", str(prompts), "--out", str(out)]
    command += ["--edge", f"local:{folder}", "--max-tokens", "60", "--samples", "2", "--concurrency", "2"]
    for least in (3, 8):
        process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 90
        while not (out.exists() and out.read_bytes().count(b"\n") >= least):
            assert process.poll() is None, "the run ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    before = out.read_bytes()
    assert before.count(b"\n") < 40
    # What a crash of the machine may leave: half a line.
    out.write_bytes(before + b'{"id": "row/39", "edge"')
    assert main(command[3:]) == 0
    rows = list(read_rows(out))
    assert sorted(row.id for row in rows) == sorted(f"row/{i}" for i in range(40))
    assert out.read_bytes().startswith(before)


def test_errors_are_kept_and_done_again(folder: Path, tmp_path: Path, capsys: Any) -> None:
    """A prompt longer than the context window: its row holds the error, the others are whole, a retry repeats it."""
    path, out = tmp_path / "mixed.jsonl", tmp_path / "mixed-run.jsonl"

    def run(long: str, *more: str) -> str:
        rows = [{"id": "long", "prompt": long}, {"id": "short", "prompt": QUESTION}]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        command = ["record", str(path), "--out", str(out), "--edge", f"local:{folder}", "--max-tokens", "4"]
        assert main([*command, *more]) == 0
        return str(capsys.readouterr().out)

    assert "2 rows recorded, 0 there before, 1 with an error" in run("cat " * 400)
    failed, whole = read_rows(out)
    assert (failed.edge.error or "").startswith("RequestError: the prompt has")
    assert failed.edge.text is None
    assert whole.edge.error is None
    assert "0 rows recorded, 2 there before" in run("shorter now")
    assert "1 row recorded, 1 there before, 0 with an error" in run("shorter now", "--retry-errors")
    assert {row.id: row.edge.error for row in read_rows(out)} == {"long": None, "short": None}


def test_a_cloud_of_the_prompt_file_is_kept_and_one_that_is_given_is_asked(
    folder: Path, tmp_path: Path
) -> None:
    """Recorded quality is taken over; with --cloud the row holds the cloud's own answer, without samples."""
    prompts = write(tmp_path / "p.jsonl", 1, cloud={"model": "far", "quality": 1.0})
    command = ["record", str(prompts), "--edge", f"local:{folder}", "--max-tokens", "4"]
    assert main([*command, "--out", str(tmp_path / "kept.jsonl")]) == 0
    assert main([*command, "--out", str(tmp_path / "asked.jsonl"), "--cloud", f"local:{folder}"]) == 0
    (kept,), (asked,) = (list(read_rows(tmp_path / f"{name}.jsonl")) for name in ("kept", "asked"))
    assert kept.cloud is not None
    assert (kept.cloud.model, kept.cloud.quality, kept.cloud.text) == ("far", 1.0, None)
    assert asked.cloud is not None
    assert asked.cloud.text == asked.edge.text
    assert "samples" not in asked.to_dict()["cloud"]


def test_a_server_is_recorded(tmp_path: Path, openai_server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OpenAI-compatible server over loopback: text, tokens' log-probabilities and usage come with the row."""
    pytest.importorskip("langchain_openai")
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    prompts = write(tmp_path / "p.jsonl", 3)
    out = tmp_path / "run.jsonl"
    command = ["record", str(prompts), "--out", str(out), "--edge", "openai:m", "--concurrency", "3"]
    assert main([*command, "--edge-base-url", openai_server.url, "--dropout", "2"]) == 0
    rows = list(read_rows(out))
    assert len(rows) == 3
    for row in rows:
        assert row.edge.text
        assert row.edge.logprobs
        assert row.edge.usage is not None
        assert row.signals["mc_dropout@0.1.total"] is None
        assert "m is not in this process" in row.extra["unmeasured"]["score"]  # type: ignore[index,call-overload,operator]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--edge", "nowhere:thing"], "No module named 'nowhere'"),
        (["--edge", "smollm2-135m"], "did you mean 'local:smollm2-135m'?"),
        (["--edge", "json:__doc__"], "is a string: expected a chat model, a TextModel or a function"),
        (["--edge", "os:environ"], "is not a model: expected"),
        (["--samples", "-1"], "--samples is -1: expected 0 or more"),
        (["--edge-price", "3"], "expected two to four numbers, IN,OUT"),
        (["--edge-price", "no-such-model"], "no list price of model 'no-such-model'"),
        (["--out", "x.jsonl.gz"], "expected a plain file"),
        (["--edge", "local:not-a-model"], "not-a-model"),
    ],
)
def test_misuse_is_refused(folder: Path, tmp_path: Path, capsys: Any, more: list[str], said: str) -> None:
    """Before any row is written."""
    prompts, out = write(tmp_path / "p.jsonl", 1), tmp_path / "run.jsonl"
    command = ["record", str(prompts), "--out", str(out), "--edge", f"local:{folder}"]
    assert main([*command, *more]) == 1
    assert said in capsys.readouterr().err
    assert not out.exists()


def test_grading() -> None:
    """Numbers by value, options by letter, texts normalised; a missing answer is wrong."""
    assert graded("7", "7.0 apples", "How many apples?", 7) == 1.0
    assert graded("8", "8", "How many apples?", 7) == 0.0
    assert graded("B", "B. on the bed", QUESTION, "A") == 0.0
    assert graded(None, "no idea", QUESTION, "A") == 0.0
    assert graded(None, "The answer is: **Paris**.", "Capital?", "paris") == 1.0
    assert graded("A", "A", QUESTION, None) is None
    assert graded(None, "It is in Paris.", "Where?", ["Lyon", "Paris"]) == 1.0
    assert graded(None, "It is in Parisia.", "Where?", ["Lyon", "Paris"]) == 0.0


def test_a_list_of_references_is_graded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recorded rows carry a quality wherever `confroute label` would find one."""
    monkeypatch.setattr("sys.path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scripted_edge.py").write_text(
        "from langchain_confroute.testing import ScriptedChat\nedge = ScriptedChat.of('It was Ada Lovelace.')\n"
    )
    prompt = {"id": "a", "prompt": "Who?", "reference": ["Ada Lovelace", "Lovelace"]}
    Path("p.jsonl").write_text(json.dumps(prompt) + "\n")
    command = ["record", "p.jsonl", "--out", "run.jsonl", "--edge", "scripted_edge:edge", "--signals"]
    assert main(command) == 0
    (row,) = read_rows("run.jsonl")
    assert row.edge.quality == 1.0


def test_a_run_that_came_to_nothing_is_no_success(folder: Path, tmp_path: Path, capsys: Any) -> None:
    """Exit code 1 if every row ended in an error, so that a script stops there."""
    path, out = tmp_path / "long.jsonl", tmp_path / "run.jsonl"
    path.write_text(json.dumps({"id": "long", "prompt": "cat " * 400}) + "\n")
    command = ["record", str(path), "--out", str(out), "--edge", f"local:{folder}", "--max-tokens", "4"]
    assert main(command) == 1
    assert "1 row recorded, 0 there before, 1 with an error" in capsys.readouterr().out
    assert main(command) == 0  # nothing left to do
