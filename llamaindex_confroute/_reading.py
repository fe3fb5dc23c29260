"""What providers put into their responses: log-probabilities, usage, why they stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, LogProb

from confroute.types import Alternatives, Finish, Generation, Usage

_FINISH: dict[str, Finish] = {
    "stop": "stop",
    "end_turn": "stop",
    "stop_sequence": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "cancelled": "cancelled",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """Log-probabilities of the tokens that were drawn, as the provider gave them."""

    logprobs: tuple[float, ...]
    tokens: tuple[str, ...] | None = None
    tops: tuple[Alternatives, ...] | None = None


def extract_token_logprobs(response: ChatResponse | CompletionResponse) -> tuple[float, ...] | None:
    """Natural log-probability of each generated token, where the provider returned them.

    Read from `response.raw`: OpenAI-compatible servers (`choices[0].logprobs.content`, or `.token_logprobs` of text
    completions), Ollama (`raw["logprobs"]`) and confroute's own local models. `response.logprobs` comes last: it
    holds the likeliest alternatives at each place, not the token that was drawn, so it counts only where the
    alternatives spell the answer.

    Returns
    -------
    tuple of float or None
        As the provider gave them, unchecked; NaN where it gave none for a token. None if there are none at all.

    Examples
    --------
    >>> from llama_index.core.llms import ChatMessage
    >>> raw = {"choices": [{"logprobs": {"content": [{"token": "4", "logprob": -0.25}]}}]}
    >>> extract_token_logprobs(ChatResponse(message=ChatMessage(content="4"), raw=raw))
    (-0.25,)
    """
    scored = scored_tokens(response)
    return scored.logprobs if scored else None


def scored_tokens(response: ChatResponse | CompletionResponse) -> Scored | None:
    """`extract_token_logprobs` with the tokens."""
    scored = scored_in_raw(response.raw)
    if scored is not None:
        return scored
    text = response.text if isinstance(response, CompletionResponse) else response.message.content
    return _spelled(response.logprobs or [], text or "")


def scored_in_raw(raw: Any) -> Scored | None:
    """Those in a provider's own answer, or in its part of one chunk of a stream."""
    choice = _first(read(raw, "choices"))
    for found in (read(choice, "logprobs"), read(raw, "logprobs")):
        scored = _scored(found)
        if scored is not None:
            return scored
    return None


def generation_of(response: ChatResponse, *, model: str, answer: str | None = None) -> Generation:
    """Return a response as the core sees it.

    Parameters
    ----------
    response : ChatResponse
    model : str
        Name to use where the response has none.
    answer : str, optional
        The part to compare, where it is not in the text.
    """
    scored = scored_tokens(response)
    return Generation(
        text=response.message.content or "",
        logprobs=scored.logprobs if scored else None,
        tokens=scored.tokens if scored else None,
        top_logprobs=scored.tops if scored else None,
        usage=usage_of(response),
        finish=finish_of(response),
        model=_text(read(response.raw, "model")) or model,
        answer=answer,
        raw=response,
    )


def split(generation: Generation) -> list[Generation]:
    """Each answer of a call that was asked for several; usage is the call's and stands on the first."""
    response = generation.raw
    choices = read(response.raw, "choices") if isinstance(response, ChatResponse) else None
    if not isinstance(choices, Sequence) or len(choices) < 2:
        return [generation]
    answers = []
    for position, choice in enumerate(choices):
        scored = _scored(read(choice, "logprobs"))
        text = _text(read(read(choice, "message"), "content")) or ""
        answers.append(
            replace(
                generation,
                text=text,
                raw=_alone(response, choice, text, first=not position),
                logprobs=scored.logprobs if scored else None,
                tokens=scored.tokens if scored else None,
                top_logprobs=scored.tops if scored else None,
                usage=None if position else generation.usage,
                finish=_FINISH.get(str(read(choice, "finish_reason")).lower(), "unknown"),
            )
        )
    return answers


def _alone(response: ChatResponse, choice: object, text: str, *, first: bool) -> ChatResponse:
    """The response as if only this answer had been asked for; the tokens of all stand on the first."""
    message = ChatMessage(role=response.message.role, content=text)
    update: dict[str, Any] = {"message": message}
    if isinstance(response.raw, Mapping):
        raw = {**response.raw, "choices": [choice]}
        update["raw"] = raw if first else {key: value for key, value in raw.items() if key != "usage"}
    if not first:
        counts = ("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens")
        update["additional_kwargs"] = {k: v for k, v in response.additional_kwargs.items() if k not in counts}
    return response.model_copy(update=update)


def usage_of(response: ChatResponse | CompletionResponse) -> Usage | None:
    """Tokens billed, or None where the provider said nothing."""
    for source in (read(response.raw, "usage"), response.additional_kwargs):
        for into, out in (("prompt_tokens", "completion_tokens"), ("input_tokens", "output_tokens")):
            given, made = read(source, into), read(source, out)
            if isinstance(given, int) and isinstance(made, int):
                return Usage(input_tokens=given, output_tokens=made)
    return None


def finish_of(response: ChatResponse | CompletionResponse) -> Finish:
    """Why generation ended."""
    raw = response.raw
    said = read(_first(read(raw, "choices")), "finish_reason")
    for key in ("done_reason", "finish_reason", "stop_reason"):
        said = said or read(raw, key)
    return _FINISH.get(str(said).lower(), "unknown")


def read(holder: Any, key: str) -> Any:
    """Read a dict or an object: providers answer in both."""
    if isinstance(holder, Mapping):
        return holder.get(key)
    return getattr(holder, key, None)


def _first(items: Any) -> Any:
    return items[0] if isinstance(items, Sequence) and not isinstance(items, str) and items else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _scored(found: Any) -> Scored | None:
    if found is None:
        return None
    content = found if isinstance(found, (list, tuple)) else read(found, "content")
    if content:
        tokens = [read(item, "token") for item in content]
        return Scored(
            logprobs=_numbers(read(item, "logprob") for item in content),
            tokens=tuple(tokens) if all(isinstance(token, str) for token in tokens) else None,
            tops=_tops([read(item, "top_logprobs") for item in content]),
        )
    values, tokens = read(found, "token_logprobs"), read(found, "tokens")
    if not values:
        return None
    tops = read(found, "top_logprobs")
    return Scored(
        logprobs=_numbers(values),
        tokens=tuple(tokens) if isinstance(tokens, (list, tuple)) else None,
        tops=_tops(tops) if isinstance(tops, (list, tuple)) else None,
    )


def _tops(places: Sequence[Any]) -> tuple[Alternatives, ...] | None:
    """The alternatives of each place, a list of objects or a dictionary; None where any place has none."""
    every = [
        [*place.items()]
        if isinstance(place, Mapping)
        else [(read(one, "token"), read(one, "logprob")) for one in place or ()]
        for place in places
    ]
    sound = all(
        top and all(isinstance(t, str) and isinstance(v, (int, float)) for t, v in top) for top in every
    )
    return tuple(map(tuple, every)) if every and sound else None


def _numbers(values: Iterable[Any]) -> tuple[float, ...]:
    """NaN for what is missing: dropping it would pass the rest off as the whole answer."""
    return tuple(float(value) if isinstance(value, (int, float)) else float("nan") for value in values)


def _spelled(places: Sequence[Sequence[LogProb]], text: str) -> Scored | None:
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
    return Scored(
        logprobs=tuple(one.logprob for one in chosen),
        tokens=tuple(one.token for one in chosen),
        tops=tuple(tuple((one.token, one.logprob) for one in alternatives) for alternatives in places),
    )


def _start(one: LogProb, chosen: Sequence[LogProb]) -> str:
    # Hosts strip the answer, tokenizers put a space before its first word.
    return one.token if chosen else one.token.lstrip()
