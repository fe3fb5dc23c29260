"""Preference and consistency: what is gained over another router at the same share of cloud calls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from confroute.bench._arrays import Array
from confroute.bench.replay.data import Benchmark
from confroute.bench.replay.protocol import Result

SHARE = 0.5
MARGIN = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number and its 95 % bootstrap interval over questions."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One router against another, both sending the same share of prompts to the cloud.

    Attributes
    ----------
    ours, other : str
    share : float
        Of cloud calls.
    preference : Interval
        Difference of the parts of the gap between edge and cloud that are recovered.
    relative : Interval
        The same, in parts of the other's.
    win_rate : Interval
        Share of questions on which ours has the higher quality, ties one half.
    spread : Interval
        Difference of the standard deviations of quality over questions; below 0 is more consistent.
    tenth : Interval
        Difference of the 10th percentiles of quality; above 0 is better.
    below_cloud : Interval
        Difference of the shares of questions whose quality is `MARGIN` or more below the cloud's; below 0 is better.
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


def routed_quality(scores: Array, bench: Benchmark, share: float) -> Array:
    """Quality by question, shape (runs, n), when the `share` of prompts with the highest scores goes to the cloud."""
    count = round(share * bench.n)
    found = np.tile(bench.weak, (len(scores), 1))
    for run, order in enumerate(np.argsort(-scores, axis=1, kind="stable")):
        found[run, order[:count]] = bench.strong[order[:count]]
    return found


def compare(
    ours: Result, other: Result, bench: Benchmark, resamples: int, *, share: float = SHARE
) -> Comparison:
    """Compare two results; the questions are resampled, the routes stay as they are."""
    mine, theirs = (routed_quality(result.scores, bench, share) for result in (ours, other))
    generator = np.random.default_rng(0)
    draws = [np.arange(bench.n), *(generator.integers(0, bench.n, bench.n) for _ in range(resamples))]
    table = np.array([_statistics(mine[:, at], theirs[:, at], bench, at) for at in draws])
    low, high = np.nanquantile(table[1:], [0.025, 0.975], axis=0)
    values = [
        Interval(value=float(v), low=float(a), high=float(b))
        for v, a, b in zip(table[0], low, high, strict=True)
    ]
    return Comparison(
        ours=ours.name,
        other=other.name,
        share=share,
        preference=values[0],
        relative=values[1],
        win_rate=values[2],
        spread=values[3],
        tenth=values[4],
        below_cloud=values[5],
    )


def _statistics(mine: Array, theirs: Array, bench: Benchmark, at: np.ndarray) -> list[float]:
    weak, strong = bench.weak[at], bench.strong[at]
    gap = float((strong - weak).mean())
    a, b = float((mine - weak).mean()), float((theirs - weak).mean())
    won = (mine > theirs).mean() + (mine == theirs).mean() / 2
    margin = strong - MARGIN
    return [
        (a - b) / gap if gap > 0 else np.nan,
        (a - b) / b if b > 0 else np.nan,
        float(won),
        float(mine.std(axis=1).mean() - theirs.std(axis=1).mean()),
        float(np.quantile(mine, 0.1, axis=1).mean() - np.quantile(theirs, 0.1, axis=1).mean()),
        float((mine <= margin).mean() - (theirs <= margin).mean()),
    ]
