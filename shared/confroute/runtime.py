"""From a policy and a host's calls to a routed answer: where asks become work.

A host (LangChain, LlamaIndex, a test) supplies `call` and, for streams, `stream`; time limits, retries,
embedding, entailment, timing and the published decision are the same for all of them and stand here once.
"""

from __future__ import annotations

import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Generator,
    Mapping,
)
from contextlib import aclosing, closing
from typing import TypeVar

from confroute._lost import lose
from confroute.asking import AAsker, ACall, Asker, Call, published
from confroute.asks import (
    Evidence,
    Tentative,
)
from confroute.decision import Routed
from confroute.flow import Policy, adrive, adrive_stream, drive, drive_stream
from confroute.models._reading import prompts_kept
from confroute.models.resilience import Limits
from confroute.types import Generation, Request
from confroute.watching import Scores, Streamed, astreamed, streamed

C = TypeVar("C")


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
    # A local edge reads the prompt once for draft, samples, dropout and hidden states. A stream's chunks leave this context
    # in between, so streams do without.
    with prompts_kept():
        routed = drive(policy.flow(request), Asker(call=call, limits=limits))
    published(routed.decision)
    return routed


async def arun(policy: Policy, request: Request, call: ACall, limits: Mapping[str, Limits]) -> Routed:
    """Async form of `run`."""
    with prompts_kept():
        async with aclosing(AAsker(call=call, limits=limits)) as asker:
            routed = await adrive(policy.flow(request), asker)
    published(routed.decision)
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
    ask = Asker(call=call, limits=limits)

    def answer(wanted: Streamed) -> Generator[C | Evidence, None, None]:
        if (scores is None and isinstance(wanted, Tentative)) or wanted in ask.begun:
            yield ask(wanted)
            return
        ask.check(wanted)
        limit = ask.of(wanted.tier)
        facts = request.tiers.get(wanted.tier)
        start = time.perf_counter()
        try:
            yield from streamed(wanted, stream, limit, scores, facts, keep_s=ask.keep_s(wanted))
        except Exception as error:
            lose(error, start)
            raise

    with closing(drive_stream(policy.flow(request), ask, answer)) as items:
        for item in items:
            if isinstance(item, Routed):
                published(item.decision)
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
    ask = AAsker(call=call, limits=limits)

    async def answer(wanted: Streamed) -> AsyncGenerator[C | Evidence, None]:
        if (scores is None and isinstance(wanted, Tentative)) or wanted in ask.begun:
            yield await ask(wanted)
            return
        ask.check(wanted)
        limit = ask.of(wanted.tier)
        facts = request.tiers.get(wanted.tier)
        start = time.perf_counter()
        try:
            async with aclosing(
                astreamed(wanted, stream, limit, scores, facts, keep_s=ask.keep_s(wanted))
            ) as chunks:
                async for chunk in chunks:
                    yield chunk
        except Exception as error:
            lose(error, start)
            raise

    async with aclosing(ask), aclosing(adrive_stream(policy.flow(request), ask, answer)) as items:
        async for item in items:
            if isinstance(item, Routed):
                published(item.decision)
            yield item
