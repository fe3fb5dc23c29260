"""Responses: a model's, whole or in chunks, as the core sees them, and the router's own, which carry the decision."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any, TypeAlias

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    MessageRole,
    TextBlock,
    ThinkingBlock,
)

from confroute.decision import Routed, recorded_usage
from confroute.hosts.tool_calls import canonical_text
from confroute.models.provider_answers import (
    ChunkScores,
    ChunkTokens,
    ScoredTokens,
    chunk_tokens,
    ends_by_reason,
    field,
    generation_of,
    read_answer_logprobs,
    read_answer_usage,
    read_finish,
    read_generations,
    read_model,
    read_usage,
)
from confroute.types import JSON, Finish, Generation, Usage
from llamaindex_confroute.messages import calls_in

KEY = "confroute"
_COUNTS = ("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens")
# What is done at the end of a stream; gives the decision's JSON form.
Done: TypeAlias = "Callable[[Routed], dict[str, JSON]]"


def extract_token_logprobs(response: ChatResponse | CompletionResponse) -> tuple[float, ...] | None:
    """Natural log-probability of each generated token, where the provider returned them.

    Read from `response.raw`: OpenAI-compatible servers (`choices[0].logprobs.content`, or `.token_logprobs` of text
    completions), Ollama (`raw["logprobs"]`) and confroute's own local models. `response.logprobs` comes last: it
    holds the likeliest alternatives at each place, not the token that was drawn, so it counts only where the
    alternatives spell the answer.

    Returns
    -------
    tuple of float or None
        As the provider gave them, right or wrong. None where there are none, or where any token lacks its number:
        the rest would speak for an answer of which it saw only a part.

    Examples
    --------
    >>> from llama_index.core.llms import ChatMessage
    >>> raw = {"choices": [{"logprobs": {"content": [{"token": "4", "logprob": -0.25}]}}]}
    >>> extract_token_logprobs(ChatResponse(message=ChatMessage(content="4"), raw=raw))
    (-0.25,)
    """
    scored = _scored(response)
    return scored.logprobs if scored else None


def to_generation(response: ChatResponse, *, model: str) -> Generation:
    """Return a response as the core sees it; `model` is the name to use where the response has none."""
    # Tools may come in the keyword arguments of a provider: calls are an answer, though the text is empty.
    calls = [{"name": call.name, "arguments": call.arguments} for call in calls_in(response.message)]
    return generation_of(
        response.message.content or "",
        scored=_scored(response),
        usage=usage_of(response),
        finish=read_finish(_whole(response.raw)),
        model=read_model(_whole(response.raw)) or model,
        answer=canonical_text(calls) if calls else _wordless(response.message),
        raw=response,
    )


def _wordless(message: ChatMessage) -> str | None:
    """What an answer without words holds, images or audio; None where it holds nothing."""
    if (message.content or "").strip():
        return None
    kept = [block for block in message.blocks if not isinstance(block, (TextBlock, ThinkingBlock))]
    return canonical_text([block.model_dump(mode="json") for block in kept]) if kept else None


def to_generations(response: ChatResponse, *, model: str, n: int) -> list[Generation]:
    """Each answer of a call that was asked for `n`, with a response of its own; usage is the call's and stands on the first."""
    choices = field(response.raw, "choices") if n > 1 else None
    if not isinstance(choices, Sequence) or len(choices) < 2:
        return [to_generation(response, model=model)]
    answers = read_generations(response.raw, model=model)
    return [
        replace(answer, raw=_alone(response, choice, answer.text, first=not position))
        for position, (choice, answer) in enumerate(zip(choices, answers, strict=True))
    ]


def usage_of(response: ChatResponse) -> Usage | None:
    """Tokens billed, or None where the provider said nothing."""
    raw, record = response.raw, response.additional_kwargs.get(KEY)
    if isinstance(record, Mapping):
        # A router's answer: what all its models were billed.
        return recorded_usage(record)
    return read_answer_usage(_whole(raw)) or read_usage(response.additional_kwargs)


def _whole(raw: object) -> object:
    """What tells of a whole answer: the response in the last event of a stream of OpenAI's Responses API, and else `raw`."""
    response = field(raw, "response")
    return raw if field(response, "output") is None else response


def part_scores(raw: object) -> ScoredTokens | None:
    """Those of one chunk of a stream; OpenAI's Responses API sends them once more, all together, with the end of the text."""
    return None if field(raw, "type") == "response.output_text.done" else read_answer_logprobs(raw)


def _alone(response: ChatResponse, choice: object, text: str, *, first: bool) -> ChatResponse:
    """The response as if only this answer had been asked for; the tokens of all stand on the first."""
    update: dict[str, Any] = {"message": ChatMessage(role=response.message.role, content=text)}
    if isinstance(response.raw, Mapping):
        raw = {**response.raw, "choices": [choice]}
        update["raw"] = raw if first else {key: value for key, value in raw.items() if key != "usage"}
    if not first:
        update["additional_kwargs"] = {
            k: v for k, v in response.additional_kwargs.items() if k not in _COUNTS
        }
    return response.model_copy(update=update)


def _scored(response: ChatResponse | CompletionResponse) -> ScoredTokens | None:
    scored = read_answer_logprobs(response.raw)
    if scored is not None or not response.logprobs:
        return scored
    text = response.text if isinstance(response, CompletionResponse) else response.message.content
    return _spelled(response.logprobs, text or "")


def _spelled(places: Sequence[Sequence[LogProb]], text: str) -> ScoredTokens | None:
    """Take the alternative at each place that continues `text`; None unless they spell all of it."""
    position = len(text) - len(text.lstrip())
    chosen: list[LogProb] = []
    for alternatives in places:
        fitting = [
            one for one in alternatives if one.token and text.startswith(_start(one, chosen), position)
        ]
        if not fitting:
            break
        best = max(fitting, key=lambda one: len(one.token))
        position += len(_start(best, chosen))
        chosen.append(best)
    if not chosen or len(chosen) < len(places) or text[position:].strip():
        return None
    return ScoredTokens(
        logprobs=tuple(one.logprob for one in chosen),
        tokens=tuple(one.token for one in chosen),
        alternatives=tuple(
            tuple((one.token, one.logprob) for one in alternatives) for alternatives in places
        ),
    )


def _start(one: LogProb, chosen: Sequence[LogProb]) -> str:
    # Hosts strip the answer, tokenizers put a space before its first word.
    return one.token if chosen else one.token.lstrip()


def chunk_logprobs(chunk: ChatResponse) -> ChunkTokens:
    """Those of one chunk of a stream: empty if it holds no text, None if it does and they are unknown."""
    return chunk_tokens(part_scores(chunk.raw), has_text=_has_text(chunk))


def _has_text(chunk: ChatResponse) -> bool:
    # Some models leave the delta out.
    return bool(chunk.message.content if chunk.delta is None else chunk.delta)


class ChunkCollector:
    """What is spread over the chunks of a stream: usage stands in any of them, log-probabilities in each those of its tokens."""

    __slots__ = ("_finish", "_last", "_scores", "_usage")

    def __init__(self) -> None:
        self._last: ChatResponse | None = None
        # The reason comes with the last token, before a chunk with the usage.
        self._finish: Finish | None = None
        self._usage: Usage | None = None
        self._scores = ChunkScores()

    def add(self, chunk: ChatResponse) -> None:
        """Add the next chunk."""
        self._last, self._usage = chunk, usage_of(chunk) or self._usage
        whole = _whole(chunk.raw)
        if ends_by_reason(whole):
            self._finish = read_finish(whole)
        self._scores.add(part_scores(chunk.raw), has_text=_has_text(chunk))

    def completed(self, *, model: str) -> Generation:
        """The answer that the last chunk makes, with what came before it."""
        if self._last is None:
            return Generation(text="")
        scored, answer = self._scores.whole, to_generation(self._last, model=model)
        return replace(
            answer,
            usage=self._usage,
            finish=self._finish or "unknown",
            unfinished=self._finish is None and bool(answer.text or answer.answer),
            logprobs=scored.logprobs if scored else None,
            tokens=scored.tokens if scored else None,
            top_logprobs=scored.alternatives if scored else None,
        )


def to_response(routed: Routed, record: dict[str, JSON]) -> ChatResponse:
    """Return the child's response, the decision's JSON form beside its own `additional_kwargs`.

    Not in the message: its kwargs are sent to the provider, and printed into prompts, with the next call.
    """
    return _decided(_response(routed), record)


def to_completion(response: ChatResponse) -> CompletionResponse:
    """Return the same as a completion; the host's own converter would write into the message."""
    return CompletionResponse(
        text=response.message.content or "",
        additional_kwargs={**response.message.additional_kwargs, **response.additional_kwargs},
        raw=response.raw,
        logprobs=response.logprobs,
        delta=response.delta,
    )


def to_chunks(
    items: Generator[ChatResponse | Routed, None, None], done: Done
) -> Generator[ChatResponse, None, None]:
    """Yield the chunks as they come, the decision on one more at the end; an answer that came whole is cut up."""
    last: ChatResponse | None = None
    with closing(items):
        for item in items:
            if isinstance(item, Routed):
                yield from _ending(item, done(item), last)
            else:
                last = item
                yield item


async def to_achunks(
    items: AsyncGenerator[ChatResponse | Routed, None], done: Done
) -> AsyncGenerator[ChatResponse, None]:
    """Async form of `to_chunks`."""
    last: ChatResponse | None = None
    async with aclosing(items):
        async for item in items:
            if isinstance(item, Routed):
                for chunk in _ending(item, done(item), last):
                    yield chunk
            else:
                last = item
                yield item


def to_completions(chunks: Generator[ChatResponse, None, None]) -> Generator[CompletionResponse, None, None]:
    """Chunks of a chat as chunks of a completion."""
    with closing(chunks):
        for chunk in chunks:
            yield to_completion(chunk)


async def to_acompletions(
    chunks: AsyncGenerator[ChatResponse, None],
) -> AsyncGenerator[CompletionResponse, None]:
    """Async form of `to_completions`."""
    async with aclosing(chunks):
        async for chunk in chunks:
            yield to_completion(chunk)


def _decided(response: ChatResponse, record: dict[str, JSON]) -> ChatResponse:
    return response.model_copy(update={"additional_kwargs": {**response.additional_kwargs, KEY: record}})


def _ending(routed: Routed, record: dict[str, JSON], last: ChatResponse | None) -> Iterable[ChatResponse]:
    # Of an empty answer nothing that can be read was shown: the draft follows in its place.
    if last is None or (routed.decision.degraded and not last.message.content):
        return _cut_up(_response(routed), record)
    extra = {key: value for key, value in last.additional_kwargs.items() if key != "thinking_delta"}
    return [_decided(last.model_copy(update={"delta": "", "additional_kwargs": extra}), record)]


def _cut_up(response: ChatResponse, record: dict[str, JSON]) -> Generator[ChatResponse, None, None]:
    """Yield a whole answer word by word; the last chunk is the response itself."""
    words = re.findall(r"\s*\S+\s*$|\s*\S+|\s+$", response.message.content or "")
    text = ""
    for word in words[:-1]:
        text += word
        yield ChatResponse(
            message=ChatMessage(role=response.message.role, content=text), delta=word, raw=response.raw
        )
    end = response.model_copy(update={"delta": words[-1] if words else ""})
    yield _decided(end, record)


def _response(routed: Routed) -> ChatResponse:
    raw = routed.generation.raw
    if isinstance(raw, ChatResponse):
        return raw
    # A policy of the user's own may answer with text of its own.
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=routed.generation.text))
