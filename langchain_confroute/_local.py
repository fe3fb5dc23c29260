"""Between LangChain's messages and a local model's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk

from confroute.errors import RequestError
from confroute.types import Generation, Message, Role, Usage
from langchain_confroute.logprobs import content_of

if TYPE_CHECKING:
    from confroute.models.local import Piece

PROVIDER = "confroute-local"
ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "ai": "assistant",
    "assistant": "assistant",
    "system": "system",
    "developer": "system",
    "tool": "tool",
    "function": "tool",
}


def to_messages(messages: Sequence[BaseMessage]) -> list[Message]:
    """LangChain's messages as text.

    Raises
    ------
    RequestError
        A role that is not known, or content that is not text.
    """
    return [Message(role=_role(message), text=_text(message)) for message in messages]


def _role(message: BaseMessage) -> Role:
    name = getattr(message, "role", message.type)
    if name not in ROLES:
        msg = f"message role {name!r}: expected one of {', '.join(ROLES)}"
        raise RequestError(msg)
    return ROLES[name]


def _text(message: BaseMessage) -> str:
    blocks = [message.content] if isinstance(message.content, str) else message.content
    # A reasoning block is another model's aside, not part of the conversation.
    kinds = {block.get("type", "unknown") for block in blocks if isinstance(block, dict)} - {
        "text",
        "reasoning",
        "tool_use",
        "tool_call",
    }
    if kinds:
        msg = f"content of type {', '.join(sorted(kinds))}: ChatLocal takes text only; send it to a model that can, or leave it out"
        raise RequestError(msg)
    text = "".join(block if isinstance(block, str) else block.get("text", "") for block in blocks)
    calls = (
        [f"{call['name']}({call['args']})" for call in message.tool_calls]
        if isinstance(message, AIMessage)
        else []
    )
    return "\n".join(part for part in (text, *calls) if part)


def generation_of(answer: Generation, *, logprobs: bool) -> ChatGeneration:
    """An answer as LangChain's."""
    metadata: dict[str, Any] = {
        "model_name": answer.model,
        "model_provider": PROVIDER,
        "finish_reason": answer.finish,
    }
    if logprobs:
        metadata["logprobs"] = {
            "content": content_of(answer.tokens or (), answer.logprobs or (), answer.top_logprobs)
        }
    message = AIMessage(
        content=answer.text,
        response_metadata=metadata,
        usage_metadata=None if answer.usage is None else _usage(answer.usage),
    )
    return ChatGeneration(message=message, generation_info={"finish_reason": answer.finish})


def chunk_of(piece: Piece, name: str, *, logprobs: bool) -> ChatGenerationChunk:
    """A piece of an answer as LangChain's; names and usage on the last only."""
    metadata: dict[str, Any] = {}
    if logprobs:
        metadata["logprobs"] = {"content": content_of(piece.tokens, piece.logprobs, piece.top_logprobs)}
    if piece.finish is None:
        return ChatGenerationChunk(message=AIMessageChunk(content=piece.text, response_metadata=metadata))
    # On one chunk only: equal strings would be joined when chunks are added up.
    metadata |= {"model_name": name, "model_provider": PROVIDER, "finish_reason": piece.finish}
    message = AIMessageChunk(
        content=piece.text,
        response_metadata=metadata,
        usage_metadata=_usage(piece.usage or Usage()),
        chunk_position="last",
    )
    return ChatGenerationChunk(message=message)


def _usage(usage: Usage) -> UsageMetadata:
    return UsageMetadata(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, total_tokens=usage.total_tokens
    )
