"""How similar answers are, as numbers: the edge weights of the graph of a model's samples."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from confroute.asks import AskGenerator, Entails
from confroute.registry import register
from confroute.signals.answers import normalised
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
    """Rates the similarity of two answers to one question, in [0, 1], where their texts alone do not tell."""

    def between(self, question: str, pairs: Pairs) -> AskGenerator[list[float]]:
        """Yield asks as needed; return one symmetric similarity per pair."""
        ...


@register(kind="similarity")
@dataclass(frozen=True, slots=True, kw_only=True)
class WordOverlap:
    """Jaccard similarity of the answers' words: shared words over all words; needs no model."""

    def between(self, question: str, pairs: Pairs) -> AskGenerator[list[float]]:
        """Compare the sets of words."""
        yield from ()
        words = [(set(normalised(a).split()), set(normalised(b).split())) for a, b in pairs]
        return [len(a & b) / len(a | b) if a | b else 1.0 for a, b in words]


@register(kind="similarity")
@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddingCosine:
    """Cosine similarity of the answers' embeddings; negative ones count as 0.

    Parameters
    ----------
    model : str or callable
        As in `SameEmbedding`.
    """

    model: Embedding = DEFAULT_EMBEDDING

    def __post_init__(self) -> None:
        check_embedding(self.model)

    def between(self, question: str, pairs: Pairs) -> AskGenerator[list[float]]:
        """Embed each text once, all in one ask."""
        texts = tuple(dict.fromkeys(text for pair in pairs for text in pair))
        evidence = yield embedding_of(texts, self.model)
        vectors = dict(zip(texts, numbers_of(evidence).astype(np.float64), strict=True))
        return [float(np.clip(vectors[a] @ vectors[b], 0.0, 1.0)) for a, b in pairs]


@register(kind="similarity")
@dataclass(frozen=True, slots=True, kw_only=True)
class EntailmentDegree:
    """Mean probability that each text entails the other, with the question prepended: Lin et al. (arXiv 2305.19187).

    Parameters
    ----------
    model : str
        The folder or hub name of a natural-language-inference model.
    """

    model: str

    def between(self, question: str, pairs: Pairs) -> AskGenerator[list[float]]:
        """Rate both directions of all pairs in one ask."""
        prompted = [(f"{question} {a}", f"{question} {b}") for a, b in pairs]
        both = tuple(prompted) + tuple((b, a) for a, b in prompted)
        evidence = yield Entails(pairs=both, model=self.model)
        forward, reverse = np.split(numbers_of(evidence).astype(np.float64), 2)
        return [float(value) for value in (forward + reverse) / 2.0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarities:
    """Similarities of several answers.

    Attributes
    ----------
    matrix : ndarray, shape (answers, answers)
        Symmetric, in [0, 1], ones on the diagonal and between answers whose texts mean the same.
    distinct : tuple of int
        For each answer, the index of the distinct answer that it equals.
    pairs : int
        Pairs that the texts alone did not settle.
    """

    matrix: Matrix = field(compare=False)
    distinct: tuple[int, ...]
    pairs: int


def pairwise_similarities(
    question: str,
    answers: Sequence[str],
    similarity: Similarity,
    *,
    first: bool = False,
    given: Collection[str] = frozenset(),
) -> AskGenerator[Similarities]:
    """Compare answers, each distinct one once; numbers, options and equal texts settle a pair before any model does.

    Parameters
    ----------
    question : str
    answers : sequence of str
    similarity : Similarity
    first : bool
        Compare only the first answer with the others; the rest of the matrix stays 0.
    given : collection of str
        Answers in canonical form; see `settled_by_text`.
    """
    keys = [answer if answer in given else normalised(answer) for answer in answers]
    index_of = {key: index for index, key in enumerate(dict.fromkeys(keys))}
    texts = [answers[keys.index(key)] for key in index_of]
    matrix = np.eye(len(texts))
    unclear: list[tuple[int, int]] = []
    same = [*range(len(texts))]
    for i in range(1 if first else len(texts)):
        for j in range(i + 1, len(texts)):
            verdict = settled_by_text(question, texts[i], texts[j], given=given)
            if verdict is None:
                unclear.append((i, j))
            elif verdict:
                same[j] = min(same[i], same[j])
            matrix[i, j] = matrix[j, i] = float(bool(verdict))
    if unclear:
        values = yield from similarity.between(question, tuple((texts[i], texts[j]) for i, j in unclear))
        for (i, j), value in zip(unclear, values, strict=True):
            matrix[i, j] = matrix[j, i] = value
    of = tuple(index_of[key] for key in keys)
    distinct = tuple(same[index] for index in of)
    return Similarities(matrix=matrix[np.ix_(of, of)], distinct=distinct, pairs=len(unclear))
