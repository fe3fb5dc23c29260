"""`confroute fit` and `confroute apply`: files, JSON and errors."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from confroute.cli import main
from confroute.recording import Row, Side, read_rows, write_rows

DATA = Path(os.environ.get("CONFROUTE_DATA", Path(__file__).parents[2] / "../shared/data"))


@pytest.fixture
def run(tmp_path):
    """A recorded run of 500 rows with one recorded signal and no costs."""
    generator = np.random.default_rng(0)
    u = generator.random(500)
    rows = [
        Row(
            id=str(i),
            dataset="a" if i % 2 else "b",
            edge=Side(quality=float(x < 0.7)),
            cloud=Side(quality=1.0, cost_usd=0.002),
            signals={"mine": float(x)},
        )
        for i, x in enumerate(u)
    ]
    write_rows(tmp_path / "run.jsonl.gz", rows)
    return tmp_path / "run.jsonl.gz"


def test_fit_writes_a_policy_and_its_report_and_prints_the_documented_json(run, tmp_path, capsys):
    """Exactly the keys of the format on standard output; `apply` measures the same there."""
    out = tmp_path / "policy.json"
    command = ["fit", str(run), "--out", str(out), "--max-loss", "0.02", "--confidence", "0.9", "--json"]
    assert main(command) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["policy", "certificate", "expected", "promise_curve", "adverse_selection", "notes"]
    assert told["promise_curve"][0]["alpha"] < 0.02
    assert told["certificate"] == {
        **{"loss": "regret", "alpha": 0.02, "delta": 0.1},
        **{"n": 500, "method": "ltt-hypergeometric"},
    }
    assert list(told["expected"]) == ["cloud_share", "quality", "quality_ci", "cost_per_1k"]
    assert told["expected"]["cost_per_1k"] is None, "the edge's cost was not recorded"
    assert told["expected"]["quality"] >= 0.98
    assert "<svg" in out.with_suffix(".html").read_text()
    assert main(["apply", str(out), str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["expected"] == told["expected"]
    assert main(["apply", str(out), str(run), "--edge-price", "0,0", "--dataset", "a"]) == 0
    assert "250 recorded calls" in (shown := capsys.readouterr().out)
    assert "USD" in shown


@pytest.mark.parametrize(
    ("goal", "share"),
    [
        (["--cloud-share", "0.3"], 0.3),
        (["--max-cost-per-1k", "0.5", "--edge-price", "0,0"], 0.25),
        (["--min-quality", "0.9", "--edge-price", "0,0"], 0.2),
        (["--weights", "quality=1,cloud_share=0.1"], 0.3),
        (["--weights", "quality=1,cost=0.2", "--edge-price", "0,0"], 0.3),
    ],
)
def test_every_goal(goal, share, run, tmp_path, capsys):
    """The share of cloud calls that each goal leads to on errors above 0.7."""
    assert main(["fit", str(run), "--out", str(tmp_path / "p.json"), *goal]) == 0
    shown = capsys.readouterr().out
    got = float(shown.split("\ncloud share ")[1].split("%")[0]) / 100
    # `mine` is uniform: shares are known up to the scatter of 500 draws.
    assert got == pytest.approx(share, abs=0.05)
    assert "always cloud: quality 1.0000" in shown


def test_a_chosen_signal_says_why_it_may_not_be_the_first_of_signals(run, tmp_path, capsys):
    """`signals` sorts by another number on other rows; a signal that was named was not chosen."""
    rows = list(read_rows(run))
    for at, row in enumerate(rows):
        row.signals["noise"] = at % 7 / 7
    write_rows(run, rows)
    command = ["fit", str(run), "--out", str(tmp_path / "p.json"), "--cloud-share", "0.3", "--replay-only"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "150 more to choose the signal on" in shown
    assert "signal mine" in shown
    assert "on those 150 calls; `confroute signals` sorts by AUROC on all calls" in shown
    assert main([*command, "--signal", "mine"]) == 0
    assert "APGR" not in capsys.readouterr().out


def test_a_refused_promise_says_in_json_what_could_be_promised(run, tmp_path, capsys):
    """The least loss with its curve, and the rows that the goal takes; the exit code is that of any error."""
    goal = ["--max-loss", "0.004", "--dataset", "a", "--json"]
    assert main(["fit", str(run), "--out", str(tmp_path / "p.json"), *goal]) == 1
    told = capsys.readouterr()
    refused = json.loads(told.out)["refused"]
    assert (refused["alpha"], refused["n"]) == (0.004, 250)
    assert refused["promise_curve"][0]["alpha"] > 0.004
    assert refused["needed"]["rows"] > 250
    assert f"you need about {refused['needed']['rows']} calibration rows" in told.err
    assert not (tmp_path / "p.json").exists()


def test_a_quality_is_expected_or_promised(run, tmp_path, capsys):
    """With a confidence it is certified; without one the note says that it is not. A confidence without a promise is refused."""
    fit = ["fit", str(run), "--out", str(tmp_path / "p.json"), "--edge-price", "0,0"]
    assert main([*fit, "--min-quality", "0.9", "--confidence", "0.9", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["certificate"] == {
        **{"loss": "shortfall", "alpha": 0.1, "delta": 0.1},
        **{"n": 500, "method": "ltt-binomial"},
    }
    assert main([*fit, "--min-quality", "0.9", "--json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    assert expected["certificate"] is None
    assert any("an expectation, not a promise" in note for note in expected["notes"])
    assert expected["expected"]["cloud_share"] < told["expected"]["cloud_share"]
    assert main([*fit, "--cloud-share", "0.3", "--confidence", "0.9"]) == 1
    assert "--confidence works only with" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["fit", "RUN", "--out", "OUT", "--max-loss", "0.001"], "at least"),
        (["fit", "RUN", "--out", "OUT", "--weights", "colour=1"], "expected NAME=NUMBER"),
        (["fit", "RUN", "--out", "OUT", "--weights", "quality=x"], "expected NAME=NUMBER"),
        (["fit", "RUN", "--out", "OUT", "--cloud-share", "0.3", "--max-p95-latency", "1"], "works only with"),
        (
            ["fit", "RUN", "--out", "OUT", "--cloud-share", "0.3", "--cloud-price", "1,"],
            "expected two to four numbers",
        ),
        (["fit", "RUN", "--out", "TAKEN", "--cloud-share", "0.3"], "taken.json: "),
        (["fit", "RUN", "--out", "OUT", "--max-cost-per-1k", "1"], "usd_per_1k is not known"),
        (["fit", "missing", "--out", "OUT", "--cloud-share", "0.3"], "missing"),
        (["apply", "missing", "RUN"], "missing: no such file"),
        (["apply", "RUN", "RUN"], "policy file"),
    ],
)
def test_errors_say_what_to_do(command, words, run, tmp_path, capsys):
    """One line on standard error and exit code 1, never a traceback."""
    # Its report cannot take the place of a folder.
    (tmp_path / "taken.html").mkdir()
    places = {"RUN": str(run), "OUT": str(tmp_path / "p.json"), "TAKEN": str(tmp_path / "taken.json")}
    assert main([places.get(part, part) for part in command]) == 1
    assert words in capsys.readouterr().err


def test_a_real_run_can_be_fitted(tmp_path, capsys):
    """Recorded answers of a local 1.5B model: option letters and word problems, no costs."""
    path = DATA / "recorded/qwen_edge.jsonl.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not there: set CONFROUTE_DATA to the folder of recorded data")
    out = tmp_path / "policy.json"
    # Its numbers were read by older rules.
    fit = ["fit", str(path), "--out", str(out), "--kind", "auto"]
    assert main([*fit, "--cloud-share", "0.5", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["expected"]["cost_per_1k"] is None
    assert told["expected"]["cloud_share"] == pytest.approx(0.5, abs=0.02)
    low, high = told["expected"]["quality_ci"]
    assert low < told["expected"]["quality"] < high
