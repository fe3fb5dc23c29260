"""How well an uncertainty ranks errors, and how much routing by it recovers.

All functions take one value per row. Ties are handled exactly: the result is the mean over all orders of tied rows, so that it does
not depend on the order of the rows. A statistic that is undefined for the data (all rows right, say) is None, never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from confroute.stats.arrays import Array, MetricError, checked, sums_in_order
from confroute.stats.bootstrap import LEVEL, bootstrap_ci, percentiles, resample_counts

__all__ = [
    "LEVEL",
    "MetricError",
    "RiskCoverage",
    "apgr",
    "apgr_binned",
    "auroc",
    "auroc_cis",
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
    order = _Order.of(uncertainty, wrong)
    return order.auroc(np.ones(order.n, dtype=np.intp))


def auroc_cis(
    uncertainties: Sequence[npt.ArrayLike],
    wrongs: Sequence[npt.ArrayLike],
    *,
    n: int = 2000,
    seed: int = 0,
    level: float = LEVEL,
) -> list[tuple[float, float] | None]:
    """Bootstrap intervals of `auroc` for several signals on equally many rows: those of `bootstrap_ci`, without its sorts.

    Parameters
    ----------
    uncertainties, wrongs : sequence of array, shape (rows,)
        One of each per signal.
    n, seed, level
        As of `bootstrap_ci`.

    Returns
    -------
    list of tuple of float or None
        One per signal; None as of `bootstrap_ci`.

    Notes
    -----
    How many right answers are less uncertain than each wrong one is counted by one sort of all rows. In a resample these counts
    become sums over how often each row was drawn, in O(rows).

    Examples
    --------
    >>> u, wrong = np.arange(50.0), np.arange(50) % 7 > 3
    >>> auroc_cis([u], [wrong], n=100) == [bootstrap_ci(auroc, u, wrong, n=100)]
    True
    """
    orders = [_Order.of(u, wrong) for u, wrong in zip(uncertainties, wrongs, strict=True)]
    sizes = {order.n for order in orders}
    if n < 1 or not 0 < level < 1 or len(sizes) > 1:
        msg = f"n is {n}, level {level} and the signals have {sorted(sizes)} rows: expected n of at least 1, a level between 0 and 1, and equally many"
        raise MetricError(msg)
    areas: list[list[float]] = [[] for _ in orders]
    for counts in resample_counts(sizes.pop(), n=n, seed=seed) if any(sizes) else ():
        for order, found in zip(orders, areas, strict=True):
            if (area := order.auroc(counts)) is not None:
                found.append(area)
    return [percentiles(found, n=n, level=level) for found in areas]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Order:
    """The order of right and wrong answers by uncertainty, from which the AUROC of any resample follows without a sort.

    Attributes
    ----------
    wrong, right : array of int
        Rows, the least uncertain first.
    below, up_to : array of int, shape of wrong
        How many of `right` have a lower uncertainty than each of `wrong`, and how many at most as high a one.
    """

    wrong: npt.NDArray[np.intp]
    right: npt.NDArray[np.intp]
    below: npt.NDArray[np.intp]
    up_to: npt.NDArray[np.intp]

    @classmethod
    def of(cls, uncertainty: npt.ArrayLike, wrong: npt.ArrayLike) -> _Order:
        u, w = checked(uncertainty=uncertainty, wrong=wrong)
        if not np.isin(w, (0.0, 1.0)).all():
            msg = "wrong holds values that are neither 0 nor 1: compare graded quality with a limit first"
            raise MetricError(msg)
        order = np.argsort(u, kind="stable")
        bad = w[order] == 1
        rows, others = order[bad], order[~bad]
        below, up_to = (np.searchsorted(u[others], u[rows], side=side) for side in ("left", "right"))
        return cls(wrong=rows, right=others, below=below, up_to=up_to)

    @property
    def n(self) -> int:
        return self.wrong.size + self.right.size

    def auroc(self, counts: npt.NDArray[np.intp]) -> float | None:
        """AUROC where each row counts so often."""
        drawn = counts[self.wrong]
        ranked = np.concatenate(([0], np.cumsum(counts[self.right])))
        positives, negatives = int(drawn.sum()), int(ranked[-1])
        if positives == 0 or negatives == 0:
            return None
        # Of tied rows one half counts: whole numbers up to here, so that no order of additions matters.
        twice = int(np.dot(drawn, ranked[self.below] + ranked[self.up_to]))
        return twice / (2 * positives * negatives)


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
