"""The parts of a chat model that LangChain calls, turned into calls of a router."""

from __future__ import annotations

import asyncio
import uuid
from abc import abstractmethod
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, cast

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
    Callbacks,
)
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_messages
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult, RunInfo
from langchain_core.runnables import RunnableConfig
from typing_extensions import override

from langchain_confroute._answers import as_chunk
from langchain_confroute._routing import ChatCall
from langchain_confroute._run import arun_chain, astream_chain, run_chain, stream_chain, unescaped


class RoutedChat(BaseChatModel):
    """A chat model whose own run is a chain run: its subclass says what a call does."""

    @abstractmethod
    def _call(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> ChatCall:
        """What one call does."""

    def _given(
        self, given: LanguageModelInput, stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> ChatCall:
        # The same as `_convert_input`, without a prompt value built for nothing.
        messages = convert_to_messages(given) if isinstance(given, list) else None
        return self._call(messages or self._convert_input(given).to_messages(), stop, kwargs)

    @override
    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        call = self._given(input, stop, kwargs)
        return run_chain(self, call.messages, config, call.answer)

    @override
    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        call = self._given(input, stop, kwargs)
        return await arun_chain(self, call.messages, config, call.aanswer)

    @override
    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        if self._in_one_piece(kwargs):
            yield as_chunk(self.invoke(input, config, stop=stop, **kwargs))
            return
        call = self._given(input, stop, kwargs)
        yield from stream_chain(self, call.messages, config, call.chunks)

    @override
    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: list[str] | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        if self._in_one_piece(kwargs):
            yield as_chunk(await self.ainvoke(input, config, stop=stop, **kwargs))
            return
        call = self._given(input, stop, kwargs)
        async with aclosing(astream_chain(self, call.messages, config, call.achunks)) as items:
            async for chunk in items:
                yield chunk

    def _in_one_piece(self, kwargs: Mapping[str, Any]) -> bool:
        return self.disable_streaming is True or (
            self.disable_streaming == "tool_calling" and bool(kwargs.get("tools"))
        )

    @override
    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        configs = _configs(
            len(messages), callbacks=callbacks, tags=tags, metadata=metadata, run_name=run_name, run_id=run_id
        )
        answers = [
            self.invoke(given, config, stop=stop, **kwargs)
            for given, config in zip(messages, configs, strict=True)
        ]
        return _result(answers, configs)

    @override
    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Callbacks = None,
        *,
        tags: list[str] | None = None,
        metadata: dict[str, Any] | None = None,
        run_name: str | None = None,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        configs = _configs(
            len(messages), callbacks=callbacks, tags=tags, metadata=metadata, run_name=run_name, run_id=run_id
        )
        calls = (
            self.ainvoke(given, config, stop=stop, **kwargs)
            for given, config in zip(messages, configs, strict=True)
        )
        return _result(await asyncio.gather(*calls), configs)

    # LangChain calls these four only inside a run of ours that is a model run (`stream_events(version="v3")`):
    # the two models' calls then stay without runs, or every token would count twice.

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with unescaped():
            answer = self._call(messages, stop, kwargs).answer(None)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        with unescaped():
            answer = await self._call(messages, stop, kwargs).aanswer(None)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        with unescaped():
            for chunk in self._call(messages, stop, kwargs).chunks(None):
                yield ChatGenerationChunk(message=chunk)

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        with unescaped():
            async for chunk in self._call(messages, stop, kwargs).achunks(None):
                yield ChatGenerationChunk(message=chunk)


def _configs(
    count: int,
    *,
    callbacks: Callbacks,
    tags: list[str] | None,
    metadata: dict[str, Any] | None,
    run_name: str | None,
    run_id: uuid.UUID | None,
) -> list[RunnableConfig]:
    """One config a prompt; a run id can be only one run's."""
    shared = {"callbacks": callbacks, "tags": tags, "metadata": metadata, "run_name": run_name}
    given = {name: value for name, value in shared.items() if value is not None}
    ids = [run_id if run_id is not None and index == 0 else uuid.uuid4() for index in range(count)]
    return [cast("RunnableConfig", {**given, "run_id": own}) for own in ids]


def _result(answers: Sequence[AIMessage], configs: Sequence[RunnableConfig]) -> LLMResult:
    return LLMResult(
        generations=[[ChatGeneration(message=answer)] for answer in answers],
        llm_output={},
        run=[RunInfo(run_id=cast("uuid.UUID", config.get("run_id"))) for config in configs],
    )
