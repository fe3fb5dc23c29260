"""`confroute apply`: a verdict on the promise, both models alone, a shift, and runs without grades."""

import json
from dataclasses import replace

import numpy as np
import pytest

from confroute.cli import main
from confroute.recording import Row, Side, write_rows


def rows_of(n, seed, *, wrong_below=0.0, shift=0.0, graded=True, measured=True):
    """The edge is wrong above .7, and on this share of the calls below; the cloud is always right, and costs."""
    generator = np.random.default_rng(seed)
    for at in range(n):
        doubt = generator.random()
        wrong = doubt > 0.7 or generator.random() < wrong_below
        yield Row(
            id=str(at),
            edge=Side(
                model="small",
                text="7",
                logprobs=(-doubt - shift,) if measured else None,
                quality=float(not wrong) if graded else None,
                cost_usd=0.0001,
            ),
            cloud=Side(model="large", text="7", quality=1.0 if graded else None, cost_usd=0.002),
        )


@pytest.fixture
def policy(tmp_path, capsys):
    """Fitted with a promise of .05 on 500 calls."""
    write_rows(tmp_path / "run.jsonl", rows_of(500, 0))
    out = tmp_path / "promise.json"
    goal = ["--max-loss", "0.05", "--signal", "token_logprob.mean"]
    assert main(["fit", str(tmp_path / "run.jsonl"), "--out", str(out), *goal]) == 0
    capsys.readouterr()
    return out


def applied(policy, rows, capsys, *options):
    """Exit code, and what is printed on both streams."""
    path = policy.parent / "other.jsonl"
    write_rows(path, rows)
    code = main(["apply", str(policy), str(path), *options])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_promise_that_holds(policy, capsys):
    """With both models alone beside it, and the difference to each with its interval."""
    code, shown, _ = applied(policy, rows_of(1500, 1), capsys, "--fail-on-broken", "--fail-on-shift")
    assert code == 0
    assert "promised 0.05 at 90%: held (n = 1500" in shown
    assert "nothing says that these calls are not like the recorded ones" in shown
    assert "always edge: quality 0.7" in shown
    assert "always cloud: quality 1.0000 [1.0000, 1.0000], 1000 calls cost 2 USD; policy -0.0" in shown
    assert "WARNING" not in shown
    assert "policy: fitted on 500 calls of small (" in shown


def test_a_promise_that_is_broken(policy, capsys):
    """As an exit code on request only; that the uncertainties are as before is said too."""
    rows = list(rows_of(300, 1, wrong_below=0.4))
    code, shown, _ = applied(policy, rows, capsys)
    assert (code, "promised 0.05 at 90%: broken (n = 300" in shown) == (0, True)
    assert "nothing says that these calls are not like the recorded ones" in shown
    assert applied(policy, rows, capsys, "--fail-on-shift")[0] == 0
    assert applied(policy, rows, capsys, "--fail-on-broken")[0] == 3
    code, shown, _ = applied(policy, rows, capsys, "--fail-on-broken", "--json")
    told = json.loads(shown)
    assert (code, told["verdicts"][0]["outcome"]) == (3, "broken")
    assert 0 < told["verdicts"][0]["p_broken"] < 0.01
    assert told["verdicts"][0]["loss"] > 0.2


@pytest.mark.parametrize("n", [50, 100])
def test_a_shift_without_grades(n, policy, capsys):
    """Not like the recorded calls, never broken; share and cost are told all the same."""
    rows = list(rows_of(n, 1, shift=0.5, graded=False))
    code, shown, _ = applied(policy, rows, capsys, "--fail-on-broken")
    assert code == 0
    assert "cloud share " in shown
    assert "quality not known" in shown
    assert "1000 calls cost" in shown
    assert "these calls are not like the recorded ones" in shown
    assert "broken" not in shown
    assert "no promise can be judged" in shown
    assert applied(policy, rows, capsys, "--fail-on-shift")[0] == 3
    code, shown, notes = applied(policy, rows, capsys, "--json")
    told = json.loads(shown)
    assert told["shift"]["like_recorded"] is False
    assert told["shift"]["n"] == n
    assert (told["graded"], told["expected"]["quality"]) == (False, None)
    assert told["expected"]["cost_per_1k"] > 0
    assert "is graded" in notes


def test_like_calls_without_grades(policy, capsys):
    """Nothing is refused for the want of grades."""
    code, shown, _ = applied(policy, rows_of(80, 3, graded=False), capsys, "--fail-on-shift")
    assert code == 0
    assert "nothing says that these calls are not" in shown


def test_some_grades_leave_the_other_rows_out(policy, capsys):
    """They are counted."""
    rows = [*rows_of(80, 3), *(replace(r, id=f"u{r.id}") for r in rows_of(20, 4, graded=False))]
    assert "80 recorded calls, 20 not graded" in applied(policy, rows, capsys)[1]


def test_a_signal_that_was_never_measured_is_said_loudly(policy, capsys):
    """It sends everything to the cloud, after a draft that is paid for nothing."""
    code, shown, _ = applied(policy, rows_of(60, 1, measured=False), capsys)
    assert code == 0
    assert "WARNING: token_logprob was measured on none of 60 calls" in shown
    assert "100% of the calls went to the cloud" in shown
    assert "WARNING: 1000 calls cost 2.1 USD by this policy and 2 by always asking the cloud" in shown
    assert "these calls are not like the recorded ones" in shown


def test_every_number_is_in_the_json(policy, capsys):
    """Keys of the command, in order."""
    told = json.loads(applied(policy, rows_of(100, 1), capsys, "--json")[1])
    assert [*told] == [
        *("policy", "certificate", "provenance", "expected", "baselines", "verdicts", "shift"),
        *("n", "left_out", "graded", "notes"),
    ]
    edge, cloud = told["baselines"]["always_edge"], told["baselines"]["always_cloud"]
    assert [*edge] == ["quality", "quality_ci", "cost_per_1k", "policy_minus_it", "policy_minus_it_ci"]
    assert cloud["policy_minus_it"] == pytest.approx(told["expected"]["quality"] - cloud["quality"], abs=1e-5)
    assert edge["policy_minus_it_ci"][0] < edge["policy_minus_it"] < edge["policy_minus_it_ci"][1]
    assert cloud["cost_per_1k"] == pytest.approx(2.0)
    assert told["provenance"]["edge"]["names"] == ["small"]


def test_a_policy_without_provenance_is_applied_as_ever(policy, capsys):
    """As files of earlier versions are."""
    plain = json.loads(policy.read_text())
    del plain["policy"]["provenance"]
    policy.write_text(json.dumps(plain))
    code, shown, _ = applied(policy, rows_of(100, 1), capsys, "--fail-on-shift")
    assert code == 0
    assert "the policy does not say what it was fitted on" in shown
    assert "held" in shown or "cannot be told" in shown


def test_an_empty_run_is_refused(policy, capsys):
    """There is nothing to replay."""
    code, _, error = applied(policy, [], capsys)
    assert code == 1
    assert "none of 0 recorded rows" in error


def test_the_rows_of_the_fit_cannot_judge_it(policy, capsys):
    """Said loudly, and not by a verdict of "held"; nor can the same rows without one of them."""
    code, shown, _ = applied(policy, rows_of(500, 0), capsys)
    assert code == 0
    assert "cannot be told: these are the rows that the policy was fitted on" in shown
    assert shown.index("WARNING: these are the rows that the policy was fitted on") < shown.index(
        "cloud share"
    )
    shown = applied(policy, list(rows_of(500, 0))[1:], capsys)[1]
    assert "WARNING: about 100% of these rows are among those that the policy was fitted on" in shown
