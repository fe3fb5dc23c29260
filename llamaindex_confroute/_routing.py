"""One routed call: a policy's asks become calls of the children, through `confroute.executor`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Mapping
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.llms.llm import LLM

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
from confroute.decision import Routed
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.flow import Policy
from confroute.models.inside import elsewhere, look_inside
from confroute.models.resilience import Limits
from confroute.types import Generation, Request
from llamaindex_confroute._lineage import Lineage
from llamaindex_confroute._local import to_messages
from llamaindex_confroute._messages import from_core
from llamaindex_confroute._models import (
    Prepared,
    facts_of,
    for_draft,
    for_prompt,
    for_sample,
    samples_in_one_call,
)
from llamaindex_confroute._reading import split
from llamaindex_confroute._refusals import Refusals
from llamaindex_confroute._watched import chunk_logprobs
from llamaindex_confroute._work import ChatWork, Work
from llamaindex_confroute.events import announce
from llamaindex_confroute.local import LocalLLM

C = TypeVar("C")
T = TypeVar("T")
_END = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """Everything that routing one call takes.

    Attributes
    ----------
    policy : Policy
    models : mapping of str to LLM
        By tier.
    limits : mapping of str to Limits
    in_thread : frozenset of str
        Tiers whose async calls block and therefore run in threads.
    request : Request
    lineage : Lineage
        Told who answered, for the call that goes on from this answer.
    refusals : Refusals
        Told which models refuse requests for log-probabilities.
    span_id : str or None
        Span of the router's method, for the event: a stream's decision falls after its span was left.
    """

    policy: Policy
    models: Mapping[str, LLM]
    limits: Mapping[str, Limits]
    in_thread: frozenset[str]
    request: Request
    lineage: Lineage
    refusals: Refusals
    span_id: str | None

    def run(self, work: Work[C]) -> Routed:
        """Route a whole call."""
        routed = run(self.policy, self.request, self._call(work), self.limits)
        self._done(routed)
        return routed

    async def arun(self, work: Work[C]) -> Routed:
        """Async form of `run`."""
        routed = await arun(self.policy, self.request, self._acall(work), self.limits)
        self._done(routed)
        return routed

    def stream(self, work: Work[C]) -> Generator[C | Routed, None, None]:
        """Route a streamed call: chunks of the final answer, if it is streamed, then the `Routed`."""

        def answer(ask: StreamAsk) -> Generator[C | Generation, None, None]:
            said = _with_note(work, ask)
            (one,) = self._calls(ask, said)
            return self.refusals.stream(lambda asked: said.stream(asked.llm, asked.kwargs), one)

        flow = run_stream(
            self.policy, self.request, self._call(work), answer, self.limits, scores=chunk_logprobs
        )
        with closing(flow) as items:
            for item in items:
                if isinstance(item, Routed):
                    self._done(item)
                yield item

    async def astream(self, work: Work[C]) -> AsyncGenerator[C | Routed, None]:
        """Async form of `stream`."""

        def answer(ask: StreamAsk) -> AsyncGenerator[C | Generation, None]:
            said = _with_note(work, ask)
            (one,) = self._calls(ask, said)
            if ask.tier in self.in_thread:
                return _threaded(
                    self.refusals.stream(lambda asked: said.stream(asked.llm, asked.kwargs), one)
                )
            return self.refusals.astream(lambda asked: said.astream(asked.llm, asked.kwargs), one)

        flow = arun_stream(
            self.policy, self.request, self._acall(work), answer, self.limits, scores=chunk_logprobs
        )
        async with aclosing(flow) as items:
            async for item in items:
                if isinstance(item, Routed):
                    self._done(item)
                yield item

    def _done(self, routed: Routed) -> None:
        announce(routed.decision, span_id=self.span_id)
        if self.request.question is not None:
            self.lineage.note(self.request.question, routed.generation.text, routed.decision.route)

    def _call(self, work: Work[C]) -> Callable[[ModelAsk], list[Generation] | Evidence]:
        def call(ask: ModelAsk) -> list[Generation] | Evidence:
            if isinstance(ask, (Score, Hidden)):
                return self._inside(ask, work)
            doing = _own_work(ask) if isinstance(ask, Prompt) else _with_note(work, ask)
            answers = [self._timed(one, doing) for one in self._calls(ask, doing)]
            return [_kept(ask, each) for answer in answers for each in split(answer)]

        return call

    def _acall(self, work: Work[C]) -> Callable[[ModelAsk], Coroutine[Any, Any, list[Generation] | Evidence]]:
        async def call(ask: ModelAsk) -> list[Generation] | Evidence:
            if isinstance(ask, (Score, Hidden)):
                # CPU-bound: on the event loop it would stop every other request.
                return await asyncio.to_thread(self._inside, ask, work)
            threaded = ask.tier in self.in_thread
            doing = _own_work(ask) if isinstance(ask, Prompt) else _with_note(work, ask)
            answers = await _together(
                [
                    asyncio.to_thread(self._timed, one, doing) if threaded else self._atimed(one, doing)
                    for one in self._calls(ask, doing)
                ]
            )
            return [_kept(ask, each) for answer in answers for each in split(answer)]

        return call

    def _timed(self, one: Prepared, work: Work[C]) -> Generation:
        start = time.perf_counter()
        answer = self.refusals.call(lambda asked: work.call(asked.llm, asked.kwargs), one)
        return replace(answer, latency_s=time.perf_counter() - start)

    async def _atimed(self, one: Prepared, work: Work[C]) -> Generation:
        start = time.perf_counter()
        answer = await self.refusals.acall(lambda asked: work.acall(asked.llm, asked.kwargs), one)
        return replace(answer, latency_s=time.perf_counter() - start)

    def _inside(self, ask: InsideAsk, work: Work[C]) -> Evidence:
        llm = self.models[ask.tier]
        # Tools and structured output are not in the messages that the model would be shown.
        if not isinstance(llm, LocalLLM) or not isinstance(work, ChatWork):
            raise elsewhere(ask, facts_of(llm).model)
        return look_inside(ask, llm.loaded(), to_messages(work.messages))

    def _calls(self, ask: Draft | Tentative | Sample | Final | Prompt, work: Work[C]) -> list[Prepared]:
        """List the calls that one ask takes."""
        llm = self.models[ask.tier]
        if isinstance(ask, Sample) and isinstance(work, ChatWork) and samples_in_one_call(llm):
            one = for_sample(llm, temperature=ask.temperature, number=ask.drawn, given=work.kwargs)
            return [replace(one, kwargs={**one.kwargs, "n": ask.n})]
        if isinstance(ask, Sample):
            numbers = range(ask.drawn, ask.drawn + ask.n)
            return [
                for_sample(llm, temperature=ask.temperature, number=number, given=work.kwargs)
                for number in numbers
            ]
        if isinstance(ask, Prompt):
            return [for_prompt(llm, top_logprobs=ask.top_logprobs, max_tokens=ask.max_tokens)]
        if isinstance(ask, (Draft, Tentative)):
            return [for_draft(llm, work.kwargs, top_logprobs=ask.top_logprobs)]
        return [Prepared(llm=llm)]


def _own_work(ask: Prompt) -> ChatWork:
    """A signal's own prompt, whatever kind of call is being routed."""
    return ChatWork(messages=from_core(ask.messages))


def _with_note(work: Work[C], ask: ModelAsk | StreamAsk) -> Work[C]:
    """The same call with what the policy has to say to the model at its end."""
    note = getattr(ask, "note", None)
    if note is None:
        return work
    one: Any = work  # every kind of work is a dataclass, which a protocol cannot say
    noted: Work[C] = replace(one, messages=[*work.messages, ChatMessage(role=MessageRole.USER, content=note)])
    return noted


def _kept(ask: ModelAsk, answer: Generation) -> Generation:
    """Raise the error that stands for an answer: a rejected draft can do with it, a final answer cannot."""
    if isinstance(ask, Final) and isinstance(answer.raw, Exception):
        raise answer.raw
    return answer


async def _together(calls: list[Coroutine[Any, Any, T]]) -> list[T]:
    """All at once; if one fails or the caller gives up, the others are cancelled."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


async def _threaded(items: Generator[C, None, None]) -> AsyncGenerator[C, None]:
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
