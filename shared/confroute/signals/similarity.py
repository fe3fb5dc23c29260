"""How alike answers are, as numbers: what the graph of a model's samples is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from confroute.asks import Entails
from confroute.registry import register
from confroute.signals.answers import normalised
from confroute.signals.base import Asking
from confroute.signals.equivalence import (
    DEFAULT_EMBEDDING,
    Embedding,
    check_embedding,
    embedding_of,
    numbers_of,
    settled_by_text,
)

Pairs: TypeAlias = "tuple[tuple[str, str], ...]"
Matrix: TypeAlias = "npt.NDArray[np.float64]"


@runtime_checkable
class Similarity(Protocol):
    """Says how alike two answers to one question are, in [0, 1], where their texts do not tell."""

    def between(self, question: str, pairs: Pairs) -> Asking[list[float]]:
        """Yield what it needs to know; return one number a pair, the same whichever text comes first."""
        ...


@register(kind="similarity")
@dataclass(frozen=True, slots=True, kw_only=True)
class WordOverlap:
    """Shared words over all words (Jaccard); needs no model."""

    def between(self, question: str, pairs: Pairs) -> Asking[list[float]]:
        """Compare the sets of words."""
        yield from ()
        words = [(set(normalised(a).split()), set(normalised(b).split())) for a, b in pairs]
        return [len(a & b) / len(a | b) if a | b else 1.0 for a, b in words]


@register(kind="similarity")
@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCosine:
    """Cosine of the embeddings, negative ones as 0.

    Parameters
    ----------
    model : str or callable
        As in `SameEmbedding`.
    """

    model: Embedding = DEFAULT_EMBEDDING

    def __post_init__(self) -> None:
        check_embedding(self.model)

    def between(self, question: str, pairs: Pairs) -> Asking[list[float]]:
        """Embed each text once, all in one ask."""
        texts = tuple(dict.fromkeys(text for pair in pairs for text in pair))
        evidence = yield embedding_of(texts, self.model)
        vectors = dict(zip(texts, numbers_of(evidence).astype(np.float64), strict=True))
        return [float(np.clip(vectors[a] @ vectors[b], 0.0, 1.0)) for a, b in pairs]


@register(kind="similarity")
@dataclass(frozen=True, slots=True, kw_only=True)
class EntailmentDegree:
    """Mean of the probabilities that each text entails the other, question prepended: Lin et al. (arXiv 2305.19187).

    Parameters
    ----------
    model : str
        A folder or hub name of a natural-language-inference model.
    """

    model: str

    def between(self, question: str, pairs: Pairs) -> Asking[list[float]]:
        """Ask both directions of all pairs, in one ask."""
        posed = [(f"{question} {a}", f"{question} {b}") for a, b in pairs]
        both = tuple(posed) + tuple((b, a) for a, b in posed)
        evidence = yield Entails(pairs=both, model=self.model)
        forward, back = np.split(numbers_of(evidence).astype(np.float64), 2)
        return [float(value) for value in (forward + back) / 2.0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alike:
    """Similarities of answers, and how many pairs a model or the words had to tell.

    Attributes
    ----------
    matrix : ndarray, shape (answers, answers)
        Symmetric, in [0, 1], ones on the diagonal and between answers whose texts say the same.
    distinct : tuple of int
        For each answer, which of the distinct ones it is.
    pairs : int
    """

    matrix: Matrix = field(compare=False)
    distinct: tuple[int, ...]
    pairs: int


def alike(
    question: str, answers: Sequence[str], similarity: Similarity, *, first: bool = False
) -> Asking[Alike]:
    """Compare answers, each distinct one once; numbers, options and equal texts are settled before any model.

    Parameters
    ----------
    question : str
    answers : sequence of str
    similarity : Similarity
    first : bool
        Compare the first answer with the others only; the rest of the matrix is left 0.
    """
    keys = [normalised(answer) for answer in answers]
    known = {key: place for place, key in enumerate(dict.fromkeys(keys))}
    texts = [answers[keys.index(key)] for key in known]
    matrix = np.eye(len(texts))
    unclear: list[tuple[int, int]] = []
    same = [*range(len(texts))]
    for i in range(1 if first else len(texts)):
        for j in range(i + 1, len(texts)):
            verdict = settled_by_text(question, texts[i], texts[j])
            if verdict is None:
                unclear.append((i, j))
            elif verdict:
                same[j] = min(same[i], same[j])
            matrix[i, j] = matrix[j, i] = float(bool(verdict))
    if unclear:
        values = yield from similarity.between(question, tuple((texts[i], texts[j]) for i, j in unclear))
        for (i, j), value in zip(unclear, values, strict=True):
            matrix[i, j] = matrix[j, i] = value
    of = tuple(known[key] for key in keys)
    return Alike(matrix=matrix[np.ix_(of, of)], distinct=tuple(same[one] for one in of), pairs=len(unclear))
