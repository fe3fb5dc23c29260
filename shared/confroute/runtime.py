"""From a policy and a host's calls to a routed answer: where asks become work.

A host (LangChain, LlamaIndex, a test) supplies `call` and, for streams, `stream`; time limits, retries,
embedding, entailment, timing and the published decision are the same for all of them and stand here once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Mapping,
    Sequence,
)
from contextlib import aclosing, closing
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from confroute.asks import Ask, Embed, Entails, Evidence, Final, ModelAsk, WorkAsk
from confroute.decision import Decision, Routed
from confroute.flow import Policy, adrive, adrive_stream, drive, drive_stream
from confroute.models.resilience import Limits, aattempt, attempt
from confroute.trace import publish
from confroute.types import Generation, Request

C = TypeVar("C")
Call: TypeAlias = Callable[[ModelAsk], Sequence[Generation]]
ACall: TypeAlias = Callable[[ModelAsk], Coroutine[Any, Any, Sequence[Generation]]]
_ONE_CALL = Limits(attempts=1)
_log = logging.getLogger("confroute")


def work(ask: WorkAsk) -> npt.NDArray[np.float32]:
    """Do an ask that needs no tier: embeddings or entailment, by the local model it names."""
    if isinstance(ask, Embed):
        from confroute.models.embed import LocalEmbedder

        return LocalEmbedder.load(ask.model)(ask.texts)
    from confroute.models.nli import LocalNLI

    return LocalNLI.load(ask.model)(ask.pairs)


def _publish(decision: Decision) -> None:
    """Hand the decision to `record()`; a call that a failure sent elsewhere costs money, so that is also logged."""
    if decision.stage == "fallback":
        _log.warning("%s", decision.reason)
    publish(decision)


def _asker(call: Call, limits: Mapping[str, Limits]) -> Callable[[Ask], Evidence]:
    def ask(wanted: Ask) -> Evidence:
        start = time.perf_counter()
        if isinstance(wanted, (Embed, Entails)):
            numbers = work(wanted)
            return Evidence(numbers=numbers, latency_s=time.perf_counter() - start)
        done = attempt(limits.get(wanted.tier, _ONE_CALL), wanted.tier, lambda: call(wanted))
        return Evidence(
            generations=tuple(done.value), latency_s=time.perf_counter() - start, attempts=done.attempts
        )

    return ask


def _aasker(call: ACall, limits: Mapping[str, Limits]) -> Callable[[Ask], Coroutine[Any, Any, Evidence]]:
    async def ask(wanted: Ask) -> Evidence:
        start = time.perf_counter()
        if isinstance(wanted, (Embed, Entails)):
            # CPU-bound: on the event loop it would stop every other request.
            numbers = await asyncio.to_thread(work, wanted)
            return Evidence(numbers=numbers, latency_s=time.perf_counter() - start)
        done = await aattempt(limits.get(wanted.tier, _ONE_CALL), wanted.tier, lambda: call(wanted))
        return Evidence(
            generations=tuple(done.value), latency_s=time.perf_counter() - start, attempts=done.attempts
        )

    return ask


def run(policy: Policy, request: Request, call: Call, limits: Mapping[str, Limits]) -> Routed:
    """Route one request.

    Parameters
    ----------
    policy : Policy
    request : Request
    call : callable
        Makes the calls of one `Draft`, `Sample` or `Final` and returns its answers.
    limits : mapping of str to Limits
        By tier; a tier that is not named gets one attempt without a time limit.
    """
    routed = drive(policy.flow(request), _asker(call, limits))
    _publish(routed.decision)
    return routed


async def arun(policy: Policy, request: Request, call: ACall, limits: Mapping[str, Limits]) -> Routed:
    """Async form of `run`."""
    routed = await adrive(policy.flow(request), _aasker(call, limits))
    _publish(routed.decision)
    return routed


def run_stream(
    policy: Policy,
    request: Request,
    call: Call,
    stream: Callable[[Final], Generator[C | Generation, None, None]],
    limits: Mapping[str, Limits],
) -> Generator[C | Routed, None, None]:
    """Route one request, passing on the final answer's chunks as they come; the last item is the `Routed`.

    Parameters
    ----------
    stream : callable
        Answers a `Final` by the host's chunks and, as its last item, the whole `Generation`. The time limit and
        the retries of its tier hold until the first chunk: after it nothing can be taken back.
    """

    def primed(wanted: Final) -> Generator[C | Evidence, None, None]:
        start = time.perf_counter()

        def begin() -> tuple[Generator[C | Generation, None, None], C | Generation]:
            items = stream(wanted)
            return items, next(items)

        done = attempt(limits.get(wanted.tier, _ONE_CALL), wanted.tier, begin)
        items, item = done.value
        with closing(items):
            while not isinstance(item, Generation):
                yield item
                item = next(items)
        yield Evidence(generations=(item,), latency_s=time.perf_counter() - start, attempts=done.attempts)

    with closing(drive_stream(policy.flow(request), _asker(call, limits), primed)) as items:
        for item in items:
            if isinstance(item, Routed):
                _publish(item.decision)
            yield item


async def arun_stream(
    policy: Policy,
    request: Request,
    call: ACall,
    stream: Callable[[Final], AsyncGenerator[C | Generation, None]],
    limits: Mapping[str, Limits],
) -> AsyncGenerator[C | Routed, None]:
    """Async form of `run_stream`."""

    async def primed(wanted: Final) -> AsyncGenerator[C | Evidence, None]:
        start = time.perf_counter()

        async def begin() -> tuple[AsyncGenerator[C | Generation, None], C | Generation]:
            items = stream(wanted)
            return items, await anext(items)

        done = await aattempt(limits.get(wanted.tier, _ONE_CALL), wanted.tier, begin)
        items, item = done.value
        async with aclosing(items):
            while not isinstance(item, Generation):
                yield item
                item = await anext(items)
        yield Evidence(generations=(item,), latency_s=time.perf_counter() - start, attempts=done.attempts)

    async with aclosing(adrive_stream(policy.flow(request), _aasker(call, limits), primed)) as items:
        async for item in items:
            if isinstance(item, Routed):
                _publish(item.decision)
            yield item
