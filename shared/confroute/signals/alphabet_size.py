"""Semantic alphabet size: how many meanings there are, the ones that were not drawn included."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from confroute.decision import Measurement
from confroute.registry import register
from confroute.signals.base import Asking, Case, Range, said_by, samples
from confroute.signals.clusters import Clusters
from confroute.signals.equivalence import Equivalence, SameText
from confroute.signals.graph import SampleGraph, soft_count
from confroute.signals.similarity import alike


def alphabet_size(counts: Sequence[int], spectral: float) -> float:
    """Estimated number of meanings; 1 or more.

    Parameters
    ----------
    counts : sequence of int
        Answers of each meaning that was drawn.
    spectral : float
        The soft count of meanings (`confroute.signals.graph.soft_count`).

    Notes
    -----
    Of n answers in k meanings, f1 of them alone: Good and Turing's k n / (n - f1), or `spectral` where that is more
    or where all differ.

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
    """Estimated number of meanings that the model could give, 1 or more; 1 where all samples agree.

    Parameters
    ----------
    equivalence : Equivalence
        What makes two answers the same; `similarity` is for the soft count.

    Notes
    -----
    The hybrid estimate of McCabe et al. (arXiv 2509.14478), who find that counting meanings ranks errors better than
    semantic entropy does. Where all answers differ, counting alone knows no bound, and the soft count is taken: there,
    and only there, one more disagreement can lower the value ((2, 1, 1) gives 6, four alone at most 4).
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

    def measure(self, case: Case) -> Asking[Measurement]:
        """Draw and cluster all samples.

        Raises
        ------
        SignalUnavailableError
            The tier cannot sample.
        """
        drawn = yield from samples(case, self.n, temperature=self.temperature)
        texts = said_by(drawn, case.tier.model)
        clusters = Clusters(question=case.question, equivalence=self.equivalence)
        yield from clusters.extend(texts)
        found = yield from alike(case.question, texts, self.similarity)
        return Measurement(
            signal=self.name,
            uncertainty=max(1.0, alphabet_size(clusters.counts, soft_count(found.matrix))),
            details={
                "drawn": len(drawn),
                "of": self.n,
                "clusters": [*sorted(clusters.counts, reverse=True)],
                "pairs": clusters.pairs + found.pairs,
            },
        )
