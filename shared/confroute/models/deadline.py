"""A deadline for a whole call, across all its attempts, samples and tiers."""

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
    """Limit all calls routed in this context to `seconds` from now; of nested deadlines the earliest holds.

    Attempts are cut off at the deadline, retries that could not finish in time are not started, and samples leave the
    time that the next tier is expected to need (`Limits.expected_s`). Like `record`, it also holds in tasks, and in
    threads that copy the context.

    Parameters
    ----------
    seconds : float
        Above 0.

    Raises
    ------
    RequestError
        `seconds` is not a finite number above 0.

    Examples
    --------
    >>> with deadline(2.0):
    ...     left = time_left()
    >>> 1.9 < left <= 2.0, time_left() is None
    (True, True)
    """
    if not (isinstance(seconds, (int, float)) and math.isfinite(seconds) and seconds > 0):
        msg = f"deadline({seconds!r}): expected a finite number of seconds above 0"
        raise RequestError(msg)
    until, outer = time.monotonic() + seconds, _until.get()
    token = _until.set(until if outer is None else min(until, outer))
    try:
        yield
    finally:
        _until.reset(token)


def time_left() -> float | None:
    """Seconds until the deadline, negative after it; None without a deadline."""
    until = _until.get()
    return None if until is None else until - time.monotonic()


@contextmanager
def no_deadline() -> Iterator[None]:
    """Lift the deadline for work in the caller's context that no one waits for."""
    token = _until.set(None)
    try:
        yield
    finally:
        _until.reset(token)
