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
    return _floats(_column(message, "logprob"))


def extract_tokens(message: BaseMessage) -> tuple[str, ...] | None:
    """The tokens that `extract_token_logprobs` has the numbers of; None where a provider names none.

    Examples
    --------
    >>> from langchain_core.messages import AIMessage
    >>> extract_tokens(AIMessage("4", response_metadata={"logprobs": [{"token": "4", "logprob": -0.25}]}))
    ('4',)
    """
    tokens = _column(message, "token")
    return tuple(tokens) if tokens and all(type(token) is str for token in tokens) else None


def _floats(values: Sequence[Any]) -> tuple[float, ...] | None:
    # Hundreds of tokens an answer: the abstract number types would cost more than the routing itself.
    if not values or not all(type(value) is float or _is_number(value) for value in values):
        return None
    return tuple(map(float, values))


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _column(message: BaseMessage, name: str) -> Sequence[Any]:
    found: Any = message.response_metadata.get("logprobs")
    if isinstance(found, dict):
        if "token_logprobs" in found:
            return found["token_logprobs" if name == "logprob" else "tokens"] or ()
        found = found.get("content")
    if not isinstance(found, (list, tuple)):
        return ()
    return [entry.get(name) if type(entry) is dict else _read(entry, name) for entry in found]


def _read(entry: object, name: str) -> Any:
    return entry.get(name) if isinstance(entry, Mapping) else getattr(entry, name, None)
