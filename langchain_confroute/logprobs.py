"""Log-probabilities of an answer, in whichever of the providers' shapes they come."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

from langchain_core.messages import BaseMessage


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
