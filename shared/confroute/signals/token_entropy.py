"""Token entropy: how evenly the model spread its choice at each token, bounded where only the top is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    known = [value for value in logprobs if value > -700.0]  # what is less likely has probability 0 in floats
    p = [math.exp(value) for value in known]
    entropy = 0.0
    for probability, value in zip(p, known, strict=True):
        entropy -= probability * value
    entropy = max(0.0, entropy)
    others = vocabulary - len(logprobs)
    most = cap if cap is not None else (min(p) if len(p) == len(logprobs) and p else 0.0)
    # More than fits under the cap is the rounding of what was returned.
    rest = min(1.0 - sum(p), others * most)
    if rest <= _ROUNDING:
        return entropy, entropy
    full = math.floor(rest / most)
    left = rest - full * most
    low = entropy - full * most * math.log(most) - (left * math.log(left) if left > 0.0 else 0.0)
    high = entropy - rest * math.log(rest / others)
    return low, max(low, high)


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
        drawn, tops = logprobs_of(case), alternatives_of(case, least=1)
        places = places_of(case, self.span, len(drawn))
        tokens = case.draft.tokens
        bounds = []
        for place in places:
            if place >= len(tops):
                break
            known = [value for _, value in tops[place]]
            cap = math.exp(min(0.0, *known))
            if tokens is not None and all(text != tokens[place] for text, _ in tops[place]):
                known.append(drawn[place])
            bounds.append(entropy_bounds(known, vocabulary=self.vocabulary, cap=cap))
        low, high = (over([pair[side] for pair in bounds], self.statistic) for side in (0, 1))
        return Measurement(
            signal=self.name,
            uncertainty=low,
            details={
                "statistic": self.statistic,
                "low_nats": round(low, 6),
                "high_nats": round(high, 6),
                "tokens": len(bounds),
            },
        )
