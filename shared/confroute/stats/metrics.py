"""How well an uncertainty ranks errors, and how much routing by it recovers.

All functions take one value per row. Ties are handled exactly: the result is the mean over all orders of tied rows, so that it does
not depend on the order of the rows. A statistic that is undefined for the data (all rows right, say) is None, never 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from confroute.stats.arrays import Array, MetricError, checked, sums_in_order
from confroute.stats.bootstrap import LEVEL, bootstrap_ci

__all__ = [
    "LEVEL",
    "MetricError",
    "RiskCoverage",
    "apgr",
    "apgr_binned",
    "auroc",
    "bin_of",
    "bootstrap_ci",
    "ece",
    "prr",
    "risk_coverage",
]

_BINS = 10


def apgr(
    uncertainty: npt.ArrayLike, edge_quality: npt.ArrayLike, cloud_quality: npt.ArrayLike
) -> float | None:
    """Average performance gap recovered (APGR) when the most uncertain rows go to the cloud, by the exact curve.

    Parameters
    ----------
    uncertainty : array of float, shape (n,)
    edge_quality, cloud_quality : array of float, shape (n,)

    Returns
    -------
    float or None
        Area under (quality - edge) / (cloud - edge) over the share of rows that the cloud answers, by the trapezoid
        rule over all n + 1 shares (Ong et al., arXiv 2406.18665, without their 10 bins). Random routing has 0.5. Above 1 is possible,
        since the edge may be right where the cloud is wrong. None where the cloud is not better than the edge on average.

    Raises
    ------
    MetricError
        NaN or arrays of different length.

    Examples
    --------
    >>> apgr([0.9, 0.1], [0.0, 1.0], [1.0, 1.0]), apgr([1, 1], [0.0, 1.0], [1.0, 1.0])
    (0.75, 0.5)
    """
    u, e, c = checked(uncertainty=uncertainty, edge_quality=edge_quality, cloud_quality=cloud_quality)
    gap = float((c - e).sum())
    if u.size == 0 or gap <= 0:
        return None
    recovered = sums_in_order(-u, c - e) / gap
    return float((recovered[1:] + recovered[:-1]).sum() / (2 * u.size))


def apgr_binned(
    uncertainty: npt.ArrayLike,
    edge_quality: npt.ArrayLike,
    cloud_quality: npt.ArrayLike,
    *,
    bins: int = _BINS,
) -> float | None:
    """APGR by RouteLLM's own protocol: thresholds at the edges of quantile bins only.

    Parameters
    ----------
    uncertainty : array of float, shape (n,)
        RouteLLM's score: the predicted win rate of the strong model.
    edge_quality, cloud_quality : array of float, shape (n,)
    bins : int
        Quantile bins.

    Returns
    -------
    float or None
        None where the cloud is not better on average, or fewer than two edges are distinct.

    Raises
    ------
    MetricError
        NaN, arrays of different length, or an infinite uncertainty.

    Notes
    -----
    Thresholds are the distinct edges of the quantile bins; a row goes to the cloud if its uncertainty is at least the
    threshold (above it, for the last edge); APGR = (A - A_edge) / (A_cloud - A_edge), A by the trapezoid rule of
    mean quality over the share of cloud calls. Tied rows move together, as they do in use. It serves to compare with published
    numbers; `apgr` uses more of the data.

    Examples
    --------
    >>> apgr_binned([0.9, 0.1], [0.0, 1.0], [1.0, 1.0])
    0.75
    """
    u, e, c = checked(uncertainty=uncertainty, edge_quality=edge_quality, cloud_quality=cloud_quality)
    gap = float((c - e).sum())
    if u.size == 0 or gap <= 0:
        return None
    if not np.isfinite(u).all():
        msg = "uncertainty holds infinities: quantile bins need finite values; apgr does not"
        raise MetricError(msg)
    edges = np.unique(np.quantile(u, np.linspace(0, 1, bins + 1)))
    if edges.size < 2:
        return None
    strong = [u >= edge for edge in edges[:-1]] + [u > edges[-1]]
    share = np.array([chosen.mean() for chosen in strong])[::-1]
    recovered = np.array([(c - e)[chosen].sum() for chosen in strong])[::-1] / gap
    return float((np.diff(share) * (recovered[1:] + recovered[:-1]) / 2).sum())


def auroc(uncertainty: npt.ArrayLike, wrong: npt.ArrayLike) -> float | None:
    """Probability that a wrong answer has a higher uncertainty than a right one; ties count one half.

    Parameters
    ----------
    uncertainty : array of float, shape (n,)
        Any unit; infinities are allowed.
    wrong : array of bool, shape (n,)

    Returns
    -------
    float in [0, 1] or None
        Area under the ROC curve, as the Mann-Whitney statistic (Hanley and McNeil, Radiology 143, 1982); 0.5 is
        chance. None where all answers are right, or all wrong.

    Raises
    ------
    MetricError
        NaN, arrays of different length, or a `wrong` that is neither 0 nor 1.

    Examples
    --------
    >>> auroc([0.9, 0.2, 0.2, 0.1], [True, True, False, False])
    0.875
    >>> auroc([0.9, 0.2], [True, True]) is None
    True
    """
    u, w = checked(uncertainty=uncertainty, wrong=wrong)
    bad = w == 1
    if not np.array_equal(bad, w):
        msg = "wrong holds values that are neither 0 nor 1: compare graded quality with a limit first"
        raise MetricError(msg)
    positives = int(bad.sum())
    negatives = w.size - positives
    if positives == 0 or negatives == 0:
        return None
    order = np.sort(u)
    # The mean of both ranks is the mid-rank of tied rows.
    twice = np.searchsorted(order, u[bad], side="left") + np.searchsorted(order, u[bad], side="right")
    above = int(twice.sum()) / 2 + positives / 2 - positives * (positives + 1) / 2
    return float(above / (positives * negatives))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RiskCoverage:
    """The risk of the answers kept, by how many are kept.

    Attributes
    ----------
    coverage : array of float, shape (n,)
        1/n, 2/n, ..., 1: share of rows kept, the least uncertain first.
    risk : array of float, shape (n,)
        Mean of 1 - quality of the rows kept.
    aurc : float
        Mean risk over all coverages; lower is better.
    """

    coverage: Array
    risk: Array
    aurc: float


def risk_coverage(uncertainty: npt.ArrayLike, quality: npt.ArrayLike) -> RiskCoverage | None:
    """Compute the risk-coverage curve and the area under it.

    Parameters
    ----------
    uncertainty : array of float, shape (n,)
    quality : array of float in [0, 1], shape (n,)

    Returns
    -------
    RiskCoverage or None
        None for no rows. After Geifman and El-Yaniv (arXiv 1705.08500); AURC as in arXiv 1805.08206.

    Raises
    ------
    MetricError
        NaN or arrays of different length.

    Examples
    --------
    >>> curve = risk_coverage([0.1, 0.2, 0.3], [1.0, 1.0, 0.0])
    >>> curve.risk.round(3).tolist(), round(curve.aurc, 3)
    ([0.0, 0.0, 0.333], 0.111)
    """
    u, q = checked(uncertainty=uncertainty, quality=quality)
    if u.size == 0:
        return None
    kept = np.arange(1, u.size + 1)
    risk = sums_in_order(u, 1.0 - q)[1:] / kept
    return RiskCoverage(coverage=kept / u.size, risk=risk, aurc=float(risk.mean()))


def prr(uncertainty: npt.ArrayLike, quality: npt.ArrayLike) -> float | None:
    """Prediction rejection ratio: the share of the oracle's gain over random rejection that is achieved.

    Parameters
    ----------
    uncertainty : array of float, shape (n,)
    quality : array of float in [0, 1], shape (n,)
        Need not be binary.

    Returns
    -------
    float or None
        At most 1 (the oracle's order); 0 is chance, below 0 is worse. None where all qualities are equal.

    Raises
    ------
    MetricError
        NaN or arrays of different length.

    Notes
    -----
    (A_u - A_random) / (A_oracle - A_random), where A is the mean, over 1 to n rows kept, of the mean quality of
    the rows kept, by uncertainty and by quality itself; A_random is the mean quality. That is LM-Polygraph's
    ratio (Vashurin et al., arXiv 2406.15627) without a limit on the share rejected. Malinin and Gales
    (arXiv 2002.07650) divide by all n rows instead, which for binary quality is 2 AUROC - 1 and so adds nothing.

    Examples
    --------
    >>> prr([0.1, 0.2, 0.9], [1.0, 0.8, 0.0]), prr([1, 1, 1, 1], [1, 1, 0, 0])
    (1.0, 0.0)
    """
    u, q = checked(uncertainty=uncertainty, quality=quality)
    if u.size == 0 or q.min() == q.max():
        return None
    mine, oracle = risk_coverage(u, q), risk_coverage(-q, q)
    assert mine is not None
    assert oracle is not None
    random = 1.0 - float(q.mean())
    return (random - mine.aurc) / (random - oracle.aurc)


def ece(probability: npt.ArrayLike, wrong: npt.ArrayLike, *, bins: int = _BINS) -> float | None:
    """Expected calibration error of a predicted probability of being wrong.

    Parameters
    ----------
    probability : array of float in [0, 1], shape (n,)
        An uncertainty is not one: see `confroute.stats.isotonic.crossfit_probability`.
    wrong : array of float in [0, 1], shape (n,)
        1 where the answer is wrong; graded answers may lie between.
    bins : int
        Bins of equal width.

    Returns
    -------
    float in [0, 1] or None
        Mean over rows of ``|mean probability - share wrong|`` of their bin (Naeini et al., AAAI 2015; Guo et al.,
        arXiv 1706.04599). For few rows it is biased upwards: a perfectly calibrated probability can reach
        0.4 * sqrt(bins / n), which is .09 for 200 rows. None for no rows.

    Raises
    ------
    MetricError
        A probability outside [0, 1], NaN, or arrays of different length.

    Examples
    --------
    >>> round(ece([0.8, 0.8, 0.8, 0.8, 0.1], [1, 1, 1, 0, 0]), 3)
    0.06
    """
    p, w = checked(probability=probability, wrong=wrong)
    if p.size == 0:
        return None
    if p.min() < 0 or p.max() > 1:
        msg = f"probability lies in [{p.min():g}, {p.max():g}]: expected [0, 1]; an uncertainty needs crossfit_probability"
        raise MetricError(msg)
    at = bin_of(p, bins)
    gaps = np.bincount(at, weights=p - w, minlength=bins)
    return float(np.abs(gaps).sum() / p.size)


def bin_of(probability: Array, bins: int = _BINS) -> npt.NDArray[np.intp]:
    """Which of `bins` bins of equal width each probability lies in; 1.0 belongs to the last.

    Examples
    --------
    >>> bin_of(np.array([0.0, 0.1, 0.99, 1.0])).tolist()
    [0, 1, 9, 9]
    """
    return np.minimum((probability * bins).astype(np.intp), bins - 1)
