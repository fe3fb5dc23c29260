"""What a policy is to be good at: weights, limits and an order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from confroute.errors import CalibrationError, PolicyError

Metric: TypeAlias = Literal[
    "quality", "usd_per_1k", "latency_s", "p95_latency_s", "sent_tokens", "energy_j", "cloud_share"
]
METRICS: tuple[Metric, ...] = (
    "quality",
    "usd_per_1k",
    "latency_s",
    "p95_latency_s",
    "sent_tokens",
    "energy_j",
    "cloud_share",
)
Interval: TypeAlias = "tuple[float, float]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """Means over recorded calls; None where the run does not tell.

    Attributes
    ----------
    name : str
        "threshold", "edge", "cloud" or "oracle".
    threshold : float or None
        In the signal's unit; None for those that have none.
    cloud_share : float in [0, 1]
    quality : float in [0, 1] or None
    usd_per_1k, latency_s, p95_latency_s, sent_tokens, energy_j : float or None
        USD for a thousand calls; seconds, mean and 95th percentile; prompt tokens sent to the cloud; joules.
    quality_ci, usd_ci : tuple of float or None
        95 % bootstrap intervals.
    """

    name: str
    threshold: float | None
    cloud_share: float
    quality: float | None
    usd_per_1k: float | None
    latency_s: float | None
    p95_latency_s: float | None
    sent_tokens: float | None
    energy_j: float | None
    quality_ci: Interval | None = None
    usd_ci: Interval | None = None


Direction: TypeAlias = Literal["at least", "at most"]
# A limit met up to rounding is met.
_SLACK = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """A bound that a policy must keep.

    Attributes
    ----------
    metric : str
        See `METRICS`.
    bound : float
    direction : {"at least", "at most"}
    """

    metric: Metric
    bound: float
    direction: Direction = "at most"

    def met(self, point: Point) -> bool:
        """Whether a point keeps it."""
        value = value_of(point, self.metric)
        if self.direction == "at least":
            return value >= self.bound - _SLACK
        return value <= self.bound + _SLACK


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """How quality, money, time, privacy and energy are balanced.

    Parameters
    ----------
    weights : tuple of (str, float)
        What one unit of each metric is worth, in any common unit: quality counts in favour, all others against. Maximised
        after the limits and the order.
    limits : tuple of Limit
        Points that break one are out.
    order : tuple of (str, float)
        Lexicographic: of the points within the tolerance of the best by the first metric those are left, of these the ones
        within the second's, and so on.

    Examples
    --------
    >>> Objective.weighted(quality=1.0, usd_per_1k=0.05)
    Objective(weights=(('quality', 1.0), ('usd_per_1k', 0.05)), limits=(), order=())
    >>> Objective.best_quality(usd_per_day=40, calls_per_day=10_000).limits[0].bound
    4.0
    """

    weights: tuple[tuple[Metric, float], ...] = ()
    limits: tuple[Limit, ...] = ()
    order: tuple[tuple[Metric, float], ...] = ()

    def __post_init__(self) -> None:
        named = [*self.weights, *self.order]
        unknown = {name for name, _ in named} | {limit.metric for limit in self.limits}
        unknown -= set(METRICS)
        if unknown or not named or not all(0 <= number < math.inf for _, number in named):
            msg = (
                f"an objective over {[name for name, _ in named]}: expected metrics of {', '.join(METRICS)} "
                "with finite numbers of 0 or more"
            )
            raise PolicyError(msg)

    @classmethod
    def weighted(
        cls,
        *,
        quality: float = 1.0,
        usd_per_1k: float = 0.0,
        latency_s: float = 0.0,
        sent_tokens: float = 0.0,
        energy_j: float = 0.0,
    ) -> Objective:
        """The best weighted sum: quality minus each cost times its weight."""
        given: tuple[tuple[Metric, float], ...] = (
            ("quality", quality),
            ("usd_per_1k", usd_per_1k),
            ("latency_s", latency_s),
            ("sent_tokens", sent_tokens),
            ("energy_j", energy_j),
        )
        return cls(weights=tuple((name, weight) for name, weight in given if weight))

    @classmethod
    def least_cost(cls, *, quality: float) -> Objective:
        """The least cost with a quality of at least `quality`."""
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
        """The best quality within a budget, of a thousand calls or of a day.

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
    def lexicographic(cls, *order: tuple[Metric, float]) -> Objective:
        """First things first: ("quality", 0.01), ("usd_per_1k", 0.0) is the cheapest within 0.01 of the best quality."""
        return cls(order=order)

    def within(self, *, direction: Direction = "at most", **bounds: float) -> Objective:
        """The same with further limits, such as `p95_latency_s=2.0`."""
        further = tuple(
            Limit(metric=metric, bound=bounds[metric], direction=direction)
            for metric in METRICS
            if metric in bounds
        )
        if len(further) < len(bounds):
            msg = f"limits on {sorted(bounds)}: expected metrics of {', '.join(METRICS)}"
            raise PolicyError(msg)
        return replace(self, limits=(*self.limits, *further))

    def worth(self, point: Point) -> float:
        """The weighted sum at a point.

        Raises
        ------
        CalibrationError
            A metric that the recorded run does not tell.
        """
        return sum(_sign(name) * weight * value_of(point, name) for name, weight in self.weights)

    def choose(self, points: Sequence[Point]) -> Point:
        """The best of several points; of equals the one with fewest calls to the cloud.

        Raises
        ------
        CalibrationError
            No point keeps every limit, or the recorded run does not tell a metric; with the numbers.
        """
        left = [point for point in points if all(limit.met(point) for limit in self.limits)]
        if not left:
            raise CalibrationError(self._unmet(points))
        for name, tolerance in self.order:
            best = max(_sign(name) * value_of(point, name) for point in left)
            left = [p for p in left if _sign(name) * value_of(p, name) >= best - tolerance - _SLACK]
        return max(left, key=lambda point: (round(self.worth(point), 12), -point.cloud_share))

    def _unmet(self, points: Sequence[Point]) -> str:
        words = []
        for limit in self.limits:
            values = [value_of(point, limit.metric) for point in points]
            best = max(values) if limit.direction == "at least" else min(values)
            words.append(f"{limit.metric} {limit.direction} {limit.bound:g} (best: {best:.4g})")
        return f"no threshold on the recorded calls keeps {' and '.join(words)}: loosen a limit, or use a better edge or signal"


def value_of(point: Point, metric: Metric) -> float:
    """A point's metric.

    Raises
    ------
    CalibrationError
        The recorded run does not tell it.
    """
    value: float | None = getattr(point, metric)
    if value is None:
        hint = {
            "usd_per_1k": "give prices of both tiers, and record usage",
            "energy_j": "give the tiers' power, and record latency",
            "quality": "grade both tiers' answers",
        }.get(metric, "record it")
        msg = f"{metric} is not known of every recorded call: {hint}"
        raise CalibrationError(msg)
    return value


def _sign(metric: Metric) -> int:
    return 1 if metric == "quality" else -1
