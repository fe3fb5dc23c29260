"""LangChain's messages as the core sees them, and the core's answers as LangChain's: whole or in chunks."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from operator import add
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.messages.ai import add_ai_message_chunks
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable

from confroute.decision import recorded_usage
from confroute.hosts.options import read_documents
from confroute.hosts.tool_calls import call_digest, canonical_text
from confroute.models.provider_answers import (
    ChunkTokens,
    chunk_tokens,
    read_answer_logprobs,
    read_finish,
    read_usage,
    role_of,
)
from confroute.text_extraction import read
from confroute.types import JSON, Context, Generation, Message, Role, Usage
from langchain_confroute import compat

KEY = "confroute"
# By type of content block: what a model must be able to read.
_KINDS = {
    **dict.fromkeys(("image", "image_url", "input_image"), "images"),
    **dict.fromkeys(("audio", "input_audio"), "audio"),
    "video": "video",
    **dict.fromkeys(("file", "input_file", "document", "media"), "files"),
}
_PROFILE_KEYS = {
    "tools": "tool_calling",
    "images": "image_inputs",
    "audio": "audio_inputs",
    "video": "video_inputs",
    "files": "pdf_inputs",
}
# `message.text` and `message.tool_calls` hold these.
_READ_ELSEWHERE = ("text", "tool_use", "tool_call", "function_call", "invalid_tool_call")
_SENT = ("content", "name", "role", "additional_kwargs", "tool_calls", "invalid_tool_calls", "tool_call_id")
# What the text of a message holds already.
_IN_TEXT = ("content", "tool_call_id", "tool_calls", "invalid_tool_calls")
_TEXT_KEYS = ("title", "context", "text", "reasoning", "thinking", "summary", "content", "source")
# Blocks of an answer that alone are not one, and what stands beside the content.
_WORDS_OR_THOUGHTS = ("text", "thinking", "reasoning", "redacted_thinking")
_WORDLESS = ("tool_calls", "function_call", "audio", "refusal")
_WORDS = re.compile(r"\s*\S+\s*$|\s*\S+|\s+")


# Conversations.


def to_core(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """The conversation as text, tool calls included, and what else is sent with it: rules see all of it."""
    return tuple(
        [
            Message(role="user", text=content)
            if type(message) is HumanMessage
            and isinstance(content := message.content, str)
            and not (message.name or message.additional_kwargs)
            else Message(
                role=role_of(getattr(message, "role", message.type)),
                text=_text(message),
                beside=_beside(message),
                calls=_calls(message),
                failed=isinstance(message, ToolMessage) and message.status == "error",
            )
            for message in messages
        ]
    )


def from_core(messages: Sequence[Message]) -> list[BaseMessage]:
    """A signal's own prompt as LangChain's messages; it has no tool turns."""
    kinds: dict[Role, type[BaseMessage]] = {"system": SystemMessage, "assistant": AIMessage}
    return [kinds.get(message.role, HumanMessage)(message.text) for message in messages]


def text_of(message: BaseMessage) -> str:
    """The text of a message; its own property builds an object at every look."""
    content = message.content
    return content if isinstance(content, str) else str(message.text)


def kinds_of(messages: Iterable[BaseMessage]) -> tuple[str, ...]:
    """Which kinds of content that is not text the conversation holds.

    Examples
    --------
    >>> kinds_of([HumanMessage([{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}])])
    ('images',)
    """
    kinds: dict[str, None] = {}
    for message in messages:
        for block in message.content if not isinstance(message.content, str) else ():
            if isinstance(block, dict) and block.get("type") in _KINDS:
                kinds[_KINDS[block["type"]]] = None
    return tuple(kinds)


def missing(profile: Mapping[str, Any], needs: Iterable[str]) -> str | None:
    """The first of `needs` that a model's profile denies; what it does not mention is not denied."""
    return next((need for need in needs if profile.get(_PROFILE_KEYS[need]) is False), None)


def read_document(document: object) -> tuple[str, float | None] | None:
    """The text of a LangChain document, which has no score of its own."""
    return (document.page_content, None) if isinstance(document, Document) else None


def retrieved(messages: Sequence[BaseMessage]) -> Context | None:
    """Documents that tools returned beside their answers, as `artifact`, since the user last spoke."""
    documents: list[Any] = []
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        artifact = message.artifact if isinstance(message, ToolMessage) else None
        if isinstance(artifact, list) and artifact and all(isinstance(one, Document) for one in artifact):
            documents = artifact + documents
    return read_documents(documents, place="artifact", read_document=read_document) if documents else None


def _text(message: BaseMessage) -> str:
    parts = [text_of(message), *_further(message.content)]
    if isinstance(message, AIMessage):
        parts += [
            f"{call['name']}({json.dumps(call['args'], default=str, ensure_ascii=False)})"
            for call in message.tool_calls
        ]
        # Providers are sent these as well.
        parts += [f"{call['name']}({call['args']})" for call in message.invalid_tool_calls]
    return "\n".join(filter(None, parts))


def _calls(message: BaseMessage) -> tuple[str, ...]:
    if not isinstance(message, AIMessage):
        return ()
    written = [*message.tool_calls, *message.invalid_tool_calls]
    return tuple(call_digest(call["name"] or "", call["args"]) for call in written)


def _beside(message: BaseMessage) -> str:
    """Names, addresses of attachments; providers send `additional_kwargs` in part."""
    sent = {name: value for name, value in as_sent(message).items() if name not in _IN_TEXT}
    if not isinstance(message.content, str):
        sent["content"] = message.content
    return "\n".join(read(sent).texts) if sent else ""


def as_sent(value: Any) -> Any:
    """What of a message or a document goes to a provider: not what LangChain knows of it besides, such as its own id.

    Of a model, nothing: what it sends is read apart.
    """
    if isinstance(value, BaseMessage):
        return {name: found for name in _SENT if (found := getattr(value, name, None))}
    if isinstance(value, Document):
        return {"content": value.page_content, "metadata": value.metadata}
    if isinstance(value, Runnable):
        return None
    return value.to_messages() if isinstance(value, PromptValue) else value


def _further(content: str | Sequence[Any]) -> Iterator[str]:
    """Text in blocks that `message.text` leaves out: plain-text files, documents, reasoning."""
    for block in content if not isinstance(content, str) else ():
        if isinstance(block, Mapping) and block.get("type") not in _READ_ELSEWHERE:
            yield from _texts(block)


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        # A document's text stands under "data" where its source says that it is text, and base64 elsewhere.
        for key in (*_TEXT_KEYS, "data") if value.get("type") == "text" else _TEXT_KEYS:
            yield from _texts(value.get(key))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _texts(one)


# Answers.


def to_generation(message: BaseMessage, *, latency_s: float = 0.0) -> Generation:
    """One answer as the core sees it; the message itself is kept as `raw`."""
    message = compat.lifted(message)
    metadata, content = message.response_metadata, message.content
    usage = getattr(message, "usage_metadata", None)
    scored = read_answer_logprobs(metadata)
    # What LangChain writes on an answer from its cache, beside the tokens that it cost once.
    from_cache = isinstance(usage, Mapping) and usage.get("total_cost") == 0
    return Generation(
        text=content if isinstance(content, str) else text_of(message),
        logprobs=None if scored is None else scored.logprobs,
        tokens=None if scored is None else scored.tokens,
        top_logprobs=None if scored is None else scored.alternatives,
        usage=Usage() if from_cache else _usage(metadata, usage),
        finish=read_finish(metadata),
        model=metadata.get("model_name") or metadata.get("model"),
        latency_s=latency_s,
        from_cache=from_cache,
        raw=message,
    )


def _usage(metadata: Mapping[str, Any], usage: object) -> Usage | None:
    """Tokens billed: of a router's answer those of all its models."""
    record = metadata.get(KEY)
    # Of OpenAI's and its followers' bills LangChain's own has only what OpenAI puts in it: not DeepSeek's cached tokens.
    return (
        recorded_usage(record)
        if isinstance(record, Mapping)
        else read_usage(metadata.get("token_usage"), usage)
    )


def with_wordless_answer(generation: Generation) -> Generation:
    """An answer without words as one that can be told from no answer: its tool calls, images, audio or refusal."""
    message = generation.raw
    if generation.text.strip() or generation.answer is not None or not isinstance(message, AIMessage):
        return generation
    blocks = message.content if not isinstance(message.content, str) else ()
    kept = [one for one in blocks if not (isinstance(one, Mapping) and one.get("type") in _WORDS_OR_THOUGHTS)]
    said = [
        message.tool_calls,
        message.invalid_tool_calls,
        kept,
        *map(message.additional_kwargs.get, _WORDLESS),
    ]
    held = [one for one in said if one]
    return replace(generation, answer=canonical_text(held)) if held else generation


def extract_token_logprobs(message: BaseMessage) -> tuple[float, ...] | None:
    """The natural log-probability of each token of an answer.

    Read from `response_metadata["logprobs"]`: OpenAI's `{"content": [...]}`, the flat list of newer Ollama servers
    (dictionaries or objects), and the old completions form `{"token_logprobs": [...]}`; or from the provider's whole answer,
    where an integration keeps that in `response_metadata`.

    Returns
    -------
    tuple of float or None
        As the provider sent them, right or wrong. None where there are none, or where any token lacks its number:
        the rest would speak for an answer of which it saw only a part.

    Examples
    --------
    >>> metadata = {"logprobs": {"content": [{"token": "4", "logprob": -0.25}]}}
    >>> extract_token_logprobs(AIMessage("4", response_metadata=metadata))
    (-0.25,)
    >>> extract_token_logprobs(AIMessage("4")) is None
    True
    """
    scored = read_answer_logprobs(message.response_metadata)
    return None if scored is None else scored.logprobs


def extract_tokens(message: BaseMessage) -> tuple[str, ...] | None:
    """The tokens that `extract_token_logprobs` has the numbers of; None where a provider names none.

    Examples
    --------
    >>> extract_tokens(AIMessage("4", response_metadata={"logprobs": [{"token": "4", "logprob": -0.25}]}))
    ('4',)
    """
    scored = read_answer_logprobs(message.response_metadata)
    return None if scored is None else scored.tokens


def chunk_scores(chunk: BaseMessage) -> ChunkTokens:
    """Log-probabilities of one chunk of a stream: empty if it holds no text, None if it does and they are unknown."""
    metadata = chunk.response_metadata
    scored = read_answer_logprobs(metadata) if metadata else None
    return chunk_tokens(scored, has_text=bool(text_of(chunk)))


def with_decision(message: AIMessage, record: dict[str, JSON], *, drop_logprobs: bool) -> AIMessage:
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


# Chunks.


def add_up(chunks: Sequence[Any]) -> Any:
    """What a stream's chunks add up to; the last where they do not add, None where there are none."""
    if len(chunks) < 2:
        return chunks[0] if chunks else None
    if isinstance(chunks[0], AIMessageChunk):
        # All at once: pair by pair, a long answer would be copied as often as it has chunks.
        return _billed_once(add_ai_message_chunks(chunks[0], *chunks[1:]), chunks)
    try:
        return reduce(add, chunks)
    except TypeError:
        return chunks[-1]


def _billed_once(whole: AIMessageChunk, chunks: Sequence[AIMessageChunk]) -> AIMessageChunk:
    """The sum of chunks with the usage of the call: servers that tell it with several chunks tell all of it so far each time.

    Those that tell it in parts (Anthropic: first the prompt, then the answer) tell the prompt once.
    """
    bills = [one for chunk in chunks if (one := chunk.usage_metadata) and one["input_tokens"] > 0]
    if len(bills) < 2 or len({bill["input_tokens"] for bill in bills}) > 1:
        return whole
    return whole.model_copy(update={"usage_metadata": max(bills, key=lambda bill: bill["output_tokens"])})


def as_chunk(message: AIMessage, *, content: Any = None) -> AIMessageChunk:
    """A whole message as the last chunk of a stream; with `content`, less the part that went before."""
    calls: list[tuple[str | None, str | None, str | None]] = [
        (call["name"], json.dumps(call["args"]), call["id"]) for call in message.tool_calls
    ]
    calls += [(call["name"], call["args"], call["id"]) for call in message.invalid_tool_calls]
    return AIMessageChunk(
        content=message.content if content is None else content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        id=message.id,
        name=message.name,
        usage_metadata=message.usage_metadata,
        tool_call_chunks=[
            tool_call_chunk(name=name, args=args, id=id_, index=index)
            for index, (name, args, id_) in enumerate(calls)
        ],
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

    __slots__ = ("_id", "_last", "begun", "shown")

    def __init__(self) -> None:
        self.begun = self.shown = False
        self._id: str | None = None
        self._last: AIMessageChunk | None = None

    def show(self, chunk: AIMessage) -> AIMessageChunk | None:
        """The chunk, or None while it has to wait for the decision."""
        piece = chunk if isinstance(chunk, AIMessageChunk) else as_chunk(chunk)
        self.begun, self._id = True, piece.id or self._id
        self.shown = self.shown or bool(piece.content or piece.tool_call_chunks)
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
        metadata = {**self._last.response_metadata, KEY: record}
        return self._last.model_copy(update={"response_metadata": metadata})
