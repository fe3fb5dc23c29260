"""From a policy and a host's calls to a routed answer: where asks become work.

A host (LangChain, LlamaIndex, a test) supplies `call` and, for streams, `stream`; time limits, retries,
embedding, entailment, timing and the published decision are the same for all of them and stand here once.
"""

from __future__ import annotations

import asyncio
import functools
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
from concurrent.futures import Future
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from confroute import background
from confroute.asks import (
    Ask,
    Begin,
    Cancel,
    Consult,
    Draft,
    Embed,
    Entails,
    Evidence,
    Final,
    Gather,
    Hidden,
    ModelAsk,
    Prompt,
    Report,
    Sample,
    Score,
    Shadow,
    Tentative,
    WorkAsk,
)
from confroute.concurrency import atogether, together
from confroute.decision import Decision, Routed
from confroute.errors import PrivacyError, SignalUnavailableError, lose
from confroute.flow import Policy, adrive, adrive_stream, drive, drive_stream
from confroute.models.prompt_cache import prompt_caching
from confroute.models.resilience import Attempted, Limits, aattempt, attempt
from confroute.observe.trace import publish
from confroute.policy.threshold import DEFAULT_SOURCE
from confroute.streaming import Scores, Streamed, astreamed, replayed, streamed
from confroute.types import Generation, Request

_log = logging.getLogger("confroute")


def hint(decision: Decision) -> None:
    """Say how to calibrate, at the first decision that an uncalibrated default settles."""
    if decision.threshold_source == DEFAULT_SOURCE:
        say_once()


@functools.cache
def say_once() -> None:
    """The hint itself."""
    _log.warning(
        "routing by uncalibrated default thresholds, which were fitted to nobody's models: record your own calls "
        "(confroute record) and fit a policy (confroute fit), or let one learn while it routes "
        "(confroute.learning.LearnOnline). Every such decision says so; this is said once."
    )


# Of a Score or Hidden the evidence itself, of the others the answers.
Brought: TypeAlias = Sequence[Generation] | Evidence
Call: TypeAlias = Callable[[ModelAsk], Brought]
ACall: TypeAlias = Callable[[ModelAsk], Coroutine[Any, Any, Brought]]
_ONE_CALL = Limits(attempts=1)
_MODEL = (Draft, Tentative, Sample, Final, Prompt, Score, Hidden)


def published(decision: Decision) -> None:
    """Hand the decision to `record()`; a failure, and a call that one sent elsewhere, are also logged."""
    if decision.stage in {"fallback", "failed"}:
        _log.warning("%s", decision.reason)
    hint(decision)
    publish(decision)


def work(ask: WorkAsk) -> npt.NDArray[np.float32]:
    """Do an ask that needs no tier: embeddings or entailment, by the local model it names or the function it brings.

    Raises
    ------
    SignalUnavailableError
        Numbers that are not finite: a NaN among them would pass every comparison as "certain" or as "the same".
    """
    numbers = _numbers(ask)
    if not np.isfinite(numbers).all():
        raise SignalUnavailableError(f"{ask.model} gave numbers that are not finite")
    return numbers


def _numbers(ask: WorkAsk) -> npt.NDArray[np.float32]:
    if isinstance(ask, Embed):
        if ask.embed is not None:
            return ask.embed(ask.texts)
        from confroute.models.embed import LocalEmbedder

        return LocalEmbedder.load(ask.model)(ask.texts)
    from confroute.models.nli import LocalNLI

    return LocalNLI.load(ask.model)(ask.pairs)


@dataclass(slots=True, kw_only=True)
class _Bound:
    """What both forms share: limits, and the tier that a private call is bound to."""

    limits: Mapping[str, Limits]
    bound_to: str | None = None

    def of(self, tier: str) -> Limits:
        """The limits of one tier."""
        return self.limits.get(tier, _ONE_CALL)

    def check(self, ask: ModelAsk | Tentative) -> None:
        """Refuse whatever would leave the tier that the call is bound to.

        Raises
        ------
        PrivacyError
        """
        if isinstance(ask, Final) and ask.private and self.bound_to is None:
            self.bound_to = ask.tier
        if self.bound_to is not None and ask.tier != self.bound_to:
            raise PrivacyError(tier=ask.tier, bound_to=self.bound_to)

    def check_work(self, ask: WorkAsk) -> None:
        """Refuse a function that was given for embeddings: nobody knows where it sends a private text.

        Raises
        ------
        PrivacyError
        """
        if self.bound_to is not None and getattr(ask, "embed", None) is not None:
            raise PrivacyError(tier="the given embedding function", bound_to=self.bound_to)

    def keep_s(self, ask: ModelAsk | Tentative) -> float:
        """Seconds of a deadline that what comes before the last answer leaves to the tiers after it."""
        if isinstance(ask, Final):
            return 0.0
        names = list(self.limits)
        later = names[names.index(ask.tier) + 1 :] if ask.tier in names else []
        return sum(self.limits[name].expected_s for name in later)


@dataclass(slots=True, kw_only=True)
class Asker(_Bound):
    """Answers the asks of one call; what was begun and never asked for ends in its own thread."""

    call: Call
    begun: dict[Final, Future[Evidence]] = field(default_factory=dict)

    def __call__(self, wanted: Ask) -> Evidence:
        """Do what is asked and return the evidence, or raise what it ended in."""
        start = time.perf_counter()
        try:
            return self._done(wanted, start)
        except Exception as error:
            lose(error, start)
            raise

    def _done(self, wanted: Ask, start: float) -> Evidence:
        if isinstance(wanted, Gather):
            return Evidence(parts=together(self, wanted.asks), latency_s=time.perf_counter() - start)
        if isinstance(wanted, _MODEL):
            return self.model(wanted)
        if isinstance(wanted, (Embed, Entails)):
            self.check_work(wanted)
            return Evidence(numbers=work(wanted), latency_s=time.perf_counter() - start)
        if isinstance(wanted, Consult):
            return Evidence(value=wanted.work())
        if isinstance(wanted, Report):
            published(wanted.decision)
            return Evidence()
        return self.behind(wanted)

    def behind(self, wanted: Begin | Cancel | Shadow) -> Evidence:
        """Begin, give up or shadow a call that nobody waits for now."""
        self.check(wanted.ask)
        if isinstance(wanted, Begin):
            self.begun[wanted.ask] = background.started(lambda: self._model(wanted.ask))
        elif isinstance(wanted, Cancel):
            return _ready(self.begun.pop(wanted.ask, None))
        else:
            background.shadow(lambda: self._model(wanted.ask), wanted.then)
        return Evidence()

    def model(self, ask: ModelAsk | Tentative) -> Evidence:
        """The answers of a tier: begun earlier, or asked for now."""
        self.check(ask)
        begun = self.begun.pop(ask, None) if isinstance(ask, Final) else None
        if begun is None:
            return self._model(ask)
        start = time.perf_counter()
        # What ran beside other steps took the call no longer than it is waited for now.
        return replace(begun.result(), latency_s=time.perf_counter() - start)

    def _model(self, ask: ModelAsk | Tentative) -> Evidence:
        start = time.perf_counter()
        keep_s = self.keep_s(ask)
        asked = _plain(ask)
        done = attempt(self.of(ask.tier), ask.tier, lambda: self.call(asked), keep_s=keep_s)
        return _evidence(ask, done, start)


@dataclass(slots=True, kw_only=True)
class AAsker(_Bound):
    """Async form of `Asker`."""

    call: ACall
    begun: dict[Final, asyncio.Task[Evidence]] = field(default_factory=dict)

    async def __call__(self, wanted: Ask) -> Evidence:
        """Do what is asked and return the evidence, or raise what it ended in."""
        start = time.perf_counter()
        try:
            return await self._done(wanted, start)
        except Exception as error:
            lose(error, start)
            raise

    async def _done(self, wanted: Ask, start: float) -> Evidence:
        if isinstance(wanted, Gather):
            return Evidence(parts=await atogether(self, wanted.asks), latency_s=time.perf_counter() - start)
        if isinstance(wanted, _MODEL):
            return await self.model(wanted)
        if isinstance(wanted, (Embed, Entails)):
            # CPU-bound: on the event loop it would stop every other request.
            self.check_work(wanted)
            numbers = await asyncio.to_thread(work, wanted)
            return Evidence(numbers=numbers, latency_s=time.perf_counter() - start)
        if isinstance(wanted, Consult):
            return Evidence(value=await asyncio.to_thread(wanted.work) if wanted.waits else wanted.work())
        if isinstance(wanted, Report):
            published(wanted.decision)
            return Evidence()
        return await self.behind(wanted)

    async def behind(self, wanted: Begin | Cancel | Shadow) -> Evidence:
        """Begin, give up or shadow a call that nobody waits for now."""
        self.check(wanted.ask)
        if isinstance(wanted, Begin):
            self.begun[wanted.ask] = asyncio.create_task(self._model(wanted.ask))
        elif isinstance(wanted, Cancel):
            return await _given_up(self.begun.pop(wanted.ask, None))
        else:
            background.ashadow(lambda: self._model(wanted.ask), wanted.then)
        return Evidence()

    async def model(self, ask: ModelAsk | Tentative) -> Evidence:
        """Async form of `Asker.model`."""
        self.check(ask)
        begun = self.begun.pop(ask, None) if isinstance(ask, Final) else None
        if begun is None:
            return await self._model(ask)
        start = time.perf_counter()
        # Cancelled while it waits, this cancels what it waits for.
        return replace(await begun, latency_s=time.perf_counter() - start)

    async def aclose(self) -> None:
        """Cancel what was begun and never asked for."""
        while self.begun:
            await _given_up(self.begun.popitem()[1])

    async def _model(self, ask: ModelAsk | Tentative) -> Evidence:
        start = time.perf_counter()
        keep_s = self.keep_s(ask)
        asked = _plain(ask)
        done = await aattempt(self.of(ask.tier), ask.tier, lambda: self.call(asked), keep_s=keep_s)
        return _evidence(ask, done, start)


def _plain(ask: ModelAsk | Tentative) -> ModelAsk:
    """What is asked of a model where nothing is streamed."""
    return Draft(tier=ask.tier, top_logprobs=ask.top_logprobs) if isinstance(ask, Tentative) else ask


def _evidence(ask: ModelAsk | Tentative, done: Attempted[Brought], start: float) -> Evidence:
    if isinstance(done.value, Evidence):
        return replace(done.value, latency_s=time.perf_counter() - start, attempts=done.attempts)
    answers = tuple(done.value)
    return Evidence(
        generations=answers,
        latency_s=time.perf_counter() - start,
        attempts=done.attempts,
        seen=replayed(ask.watch, answers[0]) if isinstance(ask, Tentative) and answers else None,
    )


def _ready(begun: Future[Evidence] | None) -> Evidence:
    """What a thread that cannot be stopped has brought so far."""
    if begun is None or not begun.done() or begun.exception() is not None:
        return Evidence()
    return begun.result()


async def _given_up(begun: asyncio.Task[Evidence] | None) -> Evidence:
    if begun is None:
        return Evidence()
    begun.cancel()
    await asyncio.wait({begun})
    if begun.cancelled() or begun.exception() is not None:
        return Evidence()
    return begun.result()


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
    with prompt_caching():
        routed = drive(policy.flow(request), Asker(call=call, limits=limits))
    published(routed.decision)
    return routed


async def arun(policy: Policy, request: Request, call: ACall, limits: Mapping[str, Limits]) -> Routed:
    """Async form of `run`."""
    with prompt_caching():
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
