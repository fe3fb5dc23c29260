"""LlamaIndex messages as the core sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from llama_index.core.base.llms.types import (
    BaseContentBlock,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from confroute.errors import RequestError
from confroute.text_extraction import texts_in
from confroute.types import Message, Role

_ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}
# Of text without a tokenizer: a token is about 4 bytes of English, 3 of code and of Chinese.
_BYTES_A_TOKEN = 3.5
_TOKENS_A_MESSAGE = 6


def checked(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return the messages as a list.

    Raises
    ------
    RequestError
        Something in it is no `ChatMessage`.
    """
    for position, message in enumerate(messages):
        given: object = message
        if not isinstance(given, ChatMessage):
            msg = f"messages[{position}] is a {type(message).__name__}: expected ChatMessage(role=..., content=...)"
            raise RequestError(msg)
    return list(messages)


def core_messages(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Roles and all text, thoughts and tool calls included, and what else is sent with it: rules see all of it."""
    return tuple(
        Message(
            role=_ROLES.get(message.role, "user"),
            text="\n".join([*_texts(message.blocks), *_called(message)]),
            beside=texts_in(
                [block for block in message.blocks if not isinstance(block, TextBlock)],
                message.additional_kwargs,
            ),
        )
        for message in messages
    )


def from_core(messages: Sequence[Message]) -> list[ChatMessage]:
    """A signal's own prompt as LlamaIndex's messages; it has no tool turns."""
    return [ChatMessage(role=MessageRole(message.role), content=message.text) for message in messages]


def has_attachments(messages: Sequence[ChatMessage]) -> bool:
    """Whether a message holds an image, a sound, a film or a file."""
    return any(_attached(message.blocks) for message in messages)


def estimated_tokens(messages: Sequence[Message], *, extra: str = "") -> int:
    """About how many tokens a prompt takes, from its length alone: tokenizers may want to download files.

    Examples
    --------
    >>> estimated_tokens([Message(role="user", text="What is the capital of France?")])
    15
    """
    size = sum(len(message.text.encode("utf-8", "replace")) for message in messages) + len(extra)
    return round(size / _BYTES_A_TOKEN) + _TOKENS_A_MESSAGE * len(messages)


def _texts(blocks: Sequence[BaseContentBlock]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, TextBlock):
            yield block.text
        elif isinstance(block, ThinkingBlock):
            yield block.content or ""
        elif isinstance(block, ToolCallBlock):
            arguments = block.tool_kwargs
            yield f"{block.tool_name} {arguments if isinstance(arguments, str) else json.dumps(arguments, default=str, ensure_ascii=False)}"
        elif isinstance(block, CitableBlock):
            yield from _texts(block.content)
        elif isinstance(block, CitationBlock):
            yield from _texts([block.cited_content])


def _called(message: ChatMessage) -> Iterator[str]:
    """Tool calls that stand beside the blocks, in the provider's own form: models are sent them too."""
    for key in ("tool_calls", "function_call"):
        if message.additional_kwargs.get(key):
            yield json.dumps(message.additional_kwargs[key], default=str, ensure_ascii=False)


def _attached(blocks: Sequence[BaseContentBlock]) -> bool:
    return any(
        _attached(block.content)
        if isinstance(block, CitableBlock)
        else getattr(block, "block_type", None) in ("image", "audio", "video", "document")
        for block in blocks
    )
