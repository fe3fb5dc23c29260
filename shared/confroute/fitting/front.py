"""Quality and cost of every threshold of a signal on recorded calls, between always-edge and always-cloud."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.display import Displayable
from confroute.errors import CalibrationError
from confroute.fitting.point import Calls, Interval, Point, fields_of, metrics
from confroute.fitting.table import Array, Table
from confroute.stats.arrays import Flags

_State: TypeAlias = "Mapping[str, tuple[Array, Array]]"
_THRESHOLDS = 100
_RESAMPLES = 1000
# Numbers that are held at a time: 16 MB.
_BLOCK = 2_000_000


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ParetoFront(Displayable):
    """Every trade-off between quality and cost that a signal offers on recorded calls.

    Attributes
    ----------
    points : tuple of Point
        One per threshold, about a hundred, by falling cloud share.
    edge, cloud : Point
        Always the edge, without further evidence; always the cloud, without a draft.
    oracle : tuple of Point
        The best that any routing could do at each cost: which model answers better is known beforehand, so that only kept answers
        are drafted and no evidence is paid for. Up to about a hundred points by rising cost, with straight lines between them.
    n : int
        Number of calls.
    """

    points: tuple[Point, ...]
    edge: Point
    cloud: Point
    oracle: tuple[Point, ...]
    n: int

    @property
    def metric(self) -> str:
        """The metric of cost: USD for a thousand calls if known, else the cloud share."""
        known = all(p.usd_per_1k is not None for p in (self.edge, self.cloud, *self.points))
        return "usd_per_1k" if known else "cloud_share"

    @property
    def hull(self) -> tuple[Point, ...]:
        """The points that no mixture of two others beats, by rising cost, with both ends."""
        found: list[Point] = []
        for point in sorted(
            [self.edge, self.cloud, *self.points], key=lambda p: (self.cost(p), -self.worth(p))
        ):
            if found and self.worth(point) <= self.worth(found[-1]):
                continue
            while len(found) > 1 and self._below(found[-2], found[-1], point):
                found.pop()
            found.append(point)
        return tuple(found)

    @property
    def knee(self) -> Point:
        """The point of the hull farthest above the line between its ends, beyond which quality costs more."""
        hull = self.hull
        first, last = hull[0], hull[-1]
        width = self.cost(last) - self.cost(first) or 1.0
        slope = (self.worth(last) - self.worth(first)) / width
        return max(
            hull, key=lambda p: self.worth(p) - self.worth(first) - slope * (self.cost(p) - self.cost(first))
        )

    @property
    def break_even(self) -> float | None:
        """Cloud share above which drafting first costs more than always asking the cloud; None without prices.

        It is 1 - (draft and evidence) / cloud, and negative if a draft alone costs more than the cloud's answer.
        """
        if self.metric != "usd_per_1k" or not self.points:
            return None
        boldest = self.points[-1]
        cloud = self.cost(self.cloud)
        evidence = self.cost(boldest) - boldest.cloud_share * cloud
        return 1.0 - evidence / cloud if cloud > 0 else -math.inf

    def cost(self, point: Point) -> float:
        """Cost of a point, in the unit of `metric`."""
        return point.value(self.metric)

    def worth(self, point: Point) -> float:
        """Quality of a point.

        Raises
        ------
        CalibrationError
            The cloud is not graded.
        """
        if point.quality is None:
            msg = "the quality of some recorded calls is not known: grade both tiers' answers"
            raise CalibrationError(msg)
        return point.quality

    def at(
        self, *, cost: float | None = None, quality: float | None = None, cloud_share: float | None = None
    ) -> Point:
        """Find the best point within one bound.

        Parameters
        ----------
        cost : float, optional
            Find the best quality at this cost or less, in the unit of `metric`.
        quality : float, optional
            Find the least cost at this quality or more.
        cloud_share : float, optional
            Find the best quality at this cloud share or less.

        Raises
        ------
        CalibrationError
            Not exactly one bound is given, or no point is within it.
        """
        if sum(bound is not None for bound in (cost, quality, cloud_share)) != 1:
            msg = "give exactly one of cost, quality and cloud_share"
            raise CalibrationError(msg)
        points = [self.edge, *self.points, self.cloud]
        if quality is not None:
            left = [p for p in points if self.worth(p) >= quality]
            if left:
                return min(left, key=self.cost)
        else:
            bound = cost if cost is not None else cloud_share
            measure = self.cost if cost is not None else _share
            left = [p for p in points if bound is not None and measure(p) <= bound]
            if left:
                return max(left, key=self.worth)
        msg = (
            f"no point has cost {cost}, quality {quality} or cloud share {cloud_share}: qualities reach from "
            f"{min(map(self.worth, points)):.4f} to {max(map(self.worth, points)):.4f}, costs ({self.metric}) from "
            f"{min(map(self.cost, points)):.4g} to {max(map(self.cost, points)):.4g}"
        )
        raise CalibrationError(msg)

    def warning(self, point: Point) -> str | None:
        """Say why a point is not better than one model alone; None if it is better."""
        if self.metric == "usd_per_1k" and self.cost(point) >= self.cost(self.cloud):
            return (
                f"routing costs {self.cost(point):.4g} USD for 1000 calls, always asking the cloud {self.cost(self.cloud):.4g}: "
                f"with these prices it pays only up to a cloud share of {self.break_even:.0%}"
            )
        if point.quality is not None and self.edge.quality is not None and point.quality <= self.edge.quality:
            return f"quality {point.quality:.4f} is no better than the edge alone ({self.edge.quality:.4f})"
        return None

    def _below(self, a: Point, b: Point, c: Point) -> bool:
        run, rise = self.cost(c) - self.cost(a), self.worth(c) - self.worth(a)
        return (self.worth(b) - self.worth(a)) * run <= rise * (self.cost(b) - self.cost(a))


def _share(point: Point) -> float:
    return point.cloud_share


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Routing:
    """Several ways to route the rows: which calls each sends to the cloud, shape (ways, n), and whether it drafts these too before."""

    name: str
    sent: Flags
    thresholds: Sequence[float | None]
    evidence: bool = True
    drafts: bool = True


def front_of(
    table: Table,
    uncertainty: npt.ArrayLike,
    *,
    sampled: bool = False,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> ParetoFront:
    """Compute the front of one signal on recorded calls.

    Parameters
    ----------
    table : Table
    uncertainty : array of float, shape (n,)
        Calls with NaN, where it was not measured, go to the cloud.
    sampled : bool
        Whether the signal draws samples. All recorded ones are billed then, although a policy that stops early draws fewer.
    seed, resamples : int
        Seed and number of resamples of the intervals; no intervals for 0.
    """
    u = np.asarray(uncertainty, dtype=np.float64)
    known = np.unique(u[~np.isnan(u)])
    if known.size == 0:
        msg = f"the signal was measured on none of {table.n} rows"
        raise CalibrationError(msg)
    if known.size > _THRESHOLDS:
        known = np.unique(np.quantile(known, np.linspace(0, 1, _THRESHOLDS), method="inverted_cdf"))
    ways = _Routing(
        name="threshold",
        sent=~(u[None, :] <= known[:, None]),
        thresholds=known.tolist(),
        evidence=sampled,
    )
    ends = _ends(table)
    points, edge, cloud = _points(table, [ways, *ends], resampled(table.n, resamples, seed))
    return ParetoFront(
        points=tuple(points), edge=edge[0], cloud=_always(cloud[0]), oracle=tuple(_oracle(table)), n=table.n
    )


def baselines(table: Table, *, resamples: int = _RESAMPLES, seed: int = 0) -> tuple[Point, Point]:
    """Always the edge, without further evidence (calls on which it failed go to the cloud), and always the cloud, without a draft."""
    (edge,), (cloud,) = _points(table, _ends(table), resampled(table.n, resamples, seed))
    return edge, _always(cloud)


def _ends(table: Table) -> list[_Routing]:
    all_rows = np.ones((1, table.n), dtype=bool)
    return [
        _Routing(name="edge", sent=table.failed[None, :], thresholds=[None], evidence=False),
        _Routing(name="cloud", sent=all_rows, thresholds=[None], evidence=False, drafts=False),
    ]


def _always(cloud: Point) -> Point:
    return replace(cloud, cloud_share=1.0)


def resampled(n: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each row is drawn in each bootstrap resample, as weights that sum to 1: in blocks of shape (some resamples, n)."""
    generator = np.random.default_rng(seed)
    size = max(1, _BLOCK // max(1, n))
    for begun in range(0, resamples, size):
        left = min(size, resamples - begun)
        yield generator.multinomial(n, np.full(n, 1 / n), size=left) / n


def _oracle(table: Table) -> list[Point]:
    """Each call begins with the cheaper model, and the best gains per cost are bought first: no routing does better at equal cost."""
    if not table.cloud_graded:
        return []
    extra, gain = table.cloud["usd"] - table.draft["usd"], table.cloud_quality - table.edge_quality
    if np.isnan(extra).any():
        extra = np.ones(table.n)
    begin = table.failed | (extra < 0) | ((extra == 0) & (gain > 0))
    better = np.where(begin, -gain, gain)
    worth = np.where(~table.failed & (better > 0), better / np.maximum(np.abs(extra), 1e-300), 0.0)
    best = int((worth > 0).sum())
    counts = np.unique(np.linspace(0, best, min(best + 1, _THRESHOLDS)).round().astype(int))
    place = np.argsort(np.argsort(-worth, kind="stable"), kind="stable")
    sent = (place[None, :] < counts[:, None]) ^ begin[None, :]
    routing = _Routing(
        name="oracle", sent=sent, thresholds=[None] * counts.size, evidence=False, drafts=False
    )
    (points,) = _points(table, [routing], ())
    return points


def _points(table: Table, routings: Sequence[_Routing], weights: Iterable[Array]) -> list[list[Point]]:
    """The points of each routing; the blocks of `weights` are gone through once for all of them."""
    states = [_states(table, routing) for routing in routings]
    spreads = _spreads(routings, states, weights)
    return [
        [
            Point(
                name=routing.name,
                threshold=threshold,
                intervals={name: ends[at] for name, ends in spread.items()},
                **fields_of({name: one.of(np.where(sent, *state[name])) for name, one in metrics().items()}),
            )
            for at, (threshold, sent) in enumerate(zip(routing.thresholds, routing.sent, strict=True))
        ]
        for routing, state, spread in zip(routings, states, spreads, strict=True)
    ]


def _states(table: Table, routing: _Routing) -> dict[str, tuple[Array, Array]]:
    """Each metric's number of each call, if it is sent to the cloud and if it is kept."""
    spent = {name: np.stack(_spent(table, routing, name)) for name in table.draft}
    calls = Calls(
        cloud=np.repeat([[1.0], [0.0]], table.n, axis=1),
        quality=np.stack([table.cloud_quality, table.edge_quality]),
        **spent,
    )
    found = {name: one.per_call(calls) for name, one in metrics().items()}
    return {name: (values[0], values[1]) for name, values in found.items()}


def _spent(table: Table, routing: _Routing, name: str) -> tuple[Array, Array]:
    draft = table.draft[name]
    sent = table.cloud[name] + (draft if routing.drafts else 0.0)
    evidence = table.samples[name] if routing.evidence else 0.0
    return sent + evidence, draft + evidence


def _spreads(
    routings: Sequence[_Routing], states: Sequence[_State], weights: Iterable[Array]
) -> list[dict[str, list[Interval]]]:
    """The 95 % intervals of each routing's points, for each metric that has one and is finite at all of them."""
    known = [
        [name for name, one in metrics().items() if one.interval and _is_known(routing, state[name])]
        for routing, state in zip(routings, states, strict=True)
    ]
    means: list[dict[str, list[Array]]] = [{name: [] for name in names} for names in known]
    for block in weights:
        for routing, state, found in zip(routings, states, means, strict=True):
            for name, blocks in found.items():
                blocks.append(_means(block, routing.sent, *state[name]))
    return [
        {name: _middle(np.concatenate(blocks)) for name, blocks in found.items() if blocks} for found in means
    ]


def _is_known(routing: _Routing, state: tuple[Array, Array]) -> bool:
    sent, kept = map(np.isfinite, state)
    return bool((sent | ~routing.sent.any(axis=0)).all() and (kept | routing.sent.all(axis=0)).all())


def _means(weights: Array, routings: Flags, sent: Array, kept: Array) -> Array:
    """The weighted means of every routing, shape (resamples, ways), a few routings at a time."""
    step = max(1, _BLOCK // weights.shape[1])
    parts = [routings[at : at + step] for at in range(0, len(routings), step)]
    return np.concatenate([weights @ np.where(part, sent, kept).T for part in parts], axis=1)


def _middle(means: Array) -> list[Interval]:
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]
