"""The kinds of calls that are routed whole: what each does with one child model."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.llm import LLM

from confroute.types import Generation, Usage
from llamaindex_confroute._calls import calls_in, portable
from llamaindex_confroute._reading import finish_of, generation_of, usage_of

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
        seen = Seen()
        with closing(llm.stream_chat(portable(self.messages, llm), **self.kwargs)) as chunks:
            for chunk in chunks:
                seen.add(chunk)
                yield chunk
        yield seen.generation(model=llm.class_name())

    async def astream(self, llm: LLM) -> AsyncGenerator[ChatResponse | Generation, None]:
        """See `Work`."""
        seen = Seen()
        async with aclosing(await llm.astream_chat(portable(self.messages, llm), **self.kwargs)) as chunks:
            async for chunk in chunks:
                seen.add(chunk)
                yield chunk
        yield seen.generation(model=llm.class_name())


def _answer(response: ChatResponse, llm: LLM) -> Generation:
    # Tools may come in the keyword arguments of a provider: calls are an answer, though the text is empty.
    calls = [{"name": call.name, "arguments": call.arguments} for call in calls_in(response.message)]
    answer = json.dumps(calls, sort_keys=True, default=str) if calls else None
    return generation_of(response, model=llm.class_name(), answer=answer)


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a stream has brought so far; providers report usage in any one of its chunks."""

    last: ChatResponse | None = None
    usage: Usage | None = None

    def add(self, chunk: ChatResponse) -> None:
        """Take one more chunk in."""
        self.last, self.usage = chunk, usage_of(chunk) or self.usage

    def generation(self, *, model: str) -> Generation:
        """Return the whole answer."""
        if self.last is None:
            return Generation(text="", model=model, raw=None)
        return Generation(
            text=self.last.message.content or "",
            usage=self.usage,
            finish=finish_of(self.last),
            model=model,
            raw=self.last,
        )
