"""The kinds of calls that are routed whole: what each does with one child model."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.llm import LLM

from confroute.types import Generation
from llamaindex_confroute._calls import calls_in, portable
from llamaindex_confroute._reading import generation_of
from llamaindex_confroute._watched import awatched, watched

C_co = TypeVar("C_co", covariant=True)


class Work(Protocol[C_co]):
    """One call, to be made with whichever model the policy asks for.

    Attributes
    ----------
    messages : sequence of ChatMessage
        What the policy and its rules see.
    kwargs : dict
        The caller's own keyword arguments.
    extra_text : str
        What is sent beside the messages, for the estimate of the prompt's length.
    needs_tools : bool
    whole : bool
        Whether an answer can be judged only when it is whole.
    """

    @property
    def messages(self) -> Sequence[ChatMessage]: ...

    @property
    def kwargs(self) -> dict[str, Any]: ...

    @property
    def extra_text(self) -> str: ...

    @property
    def needs_tools(self) -> bool: ...

    @property
    def tool_names(self) -> frozenset[str]: ...

    @property
    def whole(self) -> bool: ...

    def call(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """Make the call with `llm`; `extra` wins over the caller's keyword arguments."""
        ...

    async def acall(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """Async form of `call`."""
        ...

    def stream(self, llm: LLM, extra: dict[str, Any]) -> Generator[C_co | Generation, None, None]:
        """Yield the model's own chunks as they come, then the whole answer; `extra` as in `call`."""
        ...

    def astream(self, llm: LLM, extra: dict[str, Any]) -> AsyncGenerator[C_co | Generation, None]:
        """Async form of `stream`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatWork:
    """`chat`, and everything that comes down to it."""

    messages: Sequence[ChatMessage]
    kwargs: dict[str, Any] = field(default_factory=dict)
    extra_text: str = ""
    needs_tools: bool = False
    tool_names: frozenset[str] = frozenset()

    @property
    def whole(self) -> bool:
        """True with tools in a provider's own form: the answer may be a call."""
        return bool(self.kwargs.get("tools"))

    def call(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """See `Work`."""
        response = llm.chat(portable(self.messages, llm), **own(self.kwargs, extra))
        return answer_of(response, llm)

    async def acall(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """See `Work`."""
        response = await llm.achat(portable(self.messages, llm), **own(self.kwargs, extra))
        return answer_of(response, llm)

    def stream(self, llm: LLM, extra: dict[str, Any]) -> Generator[ChatResponse | Generation, None, None]:
        """See `Work`."""
        items = llm.stream_chat(portable(self.messages, llm), **own(self.kwargs, extra))
        return watched(items, lambda last: answer_of(last, llm))

    async def astream(
        self, llm: LLM, extra: dict[str, Any]
    ) -> AsyncGenerator[ChatResponse | Generation, None]:
        """See `Work`."""
        items = await llm.astream_chat(portable(self.messages, llm), **own(self.kwargs, extra))
        async with aclosing(awatched(items, lambda last: answer_of(last, llm))) as watching:
            async for item in watching:
                yield item


def own(kwargs: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of one call of a model, containers copied: providers write into what they are given."""
    return {**{name: _copied(value) for name, value in kwargs.items()}, **extra}


def _copied(value: Any) -> Any:
    if type(value) is dict:
        return {name: _copied(inner) for name, inner in value.items()}
    return [_copied(inner) for inner in value] if type(value) is list else value


def answer_of(response: ChatResponse, llm: LLM) -> Generation:
    """Return a chat's response as the core sees it."""
    # Tools may come in the keyword arguments of a provider: calls are an answer, though the text is empty.
    calls = [{"name": call.name, "arguments": call.arguments} for call in calls_in(response.message)]
    answer = json.dumps(calls, sort_keys=True, default=str) if calls else None
    return generation_of(response, model=llm.class_name(), answer=answer)
