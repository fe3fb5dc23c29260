"""Compares two routers at the same share of cloud calls: preference, win rate and consistency."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.bench.data import Benchmark
from confroute.bench.protocol import Result
from confroute.stats.arrays import Array
from confroute.types import JSON

Rows: TypeAlias = "npt.NDArray[np.intp]"
SHARE = 0.5
MARGIN = 1.0
MEASURES = ("preference", "relative", "win_rate", "spread", "tenth", "below_cloud", "relative_below")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number with its 95 % bootstrap interval over questions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterComparison:
    """One router against another, both sending the same share of prompts to the cloud.

    Attributes
    ----------
    ours, other : str
    share : float
        Share of cloud calls.
    preference : Interval
        Difference of the shares of the gap between edge and cloud that the routers recover.
    relative : Interval
        `preference` relative to the other router's share.
    win_rate : Interval
        Share of questions on which ours has the higher quality; ties count one half.
    spread : Interval
        Difference of the standard deviations of quality over questions; below 0 is more consistent.
    tenth : Interval
        Difference of the 10th percentiles of quality; above 0 is better.
    below_cloud : Interval
        Difference of the shares of questions whose quality is `MARGIN` or more below the cloud's; below 0 is better.
    relative_below : Interval
        `below_cloud` relative to the other router's share: -0.1 is a tenth fewer such questions.
    """

    ours: str
    other: str
    share: float
    preference: Interval
    relative: Interval
    win_rate: Interval
    spread: Interval
    tenth: Interval
    below_cloud: Interval
    relative_below: Interval

    def to_dict(self) -> dict[str, JSON]:
        """Return the comparison as JSON, with [value, low, high] for each measure."""
        data: dict[str, JSON] = {"share": self.share}
        for name in MEASURES:
            measure: Interval = getattr(self, name)
            numbers = (measure.value, measure.low, measure.high)
            data[name] = [round(number, 6) if math.isfinite(number) else None for number in numbers]
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Quality of one router at a share of cloud calls.

    Attributes
    ----------
    name : str
    share : float
        Share of cloud calls.
    preference : Interval
        Share of the gap between edge and cloud that is recovered; on MT-Bench the gap is in judge scores.
    spread, tenth : Interval
        Standard deviation and 10th percentile of quality over questions.
    below_cloud : Interval
        Share of questions whose quality is `MARGIN` or more below the cloud's.
    """

    name: str
    share: float
    preference: Interval
    spread: Interval
    tenth: Interval
    below_cloud: Interval


def routed_quality(scores: Array, bench: Benchmark, share: float) -> Array:
    """Quality of each question, shape (runs, n), if the `share` of prompts with the highest scores goes to the cloud."""
    count = round(share * bench.n)
    quality = np.tile(bench.weak, (len(scores), 1))
    for run, order in enumerate(np.argsort(-scores, axis=1, kind="stable")):
        quality[run, order[:count]] = bench.strong[order[:count]]
    return quality


def compare(
    ours: Result, other: Result, bench: Benchmark, resamples: int, *, share: float = SHARE
) -> RouterComparison:
    """Compare two results; the bootstrap resamples questions and keeps the routes."""
    mine, theirs = (routed_quality(result.scores, bench, share) for result in (ours, other))

    def differences(rows: Rows) -> list[float]:
        a, b = _statistics(mine[:, rows], bench, rows), _statistics(theirs[:, rows], bench, rows)
        win_rate = (mine[:, rows] > theirs[:, rows]).mean() + (mine[:, rows] == theirs[:, rows]).mean() / 2
        return [
            a.preference - b.preference,
            _relative(a.preference, b.preference),
            float(win_rate),
            a.spread - b.spread,
            a.tenth - b.tenth,
            a.below_cloud - b.below_cloud,
            _relative(a.below_cloud, b.below_cloud),
        ]

    measures = dict(zip(MEASURES, _intervals(differences, bench.n, resamples), strict=True))
    return RouterComparison(ours=ours.name, other=other.name, share=share, **measures)


def level(result: Result, bench: Benchmark, resamples: int, *, share: float = SHARE) -> Level:
    """Measure a result at a share of cloud calls."""
    quality = routed_quality(result.scores, bench, share)
    values = _intervals(lambda rows: [*_statistics(quality[:, rows], bench, rows)], bench.n, resamples)
    return Level(name=result.name, share=share, **dict(zip(_Statistics._fields, values, strict=True)))


class _Statistics(NamedTuple):
    preference: float
    spread: float
    tenth: float
    below_cloud: float


def _statistics(quality: Array, bench: Benchmark, rows: Rows) -> _Statistics:
    weak, strong = bench.weak[rows], bench.strong[rows]
    gap = float((strong - weak).mean())
    return _Statistics(
        preference=float((quality - weak).mean()) / gap if gap > 0 else math.nan,
        spread=float(quality.std(axis=1).mean()),
        tenth=float(np.quantile(quality, 0.1, axis=1).mean()),
        below_cloud=float((quality <= strong - MARGIN).mean()),
    )


def _relative(mine: float, theirs: float) -> float:
    return (mine - theirs) / theirs if theirs > 0 else math.nan


def _intervals(statistic: Callable[[Rows], list[float]], n: int, resamples: int) -> list[Interval]:
    generator = np.random.default_rng(0)
    draws = [np.arange(n), *(generator.integers(0, n, n) for _ in range(resamples))]
    table = np.array([statistic(rows) for rows in draws])
    low, high = np.nanquantile(table[1:], [0.025, 0.975], axis=0)
    return [
        Interval(value=float(v), low=float(a), high=float(b))
        for v, a, b in zip(table[0], low, high, strict=True)
    ]
