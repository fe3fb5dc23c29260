"""Top-2 margin: how far the likeliest token is ahead of the second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.errors import PolicyError
from confroute.registry import register
from confroute.signals.base import Case, Range
from confroute.signals.tokens import (
    Aggregation,
    Floats,
    Span,
    aggregate,
    check_one_of,
    draft_tokens,
    top_alternatives,
)


def margins(values: Floats) -> Floats:
    """Probability of the likeliest token minus that of the second, per row; in [0, 1].

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
        Aggregation over the tokens: "max" takes the smallest margin.
    span : {"all", "answer"}
        All tokens, or only those of the final number, option, field values or short answer.
    top_logprobs : int
        Alternatives to request per token, 2 or more.

    Raises
    ------
    PolicyError
        An unknown choice, or fewer than 2 alternatives.

    Notes
    -----
    No extra cost; needs log-probabilities with two alternatives per token. UCCI (arXiv 2605.18796) calibrates the token
    margin. It does not depend on which token was drawn, and has no length bias beyond that of the mean.
    """

    statistic: Aggregation = "mean"
    span: Span = "all"
    top_logprobs: int = 2

    def __post_init__(self) -> None:
        check_one_of("statistic", self.statistic, ("mean", "max"))
        check_one_of("span", self.span, ("all", "answer"))
        if self.top_logprobs < 2:
            msg = f"top_logprobs is {self.top_logprobs}: expected at least 2 alternatives per token for a margin"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "token_margin" if self.span == "all" else f"token_margin.{self.span}"

    @property
    def range(self) -> Range:
        """1 - a difference of probabilities."""
        return Range(high=1.0, unit="1 - margin")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Return 1 - margin; the draft already holds all evidence.

        Raises
        ------
        SignalUnavailableError
            Alternatives are missing, fewer than two or invalid, or `span="answer"` and the draft holds no answer.
        """
        yield from ()  # a generator like every other signal, although it asks for nothing
        tops = top_alternatives(case, draft_tokens(case, self.span).positions, at_least=2)
        closeness = 1.0 - margins(tops.values)
        return Measurement(
            signal=self.name,
            uncertainty=aggregate(closeness, self.statistic),
            details={
                "statistic": self.statistic,
                "least_margin": round(1.0 - float(closeness.max()), 6),
                "tokens": len(closeness),
            },
        )
