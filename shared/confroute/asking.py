"""From one ask to its evidence, under the limits of its tier: the same for whole answers and streams.

Also the last gate before anything leaves the process: once a policy binds a call to a tier as private, no ask for
another tier passes, whoever makes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute import background
from confroute._lost import lose
from confroute._together import atogether, together
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
from confroute.decision import Decision
from confroute.errors import PrivacyError, SignalUnavailableError
from confroute.hint import hint
from confroute.models.resilience import Attempted, Limits, aattempt, attempt
from confroute.trace import publish
from confroute.types import Generation
from confroute.watching import replayed

# Of a Score or Hidden the evidence itself, of the others the answers.
Brought: TypeAlias = Sequence[Generation] | Evidence
Call: TypeAlias = Callable[[ModelAsk], Brought]
ACall: TypeAlias = Callable[[ModelAsk], Coroutine[Any, Any, Brought]]
_ONE_CALL = Limits(attempts=1)
_MODEL = (Draft, Tentative, Sample, Final, Prompt, Score, Hidden)
_log = logging.getLogger("confroute")


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
