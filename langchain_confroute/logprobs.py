"""Log-probabilities of an answer, in whichever of the providers' shapes they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from langchain_core.messages import BaseMessage

from confroute.types import Alternatives


def extract_token_logprobs(message: BaseMessage) -> tuple[float, ...] | None:
    """The natural log-probability of each token of an answer.

    Read from `response_metadata["logprobs"]`: OpenAI's `{"content": [...]}`, the flat list of newer Ollama servers
    (dictionaries or objects), and the old completions form `{"token_logprobs": [...]}`.

    Returns
    -------
    tuple of float or None
        As the provider sent them, right or wrong. None where there are none, or where any token lacks its number:
        the rest would speak for an answer of which it saw only a part.

    Examples
    --------
    >>> from langchain_core.messages import AIMessage
    >>> metadata = {"logprobs": {"content": [{"token": "4", "logprob": -0.25}]}}
    >>> extract_token_logprobs(AIMessage("4", response_metadata=metadata))
    (-0.25,)
    >>> extract_token_logprobs(AIMessage("4")) is None
    True
    """
    return read(message)[1]


def extract_tokens(message: BaseMessage) -> tuple[str, ...] | None:
    """The tokens that `extract_token_logprobs` has the numbers of; None where a provider names none.

    Examples
    --------
    >>> from langchain_core.messages import AIMessage
    >>> extract_tokens(AIMessage("4", response_metadata={"logprobs": [{"token": "4", "logprob": -0.25}]}))
    ('4',)
    """
    return read(message)[0]


def extract_top_logprobs(message: BaseMessage) -> tuple[Alternatives, ...] | None:
    """The likeliest tokens at each place of an answer, with their natural log-probabilities, best first.

    Read where `extract_token_logprobs` reads, from each token's "top_logprobs". None where any token has none.

    Examples
    --------
    >>> from langchain_core.messages import AIMessage
    >>> top = [{"token": "4", "logprob": -0.25}, {"token": "5", "logprob": -1.6}]
    >>> metadata = {"logprobs": {"content": [{"token": "4", "logprob": -0.25, "top_logprobs": top}]}}
    >>> extract_top_logprobs(AIMessage("4", response_metadata=metadata))
    ((('4', -0.25), ('5', -1.6)),)
    """
    found: Any = message.response_metadata.get("logprobs")
    if isinstance(found, dict):
        found = found.get("content") or _old_tops(found.get("top_logprobs"))
    if not isinstance(found, (list, tuple)) or not found or not _field(found[0], "top_logprobs"):
        return None
    every = [_field(entry, "top_logprobs") or () for entry in found]
    tops = tuple(tuple((_field(one, "token"), _field(one, "logprob")) for one in top) for top in every)
    sound = all(top and all(isinstance(t, str) and isinstance(v, Real) for t, v in top) for top in tops)
    return tops if sound else None


def _old_tops(found: Any) -> list[dict[str, Any]]:
    """The old completions form, a dictionary of token to number at each place, in the newer one."""
    if not isinstance(found, (list, tuple)):
        return []
    return [
        {"top_logprobs": [{"token": token, "logprob": value} for token, value in (top or {}).items()]}
        for top in found
    ]


def content_of(
    tokens: Sequence[str], logprobs: Sequence[float], tops: Sequence[Alternatives] | None
) -> list[dict[str, Any]]:
    """Tokens with their log-probabilities in OpenAI's shape."""
    each = zip(tokens, logprobs, tops or ((),) * len(tokens), strict=True)
    return [
        {**_scored(token, logprob), "top_logprobs": [_scored(*one) for one in top]}
        for token, logprob, top in each
    ]


def _scored(token: str, logprob: float) -> dict[str, Any]:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "replace"))}


def read(message: BaseMessage) -> tuple[tuple[str, ...] | None, tuple[float, ...] | None]:
    """Tokens and log-probabilities in one pass: hundreds of tokens an answer would cost more than the routing."""
    found: Any = message.response_metadata.get("logprobs")
    if isinstance(found, dict):
        if "token_logprobs" in found:
            return _strings(found.get("tokens") or ()), _floats(found["token_logprobs"] or ())
        found = found.get("content")
    if not isinstance(found, (list, tuple)):
        return None, None
    try:
        return _strings([entry["token"] for entry in found]), _floats([entry["logprob"] for entry in found])
    except (KeyError, TypeError):
        names = ("token", "logprob")
        tokens, values = ([_field(entry, name) for entry in found] for name in names)
        return _strings(tokens), _floats(values)


def chunk_logprobs(chunk: BaseMessage) -> tuple[float, ...] | None:
    """Those of one chunk of a stream: empty if it holds no text, None if it does and they are unknown."""
    found = read(chunk)[1] if "logprobs" in chunk.response_metadata else None
    return () if found is None and not chunk.content else found


def _strings(tokens: Sequence[Any]) -> tuple[str, ...] | None:
    return tuple(tokens) if set(map(type, tokens)) == {str} else None


def _floats(values: Sequence[Any]) -> tuple[float, ...] | None:
    kinds = set(map(type, values))
    if kinds == {float}:
        return tuple(values)
    if not kinds or any(issubclass(kind, bool) or not issubclass(kind, Real) for kind in kinds):
        return None
    return tuple(map(float, values))


def _field(entry: object, name: str) -> Any:
    return entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)
