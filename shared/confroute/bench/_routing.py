"""What routing by an uncertainty recovers of the gap between edge and cloud."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from confroute.bench._arrays import MetricError, checked, sums_in_order

_BINS = 10


def apgr(
    uncertainty: npt.ArrayLike, edge_quality: npt.ArrayLike, cloud_quality: npt.ArrayLike
) -> float | None:
    """Average performance gap recovered when the most uncertain rows go to the cloud, by the exact curve.

    Parameters
    ----------
    uncertainty : array of float, shape (n,)
    edge_quality, cloud_quality : array of float, shape (n,)

    Returns
    -------
    float or None
        Area under (quality - edge) / (cloud - edge) over the share of rows that the cloud answers, by the trapezoid
        rule over all n + 1 shares (Ong et al., arXiv 2406.18665, without their 10 bins). Random routing has 0.5;
        above 1 is possible, since the edge may be right where the cloud is wrong. None where the cloud is on
        average no better than the edge.

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
        None where the cloud is on average no better, or fewer than two edges are distinct.

    Raises
    ------
    MetricError
        NaN, arrays of different length, or an infinite uncertainty.

    Notes
    -----
    Thresholds are the distinct edges of the quantile bins; a row goes to the cloud if its uncertainty is at least the
    threshold (above it, for the last edge); APGR = (A - A_edge) / (A_cloud - A_edge), A by the trapezoid rule of
    mean quality over the share of cloud calls. Tied rows move together, as they would in use. For comparison with
    published numbers; `apgr` uses more of the data.

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
