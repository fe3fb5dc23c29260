"""Shared by the token signals: which tokens of a draft count, and their validated log-probabilities."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.errors import BadLogprobsError, PolicyError, SignalUnavailableError
from confroute.signals.answers import Kind, final_span
from confroute.signals.base import Case
from confroute.types import ROUNDING_NATS, Alternatives, checked_logprobs

Spans: TypeAlias = "tuple[tuple[int, int], ...]"
Span: TypeAlias = Literal["all", "answer"]
Aggregation: TypeAlias = Literal["mean", "max"]
Floats: TypeAlias = "npt.NDArray[np.float64]"

_OBJECT = re.compile(r"\s*(?:```(?:json)?\s*)?(?=\{)")
_SCALAR = re.compile(
    r'"(?:[^"\\]|\\.)*"(?P<key>\s*:)?|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null', re.DOTALL
)


def answer_spans(text: str, question: str, *, kind: Kind = "auto") -> Spans:
    """Find the parts of a text that are its answer, as start and end in characters; empty where there is none.

    Parameters
    ----------
    text : str
        A model's answer.
    question : str
        The question; it decides between number, option and text where `kind` is "auto".
    kind : {"auto", "number", "option", "text"}
        See `confroute.signals.answers.final_answer`.

    Returns
    -------
    tuple of (start, end)
        In a JSON object (a structured answer, the arguments of a call) all values, without the keys; else the number or
        option that `final_answer` reads, or the whole of a short text.

    Examples
    --------
    >>> text = "3 + 4 = 7, so the answer is 7 apples."
    >>> [text[start:end] for start, end in answer_spans(text, "How many apples?")]
    ['7']
    >>> text = '{"city": "Oslo", "age": 31}'
    >>> [text[start:end] for start, end in answer_spans(text, "")]
    ['"Oslo"', '31']
    """
    fields = _value_spans(text)
    if fields:
        return fields
    span = final_span(text, question, kind=kind)
    return () if span is None else (span,)


def _value_spans(text: str) -> Spans:
    begin = _OBJECT.match(text)
    if begin is None:
        return ()
    try:
        _, end = json.JSONDecoder().raw_decode(text, begin.end())
    except json.JSONDecodeError:
        return ()
    scalars = _SCALAR.finditer(text, begin.end(), end)
    return tuple(match.span() for match in scalars if match.lastgroup is None)


def tokens_within(tokens: Sequence[str], spans: Spans) -> list[int]:
    """Positions of the tokens that share a character with a span of their joined text; spans are sorted and disjoint.

    Examples
    --------
    >>> tokens_within(["The", " answer", " is", " 4", "2", "."], ((14, 16),))
    [3, 4]
    """
    if not spans:
        return []
    firsts, lasts = np.array(spans).T
    ends = np.fromiter(map(len, tokens), np.int64, len(tokens)).cumsum()
    starts = np.concatenate([[0], ends[:-1]])
    # If a token touches any span, it touches the first one that ends after the token's start.
    at = np.searchsorted(lasts, starts, side="right")
    touches = (at < len(lasts)) & (firsts[at - (at == len(lasts))] < ends)
    positions: list[int] = np.flatnonzero(touches).tolist()
    return positions


def check_one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Raise PolicyError unless `value` is one of the `known` choices of a setting."""
    if value not in known:
        msg = f"{name} is {value!r}: expected {', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
        raise PolicyError(msg)


def draft_logprobs(case: Case) -> tuple[float, ...]:
    """The draft's log-probabilities, validated.

    Raises
    ------
    SignalUnavailableError
        There are none, they are invalid, or they do not cover the whole draft.
    """
    usage = case.draft.usage
    # Some servers do not count tokens and report 0.
    counted = usage.output_tokens if usage and usage.output_tokens else None
    try:
        logprobs = checked_logprobs(case.draft.logprobs, output_tokens=counted)
    except BadLogprobsError as error:
        raise SignalUnavailableError(str(error)) from error
    if logprobs is None:
        raise SignalUnavailableError(f"{case.tier.model} returned no log-probabilities")
    # Fewer scores than counted tokens may be a missing end-of-turn token, or a missing last word of the answer.
    if (counted is None or len(logprobs) < counted) and _spell_a_part(case.draft.tokens, case.draft.text):
        msg = f"{case.tier.model} returned {len(logprobs)} log-probabilities, whose tokens spell only a part of its answer"
        raise SignalUnavailableError(msg)
    return logprobs


def _spell_a_part(tokens: tuple[str, ...] | None, text: str) -> bool:
    """Whether the tokens spell a proper prefix or suffix of the text; they may add a stop string or a marker."""
    spelled, whole = "".join(tokens or ()).strip(), text.strip()
    return len(spelled) < len(whole) and bool(spelled) and whole.startswith(spelled) | whole.endswith(spelled)


def token_positions(case: Case, span: Span, count: int) -> Sequence[int]:
    """Positions of the draft's tokens that count: all of them, or those of its final answer.

    Raises
    ------
    SignalUnavailableError
        `span` is "answer", but the tokens have no texts, or their texts hold no answer.
    """
    if span == "all":
        return range(count)
    tokens = case.draft.tokens
    if tokens is None or len(tokens) != count:
        raise SignalUnavailableError(f"{case.tier.model} returned no token texts to find the answer in")
    positions = tokens_within(tokens, answer_spans("".join(tokens), case.question))
    if not positions:
        raise SignalUnavailableError("the draft's tokens hold no number, option, field or short answer")
    return positions


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TopAlternatives:
    """Alternatives to some of the draft's tokens as one array, so that numpy scores a long answer in a few calls.

    Attributes
    ----------
    values : ndarray of float64, shape (tokens, largest count)
        Natural logarithms in the provider's order, padded with minus infinity.
    counts : ndarray of int64, shape (tokens,)
        Number of alternatives of each token, 1 or more.
    positions : tuple of int
        Positions of these tokens in the draft.
    alternatives : tuple of alternatives
        The alternatives of each token, with their texts.
    """

    values: Floats
    counts: npt.NDArray[np.int64]
    positions: tuple[int, ...]
    alternatives: tuple[Alternatives, ...]


def top_alternatives(case: Case, span: Span, count: int, *, at_least: int) -> TopAlternatives:
    """The alternatives to the draft's tokens that count, validated.

    Parameters
    ----------
    case : Case
    span : {"all", "answer"}
    count : int
        Number of the draft's tokens.
    at_least : int
        Number of alternatives that each token must have.

    Raises
    ------
    SignalUnavailableError
        There are no alternatives, a token has too few, a log-probability is invalid, or `span` is "answer" and the draft
        holds no answer.
    """
    tops = case.draft.top_logprobs
    if not tops:
        raise SignalUnavailableError(f"{case.tier.model} returned no alternatives to its tokens")
    positions = tuple(at for at in token_positions(case, span, count) if at < len(tops))
    if not positions:
        raise SignalUnavailableError(f"{case.tier.model} returned no alternatives to the answer's tokens")
    selected = tops if positions == tuple(range(len(tops))) else tuple(tops[at] for at in positions)
    counts = np.fromiter(map(len, selected), np.int64, len(selected))
    if counts.min() < at_least:
        at = int(np.argmax(counts < at_least))
        msg = f"{case.tier.model} returned {counts[at]} alternatives at token {positions[at]}: expected at least {at_least}"
        raise SignalUnavailableError(msg)
    flat = np.fromiter(map(itemgetter(1), chain.from_iterable(selected)), np.float64, int(counts.sum()))
    # The comparison is written so that NaN is refused; some servers report a probability of 0 as minus infinity.
    bad = ~(flat <= ROUNDING_NATS)
    if bad.any():
        first = int(np.argmax(bad))
        position = positions[int(np.searchsorted(counts.cumsum(), first, side="right"))]
        raise SignalUnavailableError(f"an alternative to token {position} has log-probability {flat[first]}")
    values = np.full((len(selected), int(counts.max())), -np.inf)
    values[np.arange(values.shape[1]) < counts[:, None]] = flat
    return TopAlternatives(values=values, counts=counts, positions=positions, alternatives=selected)


def aggregate(values: Floats, statistic: Aggregation) -> float:
    """The mean or the maximum of the values."""
    return float(values.max() if statistic == "max" else values.mean())
