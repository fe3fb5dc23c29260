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
from dataclasses import replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from confroute._together import atogether, together
from confroute.asks import (
    Ask,
    Draft,
    Embed,
    Entails,
    Evidence,
    Gather,
    ModelAsk,
    Report,
    Tentative,
    WorkAsk,
)
from confroute.decision import Decision, Routed
from confroute.flow import Policy, adrive, adrive_stream, drive, drive_stream
from confroute.models.resilience import Attempted, Limits, aattempt, attempt
from confroute.trace import publish
from confroute.types import Generation, Request
from confroute.watching import Scores, Streamed, astreamed, replayed, streamed

C = TypeVar("C")
# Of a Score or Hidden the evidence itself, of the others the answers.
Brought: TypeAlias = Sequence[Generation] | Evidence
Call: TypeAlias = Callable[[ModelAsk], Brought]
ACall: TypeAlias = Callable[[ModelAsk], Coroutine[Any, Any, Brought]]
_ONE_CALL = Limits(attempts=1)
_log = logging.getLogger("confroute")


def work(ask: WorkAsk) -> npt.NDArray[np.float32]:
    """Do an ask that needs no tier: embeddings or entailment, by the local model it names or the function it brings."""
    if isinstance(ask, Embed):
        if ask.embed is not None:
            return ask.embed(ask.texts)
        from confroute.models.embed import LocalEmbedder

        return LocalEmbedder.load(ask.model)(ask.texts)
    from confroute.models.nli import LocalNLI

    return LocalNLI.load(ask.model)(ask.pairs)


def _publish(decision: Decision) -> None:
    """Hand the decision to `record()`; a failure, and a call that one sent elsewhere, are also logged."""
    if decision.stage in {"fallback", "failed"}:
        _log.warning("%s", decision.reason)
    publish(decision)


def _evidence(wanted: Ask, done: Attempted[Brought], start: float) -> Evidence:
    if isinstance(done.value, Evidence):
        return replace(done.value, latency_s=time.perf_counter() - start, attempts=done.attempts)
    answers = tuple(done.value)
    seen = replayed(wanted.watch, answers[0]) if isinstance(wanted, Tentative) and answers else None
    return Evidence(
        generations=answers,
        latency_s=time.perf_counter() - start,
        attempts=done.attempts,
        seen=seen,
    )


def asker(call: Call, limits: Mapping[str, Limits]) -> Callable[[Ask], Evidence]:
    """What answers one ask, under the limits of its tier; see `run` for both."""

    def ask(wanted: Ask) -> Evidence:
        start = time.perf_counter()
        if isinstance(wanted, Gather):
            parts = together(ask, wanted.asks)
            return Evidence(parts=parts, latency_s=time.perf_counter() - start)
        if isinstance(wanted, (Embed, Entails)):
            numbers = work(wanted)
            return Evidence(numbers=numbers, latency_s=time.perf_counter() - start)
        if isinstance(wanted, Report):
            _publish(wanted.decision)
            return Evidence()
        asked = Draft(tier=wanted.tier) if isinstance(wanted, Tentative) else wanted
        done = attempt(limits.get(wanted.tier, _ONE_CALL), wanted.tier, lambda: call(asked))
        return _evidence(wanted, done, start)

    return ask


def aasker(call: ACall, limits: Mapping[str, Limits]) -> Callable[[Ask], Coroutine[Any, Any, Evidence]]:
    """Async form of `asker`."""

    async def ask(wanted: Ask) -> Evidence:
        start = time.perf_counter()
        if isinstance(wanted, Gather):
            parts = await atogether(ask, wanted.asks)
            return Evidence(parts=parts, latency_s=time.perf_counter() - start)
        if isinstance(wanted, (Embed, Entails)):
            # CPU-bound: on the event loop it would stop every other request.
            numbers = await asyncio.to_thread(work, wanted)
            return Evidence(numbers=numbers, latency_s=time.perf_counter() - start)
        if isinstance(wanted, Report):
            _publish(wanted.decision)
            return Evidence()
        asked = Draft(tier=wanted.tier) if isinstance(wanted, Tentative) else wanted
        done = await aattempt(limits.get(wanted.tier, _ONE_CALL), wanted.tier, lambda: call(asked))
        return _evidence(wanted, done, start)

    return ask


def run(policy: Policy, request: Request, call: Call, limits: Mapping[str, Limits]) -> Routed:
    """Route one request.

    Parameters
    ----------
    policy : Policy
    request : Request
    call : callable
        Makes the calls of one `Draft`, `Sample` or `Final` and returns its answers, or the `Evidence` of one `Score`
        or `Hidden`; may be called from several threads at once for a `Gather`.
    limits : mapping of str to Limits
        By tier; a tier that is not named gets one attempt without a time limit.
    """
    routed = drive(policy.flow(request), asker(call, limits))
    _publish(routed.decision)
    return routed


async def arun(policy: Policy, request: Request, call: ACall, limits: Mapping[str, Limits]) -> Routed:
    """Async form of `run`."""
    routed = await adrive(policy.flow(request), aasker(call, limits))
    _publish(routed.decision)
    return routed


def run_stream(
    policy: Policy,
    request: Request,
    call: Call,
    stream: Callable[[Streamed], Generator[C | Generation, None, None]],
    limits: Mapping[str, Limits],
    *,
    scores: Scores | None = None,
) -> Generator[C | Routed, None, None]:
    """Route one request, passing on the answer's chunks as soon as it is settled; the last item is the `Routed`.

    Parameters
    ----------
    stream : callable
        Answers a `Final` or a `Tentative` by the host's chunks and, as its last item, the whole `Generation`. The time
        limit and the retries of its tier hold until the first chunk: after it nothing can be taken back.
    scores : callable, optional
        Log-probabilities of the tokens in one chunk: empty if it holds no token, None if they are unknown. Without it
        no draft is streamed, and `stream` gets no `Tentative`.
    """
    ask = asker(call, limits)

    def answer(wanted: Streamed) -> Generator[C | Evidence, None, None]:
        if scores is None and isinstance(wanted, Tentative):
            yield ask(wanted)
            return
        limit = limits.get(wanted.tier, _ONE_CALL)
        yield from streamed(wanted, stream, limit, scores, request.tiers.get(wanted.tier))

    with closing(drive_stream(policy.flow(request), ask, answer)) as items:
        for item in items:
            if isinstance(item, Routed):
                _publish(item.decision)
            yield item


async def arun_stream(
    policy: Policy,
    request: Request,
    call: ACall,
    stream: Callable[[Streamed], AsyncGenerator[C | Generation, None]],
    limits: Mapping[str, Limits],
    *,
    scores: Scores | None = None,
) -> AsyncGenerator[C | Routed, None]:
    """Async form of `run_stream`."""
    ask = aasker(call, limits)

    async def answer(wanted: Streamed) -> AsyncGenerator[C | Evidence, None]:
        if scores is None and isinstance(wanted, Tentative):
            yield await ask(wanted)
            return
        limit = limits.get(wanted.tier, _ONE_CALL)
        facts = request.tiers.get(wanted.tier)
        async with aclosing(astreamed(wanted, stream, limit, scores, facts)) as chunks:
            async for chunk in chunks:
                yield chunk

    async with aclosing(adrive_stream(policy.flow(request), ask, answer)) as items:
        async for item in items:
            if isinstance(item, Routed):
                _publish(item.decision)
            yield item
