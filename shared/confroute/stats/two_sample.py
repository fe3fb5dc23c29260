"""Whether two samples come from one distribution: the Kolmogorov-Smirnov test, with its exact null distribution."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from confroute.stats.arrays import MetricError

# Far below any level at which anybody wants false alarms.
_TINY = 1e-12


def ks_p_value(distance: float, n: int, m: int) -> float:
    """P-value of the two-sided two-sample Kolmogorov-Smirnov test, exact for distributions without ties.

    Parameters
    ----------
    distance : float in [0, 1]
        Largest difference of the two cumulative distributions, at any set of points: the test stays valid where it is read at
        fewer points than there are, and where values are tied; it only rejects less then.
    n, m : int
        Sizes of the samples, 1 or more.

    Returns
    -------
    float in [0, 1]
        Probability of a distance as large or larger between samples of one distribution.

    Raises
    ------
    MetricError
        A distance outside [0, 1], or an empty sample.

    Notes
    -----
    All orders of the pooled values are equally likely: a walk on the grid of (values of the first sample, values of the second), of which
    the p-value is the probability of leaving a band around the diagonal (Hodges, Arkiv foer Matematik 3, 1958). It is added up step by step,
    over the walks that leave the band there, in O((n + m) w) for a band of w places. Where it is below 1e-12, a bound is returned that takes
    no walk: the Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant (Annals of Probability 18, 1990) for both samples.

    Examples
    --------
    >>> round(ks_p_value(1.0, 3, 3), 6), ks_p_value(0.0, 10, 20)
    (0.1, 1.0)
    """
    if not 0 <= distance <= 1 or n < 1 or m < 1:
        msg = f"distance {distance} of samples of {n} and {m}: expected a distance in [0, 1] and at least one value in each"
        raise MetricError(msg)
    # In whole steps of 1 / (n m): equal distances must not differ by rounding.
    steps = math.ceil(distance * n * m - 1e-6)
    if steps <= 0:
        return 1.0
    bound = _bound(distance, n, m)
    return bound if bound < _TINY else min(1.0, _leaving(*sorted((n, m)), steps))


def _bound(distance: float, n: int, m: int) -> float:
    """An upper bound on the p-value.

    If the samples lie so far apart, at least one of them lies at least its share of the distance from their common distribution. The
    shares are such that this is equally improbable for both.
    """
    return 4 * math.exp(-2 * n * m * (distance / (math.sqrt(n) + math.sqrt(m))) ** 2)


@lru_cache(maxsize=1024)
def _leaving(few: int, many: int, steps: int) -> float:
    """Probability that a walk from (0, 0) to (few, many) meets |i many - j few| >= `steps`, all walks being equally likely."""
    total, left = few + many, 0.0
    places = np.arange(few + 1, dtype=np.float64)
    # By i, the probability of being there after so many steps, not having left before.
    here, low, high = np.zeros(few + 2), 0, 0
    here[0] = 1.0
    for done in range(total):
        now = here[low : high + 1].copy()
        up = now * (few - places[low : high + 1]) / (total - done)
        right = now - up
        # Exactly none, where rounding would leave some.
        if done - low == many:
            right[0] = 0.0
        here[low : high + 2] = 0.0
        here[low : high + 1] = right
        here[low + 1 : high + 2] += up
        middle = (done + 1) * few
        lowest = max((middle - steps) // total + 1, done + 1 - many, 0)
        highest = min(-((-middle - steps) // total) - 1, few, done + 1)
        left += float(here[low:lowest].sum() + here[highest + 1 : high + 2].sum())
        here[low:lowest] = here[highest + 1 : high + 2] = 0.0
        low, high = lowest, highest
        if low > high:
            return 1.0
    return left
