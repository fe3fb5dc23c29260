"""A circuit breaker: a tier that keeps failing is left alone for a while, then tried by one call at a time.

Our own, because libraries serve either threads or coroutines, or let every waiting call probe at once; here one state
has to serve sync and async calls of every host.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Literal, TypeAlias

from confroute.display import logger
from confroute.error_notes import is_about_answer
from confroute.errors import (
    BreakerOpenError,
    DeadlineError,
    MissingExtraError,
    ModelError,
    PolicyError,
    RequestError,
    SignalUnavailableError,
)
from confroute.models.provider_answers import read_error
from confroute.remediation import named

State: TypeAlias = Literal["closed", "open", "half_open"]
# Errors caused by the caller, the set-up or the clock say nothing about the tier.
_NEUTRAL_ERRORS = (
    BreakerOpenError,
    DeadlineError,
    MissingExtraError,
    ModelError,
    PolicyError,
    RequestError,
    SignalUnavailableError,
)
_log = logger()


class Breaker:
    """Stops calls of a tier after several failures in a row; pass it to the tier's `Limits`.

    Closed: every attempt passes. After `failures` failed attempts in a row it is open for `open_s` seconds: attempts
    fail at once with `BreakerOpenError`, so the caller waits for no time-out. Then it is half open: one attempt at a
    time passes as a probe; after `probes` successful ones it closes, after a failed one it opens again.

    Parameters
    ----------
    failures : int
        At least 1. Each retry counts as an attempt.
    open_s : float
        Seconds, above 0.
    probes : int
        At least 1.
    clock : callable
        A monotonic clock in seconds; for tests.

    Raises
    ------
    PolicyError
        A number out of range.

    Notes
    -----
    Every error of a call is a failure, except for those about an answer that came and cannot be used, and for HTTP 2xx to 4xx other than 408, 409, 425 and 429: there the tier did answer.
    Cancelled calls, refused requests, set-up errors and expired deadlines count neither as success nor as failure. The
    state is kept per process.

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
            msg = f"failures={failures}, open_s={open_s}, probes={probes}: expected failures and probes of at least 1 and open_s above 0"
            raise PolicyError(msg)
        self.failures, self.open_s, self.probes, self.clock = failures, open_s, probes, clock
        self._state: State = "closed"
        self._failed = self._passed = 0
        self._opened_at = 0.0
        # In words: the error itself would keep the texts of its call alive.
        self._last_failure = ""
        self._probing = False
        # Counts changes of state: the result of an attempt from before the last change is ignored.
        self._era = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"Breaker(failures={self.failures}, open_s={self.open_s}, probes={self.probes}, state={self.state!r})"

    def __deepcopy__(self, memo: object) -> Breaker:
        # Hosts copy their models; all copies stand for one tier and share its state.
        return self

    def __reduce__(self) -> tuple[partial[Breaker], tuple[()]]:
        # A lock cannot be pickled; another process starts closed, since what fails here may work there.
        return partial(Breaker, failures=self.failures, open_s=self.open_s, probes=self.probes), ()

    @property
    def state(self) -> State:
        """Whether attempts pass: "closed" all, "half_open" one at a time, "open" none."""
        with self._lock:
            return "half_open" if self._state == "open" and self._wait_s() <= 0 else self._state

    @contextmanager
    def watching(self, tier: str) -> Iterator[None]:
        """Run one attempt, and count whether it fails.

        Raises
        ------
        BreakerOpenError
            The breaker is open, or half open with a probe under way.
        """
        era = self._admit(tier)
        try:
            yield
        except Exception as error:
            failed = None if isinstance(error, _NEUTRAL_ERRORS) else _is_failure(error)
            if is_about_answer(error):
                failed = False
            self._learn(tier, era, failed=failed, error=error)
            raise
        except BaseException:
            self._learn(tier, era, failed=None)
            raise
        self._learn(tier, era, failed=False)

    def _wait_s(self) -> float:
        return self._opened_at + self.open_s - self.clock()

    def _admit(self, tier: str) -> int:
        with self._lock:
            if self._state == "open" and self._wait_s() <= 0:
                self._turn("half_open", tier)
            if self._state == "open" or (self._state == "half_open" and self._probing):
                raise BreakerOpenError(
                    tier=tier,
                    failures=self._failed,
                    retry_in_s=max(0.0, self._wait_s()),
                    last_failure=self._last_failure,
                )
            self._probing = self._state == "half_open"
            return self._era

    def _learn(self, tier: str, era: int, *, failed: bool | None, error: Exception | None = None) -> None:
        with self._lock:
            if era != self._era:
                return
            self._probing = False
            if failed is None:
                return
            if failed:
                self._failed += 1
                self._last_failure = named(error) if error is not None else ""
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
    """The HTTP status of an error: its own attribute (OpenAI), that of its response (httpx, requests), or in the body that it holds.

    Examples
    --------
    >>> status_of(ValueError({"message": "overloaded", "code": 502})), status_of(ValueError("odd"))
    (502, None)
    """
    response = getattr(error, "response", None)
    status = getattr(error, "status_code", None) or getattr(response, "status_code", None)
    if isinstance(status, int):
        return status
    # So LangChain's OpenAI client raises the error of a reply whose own status is 200.
    body = error.args[0] if error.args else None
    said = read_error({"error": body}) if isinstance(body, Mapping) else None
    return None if said is None else said[1]


def _is_failure(error: Exception) -> bool:
    status = status_of(error)
    # A client that cannot use an answer names the answer's own status.
    return status is None or not 200 <= status < 500 or status in {408, 409, 425, 429}
