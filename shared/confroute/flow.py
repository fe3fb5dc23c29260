"""The loops that drive a policy: sync and async, whole answers and streams.

A flow is a generator that yields asks and receives evidence. These four functions are the only code that
advances one, so a policy decides the same whoever runs it. The idea is that of `httpx.Auth.auth_flow`.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from contextlib import aclosing, closing
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

from confroute.asks import Ask, Evidence, Final, Tentative
from confroute.decision import Routed
from confroute.errors import StreamInterruptedError
from confroute.types import Request

Flow: TypeAlias = Generator[Ask, Evidence, Routed]
C = TypeVar("C")


@runtime_checkable
class Policy(Protocol):
    """Anything that decides: one method, a generator without I/O."""

    def flow(self, request: Request) -> Flow:
        """Yield asks, receive evidence, return the routed answer."""
        ...


def advance(flow: Flow, evidence: Evidence | None, error: Exception | None) -> Ask | Routed:
    """Hand a flow what came of its last ask (nothing for the first) and return what it wants next, or its result."""
    try:
        if error is not None:
            return flow.throw(error)
        # A generator's first `send` must be None, which its type cannot say.
        return next(flow) if evidence is None else flow.send(evidence)
    except StopIteration as done:
        routed: Routed = done.value
        return routed


def drive(flow: Flow, ask: Callable[[Ask], Evidence]) -> Routed:
    """Run `flow` to its end, answering each ask by `ask`; errors of `ask` are thrown into the flow.

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
        while not isinstance(wanted := advance(flow, evidence, error), Routed):
            evidence, error = None, None
            try:
                evidence = ask(wanted)
            except Exception as caught:  # noqa: BLE001  every failure is the policy's to judge
                error = caught
        return wanted
    finally:
        flow.close()


async def adrive(flow: Flow, ask: Callable[[Ask], Awaitable[Evidence]]) -> Routed:
    """Async form of `drive`."""
    evidence: Evidence | None = None
    error: Exception | None = None
    try:
        while not isinstance(wanted := advance(flow, evidence, error), Routed):
            evidence, error = None, None
            try:
                evidence = await ask(wanted)
            except Exception as caught:  # noqa: BLE001  every failure is the policy's to judge
                error = caught
        return wanted
    finally:
        flow.close()


def _interrupted(error: Exception, *, begun: bool) -> Exception:
    """After the first chunk the caller has seen part of an answer: no other may follow it."""
    if not begun:
        return error
    broken = StreamInterruptedError(
        f"the answer broke off while it was streamed ({type(error).__name__}: {error})"
    )
    broken.__cause__ = error
    return broken


def drive_stream(
    flow: Flow,
    ask: Callable[[Ask], Evidence],
    stream: Callable[[Final | Tentative], Generator[C | Evidence, None, None]],
) -> Generator[C | Routed, None, None]:
    """Run `flow`, passing on the chunks of the answer it gives as they come; the last item is the `Routed`.

    Parameters
    ----------
    stream : callable
        Answers a `Final` by chunks and, as its last item, the `Evidence` of the whole answer; a `Tentative` the same,
        its chunks only once its `watch` commits to it.
    """
    evidence: Evidence | None = None
    error: Exception | None = None
    try:
        while not isinstance(wanted := advance(flow, evidence, error), Routed):
            evidence, error = None, None
            begun = False
            try:
                if not isinstance(wanted, (Final, Tentative)):
                    evidence = ask(wanted)
                    continue
                with closing(stream(wanted)) as items:
                    for item in items:
                        if isinstance(item, Evidence):
                            evidence = item
                        else:
                            begun = True
                            yield item
            except Exception as caught:  # noqa: BLE001  every failure is the policy's to judge
                error = _interrupted(caught, begun=begun)
        yield wanted
    finally:
        flow.close()


async def adrive_stream(
    flow: Flow,
    ask: Callable[[Ask], Awaitable[Evidence]],
    stream: Callable[[Final | Tentative], AsyncGenerator[C | Evidence, None]],
) -> AsyncGenerator[C | Routed, None]:
    """Async form of `drive_stream`."""
    evidence: Evidence | None = None
    error: Exception | None = None
    try:
        while not isinstance(wanted := advance(flow, evidence, error), Routed):
            evidence, error = None, None
            begun = False
            try:
                if not isinstance(wanted, (Final, Tentative)):
                    evidence = await ask(wanted)
                    continue
                async with aclosing(stream(wanted)) as items:
                    async for item in items:
                        if isinstance(item, Evidence):
                            evidence = item
                        else:
                            begun = True
                            yield item
            except Exception as caught:  # noqa: BLE001  every failure is the policy's to judge
                error = _interrupted(caught, begun=begun)
        yield wanted
    finally:
        flow.close()
