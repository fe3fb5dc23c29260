"""A child's stream: its chunks as they come, then all of it as one answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from dataclasses import replace
from typing import TypeAlias

from llama_index.core.base.llms.types import ChatResponse

from confroute.types import Generation, Usage
from llamaindex_confroute._closing import aclosing_all, closing_all
from llamaindex_confroute._reading import Scored, scored_in_raw, usage_of

# From the last chunk, which holds the whole message, to the answer.
Made: TypeAlias = Callable[[ChatResponse], Generation]


def chunk_logprobs(chunk: ChatResponse) -> tuple[float, ...] | None:
    """Those of one chunk of a stream: empty if it holds no text, None if it does and they are unknown."""
    scored = scored_in_raw(chunk.raw)
    if scored is not None:
        return scored.logprobs
    # Some models leave the delta out.
    return None if chunk.delta or (chunk.delta is None and chunk.message.content) else ()


class _Gathered:
    """What is spread over the chunks: usage stands in any one of them, log-probabilities in each those of its tokens."""

    __slots__ = ("_complete", "_last", "_scored", "_usage")

    def __init__(self) -> None:
        self._last: ChatResponse | None = None
        self._usage: Usage | None = None
        self._scored: list[Scored] = []
        self._complete = True

    def add(self, chunk: ChatResponse) -> None:
        self._last, self._usage = chunk, usage_of(chunk) or self._usage
        scored = scored_in_raw(chunk.raw)
        if scored is not None:
            self._scored.append(scored)
        elif chunk_logprobs(chunk) is None:
            # Part of the answer without any: the rest says nothing about the whole.
            self._complete = False

    def answer(self, made: Made) -> Generation:
        if self._last is None:
            return Generation(text="")
        plain = replace(made(self._last), usage=self._usage, logprobs=None, tokens=None, top_logprobs=None)
        if not self._complete or not self._scored:
            return plain
        tokens = [one.tokens for one in self._scored]
        tops = [one.tops for one in self._scored]
        return replace(
            plain,
            logprobs=tuple(value for one in self._scored for value in one.logprobs),
            tokens=None if None in tokens else tuple(token for one in tokens for token in one or ()),
            top_logprobs=None if None in tops else tuple(top for one in tops for top in one or ()),
        )


def watched(
    chunks: Generator[ChatResponse, None, None], made: Made
) -> Generator[ChatResponse | Generation, None, None]:
    """Pass a model's chunks on, then the whole answer."""
    gathered = _Gathered()
    with closing_all(chunks):
        for chunk in chunks:
            gathered.add(chunk)
            yield chunk
    yield gathered.answer(made)


async def awatched(
    chunks: AsyncGenerator[ChatResponse, None], made: Made
) -> AsyncGenerator[ChatResponse | Generation, None]:
    """Async form of `watched`."""
    gathered = _Gathered()
    async with aclosing_all(chunks):
        async for chunk in chunks:
            gathered.add(chunk)
            yield chunk
    yield gathered.answer(made)
