"""Drivers of policies and signals: whole answers and streams, sync and async, and one that intercepts.

A policy or a signal is a generator that yields asks and receives evidence. `advance` is the only code that resumes one, so it
decides the same whoever runs it. The idea is that of `httpx.Auth.auth_flow`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing, closing, contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, NoReturn, Protocol, TypeVar, runtime_checkable

from confroute.asks import Ask, AskGenerator, Cancel, Consult, Evidence, Final, Report, StreamAsk, Tentative
from confroute.decision import Routed
from confroute.errors import CallEndedError, StreamInterruptedError, also_as
from confroute.types import Request

T = TypeVar("T")
C = TypeVar("C")


@runtime_checkable
class Policy(Protocol):
    """Anything that decides: one method, a generator without I/O."""

    def flow(self, request: Request) -> AskGenerator[Routed]:
        """Yield asks, receive evidence, return the routed answer."""
        ...


_instead: ContextVar[Callable[[Policy], Policy] | None] = ContextVar("confroute_instead", default=None)


@contextmanager
def in_place_of_policies(make: Callable[[Policy], Policy]) -> Iterator[None]:
    """Within this context, let every router decide by the policy that `make` makes of its own; no router is changed.

    It reaches the calls that `confroute.record` reaches: those of this context, its tasks and `asyncio.to_thread`. A router inside
    another one's model keeps its own policy.
    """
    token = _instead.set(make)
    try:
        yield
    finally:
        _instead.reset(token)


def policy_here(policy: Policy) -> Policy:
    """The policy to decide by in this context, for a router whose own is `policy`."""
    make = _instead.get()
    return policy if make is None else make(policy)


@dataclass(frozen=True, slots=True)
class Return(Generic[T]):
    """What a generator returned."""

    value: T


def advance(
    generator: AskGenerator[T], evidence: Evidence | None, error: BaseException | None
) -> Ask | Return[T]:
    """Resume a generator with what its last ask brought, neither for the first, and get its next ask or what it returned."""
    try:
        if error is not None:
            return generator.throw(error)
        # A generator's first `send` must be None, which its type cannot say.
        return next(generator) if evidence is None else generator.send(evidence)
    except StopIteration as end:
        return Return(end.value)


# What a policy may still ask for when its call has ended: what it needs to report and to settle.
_LAST = (Report, Consult, Cancel)


def _ended(stop: BaseException) -> CallEndedError:
    """What a policy is told of the end of its call, with what is noted of the ask that it came in."""
    if isinstance(stop, CallEndedError):
        return stop
    ended = CallEndedError("cancelled")
    ended.__dict__.update({**stop.__dict__, **ended.__dict__})
    return ended


def _out(stop: BaseException) -> BaseException:
    """What leaves a driver: of a stream that is closed, its end as Python knows it."""
    return GeneratorExit() if isinstance(stop, CallEndedError) else stop


def _wind_up(generator: AskGenerator[T], stop: BaseException, answer: Callable[[Ask], Evidence]) -> NoReturn:
    """Tell a policy that its call has ended, do what it asks for then, and end too."""
    evidence: Evidence | None = None
    error: BaseException | None = _ended(stop)
    with suppress(CallEndedError):
        while isinstance(ask := advance(generator, evidence, error), _LAST):
            evidence, error = None, None
            try:
                evidence = answer(ask)
            except Exception as caught:  # noqa: BLE001  the generator judges it
                error = caught
    raise _out(stop)


async def _awind_up(
    generator: AskGenerator[T],
    stop: BaseException,
    answer: Callable[[Ask], Awaitable[Evidence]],
    asks: tuple[type[Any], ...] = _LAST,
) -> NoReturn:
    """Async form of `_wind_up`."""
    evidence: Evidence | None = None
    error: BaseException | None = _ended(stop)
    with suppress(CallEndedError):
        while not isinstance(ask := advance(generator, evidence, error), Return) and isinstance(ask, asks):
            evidence, error = None, None
            try:
                evidence = await answer(ask)
            except Exception as caught:  # noqa: BLE001  the generator judges it
                error = caught
    raise _out(stop)


def drive(generator: AskGenerator[T], answer: Callable[[Ask], Evidence]) -> T:
    """Run a generator to its end; what `answer` raises is thrown into it.

    Parameters
    ----------
    generator : AskGenerator
        Such as a policy's `flow` or a signal's `measure`.
    answer : callable
        Returns the evidence of one ask.

    Examples
    --------
    >>> from confroute.asks import Final
    >>> from confroute.decision import Decision
    >>> from confroute.types import Generation
    >>> def always_edge():
    ...     evidence = yield Final(tier="edge")
    ...     decision = Decision(route="edge", stage="forced", reason="always")
    ...     return Routed(generation=evidence.generations[0], decision=decision)
    >>> drive(always_edge(), lambda ask: Evidence(generations=(Generation(text=ask.tier),))).generation.text
    'edge'
    """
    evidence: Evidence | None = None
    error: Exception | None = None
    try:
        while not isinstance(ask := advance(generator, evidence, error), Return):
            evidence, error = None, None
            try:
                evidence = answer(ask)
            except Exception as caught:  # noqa: BLE001  every failure is the generator's to judge
                error = caught
            except BaseException as stop:  # noqa: BLE001  it goes on once the policy knows
                _wind_up(generator, stop, answer)
        return ask.value
    finally:
        generator.close()


async def adrive(generator: AskGenerator[T], answer: Callable[[Ask], Awaitable[Evidence]]) -> T:
    """Async form of `drive`."""
    evidence: Evidence | None = None
    error: Exception | None = None
    try:
        while not isinstance(ask := advance(generator, evidence, error), Return):
            evidence, error = None, None
            try:
                evidence = await answer(ask)
            except Exception as caught:  # noqa: BLE001  every failure is the generator's to judge
                error = caught
            except BaseException as stop:  # noqa: BLE001  it goes on once the policy knows
                # A coroutine that is closed cannot wait any more.
                asks = (Report,) if isinstance(stop, GeneratorExit) else _LAST
                await _awind_up(generator, stop, answer, asks)
        return ask.value
    finally:
        generator.close()


def intercept(generator: AskGenerator[T], answer: Callable[[Ask], AskGenerator[Evidence]]) -> AskGenerator[T]:
    """Run a generator inside another one: `answer` passes each of its asks on, or answers it in another way.

    Parameters
    ----------
    generator : AskGenerator
    answer : callable
        Returns a generator that yields asks of its own and returns the evidence. What it raises is thrown into `generator`, as if
        the ask itself had failed.
    """
    evidence: Evidence | None = None
    error: BaseException | None = None
    try:
        while not isinstance(ask := advance(generator, evidence, error), Return):
            evidence, error = None, None
            try:
                evidence = yield from answer(ask)
            except (Exception, CallEndedError) as caught:  # noqa: BLE001  the generator judges it
                error = caught
        return ask.value
    finally:
        generator.close()


def _interrupted(error: Exception, *, begun: bool) -> Exception:
    """After the first chunk the caller has seen part of an answer: no other may follow it."""
    if not begun:
        return error
    msg = f"the answer broke off while it was streamed ({type(error).__name__}: {error})"
    broken = also_as(StreamInterruptedError(msg), error)
    broken.__cause__ = error
    return broken


def drive_stream(
    generator: AskGenerator[T],
    answer: Callable[[Ask], Evidence],
    stream: Callable[[StreamAsk], Generator[C | Evidence, None, None]],
) -> Generator[C | Return[T], None, None]:
    """Run a generator and pass on the chunks of the answer that it settles on, as they come; the last item is what it returns.

    Parameters
    ----------
    generator : AskGenerator
    answer : callable
        Returns the evidence of one ask that is not streamed.
    stream : callable
        Yields the chunks of a `Final` and, as the last item, the `Evidence` of the whole answer; of a `Tentative` the same, its
        chunks only once its `watch` commits to it.
    """
    evidence: Evidence | None = None
    error: Exception | None = None
    try:
        while not isinstance(ask := advance(generator, evidence, error), Return):
            evidence, error = None, None
            begun = False
            try:
                if not isinstance(ask, (Final, Tentative)):
                    evidence = answer(ask)
                    continue
                with closing(stream(ask)) as items:
                    for item in items:
                        if isinstance(item, Evidence):
                            evidence = item
                        else:
                            begun = True
                            try:
                                yield item
                            except GeneratorExit:
                                # The stream notes on it what was spent, and raises it again.
                                items.throw(CallEndedError("abandoned"))
            except Exception as caught:  # noqa: BLE001  every failure is the generator's to judge
                error = _interrupted(caught, begun=begun)
            except BaseException as stop:  # noqa: BLE001  it goes on once the policy knows
                _wind_up(generator, stop, answer)
        yield ask
    finally:
        generator.close()


async def adrive_stream(
    generator: AskGenerator[T],
    answer: Callable[[Ask], Awaitable[Evidence]],
    stream: Callable[[StreamAsk], AsyncGenerator[C | Evidence, None]],
) -> AsyncGenerator[C | Return[T], None]:
    """Async form of `drive_stream`."""
    evidence: Evidence | None = None
    error: Exception | None = None
    try:
        while not isinstance(ask := advance(generator, evidence, error), Return):
            evidence, error = None, None
            begun = False
            try:
                if not isinstance(ask, (Final, Tentative)):
                    evidence = await answer(ask)
                    continue
                async with aclosing(stream(ask)) as items:
                    async for item in items:
                        if isinstance(item, Evidence):
                            evidence = item
                        else:
                            begun = True
                            try:
                                yield item
                            except GeneratorExit:
                                await items.athrow(CallEndedError("abandoned"))
            except Exception as caught:  # noqa: BLE001  every failure is the generator's to judge
                error = _interrupted(caught, begun=begun)
            except BaseException as stop:  # noqa: BLE001  it goes on once the policy knows
                await _awind_up(generator, stop, answer)
        yield ask
    finally:
        generator.close()
