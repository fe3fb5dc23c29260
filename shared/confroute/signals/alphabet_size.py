"""Semantic alphabet size: how many meanings a model could give, those not drawn included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.registry import register
from confroute.signals.base import Case, Range, answer_texts, draw_samples, given_answers
from confroute.signals.clusters import Clusters
from confroute.signals.equivalence import Equivalence, SameText
from confroute.signals.graph import DIGITS, SampleGraph, soft_count
from confroute.signals.similarity import pairwise_similarities


def alphabet_size(counts: Sequence[int], spectral: float) -> float:
    """Estimate how many meanings a model could give; 1 or more.

    Parameters
    ----------
    counts : sequence of int
        Number of answers of each meaning drawn.
    spectral : float
        The soft count of meanings (`confroute.signals.graph.soft_count`).

    Notes
    -----
    For n answers in k meanings, f1 of which hold a single answer: the Good-Turing estimate k n / (n - f1), or
    `spectral` where that is larger or where all answers differ.

    Examples
    --------
    >>> alphabet_size([2, 1, 1], 2.5), alphabet_size([1, 1], 1.7)
    (6.0, 1.7)
    """
    n, single = sum(counts), sum(count == 1 for count in counts)
    return spectral if single == n else max(len(counts) * n / (n - single), spectral)


@register(
    kind="signal",
    needs="samples, an equivalence and a similarity",
    columns={"alphabet_size": {}},
    per_samples=("n",),
)
@dataclass(frozen=True, slots=True, kw_only=True)
class AlphabetSize(SampleGraph):
    """Estimated number of meanings that the model could give; 1 or more, 1 where all samples agree.

    Parameters
    ----------
    equivalence : Equivalence
        What makes two answers the same. `similarity` serves the soft count.

    Notes
    -----
    The hybrid estimate of McCabe et al. (arXiv 2509.14478), who find that counting meanings ranks errors better than
    semantic entropy does. Where all answers differ, the count alone has no upper bound, so the soft count is used. Only
    there can one more disagreement lower the value: answers grouped (2, 1, 1) give 6, four different ones at most 4.
    """

    equivalence: Equivalence = field(default_factory=SameText)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "alphabet_size"

    @property
    def range(self) -> Range:
        """1 or more."""
        return Range(low=1.0, unit="meanings")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Draw and cluster all samples.

        Raises
        ------
        SignalUnavailableError
            The tier cannot sample.
        """
        drawn = yield from draw_samples(case, self.n, temperature=self.temperature)
        texts, given = answer_texts(case, drawn), given_answers([case.draft, *drawn])
        clusters = Clusters(question=case.question, equivalence=self.equivalence, given=given)
        yield from clusters.extend(texts)
        similarities = yield from pairwise_similarities(case.question, texts, self.similarity, given=given)
        return Measurement(
            signal=self.name,
            uncertainty=max(
                1.0, round(alphabet_size(clusters.counts, soft_count(similarities.matrix)), DIGITS)
            ),
            details={
                "drawn": len(drawn),
                "of": self.n,
                "clusters": [*sorted(clusters.counts, reverse=True)],
                "pairs": clusters.pairs + similarities.pairs,
            },
        )
