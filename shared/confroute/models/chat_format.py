"""OpenAI's chat format, as servers write it and as models that are asked in it read it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from confroute.types import JSON, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatRequest:
    """What a caller sent in this format, for models that take it as it is.

    Attributes
    ----------
    messages : sequence of mapping
        The conversation, with tool calls, images and whatever else stands in it.
    fields : mapping
        What `confroute.models.text_model.Settings` has no place for: tools, a response format, penalties, a seed.
    """

    messages: Sequence[Mapping[str, Any]] = field(repr=False)
    fields: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def made_for(self, *, note: str | None, seeded: bool, tool: JSON = None) -> ChatRequest:
        """The same with a further word of the user's, a further tool, and without its seed: servers give all samples of a request one."""
        if note is None and tool is None and (seeded or "seed" not in self.fields):
            return self
        said = () if note is None else ({"role": "user", "content": note},)
        kept = {name: value for name, value in self.fields.items() if seeded or name != "seed"}
        if tool is not None:
            kept["tools"] = [*kept.get("tools", ()), tool]
        return ChatRequest(messages=[*self.messages, *said], fields=kept)


class GrowingMessage:
    """A streamed message: texts grow, and tool calls grow by their index.

    Examples
    --------
    >>> message = GrowingMessage()
    >>> for part in ('{"a"', ": 1}"):
    ...     message.add({"tool_calls": [{"index": 0, "function": {"arguments": part}}]})
    >>> message.whole
    {'tool_calls': [{'function': {'arguments': '{"a": 1}'}}]}
    """

    __slots__ = ("_calls", "_fields")

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, delta: Mapping[str, Any]) -> None:
        """Add the next delta of a server."""
        grow(self._fields, {name: value for name, value in delta.items() if name != "tool_calls"})
        for call in delta.get("tool_calls") or ():
            parts = {name: value for name, value in call.items() if name != "index"}
            grow(self._calls.setdefault(call.get("index", len(self._calls)), {}), parts)

    @property
    def whole(self) -> dict[str, Any]:
        """All that was added."""
        calls = {"tool_calls": [self._calls[at] for at in sorted(self._calls)]} if self._calls else {}
        return {**self._fields, **calls}


# Said once or said again, never in parts.
_FIXED = frozenset({"id", "type", "role", "name"})


def grow(whole: dict[str, Any], part: Mapping[str, Any]) -> None:
    """Add a part to what came before it: texts are joined, objects grow field by field, and anything else replaces it."""
    for name, value in part.items():
        known = whole.get(name)
        if isinstance(value, Mapping):
            inner = dict(known) if isinstance(known, Mapping) else {}
            grow(inner, value)
            whole[name] = inner
        elif isinstance(value, str) and isinstance(known, str) and name not in _FIXED:
            whole[name] = known + value
        elif value is not None:
            whole[name] = value


def base(body: Mapping[str, Any], kind: str, name: str = "loopback") -> dict[str, Any]:
    """The fields that every object of the format has."""
    return {"id": name, "object": kind, "created": int(time.time()), "model": body.get("model")}


def completion(
    body: Mapping[str, Any], choices: Sequence[Mapping[str, Any]], usage: Usage, name: str = "loopback"
) -> dict[str, Any]:
    """The JSON of a whole answer."""
    return {**base(body, "chat.completion", name), "choices": list(choices), "usage": usage_of(usage)}


def delta(
    body: Mapping[str, Any],
    content: Mapping[str, Any],
    *,
    finish: str | None = None,
    logprobs: Mapping[str, Any] | None = None,
    name: str = "loopback",
) -> dict[str, Any]:
    """The JSON of one event of a streamed answer."""
    choice = {"index": 0, "delta": content, "finish_reason": reason_of(finish), "logprobs": logprobs}
    return {**base(body, "chat.completion.chunk", name), "choices": [choice]}


def usage_delta(body: Mapping[str, Any], usage: Usage, name: str = "loopback") -> dict[str, Any]:
    """The JSON of the event with the usage."""
    return {**base(body, "chat.completion.chunk", name), "choices": [], "usage": usage_of(usage)}


def reason_of(finish: str | None) -> str | None:
    """What a server writes of the end of an answer; nothing of one that it does not know."""
    return None if finish == "unknown" else finish


def usage_of(usage: Usage) -> dict[str, Any]:
    """The JSON of a usage, with OpenAI's names."""
    counts: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }
    cached = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens}
    if any(cached.values()):
        counts["prompt_tokens_details"] = {name: count for name, count in cached.items() if count}
    if usage.reasoning_tokens:
        counts["completion_tokens_details"] = {"reasoning_tokens": usage.reasoning_tokens}
    return counts


def text_of(content: Any) -> str:
    """The text of a message, whose content may be a list of parts."""
    if isinstance(content, list):
        return "".join(part.get("text") or "" for part in content if isinstance(part, Mapping))
    return content or ""
