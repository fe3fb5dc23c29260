"""Corrected win rates and agreement with humans."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.errors import CalibrationError, PolicyError
from confroute.judge.agreement import agreement_of, agreements, read_items
from confroute.judge.rates import prediction_powered, rogan_gladen
from confroute.recording import RecordError

DATA = Path(os.environ.get("CONFROUTE_DATA", Path(__file__).parents[3] / "shared/data")) / "recorded"
LLMBAR = DATA / "judge_llmbar.jsonl.gz"


def test_rogan_gladen_worked_by_hand():
    """p = .6, specificity .8, sensitivity .9: (.6 + .8 - 1) / .7, and the variance of the formula."""
    gold, verdicts = [1] * 50 + [0] * 50, [1] * 45 + [0] * 5 + [1] * 10 + [0] * 40
    estimate = rogan_gladen([1] * 60 + [0] * 40, gold=gold, judged_gold=verdicts)
    theta = 0.4 / 0.7
    variance = (0.24 / 100 + (1 - theta) ** 2 * 0.16 / 50 + theta**2 * 0.09 / 50) / 0.49
    assert estimate.value == pytest.approx(theta)
    assert estimate.se == pytest.approx(variance**0.5)


def test_prediction_powered_worked_by_hand():
    """3 / 4 - 1 / 3, and a variance of (1 / 4) / 4 + (1 / 3) / 3; half of a normal is within 0.67449 standard errors."""
    estimate = prediction_powered([1, 1, 0, 1], gold=[1, 0, 0], judged_gold=[1, 1, 0], level=0.5)
    se = (1 / 16 + 1 / 9) ** 0.5
    assert (estimate.value, estimate.se) == (pytest.approx(5 / 12), pytest.approx(se))
    assert (estimate.low, estimate.high) == (
        pytest.approx(5 / 12 - 0.67449 * se, abs=1e-5),
        pytest.approx(5 / 12 + 0.67449 * se, abs=1e-5),
    )


def test_a_rate_stays_between_none_and_all():
    """A judge that is right on 4 of 5 of either kind says yes, or no, to all: estimates and ends are cut to [0, 1]."""
    gold, verdicts = [1] * 5 + [0] * 5, [1, 1, 1, 1, 0, 0, 0, 0, 0, 1]
    every, none = (rogan_gladen([vote] * 10, gold=gold, judged_gold=verdicts) for vote in (1, 0))
    # Only the kind with an estimated share above 0 adds its variance: 0.16 / 5 / 0.36.
    assert (every.value, every.high, every.se) == (1.0, 1.0, pytest.approx((0.16 / 5 / 0.36) ** 0.5))
    assert (none.value, none.low, none.se) == (0.0, 0.0, pytest.approx(every.se))
    for level in (0, 1):
        with pytest.raises(PolicyError, match="between 0 and 1"):
            rogan_gladen([1], gold=gold, judged_gold=verdicts, level=level)


def simulated(method, *, seed, runs=2000, truth=0.6, q1=0.85, q0=0.75, n=500, m=200):
    """Share of intervals that cover the true rate, and the mean estimate, for a judge with known errors."""
    generator = np.random.default_rng(seed)
    held, values = 0, []
    for _ in range(runs):
        human = generator.random(n + m) < truth
        judged = np.where(human, generator.random(n + m) < q1, generator.random(n + m) >= q0).astype(float)
        estimate = method(judged[:n], gold=human[n:].astype(float), judged_gold=judged[n:])
        held += estimate.low <= truth <= estimate.high
        values.append(estimate.value)
    return held / runs, float(np.mean(values))


@pytest.mark.parametrize("method", [rogan_gladen, prediction_powered])
def test_intervals_have_their_nominal_coverage(method):
    """95 % intervals cover a known rate in 93.5 to 96.5 % of 2,000 runs."""
    coverage, mean = simulated(method, seed=0)
    assert 0.935 <= coverage <= 0.965
    assert mean == pytest.approx(0.6, abs=0.005)


def test_uncorrected_rate_is_biased_where_corrected_ones_are_not():
    """A judge that says yes too often has a rate of .52 for a true .3; both corrections give .3."""
    for method in (rogan_gladen, prediction_powered):
        _, mean = simulated(method, seed=1, runs=300, truth=0.3, q1=0.9, q0=0.65)
        assert mean == pytest.approx(0.3, abs=0.01)
    assert pytest.approx(0.515) == 0.3 * 0.9 + 0.7 * 0.35


def test_a_judge_no_better_than_chance_corrects_nothing():
    """The error names sensitivity and specificity."""
    with pytest.raises(CalibrationError, match=r"sensitivity 0.500 and specificity 0.500"):
        rogan_gladen([1, 0], gold=[1, 1, 0, 0], judged_gold=[1, 0, 1, 0])
    with pytest.raises(CalibrationError, match="0 gold losses"):
        rogan_gladen([1, 0], gold=[1, 1], judged_gold=[1, 0])


def test_invalid_verdicts_are_refused():
    """Only the other method takes ties; neither takes values outside [0, 1]."""
    with pytest.raises(PolicyError, match="leave ties out"):
        rogan_gladen([0.5], gold=[1, 0], judged_gold=[1, 0])
    with pytest.raises(PolicyError, match="outside"):
        prediction_powered([1, 2], gold=[1, 0], judged_gold=[1, 0])
    with pytest.raises(PolicyError, match="expected 2 or more"):
        prediction_powered([1, 0], gold=[1], judged_gold=[1])


@given(st.lists(st.tuples(*[st.sampled_from("ab")] * 3), min_size=1, max_size=30))
def test_agreement_with_ties_equals_agreement_per_order(drawn):
    """Without ties in single orders, swapping does not change the mean agreement."""
    agreement = agreement_of(
        [human for human, _, _ in drawn], [(one, two) for _, one, two in drawn], resamples=1
    )
    assert agreement.with_ties == pytest.approx(agreement.per_order)


def test_agreement_by_hand():
    """Right twice; two orders that differ; a tie in one; wrong twice; and an order that failed."""
    orders = [("a", "a"), ("a", "b"), ("b", "tie"), ("a", "a"), (None, "a")]
    agreement = agreement_of(["a", "a", "b", "b", "a"], orders, resamples=1)
    assert (agreement.n, agreement.errors) == (4, 1)
    assert (agreement.first, agreement.second, agreement.per_order) == (3 / 4, 1.5 / 4, 2.25 / 4)
    assert (agreement.inconsistent, agreement.decided, agreement.agreement, agreement.with_ties) == (
        0.5,
        0.5,
        0.5,
        0.5,
    )
    assert agreement_of(["a"], [("a", None)]) is None
    assert agreement_of(["a"], [("a", "b")], resamples=1).agreement is None


def test_recorded_pairs_and_a_panel_by_hand(tmp_path):
    """Two pairs of two subsets, three judges: the panel has their majority in each order and after both."""
    recorded = [
        {"id": "1", "dataset": "x", "human_label": 1, "votes": {"j|1": "11", "k": "11", "l": "22"}},
        {"id": "2", "human_label": 2, "votes": {"j|1": "22", "k": "21", "l": "2-"}},
    ]
    rows = [
        {
            **{"prompt": "?", "output_1": "one", "output_2": "two", **row},
            "verdicts": {
                f"{judge}|{order}": None if vote == "-" else vote
                for judge, votes in row.pop("votes").items()
                for order, vote in zip(("orig", "swap"), votes, strict=True)
            },
        }
        for row in recorded
    ]
    (tmp_path / "x").write_text("\n\n".join(map(json.dumps, rows)))
    (tmp_path / "x.gz").write_bytes(gzip.compress((tmp_path / "x").read_bytes()))
    first, second = read_items(tmp_path / "x")
    assert read_items(tmp_path / "x.gz") == [first, second]
    assert (first.subset, first.human, first.verdicts["j|1"]) == ("x", "a", ("a", "a"))
    assert (second.subset, second.human, second.verdicts["l"]) == ("", "b", ("b", None))
    result = agreements([first, second], resamples=1)
    assert {judge: (each["all"].n, each["all"].agreement) for judge, each in result.items()} == {
        **{"j|1": (2, 1.0), "k": (2, 1.0), "l": (1, 0.0)},
        "panel": (2, 1.0),
    }
    # The second pair: all say "2" in the first order; after both, one says "2", one is inconsistent and one failed.
    assert {name: (each.decided, each.first) for name, each in result["panel"].items()} == {
        **{"all": (0.5, 1.0), "x": (1.0, 1.0)},
        "": (0.0, 1.0),
    }
    assert "panel" not in agreements([first, second], resamples=1, panel=False)


def test_a_line_that_is_not_a_pair_is_refused(tmp_path):
    """Human labels are 1 or 2."""
    (tmp_path / "x").write_text(
        '{"id": "1", "prompt": "?", "output_1": "", "output_2": "", "human_label": 3}\n'
    )
    with pytest.raises(RecordError, match="human_label"):
        read_items(tmp_path / "x")


def test_an_unknown_recorded_verdict_is_refused(tmp_path):
    """Otherwise it would count as an order in which the judge failed."""
    line = {
        "id": "1",
        "prompt": "?",
        "output_1": "",
        "output_2": "",
        "human_label": 1,
        "verdicts": {"j|orig": "A"},
    }
    (tmp_path / "x").write_text(json.dumps(line))
    with pytest.raises(RecordError, match=r"verdicts\['j|orig'\].*'A'.*expected 1, 2, tie or null"):
        read_items(tmp_path / "x")


@pytest.mark.skipif(not LLMBAR.exists(), reason=f"no recorded verdicts at {LLMBAR}: set CONFROUTE_DATA")
def test_recorded_judges_agree_with_humans_as_counted_by_hand():
    """GPT-4 with metrics and reference, recomputed in plain Python; where both orders agree they beat a single one."""
    items = read_items(LLMBAR)
    name = "GPT-4|Metrics_Reference"
    both = [(item.human, *item.verdicts[name]) for item in items if None not in item.verdicts[name]]
    one = sum((human == a) + (human == b) for human, a, b in both) / (2 * len(both))
    same = [human == a for human, a, b in both if a == b]
    agreement = agreement_of(
        [item.human for item in items], [item.verdicts[name] for item in items], resamples=200
    )
    assert (agreement.n, agreement.errors) == (881, 4)
    assert agreement.per_order == pytest.approx(one)
    assert agreement.agreement == pytest.approx(sum(same) / len(same))
    assert agreement.agreement > agreement.per_order_ci[1]
    assert "all" in agreements(items[:50], resamples=10)[name]
