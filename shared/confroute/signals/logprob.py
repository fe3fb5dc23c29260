"""Token log-probabilities of the draft: free where the provider returns them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.errors import PolicyError
from confroute.registry import register
from confroute.signals.base import Case, Range
from confroute.signals.tokens import Span, check_one_of, draft_tokens
from confroute.types import JSON

Statistic: TypeAlias = Literal["mean", "max", "quantile", "sum", "perplexity"]
_QUANTILES = (("q50", 0.5), ("q75", 0.75), ("q90", 0.9))
_LARGEST_EXPONENT = 700.0  # exp overflows above about 709


def token_nll(logprobs: tuple[float, ...], *, quantile: float = 0.9) -> dict[str, float]:
    """Statistics of the tokens' negative log-probabilities, in nats, each 0 or more.

    Parameters
    ----------
    logprobs : tuple of float, at least one
        Natural logarithms, one per generated token.
    quantile : float in [0, 1]
        Which quantile is returned under "quantile".

    Returns
    -------
    dict
        `mean` (its exponential is the perplexity), `max` (the least likely token), `sum` (of the whole
        sequence), `quantile`, and the quantiles `q50`, `q75`, `q90`.

    Notes
    -----
    `sum` grows with every token, so it ranks answers by length as much as by doubt. `mean` favours long answers,
    whose many certain tokens hide one wrong number. Gupta et al. (arXiv 2404.10136) find that on some tasks the sum is
    worse than random, and that quantiles are better features.

    Examples
    --------
    >>> stats = token_nll((-0.1, -0.3))
    >>> round(stats["mean"], 3), round(stats["max"], 3), round(stats["sum"], 3)
    (0.2, 0.3, 0.4)
    """
    # Plain Python: for an answer's few tokens numpy's quantile alone takes ten times as long.
    rounded = max(logprobs) > 0.0
    nll = sorted(map(abs, (min(0.0, value) for value in logprobs) if rounded else logprobs))
    total = math.fsum(nll)
    stats = {"mean": total / len(nll), "max": nll[-1], "sum": total, "quantile": _quantile(nll, quantile)}
    return stats | {name: _quantile(nll, share) for name, share in _QUANTILES}


def _quantile(ordered: list[float], share: float) -> float:
    """Interpolate linearly between order statistics, as numpy does by default."""
    at = share * (len(ordered) - 1)
    low = int(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


@register(
    kind="signal",
    needs="log-probabilities",
    columns={
        "token_logprob.mean": {},
        "token_logprob.max": {"statistic": "max"},
        "token_logprob.sum": {"statistic": "sum"},
        "token_logprob.q50": {"statistic": "quantile", "quantile": 0.5},
        "token_logprob.q75": {"statistic": "quantile", "quantile": 0.75},
        "token_logprob.q90": {"statistic": "quantile", "quantile": 0.9},
        "token_logprob.answer": {"span": "answer"},
    },
)
@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """Negative log-probability of the draft's tokens, in nats; 0 or more, higher means less reliable.

    Parameters
    ----------
    statistic : {"mean", "max", "quantile", "sum", "perplexity"}
        Which statistic of the tokens is the uncertainty; the others are in the details. See `token_nll` for
        their length bias. The perplexity, 1 or more, is the exponential of the mean and ranks answers the same way.
    quantile : float in [0, 1]
        For `statistic="quantile"`.
    span : {"all", "answer"}
        All tokens, or only those of the final number, option, field values or short answer, so that many certain tokens
        do not hide one wrong number. Needs the tokens' texts.

    Raises
    ------
    PolicyError
        An unknown statistic or a quantile outside [0, 1].

    Notes
    -----
    In a structured answer or a tool call only the values count, and the least certain of them is the uncertainty: one
    wrong field spoils the whole, while names and braces are always certain. The details hold the number of each field.

    Needs log-probabilities; no extra cost. The "max" of the negative log-probability is the "min" of the
    log-probability.

    Examples
    --------
    >>> from confroute.types import Generation, Tier
    >>> case = Case(
    ...     tier=Tier(name="edge", model="m"), question="?", draft=Generation(text="4", logprobs=(-0.25,))
    ... )
    >>> next(TokenLogprob().measure(case))
    Traceback (most recent call last):
    StopIteration: Measurement(signal='token_logprob', uncertainty=0.25, ...
    """

    statistic: Statistic = "mean"
    quantile: float = 0.9
    span: Span = "all"

    def __post_init__(self) -> None:
        check_one_of("statistic", self.statistic, ("mean", "max", "quantile", "sum", "perplexity"))
        check_one_of("span", self.span, ("all", "answer"))
        if not 0 <= self.quantile <= 1:
            msg = f"quantile is {self.quantile}: expected a number in [0, 1]"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "token_logprob" if self.span == "all" else f"token_logprob.{self.span}"

    @property
    def range(self) -> Range:
        """0 or more, in nats; a perplexity has no unit."""
        return Range(unit="perplexity" if self.statistic == "perplexity" else "nats")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Return the statistic of the draft's log-probabilities.

        Raises
        ------
        SignalUnavailableError
            Log-probabilities are missing or invalid, or `span="answer"` and the draft holds no answer.
        """
        yield from ()  # a generator like every other signal, although it asks for nothing
        counted = draft_tokens(case, self.span).counted
        stats = token_nll(counted, quantile=self.quantile)
        fields = {
            path: self._value(token_nll(values, quantile=self.quantile))
            for path, values in case.draft.fields.items()
        }
        details: dict[str, JSON] = {f"{name}_nats": round(value, 6) for name, value in stats.items()}
        details |= {
            "statistic": self.statistic,
            "tokens": len(counted),
            "cut_off": case.draft.finish == "length",
        }
        if fields:
            details["fields"] = {path: round(value, 6) for path, value in fields.items()}
            return Measurement(signal=self.name, uncertainty=max(fields.values()), details=details)
        return Measurement(signal=self.name, uncertainty=self._value(stats), details=details)

    def _value(self, stats: dict[str, float]) -> float:
        if self.statistic == "perplexity":
            return math.exp(min(stats["mean"], _LARGEST_EXPONENT))
        return stats[self.statistic]
