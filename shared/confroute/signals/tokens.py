"""Shared by the token signals: which tokens of a draft count, and their validated log-probabilities."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.alignment import align, spelling_tokens, without_reasoning
from confroute.errors import BadLogprobsError, PolicyError, SignalUnavailableError
from confroute.signals.answers import Kind, final_span
from confroute.signals.base import Case
from confroute.types import ROUNDING_NATS, Alternatives, checked_logprobs, only_zeros

Spans: TypeAlias = "tuple[tuple[int, int], ...]"
Span: TypeAlias = Literal["all", "answer"]
Aggregation: TypeAlias = Literal["mean", "max"]
Floats: TypeAlias = "npt.NDArray[np.float64]"

# Drafts of which several signals read the tokens.
_RECENT = 64
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
    except (ValueError, RecursionError):  # a number of too many digits, or nested too deeply
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


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftTokens:
    """The draft's log-probabilities, validated, and which of its tokens count.

    Attributes
    ----------
    logprobs : tuple of float
        Of every token that the provider scored.
    positions : sequence of int
        Of the tokens that count, in order; one or more.
    """

    logprobs: tuple[float, ...]
    positions: Sequence[int]

    @property
    def counted(self) -> tuple[float, ...]:
        """The log-probabilities of the tokens that count."""
        return tuple(self.logprobs[position] for position in self.positions)


def draft_tokens(case: Case, span: Span = "all") -> DraftTokens:
    """Find the tokens of the draft's text, or of its final answer, with their log-probabilities.

    Reasoning before the text and tokens past a stop string are left out: they say nothing about the text.

    Raises
    ------
    SignalUnavailableError
        There are no log-probabilities, they are invalid or all exactly 0, or do not cover the whole draft; or `span` is
        "answer" and the tokens have no texts, or the draft holds no answer.
    """
    tokens, logprobs = case.draft.tokens, case.draft.logprobs
    if not tokens or len(tokens) != len(logprobs or ()):
        logprobs = _validated(case, covered=False)
        if span == "answer":
            raise SignalUnavailableError(f"{case.tier.model} returned no token texts to find the answer in")
        return DraftTokens(logprobs=logprobs, positions=range(len(logprobs)))
    positions = _positions(tokens, case.draft.text, case.question, span, structured=bool(case.draft.fields))
    # Tokens that spell the text cover it, whatever else was billed.
    logprobs = _validated(case, covered=positions is not None and not case.draft.fields)
    if positions is None:
        raise SignalUnavailableError(f"the tokens that {case.tier.model} returned do not spell its answer")
    if not positions:
        raise SignalUnavailableError("the draft's tokens hold no number, option, field or short answer")
    return DraftTokens(logprobs=logprobs, positions=positions)


@lru_cache(maxsize=_RECENT)
def _positions(
    tokens: tuple[str, ...], text: str, question: str, span: Span, *, structured: bool
) -> Sequence[int] | None:
    """Positions of the tokens that count; None where they do not spell the draft's text."""
    spelt = "".join(tokens)
    # A structured value may be written in other words than its tokens, in which its fields were found.
    if structured or spelt.strip() == without_reasoning(text):
        if span == "all":
            return spelling_tokens(tokens)
        return tuple(tokens_within(tokens, answer_spans(spelt, question)))
    found = align(tokens, text)
    if found is None or span == "all":
        return None if found is None else found.tokens
    return tuple(found.positions(answer_spans(found.answer, question)))


def _validated(case: Case, *, covered: bool) -> tuple[float, ...]:
    usage = case.draft.usage
    # Some servers do not count tokens and report 0.
    billed = usage.output_tokens if usage and usage.output_tokens and not covered else None
    try:
        logprobs = checked_logprobs(case.draft.logprobs, output_tokens=billed)
    except BadLogprobsError as error:
        raise SignalUnavailableError(str(error)) from error
    if logprobs is None:
        of = "" if case.draft.answer is None else " of the values in its answer"
        raise SignalUnavailableError(f"{case.tier.model} returned no log-probabilities{of}")
    if only_zeros(logprobs):
        msg = f"{case.tier.model} returned {len(logprobs)} log-probabilities that are all exactly 0, as servers do that compute none"
        raise SignalUnavailableError(msg)
    return logprobs


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
    alternatives: tuple[Alternatives, ...] = field(repr=False)


def top_alternatives(case: Case, positions: Sequence[int], *, at_least: int) -> TopAlternatives:
    """The alternatives to the draft's tokens that count, validated.

    Parameters
    ----------
    case : Case
    positions : sequence of int
        Of those tokens; see `draft_tokens`.
    at_least : int
        Number of alternatives that each token must have.

    Raises
    ------
    SignalUnavailableError
        There are no alternatives, a token has too few, or a log-probability is invalid.
    """
    tops = case.draft.top_logprobs
    if not tops:
        raise SignalUnavailableError(f"{case.tier.model} returned no alternatives to its tokens")
    positions = tuple(at for at in positions if at < len(tops))
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
