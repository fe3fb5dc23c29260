"""Coverage-corrected semantic entropy: an estimate that accounts for meanings not drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.registry import register
from confroute.signals.base import Case, Range, answer_texts, draw_samples, given_answers
from confroute.signals.clusters import Clusters
from confroute.signals.consistency import check_sampling
from confroute.signals.equivalence import Equivalence, SameText


def chao_shen(counts: Sequence[int]) -> float:
    """Estimate the entropy over all meanings, drawn or not, from a sample; in nats, 0 or more.

    Parameters
    ----------
    counts : sequence of int
        Number of answers of each meaning drawn, each 1 or more; at least 2 answers in total.

    Notes
    -----
    Chao and Shen (2003): the coverage, the probability mass of the drawn meanings, is estimated as 1 - f1/n, where f1 of
    the n answers are the only ones of their meaning; each term is divided by its probability of being drawn at all.
    Where all n differ, f1 is taken as n - 1.

    Examples
    --------
    >>> chao_shen([4]), round(chao_shen([1, 1]), 4)
    (0.0, 1.5843)
    """
    n = sum(counts)
    single = min(sum(count == 1 for count in counts), n - 1)
    coverage = 1.0 - single / n
    total = 0.0
    for count in sorted(counts):
        p = coverage * count / n
        if p < 1.0:
            total -= p * math.log(p) / (1.0 - (1.0 - p) ** n)
    return total


@register(
    kind="signal", needs="samples, an equivalence", columns={"coverage_entropy": {}}, per_samples=("n",)
)
@dataclass(frozen=True, slots=True, kw_only=True)
class CoverageEntropy:
    """Semantic entropy corrected for meanings not drawn, in nats; 0 or more, 0 for one meaning.

    Parameters
    ----------
    n : int
        Samples, 2 or more.
    temperature : float
        Above 0.
    equivalence : Equivalence
        What makes two answers the same.

    Notes
    -----
    The plain estimate from few answers is too low: 10 answers cannot give more than log(10). The draft is one of them. See `chao_shen`.
    """

    n: int = 5
    temperature: float = 0.7
    equivalence: Equivalence = field(default_factory=SameText)

    def __post_init__(self) -> None:
        check_sampling(self.n, self.temperature, self.n)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "coverage_entropy"

    @property
    def range(self) -> Range:
        """0 or more."""
        return Range(unit="nats")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Draw and cluster all samples.

        Raises
        ------
        SignalUnavailableError
            The tier cannot sample.
        """
        drawn = yield from draw_samples(case, self.n, temperature=self.temperature)
        given = given_answers([case.draft, *drawn])
        clusters = Clusters(question=case.question, equivalence=self.equivalence, given=given)
        yield from clusters.extend(answer_texts(case, drawn))
        return Measurement(
            signal=self.name,
            uncertainty=chao_shen(clusters.counts),
            details={
                "drawn": len(drawn),
                "of": self.n,
                "clusters": [*sorted(clusters.counts, reverse=True)],
                "pairs": clusters.pairs,
            },
        )
