"""LangChain's messages as the core sees them, and back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage

from confroute.text_extraction import texts_in
from confroute.types import Finish, Generation, Message, Role, Usage
from langchain_confroute.logprobs import extract_top_logprobs, read

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "HumanMessageChunk": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "AIMessageChunk": "assistant",
    "system": "system",
    "developer": "system",
    "SystemMessageChunk": "system",
    "tool": "tool",
    "ToolMessageChunk": "tool",
    "function": "tool",
}
_FINISH: dict[str, Finish] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "eos_token": "stop",
    "length": "length",
    "max_tokens": "length",
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "cancelled": "cancelled",
}
# By type of content block: what a model must be able to read.
_KINDS = {
    "image": "images",
    "image_url": "images",
    "input_image": "images",
    "audio": "audio",
    "input_audio": "audio",
    "video": "video",
    "file": "files",
    "input_file": "files",
    "document": "files",
    "media": "files",
}
# `message.text` and `message.tool_calls` hold these.
_READ_ELSEWHERE = ("text", "tool_use", "tool_call", "function_call", "invalid_tool_call")
_SAID = ("title", "context", "text", "reasoning", "thinking", "summary", "content", "source")
_PROFILE_KEYS = {
    "tools": "tool_calling",
    "images": "image_inputs",
    "audio": "audio_inputs",
    "video": "video_inputs",
    "files": "pdf_inputs",
}


def to_core(messages: Sequence[BaseMessage]) -> tuple[Message, ...]:
    """The conversation as text, tool calls included, and what else is sent with it: rules see all of it."""
    return tuple(
        Message(role=_role(message), text=_text(message), beside=_beside(message)) for message in messages
    )


def from_core(messages: Sequence[Message]) -> list[BaseMessage]:
    """A signal's own prompt as LangChain's messages; it has no tool turns."""
    kinds: dict[Role, type[BaseMessage]] = {"system": SystemMessage, "assistant": AIMessage}
    return [kinds.get(message.role, HumanMessage)(message.text) for message in messages]


def _role(message: BaseMessage) -> Role:
    return ROLES.get(getattr(message, "role", message.type), "user")


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


def _beside(message: BaseMessage) -> str:
    """Names, addresses of attachments, arguments decoded; providers send `additional_kwargs` in part."""
    role = getattr(message, "role", None)
    calls = (
        [call["args"] for call in (*message.tool_calls, *message.invalid_tool_calls)]
        if isinstance(message, AIMessage)
        else None
    )
    return texts_in(
        message.name,
        None if role in ROLES else role,
        calls,
        None if isinstance(message.content, str) else message.content,
        message.additional_kwargs,
    )


def _further(content: str | Sequence[Any]) -> Iterator[str]:
    """Text in blocks that `message.text` leaves out: plain-text files, documents, reasoning."""
    for block in content if not isinstance(content, str) else ():
        if isinstance(block, Mapping) and block.get("type") not in _READ_ELSEWHERE:
            yield from _said(block)


def _said(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        # A document's text stands under "data" where its source says that it is text, and base64 elsewhere.
        keys = (*_SAID, "data") if value.get("type") == "text" else _SAID
        for key in keys:
            yield from _said(value.get(key))
    elif isinstance(value, (list, tuple)):
        for one in value:
            yield from _said(one)


def text_of(message: BaseMessage) -> str:
    """The text of a message; its own property builds an object at every look."""
    content = message.content
    return content if isinstance(content, str) else str(message.text)


def kinds_of(messages: Iterable[BaseMessage]) -> tuple[str, ...]:
    """Which kinds of content that is not text the conversation holds.

    Examples
    --------
    >>> from langchain_core.messages import HumanMessage
    >>> kinds_of([HumanMessage([{"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}])])
    ('images',)
    """
    found: dict[str, None] = {}
    for message in messages:
        if isinstance(message.content, str):
            continue
        for block in message.content:
            if isinstance(block, dict) and block.get("type") in _KINDS:
                found[_KINDS[block["type"]]] = None
    return tuple(found)


def missing(profile: Any, needs: Iterable[str]) -> str | None:
    """The first of `needs` that a model's profile denies; what it does not mention is not denied."""
    if not profile:
        return None
    return next((need for need in needs if profile.get(_PROFILE_KEYS[need]) is False), None)


def to_generation(
    message: BaseMessage, *, latency_s: float = 0.0, answer: str | None = None, flaw: str | None = None
) -> Generation:
    """One answer as the core sees it; the message itself is kept as `raw`."""
    metadata = message.response_metadata
    usage = getattr(message, "usage_metadata", None)
    reason = metadata.get("finish_reason") or metadata.get("stop_reason") or metadata.get("done_reason")
    tokens, logprobs = read(message) if "logprobs" in metadata else (None, None)
    return Generation(
        text=text_of(message),
        logprobs=logprobs,
        tokens=tokens,
        top_logprobs=extract_top_logprobs(message) if logprobs else None,
        usage=None
        if not usage
        else Usage(input_tokens=usage["input_tokens"], output_tokens=usage["output_tokens"]),
        finish=_FINISH.get(str(reason).lower(), "unknown"),
        model=metadata.get("model_name") or metadata.get("model"),
        latency_s=latency_s,
        answer=answer,
        flaw=flaw,
        raw=message,
    )
