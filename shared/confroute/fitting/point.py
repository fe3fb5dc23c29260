"""The metrics by which ways of routing recorded calls are compared, each defined in one place.

A metric is a function that reads one number per call, and a few facts about it. `Objective`, ``confroute fit --weights``,
fronts, replays and the tables of all views take them from `metrics`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from confroute.errors import CalibrationError, PolicyError
from confroute.stats.arrays import Array

Interval: TypeAlias = "tuple[float, float]"
Reduce: TypeAlias = Callable[[Array], "np.floating[Any]"]
_MEAN: Reduce = partial(np.mean, axis=-1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calls:
    """What recorded calls would have given and taken under some routing; NaN marks what is unknown.

    Attributes
    ----------
    cloud : array of float, shape (..., n)
        1 for each call that needs the cloud, else 0. As in all arrays, the last axis is that of the calls.
    quality : array of float in [0, 1], shape (..., n)
        Of the returned answer.
    usd, latency_s, sent_tokens, energy_j : array of float, shape (..., n)
        See `confroute.fitting.rates.Bill`.
    """

    cloud: Array
    quality: Array
    usd: Array
    latency_s: Array
    sent_tokens: Array
    energy_j: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One number by which policies are compared.

    Attributes
    ----------
    name : str
        In objectives, limits and JSON.
    label : str
        Heading of its column in tables.
    words : str
        Description with its unit, in help texts and on axes.
    per_call : callable
        From `Calls` to one number per call, that of a call from this call's numbers alone.
    reduce : callable
        From these numbers to one, over the last axis; their mean by default.
    higher_is_better : bool
    short : str
        A shorter name on the command line.
    missing : str
        What to record or give if it is unknown.
    interval : bool
        Whether it has a 95 % bootstrap interval; only for means.
    brief : bool
        Whether short tables show it too.
    whole : bool
        Whether tables round it to a whole number.
    """

    name: str
    label: str
    words: str
    per_call: Callable[[Calls], Array]
    reduce: Reduce = _MEAN
    higher_is_better: bool = False
    short: str = ""
    missing: str = "record it"
    interval: bool = False
    brief: bool = True
    whole: bool = False

    def of(self, values: Array) -> float | None:
        """The metric of calls, from its number of each; None if the run does not tell it."""
        found = math.nan if np.isnan(values).any() else float(self.reduce(values))
        return found if math.isfinite(found) else None

    @property
    def sign(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.higher_is_better else -1


_metrics: dict[str, Metric] = {}


def metric(
    *,
    label: str,
    words: str,
    reduce: Reduce = _MEAN,
    higher_is_better: bool = False,
    short: str = "",
    missing: str = "record it",
    interval: bool = False,
    brief: bool = True,
    whole: bool = False,
) -> Callable[[Callable[[Calls], Array]], Callable[[Calls], Array]]:
    """Make a metric of a function from `Calls` to one number per call, and name it after the function.

    The parameters are the attributes of `Metric`. The share of slow calls, for example::

        @metric(label="slow", words="share of calls over 10 s", missing="record latency", brief=False)
        def slow_share(calls):
            return np.where(np.isnan(calls.latency_s), np.nan, calls.latency_s > 10)
    """

    def made(per_call: Callable[[Calls], Array]) -> Callable[[Calls], Array]:
        name = per_call.__name__
        _metrics[name] = Metric(
            name=name,
            label=label,
            words=words,
            per_call=per_call,
            reduce=reduce,
            higher_is_better=higher_is_better,
            short=short,
            missing=missing,
            interval=interval,
            brief=brief,
            whole=whole,
        )
        return per_call

    return made


def metrics() -> Mapping[str, Metric]:
    """Every metric by its name, in the order in which tables show them."""
    return _metrics


def metric_named(name: str) -> Metric:
    """Find a metric by its name or its short name.

    Raises
    ------
    PolicyError
        There is no such metric.
    """
    for one in _metrics.values():
        if name in {one.name, one.short} and name:
            return one
    known = [f"{one.short or one.name} ({one.words})" for one in _metrics.values()]
    msg = f"{name!r} is not a metric: expected one of {', '.join(known)}"
    raise PolicyError(msg)


@metric(label="cloud share", words="cloud share")
def cloud_share(calls: Calls) -> Array:
    """Share of calls that need the cloud."""
    return calls.cloud


@metric(
    label="quality",
    words="quality",
    higher_is_better=True,
    missing="grade both tiers' answers",
    interval=True,
)
def quality(calls: Calls) -> Array:
    """Quality of the returned answers."""
    return calls.quality


@metric(
    label="USD for 1000",
    words="USD for 1000 calls",
    short="cost",
    missing="give prices of both tiers, and record usage",
    interval=True,
)
def usd_per_1k(calls: Calls) -> Array:
    """Cost of a thousand calls, with discarded drafts and evidence."""
    return 1000 * calls.usd


@metric(label="seconds", words="mean seconds", short="latency")
def latency_s(calls: Calls) -> Array:
    """Mean duration of a call."""
    return calls.latency_s


@metric(label="p95 seconds", words="95th percentile of seconds", reduce=partial(np.quantile, q=0.95, axis=-1))
def p95_latency_s(calls: Calls) -> Array:
    """Duration that 95 % of the calls do not exceed."""
    return calls.latency_s


@metric(label="tokens sent", words="prompt tokens sent to the cloud", short="tokens", brief=False, whole=True)
def sent_tokens(calls: Calls) -> Array:
    """Prompt tokens sent to the cloud."""
    return calls.sent_tokens


@metric(
    label="joules",
    words="joules",
    short="energy",
    missing="give the tiers' power, and record latency",
    brief=False,
)
def energy_j(calls: Calls) -> Array:
    """Energy of a call."""
    return calls.energy_j


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The metrics of one way of routing recorded calls; None marks what the run does not tell.

    Attributes
    ----------
    name : str
        "threshold", "edge", "cloud" or "oracle".
    threshold : float or None
        In the signal's unit; None for points without a threshold.
    cloud_share : float in [0, 1]
    quality : float in [0, 1] or None
    usd_per_1k, latency_s, p95_latency_s, sent_tokens, energy_j : float or None
        USD for a thousand calls; seconds, mean and 95th percentile; prompt tokens sent to the cloud; joules.
    more : mapping of str to float or None
        Further metrics by name.
    intervals : mapping of str to tuple of float
        95 % bootstrap intervals by metric, for metrics that have one.
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
    more: Mapping[str, float | None] = field(default_factory=dict)
    intervals: Mapping[str, Interval] = field(default_factory=dict)

    @property
    def quality_ci(self) -> Interval | None:
        """The 95 % interval of the quality."""
        return self.intervals.get("quality")

    @property
    def usd_ci(self) -> Interval | None:
        """The 95 % interval of the cost."""
        return self.intervals.get("usd_per_1k")

    def known(self, name: str) -> float | None:
        """Value of a metric; None if the run does not tell it."""
        found: float | None = self.more[name] if name in self.more else getattr(self, name)
        return found

    def value(self, name: str) -> float:
        """Value of a metric.

        Raises
        ------
        CalibrationError
            The recorded run does not tell it; the message says what to do.
        """
        found = self.known(name)
        if found is None:
            msg = f"{name} is not known for every recorded call: {_metrics[name].missing}"
            raise CalibrationError(msg)
        return found


def fields_of(values: Mapping[str, float | None]) -> dict[str, Any]:
    """Arrange metrics as fields of a `Point`: its own by their names, and all others in `more`."""
    own = {one.name for one in fields(Point)}
    more = {name: value for name, value in values.items() if name not in own}
    return {**{name: value for name, value in values.items() if name in own}, "more": more}


def values_of(calls: Calls) -> list[dict[str, float | None]]:
    """Compute every metric of each row of `calls`, whose arrays have shape (rows, n)."""
    found: list[dict[str, float | None]] = [{} for _ in range(len(calls.quality))]
    for name, one in _metrics.items():
        # Row by row, since a sum over another axis rounds differently.
        for at, values in enumerate(np.ascontiguousarray(one.per_call(calls))):
            found[at][name] = one.of(values)
    return found
