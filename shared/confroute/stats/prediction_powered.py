"""The mean of what people graded, bounded by few of their grades and many of a judge's, whatever the judge is like."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from confroute.stats.tails import binomial_cdf, hoeffding_bentkus

Array = npt.NDArray[np.float64]
# Stakes, as a share of the stake that could lose everything at once; as in `confroute.stats.tails.betting`.
_CAUTION = 0.75
# Judged rows that count as seen before the first, so that few rows do not give the judge a large weight.
_PRIOR = 0.25
_STEPS = 25


def upper_mean(values: Array, level: float) -> float:
    """Find the bound that the mean of values in [0, 1] exceeds with a probability of at most `level`.

    Parameters
    ----------
    values : array of float in [0, 1], shape (n,)
    level : float in (0, 1)

    Returns
    -------
    float in [0, 1]
        Clopper-Pearson's bound where every value is 0 or 1, else the inverse of `hoeffding_bentkus`.

    Examples
    --------
    >>> round(upper_mean(np.zeros(45), 0.1), 3), round(upper_mean(np.array([1.0] * 10 + [0.0] * 90), 0.1), 3)
    (0.05, 0.15)
    """
    n, mean = values.size, float(values.mean())
    binary = bool(np.isin(values, (0.0, 1.0)).all())
    low, high = mean, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        p = binomial_cdf(round(n * mean), n, middle) if binary else hoeffding_bentkus(mean, n, middle)
        low, high = (low, middle) if p <= level else (middle, high)
    return high


def prediction_powered_betting(
    human: Array, judged: Array, *, judged_mean: float, alpha: float, delta: float
) -> float:
    """P-value of "the mean of what people graded exceeds alpha", by betting with a judge's grades at hand.

    Parameters
    ----------
    human, judged : array of float in [0, 1], shape (n,)
        Losses by people and by the judge of the same rows, drawn at random, in an order that does not depend on them.
    judged_mean : float in [0, 1]
        At least the mean of the judge's losses over all calls; see `upper_mean`.
    alpha, delta : float in (0, 1)
        `delta` is the level that the stakes are tuned for; the p-value is valid whatever it is.

    Returns
    -------
    float in (0, 1]
        1 / the largest capital reached; see `betting`.

    Notes
    -----
    Prediction-powered inference (Angelopoulos et al., arXiv 2301.09633, with the tuned weight of arXiv 2311.01453) as a game: row i
    pays ``human - w (judged - judged_mean)``, whose mean is at least that of `human` wherever `judged_mean` is a bound. The weight w in
    [0, 1] is the slope of `human` on `judged` over the rows before row i, so that a judge that says nothing about people's grades
    is not listened to. Ville's inequality then holds for every n and every judge.

    Examples
    --------
    >>> wrong = np.array([0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0] * 30)
    >>> good = prediction_powered_betting(wrong, wrong, judged_mean=0.11, alpha=0.13, delta=0.1)
    >>> blind = prediction_powered_betting(wrong, 1 - wrong, judged_mean=0.91, alpha=0.13, delta=0.1)
    >>> good < 0.1 < blind
    True
    """
    n = human.size
    weights = _slopes(human, judged)
    paid = human - weights * (judged - judged_mean)
    seen = np.arange(1, n + 1)
    means = (alpha + np.cumsum(paid)) / (seen + 1)
    prior = alpha * (1 - alpha)
    variances = (prior + np.cumsum((paid - means) ** 2)) / (seen + 1)
    before = np.concatenate(([prior], variances[:-1]))
    # No row pays more than this.
    most = 1 + weights * judged_mean
    stakes = np.minimum(np.sqrt(2 * math.log(1 / delta) / (n * before)), _CAUTION / (most - alpha))
    capital = np.cumsum(np.log1p(stakes * (alpha - paid)))
    return min(1.0, math.exp(-max(0.0, float(capital.max()))))


def _slopes(human: Array, judged: Array) -> Array:
    """The slope of `human` on `judged` over all rows before each, in [0, 1]."""
    seen = np.arange(1, human.size + 1)
    sums, judged_sums = np.cumsum(human), np.cumsum(judged)
    covariances = (np.cumsum(human * judged) - sums * judged_sums / seen) / seen
    variances = (np.cumsum(judged**2) - judged_sums**2 / seen) / seen
    slopes = np.clip(covariances / (variances + _PRIOR / seen), 0.0, 1.0)
    return np.concatenate(([0.0], slopes[:-1]))


def labels_needed(alpha: float, delta: float) -> int:
    """Find the fewest human grades that `prediction_powered_betting` can do with, if none of them is a loss.

    Examples
    --------
    >>> labels_needed(0.05, 0.1), labels_needed(0.2, 0.1)
    (60, 14)
    """
    return math.ceil(math.log(1 / delta) / math.log1p(_CAUTION * alpha / (1 - alpha)))
