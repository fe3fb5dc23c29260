"""What the token signals share: which tokens count, and their checked numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

from confroute.errors import BadLogprobsError, PolicyError, SignalUnavailableError
from confroute.signals.base import Case
from confroute.signals.spans import answer_spans, tokens_within
from confroute.types import ROUNDING_NATS, Alternatives, checked_logprobs

Span: TypeAlias = Literal["all", "answer"]
Over: TypeAlias = Literal["mean", "max"]


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
    try:
        found = checked_logprobs(case.draft.logprobs, output_tokens=usage.output_tokens if usage else None)
    except BadLogprobsError as error:
        raise SignalUnavailableError(str(error)) from error
    if found is None:
        raise SignalUnavailableError(f"{case.tier.model} returned no log-probabilities")
    return found


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


def alternatives_of(case: Case, *, least: int) -> tuple[Alternatives, ...]:
    """The draft's alternatives, one or more a token, checked.

    Raises
    ------
    SignalUnavailableError
        There are none, fewer than `least` at a place, or they are no probabilities.
    """
    tops = case.draft.top_logprobs
    if not tops:
        raise SignalUnavailableError(f"{case.tier.model} returned no alternatives to its tokens")
    for place, top in enumerate(tops):
        if len(top) < least:
            msg = f"{case.tier.model} returned {len(top)} alternatives at token {place}: {least} are needed"
            raise SignalUnavailableError(msg)
        for _, value in top:
            # Written so that NaN is refused; a probability of 0 comes as minus infinity from some servers.
            if not value <= ROUNDING_NATS:
                raise SignalUnavailableError(f"an alternative to token {place} has log-probability {value}")
    return tops


def over(values: Sequence[float], statistic: Over) -> float:
    """Mean or maximum."""
    return max(values) if statistic == "max" else math.fsum(values) / len(values)
