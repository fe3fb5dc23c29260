"""Adverse selection: the calls that a router sends on are harder for the next model too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from confroute.fitting.point import Interval
from confroute.stats.arrays import Array
from confroute.stats.bootstrap import bootstrap_ci
from confroute.types import JSON

_SHARE = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class AdverseSelection:
    """How the cloud does on the calls that a tier is most uncertain of.

    Attributes
    ----------
    tier : str
        Whose uncertainty it is.
    overall, uncertain : float in [0, 1]
        Mean quality of the cloud's answers on all calls, and on the most uncertain quarter.
    difference : float in [-1, 1]
        The second minus the first: negative where what is sent on is harder for the cloud as well.
    interval : tuple of float or None
        95 % bootstrap interval of the difference.
    n : int
        Calls.
    """

    tier: str
    overall: float
    uncertain: float
    difference: float
    interval: Interval | None
    n: int

    @property
    def words(self) -> str:
        """The finding in one sentence."""
        ends = "" if self.interval is None else f" [{self.interval[0]:+.3f}, {self.interval[1]:+.3f}]"
        return (
            f"adverse selection: the cloud's quality is {self.uncertain:.3f} on the quarter of calls that {self.tier} is most uncertain of, "
            f"and {self.overall:.3f} on all: {self.difference:+.3f}{ends}"
        )

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "tier": self.tier,
            "cloud_overall": round(self.overall, 6),
            "cloud_on_most_uncertain_quarter": round(self.uncertain, 6),
            "difference": round(self.difference, 6),
            "difference_ci": None if self.interval is None else [round(end, 6) for end in self.interval],
            "n": self.n,
        }


def adverse_selection(
    uncertainty: Array, cloud_quality: Array, *, tier: str = "edge", seed: int = 0
) -> AdverseSelection | None:
    """Compare the cloud's quality on the most uncertain quarter of calls with its quality on all.

    Parameters
    ----------
    uncertainty : array of float, shape (n,)
        NaN, of calls that go on whatever the threshold, counts as above all others.
    cloud_quality : array of float in [0, 1], shape (n,)
    tier : str
        Whose uncertainty it is.
    seed : int
        Of the interval.

    Returns
    -------
    AdverseSelection or None
        None where the cloud is not graded on every call, or there are none.

    Notes
    -----
    Calls that are tied where the quarter begins count in part, each as much as the others.

    Examples
    --------
    >>> doubt, right = np.arange(8.0), np.array([1.0, 1, 1, 1, 1, 1, 1, 0])
    >>> found = adverse_selection(doubt, right)
    >>> found.overall, found.uncertain, found.difference
    (0.875, 0.5, -0.375)
    """
    if not cloud_quality.size or np.isnan(cloud_quality).any():
        return None
    part = _most_uncertain(np.where(np.isnan(uncertainty), np.inf, uncertainty))

    def difference(of: Array, quality: Array) -> float | None:
        return float((of * quality).sum() / of.sum() - quality.mean()) if of.any() else None

    overall = float(cloud_quality.mean())
    found = difference(part, cloud_quality)
    assert found is not None, "a quarter of at least one call is not empty"
    return AdverseSelection(
        tier=tier,
        overall=overall,
        uncertain=overall + found,
        difference=found,
        interval=bootstrap_ci(difference, part, cloud_quality, seed=seed),
        n=cloud_quality.size,
    )


def _most_uncertain(uncertainty: Array) -> Array:
    """How much of each call belongs to the most uncertain quarter, in [0, 1]."""
    wanted = _SHARE * uncertainty.size
    edge = np.sort(uncertainty)[::-1][int(np.ceil(wanted)) - 1]
    above, tied = uncertainty > edge, uncertainty == edge
    share = (wanted - above.sum()) / tied.sum()
    return np.where(above, 1.0, np.where(tied, share, 0.0))
