"""Token entropy: entropy of the next-token distribution, bounded where only the likeliest tokens are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    TopAlternatives,
    aggregate,
    check_one_of,
    draft_tokens,
    top_alternatives,
)

# The largest vocabulary in common use; with one larger than the model's, the upper bound stays valid.
VOCABULARY = 262_144
# A sum of single-precision probabilities is off from 1 by about this much.
_ROUNDING = 1e-6


def entropy_bounds(
    logprobs: Sequence[float], *, vocabulary: int = VOCABULARY, cap: float | None = None
) -> tuple[float, float]:
    """Bound the entropy, in nats, of a distribution of which only the likeliest outcomes are known.

    Parameters
    ----------
    logprobs : sequence of float
        Natural logarithms of the known outcomes' probabilities; they need not sum to 1.
    vocabulary : int
        Total number of outcomes, or more.
    cap : float in (0, 1], optional
        The highest probability that any other outcome can have; by default the lowest of the known ones, since those are
        the likeliest.

    Returns
    -------
    low, high : float
        The remaining mass adds the least entropy where it is concentrated on as few outcomes as `cap` allows, and the
        most where it is spread evenly over all of them. Equal where no mass remains.

    Examples
    --------
    >>> low, high = entropy_bounds([math.log(0.5), math.log(0.25)], vocabulary=4)
    >>> round(low, 4), round(high, 4)  # 0.25 left: one outcome, or two of 0.125
    (1.0397, 1.213)
    """
    if cap is None:
        cap = math.exp(min(logprobs)) if len(logprobs) else 0.0
    others = np.array([float(vocabulary - len(logprobs))])
    low, high = _bounds(np.asarray([logprobs], dtype=np.float64), np.array([cap]), others)
    return float(low[0]), float(high[0])


def _bounds(values: Floats, most: Floats, others: Floats) -> tuple[Floats, Floats]:
    """`entropy_bounds` of each row, whose `others` have a probability of at most `most` each; minus infinity is padding."""
    p = np.exp(values)
    # The limit of p log p is 0; the product with minus infinity would be NaN.
    known = np.maximum(0.0, -(p * np.where(p > 0.0, values, 0.0)).sum(axis=1))
    # Mass that does not fit under the cap is a rounding error of the provider.
    rest = np.minimum(1.0 - p.sum(axis=1), others * most)
    open_ = rest > _ROUNDING
    low, high = known.copy(), known.copy()
    rest, most, others = rest[open_], most[open_], others[open_]
    full = np.floor(rest / most)
    left = np.maximum(0.0, rest - full * most)
    low[open_] -= full * most * np.log(most) + left * np.log(np.where(left > 0.0, left, 1.0))
    high[open_] -= rest * np.log(rest / others)
    return low, np.maximum(low, high)


@register(kind="signal", needs="alternatives per token", columns={"token_entropy": {}})
@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEntropy:
    """Entropy of the next-token distribution over the draft's tokens, in nats; 0 or more.

    Parameters
    ----------
    statistic : {"mean", "max"}
        Aggregation over the tokens.
    span : {"all", "answer"}
        All tokens, or only those of the final number, option, field values or short answer.
    top_logprobs : int
        Alternatives to request per token, 1 or more (OpenAI returns at most 20).
    vocabulary : int
        Size of the model's vocabulary, or more; only the upper bound depends on it.

    Raises
    ------
    PolicyError
        An unknown choice, or numbers out of range.

    Notes
    -----
    No extra cost; needs log-probabilities with alternatives. Providers return only the k likeliest tokens, so
    the entropy is known up to bounds (`entropy_bounds`). The uncertainty is the lower bound, which needs no assumption
    about the rest; the details hold both (`low_nats`, `high_nats`). Malinin and Gales (arXiv 2002.07650).

    Unlike the log-probability of the drawn token, it does not depend on which token was drawn.
    """

    statistic: Aggregation = "mean"
    span: Span = "all"
    top_logprobs: int = 5
    vocabulary: int = VOCABULARY

    def __post_init__(self) -> None:
        check_one_of("statistic", self.statistic, ("mean", "max"))
        check_one_of("span", self.span, ("all", "answer"))
        if not 1 <= self.top_logprobs < self.vocabulary:
            msg = f"top_logprobs is {self.top_logprobs} and vocabulary {self.vocabulary}: expected at least 1 alternative and a larger vocabulary"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "token_entropy" if self.span == "all" else f"token_entropy.{self.span}"

    @property
    def range(self) -> Range:
        """0 or more, in nats."""
        return Range(unit="nats")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Return the lower bound; the draft already holds all evidence.

        Raises
        ------
        SignalUnavailableError
            Alternatives are missing or invalid, or `span="answer"` and the draft holds no answer.
        """
        yield from ()  # a generator like every other signal, although it asks for nothing
        drawn = draft_tokens(case, self.span)
        tops = top_alternatives(case, drawn.positions, at_least=1)
        returned = np.arange(tops.values.shape[1]) < tops.counts[:, None]
        least = np.where(returned, tops.values, 0.0).min(axis=1)
        unlisted = self._unlisted(case.draft.tokens, drawn.logprobs, tops)
        others = self.vocabulary - tops.counts.astype(np.float64) - np.isfinite(unlisted)
        known = np.column_stack([tops.values, unlisted])
        lows, highs = _bounds(known, np.exp(np.minimum(0.0, least)), others)
        low, high = aggregate(lows, self.statistic), aggregate(highs, self.statistic)
        return Measurement(
            signal=self.name,
            uncertainty=low,
            details={
                "statistic": self.statistic,
                "low_nats": round(low, 6),
                "high_nats": round(high, 6),
                "tokens": len(lows),
            },
        )

    @staticmethod
    def _unlisted(tokens: Sequence[str] | None, drawn: Sequence[float], tops: TopAlternatives) -> Floats:
        """Log-probability of each drawn token that is not among its alternatives; minus infinity where it is."""
        values = np.full(len(tops.positions), -np.inf)
        if tokens is None:
            return values
        for at, (position, top) in enumerate(zip(tops.positions, tops.alternatives, strict=True)):
            token = tokens[position]
            # The drawn token is mostly the likeliest one, so it is compared first.
            if top[0][0] != token and token not in dict(top):
                values[at] = drawn[position]
        return values
