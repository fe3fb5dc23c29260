"""Planned numbers of rows, beside fits of simulated runs."""

import numpy as np
import pytest

from confroute.errors import CalibrationError, UnmetPromiseError
from confroute.fitting import Guess, MaxLoss, fit, plan
from confroute.fitting.plan import _fewest
from confroute.recording import Row, Side
from confroute.stats.metrics import auroc


def test_a_guess_is_drawn_as_it_says():
    """Quality of both models and AUROC of the signal, on many calls."""
    guess = Guess(edge_quality=0.7, auroc=0.8, cloud_quality=0.95)
    calls = guess.drawn(50_000, np.random.default_rng(0))
    assert calls.edge_quality.mean() == pytest.approx(0.7, abs=0.01)
    assert calls.cloud_quality.mean() == pytest.approx(0.95, abs=0.01)
    assert auroc(calls.uncertainty, calls.edge_quality == 0) == pytest.approx(0.8, abs=0.01)


def test_a_blunter_signal_needs_more_cloud_and_what_cannot_be_promised_is_none():
    """At an equal edge; a cloud that is wrong on a fifth keeps no shortfall of a tenth."""
    sharp, blunt = plan(MaxLoss(alpha=0.15), [Guess(edge_quality=0.7, auroc=a) for a in (0.9, 0.6)])
    assert sharp.best_share < blunt.best_share
    (never,) = plan(MaxLoss(alpha=0.1, loss="shortfall"), [Guess(edge_quality=0.6, cloud_quality=0.8)])
    assert (never.rows, never.rows_close, never.best_share, never.rows_to_record) == (None,) * 4


@pytest.mark.parametrize(
    "bad",
    [{"edge_quality": 0.0}, {"edge_quality": 0.5, "auroc": 1.0}, {"edge_quality": 0.5, "cloud_quality": 2}],
)
def test_guesses_out_of_range_are_refused(bad):
    """With the numbers."""
    with pytest.raises(CalibrationError, match="expected numbers in"):
        Guess(**bad)
    with pytest.raises(CalibrationError, match="power is 0"):
        plan(MaxLoss(alpha=0.1), [], power=0)
    with pytest.raises(CalibrationError, match=r"within 1: expected numbers in \(0, 1\] and \(0, 1\)"):
        plan(MaxLoss(alpha=0.1), [], within=1)


def test_every_number_of_rows_up_to_the_most_is_tried():
    """Doubled from 30, 15,360 would be the last; 20,000 are said to be not enough only if they are not."""
    tried = []
    found = _fewest(lambda n: tried.append(n) or n >= 18_000, 30)
    assert 18_000 <= found <= 18_000 * 1.05
    assert max(tried) == 20_000
    assert _fewest(lambda n: n > 20_000, 30) is None


@pytest.mark.slow
@pytest.mark.parametrize("guess", [Guess(edge_quality=0.6), Guess(edge_quality=0.8, auroc=0.85)])
def test_fits_of_the_planned_number_of_rows_succeed_as_often_as_planned(guess):
    """60 recorded runs of each planned number: 80 % can be promised, and 80 % send few enough calls; up to three standard errors."""
    (planned,) = plan(MaxLoss(alpha=0.1), [guess], seed=1)
    generator = np.random.default_rng(2)
    slack = 3 * (0.8 * 0.2 / 60) ** 0.5
    for n, most in ((planned.rows, 1.0), (planned.rows_close, planned.best_share + planned.within)):
        met = 0
        for _ in range(60):
            calls = guess.drawn(n, generator)
            columns = zip(calls.uncertainty, calls.edge_quality, calls.cloud_quality, strict=True)
            rows = [
                Row(id=str(i), edge=Side(quality=e), cloud=Side(quality=c), signals={"u": u})
                for i, (u, e, c) in enumerate(columns)
            ]
            try:
                met += fit(rows, MaxLoss(alpha=0.1), signal="u").expected.cloud_share <= most
            except UnmetPromiseError:
                continue
        assert 0.8 - slack <= met / 60 <= 0.8 + slack + 0.05
