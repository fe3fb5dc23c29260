"""Reads what providers answer with: log-probabilities, usage, finish reasons, names of models and roles.

Dictionaries and clients' objects are read alike, in the shapes of OpenAI (chat, completions, Responses), Ollama, Gemini and
the servers that copy them. Nothing is repaired: numbers come back as they were sent, and where one token of an answer lacks its
number there is no evidence, since the rest would speak for an answer of which it saw only a part.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from dataclasses import field as dataclass_field
from numbers import Real
from typing import Any, TypeAlias

from confroute.alignment import is_numbered
from confroute.errors import TierError
from confroute.types import Alternatives, Finish, Generation, Role, Usage

_ROLES: dict[str, Role] = {
    **dict.fromkeys(("system", "developer", "SystemMessageChunk"), "system"),
    **dict.fromkeys(("user", "human", "HumanMessageChunk"), "user"),
    **dict.fromkeys(("assistant", "ai", "chatbot", "model", "AIMessageChunk"), "assistant"),
    **dict.fromkeys(("tool", "function", "ToolMessageChunk"), "tool"),
}
_FINISHES: dict[str, Finish] = {
    **dict.fromkeys(("stop", "end_turn", "stop_sequence", "eos_token"), "stop"),
    **dict.fromkeys(
        ("length", "max_tokens", "model_length", "max_output_tokens", "model_context_window_exceeded"),
        "length",
    ),
    # Not at its end, and a longer call would have gone on.
    **dict.fromkeys(("error_limit", "pause_turn", "time_limit"), "length"),
    **dict.fromkeys(("tool_calls", "tool_use", "function_call"), "tool_calls"),
    **dict.fromkeys(
        (
            "content_filter",
            "content_filtered",
            "guardrail_intervened",
            "refusal",
            "sensitive",
            "safety",
            "recitation",
        ),
        "content_filter",
    ),
    **dict.fromkeys(
        ("blocklist", "prohibited_content", "spii", "image_safety", "error_toxic", "language"),
        "content_filter",
    ),
    **dict.fromkeys(
        (
            "error",
            "failed",
            "abort",
            "network_error",
            "insufficient_system_resource",
            "malformed_function_call",
            "unexpected_tool_call",
            "timeout",
        ),
        "error",
    ),
    **dict.fromkeys(("cancelled", "user_cancel"), "cancelled"),
}
# The state of an answer of OpenAI's Responses API that has ended; it has no reason beside this where it is whole.
_ENDED: dict[str, Finish] = {"completed": "stop", "failed": "error", "cancelled": "cancelled"}
# Where an answer, a choice of it or a chunk says why it ended.
_ENDINGS = ("choices", "finish_reason", "stop_reason", "done_reason", "incomplete_details", "delta")
_RARE_ENDINGS = ("candidates", "finishReason", "status")
_OK = 200
_USAGE_KEYS = (
    ("prompt_tokens", "completion_tokens"),
    ("input_tokens", "output_tokens"),
    ("prompt_eval_count", "eval_count"),
    ("prompt_token_count", "candidates_token_count"),
    ("promptTokenCount", "candidatesTokenCount"),
)
# Where providers keep parts of the counts above: in details, named "place.name" here, or beside them. LangChain writes OpenAI's
# class of service before its names.
_TIERS = ("", "priority_", "flex_")
_CACHED_KEYS = (
    "prompt_tokens_details.cached_tokens",
    "input_tokens_details.cached_tokens",
    *(f"input_token_details.{tier}cache_read" for tier in _TIERS),
    "prompt_cache_hit_tokens",
    "cached_content_token_count",
    "cachedContentTokenCount",
)
_WRITE_KEYS = (
    "prompt_tokens_details.cache_write_tokens",
    "input_tokens_details.cache_write_tokens",
    *(f"input_token_details.{tier}cache_creation" for tier in _TIERS),
    # Anthropic's, by how long they are kept: LangChain writes 0 for the sum where it has these.
    "input_token_details.ephemeral_5m_input_tokens",
    "input_token_details.ephemeral_1h_input_tokens",
)
_REASONING_KEYS = (
    "completion_tokens_details.reasoning_tokens",
    "output_tokens_details.reasoning_tokens",
    "output_tokens_details.thinking_tokens",
    *(f"output_token_details.{tier}reasoning" for tier in _TIERS),
)
# Counted beside the counts above, and not among them: of the prompt read from and written to a cache, of the answer thoughts.
_CACHE_READ, _CACHE_WRITE = "cache_read_input_tokens", "cache_creation_input_tokens"
_THOUGHTS = ("thoughts_token_count", "thoughtsTokenCount")


_DETAILS: dict[str, list[str]] = {}
for _place, _, _name in (
    key.partition(".") for key in (*_CACHED_KEYS, *_WRITE_KEYS, *_REASONING_KEYS) if "." in key
):
    _DETAILS.setdefault(_place, []).append(_name)
_BESIDE = (*(key for key in _CACHED_KEYS if "." not in key), _CACHE_READ, _CACHE_WRITE, *_THOUGHTS)
_NOT_PYDANTIC = object()
# Every name at the top of a bill, to read one that is an object by.
_BILL = (*(name for pair in _USAGE_KEYS for name in pair), *_DETAILS, *_BESIDE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredTokens:
    """Log-probabilities of the tokens that were drawn, as the provider gave them.

    Attributes
    ----------
    logprobs : tuple of float
        Natural logarithms, one per token.
    tokens : tuple of str or None
        The tokens; None where the provider names none.
    alternatives : tuple of alternatives or None
        The likeliest tokens at each place, best first; None where any place has none.
    """

    logprobs: tuple[float, ...]
    tokens: tuple[str, ...] | None = dataclass_field(default=None, repr=False)
    alternatives: tuple[Alternatives, ...] | None = dataclass_field(default=None, repr=False)


# Of one chunk of a stream; empty where it holds no text, None where the tokens of its text are unknown.
ChunkTokens: TypeAlias = "ScoredTokens | tuple[float, ...] | None"


def field(holder: object, name: str) -> Any:
    """The value under `name` in a dictionary or an object; None where there is none.

    Examples
    --------
    >>> field({"model": "small"}, "model"), field(None, "model")
    ('small', None)
    """
    # Asking the abstract class alone takes longer than all the rest.
    if type(holder) is dict or isinstance(holder, Mapping):
        return holder.get(name)
    return getattr(holder, name, None)


def fields(holder: object, *names: str) -> list[Any]:
    """The values under several names, each as `field` reads it.

    Examples
    --------
    >>> fields({"model": "small"}, "model", "usage")
    ['small', None]
    """
    if type(holder) is dict or isinstance(holder, Mapping):
        return [*map(holder.get, names)]
    return [getattr(holder, name, None) for name in names]


def role_of(name: str | None, default: Role = "user") -> Role:
    """The role that a host or provider calls `name`.

    Examples
    --------
    >>> role_of("human"), role_of("developer"), role_of("narrator")
    ('user', 'system', 'user')
    """
    return _ROLES.get(name or "", default)


def is_role(name: str | None) -> bool:
    """Whether `name` is a role that hosts and providers use, and not one of the user's own."""
    return name in _ROLES


def read_logprobs(found: object) -> ScoredTokens | None:
    """Read a provider's value of "logprobs".

    Parameters
    ----------
    found : object
        `{"content": [...]}` of OpenAI's chat, the bare list of Ollama and Responses, or the columns `{"tokens": [...],
        "token_logprobs": [...], "top_logprobs": [...]}` of completions.

    Returns
    -------
    ScoredTokens or None
        None where there are none, or where any token lacks its number.

    Examples
    --------
    >>> read_logprobs({"content": [{"token": "4", "logprob": -0.25}]}).logprobs
    (-0.25,)
    >>> read_logprobs([{"token": "4", "logprob": -0.25}, {"token": "2", "logprob": None}]) is None
    True
    """
    entries = found if isinstance(found, (list, tuple)) else field(found, "content")
    if not entries:
        return _read_columns(found)
    if not isinstance(entries, (list, tuple)):
        return None
    try:
        # Hundreds of tokens per answer, read by anything slower, would cost more than the routing.
        values, tokens = [one["logprob"] for one in entries], [one["token"] for one in entries]
    except (KeyError, TypeError):
        values, tokens = ([field(one, name) for one in entries] for name in ("logprob", "token"))
    has_alternatives = field(entries[0], "top_logprobs")
    alternatives = [field(one, "top_logprobs") for one in entries] if has_alternatives else ()
    if is_numbered(tokens[0]):
        spelt = [_by_bytes(one, token) for one, token in zip(entries, tokens, strict=True)]
        alternatives = [_renamed(*one) for one in zip(alternatives, tokens, spelt, strict=False)]
        tokens = spelt
    return _scored(values, tokens, alternatives)


def read_answer_logprobs(raw: object) -> ScoredTokens | None:
    """Read the log-probabilities in a provider's whole answer, or in its part of one chunk of a stream.

    All hosts read answers here: LangChain's `response_metadata`, LlamaIndex's `raw`, the reply of OpenAI's client.
    """
    choices, beside, output = fields(raw, "choices", "logprobs", "output")
    # An empty `logprobs` of a choice must not hide those beside it.
    for found in (field(_first(choices), "logprobs"), beside) if choices else (beside,):
        scored = read_logprobs(found) if found else None
        if scored is not None:
            return scored
    if not isinstance(output, (list, tuple)):
        return None if choices else _read_candidate(raw)
    blocks = [block for item in output for block in _items(item, "content")]
    return read_logprobs([one for block in blocks for one in _items(block, "logprobs")]) if blocks else None


class ChunkScores:
    """Log-probabilities that come chunk by chunk: of each chunk for who watches it, and of the whole at the end.

    Examples
    --------
    >>> scores = ChunkScores()
    >>> scores.add(ScoredTokens(logprobs=(-0.1,)), has_text=True).logprobs, scores.add(None, has_text=False)
    ((-0.1,), ())
    >>> scores.whole.logprobs
    (-0.1,)
    """

    __slots__ = ("_complete", "_parts")

    def __init__(self) -> None:
        self._parts: list[ScoredTokens] = []
        self._complete = True

    def add(self, scored: ScoredTokens | None, *, has_text: bool) -> ChunkTokens:
        """Add one chunk; returns its tokens as `chunk_tokens` does."""
        if scored is not None:
            self._parts.append(scored)
        elif has_text:
            # A part of the answer without any: the rest says nothing about the whole.
            self._complete = False
        return chunk_tokens(scored, has_text=has_text)

    @property
    def whole(self) -> ScoredTokens | None:
        """Those of the whole answer; None where any chunk with text had none."""
        if not self._complete or not self._parts:
            return None
        tokens = [one.tokens for one in self._parts]
        places = [one.alternatives for one in self._parts]
        return ScoredTokens(
            logprobs=tuple(value for one in self._parts for value in one.logprobs),
            tokens=None if None in tokens else tuple(token for some in tokens for token in some or ()),
            alternatives=None if None in places else tuple(place for some in places for place in some or ()),
        )


def chunk_tokens(scored: ScoredTokens | None, *, has_text: bool) -> ChunkTokens:
    """The scored tokens of one chunk of a stream: empty if it holds no text, None if it does and they are unknown.

    A chunk without text is of the model's reasoning, of a tool call or a part of a character: nothing of it is shown.
    """
    if not has_text:
        return ()
    return scored


def read_usage(*holders: object) -> Usage | None:
    """The tokens billed, from the first of `holders` that tells both counts; None where none does.

    Counts below 0, and 0 of both, are not a bill: that provider reported nothing.

    Examples
    --------
    >>> read_usage(None, {"prompt_tokens": 7, "completion_tokens": 2})
    Usage(input_tokens=7, output_tokens=2)
    >>> read_usage(
    ...     {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}
    ... )
    Usage(input_tokens=7, output_tokens=2, cached_tokens=4)
    >>> read_usage({"prompt_tokens": -7, "completion_tokens": 2}) is None
    True
    """
    for holder in holders:
        usage = _bill(_told(holder)) if holder else None
        if usage is not None:
            return usage if usage.input_tokens or usage.output_tokens else None
    return None


def read_answer_usage(answer: object) -> Usage | None:
    """The tokens billed, from a whole answer or the chunk of a stream that tells them.

    llama.cpp's server tells beside the bill, in its timings, how much of the prompt it had read before; newer ones in the bill too.

    Examples
    --------
    >>> read_answer_usage({"usage": {"prompt_tokens": 7, "completion_tokens": 2}, "timings": {"cache_n": 4}})
    Usage(input_tokens=7, output_tokens=2, cached_tokens=4)
    """
    bill, other, timings = fields(answer, "usage", "usage_metadata", "timings")
    usage = read_usage(bill, other)
    cached = field(timings, "cache_n")
    if usage is None or usage.cached_tokens or not _is_count(cached):
        return usage
    return replace(usage, cached_tokens=min(cached, usage.input_tokens))


def _bill(told: Mapping[str, Any]) -> Usage | None:
    """What one bill says; None where it tells not both counts."""
    for prompt, answer in _USAGE_KEYS:
        if prompt in told and _is_count(told[prompt]) and _is_count(told.get(answer)):
            break
    else:
        return None
    counts = _parts(told)
    if not counts:
        return Usage(input_tokens=told[prompt], output_tokens=told[answer])
    read, written = counts.get(_CACHE_READ, 0), counts.get(_CACHE_WRITE, 0)
    thoughts = next((counts[key] for key in _THOUGHTS if key in counts), 0)
    sent, made = told[prompt] + read + written, told[answer] + thoughts
    cached = min(sent, next((counts[key] for key in _CACHED_KEYS if counts.get(key)), read))
    return Usage(
        input_tokens=sent,
        output_tokens=made,
        cached_tokens=cached,
        cache_write_tokens=min(sent - cached, written or sum([counts.get(key, 0) for key in _WRITE_KEYS])),
        reasoning_tokens=min(
            made, next((counts[key] for key in _REASONING_KEYS if counts.get(key)), thoughts)
        ),
    )


def _parts(told: Mapping[str, Any]) -> dict[str, int]:
    """The counts of a bill that stand beside its two main ones, those of its details as "place.name"."""
    counts = {name: told[name] for name in _BESIDE if name in told and _is_count(told[name])}
    for place, names in _DETAILS.items():
        details = told.get(place)
        for name in names if details else ():
            value = field(details, name)
            if _is_count(value):
                counts[f"{place}.{name}"] = value
    return counts


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _told(holder: object) -> Mapping[str, Any]:
    """A bill by its names. Pydantic's objects say no slowly: asking one for each of twenty takes 50 microseconds."""
    if isinstance(holder, Mapping):
        return holder
    extra: Any = getattr(holder, "model_extra", _NOT_PYDANTIC)
    if extra is _NOT_PYDANTIC:
        return {name: getattr(holder, name, None) for name in _BILL}
    return {**vars(holder), **(extra or {})}


def read_finish(*holders: object) -> Finish:
    """Why the answer ended, from the first of `holders` (a choice, an answer, its metadata) that says so.

    Examples
    --------
    >>> (
    ...     read_finish({"choices": [{"finish_reason": "length"}]}),
    ...     read_finish({"done_reason": "stop"}),
    ...     read_finish(None),
    ... )
    ('length', 'stop', 'unknown')
    """
    reason = _reason(holders)
    return finish_of(reason) if reason else "unknown"


def ends_by_reason(*holders: object) -> bool:
    """Whether any of `holders` says why the answer ended, also in words that `read_finish` does not know.

    Examples
    --------
    >>> ends_by_reason({"finish_reason": "recitation"}), ends_by_reason({"finish_reason": None})
    (True, False)
    """
    return bool(_reason(holders))


def _reason(holders: Iterable[object]) -> Any:
    for holder in holders:
        choices, finish, stop, done, incomplete, delta = fields(holder, *_ENDINGS)
        reason = (
            (choices and field(_first(choices), "finish_reason"))
            or (finish or stop or done)
            or (incomplete and field(incomplete, "reason"))
            or (delta and field(delta, "stop_reason"))
            or (None if choices else _rare_reason(holder))
        )
        if reason:
            return reason
    return None


def _rare_reason(holder: object) -> Any:
    """Of a whole answer of Gemini's, and the state of one of OpenAI's Responses API."""
    candidates, finish, status = fields(holder, *_RARE_ENDINGS)
    candidate = _first(candidates)
    return (
        (candidate and (field(candidate, "finishReason") or field(candidate, "finish_reason")))
        or finish
        or (_ENDED.get(status) if isinstance(status, str) else None)
    )


def finish_of(reason: object) -> Finish:
    """What a provider's own word for the end of an answer means.

    Examples
    --------
    >>> finish_of("max_tokens"), finish_of("safety"), finish_of(None)
    ('length', 'content_filter', 'unknown')
    """
    # Google's client gives a member of an enumeration, "FinishReason.MAX_TOKENS".
    return _FINISHES.get(str(reason).lower().rpartition(".")[2], "unknown")


def read_model(holder: object) -> str | None:
    """The name of the model that answered, where the provider says it."""
    for value in fields(holder, "model_name", "model"):
        if isinstance(value, str) and value:
            return value
    return None


def read_error(raw: object) -> tuple[str, int | None] | None:
    """What a provider says went wrong in a reply that should have been an answer, and the HTTP status that it names.

    Examples
    --------
    >>> read_error({"error": {"message": "overloaded", "code": 502}})
    ('overloaded', 502)
    >>> read_error({"error": "loading"}), read_error({"choices": []})
    (('loading', None), None)
    """
    error = field(raw, "error")
    if not error and field(raw, "object") == "error":
        error = raw
    if not error:
        return None
    text = error if isinstance(error, str) else field(error, "message") or field(error, "detail")
    codes = (field(error, name) for name in ("code", "status"))
    status = next((code for code in codes if isinstance(code, int) and 400 <= code < 600), None)
    return str(text or "an error without a message"), status


def no_answer(model: str | None, raw: object) -> TierError:
    """The error of a reply without an answer: some servers answer 200 and put it, with the status it should have had, into the body.

    Examples
    --------
    >>> error = no_answer("small", {"error": {"message": "overloaded", "code": 502}})
    >>> str(error), error.status_code
    ('small returned an error in place of an answer: overloaded', 502)
    """
    said = read_error(raw)
    if said is None:
        return TierError(f"{model} returned no choices")
    error = TierError(f"{model} returned an error in place of an answer: {said[0]}")
    if said[1] is not None:
        error.__dict__["status_code"] = said[1]
    return error


def read_generations(raw: object, *, model: str | None = None) -> list[Generation]:
    """Every answer under "choices" of a provider's reply; the usage of all stands on the first.

    Parameters
    ----------
    raw : object
        A completion in OpenAI's shape.
    model : str, optional
        The model's name where the reply has none.

    Examples
    --------
    >>> raw = {"choices": [{"message": {"content": "4"}, "finish_reason": "stop"}], "model": "small"}
    >>> read_generations(raw)[0].text
    '4'
    """
    usage, name = read_answer_usage(raw), read_model(raw) or model
    choices = _items(raw, "choices")
    return [
        generation_of(
            _text(field(field(choice, "message"), "content")) or _text(field(choice, "text")),
            # What stands beside the choices speaks for one answer only.
            scored=read_answer_logprobs(raw if len(choices) == 1 else choice),
            usage=usage if position == 0 else None,
            finish=read_finish(choice),
            model=name,
        )
        for position, choice in enumerate(choices)
    ]


def answer_behind(error: BaseException) -> Generation | None:
    """The answer that a client received, read and then raised an error about, such as a value that does not fit its schema.

    Returns
    -------
    Generation or None
        With its text, usage and log-probabilities; None where the error is about anything but an answer.
    """
    at: BaseException | None = error
    while at is not None:
        raw = getattr(at, "completion", None) or _body(getattr(at, "response", None))
        answers = read_generations(raw)
        if answers:
            return answers[0]
        if _items(raw, "output"):  # of OpenAI's Responses
            return Generation(text="", usage=read_answer_usage(raw), model=read_model(raw))
        at = at.__cause__
    return None


def _body(response: object) -> object:
    """The JSON of an HTTP response that holds an answer."""
    if getattr(response, "status_code", None) != _OK:
        return None
    try:
        return response.json()  # type: ignore[attr-defined]  # httpx's and requests' alike
    except (AttributeError, ValueError):
        return None


def generation_of(text: str, *, scored: ScoredTokens | None, **fields: Any) -> Generation:
    """One answer with its log-probabilities; `fields` are the other fields of `Generation`."""
    if scored is None:
        return Generation(text=text, **fields)
    return Generation(
        text=text,
        logprobs=scored.logprobs,
        tokens=scored.tokens,
        top_logprobs=scored.alternatives,
        **fields,
    )


def logprobs_content(
    tokens: Iterable[str], logprobs: Sequence[float], alternatives: Sequence[Alternatives] | None = None
) -> list[dict[str, Any]]:
    """Tokens with their log-probabilities as OpenAI's chat writes them, which `read_logprobs` reads back.

    Examples
    --------
    >>> logprobs_content(["4"], [-0.25])
    [{'token': '4', 'logprob': -0.25, 'bytes': [52], 'top_logprobs': []}]
    """
    places = zip(tokens, logprobs, alternatives or ((),) * len(logprobs), strict=True)
    return [
        {**_written(token, logprob), "top_logprobs": [_written(*one) for one in place]}
        for token, logprob, place in places
    ]


def _written(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "replace"))}


def _by_bytes(entry: object, token: Any) -> Any:
    r"""A token that is named by its number as its bytes spell it, as "bytes:\\xf0" where they are part of a character."""
    spelt = field(entry, "bytes")
    if not (isinstance(spelt, (list, tuple)) and all(type(one) is int and 0 <= one < 256 for one in spelt)):
        return token
    try:
        return bytes(spelt).decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{one:02x}" for one in spelt)


def _renamed(place: Any, token: Any, spelt: Any) -> Any:
    """The alternatives to a token, of which it is the only one whose bytes spell it."""
    if not isinstance(place, (list, tuple)):
        return place
    pairs = [(field(one, "token"), field(one, "logprob")) for one in place]
    return [{"token": spelt if name == token else name, "logprob": value} for name, value in pairs]


def _read_candidate(raw: object) -> ScoredTokens | None:
    """Of Gemini's answer as it was sent, or as its client's objects; the mean of all tokens alone is no evidence of each."""
    candidate = _first(field(raw, "candidates")) or raw
    result = field(candidate, "logprobsResult") or field(candidate, "logprobs_result")
    if not result:
        return None
    if isinstance(result, (list, tuple)):
        return read_logprobs(result)
    chosen = _items(result, "chosenCandidates") or _items(result, "chosen_candidates")
    places = _items(result, "topCandidates") or _items(result, "top_candidates")
    tops = [[_named(one) for one in _items(place, "candidates")] for place in places]
    entries = [_named(one) for one in chosen]
    return (
        _scored([one["logprob"] for one in entries], [one["token"] for one in entries], tops)
        if entries
        else None
    )


def _named(candidate: object) -> dict[str, Any]:
    """One token of Gemini's under OpenAI's names."""
    value = field(candidate, "logProbability")
    return {
        "token": field(candidate, "token"),
        "logprob": field(candidate, "log_probability") if value is None else value,
    }


def _read_columns(found: object) -> ScoredTokens | None:
    values = field(found, "token_logprobs")
    if not isinstance(values, (list, tuple)):
        return None
    return _scored(values, field(found, "tokens"), field(found, "top_logprobs"))


def _scored(values: Sequence[Any], tokens: Any, alternatives: Any) -> ScoredTokens | None:
    logprobs = _numbers(values)
    if logprobs is None:
        return None
    named = isinstance(tokens, (list, tuple)) and set(map(type, tokens)) == {str}
    return ScoredTokens(
        logprobs=logprobs,
        tokens=tuple(tokens) if named and len(tokens) == len(logprobs) else None,
        alternatives=_alternatives(alternatives, len(logprobs)) if alternatives else None,
    )


def _numbers(values: Sequence[Any]) -> tuple[float, ...] | None:
    kinds = set(map(type, values))
    if kinds == {float}:
        return tuple(values)
    if not kinds or any(issubclass(kind, bool) or not issubclass(kind, Real) for kind in kinds):
        return None
    return tuple(map(float, values))


def _alternatives(places: Any, count: int) -> tuple[Alternatives, ...] | None:
    """Those of each place, a list of entries or a dictionary of token to number; None where any place has none."""
    if not isinstance(places, (list, tuple)) or len(places) != count or not all(places):
        return None
    every = [
        tuple(place.items())
        if isinstance(place, Mapping)
        else tuple((field(one, "token"), field(one, "logprob")) for one in place)
        for place in places
    ]
    sound = all(
        isinstance(token, str) and isinstance(value, Real) for place in every for token, value in place
    )
    return tuple(every) if sound else None


def _items(holder: object, name: str) -> Sequence[Any]:
    value = field(holder, name)
    return value if isinstance(value, (list, tuple)) else ()


def _first(items: object) -> Any:
    return items[0] if isinstance(items, (list, tuple)) and items else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
