"""Top-2 margin: how far ahead the likeliest token was of the second."""

from __future__ import annotations

import math
from dataclasses import dataclass

from confroute.decision import Measurement
from confroute.errors import PolicyError
from confroute.signals._tokens import (
    Over,
    Span,
    alternatives_of,
    check_one_of,
    logprobs_of,
    over,
    places_of,
)
from confroute.signals.base import Asking, Case, Range
from confroute.types import Alternatives


def margin(top: Alternatives) -> float:
    """Probability of the likeliest token minus that of the second; in [0, 1].

    Examples
    --------
    >>> round(margin((("A", math.log(0.7)), ("B", math.log(0.2)))), 3)
    0.5
    """
    *_, second, first = sorted([value for _, value in top])
    return math.exp(min(0.0, first)) - math.exp(min(0.0, second))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenMargin:
    """1 - margin between the two likeliest tokens, over the draft's tokens; in [0, 1], higher means less reliable.

    Parameters
    ----------
    statistic : {"mean", "max"}
        Over the tokens: "max" is the closest call among them.
    span : {"all", "answer"}
        All tokens, or those of the final number, option, field values or short answer.
    top_logprobs : int
        Alternatives a token to ask for, 2 or more.

    Raises
    ------
    PolicyError
        An unknown word, or fewer than 2 alternatives.

    Notes
    -----
    Costs nothing more; needs log-probabilities with two alternatives a token. The token margin is what UCCI
    (arXiv 2605.18796) calibrates. It does not depend on which token was drawn, and it has no length bias beyond that
    of its mean.
    """

    statistic: Over = "mean"
    span: Span = "all"
    top_logprobs: int = 2

    def __post_init__(self) -> None:
        check_one_of("statistic", self.statistic, ("mean", "max"))
        check_one_of("span", self.span, ("all", "answer"))
        if self.top_logprobs < 2:
            msg = f"top_logprobs is {self.top_logprobs}: a margin needs at least 2 alternatives a token"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "token_margin" if self.span == "all" else f"token_margin.{self.span}"

    @property
    def range(self) -> Range:
        """1 - a difference of probabilities."""
        return Range(high=1.0, unit="1 - margin")

    def measure(self, case: Case) -> Asking[Measurement]:
        """Return 1 - margin; the draft already holds all that is needed.

        Raises
        ------
        SignalUnavailableError
            Fewer than two alternatives, numbers that are no probabilities, or no answer where its span is wanted.
        """
        yield from ()  # a generator like every other signal, though it asks for nothing
        tops = alternatives_of(case, least=2)
        places = places_of(case, self.span, len(logprobs_of(case)))
        doubts = [1.0 - margin(tops[place]) for place in places if place < len(tops)]
        return Measurement(
            signal=self.name,
            uncertainty=over(doubts, self.statistic),
            details={
                "statistic": self.statistic,
                "least_margin": round(1.0 - max(doubts), 6),
                "tokens": len(doubts),
            },
        )
