"""A LlamaIndex LLM for tests: it says what a `confroute.testing.ScriptedModel` was given to say."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from pydantic_core import core_schema

from confroute.models import chat_format
from confroute.testing import Reply, ScriptedModel, stream_tokens, token_at
from confroute.types import Generation
from llamaindex_confroute.messages import selections, to_core, user_turn
from llamaindex_confroute.responses import to_acompletions, to_completion, to_completions

if TYPE_CHECKING:
    from llama_index.core.tools import BaseTool

__all__ = ["ScriptedLLM", "ToolReply"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolReply(Reply):
    """A reply that calls tools.

    Attributes
    ----------
    calls : tuple of (str, mapping or str)
        Name and arguments of each call; a string is passed on as it is, well-formed or not.

    Examples
    --------
    >>> ToolReply(calls=(("add", {"a": 1, "b": 2}),)).calls[0][0]
    'add'
    """

    calls: tuple[tuple[str, Mapping[str, Any] | str], ...] = ()


class _AsItIs:
    """Checks the class and no more: pydantic would look into the dataclass and fail at its private fields."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> core_schema.CoreSchema:
        return core_schema.is_instance_schema(ScriptedModel)


class ScriptedLLM(FunctionCallingLLM):
    """A function-calling LLM over a `ScriptedModel`, in the shapes of the OpenAI integration.

    Parameters
    ----------
    model : ScriptedModel
        What it says. Its log-probabilities are returned when they are asked for (`logprobs=True`, as a field or in
        the call), its usage always, both in `raw`. A streamed reply's fault is raised after `fault_after` words.
    temperature : float
        As a field or in the call; above 0 the model's samples are given.
    blocking : bool
        Async calls block the event loop, as those of `CustomLLM` do.

    Examples
    --------
    >>> llm = ScriptedLLM(model=ScriptedModel(["Paris"]))
    >>> llm.complete("Capital of France?").text
    'Paris'
    """

    # Samples come in the order of the script.
    thread_safe: ClassVar[bool] = False

    model: Annotated[ScriptedModel, _AsItIs] = Field(exclude=True)
    temperature: float = 0.0
    logprobs: bool | None = None
    top_logprobs: int = 0
    context_window: int = 8192
    num_output: int = 256
    is_function_calling_model: bool = True
    blocking: bool = False

    _open: list[int] = PrivateAttr(default_factory=lambda: [0])

    @classmethod
    def class_name(cls) -> str:
        """Stable name of this class."""
        return "scripted_llm"

    @property
    def metadata(self) -> LLMMetadata:
        """As the fields say."""
        return LLMMetadata(
            context_window=self.context_window,
            num_output=self.num_output,
            is_chat_model=True,
            is_function_calling_model=self.is_function_calling_model,
            model_name=self.model.name,
        )

    @property
    def open_streams(self) -> int:
        """Streams that were begun and neither ended nor closed."""
        return self._open[0]

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Say the next reply."""
        reply = self._reply(messages, kwargs)
        time.sleep(reply.latency_s)
        return self._response(reply, messages, kwargs)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """Say the next reply."""
        reply = self._reply(messages, kwargs)
        await self._wait(reply)
        return self._response(reply, messages, kwargs)

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """Say the next reply word by word."""

        def words() -> ChatResponseGen:
            reply = self._reply(messages, kwargs)
            time.sleep(reply.latency_s)
            yield from self._words(reply, messages, kwargs)

        return words()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Say the next reply word by word."""

        async def words() -> AsyncGenerator[ChatResponse, None]:
            reply = self._reply(messages, kwargs)
            await self._wait(reply)
            for chunk in self._words(reply, messages, kwargs):
                yield chunk

        return words()

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Say the next reply."""
        return to_completion(self.chat(user_turn(prompt), **kwargs))

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Say the next reply."""
        return to_completion(await self.achat(user_turn(prompt), **kwargs))

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Say the next reply word by word."""
        return to_completions(self.stream_chat(user_turn(prompt), **kwargs))

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """Say the next reply word by word."""
        return to_acompletions(await self.astream_chat(user_turn(prompt), **kwargs))

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Return the scripted calls; arguments that are no JSON object count as none, as in the OpenAI integration."""
        found = selections(response.message)
        if not found and error_on_no_tool_call:
            msg = "expected at least one tool call, but got 0"
            raise ValueError(msg)
        return found

    def _prepare_chat_with_tools(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        # Appending to the caller's list is what the OpenAI and Ollama integrations do.
        messages = chat_history or []
        if user_msg is not None:
            messages.append(user_turn(user_msg)[0] if isinstance(user_msg, str) else user_msg)
        return {
            "messages": messages,
            "tools": [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools or ()],
            **kwargs,
        }

    def _reply(self, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]) -> Reply:
        prompt = "\n".join(f"{message.role}: {message.text}" for message in to_core(messages))
        return self.model.reply(prompt, temperature=kwargs.get("temperature", self.temperature))

    async def _wait(self, reply: Reply) -> None:
        if self.blocking:
            time.sleep(reply.latency_s)
        else:
            await asyncio.sleep(reply.latency_s)

    def _response(
        self, reply: Reply, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]
    ) -> ChatResponse:
        if reply.fault is not None:
            raise reply.fault
        said = self._said(reply, messages)
        choice = {
            "finish_reason": None if said.finish == "unknown" else said.finish,
            **self._logprobs(said, kwargs),
        }
        return ChatResponse(message=_message(reply, said.text), raw=self._raw(choice, said))

    def _logprobs(self, said: Generation, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        if not kwargs.get("logprobs", self.logprobs) or said.logprobs is None:
            return {}
        pairs = zip(said.tokens or ("",) * len(said.logprobs), said.logprobs, strict=False)
        content: list[dict[str, Any]] = [{"token": token, "logprob": value} for token, value in pairs]
        if kwargs.get("top_logprobs", self.top_logprobs) and said.top_logprobs is not None:
            for one, top in zip(content, said.top_logprobs, strict=False):
                one["top_logprobs"] = [{"token": token, "logprob": value} for token, value in top]
        return {"logprobs": {"content": content}}

    def _words(
        self, reply: Reply, messages: Sequence[ChatMessage], kwargs: Mapping[str, Any]
    ) -> Generator[ChatResponse, None, None]:
        said = self._said(reply, messages)
        self._open[0] += 1
        try:
            text = ""
            for position, word in enumerate(stream_tokens(reply)):
                text += word
                message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
                choice = {"finish_reason": None, **self._logprobs(token_at(said, position), kwargs)}
                yield ChatResponse(message=message, delta=word, raw=self._raw(choice, None))
            end = self._raw({"finish_reason": None if said.finish == "unknown" else said.finish}, said)
            yield ChatResponse(message=_message(reply, text), delta="", raw=end)
        finally:
            self._open[0] -= 1

    def _said(self, reply: Reply, messages: Sequence[ChatMessage]) -> Generation:
        prompt = "\n".join(f"{message.role}: {message.text}" for message in to_core(messages))
        return reply.generation(prompt, model=self.model.name)

    def _raw(self, choice: dict[str, Any], said: Generation | None) -> dict[str, Any]:
        usage = said.usage if said else None
        return {
            "model": self.model.name,
            "choices": [choice],
            "usage": None if usage is None else chat_format.usage_of(usage),
        }


def _message(reply: Reply, text: str) -> ChatMessage:
    calls = reply.calls if isinstance(reply, ToolReply) else ()
    blocks: list[TextBlock | ToolCallBlock] = [TextBlock(text=text)] if text or not calls else []
    for position, (name, arguments) in enumerate(calls):
        given = arguments if isinstance(arguments, str) else dict(arguments)
        blocks.append(ToolCallBlock(tool_call_id=f"call_{position}", tool_name=name, tool_kwargs=given))
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks)
