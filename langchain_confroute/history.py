"""A conversation as another provider's model can read it: on copies, and only where something has to change."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from langchain_confroute.messages import KEY

# Anthropic refuses other characters, OpenAI more than 40 of them.
_ID = re.compile(r"[A-Za-z0-9_-]{1,40}")
# Every provider reads these alike, while they are text.
_ALIKE = (HumanMessage, SystemMessage)
# What a model said to itself is signed by its provider, or unknown to others; calls stand in `tool_calls` as well.
_OWN_BLOCKS = frozenset(
    {
        *("reasoning", "reasoning_content", "thinking", "redacted_thinking", "non_standard"),
        *(
            "tool_use",
            "tool_call",
            "function_call",
            "server_tool_use",
            "server_tool_call",
            "server_tool_result",
        ),
    }
)


def portable(
    messages: Sequence[BaseMessage], provider: str | None, elsewhere: Collection[str] = ()
) -> list[BaseMessage]:
    """The conversation for a model of `provider`; messages that it can read as they are stay the same objects.

    What a router's tier in `elsewhere` answered counts as another provider's too: one class reaches many servers, and one does not
    know what another has stored.

    Taken off what another provider's model wrote: reasoning, call blocks (the calls themselves stay), block fields other
    than the text, additional arguments and message ids. Off everybody's: `cache_control`, unless Anthropic reads it.
    Tool-call ids that a provider may refuse, or that are missing, are replaced in call and result alike.

    Examples
    --------
    >>> said = AIMessage(
    ...     [{"type": "thinking", "thinking": "hm", "signature": "x"}, {"type": "text", "text": "4"}],
    ...     response_metadata={"model_provider": "anthropic"},
    ... )
    >>> portable([said], "openai")[0].content
    [{'type': 'text', 'text': '4'}]
    >>> portable([said], "anthropic")[0] is said
    True
    """
    ids: _Ids | None = None
    readable = []
    for message in messages:
        if not (type(message) in _ALIKE and isinstance(message.content, str)):
            ids = ids or _Ids()
            message = _message(message, provider, elsewhere, ids)  # noqa: PLW2901  the caller's own stays as it is
        readable.append(message)
    return readable


class _Ids:
    """Which tool-call ids were replaced, and by what."""

    def __init__(self) -> None:
        self._new: dict[str, str] = {}
        self._waiting: list[str] = []
        self._count = 0

    def of_call(self, given: str | None) -> str:
        """The id that a call goes under."""
        if given and _ID.fullmatch(given):
            return given
        self._count += 1
        if given:
            made = self._new[given] = "call_" + hashlib.sha256(given.encode()).hexdigest()[:24]
            return made
        made = f"call_{self._count}"
        self._waiting.append(made)  # its result has no id either: results come in the order of the calls
        return made

    def of_result(self, given: str | None) -> str | None:
        """The id of the call that a result belongs to."""
        if not given and self._waiting:
            return self._waiting.pop(0)
        return self._new.get(given or "", given)


def _message(
    message: BaseMessage, provider: str | None, elsewhere: Collection[str], ids: _Ids
) -> BaseMessage:
    update: dict[str, Any] = {}
    foreign = isinstance(message, AIMessage) and _by_another(message, provider, elsewhere)
    content = message.content
    if not isinstance(content, str):
        blocks = [block for block in (_block(b, provider, foreign) for b in content) if block is not None]
        if len(blocks) != len(content) or any(a is not b for a, b in zip(blocks, content, strict=True)):
            update["content"] = blocks or ""
    if foreign:
        kept = {name: value for name, value in message.response_metadata.items() if name == KEY}
        update |= {"additional_kwargs": {}, "response_metadata": kept, "id": None}
    if isinstance(message, AIMessage) and message.tool_calls:
        calls = [{**call, "id": ids.of_call(call["id"])} for call in message.tool_calls]
        if calls != message.tool_calls:
            update["tool_calls"] = calls
    if isinstance(message, ToolMessage):
        own = ids.of_result(message.tool_call_id)
        update |= {} if own == message.tool_call_id else {"tool_call_id": own}
    return message.model_copy(update=update) if update else message


def _by_another(message: AIMessage, provider: str | None, elsewhere: Collection[str]) -> bool:
    writer, record = (message.response_metadata.get(name) for name in ("model_provider", KEY))
    if isinstance(record, Mapping) and record.get("route") in elsewhere:
        return True
    return writer is not None and writer != provider


def _block(block: Any, provider: str | None, foreign: bool) -> Any:
    """The block, a reduced copy of it, or None to leave it out."""
    if not isinstance(block, dict):
        return block
    if foreign and block.get("type") in _OWN_BLOCKS:
        return None
    if foreign and block.get("type") in {"text", "output_text"}:
        plain = {"type": "text", "text": block.get("text", "")}
        return block if plain == block else plain
    if provider != "anthropic" and "cache_control" in block:
        return {name: value for name, value in block.items() if name != "cache_control"}
    return block
