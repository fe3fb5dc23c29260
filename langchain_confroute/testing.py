"""A chat model for tests: it says what you scripted, with the log-probabilities, delays and faults you scripted."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import Field, SkipValidation

from confroute.models.provider_answers import logprobs_content
from confroute.testing import Reply, ScriptedModel, stream_tokens, token_at
from confroute.types import Generation, Usage
from langchain_confroute.compat import AsyncManager, Manager, Stop
from langchain_confroute.messages import to_core

__all__ = ["ScriptedChat"]


class ScriptedChat(BaseChatModel):
    """A `confroute.testing.ScriptedModel` behind LangChain's interface, sync and async, whole and in chunks.

    With tools bound it calls the chosen one (or the first), with arguments made up from its schema and the numbers
    and quoted words of the prompt; once the tools have answered it answers with its text.

    Attributes
    ----------
    script : ScriptedModel
        What it says and how. Shared by copies, so `script.calls` tells what any of them was asked.
    model : str or None
        Its name; the script's if not given.
    logprobs : bool or None
        Whether answers carry the script's log-probabilities, in OpenAI's shape.
    rejects_logprobs : bool
        Fail when they are asked for, as many providers do.
    streams_inside : bool
        Report tokens to handlers while a whole answer is made, whatever `disable_streaming` says, as ChatOllama does.
    calls : sequence of {"name", "args"} or None
        Tool calls to make instead of those made up from the schema; a function gets the temperature.
    seen : list of dict
        Messages, stop and further arguments of every call.

    Examples
    --------
    >>> ScriptedChat.of("Paris").invoke("Capital of France?").text
    'Paris'
    """

    samples_in_one_call: ClassVar[bool] = False

    script: SkipValidation[ScriptedModel] = Field(default_factory=ScriptedModel)
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    seed: int | None = None
    timeout: float | None = None
    max_retries: int | None = 0
    api_key: str | None = None
    streaming: bool = False
    logprobs: bool | None = None
    top_logprobs: int | None = None
    rejects_logprobs: bool = False
    streams_inside: bool = False
    calls: Callable[[float | None], Sequence[Any]] | Sequence[Mapping[str, Any]] | None = None
    seen: list[dict[str, Any]] = Field(default_factory=list, exclude=True)

    @classmethod
    def of(
        cls, *texts: str, name: str = "scripted", samples: Sequence[Reply | str] = (), **reply: Any
    ) -> ScriptedChat:
        """A model that gives these texts in turn; `reply` are further arguments of `confroute.testing.Reply`."""
        replies = [Reply(text=text, **reply) for text in texts]
        return cls(script=ScriptedModel(replies, samples=samples, name=name), model=name)

    @property
    def name_in_records(self) -> str:
        """What it calls itself in response metadata."""
        return self.model or self.script.name

    @property
    def _llm_type(self) -> str:
        return "scripted"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = ("temperature", "max_tokens", "stop", "seed", "logprobs", "top_logprobs")
        return {"model": self.name_in_records, **{name: getattr(self, name) for name in names}}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools in OpenAI's form."""
        chosen = {} if tool_choice is None else {"tool_choice": tool_choice}
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **chosen, **kwargs)

    def _reply(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> tuple[Reply, list[dict[str, Any]], str]:
        self.seen.append({"messages": messages, "stop": stop, **kwargs})
        if self.rejects_logprobs and kwargs.get("logprobs", self.logprobs):
            msg = "400: logprobs is not supported by this model"
            raise ValueError(msg)
        temperature = kwargs.get("temperature", self.temperature)
        prompt = "\n".join(f"{message.role}: {message.text}" for message in to_core(messages))
        reply = self.script.reply(prompt, temperature=temperature)
        calls = self._calls(messages, kwargs, prompt, temperature)
        if calls:
            arguments = json.dumps([call["args"] for call in calls], ensure_ascii=False)
            reply = replace(reply, text=arguments, finish="tool_calls")
        for end in stop or self.stop or ():
            reply = replace(reply, text=reply.text.split(end)[0])
        return reply, calls, prompt

    def _calls(
        self,
        messages: Sequence[BaseMessage],
        kwargs: Mapping[str, Any],
        prompt: str,
        temperature: float | None,
    ) -> list[dict[str, Any]]:
        tools = kwargs.get("tools")
        if not tools or isinstance(messages[-1], ToolMessage):
            return []
        made: Sequence[Any] | None
        made = self.calls(temperature) if callable(self.calls) else self.calls
        if made is None:
            function = _chosen(tools, kwargs.get("tool_choice"))
            made = [{"name": function["name"], "args": _filled(function.get("parameters") or {}, prompt)}]
        ids = (f"call_{len(self.seen)}_{index}" for index in range(len(made)))
        return [{"type": "tool_call", **call, "id": own} for call, own in zip(made, ids, strict=True)]

    def _message(
        self, generation: Generation, calls: list[dict[str, Any]], kwargs: Mapping[str, Any]
    ) -> AIMessage:
        metadata = {**self._metadata(generation, kwargs), **self._logprobs(generation, kwargs)}
        return AIMessage(
            content="" if calls else generation.text,
            tool_calls=calls,
            response_metadata=metadata,
            usage_metadata=_usage(generation.usage or Usage()),
        )

    def _metadata(self, generation: Generation, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        name = kwargs.get("model") or self.name_in_records
        return {"model_name": name, "model_provider": "scripted", "finish_reason": _reason(generation)}

    def _logprobs(self, generation: Generation, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if not kwargs.get("logprobs", self.logprobs) or generation.logprobs is None:
            return {}
        tokens, values = generation.tokens or (), generation.logprobs
        padded = [*tokens, *[""] * (len(values) - len(tokens))][: len(values)]
        tops = generation.top_logprobs if kwargs.get("top_logprobs", self.top_logprobs) else None
        return {"logprobs": {"content": logprobs_content(padded, values, tops), "refusal": None}}

    def _generate(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: Manager = None, **kwargs: Any
    ) -> ChatResult:
        answers = []
        for _ in range(kwargs.get("n") or 1):
            reply, calls, prompt = self._reply(messages, stop, kwargs)
            time.sleep(reply.latency_s)
            if self.streams_inside and run_manager is not None:
                for chunk in self._chunks(reply, calls, prompt, kwargs):
                    run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            answers.append(self._answered(reply, calls, prompt, kwargs))
        return ChatResult(generations=answers)

    async def _agenerate(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: AsyncManager = None, **kwargs: Any
    ) -> ChatResult:
        answers = []
        for _ in range(kwargs.get("n") or 1):
            reply, calls, prompt = self._reply(messages, stop, kwargs)
            await asyncio.sleep(reply.latency_s)
            if self.streams_inside and run_manager is not None:
                for chunk in self._chunks(reply, calls, prompt, kwargs):
                    await run_manager.on_llm_new_token(chunk.text, chunk=chunk)
            answers.append(self._answered(reply, calls, prompt, kwargs))
        return ChatResult(generations=answers)

    def _answered(
        self, reply: Reply, calls: list[dict[str, Any]], prompt: str, kwargs: Mapping[str, Any]
    ) -> ChatGeneration:
        if reply.fault is not None:
            raise reply.fault
        generation = reply.generation(prompt, model=self.name_in_records)
        return ChatGeneration(message=self._message(generation, calls, kwargs))

    def _stream(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: Manager = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        reply, calls, prompt = self._reply(messages, stop, kwargs)
        time.sleep(reply.latency_s)
        yield from self._chunks(reply, calls, prompt, kwargs)

    async def _astream(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: AsyncManager = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        reply, calls, prompt = self._reply(messages, stop, kwargs)
        await asyncio.sleep(reply.latency_s)
        for chunk in self._chunks(reply, calls, prompt, kwargs):
            yield chunk

    def _chunks(
        self, reply: Reply, calls: list[dict[str, Any]], prompt: str, kwargs: Mapping[str, Any]
    ) -> Iterator[ChatGenerationChunk]:
        generation = reply.generation(prompt, model=self.name_in_records)
        for position, token in enumerate(stream_tokens(reply)):
            content = "" if calls else token
            metadata = self._logprobs(token_at(generation, position), kwargs)
            message = AIMessageChunk(content=content, response_metadata=metadata)
            yield ChatGenerationChunk(message=message)
        yield ChatGenerationChunk(message=self._last(generation, calls, kwargs))

    def _last(
        self, generation: Generation, calls: list[dict[str, Any]], kwargs: Mapping[str, Any]
    ) -> AIMessageChunk:
        made = [
            tool_call_chunk(name=c["name"], args=json.dumps(c["args"]), id=c["id"], index=index)
            for index, c in enumerate(calls)
        ]
        return AIMessageChunk(
            content="",
            tool_call_chunks=made,
            response_metadata=self._metadata(generation, kwargs),
            usage_metadata=_usage(generation.usage or Usage()),
            chunk_position="last",
        )


def _reason(generation: Generation) -> str | None:
    """What a provider says of the end; nothing where it does not say."""
    return None if generation.finish == "unknown" else generation.finish


def _usage(usage: Usage) -> UsageMetadata:
    metadata = UsageMetadata(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, total_tokens=usage.total_tokens
    )
    if usage.cached_tokens or usage.cache_write_tokens:
        metadata["input_token_details"] = InputTokenDetails(
            cache_read=usage.cached_tokens, cache_creation=usage.cache_write_tokens
        )
    if usage.reasoning_tokens:
        metadata["output_token_details"] = {"reasoning": usage.reasoning_tokens}
    return metadata


def _chosen(tools: Sequence[Mapping[str, Any]], choice: Any) -> Mapping[str, Any]:
    functions: list[Mapping[str, Any]] = [tool["function"] for tool in tools]
    name = choice["function"]["name"] if isinstance(choice, Mapping) else choice
    return next((function for function in functions if function["name"] == name), functions[0])


def _filled(schema: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """Arguments that fit a schema; what is optional is left out."""
    definitions = schema.get("$defs", {})
    required = schema.get("required", list(schema.get("properties", {})))
    return {name: _value(schema["properties"][name], prompt, definitions) for name in required}


def _value(schema: Mapping[str, Any], prompt: str, definitions: Mapping[str, Any]) -> Any:
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[-1]]
    if "enum" in schema or "const" in schema:
        return schema["enum"][0] if "enum" in schema else schema["const"]
    if "anyOf" in schema:
        return _value(schema["anyOf"][0], prompt, definitions)
    numbers = re.findall(r"\d+", prompt)
    quoted = re.findall(r"['\"“]([^'\"”]+)['\"”]", prompt)
    kind = schema.get("type", "string")
    if kind == "array":
        return [_value(schema.get("items", {}), prompt, definitions)]
    if kind == "object":
        return _filled({"$defs": definitions, **schema}, prompt)
    plain: dict[str, Any] = {
        "integer": int(numbers[-1]) if numbers else 1,
        "number": float(numbers[-1]) if numbers else 1.0,
        "boolean": True,
        "null": None,
    }
    return plain.get(kind, quoted[-1] if quoted else "text")
