"""From a policy's asks to calls of the two models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Generator,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import run_in_executor

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
from confroute.errors import RequestError
from confroute.models.inside import elsewhere, look_inside
from confroute.signals.fields import field_logprobs
from confroute.types import Generation
from langchain_confroute._answers import merged
from langchain_confroute._compat import bubble_ups, first_messages
from langchain_confroute._local import to_messages
from langchain_confroute._messages import from_core, to_generation
from langchain_confroute._run import Escaped, Opened, aclose, close
from langchain_confroute._tiers import Model, TierModel, kwargs_of, without_sampling
from langchain_confroute.local import ChatLocal

TAGS: dict[type, tuple[str, ...]] = {
    # LangGraph streams no run that carries "nostream".
    Draft: ("nostream", "confroute:draft"),
    Sample: ("nostream", "confroute:sample"),
    Tentative: ("nostream", "confroute:draft"),
    Prompt: ("nostream", "confroute:prompt"),
    Final: ("confroute:final",),
}
Judge: TypeAlias = Callable[[str, AIMessage], "Judged"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What is to be compared in an answer that is more than text, and why it cannot be used."""

    answer: str | None = None
    flaw: str | None = None


@dataclass(slots=True, kw_only=True)
class ChatCalls:
    """The calls of one request, as children of the router's run."""

    tiers: Mapping[str, TierModel]
    messages: list[BaseMessage]
    opened: Opened | None
    stop: list[str] | None = None
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    judge: Judge | None = None
    unasked: bool = False  # the chunks that come now carry log-probabilities that only we asked for

    def call(self, ask: ModelAsk) -> Sequence[Generation] | Evidence:
        """What `confroute.executor.run` wants."""
        tier, start = self.tiers[ask.tier], time.perf_counter()
        if isinstance(ask, (Score, Hidden)):
            return self._inside(tier, ask)
        try:
            messages = self._samples(tier, ask) if isinstance(ask, Sample) else [self._one(tier, ask)]
        except bubble_ups() as error:
            raise Escaped(error) from error
        return self._generations(messages, start, ask)

    async def acall(self, ask: ModelAsk) -> Sequence[Generation] | Evidence:
        """What `confroute.executor.arun` wants."""
        tier, start = self.tiers[ask.tier], time.perf_counter()
        if isinstance(ask, (Score, Hidden)):
            # CPU-bound: on the event loop it would stop every other request.
            return await asyncio.to_thread(self._inside, tier, ask)
        try:
            if isinstance(ask, Sample):
                messages = await self._asamples(tier, ask)
            else:
                messages = [await self._aone(tier, ask)]
        except bubble_ups() as error:
            raise Escaped(error) from error
        return self._generations(messages, start, ask)

    def stream(self, ask: StreamAsk) -> Generator[AIMessage | Generation, None, None]:
        """What `confroute.executor.run_stream` wants."""
        start, chunks = time.perf_counter(), []
        items = self._chunks(self._streaming(ask), ask)
        try:
            for chunk in items:
                chunks.append(chunk)
                yield chunk
        except bubble_ups() as error:
            raise Escaped(error) from error
        except Exception as error:
            if chunks or not self._gives_in(ask, error):
                raise
        finally:
            close(items)
        if not chunks and isinstance(ask, Tentative):  # asked again, without log-probabilities
            answer = self._one(self.tiers[ask.tier], Draft(tier=ask.tier, top_logprobs=ask.top_logprobs))
            yield self._generation(answer, start, ask)
            return
        yield self._generation(merged(chunks), start, ask)

    async def astream(self, ask: StreamAsk) -> AsyncGenerator[AIMessage | Generation, None]:
        """What `confroute.executor.arun_stream` wants."""
        start, chunks = time.perf_counter(), []
        items = self._achunks(self._streaming(ask), ask)
        try:
            async for chunk in items:
                chunks.append(chunk)
                yield chunk
        except bubble_ups() as error:
            raise Escaped(error) from error
        except Exception as error:
            if chunks or not self._gives_in(ask, error):
                raise
        finally:
            await aclose(items)
        if not chunks and isinstance(ask, Tentative):  # asked again, without log-probabilities
            answer = await self._aone(
                self.tiers[ask.tier], Draft(tier=ask.tier, top_logprobs=ask.top_logprobs)
            )
            yield self._generation(answer, start, ask)
            return
        yield self._generation(merged(chunks), start, ask)

    def _streaming(self, ask: StreamAsk) -> Model:
        tier = self.tiers[ask.tier]
        self.unasked = isinstance(ask, Tentative) and tier.asks_logprobs
        return tier.final if isinstance(ask, Final) else tier.watched(ask.top_logprobs)

    def _gives_in(self, ask: StreamAsk, error: Exception) -> bool:
        """Whether a watched draft failed because it asked for log-probabilities: it is then not watched any more."""
        return isinstance(ask, Tentative) and self.tiers[ask.tier].ease(error)

    def _inside(self, tier: TierModel, ask: InsideAsk) -> Evidence:
        if not isinstance(tier.chat, ChatLocal):
            raise elsewhere(ask, tier.model_name)
        return look_inside(ask, tier.chat.loaded(), to_messages(self.messages))

    def _one(self, tier: TierModel, ask: Draft | Final | Prompt) -> AIMessage:
        while True:
            try:
                return self._invoke(_asked(tier, ask), ask)
            except Exception as error:
                if isinstance(ask, Final) or not tier.ease(error):
                    raise

    async def _aone(self, tier: TierModel, ask: Draft | Final | Prompt) -> AIMessage:
        while True:
            try:
                return await self._ainvoke(tier, _asked(tier, ask), ask)
            except Exception as error:
                if isinstance(ask, Final) or not tier.ease(error):
                    raise

    def _samples(self, tier: TierModel, ask: Sample) -> list[AIMessage]:
        model, kwargs = tier.sampler(ask.temperature), without_sampling(self._kwargs(ask))
        if tier.many_at_once:
            chat, asked = _together(tier, model, ask, kwargs)
            return first_messages(chat.generate([self._given(ask)], **self._run(ask), **asked).generations)
        return model.batch([self._given(ask)] * ask.n, self._config(ask), **kwargs)

    async def _asamples(self, tier: TierModel, ask: Sample) -> list[AIMessage]:
        model, kwargs = tier.sampler(ask.temperature), without_sampling(self._kwargs(ask))
        if tier.many_at_once:
            chat, asked = _together(tier, model, ask, kwargs)
            result = await chat.agenerate([self._given(ask)], **self._run(ask), **asked)
            return first_messages(result.generations)
        return await model.abatch([self._given(ask)] * ask.n, self._config(ask), **kwargs)

    def _config(self, ask: ModelAsk | Tentative) -> RunnableConfig:
        return {} if self.opened is None else self.opened.child(*TAGS[type(ask)])

    def _run(self, ask: ModelAsk) -> dict[str, Any]:
        """The config in the form that `generate` takes."""
        config = self._config(ask)
        return {"callbacks": config.get("callbacks"), "tags": config.get("tags")}

    def _kwargs(self, ask: ModelAsk | Tentative) -> dict[str, Any]:
        if isinstance(ask, Prompt):  # a signal's prompt goes without the caller's tools and stops
            return {}
        own = self.tiers[ask.tier].settings(self.kwargs)
        # Some models refuse a `stop` at all when they have one of their own.
        return own if self.stop is None else {**own, "stop": self.stop}

    def _given(self, ask: ModelAsk | Tentative) -> list[BaseMessage]:
        if isinstance(ask, Prompt):
            return from_core(ask.messages)
        messages, note = self.tiers[ask.tier].readable(self.messages), getattr(ask, "note", None)
        return messages if note is None else [*messages, HumanMessage(note)]

    def _invoke(self, model: Model, ask: ModelAsk) -> AIMessage:
        return _message(model.invoke(self._given(ask), self._config(ask), **self._kwargs(ask)), ask)

    async def _ainvoke(self, tier: TierModel, model: Model, ask: ModelAsk) -> AIMessage:
        config = self._config(ask)
        if not tier.sync_only:
            try:
                return _message(await model.ainvoke(self._given(ask), config, **self._kwargs(ask)), ask)
            except NotImplementedError:
                # ChatHuggingFace around a local pipeline has no async form and does not fall back to a thread.
                tier.sync_only = True
        answer = await run_in_executor(config, model.invoke, self._given(ask), config, **self._kwargs(ask))
        return _message(answer, ask)

    def _chunks(self, model: Model, ask: StreamAsk) -> Iterator[AIMessage]:
        for chunk in _closing(model.stream(self._given(ask), self._config(ask), **self._kwargs(ask))):
            yield _message(chunk, ask)

    async def _achunks(self, model: Model, ask: StreamAsk) -> AsyncIterator[AIMessage]:
        items = model.astream(self._given(ask), self._config(ask), **self._kwargs(ask))
        try:
            async for chunk in items:
                yield _message(chunk, ask)
        finally:
            await aclose(items)

    def _generations(
        self, messages: Sequence[AIMessage], start: float, ask: ModelAsk
    ) -> Sequence[Generation]:
        return [self._generation(message, start, ask) for message in messages]

    def _generation(self, message: AIMessage, start: float, ask: ModelAsk | Tentative) -> Generation:
        latency_s = time.perf_counter() - start
        if self.judge is None or isinstance(ask, (Final, Prompt)):
            return to_generation(message, latency_s=latency_s)
        judged = self.judge(ask.tier, message)
        made = to_generation(message, latency_s=latency_s, answer=judged.answer, flaw=judged.flaw)
        structured = judged.answer is not None and made.tokens is not None
        return replace(made, fields=field_logprobs(made.tokens, made.logprobs)) if structured else made


def _closing(items: Iterator[Any]) -> Iterator[Any]:
    try:
        yield from items
    finally:
        close(items)


def _asked(tier: TierModel, ask: Draft | Final | Prompt) -> Model:
    """The form of a tier's model that an ask needs."""
    if isinstance(ask, Final):
        return tier.final
    if isinstance(ask, Prompt):
        return tier.prompter(ask.top_logprobs, ask.max_tokens)
    return tier.draft(ask.top_logprobs)


def _message(answer: Any, ask: ModelAsk | Tentative) -> AIMessage:
    if not isinstance(answer, AIMessage):
        msg = (
            f"{ask.tier} returned a {type(answer).__name__}: expected an AIMessage; leave the output parser out of "
            "this chain, or route between whole chains with ConfidenceRouter"
        )
        raise RequestError(msg)
    return answer


def _together(
    tier: TierModel, model: Model, ask: Sample, kwargs: Mapping[str, Any]
) -> tuple[BaseChatModel, dict[str, Any]]:
    """The chat model itself and the arguments for several samples in one call."""
    while not isinstance(model, BaseChatModel):
        model = model.bound  # type: ignore[attr-defined]  # what is no chat model here is a binding of one
    asked = {**without_sampling(kwargs_of(tier.source)), **kwargs, "n": ask.n}
    seed = getattr(tier.chat, "seed", None)
    if seed is not None:
        asked["seed"] = seed + 1 + ask.drawn  # the same seed would draw the same answers again
    return model, asked
