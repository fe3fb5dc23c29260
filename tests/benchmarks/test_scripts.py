"""The scripts of benchmarks say how they are called, and what they need."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("[!_]*.py"))
ON_RECORDED_DATA = (
    *(
        "cache.py",
        "guarantee.py",
        "head_doubt.py",
        "judged_labels.py",
        "objective.py",
        "promise_halves.py",
        "results.py",
        "select_heads.py",
        "selection_share.py",
        "stopping.py",
        "useful.py",
        "verdicts.py",
    ),
    *("real_edge.py", "recorded_rows.py"),
)
# Those that write want to know where to.
OUT = {"real_edge.py", "recorded_rows.py"}


def ran(name, folder, *arguments, data):
    return subprocess.run(
        [sys.executable, str(FOLDER / name), *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "CONFROUTE_DATA": data},
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_tells_what_it_does(name, tmp_path):
    """Without the data that it needs."""
    told = ran(name, tmp_path, "--help", data="nowhere")
    assert told.returncode == 0
    assert told.stdout.count("\n") > 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_RECORDED_DATA)
def test_a_script_without_its_data_names_it(name, tmp_path):
    """In a line, which says where the data is looked for."""
    told = ran(name, tmp_path, *(["out.jsonl"] if name in OUT else []), data="nowhere")
    assert told.returncode != 0
    assert "Traceback" not in told.stderr
    assert "nowhere" in told.stderr
    assert "`recorded`" in told.stderr
