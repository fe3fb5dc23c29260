"""Time limits, retries and the breaker around one tier's calls.

Retries are for transient errors only: no connection, time-outs, HTTP 408, 409, 425, 429, 500, 502, 503, 504 and 529. A
wrong key or a malformed request fails at once.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import re
import threading
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from confroute.error_notes import note_attempts
from confroute.errors import BreakerOpenError, DeadlineError, PolicyError, TierTimeoutError
from confroute.models.breaker import Breaker, status_of
from confroute.models.deadline import time_left
from confroute.models.retry_after import retry_after_s
from confroute.models.retry_budget import RetryBudget

T = TypeVar("T")
_TRANSIENT_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_ATTEMPTS = 3
_THREAD = "confroute-attempt"
# Of a tier without a breaker.
_UNGUARDED = nullcontext()
# httpx and requests do not derive from ConnectionError, and importing them to ask would cost every user.
_TRANSIENT_NAMES = frozenset(
    {
        "TransportError",
        "TimeoutException",
        "ConnectionError",
        "Timeout",
        "APIConnectionError",
        "ServiceUnavailable",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How long one tier may take and how often it is asked again.

    Attributes
    ----------
    timeout_s : float or None
        Seconds for one attempt; None for no limit of ours. A synchronous call that overruns is abandoned, not
        killed: its thread ends when the client's own time-out does. A stream whose first chunk comes too late is closed when
        it comes.
    attempts : int or None
        Calls at the most, the first included. None: three, but one where the model's client retries by itself, since retries
        multiply.
    wait_s, max_wait_s : float
        First and longest wait between attempts: exponential with full jitter. What a provider asks for, by
        `Retry-After` (seconds or a date) or `retry-after-ms`, makes a wait longer, up to `max_wait_s`.
    expected_s : float
        Seconds that an answer of this tier usually takes. Under a `deadline`, the tiers and samples before it leave
        that much.
    breaker : Breaker or None
    retries : RetryBudget or None
        What all calls of this tier share; None for no such limit.

    Raises
    ------
    PolicyError
        A time that is negative, infinite or, of `timeout_s`, 0, or fewer than one attempt.
    """

    timeout_s: float | None = None
    attempts: int | None = None
    wait_s: float = 0.5
    max_wait_s: float = 8.0
    expected_s: float = 0.0
    breaker: Breaker | None = None
    retries: RetryBudget | None = None

    def __post_init__(self) -> None:
        if self.timeout_s is not None and not 0 < self.timeout_s < math.inf:
            msg = f"timeout_s is {self.timeout_s}: expected seconds above 0, or None for no limit"
            raise PolicyError(msg)
        if not 0 <= self.wait_s < math.inf or not 0 <= self.max_wait_s < math.inf:
            msg = f"wait_s is {self.wait_s} and max_wait_s {self.max_wait_s}: expected seconds, 0 or more"
            raise PolicyError(msg)
        if self.attempts is not None and self.attempts < 1:
            msg = f"attempts is {self.attempts}: expected at least 1, the first call included"
            raise PolicyError(msg)
        if not 0 <= self.expected_s < math.inf:
            msg = f"expected_s is {self.expected_s}: expected seconds, 0 or more"
            raise PolicyError(msg)

    @property
    def most(self) -> int:
        """Calls at the most, the first included."""
        return _ATTEMPTS if self.attempts is None else self.attempts

    def limit_s(self, tier: str, keep_s: float) -> float | None:
        """Seconds that one attempt may take now, `keep_s` of the deadline left over; None for no limit.

        Raises
        ------
        DeadlineError
            None are left.
        """
        left_s = time_left()
        if left_s is None:
            return self.timeout_s
        left_s -= keep_s
        if left_s <= 0:
            raise DeadlineError(tier=tier, left_s=left_s)
        return left_s if self.timeout_s is None else min(left_s, self.timeout_s)


def is_transient(error: BaseException) -> bool:
    """Whether asking again may help.

    Examples
    --------
    >>> is_transient(TimeoutError()), is_transient(ValueError("bad request"))
    (True, False)
    """
    if isinstance(error, DeadlineError):
        return False
    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT_STATUS
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    return any(base.__name__ in _TRANSIENT_NAMES for base in type(error).__mro__)


# Not what a wrong key, a rate limit or a server that cannot be reached answer, whatever their text.
_REFUSALS = frozenset({400, 403, 404, 405, 422, 500, 501})
_PARAMETER = re.compile(r"log[\s_-]?prob", re.IGNORECASE)
# Where servers repeat what they were sent: after "input", in quotes of several words, in braces.
_ECHOES = (
    re.compile(r"['\"]?input(_value)?['\"]?\s*[:=].*", re.DOTALL | re.IGNORECASE),
    re.compile(r"(?<!\w)(['\"])(?=[^'\"]*\s)[^'\"]*\1"),
    re.compile(r"\{[^{}]*\}"),
)
_PLACE = re.compile(r"['\"]?loc['\"]?\s*:\s*[(\[]([^)\]]*)[)\]]")
# What a server says of a parameter that it does not take, in the same sentence as its name.
_REFUSES = re.compile(
    r"\b(not|un\w+|invalid|unable|cannot|can't|only|extra|forbidden|disabled|denied|without|must|max|maximum|exceeds?|incompatible|no)\b|n't\b",
    re.IGNORECASE,
)


def rejects_logprobs(error: BaseException) -> bool:
    """Whether a call failed because it asked for log-probabilities, as far as its error tells.

    What the provider names as the parameter at fault decides; else a sentence that refuses something and names them. Text that
    repeats the request is left out where it can be told apart: ask once without, and believe it only if that succeeds.

    Examples
    --------
    >>> rejects_logprobs(ValueError("400: logprobs is not supported by this model"))
    True
    >>> rejects_logprobs(ValueError("400: temperature must be at most 2; input: {'logprobs': True}"))
    False
    """
    at: BaseException | None = error
    while at is not None:
        status = status_of(at)
        if status in _REFUSALS or (status is None and isinstance(at, (TypeError, ValueError))):
            return _names_logprobs(at)
        at = at.__cause__
    return False


def _names_logprobs(error: BaseException) -> bool:
    body: Any = getattr(error, "body", None)
    inner = body.get("error", body) if isinstance(body, Mapping) else None
    inner = inner if isinstance(inner, Mapping) else {}
    parameter = getattr(error, "param", None) or inner.get("param")
    # OpenAI's Responses API asks for everything optional by one parameter: only the sentence tells which was refused.
    if isinstance(parameter, str) and not parameter.startswith("include"):
        return bool(_PARAMETER.search(parameter))
    said = (
        inner.get("message")
        or inner.get("detail")
        or (body if isinstance(body, Mapping) else {}).get("detail")
    )
    # A client that cannot read the log-probabilities it was sent names its own class for them, and never what was asked.
    title = getattr(error, "title", None)
    if isinstance(title, str) and _PARAMETER.search(title):
        return True
    text = str(said or error)
    places = _PLACE.findall(text)
    if places:
        return any(_PARAMETER.search(place) for place in places)
    for echo in _ECHOES:
        text = echo.sub(" ", text)
    sentences = re.split(r"[.;](?:\s|$)", text)
    return any(_PARAMETER.search(one) and _REFUSES.search(_PARAMETER.sub("", one)) for one in sentences)


def _retrying(limits: Limits, keep_s: float) -> dict[str, Any]:
    from tenacity import RetryCallState, wait_random_exponential

    jitter = wait_random_exponential(multiplier=limits.wait_s, max=limits.max_wait_s)

    def wait(state: RetryCallState) -> float:
        asked_s = retry_after_s(state.outcome.exception() if state.outcome else None)
        return max(jitter(state), min(asked_s, limits.max_wait_s))

    def stop(state: RetryCallState) -> bool:
        left_s = time_left()
        late = left_s is not None and left_s - keep_s <= state.upcoming_sleep
        if late or state.attempt_number >= limits.most:
            return True
        return limits.retries is not None and not limits.retries.take()

    def retry(state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        return error is not None and is_transient(error)

    return {"stop": stop, "wait": wait, "retry": retry, "reraise": True}


def within(
    timeout_s: float, tier: str, call: Callable[[], T], drop: Callable[[T], object] | None = None
) -> T:
    """Run `call` in a thread of its own, in this context, and give up after `timeout_s` seconds.

    `drop` gets a result that comes when nobody waits for it any more, such as a stream that has to be closed.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001  handed to the waiting caller, whatever it is
            future.set_exception(error)
        else:
            future.set_result(result)

    # A daemon: an abandoned call must not keep the interpreter alive at exit.
    run = contextvars.copy_context().run
    threading.Thread(target=run, args=(work,), name=_THREAD, daemon=True).start()
    try:
        return future.result(timeout_s)
    except TimeoutError:
        if future.done():
            # The call's own error, or a result that came at the last moment.
            return future.result()
        _drop_late(future, drop)
        raise TierTimeoutError(tier=tier, timeout_s=timeout_s) from None
    except BaseException:
        # Such as a KeyboardInterrupt while this thread waited.
        _drop_late(future, drop)
        raise


def _drop_late(future: Future[T], drop: Callable[[T], object] | None) -> None:
    """Have a result dropped in the thread that it comes in, or at once where it has come meanwhile."""

    def dropped(done: Future[T]) -> None:
        if drop is not None and done.exception() is None:
            drop(done.result())

    future.add_done_callback(dropped)


async def awithin(timeout_s: float, tier: str, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await `call`, cancelling it after `timeout_s` seconds."""
    # Not `wait_for`: it raises the same TimeoutError for its own limit and for the provider's.
    task = asyncio.create_task(call())
    try:
        done, _ = await asyncio.wait({task}, timeout=timeout_s)
    except asyncio.CancelledError:
        task.cancel()
        await asyncio.wait({task})
        raise
    if done:
        return task.result()
    task.cancel()
    await asyncio.wait({task})
    raise TierTimeoutError(tier=tier, timeout_s=timeout_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempted(Generic[T]):
    """The result of a call and how many attempts it took."""

    value: T
    attempts: int


def _once(
    limits: Limits, tier: str, call: Callable[[], T], keep_s: float, drop: Callable[[T], object] | None
) -> T:
    """One attempt, which the breaker can refuse and learns from."""
    with _UNGUARDED if limits.breaker is None else limits.breaker.watching(tier):
        limit_s = limits.limit_s(tier, keep_s)
        return call() if limit_s is None else within(limit_s, tier, call, drop)


def attempt(
    limits: Limits,
    tier: str,
    call: Callable[[], T],
    *,
    keep_s: float = 0.0,
    drop: Callable[[T], object] | None = None,
) -> Attempted[T]:
    """Call under `limits`, leaving `keep_s` seconds of the deadline; the last error is raised as it came.

    `drop` gets the result of an attempt that was given up, should it still come.
    """
    if limits.retries is not None:
        limits.retries.add()
    try:
        return Attempted(value=_once(limits, tier, call, keep_s, drop), attempts=1)
    except Exception as error:
        # An error of a router inside may have notes of its own.
        note_attempts(error, 1)
        if limits.most == 1 or not is_transient(error):
            raise
        first = error
    from tenacity import Retrying

    made = 0

    def again() -> T:
        nonlocal made
        made += 1
        # The first call was made without tenacity, whose set-up costs more than most calls need; it is told now.
        if made == 1:
            raise first
        return _once(limits, tier, call, keep_s, drop)

    try:
        value = Retrying(**_retrying(limits, keep_s))(again)
    except Exception as error:
        _note(error, made, first)
        raise
    return Attempted(value=value, attempts=made)


def _note(error: Exception, made: int, first: Exception) -> None:
    """Note the attempts on the error that they ended in; one that was held back was not made, and has a cause."""
    refused = isinstance(error, (BreakerOpenError, DeadlineError))
    note_attempts(error, made - refused)
    if refused:
        error.__cause__ = first


async def _aonce(limits: Limits, tier: str, call: Callable[[], Coroutine[Any, Any, T]], keep_s: float) -> T:
    with _UNGUARDED if limits.breaker is None else limits.breaker.watching(tier):
        limit_s = limits.limit_s(tier, keep_s)
        return await call() if limit_s is None else await awithin(limit_s, tier, call)


async def aattempt(
    limits: Limits, tier: str, call: Callable[[], Coroutine[Any, Any, T]], *, keep_s: float = 0.0
) -> Attempted[T]:
    """Async form of `attempt`."""
    if limits.retries is not None:
        limits.retries.add()
    try:
        return Attempted(value=await _aonce(limits, tier, call, keep_s), attempts=1)
    except Exception as error:
        # An error of a router inside may have notes of its own.
        note_attempts(error, 1)
        if limits.most == 1 or not is_transient(error):
            raise
        first = error
    from tenacity import AsyncRetrying

    made = 0

    async def again() -> T:
        nonlocal made
        made += 1
        if made == 1:
            raise first
        return await _aonce(limits, tier, call, keep_s)

    try:
        value: T = await AsyncRetrying(**_retrying(limits, keep_s))(again)
    except Exception as error:
        _note(error, made, first)
        raise
    return Attempted(value=value, attempts=made)
