"""The same calls without runs of their own, for the hooks that LangChain calls inside the router's own model run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from langchain_core.messages import AIMessage
from langchain_core.runnables import RunnableConfig

from confroute.asks import ModelAsk, Prompt, Sample, StreamAsk, Tentative
from langchain_confroute import _compat
from langchain_confroute._calls import ChatCalls
from langchain_confroute._tiers import Model, TierModel, chat_of, kwargs_of, without_sampling


class SilentCalls(ChatCalls):
    """Calls that no handler sees: `stream_events(version="v3")` reports the router's own run, and would count twice."""

    __slots__ = ()

    def _config(self, ask: ModelAsk | Tentative) -> RunnableConfig:
        return {"callbacks": []}

    def _bound(self, model: Model, ask: ModelAsk | Tentative) -> dict[str, Any]:
        own = {} if isinstance(ask, Prompt) else self.tiers[ask.tier].settings(self.kwargs)
        given = without_sampling(own) if isinstance(ask, Sample) else own
        return {name: value for name, value in {**kwargs_of(model), **given}.items() if name != "stop"}

    def _stop(self, model: Model, ask: ModelAsk | Tentative) -> list[str] | None:
        own = kwargs_of(model).get("stop")
        return own if self.stop is None or isinstance(ask, Prompt) else self.stop

    def _invoke(self, model: Model, ask: ModelAsk) -> AIMessage:
        chat = chat_of(model)
        if chat is None:
            return ChatCalls._invoke(self, model, ask)
        return _compat.silent_generate(
            chat, self._given(ask), self._stop(model, ask), self._bound(model, ask)
        )

    async def _ainvoke(self, tier: TierModel, model: Model, ask: ModelAsk) -> AIMessage:
        chat = chat_of(model)
        if chat is None:
            return await ChatCalls._ainvoke(self, tier, model, ask)
        return await _compat.asilent_generate(
            chat, self._given(ask), self._stop(model, ask), self._bound(model, ask)
        )

    def _samples(self, tier: TierModel, ask: Sample) -> list[AIMessage]:
        model = tier.sampler(ask.temperature)
        return [self._invoke(model, ask) for _ in range(ask.n)]

    async def _asamples(self, tier: TierModel, ask: Sample) -> list[AIMessage]:
        model = tier.sampler(ask.temperature)
        return [await self._ainvoke(tier, model, ask) for _ in range(ask.n)]

    def _chunks(self, model: Model, ask: StreamAsk) -> Iterator[AIMessage]:
        chat = chat_of(model)
        if chat is None:
            return ChatCalls._chunks(self, model, ask)
        return _compat.silent_stream(chat, self._given(ask), self._stop(model, ask), self._bound(model, ask))

    def _achunks(self, model: Model, ask: StreamAsk) -> AsyncIterator[AIMessage]:
        chat = chat_of(model)
        if chat is None:
            return ChatCalls._achunks(self, model, ask)
        return _compat.asilent_stream(chat, self._given(ask), self._stop(model, ask), self._bound(model, ask))
