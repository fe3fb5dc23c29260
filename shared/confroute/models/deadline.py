"""The time that a whole call may take, whatever it does in it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from confroute.errors import RequestError

_until: ContextVar[float | None] = ContextVar("confroute_deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Give every call routed in this context together `seconds` from now; inside another deadline, the earlier holds.

    Attempts are cut at it, retries that could not finish are not begun, and samples leave the time that the next
    tier is said to need (`Limits.expected_s`). Holds in threads that copy the context and in tasks, as `record` does.

    Parameters
    ----------
    seconds : float
        Above 0.

    Raises
    ------
    RequestError
        Seconds that are not above 0.

    Examples
    --------
    >>> with deadline(2.0):
    ...     left = time_left()
    >>> 1.9 < left <= 2.0, time_left() is None
    (True, True)
    """
    if not (isinstance(seconds, (int, float)) and math.isfinite(seconds) and seconds > 0):
        msg = f"the deadline is {seconds!r} s away: expected a finite number above 0"
        raise RequestError(msg)
    until, outer = time.monotonic() + seconds, _until.get()
    token = _until.set(until if outer is None else min(until, outer))
    try:
        yield
    finally:
        _until.reset(token)


def time_left() -> float | None:
    """Seconds until the deadline, below 0 after it; None without one."""
    until = _until.get()
    return None if until is None else until - time.monotonic()


@contextmanager
def no_deadline() -> Iterator[None]:
    """What nobody waits for has the caller's context, but not its deadline."""
    token = _until.set(None)
    try:
        yield
    finally:
        _until.reset(token)
