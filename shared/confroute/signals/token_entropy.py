"""Token entropy: how evenly the model spread its choice at each token, bounded where only the top is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    Tops,
    check_one_of,
    logprobs_of,
    over,
    tops_of,
)

# The largest in common use; a larger vocabulary than the true one keeps the upper bound one.
VOCABULARY = 262_144
# Sums of single-precision probabilities miss 1 by about this much.
_ROUNDING = 1e-6


def entropy_bounds(
    logprobs: Sequence[float], *, vocabulary: int = VOCABULARY, cap: float | None = None
) -> tuple[float, float]:
    """Least and greatest entropy, in nats, of a distribution of which only the likeliest outcomes are known.

    Parameters
    ----------
    logprobs : sequence of float
        Natural logarithms of the known outcomes' probabilities; they need not sum to 1.
    vocabulary : int
        Outcomes there are in all, or more.
    cap : float in (0, 1], optional
        The most that any other outcome can have; the least of the known ones by default, since those are the
        likeliest.

    Returns
    -------
    low, high : float
        The rest of the mass adds least where it is piled on as few outcomes as `cap` allows, and most where it is
        spread over all of them (entropy is concave). Equal where nothing is left.

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
    """`entropy_bounds` of each row; `most` of what any of its `others` can have. Minus infinity is no outcome."""
    p = np.exp(values)
    # 0 log 0 is 0, and the logarithm of what is no outcome is not a number to multiply by.
    known = np.maximum(0.0, -(p * np.where(p > 0.0, values, 0.0)).sum(axis=1))
    # More than fits under the cap is the rounding of what was returned.
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
        Over the tokens.
    span : {"all", "answer"}
        All tokens, or those of the final number, option, field values or short answer.
    top_logprobs : int
        Alternatives a token to ask for, 1 or more (OpenAI: at most 20).
    vocabulary : int
        Tokens of the model's vocabulary, or more; only the upper bound depends on it.

    Raises
    ------
    PolicyError
        An unknown word, or numbers out of range.

    Notes
    -----
    Costs nothing more; needs log-probabilities with alternatives. Providers return the k likeliest tokens only, so
    the entropy is known between bounds (`entropy_bounds`): the uncertainty is the lower one, which needs no guess
    about the rest, and both stand in the details (`low_nats`, `high_nats`). Malinin and Gales (arXiv 2002.07650).

    Unlike the log-probability of the drawn token it does not depend on which token was drawn.
    """

    statistic: Over = "mean"
    span: Span = "all"
    top_logprobs: int = 5
    vocabulary: int = VOCABULARY

    def __post_init__(self) -> None:
        check_one_of("statistic", self.statistic, ("mean", "max"))
        check_one_of("span", self.span, ("all", "answer"))
        if not 1 <= self.top_logprobs < self.vocabulary:
            msg = f"top_logprobs is {self.top_logprobs}, vocabulary {self.vocabulary}: expected 1 or more, and less than all"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "token_entropy" if self.span == "all" else f"token_entropy.{self.span}"

    @property
    def range(self) -> Range:
        """0 or more, in nats."""
        return Range(unit="nats")

    def measure(self, case: Case) -> Asking[Measurement]:
        """Return the lower bound; the draft already holds all that is needed.

        Raises
        ------
        SignalUnavailableError
            No alternatives, numbers that are no probabilities, or no answer where its span is wanted.
        """
        yield from ()  # a generator like every other signal, though it asks for nothing
        drawn = logprobs_of(case)
        tops = tops_of(case, self.span, len(drawn), least=1)
        returned = np.arange(tops.values.shape[1]) < tops.counts[:, None]
        least = np.where(returned, tops.values, 0.0).min(axis=1)
        beyond = self._beyond(case.draft.tokens, drawn, tops)
        others = self.vocabulary - tops.counts.astype(np.float64) - np.isfinite(beyond)
        lows, highs = _bounds(np.column_stack([tops.values, beyond]), np.exp(np.minimum(0.0, least)), others)
        low, high = over(lows, self.statistic), over(highs, self.statistic)
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
    def _beyond(tokens: Sequence[str] | None, drawn: Sequence[float], tops: Tops) -> Floats:
        """Log-probability of each drawn token that is none of the alternatives; minus infinity where it is one."""
        values = np.full(len(tops.places), -np.inf)
        if tokens is None:
            return values
        for at, (place, top) in enumerate(zip(tops.places, tops.alternatives, strict=True)):
            token = tokens[place]
            # The drawn token is mostly the likeliest one: looked at first, the others seldom have to be.
            if top[0][0] != token and token not in dict(top):
                values[at] = drawn[place]
        return values
