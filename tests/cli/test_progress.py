"""What long commands say where nobody watches a bar: lines, no oftener than needed."""

import os
import subprocess
import sys

import pytest

from confroute.cli import progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test moves."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_a_replay_says_how_far_it_is(clock, capsys):
    """A line for every ten seconds, and none for what is done before."""
    with progress.replay_progress("measuring", "signals") as tick:
        for done, now in enumerate((1, 9, 11, 15, 22), start=1):
            clock[0] = float(now)
            tick(done, 5)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines() == ["measuring: 3 of 5 signals", "measuring: 5 of 5 signals"]


def test_the_time_that_is_left_is_told_in_seconds_towards_the_end(clock, capsys):
    """Two minutes or more are told in minutes."""
    with progress.progress(10, unit="calls") as tick:
        for done in range(1, 11):
            clock[0] = 20.0 * done
            tick(done != 2)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "1 of 10 calls, 0 failed, about 3 minutes left"
    assert lines[3:5] == [
        "4 of 10 calls, 1 failed, about 2 minutes left",
        "5 of 10 calls, 1 failed, about 100 s left",
    ]
    assert lines[-1] == "9 of 10 calls, 1 failed, about 20 s left"


def test_signals_are_told_as_they_are_measured():
    """Each of them, up to the last."""
    from confroute.recording import Row, Side
    from confroute.recording.evaluation import evaluate

    rows = [Row(id=str(i), edge=Side(text="7", logprobs=(-i, -i), quality=i < 2)) for i in range(4)]
    told = []
    evaluate(rows, resamples=10, progress=lambda done, total: told.append((done, total)))
    assert told == [(at, len(told)) for at in range(1, len(told) + 1)]
    assert len(told) > 1


@pytest.mark.parametrize(("given", "kept"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_of_torch_do_not_spin_while_they_wait(given, kept):
    """A command says so before torch is loaded, unless the user has said otherwise."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = (
        "import os; from confroute.cli import main; main(['models']); print(os.environ['OMP_WAIT_POLICY'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", command],
        check=True,
        capture_output=True,
        text=True,
        env=environment if given is None else {**environment, "OMP_WAIT_POLICY": given},
    )
    assert done.stdout.splitlines()[-1] == kept
