"""What the token signals share: which tokens count, and their checked numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.errors import BadLogprobsError, PolicyError, SignalUnavailableError
from confroute.signals.base import Case
from confroute.signals.spans import answer_spans, tokens_within
from confroute.types import ROUNDING_NATS, Alternatives, checked_logprobs

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
