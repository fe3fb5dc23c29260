"""The pace of a budget: predicts the calls to come, and moves a threshold so that the money lasts the window."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import numpy as np

from confroute.errors import CalibrationError, PolicyError
from confroute.registry import register

# Parts of a window in which calls are counted: the half-hours of a day.
PARTS = 48
# Weight of the expected number of calls against the observed one, as a share of the window.
_PRIOR = 0.1
# Share of the traffic that must have passed before it predicts anything, if nothing was expected.
_MIN_PASSED = 0.02
# Weight of the newest window in the usual traffic.
_NEWEST = 0.5
# Share of the usual traffic that is spread evenly, so that no time of day is taken for dead.
_EVEN = 0.02
# Number of parts on each side in which the median looks for bursts.
_NEIGHBOURS = 2
# The larger, the later in the window its most recent parts begin to lower the prediction.
_RECENCY = 3
# Share of the traffic at the very end for which no money is kept, or a few calls would decide about all that is left.
_SPARE = 0.005
# The prediction is lowered by this many standard deviations, but not below this share of itself.
_CAUTION = 1.0
_MIN_SHARE = 0.6
# Number of parts from which a scatter can be estimated.
_MIN_PARTS = 4
# Number of rungs of a fitted ladder.
RUNGS = 41
# Share of a window's calls over which the trim adapts: slow, as single calls move it, but done long before the end.
_TRIM = 0.2
# Smallest and largest step of the trim per call, for windows of very many or very few calls.
_TRIM_BOUNDS = (0.0005, 0.02)


def new_traffic() -> dict[str, Any]:
    """The traffic part of a budget's record before any call."""
    return {"calls": 0, "arrivals": [0] * PARTS, "usual": [], "shape": []}


def count_call(record: dict[str, Any], elapsed: float) -> None:
    """Count one more call, after the fraction `elapsed` of the window."""
    record["calls"] += 1
    record["arrivals"][_part_of(elapsed)] += 1


def end_window(record: dict[str, Any]) -> None:
    """Learn the usual traffic from the window that has ended, and start counting again."""
    previous, newest = record["usual"], record["arrivals"]
    if previous:
        usual = [a + _NEWEST * (b - a) for a, b in zip(previous, newest, strict=True)]
    else:
        usual = [*map(float, newest)]
    shape = _shape(usual) if sum(usual) else []
    record |= {"calls": 0, "arrivals": [0] * PARTS, "usual": usual, "shape": shape}


def remaining_calls(
    record: dict[str, Any], elapsed: float, *, expected: float | None, profile: tuple[float, ...]
) -> float | None:
    """Predict the calls in the rest of the window, rather too few than too many; None while too little is known.

    Parameters
    ----------
    record : dict
        A budget's record.
    elapsed : float in [0, 1)
        Fraction of the window that has passed.
    expected : float or None
        Calls of a whole window; by default as many as usual.
    profile : tuple of float
        Relative traffic of equal parts of the window; if empty, as usual, and even in the first window.

    Notes
    -----
    The rate is the number of calls so far over the share of traffic that should have passed by now, with the expected
    number as a prior. Two corrections lower it, because money kept for calls that never come can no longer be spent,
    while unexpected calls only make the rest scarcer. Late in the window, the most recent parts count more if they were
    below that rate. And the prediction is reduced by its standard deviation, estimated from the scatter of the parts so
    far; even traffic scatters little and is hardly reduced.
    """
    usual = float(sum(record["usual"]))
    shape = _cumulative(profile or tuple(record["shape"]))
    passed, calls, arrivals = traffic_share(shape, elapsed), record["calls"], record["arrivals"]
    prior = expected or usual
    if not prior and passed < _MIN_PASSED:
        return None
    rate = (prior * _PRIOR + calls) / (_PRIOR + passed) if prior else calls / passed
    part = _part_of(elapsed)
    recent_share = passed - shape[max(0, part - 1)]
    if part and recent_share > 0:
        recent_rate = sum(arrivals[part - 1 : part + 1]) / recent_share
        rate -= passed**_RECENCY * max(0.0, rate - recent_rate)
    remaining = rate * max(0.0, 1 - passed - _SPARE)
    spread = _scatter(arrivals[:part], shape, rate) * math.sqrt(PARTS * (1 - elapsed))
    return float(max(_MIN_SHARE * remaining, remaining - _CAUTION * spread))


def traffic_share(cumulative: Sequence[float], elapsed: float) -> float:
    """Share of the window's traffic in its first fraction `elapsed`, from the shares up to the end of each part.

    Examples
    --------
    >>> traffic_share((0.0, 0.75, 1.0), 0.5), traffic_share((0.0, 0.75, 1.0), 0.75)
    (0.75, 0.875)
    """
    parts = len(cumulative) - 1
    position = elapsed * parts
    part = min(int(position), parts - 1)
    return cumulative[part] + (cumulative[part + 1] - cumulative[part]) * (position - part)


def _part_of(elapsed: float) -> int:
    return min(int(elapsed * PARTS), PARTS - 1)


@functools.lru_cache(maxsize=256)
def _cumulative(profile: tuple[float, ...]) -> tuple[float, ...]:
    """Shares of the traffic up to the end of each of `PARTS` parts, starting with 0."""
    parts, total = profile or (1.0,), sum(profile) or 1.0
    ends = [sum(parts[:k]) / total for k in range(len(parts) + 1)]
    return tuple(traffic_share(ends, at / PARTS) for at in range(PARTS + 1))


def _shape(usual: Sequence[float]) -> list[float]:
    """The traffic that recurs at the same time of every window: bursts of a single part are filtered out."""
    even = _EVEN * sum(usual) / PARTS
    return [median(usual[max(0, at - _NEIGHBOURS) : at + _NEIGHBOURS + 1]) + even for at in range(PARTS)]


def _scatter(arrivals: Sequence[int], shape: Sequence[float], rate: float) -> float:
    """Root mean square of the difference between the actual and the expected calls of a part."""
    if len(arrivals) < _MIN_PARTS:
        return 0.0
    expected = [rate * (after - before) for before, after in pairwise(shape[: len(arrivals) + 1])]
    return math.dist(arrivals, expected) / math.sqrt(len(arrivals))


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Moves the threshold of one signal so that a budget lasts its window.

    Parameters
    ----------
    signal : str
        Name of the signal whose threshold moves.
    ladder : tuple of float
        Ascending thresholds, from the one that sends most calls to the cloud to the one that sends fewest, at equal
        steps of cloud share. Two are enough; quantiles of recorded uncertainties are better (`Pace.fit`). The threshold
        never leaves the ladder.
    start : float in [0, 1]
        Position on the ladder of the first call.
    step : float in (0, 1]
        How far along the ladder one call may move the threshold.
    expected_calls : float or None
        Calls of a whole window; learned from earlier windows by default.
    profile : tuple of float
        Relative traffic of equal parts of the window, such as 24 hours; if empty, learned from earlier windows, and even
        in the first one.

    Raises
    ------
    PolicyError
        The ladder does not rise, or a number is out of range.

    Notes
    -----
    With B the money left, c the mean cost of a cloud call so far and N the calls still expected (`remaining_calls`), the
    share of calls that may go to the cloud is s = B / (c N). The level on the ladder moves towards 1 - s + trim, by at
    most `step` per call. The trim moves by g (sent - s) per call, where 1 / g is a fifth of the window's calls; it
    corrects a ladder that no longer fits the traffic (the update of adaptive conformal inference, Gibbs and Candes 2021,
    arXiv 2106.00170). Both s and the trim move slowly, so that the level follows without overshoot. A new window starts
    at the share that the last one reached. `benchmarks/budget.py` measures how much of a budget is spent, and how smooth
    the path of the threshold is.
    """

    signal: str
    ladder: tuple[float, ...]
    start: float = 0.5
    step: float = 0.005
    expected_calls: float | None = None
    profile: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        rises = all(a <= b for a, b in zip(self.ladder, self.ladder[1:], strict=False))
        if len(self.ladder) < 2 or not rises or not all(map(math.isfinite, self.ladder)):
            msg = f"ladder is {self.ladder}: expected two or more finite thresholds in ascending order"
            raise PolicyError(msg)
        if not 0 <= self.start <= 1 or not 0 < self.step <= 1:
            msg = f"start={self.start}, step={self.step}: expected a start in [0, 1] and a step in (0, 1]"
            raise PolicyError(msg)
        if any(part < 0 for part in self.profile) or (self.profile and not sum(self.profile) > 0):
            msg = f"profile is {self.profile}: expected numbers of 0 or more, not all 0"
            raise PolicyError(msg)

    @classmethod
    def fit(
        cls,
        signal: str,
        uncertainty: Sequence[float],
        *,
        cloud_share: float = 0.5,
        expected_calls: float | None = None,
        profile: tuple[float, ...] = (),
    ) -> Pace:
        """Make a pace whose ladder consists of quantiles of recorded uncertainties.

        Parameters
        ----------
        signal : str
        uncertainty : sequence of float
            One per recorded call, at least 8.
        cloud_share : float in [0, 1]
            Share of calls to send to the cloud at the start.
        expected_calls, profile
            As in the class.

        Raises
        ------
        CalibrationError
            Fewer than 8 values, or values that are not finite.

        Examples
        --------
        >>> Pace.fit("token_logprob", [0.1 * k for k in range(11)], cloud_share=0.3).threshold(0.7)
        0.7
        """
        values = np.asarray(uncertainty, dtype=np.float64)
        if values.size < 8 or not np.isfinite(values).all():
            msg = f"{values.size} recorded uncertainties, {int(np.isfinite(values).sum())} of them finite: expected at least 8, all finite"
            raise CalibrationError(msg)
        rungs = np.quantile(values, np.linspace(0, 1, RUNGS))
        return cls(
            signal=signal,
            ladder=tuple(float(round(rung, 12)) for rung in rungs),
            start=1 - cloud_share,
            expected_calls=expected_calls,
            profile=profile,
        )

    def threshold(self, level: float) -> float:
        """The threshold at a level of the ladder, interpolated between its rungs."""
        position = min(1.0, max(0.0, level)) * (len(self.ladder) - 1)
        below = min(int(position), len(self.ladder) - 2)
        low, high = self.ladder[below], self.ladder[below + 1]
        return round(low + (high - low) * (position - below), 12)

    def opening_level(self, record: dict[str, Any]) -> float:
        """Level at which a new window starts: the share that the last window reached, not where its last calls left it."""
        if not record["calls"]:
            return float(record["level"])
        return float(min(1.0, max(0.0, 1 - record["sent"] / record["calls"] + record["trim"])))

    def move(self, record: dict[str, Any], elapsed: float, limit: float, *, sent: bool) -> None:
        """Move the record's level after one more call, after the fraction `elapsed` of the window."""
        calls = remaining_calls(record, elapsed, expected=self.expected_calls, profile=self.profile)
        if calls is None or not record["sent"]:
            return
        mean = record["spent_by_sent"] / record["sent"]
        # Calls under way will cost what calls cost on average, not the worst case that is reserved for them.
        left = limit - record["spent"] - mean * len(record["held"])
        share = min(1.0, max(0.0, left / (mean * max(calls, 1.0)))) if mean > 0 else 1.0
        level, trim = record["level"], record["trim"]
        # At an end of the ladder the trim must not wind up further.
        at_end = (level <= 0 and not sent) or (level >= 1 and sent)
        if not at_end:
            low, high = _TRIM_BOUNDS
            gain = min(high, max(low, 1 / (_TRIM * (record["calls"] + calls))))
            trim = min(1.0, max(-1.0, trim + gain * ((1.0 if sent else 0.0) - share)))
        target = min(1.0, max(0.0, 1 - share + trim))
        record["level"] = level + min(self.step, max(-self.step, target - level))
        record["trim"] = trim
