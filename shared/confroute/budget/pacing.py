"""The controller: which threshold makes the budget last the window."""

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

# Parts of a window whose calls are counted: half-hours of a day.
PARTS = 48
# Weight of what was expected against what was seen, as a share of the window.
_PRIOR = 0.1
# Nothing is concluded from less of the window than this, where nothing was expected.
_LEAST_SEEN = 0.02
# Weight of the newest window in what is usual.
_NEWEST = 0.5
# Share of the usual traffic that is taken to be even: no time of day is thought to be dead.
_EVEN = 0.02
# Parts on each side that say whether one was a burst.
_NEAR = 2
# The higher, the later in the window its last parts count for what is to come.
_LATE = 3
# The last traffic for which nothing is held back, or a few calls would decide over what is left.
_SPARE = 0.005
# By how many standard deviations the calls to come are thought fewer, down to which share of their number.
_CAUTION = 1.0
_LEAST_SHARE = 0.6
# Parts that a scatter can be judged by.
_LEAST_PARTS = 4


def begun() -> dict[str, Any]:
    """The traffic of a budget's record before any call."""
    return {"calls": 0, "arrivals": [0] * PARTS, "usual": [], "shape": []}


def counted(record: dict[str, Any], part: float) -> None:
    """One more call, `part` of the window having passed."""
    record["calls"] += 1
    record["arrivals"][_place(part)] += 1


def turned(record: dict[str, Any]) -> None:
    """A window is over: learn from it what is usual, and begin to count anew."""
    was, now = record["usual"], record["arrivals"]
    usual = [a + _NEWEST * (b - a) for a, b in zip(was, now, strict=True)] if was else [*map(float, now)]
    shape = _shape(usual) if sum(usual) else []
    record |= {"calls": 0, "arrivals": [0] * PARTS, "usual": usual, "shape": shape}


def to_come(
    record: dict[str, Any], part: float, *, expected: float | None, profile: tuple[float, ...]
) -> float | None:
    """Calls that the rest of the window brings, rather too few than too many; None while too little is known.

    Parameters
    ----------
    record : dict
        Of a budget.
    part : float in [0, 1)
        How much of the window has passed.
    expected : float or None
        Calls of a whole window; as many as usual where not given.
    profile : tuple of float
        Relative traffic of equal parts of the window; as usual where empty, even in a first window.

    Notes
    -----
    Calls so far over the traffic that should have passed by now, with what was expected as a prior. Two corrections, because money that
    is held back for calls that never come can no longer be spent, while calls above expectation only make the rest dearer: late in the
    window the calls of its last parts count, where they stayed below that rate; and from the number to come its standard deviation is
    taken, by the scatter of the parts so far. Even traffic scatters little and is planned for almost as it comes.
    """
    whole = float(sum(record["usual"]))
    shape = _cumulated(profile or tuple(record["shape"]))
    seen, calls, arrivals = passed(shape, part), record["calls"], record["arrivals"]
    known = expected or whole
    if not known and seen < _LEAST_SEEN:
        return None
    rate = (known * _PRIOR + calls) / (_PRIOR + seen) if known else calls / seen
    here = _place(part)
    lately = seen - shape[max(0, here - 1)]
    if here and lately > 0:
        late = sum(arrivals[here - 1 : here + 1]) / lately
        rate -= seen**_LATE * max(0.0, rate - late)
    left = rate * max(0.0, 1 - seen - _SPARE)
    spread = _scatter(arrivals[:here], shape, rate) * math.sqrt(PARTS * (1 - part))
    return float(max(_LEAST_SHARE * left, left - _CAUTION * spread))


def passed(cumulated: Sequence[float], part: float) -> float:
    """Share of the window's traffic in its first `part`, both in [0, 1], from the shares up to each part's end.

    Examples
    --------
    >>> passed((0.0, 0.75, 1.0), 0.5), passed((0.0, 0.75, 1.0), 0.75)
    (0.75, 0.875)
    """
    parts = len(cumulated) - 1
    place = part * parts
    whole = min(int(place), parts - 1)
    return cumulated[whole] + (cumulated[whole + 1] - cumulated[whole]) * (place - whole)


def _place(part: float) -> int:
    return min(int(part * PARTS), PARTS - 1)


@functools.lru_cache(maxsize=256)
def _cumulated(profile: tuple[float, ...]) -> tuple[float, ...]:
    """Shares of the traffic up to the end of each of `PARTS` parts, 0 first."""
    given, total = profile or (1.0,), sum(profile) or 1.0
    ends = [sum(given[:k]) / total for k in range(len(given) + 1)]
    return tuple(passed(ends, at / PARTS) for at in range(PARTS + 1))


def _shape(usual: Sequence[float]) -> list[float]:
    """What comes at the same time of every window: a burst in one part, which another window will not have, is left out."""
    even = _EVEN * sum(usual) / PARTS
    return [median(usual[max(0, at - _NEAR) : at + _NEAR + 1]) + even for at in range(PARTS)]


def _scatter(arrivals: Sequence[int], shape: Sequence[float], rate: float) -> float:
    """Root mean square of how far the calls of one part were from what was to be expected."""
    if len(arrivals) < _LEAST_PARTS:
        return 0.0
    expected = [rate * (after - before) for before, after in pairwise(shape[: len(arrivals) + 1])]
    return math.dist(arrivals, expected) / math.sqrt(len(arrivals))


RUNGS = 41
# The trim forgets in this share of a window's calls: single calls move it, so it must be slow, but be done long before the end.
_TRIM = 0.2
# What a call moves it by at the least and the most, in windows of very many or very few calls.
_TRIM_BOUNDS = (0.0005, 0.02)


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How a budget moves the threshold of one signal.

    Parameters
    ----------
    signal : str
        Name of the signal whose threshold moves.
    ladder : tuple of float
        Thresholds from the one that sends most calls to the cloud to the one that sends fewest, at equal steps of cloud
        share; two are enough, quantiles of recorded uncertainties are better (`Pace.fit`). The threshold never leaves
        it.
    start : float in [0, 1]
        Where on the ladder the first calls begin.
    step : float in (0, 1]
        How far along the ladder one call may move it.
    expected_calls : float or None
        Calls of a whole window; learned from earlier windows where not given.
    profile : tuple of float
        Relative traffic of equal parts of the window, such as 24 hours; where empty learned from earlier windows, and
        even in the first one.

    Raises
    ------
    PolicyError
        A ladder that does not rise, or a number out of range.

    Notes
    -----
    With B left, c the mean cost of a cloud call so far and N the calls still expected (`confroute.budget.pacing`), the
    share of calls that may go to the cloud is s = B / (c N). The level on the ladder goes to 1 - s + trim, at most `step` a call; the trim
    moves by g (sent - s) a call, 1 / g being a fifth of the window's calls, which corrects a ladder that no longer fits the traffic (the update of
    adaptive conformal inference, Gibbs and Candes 2021, arXiv 2106.00170). Both s and the trim move slowly, and the
    level follows without overshoot. A new window begins at the share that the last one reached. What lands, and how
    smooth the path is: `benchmarks/budget.py`.
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
            msg = f"ladder is {self.ladder}: expected two or more finite thresholds, rising"
            raise PolicyError(msg)
        if not 0 <= self.start <= 1 or not 0 < self.step <= 1:
            msg = f"start={self.start}, step={self.step}: expected a start in [0, 1] and a step in (0, 1]"
            raise PolicyError(msg)
        if any(part < 0 for part in self.profile) or (self.profile and not sum(self.profile) > 0):
            msg = f"profile is {self.profile}: expected parts of 0 or more, not all 0"
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
        """A ladder of quantiles of recorded uncertainties.

        Parameters
        ----------
        signal : str
        uncertainty : sequence of float
            One per recorded call, at least 8.
        cloud_share : float in [0, 1]
            Share of calls to begin with.
        expected_calls, profile
            As in the class.

        Raises
        ------
        CalibrationError
            Fewer than 8 values, or values that are no numbers.

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
        """The threshold at a level of the ladder, between rungs by interpolation."""
        place = min(1.0, max(0.0, level)) * (len(self.ladder) - 1)
        below = min(int(place), len(self.ladder) - 2)
        low, high = self.ladder[below], self.ladder[below + 1]
        return round(low + (high - low) * (place - below), 12)

    def opening(self, record: dict[str, Any]) -> float:
        """Where a new window begins: at the share that the last one reached, not where its last calls left the level."""
        if not record["calls"]:
            return float(record["level"])
        return float(min(1.0, max(0.0, 1 - record["sent"] / record["calls"] + record["trim"])))

    def moved(self, record: dict[str, Any], part: float, limit: float, *, sent: bool) -> None:
        """Move the level of `record` after one more call, `part` of the window having passed."""
        calls = to_come(record, part, expected=self.expected_calls, profile=self.profile)
        if calls is None or not record["sent"]:
            return
        mean = record["spent_by_sent"] / record["sent"]
        # What is on its way will take what calls take, not the worst case that is set aside for it.
        left = limit - record["spent"] - mean * len(record["held"])
        share = min(1.0, max(0.0, left / (mean * max(calls, 1.0)))) if mean > 0 else 1.0
        level, trim = record["level"], record["trim"]
        wound = (level <= 0 and not sent) or (level >= 1 and sent)
        if not wound:
            low, high = _TRIM_BOUNDS
            gain = min(high, max(low, 1 / (_TRIM * (record["calls"] + calls))))
            trim = min(1.0, max(-1.0, trim + gain * ((1.0 if sent else 0.0) - share)))
        wanted = min(1.0, max(0.0, 1 - share + trim))
        record["level"] = level + min(self.step, max(-self.step, wanted - level))
        record["trim"] = trim
