"""Between LlamaIndex's messages and a local model's."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from confroute.errors import RequestError
from confroute.types import Generation as Answer
from confroute.types import Message, Role, Usage

if TYPE_CHECKING:
    from confroute.models.local import Piece

ROLES: dict[MessageRole, Role] = {
    MessageRole.SYSTEM: "system",
    MessageRole.DEVELOPER: "system",
    MessageRole.USER: "user",
    MessageRole.ASSISTANT: "assistant",
    MessageRole.CHATBOT: "assistant",
    MessageRole.MODEL: "assistant",
    MessageRole.TOOL: "tool",
    MessageRole.FUNCTION: "tool",
}


def to_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """LlamaIndex's messages as text.

    Raises
    ------
    RequestError
        A block that is not text.
    """
    return [Message(role=ROLES[message.role], text=_text(message)) for message in messages]


def _text(message: ChatMessage) -> str:
    parts: list[str] = []
    for block in message.blocks:
        if isinstance(block, TextBlock):
            parts.append(block.text)
        elif isinstance(block, ToolCallBlock):
            parts.append(f"{block.tool_name}({block.tool_kwargs})")
        elif not isinstance(block, ThinkingBlock):
            msg = f"content of type {block.block_type}: LocalLLM takes text only; send it to a model that can, or leave it out"
            raise RequestError(msg)
    return "\n".join(part for part in parts if part)


def responses_of(name: str, pieces: Iterator[Piece]) -> Generator[ChatResponse, None, None]:
    """The pieces of an answer, each with all of the text so far."""
    text = ""
    for piece in pieces:
        text += piece.text
        yield _response(name, text, piece.text, piece)


def together(name: str, answers: Sequence[Answer]) -> ChatResponse:
    """The first answer; where there are several, all of them under "choices" of `raw`, as OpenAI's API has them."""
    each = [_response(name, one.text, None, one) for one in answers]
    if len(each) == 1:
        return each[0]
    counts = _counts(sum((one.usage for one in answers if one.usage), Usage()))
    choices = [
        {
            "message": {"content": one.message.content},
            "logprobs": one.raw["logprobs"],
            "finish_reason": one.raw["finish_reason"],
        }
        for one in each
        if one.raw
    ]
    raw = {"model": name, "usage": counts, "choices": choices}
    return each[0].model_copy(update={"raw": raw, "additional_kwargs": dict(counts)})


def _response(name: str, text: str, delta: str | None, said: Answer | Piece) -> ChatResponse:
    tokens = said.tokens or ()
    each = zip(tokens, said.logprobs or (), said.top_logprobs or ((),) * len(tokens), strict=True)
    content = [
        {**_scored(token, logprob), "top_logprobs": [_scored(*one) for one in top]}
        for token, logprob, top in each
    ]
    counts = _counts(said.usage)
    raw: dict[str, Any] = {"model": name, "finish_reason": said.finish, "logprobs": {"content": content}}
    if counts:
        raw["usage"] = counts
    return ChatResponse(
        message=ChatMessage(role=MessageRole.ASSISTANT, content=text),
        delta=delta,
        raw=raw,
        logprobs=[
            [LogProb(token=one["token"], logprob=one["logprob"], bytes=one["bytes"])] for one in content
        ],
        additional_kwargs=dict(counts),
    )


def _scored(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "replace"))}


def _counts(usage: Usage | None) -> dict[str, int]:
    if usage is None:
        return {}
    return {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
    }


def completion_of(response: ChatResponse) -> CompletionResponse:
    """An answer to a prompt, from one to a conversation."""
    # Not LlamaIndex's own converter: it writes the token counts into the message as well.
    return CompletionResponse(
        text=response.message.content or "",
        delta=response.delta,
        raw=response.raw,
        logprobs=response.logprobs,
        additional_kwargs=response.additional_kwargs,
    )
