"""Drivers of policies and signals: whole answers and streams, sync and async, and one that intercepts.

A policy or a signal is a generator that yields asks and receives evidence. `advance` is the only code that resumes one, so it
decides the same whoever runs it. The idea is that of `httpx.Auth.auth_flow`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import aclosing, closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar, runtime_checkable

from confroute.asks import Ask, AskGenerator, Evidence, Final, StreamAsk, Tentative
from confroute.decision import Routed
from confroute.errors import StreamInterruptedError, also_as
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
    generator: AskGenerator[T], evidence: Evidence | None, error: Exception | None
) -> Ask | Return[T]:
    """Resume a generator with what its last ask brought, neither for the first, and get its next ask or what it returned."""
    try:
        if error is not None:
            return generator.throw(error)
        # A generator's first `send` must be None, which its type cannot say.
        return next(generator) if evidence is None else generator.send(evidence)
    except StopIteration as end:
        return Return(end.value)


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
    error: Exception | None = None
    try:
        while not isinstance(ask := advance(generator, evidence, error), Return):
            evidence, error = None, None
            try:
                evidence = yield from answer(ask)
            except Exception as caught:  # noqa: BLE001  the generator judges it
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
                            yield item
            except Exception as caught:  # noqa: BLE001  every failure is the generator's to judge
                error = _interrupted(caught, begun=begun)
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
                            yield item
            except Exception as caught:  # noqa: BLE001  every failure is the generator's to judge
                error = _interrupted(caught, begun=begun)
        yield ask
    finally:
        generator.close()
