"""Compares routers at equal total cost: the share of the quality gap they recover for each budget, drafts included."""

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
    """Recorded calls: quality and cost of both answers.

    Attributes
    ----------
    edge, cloud : array of float, shape (n,)
        Quality of each answer.
    edge_usd, cloud_usd : array of float, shape (n,)
        Cost of each answer.
    """

    edge: Array
    cloud: Array
    edge_usd: Array
    cloud_usd: Array

    @property
    def n(self) -> int:
        """Number of calls."""
        return int(self.edge.size)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RankingRouter:
    """A router that sends the calls with the highest scores to the cloud, as many as one likes.

    Attributes
    ----------
    name : str
    kind : {"reference", "query", "answer"}
        "query": reads the prompt alone, so that a call pays for one model. "answer": reads the edge's answer, so that
        every call pays for the draft. A "reference" cannot be built in practice; it pays like "query".
    scores : array of float, shape (n,)
        Calls with equal scores are in random order: results are means over all orders.
    samples_usd : array of float, shape (n,)
        Cost of further answers of the edge, on every call.
    """

    name: str
    kind: Kind
    scores: Array
    samples_usd: Array | None = None

    def sums(self, calls: Calls, rows: Rows) -> Array:
        """Sums over `rows` of the edge's USD, the cloud's USD and the gain; one column per number of cloud calls."""
        keys = -self.scores[rows]
        order = np.argsort(keys, kind="stable")
        ranked = rows[order]
        terms = np.stack(
            [calls.edge_usd[ranked], calls.cloud_usd[ranked], (calls.cloud - calls.edge)[ranked]]
        )
        ends = np.flatnonzero(np.append(np.diff(keys[order]) != 0, True))
        sums = np.concatenate([np.zeros((3, 1)), terms.cumsum(axis=1)[:, ends]], axis=1)
        edge = calls.edge_usd[rows].sum()
        if self.kind == "answer":
            samples = 0.0 if self.samples_usd is None else self.samples_usd[rows].sum()
            sums[0] = edge + samples
        else:
            sums[0] = edge - sums[0]
        return np.asarray(sums)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SteppedRouter:
    """A router that was run with several settings, such as thresholds with early stopping.

    Attributes
    ----------
    name : str
    sent : array of bool, shape (settings, n)
        Whether the cloud answered.
    edge_usd : array of float, shape (settings, n)
        Cost of the edge's draft and samples.
    """

    name: str
    sent: npt.NDArray[np.bool_]
    edge_usd: Array
    kind: Kind = field(default="answer", init=False)

    def sums(self, calls: Calls, rows: Rows) -> Array:
        """Like `RankingRouter.sums`, with one column per setting, in ascending order of cloud calls."""
        sent = self.sent[:, rows]
        sums = np.stack(
            [
                self.edge_usd[:, rows].sum(axis=1),
                sent @ calls.cloud_usd[rows],
                sent @ (calls.cloud - calls.edge)[rows],
            ]
        )
        return np.asarray(sums[:, np.argsort(sent.sum(axis=1), kind="stable")])


Router: TypeAlias = "RankingRouter | SteppedRouter"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CostResult:
    """Result of one router at equal total cost.

    A budget is given as a share of the way from always-edge's cost to always-cloud's.

    Attributes
    ----------
    name : str
    kind : {"reference", "query", "answer"}
    area : Interval
        Mean share of the gap recovered over all budgets; random mixing has 0.5.
    recovered : tuple of float
        Share of the gap recovered at each of `BUDGETS`.
    over_best_head : Interval or None
        `area` minus that of the best router of kind "query", which is determined anew in each resample; None without one.
    curve : array of float, shape (2, points)
        Budgets, and shares of the gap recovered.
    by_ratio : tuple of Interval or None
        `over_best_head` for each of `RATIOS`, with the edge's costs scaled so that its mean answer costs that share of the
        cloud's.
    """

    name: str
    kind: Kind
    area: Interval
    recovered: tuple[float, ...]
    over_best_head: Interval | None
    curve: Array = field(repr=False)
    by_ratio: tuple[Interval, ...] | None = None

    def to_dict(self) -> dict[str, JSON]:
        """Return the result as JSON."""
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
) -> list[CostResult]:
    """Measure routers for every budget between always-edge and always-cloud.

    Parameters
    ----------
    calls : Calls
    routers : sequence of RankingRouter or SteppedRouter
    resamples : int
        Number of bootstrap resamples; all routers see the same ones, so that differences are paired.
    seed : int

    Returns
    -------
    list of CostResult
        At a budget that does not cover a router's drafts and samples nothing is recovered. Always-cloud costs less than
        drafting first and then sending everything, so that a router with drafts never reaches it within budget 1.

    Raises
    ------
    PolicyError
        On average the cloud is not dearer than the edge, or not better.

    Examples
    --------
    >>> one = np.ones(4)
    >>> calls = Calls(edge=np.array([0.0, 0, 1, 1]), cloud=one, edge_usd=0.1 * one, cloud_usd=one)
    >>> sees = RankingRouter(name="sees errors", kind="answer", scores=np.array([1.0, 1, 0, 0]))
    >>> mixes = RankingRouter(name="mixes", kind="query", scores=np.zeros(4))
    >>> [round(result.area.value, 3) for result in at_equal_cost(calls, [sees, mixes], resamples=10)]
    [0.722, 0.5]
    """
    gap, dearer = float((calls.cloud - calls.edge).mean()), float((calls.cloud_usd - calls.edge_usd).mean())
    if gap <= 0 or dearer <= 0:
        msg = (
            f"the cloud is better by {gap:.4f} and dearer by {dearer:.6g} USD per call: expected both above 0"
        )
        raise PolicyError(msg)
    generator = np.random.default_rng(seed)
    edge_share = float(calls.edge_usd.mean() / calls.cloud_usd.mean())
    scales = [1.0, *(ratio / edge_share for ratio in RATIOS)] if edge_share > 0 else [1.0]
    draws = [np.arange(calls.n), *(generator.integers(0, calls.n, calls.n) for _ in range(resamples))]
    # Shape (resamples + 1, routers, scales); index 0 is of the calls themselves.
    areas = np.array([[_areas(router, calls, rows, scales) for router in routers] for rows in draws])
    heads = np.array([router.kind == "query" for router in routers])
    best = areas[:, heads].max(axis=1) if heads.any() else None
    results = []
    for at, router in enumerate(routers):
        over = None if best is None else [_interval(areas[:, at, s] - best[:, s]) for s in range(len(scales))]
        curve = _curve(router.sums(calls, draws[0]), calls, draws[0], 1.0)
        results.append(
            CostResult(
                name=router.name,
                kind=router.kind,
                area=_interval(areas[:, at, 0]),
                recovered=tuple(np.interp(BUDGETS, curve[0], curve[1], left=0.0).tolist()),
                over_best_head=None if over is None else over[0],
                curve=curve,
                by_ratio=tuple(over[1:]) if over is not None and len(over) > 1 else None,
            )
        )
    return results


def _curve(sums: Array, calls: Calls, rows: Rows, scale: float) -> Array:
    """Budgets, and shares of the gap recovered, shape (2, points), with the edge's costs multiplied by `scale`."""
    edge, cloud, gain = sums
    least, most = scale * calls.edge_usd[rows].sum(), calls.cloud_usd[rows].sum()
    gap = (calls.cloud - calls.edge)[rows].sum()
    if gap <= 0 or most <= least:
        return np.full((2, 1), np.nan)
    # Where the cloud's answer was the cheaper one, the curve would run backwards.
    budget = np.maximum.accumulate((scale * edge + cloud - least) / (most - least))
    return np.stack([budget, gain / gap])


def _areas(router: Router, calls: Calls, rows: Rows, scales: Sequence[float]) -> list[float]:
    """Area under the router's curve for each scale of the edge's costs."""
    grid, sums = np.linspace(0, 1, _GRID), router.sums(calls, rows)
    areas = []
    for scale in scales:
        budget, gap_share = _curve(sums, calls, rows, scale)
        heights = np.interp(grid, budget, gap_share, left=0.0)
        areas.append(float((heights[1:] + heights[:-1]).mean() / 2))
    return areas


def _interval(values: Array) -> Interval:
    """The first value, with the quantiles of the others, which are resamples, as its interval."""
    low, high = np.nanquantile(values[1:], [0.025, 0.975])
    return Interval(value=float(values[0]), low=float(low), high=float(high))


def _listed(interval: Interval) -> list[JSON]:
    return [round(end, 6) for end in (interval.value, interval.low, interval.high)]
