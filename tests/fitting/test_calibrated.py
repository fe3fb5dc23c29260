"""Reliability of P(edge wrong) before and after calibration, and what the report shows of it."""

import dataclasses

import numpy as np
import pytest

from confroute.fitting import CloudShare, fit
from confroute.fitting.calibrated import as_probability
from confroute.recording import Row, Side
from confroute.signals import AlphabetSize
from confroute.signals.base import Range
from confroute.views.fit import report_html
from confroute.views.html import text

GOAL = CloudShare(share=0.3)


def tenth_of_the_truth(n=2000):
    """An uncertainty that is a tenth of the probability of being wrong."""
    generator = np.random.default_rng(0)
    for i, wrong in enumerate(generator.random(n)):
        right = float(generator.random() > wrong)
        yield Row(
            id=str(i), edge=Side(quality=right), cloud=Side(quality=1.0), signals={"tenth": float(wrong) / 10}
        )


def test_calibration_mends_a_known_error_on_calls_it_has_not_seen():
    """P is uniform and told as a tenth: off by 0.45 on average before, near 0 after; points and ECE agree."""
    found = fit(tenth_of_the_truth(), GOAL, signal="tenth").calibration
    assert found.before.ece == pytest.approx(0.45, abs=0.02)
    assert found.after.ece < 0.05
    for one in (found.before, found.after):
        assert sum(point.n for point in one.reliability) == one.n == 2000
        distance = sum(abs(point.predicted - point.wrong) * point.n for point in one.reliability) / one.n
        assert distance == pytest.approx(one.ece)


def test_a_combination_is_judged_on_calls_that_it_was_not_fitted_on(rows):
    """Before: its logistic regression; after: the P(wrong) of the policy itself; on the threshold's rows."""
    found = fit(rows, GOAL, signal="combined")
    before, after = found.calibration.before, found.calibration.after
    assert before.n == after.n == found.n == 280
    assert before.words == "logistic regression alone"
    assert before.ece != after.ece
    # 280 calls: up to 0.08 is noise.
    assert after.ece < 0.12


def test_what_was_not_measured_is_left_out_and_too_few_calls_are_not_calibrated(made):
    """60 of 100 rows hold log-probabilities; 8 are too few for five folds."""
    rows = [*made(100, samples=False)]
    mute = [dataclasses.replace(row, edge=dataclasses.replace(row.edge, logprobs=None)) for row in rows[:40]]
    found = fit([*mute, *rows[40:]], CloudShare(share=0.5), signal="token_logprob.mean").calibration
    assert (found.before.n, found.after.n) == (60, 60)
    few = fit(rows[:8], CloudShare(share=0.5), signal="token_logprob.mean").calibration
    assert few.before.n == 8
    assert few.after is None


@pytest.mark.parametrize(
    ("span", "values", "expected"),
    [
        (Range(unit="nats"), [0.0, np.log(2.0)], [0.0, 0.5]),
        (Range(high=1.0, unit="share"), [0.0, 0.5], [0.0, 0.5]),
        (Range(unit="perplexity"), [1.0, 3.0], None),
        (AlphabetSize().range, [1.0, 4.0], None),
    ],
)
def test_only_what_can_be_a_probability_is_read_as_one(span, values, expected):
    """Nats by their meaning, shares as they are, other units not at all."""
    found, words = as_probability(np.array(values), span)
    assert (found is None) == (expected is None) == (words == "")
    if expected is not None:
        assert found.tolist() == pytest.approx(expected)


def test_the_report_shows_both_diagrams_and_both_errors(plain):
    """A panel and a row each, with the numbers of the fit; without a probability before, it says so."""
    found = fit(plain, GOAL, signal="token_logprob.mean")
    html = report_html(found)
    for name, one in (("before", found.calibration.before), ("after", found.calibration.after)):
        assert f"<td>{name}</td>{text(one.words)}" in html
        assert f"predicted (ECE {one.ece:.3f}, n = {one.n})" in html
    assert html.count("<circle") >= len(found.calibration.after.reliability)
    unread = dataclasses.replace(found, calibration=dataclasses.replace(found.calibration, before=None))
    assert "is not a probability" in report_html(unread)
