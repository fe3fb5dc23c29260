"""The clock of calls: it stands still while weights are read into this process for the call that it times."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token


class Loads:
    """How long one call waited for weights; what is loaded at the same time counts once."""

    __slots__ = ("_begun", "_lock", "_running", "total_s")

    def __init__(self) -> None:
        self._lock, self._running, self._begun = threading.Lock(), 0, 0.0
        self.total_s = 0.0

    def begin(self) -> None:
        """Something is being loaded."""
        with self._lock:
            if not self._running:
                self._begun = time.perf_counter()
            self._running += 1

    def end(self) -> None:
        """It is loaded, or failed to be."""
        with self._lock:
            self._running -= 1
            if not self._running:
                self.total_s += time.perf_counter() - self._begun


# The outermost first: a call may hold a router, whose calls are timed in turn.
_timed: ContextVar[tuple[Loads, ...]] = ContextVar("confroute_timed", default=())


def now() -> float:
    """Seconds of `time.perf_counter`, less those that the call which is timed here waited for weights to be loaded.

    Only differences within one `timing` mean anything.
    """
    timed = _timed.get()
    return time.perf_counter() - (timed[-1].total_s if timed else 0.0)


class timing:  # noqa: N801  used as a function; a generator's context takes three times as long
    """Times a call: what is loaded in this context does not count for `now`.

    Parameters
    ----------
    loads : Loads, optional
        The call's own where it is made in several steps, as a stream is.
    """

    __slots__ = ("_loads", "_token")

    def __init__(self, loads: Loads | None = None) -> None:
        self._loads = Loads() if loads is None else loads

    def __enter__(self) -> None:
        self._token: Token[tuple[Loads, ...]] = _timed.set((*_timed.get(), self._loads))

    def __exit__(self, *_: object) -> None:
        _timed.reset(self._token)


@contextmanager
def standing_still() -> Iterator[None]:
    """Load weights, or wait for them: the time it takes is no call's."""
    timed = _timed.get()
    for loads in timed:
        loads.begin()
    try:
        yield
    finally:
        for loads in timed:
            loads.end()
