"""Semantic entropy: how evenly a model's answers are spread over different meanings."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.answers import normalised
from confroute.signals.base import Case, Range, answer_texts, draw_samples, given_answers
from confroute.signals.clusters import Clusters, bounds, normalised_entropy
from confroute.signals.consistency import check_sampling
from confroute.signals.equivalence import Equivalence, Match, SameText
from confroute.signals.stopping import MOST_ANSWERS, EwensMixture
from confroute.signals.tokens import draft_tokens
from confroute.types import JSON, Generation, checked_logprobs

Weighting: TypeAlias = Literal["discrete", "probability"]


def semantic_entropy(
    answers: Sequence[str],
    *,
    question: str = "",
    same: Callable[[str, str], bool] | None = None,
    logprobs: Sequence[Sequence[float]] | None = None,
) -> float:
    """Compute the semantic entropy of answers that you already have; in [0, 1].

    Parameters
    ----------
    answers : sequence of str
        2 or more; their order does not matter.
    question : str
        The question; it decides whether numbers or options are compared.
    same : callable, optional
        `same(a, b)` says whether `a` entails `b`; it is called in both directions for answers whose texts do not
        settle it. By default only equal normalised texts, numbers and options are the same.
    logprobs : sequence of sequences of float, optional
        Token log-probabilities of each answer: clusters are then weighted by probability instead of counted.

    Raises
    ------
    PolicyError
        Fewer than 2 answers, or `logprobs` of another length or with an empty list.
    BadLogprobsError
        A log-probability is NaN, infinite or above 0.

    Examples
    --------
    >>> semantic_entropy(["Paris", "London", "Paris and London"]), semantic_entropy(["Paris", "paris."])
    (1.0, 0.0)
    """
    if len(answers) < 2:
        msg = f"{len(answers)} answers: expected at least 2 for semantic entropy"
        raise PolicyError(msg)
    if logprobs is not None and (len(logprobs) != len(answers) or not all(map(len, logprobs))):
        msg = f"{len(logprobs)} lists of log-probabilities for {len(answers)} answers: expected one non-empty list per answer"
        raise PolicyError(msg)
    order = sorted(range(len(answers)), key=lambda i: (normalised(answers[i]), answers[i]))
    clusters = Clusters(question=question, equivalence=_CallerEquivalence(entails=same))
    for i in order:
        _exhaust(clusters.add(answers[i]))
    weights = (
        None if logprobs is None else [_weight(checked_logprobs(tuple(logprobs[i])) or ()) for i in order]
    )
    return normalised_entropy(_cluster_weights(clusters, weights), len(answers))


@dataclass(frozen=True, slots=True, kw_only=True)
class _CallerEquivalence:
    """An equivalence made of the caller's own function."""

    entails: Callable[[str, str], bool] | None

    def match(self, question: str, representatives: Sequence[str], text: str) -> AskGenerator[Match]:
        yield from ()
        entails = self.entails
        if entails is None:
            return Match()
        both = (i for i, first in enumerate(representatives) if entails(first, text) and entails(text, first))
        return Match(index=next(both, None))


def _exhaust(generator: AskGenerator[int]) -> None:
    """Run a generator that yields no asks."""
    for ask in generator:
        msg = f"a comparison yielded {ask}, which nothing answers here: expected one that needs no model"
        raise TypeError(msg)


def _weight(logprobs: tuple[float, ...]) -> float:
    """Length-normalised sequence probability; without the normalisation, long answers would have no weight."""
    return math.exp(sum(logprobs) / len(logprobs))


def _cluster_weights(clusters: Clusters, weights: Sequence[float] | None) -> list[float]:
    if weights is None:
        return [float(count) for count in clusters.counts]
    totals = [0.0] * len(clusters.representatives)
    for label, weight in zip(clusters.labels, weights, strict=True):
        totals[label] += weight
    return totals


@register(
    kind="signal",
    needs="samples, an equivalence",
    columns={"semantic_entropy": {}, "semantic_entropy.probability": {"weighting": "probability"}},
    per_samples=("n", "step"),
)
@dataclass(frozen=True, slots=True, kw_only=True)
class SemanticEntropy:
    """Entropy over the meanings of the edge's own samples, in units of log(n); in [0, 1], higher means less reliable.

    Parameters
    ----------
    n : int
        The largest number of samples, 2 or more. The draft is one answer more.
    temperature : float
        Above 0.
    step : int
        Samples drawn at a time.
    equivalence : Equivalence
        What makes two answers the same: `SameText`, `SameEmbedding` or `SameEntailment`.
    weighting : {"discrete", "probability"}
        Count answers, or weight each by its length-normalised probability (needs log-probabilities of the samples).
    stop : EwensMixture, optional
        Stop, too, once the decision would change with a probability of at most its `eps`. Needs the discrete weighting, and
        at most 30 samples.

    Raises
    ------
    PolicyError
        Numbers out of range, an unknown weighting, or `stop` with the probability weighting or with more samples.

    Notes
    -----
    Farquhar et al. (Nature 630, 2024) and Kuhn et al. (arXiv 2302.09664). Deviations: the draft is one of the
    answers; the value is divided by the logarithm of their number, so it lies in [0, 1] for any n; each answer belongs to exactly
    one cluster; and sampling stops when no completion can change the decision (`bounds`). With the probability weighting it never stops early, since a
    later answer may have any weight.
    """

    n: int = 5
    temperature: float = 0.7
    step: int = 1
    equivalence: Equivalence = field(default_factory=SameText)
    weighting: Weighting = "discrete"
    stop: EwensMixture | None = None

    def __post_init__(self) -> None:
        check_sampling(self.n, self.temperature, self.step)
        if self.weighting not in ("discrete", "probability"):
            msg = f"weighting is {self.weighting!r}: expected 'discrete' or 'probability'"
            raise PolicyError(msg)
        if self.stop is not None and self.weighting != "discrete":
            msg = "stop= and weighting='probability' exclude each other, since a later answer may have any weight: use weighting='discrete'"
            raise PolicyError(msg)
        if self.stop is not None and self.n >= MOST_ANSWERS:
            msg = f"n is {self.n} with stop=: expected at most {MOST_ANSWERS - 1} samples, or none of stop="
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "semantic_entropy"

    @property
    def range(self) -> Range:
        """Units of log(n)."""
        return Range(high=1.0, unit="of log n")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Draw and cluster samples until none can change the decision.

        Raises
        ------
        SignalUnavailableError
            The tier cannot sample, or the samples lack the log-probabilities to weight them by.
        """
        clusters = Clusters(
            question=case.question, equivalence=self.equivalence, given=given_answers([case.draft])
        )
        low, high = 0.0, 1.0
        drawn: list[Generation] = []
        while len(drawn) < self.n and not (drawn and self._settled(case, low, high)):
            known = len(drawn)
            drawn = yield from draw_samples(
                case, min(self.n, known + self.step), temperature=self.temperature
            )
            clusters.given |= given_answers(drawn[known:])
            yield from clusters.extend(answer_texts(case, drawn)[len(clusters.labels) :])
            low, high = bounds(clusters.counts, self.n + 1)
            probable = self.stop and self.stop.probable_range(clusters.counts, self.n + 1, case.settled)
            if probable:
                low, high = probable
                break
        return self._measurement(case, clusters, drawn, low, high)

    def _settled(self, case: Case, low: float, high: float) -> bool:
        return self.weighting == "discrete" and case.settled(low, high)

    def _measurement(
        self, case: Case, clusters: Clusters, drawn: list[Generation], low: float, high: float
    ) -> Measurement:
        answers = [case.draft, *drawn]
        weights = [_answer_weight(case, one) for one in answers] if self.weighting == "probability" else None
        value = normalised_entropy(_cluster_weights(clusters, weights), len(answers))
        if weights is None:
            value = min(max(value, low), high)
        prior: dict[str, JSON] = {} if self.stop is None else {"prior": self.stop.source}
        return Measurement(
            signal=self.name,
            uncertainty=value,
            details={
                "drawn": len(drawn),
                "of": self.n,
                "clusters": [*sorted(clusters.counts, reverse=True)],
                "pairs": clusters.pairs,
                "weighting": self.weighting,
                "low": round(low, 6),
                "high": round(high, 6),
                **prior,
            },
        )


def _answer_weight(case: Case, answer: Generation) -> float:
    # A provider bills all samples together.
    own = replace(case, draft=replace(answer, usage=None))
    try:
        return _weight(draft_tokens(own).counted)
    except SignalUnavailableError as error:
        msg = f"{error}: draft and samples cannot be weighted by probability; use weighting='discrete'"
        raise SignalUnavailableError(msg) from error
