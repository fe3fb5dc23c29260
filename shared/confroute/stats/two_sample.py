"""Whether two samples come from one distribution: the Kolmogorov-Smirnov test, with its exact null distribution."""

from __future__ import annotations

import math

import numpy as np

from confroute.stats.arrays import MetricError


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
    All orders of the pooled values are equally likely. The share of those whose distance stays smaller is counted as paths on
    the grid of (values of the first sample, values of the second) that never leave a band around the diagonal (Hodges,
    Arkiv foer Matematik 3, 1958), row by row, as logarithms of a common factor so that nothing overflows. O(n m) additions.

    Examples
    --------
    >>> round(ks_p_value(1.0, 3, 3), 6), ks_p_value(0.0, 10, 20)
    (0.1, 1.0)
    """
    if not 0 <= distance <= 1 or n < 1 or m < 1:
        msg = f"distance {distance} of samples of {n} and {m}: expected a distance in [0, 1] and at least one value in each"
        raise MetricError(msg)
    few, many = sorted((n, m))
    # In whole steps of 1 / (n m): equal distances must not differ by rounding.
    steps = math.ceil(distance * n * m - 1e-6)
    if steps <= 0:
        return 1.0
    return min(1.0, max(0.0, 1.0 - math.exp(_log_paths_inside(few, many, steps) - _log_choose(n + m, n))))


def _log_paths_inside(few: int, many: int, steps: int) -> float:
    """Logarithm of the number of paths from (0, 0) to (few, many) on which |i many - j few| stays below `steps`."""
    columns = np.arange(many + 1)
    counts = (columns * few < steps).astype(np.float64)
    log_factor = 0.0
    for row in range(1, few + 1):
        inside = np.abs(row * many - columns * few) < steps
        low, high = int(inside.argmax()), many + 1 - int(inside[::-1].argmax())
        if not inside[low]:
            return -math.inf
        # A path enters a row from below, at one place, and goes on to the right.
        entered = np.cumsum(counts[low:high])
        counts = np.zeros(many + 1)
        if (largest := float(entered[-1])) == 0.0:
            return -math.inf
        counts[low:high] = entered / largest
        log_factor += math.log(largest)
    return log_factor + math.log(counts[-1]) if counts[-1] > 0 else -math.inf


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
