"""What a policy should be good at: weights, limits and an order of metrics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from confroute.errors import CalibrationError, PolicyError
from confroute.fitting.point import Point, metric_named, metrics

Direction: TypeAlias = Literal["at least", "at most"]
# A limit that is met up to rounding is met.
_SLACK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A bound on a metric that a policy must keep.

    Attributes
    ----------
    metric : str
        See `confroute.fitting.point.metrics`.
    bound : float
    direction : {"at least", "at most"}
    """

    metric: str
    bound: float
    direction: Direction = "at most"

    def met(self, point: Point) -> bool:
        """Whether a point keeps the bound."""
        value = point.value(self.metric)
        if self.direction == "at least":
            return value >= self.bound - _SLACK
        return value <= self.bound + _SLACK


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """How quality, money, time, privacy and energy are balanced.

    Parameters
    ----------
    weights : tuple of (str, float)
        What one unit of each metric is worth, in any common unit; what is better lower counts against a point. The sum is
        maximised among the points that the limits and the order leave.
    limits : tuple of Limit
        Points that break a limit are excluded.
    order : tuple of (str, float)
        Lexicographic order of metrics with tolerances: only points within the first tolerance of the best by the first
        metric remain, of these only those within the second tolerance of the best by the second, and so on.

    Examples
    --------
    >>> Objective.weighted(quality=1.0, usd_per_1k=0.05)
    Objective(weights=(('quality', 1.0), ('usd_per_1k', 0.05)), limits=(), order=())
    >>> Objective.best_quality(usd_per_day=40, calls_per_day=10_000).limits[0].bound
    4.0
    """

    weights: tuple[tuple[str, float], ...] = ()
    limits: tuple[Limit, ...] = ()
    order: tuple[tuple[str, float], ...] = ()

    def __post_init__(self) -> None:
        named = [*self.weights, *self.order]
        unknown = {name for name, _ in named} | {limit.metric for limit in self.limits}
        unknown -= set(metrics())
        if unknown or not named or not all(0 <= number < math.inf for _, number in named):
            msg = (
                f"an objective over {[name for name, _ in named]}: expected metrics of {', '.join(metrics())} "
                "with finite numbers of 0 or more"
            )
            raise PolicyError(msg)

    @classmethod
    def weighted(cls, *, quality: float = 1.0, **weights: float) -> Objective:
        """The best weighted sum: quality minus each other metric times its weight, such as `usd_per_1k=0.02`."""
        given = {"quality": quality, **weights}
        return cls(weights=tuple((name, weight) for name, weight in given.items() if weight))

    @classmethod
    def least_cost(cls, *, quality: float) -> Objective:
        """The least cost at a quality of at least `quality`."""
        return cls(
            weights=(("usd_per_1k", 1.0),),
            limits=(Limit(metric="quality", bound=quality, direction="at least"),),
        )

    @classmethod
    def best_quality(
        cls,
        *,
        usd_per_1k: float | None = None,
        usd_per_day: float | None = None,
        calls_per_day: float | None = None,
    ) -> Objective:
        """The best quality within a budget for a thousand calls or for a day.

        Raises
        ------
        PolicyError
            Neither `usd_per_1k`, nor `usd_per_day` with `calls_per_day`.
        """
        if usd_per_1k is None:
            if usd_per_day is None or not calls_per_day:
                msg = "a budget is needed: usd_per_1k, or usd_per_day with calls_per_day"
                raise PolicyError(msg)
            usd_per_1k = 1000 * usd_per_day / calls_per_day
        return cls(weights=(("quality", 1.0),), limits=(Limit(metric="usd_per_1k", bound=usd_per_1k),))

    @classmethod
    def lexicographic(cls, *order: tuple[str, float]) -> Objective:
        """One metric after another: ("quality", 0.01), ("usd_per_1k", 0.0) is the cheapest within 0.01 of the best quality."""
        return cls(order=order)

    def within(self, *, direction: Direction = "at most", **bounds: float) -> Objective:
        """The same objective with further limits, such as `p95_latency_s=2.0`."""
        further = tuple(
            Limit(metric=metric_named(name).name, bound=bound, direction=direction)
            for name, bound in bounds.items()
        )
        return replace(self, limits=(*self.limits, *further))

    def worth(self, point: Point) -> float:
        """Compute the weighted sum at a point.

        Raises
        ------
        CalibrationError
            The recorded run does not tell one of the metrics.
        """
        return sum(metrics()[name].sign * weight * point.value(name) for name, weight in self.weights)

    def choose(self, points: Sequence[Point]) -> Point:
        """Choose the best of several points; among equals, the one with the fewest calls to the cloud.

        Raises
        ------
        CalibrationError
            No point keeps every limit, or the recorded run does not tell a metric; the message holds the numbers.
        """
        left = [point for point in points if all(limit.met(point) for limit in self.limits)]
        if not left:
            raise CalibrationError(self._unmet(points))
        for name, tolerance in self.order:
            sign = metrics()[name].sign
            best = max(sign * point.value(name) for point in left)
            left = [point for point in left if sign * point.value(name) >= best - tolerance - _SLACK]
        return max(left, key=lambda point: (round(self.worth(point), 12), -point.cloud_share))

    def _unmet(self, points: Sequence[Point]) -> str:
        words = []
        for limit in self.limits:
            values = [point.value(limit.metric) for point in points]
            best = max(values) if limit.direction == "at least" else min(values)
            words.append(f"{limit.metric} {limit.direction} {limit.bound:g} (best: {best:.4g})")
        return f"no threshold on the recorded calls keeps {' and '.join(words)}: loosen a limit, or use a better edge or signal"
