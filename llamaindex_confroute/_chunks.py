"""What the caller gets: responses that carry the decision, whole or in chunks."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Generator, Iterable
from contextlib import aclosing, closing

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, MessageRole

from confroute.decision import Decision, Routed

KEY = "confroute"


def chat_response(routed: Routed) -> ChatResponse:
    """Return the child's response, the decision beside its own `additional_kwargs`.

    Not in the message: its kwargs are sent to the provider, and printed into prompts, with the next call.
    """
    return decided(_response(routed), routed.decision)


def decided(response: ChatResponse, decision: Decision) -> ChatResponse:
    """Return a copy of `response` that carries `decision`."""
    return response.model_copy(
        update={"additional_kwargs": {**response.additional_kwargs, KEY: decision.to_dict()}}
    )


def completion(response: ChatResponse) -> CompletionResponse:
    """Return the same as a completion; the host's own converter would write into the message."""
    return CompletionResponse(
        text=response.message.content or "",
        additional_kwargs={**response.message.additional_kwargs, **response.additional_kwargs},
        raw=response.raw,
        logprobs=response.logprobs,
        delta=response.delta,
    )


def chat_chunks(items: Generator[ChatResponse | Routed, None, None]) -> Generator[ChatResponse, None, None]:
    """Yield the chunks as they come, the decision on one more at the end; an answer that came whole is cut up."""
    last: ChatResponse | None = None
    with closing(items):
        for item in items:
            if isinstance(item, Routed):
                yield from _ending(item, last)
            else:
                last = item
                yield item


async def achat_chunks(
    items: AsyncGenerator[ChatResponse | Routed, None],
) -> AsyncGenerator[ChatResponse, None]:
    """Async form of `chat_chunks`."""
    last: ChatResponse | None = None
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Routed):
                for chunk in _ending(item, last):
                    yield chunk
            else:
                last = item
                yield item


def _ending(routed: Routed, last: ChatResponse | None) -> Iterable[ChatResponse]:
    if last is None:
        return _cut_up(routed)
    extra = {key: value for key, value in last.additional_kwargs.items() if key != "thinking_delta"}
    return [decided(last.model_copy(update={"delta": "", "additional_kwargs": extra}), routed.decision)]


def _cut_up(routed: Routed) -> Generator[ChatResponse, None, None]:
    """Yield a whole answer word by word; the last chunk is the response itself."""
    response = _response(routed)
    words = re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", response.message.content or "")
    said = ""
    for word in words[:-1]:
        said += word
        yield ChatResponse(
            message=ChatMessage(role=response.message.role, content=said), delta=word, raw=response.raw
        )
    end = response.model_copy(update={"delta": words[-1] if words else ""})
    yield decided(end, routed.decision)


def _response(routed: Routed) -> ChatResponse:
    raw = routed.generation.raw
    if isinstance(raw, ChatResponse):
        return raw
    # A policy of the user's own may answer with text of its own.
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=routed.generation.text))


def completions(chunks: Generator[ChatResponse, None, None]) -> Generator[CompletionResponse, None, None]:
    """Chunks of a chat as chunks of a completion."""
    with closing(chunks):
        for chunk in chunks:
            yield completion(chunk)


async def acompletions(
    chunks: AsyncGenerator[ChatResponse, None],
) -> AsyncGenerator[CompletionResponse, None]:
    """Async form of `completions`."""
    async with aclosing(chunks):
        async for chunk in chunks:
            yield completion(chunk)
