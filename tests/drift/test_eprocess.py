"""The sequential test for drift: its false-alarm rate, and its evidence by hand."""

import numpy as np
import pytest

from confroute.drift import DriftTest
from confroute.errors import PolicyError

TEST = DriftTest(level=0.05)


@pytest.mark.parametrize("runs", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_false_alarms_stay_below_the_stated_rate(runs):
    """Of the runs of 500 audits at the promised loss at most 5 % raise an alarm."""
    chance = np.random.default_rng(0)
    alarms = sum(TEST.first_alarm(chance.random(500) < 0.05) is not None for _ in range(runs))
    assert alarms <= 0.05 * runs


def test_the_evidence_for_drift_by_hand():
    """A loss of 1, then 0, at a level of 0.5: a bet b multiplies its wealth by 1 + b, then by 1 - b.

    The weights are 1 - 1 / (1 + ln 2) = 0.40939 and 0.59061 - 1 / (1 + ln 3) = 0.11410, the rest is unspent; the six bets
    have a mean of 0.13 and a mean square of 0.0355. That gives 0.40939 * 1.13 + 0.59061, and 0.40939 * 0.9645 + 0.11410
    * 0.87 + 0.47651.
    """
    test = DriftTest(level=0.5)
    once = test.update(test.begin(), 1.0)
    twice = test.update(once, 0.0)
    assert test.evidence(once) == pytest.approx(1.05322, abs=1e-5)
    assert test.evidence(twice) == pytest.approx(0.97063, abs=1e-5)
    assert (twice["audits"], twice["lost"], twice["alarm_at"]) == (2, 1.0, None)
    # The same evidence raises an alarm at 1 / 0.95 = 1.0526 and none at 1 / 0.949; an alarm stays.
    quick, slower = (DriftTest(level=0.5, false_alarm=rate) for rate in (0.95, 0.949))
    raised = quick.update(quick.begin(), 1.0)
    assert (raised["alarm_at"], quick.update(raised, 0.0)["alarm_at"]) == (1, 1)
    assert slower.update(slower.begin(), 1.0)["alarm_at"] is None
    for loss in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            test.update(once, loss)
    for settings in ({"level": 0.0}, {"level": 1.0}, {"level": 0.5, "false_alarm": 0.0}):
        with pytest.raises(PolicyError, match="between 0 and 1"):
            DriftTest(**settings)
