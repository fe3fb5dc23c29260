"""What a policy asks of models, as calls of a host's models: how many, at the same time or in turn, on the loop or beside it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Generic, TypeAlias, TypeVar

from confroute.asks import (
    Draft,
    Evidence,
    Final,
    Hidden,
    InsideAsk,
    ModelAsk,
    Prompt,
    Sample,
    Score,
    StreamAsk,
    Tentative,
)
from confroute.clock import now
from confroute.concurrency import atogether, off_the_loop, together
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.model import HostModel, ModelCall, ModelFacts, Role
from confroute.models.inside import elsewhere, look_inside
from confroute.models.resilience import is_transient
from confroute.types import Generation

C_co = TypeVar("C_co", covariant=True)
T = TypeVar("T")
_END = object()
# Answers by the number of the call that brought them.
Arrived: TypeAlias = "dict[int, Sequence[Generation]]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatcher(Generic[C_co]):
    """Answers the model asks of one request: the `call`, `acall`, `stream` and `astream` that `confroute.executor` wants.

    Parameters
    ----------
    models : mapping of str to HostModel
        By tier, with the request's conversation.
    fallback : LogprobFallback
        Kept for longer than a request, so that what a model refuses is asked for once.
    at_once : int or None
        The most calls that are made at the same time; None for all calls of an ask.
    """

    models: Mapping[str, HostModel[C_co]]
    fallback: LogprobFallback
    at_once: int | None = None

    def call(self, ask: ModelAsk) -> Sequence[Generation] | Evidence:
        """Answer an ask; several samples are drawn in threads where the model allows it.

        Raises
        ------
        SignalUnavailableError
            A `Score` or `Hidden` of a model that is not in this process.
        """
        model = self.models[ask.tier]
        facts = model.facts
        if isinstance(ask, (Score, Hidden)):
            return _inside(ask, facts)
        calls = model_calls(ask, facts)
        if len(calls) == 1:
            return self._timed(model, calls[0])
        arrived = _arrived(ask)
        missing = [call for call in calls if call.drawn not in arrived]
        at_once = (self.at_once or len(missing)) if facts.concurrent and facts.thread_safe else 1
        for group in _groups(missing, at_once):
            _raise_one(together(lambda call: self._keep(model, call, arrived), group))
        return _in_order(calls, arrived)

    async def acall(self, ask: ModelAsk) -> Sequence[Generation] | Evidence:
        """Async form of `call`: samples are drawn by tasks; if one fails the others are waited for, since they are paid for."""
        model = self.models[ask.tier]
        facts = model.facts
        if isinstance(ask, (Score, Hidden)):
            # CPU-bound: on the event loop it would stop every other request.
            return await off_the_loop(_inside, ask, facts)
        calls = model_calls(ask, facts)
        if len(calls) == 1 and not facts.blocking:
            # As `_atimed`, less a coroutine that every turn of the event loop would go through.
            start, call = now(), calls[0]
            answers = await (self.fallback.acall(model, call) if call.logprobs else model.acall(call))
            return _with_latency(answers, start)
        if len(calls) == 1:
            return await self._atimed(model, calls[0])
        arrived = _arrived(ask)
        missing = [call for call in calls if call.drawn not in arrived]
        for group in _groups(missing, (self.at_once or len(missing)) if facts.concurrent else 1):
            _raise_one(await atogether(lambda call: self._akeep(model, call, arrived), group))
        return _in_order(calls, arrived)

    def stream(self, ask: StreamAsk) -> Generator[C_co | Generation, None, None]:
        """Answer an ask by the model's own chunks and, as the last item, the whole answer."""
        model = self.models[ask.tier]
        (call,) = model_calls(ask, model.facts, streamed=True)
        return self.fallback.stream(model, call) if call.logprobs else model.stream(call)

    def astream(self, ask: StreamAsk) -> AsyncGenerator[C_co | Generation, None]:
        """Async form of `stream`."""
        model = self.models[ask.tier]
        if model.facts.blocking:
            return _threaded(self.stream(ask))
        (call,) = model_calls(ask, model.facts, streamed=True)
        return self.fallback.astream(model, call) if call.logprobs else model.astream(call)

    def _keep(self, model: HostModel[C_co], call: ModelCall, arrived: Arrived) -> None:
        arrived[call.drawn] = self._timed(model, call)

    async def _akeep(self, model: HostModel[C_co], call: ModelCall, arrived: Arrived) -> None:
        arrived[call.drawn] = await self._atimed(model, call)

    def _timed(self, model: HostModel[C_co], call: ModelCall) -> list[Generation]:
        start = now()
        answers = self.fallback.call(model, call) if call.logprobs else model.call(call)
        return _with_latency(answers, start)

    async def _atimed(self, model: HostModel[C_co], call: ModelCall) -> list[Generation]:
        if model.facts.blocking:
            return await off_the_loop(self._timed, model, call)
        start = now()
        answers = await (self.fallback.acall(model, call) if call.logprobs else model.acall(call))
        return _with_latency(answers, start)


def model_calls(
    ask: Draft | Tentative | Sample | Final | Prompt, facts: ModelFacts, *, streamed: bool = False
) -> list[ModelCall]:
    """The calls of a model that one ask takes.

    Examples
    --------
    >>> [call.drawn for call in model_calls(Sample(tier="edge", n=2, drawn=4), ModelFacts(model="small"))]
    [4, 5]
    """
    if isinstance(ask, Final):
        return [_call("final", facts.asks_logprobs and facts.keeps_logprobs, 0, streamed, ask.note)]
    if isinstance(ask, Sample):
        if facts.answers_per_call:
            return [ModelCall(role="sample", n=ask.n, drawn=ask.drawn, temperature=ask.temperature)]
        numbers = range(ask.drawn, ask.drawn + ask.n)
        return [ModelCall(role="sample", drawn=number, temperature=ask.temperature) for number in numbers]
    alternatives = max(ask.top_logprobs, facts.alternatives)
    if isinstance(ask, Prompt):
        return [
            ModelCall(
                role="prompt",
                logprobs=facts.asks_logprobs,
                top_logprobs=alternatives,
                max_tokens=ask.max_tokens,
                messages=ask.messages,
            )
        ]
    note = ask.note if isinstance(ask, Draft) else None
    call = _call("draft", facts.asks_logprobs, alternatives, streamed, note)
    help_ = ask.help if isinstance(ask, Draft) else None
    return [call if help_ is None else replace(call, help=help_)]


def _call(role: Role, logprobs: bool, top_logprobs: int, streamed: bool, note: str | None) -> ModelCall:
    call = _without_note(role, logprobs, top_logprobs, streamed)
    return call if note is None else replace(call, note=note)


@lru_cache(maxsize=64)
def _without_note(role: Role, logprobs: bool, top_logprobs: int, streamed: bool) -> ModelCall:
    """The same few calls are made all the time, and making a frozen object of many fields takes microseconds."""
    return ModelCall(role=role, logprobs=logprobs, top_logprobs=top_logprobs, streamed=streamed)


def _inside(ask: InsideAsk, facts: ModelFacts) -> Evidence:
    if facts.inside is None:
        raise elsewhere(ask, facts.model)
    return look_inside(ask, *facts.inside())


def _with_latency(answers: Sequence[Generation], start: float) -> list[Generation]:
    latency_s = now() - start
    # Hosts that time their answers themselves save the copy.
    return [answer if answer.latency_s else replace(answer, latency_s=latency_s) for answer in answers]


def _arrived(ask: ModelAsk) -> Arrived:
    """The answers of an earlier attempt, to which this one adds its own."""
    arrived = ask.arrived if isinstance(ask, Sample) else None
    return {} if arrived is None else arrived


def _groups(calls: Sequence[ModelCall], size: int) -> list[Sequence[ModelCall]]:
    return [calls[start : start + size] for start in range(0, len(calls), size or 1)]


def _raise_one(outcomes: Sequence[Exception | None]) -> None:
    """Raise the first error; one that asking again cannot mend goes before all others."""
    errors = [outcome for outcome in outcomes if outcome is not None]
    if errors:
        raise next((error for error in errors if not is_transient(error)), errors[0])


def _in_order(calls: Sequence[ModelCall], arrived: Arrived) -> list[Generation]:
    return [answer for call in calls for answer in arrived[call.drawn]]


async def _threaded(items: Generator[T, None, None]) -> AsyncGenerator[T, None]:
    """Iterate a blocking generator in threads, one step at a time."""
    busy = threading.Lock()

    def step() -> Any:
        with busy:
            return next(items, _END)

    def close() -> None:
        with busy:
            items.close()

    try:
        while (item := await asyncio.to_thread(step)) is not _END:
            yield item
    finally:
        # Not awaited: a step that still runs holds the lock until the model's next token.
        asyncio.get_running_loop().run_in_executor(None, close)
