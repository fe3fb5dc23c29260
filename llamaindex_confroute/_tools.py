"""Tool calling: `chat_with_tools` goes whole to a child, which puts the tools into its provider's format."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    MessageRole,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.tools import BaseTool
from llama_index_instrumentation import get_dispatcher

from confroute.errors import RequestError
from confroute.signals.fields import field_logprobs
from confroute.types import Generation
from llamaindex_confroute import _chunks
from llamaindex_confroute._calls import calls_in, check, portable, selections
from llamaindex_confroute._chat import ChatRouter
from llamaindex_confroute._messages import checked
from llamaindex_confroute._overrides import overrides
from llamaindex_confroute._reading import generation_of
from llamaindex_confroute._routing import Routing
from llamaindex_confroute._watched import awatched, watched
from llamaindex_confroute._work import answer_of

_dispatcher = get_dispatcher(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolWork:
    """`chat_with_tools`; see `Work`."""

    messages: Sequence[ChatMessage]
    tools: Sequence[BaseTool]
    parallel: bool = False
    required: bool = False
    verbose: bool = False
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def extra_text(self) -> str:
        """The tools' schemas, which take their share of the window."""
        return json.dumps([tool.metadata.to_openai_tool(skip_length_check=True) for tool in self.tools])

    @property
    def needs_tools(self) -> bool:
        """False for an agent without tools, which any model can serve."""
        return bool(self.tools)

    @property
    def whole(self) -> bool:
        """Half a call cannot be checked."""
        return bool(self.tools)

    def call(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """See `Work`."""
        if self._plainly(llm):
            return self._judged(llm.chat(portable(self.messages, llm), **{**self.kwargs, **extra}), llm)
        return self._judged(_caller(llm).chat_with_tools(**self._arguments(llm, extra)), llm)

    async def acall(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """See `Work`."""
        if self._plainly(llm):
            response = await llm.achat(portable(self.messages, llm), **{**self.kwargs, **extra})
        else:
            response = await _caller(llm).achat_with_tools(**self._arguments(llm, extra))
        return self._judged(response, llm)

    def stream(self, llm: LLM, extra: dict[str, Any]) -> Generator[ChatResponse | Generation, None, None]:
        """See `Work`."""
        if self._plainly(llm):
            items = llm.stream_chat(portable(self.messages, llm), **{**self.kwargs, **extra})
        else:
            items = _caller(llm).stream_chat_with_tools(**self._arguments(llm, extra))
        return watched(items, lambda last: answer_of(last, llm))

    async def astream(
        self, llm: LLM, extra: dict[str, Any]
    ) -> AsyncGenerator[ChatResponse | Generation, None]:
        """See `Work`."""
        if self._plainly(llm):
            items = await llm.astream_chat(portable(self.messages, llm), **{**self.kwargs, **extra})
        else:
            items = await _caller(llm).astream_chat_with_tools(**self._arguments(llm, extra))
        async with aclosing(awatched(items, lambda last: answer_of(last, llm))) as watching:
            async for item in watching:
                yield item

    def _plainly(self, llm: LLM) -> bool:
        return not self.tools and not isinstance(llm, FunctionCallingLLM)

    def _arguments(self, llm: LLM, extra: Mapping[str, Any]) -> dict[str, Any]:
        # The user's message stands in the history, and the history is a copy: providers append to the list they get.
        return {
            "tools": list(self.tools),
            "chat_history": portable(self.messages, llm),
            "verbose": self.verbose,
            "allow_parallel_tool_calls": self.parallel,
            "tool_required": self.required,
            **self.kwargs,
            **extra,
        }

    def _judged(self, response: ChatResponse, llm: LLM) -> Generation:
        found = check(calls_in(response.message), self.tools, parallel=self.parallel, required=self.required)
        made = generation_of(response, model=llm.class_name(), answer=found.answer)
        called = found.answer is not None
        fields = field_logprobs(made.tokens, made.logprobs) if called else {}
        return replace(made, flaw=found.flaw, fields=fields)


class ToolRouter(ChatRouter):
    """The four forms of `chat_with_tools`; see `ConfRouteLLM`."""

    @_dispatcher.span
    def chat_with_tools(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Answer, or ask for tools to be called; an edge's calls count only if they could be made."""
        flags = (verbose, allow_parallel_tool_calls, tool_required)
        routing, work = self._tool_work(tools, user_msg, chat_history, flags, kwargs)
        return _chunks.chat_response(routing.run(work))

    @_dispatcher.span
    async def achat_with_tools(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Async form of `chat_with_tools`."""
        flags = (verbose, allow_parallel_tool_calls, tool_required)
        routing, work = self._tool_work(tools, user_msg, chat_history, flags, kwargs)
        return _chunks.chat_response(await routing.arun(work))

    @_dispatcher.span
    def stream_chat_with_tools(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """`chat_with_tools` in chunks; of an edge's answer, calls stand on the last one only."""
        flags = (verbose, allow_parallel_tool_calls, tool_required)
        routing, work = self._tool_work(tools, user_msg, chat_history, flags, kwargs)
        return _chunks.chat_chunks(routing.stream(work))

    @_dispatcher.span
    async def astream_chat_with_tools(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """Async form of `stream_chat_with_tools`."""
        flags = (verbose, allow_parallel_tool_calls, tool_required)
        routing, work = self._tool_work(tools, user_msg, chat_history, flags, kwargs)
        return _chunks.achat_chunks(routing.astream(work))

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """Read the calls of a response, as the model that wrote it does.

        Raises
        ------
        ValueError
            There are none and `error_on_no_tool_call` is set.
        """
        decision = response.additional_kwargs.get(_chunks.KEY)
        child = {"edge": self.edge, "cloud": self.cloud}.get(decision["route"]) if decision else None
        if child is not None and isinstance(child, FunctionCallingLLM) and self._facts(child).calls_functions:
            return child.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_no_tool_call)
        # A chunk of a stream that still runs carries no decision yet.
        found = selections(response.message)
        if not found and error_on_no_tool_call:
            msg = (
                "the response calls no tool: expected at least one call, or pass error_on_no_tool_call=False"
            )
            raise ValueError(msg)
        return found

    def _tool_work(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None,
        chat_history: Sequence[ChatMessage] | None,
        flags: tuple[bool, bool, bool],
        kwargs: Mapping[str, Any],
    ) -> tuple[Routing, ToolWork]:
        given = overrides(kwargs)
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        verbose, parallel, required = flags
        work = ToolWork(
            messages=checked([*(chat_history or ()), *([user_msg] if user_msg is not None else ())]),
            tools=tuple(tools),
            parallel=parallel,
            required=required,
            verbose=verbose,
            kwargs=given.kwargs,
        )
        return self._routing(work, given), work


def _caller(llm: LLM) -> FunctionCallingLLM:
    if not isinstance(llm, FunctionCallingLLM):
        msg = f"{llm.class_name()} cannot call tools: expected a FunctionCallingLLM, or a call without tools"
        raise RequestError(msg)
    return llm
