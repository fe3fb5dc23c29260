"""Routers compared at equal total cost: what they recover of the gap for each budget, drafts and samples included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.bench.preference import Interval
from confroute.errors import PolicyError
from confroute.stats.arrays import Array
from confroute.types import JSON

Kind: TypeAlias = Literal["reference", "query", "answer"]
Rows: TypeAlias = "npt.NDArray[np.intp]"
BUDGETS = (0.25, 0.5, 0.75)
RATIOS = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5)
_GRID = 401


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calls:
    """Recorded calls: the quality of both answers, and what each cost.

    Attributes
    ----------
    edge, cloud : array of float, shape (n,)
        Quality.
    edge_usd, cloud_usd : array of float, shape (n,)
        Of one answer.
    """

    edge: Array
    cloud: Array
    edge_usd: Array
    cloud_usd: Array

    @property
    def n(self) -> int:
        """Calls."""
        return int(self.edge.size)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ranked:
    """A router that sends the calls of the highest scores to the cloud, any number of them.

    Attributes
    ----------
    name : str
    kind : {"reference", "query", "answer"}
        "query": looks at the prompt alone, so that a call pays for one model. "answer": looks at the edge's answer, so
        that every call pays for the draft. A "reference" cannot be built, but pays as "query".
    scores : array of float, shape (n,)
        Equal scores stand in random order: what is returned is the mean over all orders.
    samples_usd : array of float, shape (n,)
        Of further answers of the edge, on every call.
    """

    name: str
    kind: Kind
    scores: Array
    samples_usd: Array | None = None

    def sums(self, calls: Calls, rows: Rows) -> Array:
        """Sums over `rows` of the edge's USD, the cloud's USD and the gain, a column a number of cloud calls."""
        keys = -self.scores[rows]
        order = np.argsort(keys, kind="stable")
        drawn = rows[order]
        moved = np.stack([calls.edge_usd[drawn], calls.cloud_usd[drawn], (calls.cloud - calls.edge)[drawn]])
        ends = np.flatnonzero(np.append(np.diff(keys[order]) != 0, True))
        sums = np.concatenate([np.zeros((3, 1)), moved.cumsum(axis=1)[:, ends]], axis=1)
        edge = calls.edge_usd[rows].sum()
        if self.kind == "answer":
            further = 0.0 if self.samples_usd is None else self.samples_usd[rows].sum()
            sums[0] = edge + further
        else:
            sums[0] = edge - sums[0]
        return np.asarray(sums)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stepped:
    """A router that was run at several settings, such as thresholds with early stopping.

    Attributes
    ----------
    name : str
    sent : array of bool, shape (settings, n)
        Whether the cloud answered.
    edge_usd : array of float, shape (settings, n)
        What the edge's draft and samples cost.
    """

    name: str
    sent: npt.NDArray[np.bool_]
    edge_usd: Array
    kind: Kind = field(default="answer", init=False)

    def sums(self, calls: Calls, rows: Rows) -> Array:
        """As `Ranked.sums`, a column a setting, by rising number of cloud calls."""
        sent = self.sent[:, rows]
        sums = np.stack(
            [
                self.edge_usd[:, rows].sum(axis=1),
                sent @ calls.cloud_usd[rows],
                sent @ (calls.cloud - calls.edge)[rows],
            ]
        )
        return np.asarray(sums[:, np.argsort(sent.sum(axis=1), kind="stable")])


Router: TypeAlias = "Ranked | Stepped"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class AtCost:
    """What one router recovers at equal total cost.

    Attributes
    ----------
    name : str
    kind : {"reference", "query", "answer"}
    area : Interval
        Mean part of the gap recovered over all budgets between always-edge and always-cloud; random mixing has 0.5.
    recovered : tuple of float
        Part of the gap recovered for `BUDGETS`: always-edge's cost and so much of the way to always-cloud's.
    over_best_head : Interval or None
        `area` minus that of the best router of kind "query", which is sought anew in each resample; None without one.
    curve : array of float, shape (2, points)
        Budget as a share of the way, and part of the gap recovered.
    by_ratio : tuple of Interval or None
        `over_best_head` for each of `RATIOS`: costs of the edge scaled so that its mean answer costs so much of the cloud's.
    """

    name: str
    kind: Kind
    area: Interval
    recovered: tuple[float, ...]
    over_best_head: Interval | None
    curve: Array = field(repr=False)
    by_ratio: tuple[Interval, ...] | None = None

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        recovered: dict[str, JSON] = {
            f"{budget:g}": round(part, 6) for budget, part in zip(BUDGETS, self.recovered, strict=True)
        }
        return {
            "kind": self.kind,
            "cost_apgr": round(self.area.value, 6),
            "cost_apgr_ci": [round(self.area.low, 6), round(self.area.high, 6)],
            "recovered_at_budget": recovered,
            "over_best_head": None if self.over_best_head is None else _listed(self.over_best_head),
        }


def at_equal_cost(
    calls: Calls, routers: Sequence[Router], *, resamples: int = 1000, seed: int = 0
) -> list[AtCost]:
    """Measure routers for every budget between always-edge and always-cloud.

    Parameters
    ----------
    calls : Calls
    routers : sequence of Ranked or Stepped
    resamples : int
        Of the bootstrap; all routers see the same resamples, so that differences are paired.
    seed : int

    Returns
    -------
    list of AtCost
        Budgets that a router cannot keep (less than its draft and samples cost) count as nothing recovered. Always-cloud
        costs less than drafting first and then sending everything: so far a router that drafts never gets.

    Raises
    ------
    PolicyError
        A cloud that costs no more than the edge, or is on average no better.

    Examples
    --------
    >>> one = np.ones(4)
    >>> calls = Calls(edge=np.array([0.0, 0, 1, 1]), cloud=one, edge_usd=0.1 * one, cloud_usd=one)
    >>> sees = Ranked(name="sees errors", kind="answer", scores=np.array([1.0, 1, 0, 0]))
    >>> mixes = Ranked(name="mixes", kind="query", scores=np.zeros(4))
    >>> [round(found.area.value, 3) for found in at_equal_cost(calls, [sees, mixes], resamples=10)]
    [0.722, 0.5]
    """
    gap, dearer = float((calls.cloud - calls.edge).mean()), float((calls.cloud_usd - calls.edge_usd).mean())
    if gap <= 0 or dearer <= 0:
        msg = f"the cloud is better by {gap:.4f} and dearer by {dearer:.6g} USD a call: expected both above 0"
        raise PolicyError(msg)
    generator = np.random.default_rng(seed)
    own = float(calls.edge_usd.mean() / calls.cloud_usd.mean())
    scales = [1.0, *(ratio / own for ratio in RATIOS)] if own > 0 else [1.0]
    draws = [np.arange(calls.n), *(generator.integers(0, calls.n, calls.n) for _ in range(resamples))]
    # Shape (resamples + 1, routers, scales); the first one holds the calls as they are.
    areas = np.array([[_areas(router, calls, rows, scales) for router in routers] for rows in draws])
    heads = np.array([router.kind == "query" for router in routers])
    best = areas[:, heads].max(axis=1) if heads.any() else None
    found = []
    for at, router in enumerate(routers):
        over = None if best is None else [_interval(areas[:, at, s] - best[:, s]) for s in range(len(scales))]
        curve = _curve(router.sums(calls, draws[0]), calls, draws[0], 1.0)
        found.append(
            AtCost(
                name=router.name,
                kind=router.kind,
                area=_interval(areas[:, at, 0]),
                recovered=tuple(np.interp(BUDGETS, curve[0], curve[1], left=0.0).tolist()),
                over_best_head=None if over is None else over[0],
                curve=curve,
                by_ratio=tuple(over[1:]) if over is not None and len(over) > 1 else None,
            )
        )
    return found


def _curve(sums: Array, calls: Calls, rows: Rows, scale: float) -> Array:
    """Budget as a share of the way from always-edge to always-cloud, and part of the gap recovered; shape (2, points)."""
    edge, cloud, gain = sums
    least, most = scale * calls.edge_usd[rows].sum(), calls.cloud_usd[rows].sum()
    gap = (calls.cloud - calls.edge)[rows].sum()
    if gap <= 0 or most <= least:
        return np.full((2, 1), np.nan)
    # A call whose cloud answer was the cheaper one would move the curve back.
    budget = np.maximum.accumulate((scale * edge + cloud - least) / (most - least))
    return np.stack([budget, gain / gap])


def _areas(router: Router, calls: Calls, rows: Rows, scales: Sequence[float]) -> list[float]:
    grid, sums = np.linspace(0, 1, _GRID), router.sums(calls, rows)
    found = []
    for scale in scales:
        budget, gained = _curve(sums, calls, rows, scale)
        heights = np.interp(grid, budget, gained, left=0.0)
        found.append(float((heights[1:] + heights[:-1]).mean() / 2))
    return found


def _interval(values: Array) -> Interval:
    """The first of `values`, between the quantiles of the others."""
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return Interval(value=float(values[0]), low=float(low), high=float(high))


def _listed(interval: Interval) -> list[JSON]:
    return [round(end, 6) for end in (interval.value, interval.low, interval.high)]
