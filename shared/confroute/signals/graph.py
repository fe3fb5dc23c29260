"""Signals on the similarity graph of a model's samples: degree, eccentricity, eigenvalues, kernel entropy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.errors import PolicyError
from confroute.registry import register
from confroute.signals.base import Case, Range, answer_texts, draw_samples, given_answers
from confroute.signals.consistency import check_sampling
from confroute.signals.similarity import Matrix, Similarities, Similarity, WordOverlap, pairwise_similarities
from confroute.types import JSON

# Of values that are made of eigenvalues.
DIGITS = 9
# Answers that are equal or not have few different matrices, and a run meets them again and again.
_RECENT = 4096


def laplacian_spectrum(matrix: Matrix) -> tuple[Matrix, Matrix]:
    """Eigenvalues, ascending, and eigenvectors of the normalised Laplacian I - D^-1/2 W D^-1/2."""
    return _spectrum(np.asarray(matrix, dtype=np.float64).tobytes(), len(matrix))


@lru_cache(maxsize=_RECENT)
def _spectrum(entries: bytes, n: int) -> tuple[Matrix, Matrix]:
    matrix = np.frombuffer(entries).reshape(n, n)
    scale = 1.0 / np.sqrt(matrix.sum(axis=1))
    values, vectors = np.linalg.eigh(np.eye(n) - matrix * scale[:, None] * scale[None, :])
    # Their noise would decide which of two equal eigenvalues lies below a cutoff.
    found = np.asarray(np.round(values, 12), dtype=np.float64), vectors
    for one in found:
        one.flags.writeable = False
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleGraph:
    """Base of the signals that draw n samples and measure how similar each two answers are, the draft and they.

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
        raise NotImplementedError  # each signal has its own

    @property
    def range(self) -> Range:
        """Values and unit."""
        return Range(high=1.0, unit="share")

    def value(self, similarities: Similarities) -> float:
        """The uncertainty of these similarities."""
        raise NotImplementedError  # each signal has its own

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Draw all samples and compare each two distinct ones.

        Raises
        ------
        SignalUnavailableError
            The tier cannot sample.
        """
        drawn = yield from draw_samples(case, self.n, temperature=self.temperature)
        similarities = yield from pairwise_similarities(
            case.question,
            answer_texts(case, drawn),
            self.similarity,
            given=given_answers([case.draft, *drawn]),
        )
        details: Mapping[str, JSON] = {"drawn": len(drawn), "of": self.n, "pairs": similarities.pairs}
        # Eigenvalues are computed with rounding errors, which would part equal values.
        value = min(self.range.high, max(self.range.low, round(self.value(similarities), DIGITS)))
        return Measurement(signal=self.name, uncertainty=value, details=details)


def degree(matrix: Matrix) -> float:
    """Mean dissimilarity over all pairs of answers; in [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> degree(np.array([[1.0, 0.5], [0.5, 1.0]]))
    0.5
    """
    m = len(matrix)
    return float((m * m - matrix.sum()) / (m * (m - 1)))


@register(kind="signal", needs="samples, a similarity", columns={"degree": {}}, per_samples=("n",))
@dataclass(frozen=True, slots=True, kw_only=True)
class Degree(SampleGraph):
    """Mean dissimilarity over all pairs of samples; in [0, 1], 0 where all mean the same.

    Notes
    -----
    U_Deg of Lin et al. (arXiv 2305.19187), divided by its maximum (m - 1)/m so that it reaches 1.
    """

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "degree"

    def value(self, similarities: Similarities) -> float:
        """See `degree`."""
        return degree(similarities.matrix)


# Lin et al. keep the eigenvectors below this eigenvalue: those of the clusters.
_EIGENVALUE_CUTOFF = 0.9


def eccentricity(matrix: Matrix) -> float:
    """Norm of the centred spectral embedding, divided by its maximum; in [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> round(eccentricity(np.ones((3, 3))), 6), round(eccentricity(np.eye(3)), 6)
    (0.0, 1.0)
    """
    values, vectors = laplacian_spectrum(matrix)
    kept = vectors[:, values < _EIGENVALUE_CUTOFF]
    centred = kept - kept.mean(axis=0)
    # A root would turn noise of 1e-16 into one of 1e-8.
    return math.sqrt(round(float((centred**2).sum()), 12)) / math.sqrt(len(matrix) - 1)


@register(kind="signal", needs="samples, a similarity", columns={"eccentricity": {}}, per_samples=("n",))
@dataclass(frozen=True, slots=True, kw_only=True)
class Eccentricity(SampleGraph):
    """Spread of the samples in the spectral embedding of their similarities; in [0, 1].

    Notes
    -----
    U_Ecc of Lin et al. (arXiv 2305.19187), divided by its maximum, the square root of m - 1. It jumps where an
    eigenvalue crosses their cutoff of 0.9, so more disagreement may lower it slightly.
    """

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "eccentricity"

    def value(self, similarities: Similarities) -> float:
        """See `eccentricity`."""
        return eccentricity(similarities.matrix)


def soft_count(matrix: Matrix) -> float:
    """Sum of max(0, 1 - eigenvalue) of the normalised Laplacian; the number of clusters where they are clear-cut.

    Examples
    --------
    >>> import numpy as np
    >>> round(soft_count(np.ones((4, 4))), 6), round(soft_count(np.eye(4)), 6)
    (1.0, 4.0)
    """
    values, _ = laplacian_spectrum(matrix)
    return float(np.maximum(0.0, 1.0 - values).sum())


@register(kind="signal", needs="samples, a similarity", columns={"eigenvalues": {}}, per_samples=("n",))
@dataclass(frozen=True, slots=True, kw_only=True)
class EigenvalueSum(SampleGraph):
    """Soft count of the meanings among n samples, rescaled to [0, 1]: 0 for one meaning, 1 for n.

    Notes
    -----
    U_EigV of Lin et al. (arXiv 2305.19187), minus 1, divided by n - 1.
    """

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "eigenvalues"

    def value(self, similarities: Similarities) -> float:
        """See `soft_count`."""
        return (soft_count(similarities.matrix) - 1.0) / (len(similarities.matrix) - 1)


def kernel_entropy(matrix: Matrix, distinct: tuple[int, ...], *, time: float = 0.3) -> float:
    """Von Neumann entropy of the heat kernel of a similarity graph, in units of log(n); in [0, 1].

    Parameters
    ----------
    matrix : ndarray, shape (n, n)
        Similarities, symmetric, in [0, 1].
    distinct : tuple of int
        For each answer, the index of the distinct answer that it equals; equal answers have kernel 1.
    time : float
        How far the heat spreads; 0 makes any two distinct answers unrelated.

    Examples
    --------
    >>> import numpy as np
    >>> kernel_entropy(np.ones((3, 3)), (0, 0, 0)), round(kernel_entropy(np.eye(3), (0, 1, 2)), 6)
    (0.0, 1.0)
    """
    return _kernel_entropy(np.asarray(matrix, dtype=np.float64).tobytes(), distinct, time)


@lru_cache(maxsize=_RECENT)
def _kernel_entropy(entries: bytes, distinct: tuple[int, ...], time: float) -> float:
    n = len(distinct)
    if len(set(distinct)) == 1:
        return 0.0
    matrix = np.frombuffer(entries).reshape(n, n)
    firsts = [distinct.index(one) for one in sorted(set(distinct))]
    weights = matrix[np.ix_(firsts, firsts)] * (1.0 - np.eye(len(firsts)))
    values, vectors = np.linalg.eigh(np.diag(weights.sum(axis=1)) - weights)
    heat = (vectors * np.exp(-time * values)) @ vectors.T
    scale = 1.0 / np.sqrt(np.diag(heat))
    unit = heat * scale[:, None] * scale[None, :]
    of = [sorted(set(distinct)).index(one) for one in distinct]
    kernel = unit[np.ix_(of, of)] / n
    spectrum = np.linalg.eigvalsh(kernel)
    spectrum = spectrum[spectrum > 1e-12]
    return float(min(1.0, max(0.0, -(spectrum * np.log(spectrum)).sum() / math.log(n))))


@register(kind="signal", needs="samples, a similarity", columns={"kernel_entropy": {}}, per_samples=("n",))
@dataclass(frozen=True, slots=True, kw_only=True)
class KernelEntropy(SampleGraph):
    """Entropy over meanings that may lie close to each other, in units of log(n); in [0, 1].

    Parameters
    ----------
    time : float
        Diffusion time of the heat kernel, 0 or more.

    Raises
    ------
    PolicyError
        A negative time.

    Notes
    -----
    Nikitin et al. (arXiv 2405.20003). Where answers are either equal or unrelated, it equals the discrete semantic
    entropy. Deviations: the kernel is that of the distinct answers, so identical answers give exactly 0; each pair has one
    similarity as its weight, without their half weight for a neutral verdict; and the value is divided by log(n).
    """

    time: float = 0.3

    def __post_init__(self) -> None:
        SampleGraph.__post_init__(self)
        if not 0 <= self.time < math.inf:
            msg = f"time is {self.time}: expected a number of at least 0"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "kernel_entropy"

    def value(self, similarities: Similarities) -> float:
        """See `kernel_entropy`."""
        return kernel_entropy(similarities.matrix, similarities.distinct, time=self.time)
