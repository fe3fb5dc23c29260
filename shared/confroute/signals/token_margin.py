"""Top-2 margin: how far ahead the likeliest token was of the second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from confroute.decision import Measurement
from confroute.errors import PolicyError
from confroute.registry import register
from confroute.signals.base import Asking, Case, Range
from confroute.signals.tokens import (
    Floats,
    Over,
    Span,
    check_one_of,
    logprobs_of,
    over,
    tops_of,
)


def margins(values: Floats) -> Floats:
    """Probability of the likeliest token minus that of the second, a row; in [0, 1].

    Parameters
    ----------
    values : ndarray of float64, shape (tokens, 2 or more)
        Natural logarithms of the alternatives' probabilities, in any order.

    Examples
    --------
    >>> margins(np.log([[0.2, 0.7], [0.5, 0.4]])).round(3).tolist()
    [0.5, 0.1]
    """
    best = np.exp(np.minimum(0.0, np.partition(values, -2, axis=1)[:, -2:]))
    return np.asarray(best[:, 1] - best[:, 0])


@register(kind="signal", needs="two alternatives per token", columns={"token_margin": {}})
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
        doubts = 1.0 - margins(tops_of(case, self.span, len(logprobs_of(case)), least=2).values)
        return Measurement(
            signal=self.name,
            uncertainty=over(doubts, self.statistic),
            details={
                "statistic": self.statistic,
                "least_margin": round(1.0 - float(doubts.max()), 6),
                "tokens": len(doubts),
            },
        )
