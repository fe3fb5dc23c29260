"""What the token signals share: which tokens count, and their checked numbers."""

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
from confroute.signals.answers import Kind, final_answer, kind_of, number_span, option_span
from confroute.signals.base import Case
from confroute.types import ROUNDING_NATS, Alternatives, checked_logprobs

Spans: TypeAlias = "tuple[tuple[int, int], ...]"

_OBJECT = re.compile(r"\s*(?:```(?:json)?\s*)?(?=\{)")
_SCALAR = re.compile(
    r'"(?:[^"\\]|\\.)*"(?P<key>\s*:)?|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null', re.DOTALL
)


def answer_spans(text: str, question: str, *, kind: Kind = "auto") -> Spans:
    """Start and end, in characters, of each part of a text that is its answer; empty where there is none.

    Parameters
    ----------
    text : str
        What a model said.
    question : str
        What it was asked: decides between number, option and text where `kind` is "auto".
    kind : {"auto", "number", "option", "text"}
        See `confroute.signals.answers.final_answer`.

    Returns
    -------
    tuple of (start, end)
        Of a JSON object (a structured answer, a call's arguments) every value, none of its keys; else the one
        number or option that `final_answer` reads, or all of a short text.

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
    wanted = kind_of(question) if kind == "auto" else kind
    found = None
    if wanted == "option":
        found = option_span(text)
    elif wanted == "number":
        found = number_span(text)
    if found is not None:
        return (found,)
    if wanted == "text" or (wanted == "number" and kind == "auto"):
        return ((0, len(text)),) if final_answer(text, question, kind="text") is not None else ()
    return ()


def _value_spans(text: str) -> Spans:
    begin = _OBJECT.match(text)
    if begin is None:
        return ()
    try:
        _, end = json.JSONDecoder().raw_decode(text, begin.end())
    except json.JSONDecodeError:
        return ()
    found = _SCALAR.finditer(text, begin.end(), end)
    return tuple(match.span() for match in found if match.lastgroup is None)


def tokens_within(tokens: Sequence[str], spans: Spans) -> list[int]:
    """Places of the tokens that share a character with any of the spans of their joined text, which come in order and apart.

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
    # The first span that ends behind a token's start is the only one that it can begin in or before.
    at = np.searchsorted(lasts, starts, side="right")
    found: list[int] = np.flatnonzero((at < len(lasts)) & (firsts[at - (at == len(lasts))] < ends)).tolist()
    return found


Span: TypeAlias = Literal["all", "answer"]
Over: TypeAlias = Literal["mean", "max"]
Floats: TypeAlias = "npt.NDArray[np.float64]"


def check_one_of(name: str, value: str, known: Sequence[str]) -> None:
    """Refuse a word that a setting does not know.

    Raises
    ------
    PolicyError
        `value` is not one of `known`.
    """
    if value not in known:
        msg = f"{name} is {value!r}: expected {', '.join(map(repr, known[:-1]))} or {known[-1]!r}"
        raise PolicyError(msg)


def logprobs_of(case: Case) -> tuple[float, ...]:
    """The draft's log-probabilities, checked.

    Raises
    ------
    SignalUnavailableError
        There are none, or they are no probabilities of the whole draft.
    """
    usage = case.draft.usage
    # Some servers count nothing and say 0.
    counted = usage.output_tokens if usage and usage.output_tokens else None
    try:
        found = checked_logprobs(case.draft.logprobs, output_tokens=counted)
    except BadLogprobsError as error:
        raise SignalUnavailableError(str(error)) from error
    if found is None:
        raise SignalUnavailableError(f"{case.tier.model} returned no log-probabilities")
    # An end-of-turn token may be counted and not scored, and so may a word that the answer ends with.
    if (counted is None or len(found) < counted) and _spell_a_part(case.draft.tokens, case.draft.text):
        msg = f"{case.tier.model} returned {len(found)} log-probabilities, whose tokens spell only a part of its answer"
        raise SignalUnavailableError(msg)
    return found


def _spell_a_part(tokens: tuple[str, ...] | None, text: str) -> bool:
    """Whether the text goes on before or after what the tokens spell; a stop string or a marker is in the tokens alone."""
    spelled, whole = "".join(tokens or ()).strip(), text.strip()
    return len(spelled) < len(whole) and bool(spelled) and whole.startswith(spelled) | whole.endswith(spelled)


def places_of(case: Case, span: Span, count: int) -> Sequence[int]:
    """Places of the draft's tokens that count: all of them, or those of its final answer.

    Raises
    ------
    SignalUnavailableError
        The final answer is wanted, but there are no token texts to find it in, or there is none in them.
    """
    if span == "all":
        return range(count)
    tokens = case.draft.tokens
    if tokens is None or len(tokens) != count:
        raise SignalUnavailableError(f"{case.tier.model} returned no token texts to find the answer in")
    places = tokens_within(tokens, answer_spans("".join(tokens), case.question))
    if not places:
        raise SignalUnavailableError("the draft's tokens hold no number, option, field or short answer")
    return places


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tops:
    """Alternatives to some of the draft's tokens as one array: a long answer's are scored in a few calls, not in thousands.

    Attributes
    ----------
    values : ndarray of float64, shape (tokens, most alternatives)
        Natural logarithms in the order they came; minus infinity beyond a token's own.
    counts : ndarray of int64, shape (tokens,)
        Alternatives of each token, 1 or more.
    places : tuple of int
        Which of the draft's tokens these are.
    alternatives : tuple of alternatives
        Theirs, with their texts.
    """

    values: Floats
    counts: npt.NDArray[np.int64]
    places: tuple[int, ...]
    alternatives: tuple[Alternatives, ...]


def tops_of(case: Case, span: Span, count: int, *, least: int) -> Tops:
    """The alternatives to the draft's tokens that count, checked.

    Parameters
    ----------
    case : Case
    span : {"all", "answer"}
    count : int
        Tokens of the draft.
    least : int
        Alternatives that each token needs.

    Raises
    ------
    SignalUnavailableError
        There are none, fewer than `least` at a place, numbers that are no probabilities, or no answer where its span is
        wanted.
    """
    tops = case.draft.top_logprobs
    if not tops:
        raise SignalUnavailableError(f"{case.tier.model} returned no alternatives to its tokens")
    places = tuple(place for place in places_of(case, span, count) if place < len(tops))
    if not places:
        raise SignalUnavailableError(f"{case.tier.model} returned no alternatives to the answer's tokens")
    wanted = tops if places == tuple(range(len(tops))) else tuple(tops[place] for place in places)
    counts = np.fromiter(map(len, wanted), np.int64, len(wanted))
    if counts.min() < least:
        at = int(np.argmax(counts < least))
        msg = (
            f"{case.tier.model} returned {counts[at]} alternatives at token {places[at]}: {least} are needed"
        )
        raise SignalUnavailableError(msg)
    flat = np.fromiter(map(itemgetter(1), chain.from_iterable(wanted)), np.float64, int(counts.sum()))
    # Written so that NaN is refused; a probability of 0 comes as minus infinity from some servers.
    bad = ~(flat <= ROUNDING_NATS)
    if bad.any():
        first = int(np.argmax(bad))
        place = places[int(np.searchsorted(counts.cumsum(), first, side="right"))]
        raise SignalUnavailableError(f"an alternative to token {place} has log-probability {flat[first]}")
    values = np.full((len(wanted), int(counts.max())), -np.inf)
    values[np.arange(values.shape[1]) < counts[:, None]] = flat
    return Tops(values=values, counts=counts, places=places, alternatives=wanted)


def over(values: Floats, statistic: Over) -> float:
    """Mean or maximum."""
    return float(values.max() if statistic == "max" else values.mean())
