"""The label pipeline on a local Ray cluster."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
COMMAND = [sys.executable, "-c", "import sys; from confroute.cli import main; sys.exit(main())", "label"]
MODELS = [
    "--edge",
    "scripted_models:edge",
    "--cloud",
    "scripted_models:cloud",
    "--same",
    "text",
    "--samples",
    "4",
]


def run_label(data, out, *more, **environment):
    """Run `confroute label` in a process of its own, as Ray takes over signals and standard output."""
    command = [*COMMAND, str(data), "--out", str(out), *MODELS, "--json", *more]
    done = subprocess.run(
        command,
        env={
            **os.environ,
            "PYTHONPATH": str(HERE),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_raylet_start_wait_time_s": "200",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="ray is not installed: pip install 'confroute[ray]'"
)
def test_two_workers_and_a_killed_one_give_the_local_output(tmp_path):
    """A worker is killed in the middle of its block: the file is byte for byte that of the local engine."""
    data = tmp_path / "prompts.jsonl"
    data.write_text(
        "".join(json.dumps({"id": f"p{i}", "prompt": f"This is prompt {i}"}) + "\n" for i in range(40))
    )
    local, ray, died = tmp_path / "local.jsonl", tmp_path / "ray.jsonl", tmp_path / "died"
    run_label(data, local)
    summary = run_label(data, ray, "--engine", "ray", "--workers", "2", DIE_ONCE=str(died))
    assert died.exists(), "no worker was killed"
    assert (summary["labelled"], summary["failed"]) == (40, 0)
    assert ray.read_bytes() == local.read_bytes()
    assert run_label(data, ray, "--engine", "ray", "--workers", "2")["kept"] == 40


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="ray is installed")
def test_without_ray_the_command_says_what_to_install(tmp_path, capsys):
    """An error with the install command, before any model is called."""
    from confroute.cli import main

    data = tmp_path / "p.jsonl"
    data.write_text('{"id": "1", "prompt": "?"}\n')
    arguments = [
        str(data),
        "--out",
        str(tmp_path / "o"),
        "--edge",
        "openai:a",
        "--cloud",
        "openai:b",
        "--engine",
        "ray",
    ]
    assert main(["label", *arguments]) == 1
    assert "pip install 'confroute[ray]'" in capsys.readouterr().err
