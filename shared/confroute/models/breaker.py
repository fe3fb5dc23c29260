"""A circuit breaker: a tier that keeps failing is left alone for a while, then tried by one call at a time.

Written here because the libraries for it serve either threads or coroutines, or let every waiting call probe at once;
one state has to hold for both hosts' sync and async calls.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeAlias

from confroute.errors import (
    BreakerOpenError,
    DeadlineError,
    MissingExtraError,
    ModelError,
    PolicyError,
    RequestError,
    SignalUnavailableError,
)

State: TypeAlias = Literal["closed", "open", "half_open"]
# What the caller, the set-up or the clock did says nothing about the tier.
_SAYS_NOTHING = (
    BreakerOpenError,
    DeadlineError,
    MissingExtraError,
    ModelError,
    PolicyError,
    RequestError,
    SignalUnavailableError,
)
_log = logging.getLogger("confroute")


class Breaker:
    """Stops asking a tier after failures in a row; give one to the `Limits` of a tier.

    Closed: every attempt passes. After `failures` failed attempts in a row it is open for `open_s` seconds: attempts
    fail at once with `BreakerOpenError`, which costs the caller no time-out. Then it is half open: one attempt at a
    time passes as a probe; `probes` good ones close it, a bad one opens it again.

    Parameters
    ----------
    failures : int
        At least 1. Retries count one by one.
    open_s : float
        Seconds, above 0.
    probes : int
        At least 1.
    clock : callable
        Seconds that only grow; for tests.

    Raises
    ------
    PolicyError
        A number out of range.

    Notes
    -----
    A failure is any error of the call but HTTP 4xx other than 408, 409, 425 and 429: with those the tier did answer.
    Cancelled calls, refused requests, set-up errors and used-up deadlines count neither way: nothing was asked. The state
    is this process's own.

    Examples
    --------
    >>> breaker = Breaker(failures=2)
    >>> for _ in range(2):
    ...     try:
    ...         with breaker.watching("cloud"):
    ...             raise ConnectionError("refused")
    ...     except ConnectionError:
    ...         pass
    >>> breaker.state
    'open'
    """

    def __init__(
        self,
        *,
        failures: int = 5,
        open_s: float = 30.0,
        probes: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if failures < 1 or probes < 1 or not open_s > 0:
            msg = f"failures={failures}, open_s={open_s}, probes={probes}: expected at least 1, above 0 and at least 1"
            raise PolicyError(msg)
        self.failures, self.open_s, self.probes, self.clock = failures, open_s, probes, clock
        self._state: State = "closed"
        self._failed = self._passed = 0
        self._opened_at = 0.0
        self._probing = False
        # Counts the changes of state: a result from before the last change says nothing about now.
        self._era = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Breaker(failures={self.failures}, open_s={self.open_s}, probes={self.probes}, state={self.state!r})"

    def __deepcopy__(self, memo: object) -> Breaker:
        # Hosts copy their models; the tier that is watched stays one.
        return self

    def __reduce__(self) -> tuple[partial[Breaker], tuple[()]]:
        # Another process begins closed: a lock cannot be pickled, and what failed here may work there.
        return partial(Breaker, failures=self.failures, open_s=self.open_s, probes=self.probes), ()

    @property
    def state(self) -> State:
        """Whether attempts pass: "closed" all, "half_open" one at a time, "open" none."""
        with self._lock:
            return "half_open" if self._state == "open" and self._wait_s() <= 0 else self._state

    @contextmanager
    def watching(self, tier: str) -> Iterator[None]:
        """Let one attempt pass, and learn from how it ends.

        Raises
        ------
        BreakerOpenError
            It may not pass.
        """
        era = self._admitted(tier)
        try:
            yield
        except Exception as error:
            self._learn(tier, era, failed=None if isinstance(error, _SAYS_NOTHING) else _is_failure(error))
            raise
        except BaseException:
            self._learn(tier, era, failed=None)
            raise
        self._learn(tier, era, failed=False)

    def _wait_s(self) -> float:
        return self._opened_at + self.open_s - self.clock()

    def _admitted(self, tier: str) -> int:
        with self._lock:
            if self._state == "open" and self._wait_s() <= 0:
                self._turn("half_open", tier)
            if self._state == "open" or (self._state == "half_open" and self._probing):
                raise BreakerOpenError(tier=tier, failures=self._failed, retry_in_s=max(0.0, self._wait_s()))
            self._probing = self._state == "half_open"
            return self._era

    def _learn(self, tier: str, era: int, *, failed: bool | None) -> None:
        with self._lock:
            if era != self._era:
                return
            self._probing = False
            if failed is None:
                return
            if failed:
                self._failed += 1
                if self._state == "half_open" or self._failed >= self.failures:
                    self._opened_at = self.clock()
                    self._turn("open", tier)
                return
            self._passed += 1
            if self._state == "closed":
                self._failed = 0
            elif self._passed >= self.probes:
                self._turn("closed", tier)

    def _turn(self, state: State, tier: str) -> None:
        _log.warning("breaker of tier %s: %s -> %s", tier, self._state, state)
        self._state, self._era, self._passed, self._probing = state, self._era + 1, 0, False
        if state == "closed":
            self._failed = 0


def status_of(error: BaseException) -> int | None:
    """The HTTP status that an error carries, itself (OpenAI) or in its response (httpx, requests)."""
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    return status if isinstance(status, int) else None


def _is_failure(error: Exception) -> bool:
    status = status_of(error)
    return status is None or not 400 <= status < 500 or status in {408, 409, 425, 429}
