"""Off-policy estimates: by hand, and against the truth of simulated traffic."""

from dataclasses import replace

import numpy as np
import pytest

from confroute.drift import LoggedCall, off_policy
from confroute.errors import CalibrationError


@pytest.mark.parametrize(
    ("method", "value", "half"),
    [
        # (25 * 1 + 10 * 0.5 / 0.8) / 50, and the standard deviation of 25 times 1, 10 times 0.625 and 15 times 0.
        ("ips", 0.625, 0.1875**0.5),
        # 31.25 / (25 + 12.5); deviations (1 - 0.8333) / 0.75 and (0.625 - 1.25 * 0.8333) / 0.75.
        ("snips", 0.8333333, ((25 / 4.5**2 + 10 / 1.8**2) / 50) ** 0.5),
        # Both models are exact: 25 times 1, 25 times 0.5.
        ("dr", 0.75, 0.25),
    ],
)
def test_off_policy_by_hand(method, value, half):
    """Half of 50 calls are kept, all worth 1; of the other answers, worth 0.5, ten are seen with a propensity of 0.8."""
    rows = [
        LoggedCall(uncertainty=u, edge=1.0, cloud=0.5 if 25 <= u < 35 else None, cloud_propensity=0.8)
        for u in range(50)
    ]
    estimate = off_policy(rows, 24, method=method, confidence=0.5)
    assert estimate.value == pytest.approx(value)
    # Half of a normal lies within 0.67449 of its standard errors.
    assert (estimate.low, estimate.high) == pytest.approx(
        (value - 0.67449 * half / 50**0.5, value + 0.67449 * half / 50**0.5), abs=1e-5
    )
    assert estimate.effective_n == pytest.approx(37.5**2 / (25 + 10 * 1.25**2))
    assert off_policy(rows, lambda u: 0.5 * (u < 10), method="ips").value == pytest.approx(
        (10 * 0.5 + 10 * 0.625) / 50
    )
    # An answer that the policy never uses need not have been seen.
    unseen = [replace(row, cloud=None, cloud_propensity=0.0) for row in rows]
    assert off_policy(unseen, 49, method=method).value == 1.0
    with pytest.raises(CalibrationError, match="49 logged calls"):
        off_policy(rows[:49], 24)


def test_the_model_of_a_call_is_fitted_to_other_folds():
    """Every fifth of 50 calls is worth 1: the other folds predict 0 for it, and 10 / 40 for the others.

    With weights of 2 that is 2 * 1 - 0 and 2 * 0 - 0.25: a mean of 0.2 and a standard deviation of sqrt((10 * 1.8**2 +
    40 * 0.45**2) / 50) = 0.9. Fitted to their own folds it would be 0.4.
    """
    rows = [
        LoggedCall(uncertainty=0.0, edge=float(k % 5 == 0), cloud=None, edge_propensity=0.5)
        for k in range(50)
    ]
    estimate = off_policy(rows, 0.0, confidence=0.5)
    assert (estimate.value, estimate.high - estimate.value) == pytest.approx(
        (0.2, 0.67449 * 0.9 / 50**0.5), abs=1e-5
    )


def test_off_policy_estimates_agree_with_the_truth():
    """From traffic at one threshold, with 10 % audited, the interval covers the worth of another threshold."""
    chance = np.random.default_rng(3)
    u = chance.random(20_000)
    edge, cloud = (chance.random(u.size) > u).astype(float), (chance.random(u.size) < 0.9).astype(float)
    kept, audited = u <= 0.6, chance.random(u.size) < 0.1
    rows = [
        LoggedCall(uncertainty=x, edge=e, cloud=c if not k or a else None, cloud_propensity=0.1 if k else 1.0)
        for x, e, c, k, a in zip(u, edge, cloud, kept, audited, strict=True)
    ]
    truth = float(np.where(u <= 0.3, edge, cloud).mean())
    widths = {}
    for method in ("ips", "snips", "dr"):
        estimate = off_policy(rows, 0.3, method=method, confidence=0.999)
        assert estimate.low <= truth <= estimate.high
        widths[method] = estimate.high - estimate.low
    assert widths["dr"] < widths["ips"]
    with pytest.raises(CalibrationError, match="propensity 0"):
        off_policy([LoggedCall(uncertainty=0.1, edge=1.0, cloud=None, cloud_propensity=0.0)] * 50, -1.0)
