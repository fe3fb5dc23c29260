"""How many calls a window still brings: from what was given, from the windows before, from this one so far."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Any

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
