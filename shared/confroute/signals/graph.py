"""What the signals on the similarity graph of a model's samples share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from confroute.decision import Measurement
from confroute.signals.base import Asking, Case, Range, said_by, samples
from confroute.signals.consistency import check_sampling
from confroute.signals.similarity import Alike, Matrix, Similarity, WordOverlap, alike
from confroute.types import JSON


def laplacian_spectrum(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """Eigenvalues, ascending, and eigenvectors of the normalised Laplacian I - D^-1/2 W D^-1/2."""
    scale = 1.0 / np.sqrt(matrix.sum(axis=1))
    values, vectors = np.linalg.eigh(np.eye(len(matrix)) - matrix * scale[:, None] * scale[None, :])
    return values, vectors


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleGraph:
    """Base of the signals that draw n samples and look at how alike each two are.

    Parameters
    ----------
    n : int
        Samples, 2 or more.
    temperature : float
        Above 0.
    similarity : Similarity
        `WordOverlap`, `EmbeddingCosine` or `EntailmentDegree`.
    """

    n: int = 5
    temperature: float = 0.7
    similarity: Similarity = field(default_factory=WordOverlap)

    def __post_init__(self) -> None:
        check_sampling(self.n, self.temperature, self.n)

    @property
    def name(self) -> str:
        """Key in the decision."""
        raise NotImplementedError

    @property
    def range(self) -> Range:
        """Values and unit."""
        return Range(high=1.0, unit="share")

    def value(self, found: Alike) -> float:
        """The uncertainty of these similarities."""
        raise NotImplementedError

    def measure(self, case: Case) -> Asking[Measurement]:
        """Draw all samples, compare each two distinct ones.

        Raises
        ------
        SignalUnavailableError
            The tier cannot sample.
        """
        drawn = yield from samples(case, self.n, temperature=self.temperature)
        texts = said_by(drawn, case.tier.model)
        found = yield from alike(case.question, texts, self.similarity)
        low, high = self.range.low, self.range.high
        details: Mapping[str, JSON] = {"drawn": len(drawn), "of": self.n, "pairs": found.pairs}
        # Eigenvalues of an exact zero come out a rounding error beside it.
        return Measurement(
            signal=self.name, uncertainty=min(high, max(low, self.value(found))), details=details
        )
