"""Tail probabilities behind the guarantees: exact where the loss is 0 or 1, bounds where it is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError

# The betting bound's stakes, as a share of the stake that could lose everything at once.
_CAUTION = 0.75
_PRIOR_VARIANCE = 0.25


@lru_cache(maxsize=8)
def _log_factorials(n: int) -> npt.NDArray[np.float64]:
    return np.concatenate(([0.0], np.cumsum(np.log(np.arange(1, n + 1)))))


def _log_choose(n: int, k: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    logs = _log_factorials(n)
    log_count: npt.NDArray[np.float64] = logs[n] - logs[k] - logs[n - k]
    return log_count


def binomial_cdf(k: int, n: int, p: float) -> float:
    """Compute P(Bin(n, p) <= k) by its exact sum; for 0 < p < 1.

    Examples
    --------
    >>> round(binomial_cdf(1, 2, 0.5), 6), binomial_cdf(-1, 5, 0.1), binomial_cdf(5, 5, 0.1)
    (0.75, 0.0, 1.0)
    """
    if k < 0:
        return 0.0
    if k >= n:
        return 1.0
    counts = np.arange(k + 1)
    logs = _log_choose(n, counts) + counts * math.log(p) + (n - counts) * math.log1p(-p)
    return min(1.0, float(np.exp(logs).sum()))


def hypergeometric_cdf(k: int, marked: int, unmarked: int, drawn: int) -> float:
    """Compute P(at most k marked) among `drawn` of `marked` + `unmarked` items, without replacement.

    Examples
    --------
    >>> round(hypergeometric_cdf(0, 2, 2, 2), 6), hypergeometric_cdf(2, 2, 2, 2)
    (0.166667, 1.0)
    """
    low, high = max(0, drawn - unmarked), min(k, drawn, marked)
    if k >= min(drawn, marked):
        return 1.0
    if high < low:
        return 0.0
    counts = np.arange(low, high + 1)
    logs = _log_choose(marked, counts) + _log_choose(unmarked, drawn - counts)
    whole = _log_choose(marked + unmarked, np.array([drawn]))[0]
    return min(1.0, float(np.exp(logs - whole).sum()))


def most_failures(n: int, alpha: float, delta: float, *, horizon: int | None = None) -> int:
    """Find the most failures among n calibration rows at which a rate of at most alpha can be guaranteed; -1: not even with none.

    Parameters
    ----------
    n : int
    alpha, delta : float in (0, 1)
    horizon : int, optional
        Guarantee the rate measured over so many future calls instead of the long-run rate.

    Notes
    -----
    Long run: the largest k with P(Bin(n, alpha) <= k) <= delta, which is the Clopper-Pearson bound.

    Horizon m: let the threshold be where failure k + 1 of the calibration rows, by rising uncertainty, would be kept. The guarantee
    breaks if more than alpha m future calls fail below it, that is, if at most k of the first k + 1 + floor(alpha m) failures among
    all n + m rows are calibration rows. Rows are exchangeable, so that this is a hypergeometric tail: exact whatever the failure
    rates are, and taken once for the whole sequence of thresholds.

    Examples
    --------
    >>> (
    ...     most_failures(500, 0.02, 0.1),
    ...     most_failures(113, 0.02, 0.1),
    ...     most_failures(500, 0.02, 0.1, horizon=500),
    ... )
    (5, -1, 4)
    """

    def tail(k: int) -> float:
        if horizon is None:
            return binomial_cdf(k, n, alpha)
        # Not below the exact product by rounding: 0.07 * 100 must count as 7.
        drawn = k + math.floor(alpha * horizon + 1e-9) + 1
        return 0.0 if drawn > n + horizon else hypergeometric_cdf(k, n, horizon, drawn)

    low, high = -1, n
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if tail(middle) <= delta else (low, middle - 1)
    return low


def rows_needed(alpha: float, delta: float, *, horizon: bool) -> int:
    """Find the fewest rows that can guarantee a rate of alpha if none of them fails; `horizon`: over as many future calls.

    Examples
    --------
    >>> rows_needed(0.02, 0.1, horizon=False), rows_needed(0.05, 0.1, horizon=False)
    (114, 45)
    """
    if not horizon:
        return math.ceil(math.log(delta) / math.log1p(-alpha))
    # Feasibility changes only where one more failure among the future calls is allowed.
    allowed = 0
    while most_failures(n := max(1, math.ceil(allowed / alpha - 1e-9)), alpha, delta, horizon=n) < 0:
        allowed += 1
    return n


def hoeffding_bentkus(mean: float, n: int, alpha: float) -> float:
    """P-value of "the mean loss exceeds alpha" for losses in [0, 1] (Bates et al., arXiv 2101.02703).

    Examples
    --------
    >>> hoeffding_bentkus(0.2, 100, 0.1), hoeffding_bentkus(0.01, 500, 0.05) < 0.01
    (1.0, True)
    """
    if mean >= alpha:
        return 1.0
    relative = (1 - mean) * math.log((1 - mean) / (1 - alpha))
    if mean > 0:
        relative += mean * math.log(mean / alpha)
    # Rounding up must not turn 3.0000000001 failures into 4.
    bentkus = math.e * binomial_cdf(math.ceil(n * mean - 1e-9), n, alpha)
    return min(1.0, math.exp(-n * relative), bentkus)


def betting(values: npt.NDArray[np.float64], alpha: float, delta: float, *, low: float = 0.0) -> float:
    """P-value of "the mean exceeds alpha" for values in [low, 1], by betting against it.

    Parameters
    ----------
    values : array of float in [low, 1], shape (n,)
        In an order that does not depend on them.
    alpha : float in (low, 1)
    delta : float in (0, 1)
        The level that the stakes are tuned for; the p-value is valid whatever it is.
    low : float
        The least possible value: 0 for losses, -1 for differences. The narrower the range, the smaller the p-value.

    Returns
    -------
    float in (0, 1]
        1 / the largest capital reached (Waudby-Smith and Ramdas, JRSS-B 86, 2024, with their predictable plug-in
        stakes; Ville's inequality). Deviation: stakes up to 3/4 of the most that cannot go bankrupt, instead of 1/2.

    Examples
    --------
    >>> betting(np.zeros(200), 0.05, 0.1) < 0.1, betting(np.full(2000, 0.06), 0.05, 0.1)
    (True, 1.0)
    """
    x, m, n = (values - low) / (1 - low), (alpha - low) / (1 - low), values.size
    seen = np.arange(1, n + 1)
    means = (0.5 + np.cumsum(x)) / (seen + 1)
    variances = (_PRIOR_VARIANCE + np.cumsum((x - means) ** 2)) / (seen + 1)
    before = np.concatenate(([_PRIOR_VARIANCE], variances[:-1]))
    stakes = np.minimum(np.sqrt(2 * math.log(1 / delta) / (n * before)), _CAUTION / (1 - m))
    capital = np.cumsum(np.log1p(stakes * (m - x)))
    return min(1.0, math.exp(-max(0.0, float(capital.max()))))


def first_failure(test: Callable[[int], bool], count: int) -> int:
    """Count the hypotheses, of `count` in order, that are rejected before the first one that is not."""
    for at in range(count):
        if not test(at):
            return at
    return count


def check_levels(alpha: float, delta: float | None, *, low: float = 0.0) -> None:
    """Refuse levels that guarantee nothing.

    Raises
    ------
    CalibrationError
        alpha outside (low, 1) or delta outside (0, 1).
    """
    if not low < alpha < 1 or (delta is not None and not 0 < delta < 1):
        msg = f"alpha is {alpha} and delta {delta}: expected alpha in ({low:g}, 1) and delta in (0, 1)"
        raise CalibrationError(msg)
