"""The answer that goes back: the model's own message with the decision on it, whole or in chunks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import reduce
from operator import add
from typing import Any, cast

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.messages.tool import tool_call_chunk

from confroute.types import JSON

KEY = "confroute"
_WORDS = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")


def marked(message: AIMessage, record: dict[str, JSON], *, drop_logprobs: bool) -> AIMessage:
    """A copy of the message with the decision, and without log-probabilities that only we asked for."""
    metadata = {**message.response_metadata, KEY: record}
    if drop_logprobs:
        metadata.pop("logprobs", None)
    return message.model_copy(update={"response_metadata": metadata})


def without_logprobs(chunk: AIMessage) -> AIMessage:
    """A copy of a chunk without log-probabilities that only we asked for."""
    if "logprobs" not in chunk.response_metadata:
        return chunk
    metadata = {name: value for name, value in chunk.response_metadata.items() if name != "logprobs"}
    return chunk.model_copy(update={"response_metadata": metadata})


def merged(chunks: Sequence[AIMessage]) -> AIMessage:
    """The message that the chunks of a stream add up to.

    Raises
    ------
    ValueError
        There are none.
    """
    if not chunks:
        msg = "the model's stream ended without a chunk"
        raise ValueError(msg)
    if len(chunks) == 1:
        return chunks[0]
    if len(chunks) == 1:
        return chunks[0]
    # All at once: pair by pair, a long answer would be copied as often as it has chunks.
    first, *rest = cast("Sequence[AIMessageChunk]", chunks)
    return add_ai_message_chunks(first, *rest)


def summed(chunks: Sequence[Any]) -> Any:
    """What a stream's chunks add up to; the last where they do not add, None where there are none."""
    if not chunks:
        return None
    if isinstance(chunks[0], AIMessageChunk):
        return merged(chunks)
    try:
        return reduce(add, chunks)
    except TypeError:
        return chunks[-1]


def as_chunk(message: AIMessage, *, content: Any = None) -> AIMessageChunk:
    """A whole message as the last chunk of a stream; with `content`, less the part that went before."""
    calls = [
        tool_call_chunk(name=call["name"], args=json.dumps(call["args"]), id=call["id"], index=index)
        for index, call in enumerate(message.tool_calls)
    ]
    calls += [
        tool_call_chunk(name=call["name"], args=call["args"], id=call["id"], index=len(calls) + index)
        for index, call in enumerate(message.invalid_tool_calls)
    ]
    return AIMessageChunk(
        content=message.content if content is None else content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        id=message.id,
        name=message.name,
        usage_metadata=message.usage_metadata,
        tool_call_chunks=calls,
        chunk_position="last",
    )


def in_chunks(message: AIMessage) -> Iterator[AIMessageChunk]:
    """A whole message word by word; everything but the text comes with the last chunk.

    Examples
    --------
    >>> [chunk.content for chunk in in_chunks(AIMessage("two words"))]
    ['two', ' words']
    """
    if not isinstance(message.content, str):
        yield as_chunk(message)
        return
    words = _WORDS.findall(message.content) or [""]
    for word in words[:-1]:
        yield AIMessageChunk(content=word, id=message.id)
    yield as_chunk(message, content=words[-1])


class Ending:
    """Watches a native stream so that the decision comes with its last chunk, and with no other."""

    __slots__ = ("_id", "_last", "begun")

    def __init__(self) -> None:
        self.begun = False
        self._id: str | None = None
        self._last: AIMessageChunk | None = None

    def passed(self, chunk: AIMessage) -> AIMessageChunk | None:
        """The chunk, or None while it has to wait for the decision."""
        piece = chunk if isinstance(chunk, AIMessageChunk) else as_chunk(chunk)
        self.begun, self._id = True, piece.id or self._id
        if piece.chunk_position == "last" and self._last is None:
            self._last = piece
            return None
        return piece

    def last(self, record: dict[str, JSON]) -> AIMessageChunk:
        """The last chunk, with the decision."""
        if self._last is None:
            return AIMessageChunk(
                content="", id=self._id, response_metadata={KEY: record}, chunk_position="last"
            )
        return self._last.model_copy(
            update={"response_metadata": {**self._last.response_metadata, KEY: record}}
        )
