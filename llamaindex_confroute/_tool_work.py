"""`chat_with_tools` as a call that is routed whole."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM
from llama_index.core.tools import BaseTool

from confroute.errors import RequestError
from confroute.signals.fields import field_logprobs
from confroute.types import Generation
from llamaindex_confroute._calls import calls_in, check, portable
from llamaindex_confroute._reading import generation_of
from llamaindex_confroute._watched import awatched, watched
from llamaindex_confroute._work import answer_of, own


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolWork:
    """`chat_with_tools`; see `Work`.

    `required` is told to the provider; `expected` says that the caller can do nothing with an answer that calls no tool.
    """

    messages: Sequence[ChatMessage]
    tools: Sequence[BaseTool]
    parallel: bool = False
    required: bool = False
    expected: bool = False
    verbose: bool = False
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def extra_text(self) -> str:
        """The tools' schemas, which take their share of the window."""
        return json.dumps([tool.metadata.to_openai_tool(skip_length_check=True) for tool in self.tools])

    @property
    def tool_names(self) -> frozenset[str]:
        """Of the tools that are offered."""
        return frozenset(tool.metadata.name for tool in self.tools if tool.metadata.name)

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
            return self._judged(llm.chat(portable(self.messages, llm), **own(self.kwargs, extra)), llm)
        return self._judged(_caller(llm).chat_with_tools(**self._arguments(llm, extra)), llm)

    async def acall(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """See `Work`."""
        if self._plainly(llm):
            response = await llm.achat(portable(self.messages, llm), **own(self.kwargs, extra))
        else:
            response = await _caller(llm).achat_with_tools(**self._arguments(llm, extra))
        return self._judged(response, llm)

    def stream(self, llm: LLM, extra: dict[str, Any]) -> Generator[ChatResponse | Generation, None, None]:
        """See `Work`."""
        if self._plainly(llm):
            items = llm.stream_chat(portable(self.messages, llm), **own(self.kwargs, extra))
        else:
            items = _caller(llm).stream_chat_with_tools(**self._arguments(llm, extra))
        return watched(items, lambda last: answer_of(last, llm))

    async def astream(
        self, llm: LLM, extra: dict[str, Any]
    ) -> AsyncGenerator[ChatResponse | Generation, None]:
        """See `Work`."""
        if self._plainly(llm):
            items = await llm.astream_chat(portable(self.messages, llm), **own(self.kwargs, extra))
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
            **own(self.kwargs, extra),
        }

    def _judged(self, response: ChatResponse, llm: LLM) -> Generation:
        needed = self.required or self.expected
        found = check(calls_in(response.message), self.tools, parallel=self.parallel, required=needed)
        made = generation_of(response, model=llm.class_name(), answer=found.answer)
        called = found.answer is not None
        fields = field_logprobs(made.tokens, made.logprobs) if called else {}
        return replace(made, flaw=found.flaw, fields=fields)


def _caller(llm: LLM) -> FunctionCallingLLM:
    if not isinstance(llm, FunctionCallingLLM):
        msg = f"{llm.class_name()} cannot call tools: expected a FunctionCallingLLM, or a call without tools"
        raise RequestError(msg)
    return llm
