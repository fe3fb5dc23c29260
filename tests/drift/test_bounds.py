"""Bounds on the mean loss: by closed form, against the drift test, and how often they are wrong when they are looked at after every loss."""

import math

import numpy as np
import pytest

from confroute.drift import DriftTest, loss_bounds
from confroute.drift.bounds import _STAKES, _lowest
from confroute.errors import PolicyError


def test_the_upper_bound_by_closed_form():
    """Without a loss each stake b turns 1 into (1 + b m / (1 - m)) ** n: their mean is 20 at the bound."""
    high = loss_bounds([0.0] * 100).high

    def wealth(m):
        return np.mean([(1 + b * m / (1 - m)) ** 100 for b in _STAKES])

    assert wealth(high) >= 20
    assert wealth(high - 1e-4) < 20


def test_the_lower_bound_is_where_the_drift_test_alarms():
    """To a ten-thousandth."""
    losses = (np.random.default_rng(0).random(300) < 0.2).astype(float).tolist()
    low = loss_bounds(losses).low
    assert 0.1 < low < 0.2
    assert DriftTest(level=low).first_alarm(losses) is not None
    assert DriftTest(level=low + 1e-4).first_alarm(losses) is None


def test_bounds_tighten_and_hold_the_mean():
    """And say nothing without a loss."""
    losses = (np.random.default_rng(1).random(1000) < 0.1).astype(float).tolist()
    few, many = loss_bounds(losses[:50]), loss_bounds(losses)
    assert few.low <= many.low < many.mean < many.high <= few.high
    nothing = loss_bounds([])
    assert (nothing.n, nothing.mean, nothing.low, nothing.high) == (0, None, 0.0, 1.0)


def test_a_change_is_seen_though_the_mean_is_still_low():
    """The lower bound is one on the highest that the mean loss has been."""
    losses = [0.0] * 500 + [1.0] * 20
    assert loss_bounds(losses).low > np.mean(losses)


@pytest.mark.parametrize("losses", [[1.5], [-0.1], [math.nan]])
def test_what_is_no_loss_is_refused(losses):
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        loss_bounds(losses)
    with pytest.raises(PolicyError, match="between 0 and 1"):
        loss_bounds([], confidence=1.0)


LOSSES = {
    "rare": (0.05, lambda chance, n: (chance.random(n) < 0.05).astype(float)),
    "graded": (0.25, lambda chance, n: chance.beta(1, 3, n)),
    # Each loss is as likely as in "rare" whatever came before, though they come in runs of wrong and right.
    "half": (0.5, lambda chance, n: chance.integers(0, 2, n).astype(float)),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("runs", [60, pytest.param(2000, marks=pytest.mark.slow)])
def test_each_bound_is_ever_wrong_as_rarely_as_stated(name, runs):
    """Looked at after every one of 300 losses, and stopped at the first one that says the wrong thing."""
    mean, draw = LOSSES[name]
    chance = np.random.default_rng(3)
    test = DriftTest(level=mean, false_alarm=0.1)
    below = above = 0
    for _ in range(runs):
        losses = draw(chance, 300)
        below += test.first_alarm(losses.tolist()) is not None
        above += _lowest(np.array([mean]), losses, 0.1) <= mean
    # Three standard deviations above what is allowed.
    most = 0.1 * runs + 3 * math.sqrt(0.09 * runs)
    assert below <= most
    assert above <= most
    if runs == 2000:
        assert max(below, above) <= 0.1 * runs
