"""The label pipeline with real models: a run that was killed ends with the same files as an unbroken one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-c", "import sys; from confroute.cli import main; sys.exit(main())", "label"]
MODELS = ["--edge", "local:smollm2-135m", "--cloud", "local_models:calm"]
HOW = ["--samples", "3", "--max-tokens", "8", "--workers", "2"]
QUESTIONS = (
    "What is the capital of France?",
    "What is 17 plus 25?",
    "Name a colour.",
    "Who wrote Hamlet?",
    "Is the sun a star?",
    "What do bees make?",
    "How many days has a week?",
    "Where do penguins live?",
    "What is the opposite of cold?",
)


def start(data, folder):
    """Start `confroute label`, which writes labels and answers to `folder`."""
    folder.mkdir(exist_ok=True)
    # On a busy machine the threads of one pass cost more by waiting for each other than they save.
    environment = {**os.environ, "PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
    files = ["--out", str(folder / "labels.jsonl"), "--keep", str(folder / "kept.jsonl")]
    return subprocess.Popen([*COMMAND, str(data), *files, *MODELS, *HOW], env=environment)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_run_of_local_models_that_was_killed_ends_as_an_unbroken_one(tmp_path):
    """SIGKILL while models answer, then the same command: no label or answer is lost, repeated or different."""
    pytest.importorskip("torch")
    data = tmp_path / "prompts.jsonl"
    data.write_text("".join(json.dumps({"id": f"q{i}", "prompt": q}) + "\n" for i, q in enumerate(QUESTIONS)))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(data, whole).wait() == 0
    running = start(data, cut)
    while not (cut / "labels.jsonl").exists() or (cut / "labels.jsonl").read_bytes().count(b"\n") < 3:
        assert running.poll() is None, "the run ended before it was killed"
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    assert 3 <= (cut / "labels.jsonl").read_bytes().count(b"\n") < len(QUESTIONS)
    assert start(data, cut).wait() == 0
    labels = [json.loads(line) for line in (whole / "labels.jsonl").read_text().splitlines()]
    assert [one["id"] for one in labels] == [f"q{i}" for i in range(len(QUESTIONS))]
    assert len({one["se_a"] for one in labels} | {one["se_b"] for one in labels}) > len(QUESTIONS)
    for name in ("labels.jsonl", "kept.jsonl"):
        assert (cut / name).read_bytes() == (whole / name).read_bytes()
