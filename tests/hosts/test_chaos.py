"""A few hundred calls through the three hosts while their models fail in turn, or their processes and disk: `make chaos`, small."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("langchain_openai")
pytest.importorskip("llama_index.llms.openai_like")
CHAOS = Path(__file__).parents[2] / "benchmarks" / "chaos.py"


@pytest.fixture(scope="module")
def told():
    """What it printed of 192 calls, every fault once in each form; in a process whose end closes the clients' sockets."""
    options = ["--calls", "192", "--block", "4", "--timeout-s", "0.7", "--json"]
    done = subprocess.run([sys.executable, CHAOS, *options], capture_output=True, check=True)
    return json.loads(done.stdout)


def test_no_call_is_lost(told):
    """Each of 192 ends in an answer or in one of confroute's errors."""
    assert sum(row["calls"] for row in told["forms"].values()) == 192
    assert [row["lost"] for row in told["forms"].values()] == [[]] * 6
    assert all(row["answered"] for row in told["forms"].values())


def test_no_route_is_recorded_wrong(told):
    """Every answer is the one that the server of its route sent for that call, by exactly one decision."""
    assert [row["misrecorded"] for row in told["forms"].values()] == [[]] * 6


def test_no_private_text_reaches_the_cloud(told):
    """By the log of the server that would have received it, which holds other calls."""
    assert told["indiscreet"] == []
    assert any(entry["tier"] == "cloud" for entry in told["log"])
    assert any(entry["private"] for entry in told["log"])


@pytest.mark.slow
def test_killed_processes_and_full_disks_lose_no_record():
    """360 calls: each ends, in an answer or in an error of ours; logs can be read, the budget is kept, private texts stay."""
    pytest.importorskip("resource")
    script = CHAOS.with_name("chaos_kills.py")
    done = subprocess.run(
        [sys.executable, script, "--calls", "360", "--json"], capture_output=True, check=True
    )
    told = json.loads(done.stdout)
    assert [row["calls"] for row in told.values()] == [120] * 3
    assert [(row["lost"], row["unlogged"]) for row in told.values()] == [([], [])] * 3
    assert [(row["overspent"], row["indiscreet"]) for row in told.values()] == [(0, 0)] * 3
    assert all(row["torn"] == row["halves"] for row in told.values())
    assert all(row["kills"] and row["full"] and row["cloud"] for row in told.values())
    assert sum(row["errors"].get("LogError", 0) for row in told.values())
