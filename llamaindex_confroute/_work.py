"""The kinds of calls that are routed whole: what each does with one child model."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.llm import LLM

from confroute.types import Generation, Usage
from llamaindex_confroute._calls import calls_in, portable
from llamaindex_confroute._reading import generation_of, usage_of

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
    """

    @property
    def messages(self) -> Sequence[ChatMessage]: ...

    @property
    def kwargs(self) -> dict[str, Any]: ...

    @property
    def extra_text(self) -> str: ...

    @property
    def needs_tools(self) -> bool: ...

    def call(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """Make the call with `llm`; `extra` wins over the caller's keyword arguments."""
        ...

    async def acall(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """Async form of `call`."""
        ...

    def stream(self, llm: LLM) -> Generator[C_co | Generation, None, None]:
        """Yield the model's own chunks as they come, then the whole answer."""
        ...

    def astream(self, llm: LLM) -> AsyncGenerator[C_co | Generation, None]:
        """Async form of `stream`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatWork:
    """`chat`, and everything that comes down to it."""

    messages: Sequence[ChatMessage]
    kwargs: dict[str, Any] = field(default_factory=dict)
    extra_text: str = ""
    needs_tools: bool = False

    def call(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """See `Work`."""
        response = llm.chat(portable(self.messages, llm), **{**self.kwargs, **extra})
        return _answer(response, llm)

    async def acall(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """See `Work`."""
        response = await llm.achat(portable(self.messages, llm), **{**self.kwargs, **extra})
        return _answer(response, llm)

    def stream(self, llm: LLM) -> Generator[ChatResponse | Generation, None, None]:
        """See `Work`."""
        return watched(llm.stream_chat(portable(self.messages, llm), **self.kwargs), llm)

    async def astream(self, llm: LLM) -> AsyncGenerator[ChatResponse | Generation, None]:
        """See `Work`."""
        items = await llm.astream_chat(portable(self.messages, llm), **self.kwargs)
        async with aclosing(awatched(items, llm)) as watching:
            async for item in watching:
                yield item


def _answer(response: ChatResponse, llm: LLM) -> Generation:
    # Tools may come in the keyword arguments of a provider: calls are an answer, though the text is empty.
    calls = [{"name": call.name, "arguments": call.arguments} for call in calls_in(response.message)]
    answer = json.dumps(calls, sort_keys=True, default=str) if calls else None
    return generation_of(response, model=llm.class_name(), answer=answer)


def watched(
    chunks: Generator[ChatResponse, None, None], llm: LLM
) -> Generator[ChatResponse | Generation, None, None]:
    """Pass a model's chunks on, then the whole answer; usage may stand in any one of them."""
    last, usage = None, None
    with closing(chunks):
        for chunk in chunks:
            last, usage = chunk, usage_of(chunk) or usage
            yield chunk
    yield _whole(last, usage, llm)


async def awatched(
    chunks: AsyncGenerator[ChatResponse, None], llm: LLM
) -> AsyncGenerator[ChatResponse | Generation, None]:
    """Async form of `watched`."""
    last, usage = None, None
    async with aclosing(chunks):
        async for chunk in chunks:
            last, usage = chunk, usage_of(chunk) or usage
            yield chunk
    yield _whole(last, usage, llm)


def _whole(last: ChatResponse | None, usage: Usage | None, llm: LLM) -> Generation:
    if last is None:
        return Generation(text="", model=llm.class_name())
    answer = generation_of(last, model=llm.class_name())
    # Log-probabilities of a stream come chunk by chunk: those of the last are not the answer's.
    return replace(answer, usage=usage, logprobs=None, tokens=None)
