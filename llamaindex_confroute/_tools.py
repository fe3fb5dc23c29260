"""Tool calling: `chat_with_tools` goes whole to a child, which puts the tools into its provider's format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    MessageRole,
)
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import BaseTool
from llama_index_instrumentation import get_dispatcher

from llamaindex_confroute import _chunks
from llamaindex_confroute._calls import selections
from llamaindex_confroute._chat import ChatRouter
from llamaindex_confroute._compat import unspanned
from llamaindex_confroute._messages import checked
from llamaindex_confroute._overrides import overrides
from llamaindex_confroute._routing import Routing
from llamaindex_confroute._tool_work import ToolWork

if TYPE_CHECKING:
    from llama_index.core.chat_engine.types import AgentChatResponse

_dispatcher = get_dispatcher(__name__)
# From `predict_and_call` through the host to `chat_with_tools`.
_EXPECTED = "confroute_calls_expected"


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

    @unspanned
    def predict_and_call(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        error_on_no_tool_call: bool = True,
        error_on_tool_error: bool = False,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Make the calls of an answer; where the host would raise for want of a call, an edge's answer without one is replaced."""
        flags = (verbose, allow_parallel_tool_calls, error_on_no_tool_call, error_on_tool_error)
        expected = {**kwargs, **self._expected(error_on_no_tool_call)}
        return super().predict_and_call(tools, user_msg, chat_history, *flags, **expected)

    @unspanned
    async def apredict_and_call(  # noqa: PLR0917  the host's signature
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        error_on_no_tool_call: bool = True,
        error_on_tool_error: bool = False,
        **kwargs: Any,
    ) -> AgentChatResponse:
        """Async form of `predict_and_call`."""
        flags = (verbose, allow_parallel_tool_calls, error_on_no_tool_call, error_on_tool_error)
        expected = {**kwargs, **self._expected(error_on_no_tool_call)}
        return await super().apredict_and_call(tools, user_msg, chat_history, *flags, **expected)

    def _expected(self, error_on_no_tool_call: bool) -> dict[str, Any]:
        # Without such a model the host takes a way that does not lead to `chat_with_tools`.
        wanted = error_on_no_tool_call and self.metadata.is_function_calling_model
        return {_EXPECTED: True} if wanted else {}

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
        expected = bool(given.kwargs.pop(_EXPECTED, False))
        if isinstance(user_msg, str):
            user_msg = ChatMessage(role=MessageRole.USER, content=user_msg)
        verbose, parallel, required = flags
        work = ToolWork(
            messages=checked([*(chat_history or ()), *([user_msg] if user_msg is not None else ())]),
            tools=tuple(tools or ()),  # OpenAI's integration takes None
            parallel=parallel,
            required=required,
            expected=expected,
            verbose=verbose,
            kwargs=given.kwargs,
        )
        return self._routing(work, given), work
