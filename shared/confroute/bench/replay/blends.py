"""The heads from which the best is chosen, and which was chosen for each benchmark without looking at it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from confroute.bench._arrays import Array, Flags
from confroute.heads import FEATURES, NearestNeighbours, Ridge, WordRidge
from confroute.heads.base import Vectors


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texts:
    """Prompts with their vectors: the embedding first, the features behind."""

    prompts: tuple[str, ...]
    vectors: Vectors = field(repr=False)

    @property
    def dim(self) -> int:
        """Of the embedding alone."""
        return int(self.vectors.shape[1]) - len(FEATURES)

    def only(self, keep: Flags) -> Texts:
        """The prompts in `keep`."""
        chosen = np.flatnonzero(keep)
        return Texts(prompts=tuple(self.prompts[at] for at in chosen), vectors=self.vectors[chosen])


# (training prompts, labels in [0, 1], prompts to score) -> scores in the labels' units
Scorer: TypeAlias = "Callable[[Texts, Array, Texts], Array]"


def length(train: Texts, labels: Array, tests: Texts) -> Array:
    """Characters; learns nothing."""
    del train, labels
    return np.array([len(text) for text in tests.prompts], dtype=np.float64)


def ridge(penalty: float, *, embedding: bool = True, features: bool = True) -> Scorer:
    """Ridge on the embedding, the features or both."""

    def scores(train: Texts, labels: Array, tests: Texts) -> Array:
        columns = slice(0 if embedding else train.dim, None if features else train.dim)
        head = Ridge.fit(train.vectors[:, columns], labels, penalty=penalty)
        return head.estimate(tests.vectors[:, columns]).cloud_wins

    return scores


def words(penalty: float) -> Scorer:
    """Ridge on words and word pairs."""

    def scores(train: Texts, labels: Array, tests: Texts) -> Array:
        return WordRidge.fit(train.prompts, labels, penalty=penalty).estimate(tests.prompts).cloud_wins

    return scores


def neighbours(k: int) -> Scorer:
    """Nearest neighbours on the embedding."""

    def scores(train: Texts, labels: Array, tests: Texts) -> Array:
        head = NearestNeighbours.fit(train.vectors[:, : train.dim], labels, k=min(k, len(labels)))
        return head.estimate(tests.vectors[:, : tests.dim]).cloud_wins

    return scores


def mean(*scorers: Scorer) -> Scorer:
    """Mean of scores, which are estimates of one label."""

    def scores(train: Texts, labels: Array, tests: Texts) -> Array:
        return np.asarray(np.mean([one(train, labels, tests) for one in scorers], axis=0))

    return scores


CANDIDATES: dict[str, Scorer] = {
    "length": length,
    "features, ridge 100": ridge(100.0, embedding=False),
    "features, ridge 1000": ridge(1000.0, embedding=False),
    "embedding, ridge 1e4": ridge(1e4, features=False),
    "embedding, 50 neighbours": neighbours(50),
    "embedding and features, ridge 3e3": ridge(3e3),
    "embedding and features, ridge 1e4": ridge(1e4),
    "embedding and features, ridge 3e4": ridge(3e4),
    "words, ridge 10": words(10.0),
    "words, ridge 30": words(30.0),
    "both, ridge 1e4 and 10": mean(ridge(1e4), words(10.0)),
    "both, ridge 3e4 and 30": mean(ridge(3e4), words(30.0)),
}
# Those that read the embedding are candidates with a tuned encoder's vectors too.
TUNED = "tuned: "
EMBEDDED = tuple(name for name in CANDIDATES if name.startswith(("embedding", "both")))


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A candidate, the weight of a wrong edge in its label, and whether it reads a tuned encoder's vectors."""

    candidate: str
    wrong: float
    tuned: bool = False


# Chosen by benchmarks/select_heads.py on the training prompts alone.
CHOSEN = {
    "mmlu": Choice(candidate="words, ridge 10", wrong=1.0),
    "gsm8k": Choice(candidate="features, ridge 100", wrong=0.0),
    "mt-bench": Choice(candidate="embedding, ridge 1e4", wrong=0.0, tuned=True),
}


def best_of(
    scorers: Sequence[Scorer], train: Texts, labels: Array, value: Callable[[Array, Flags], float]
) -> Scorer:
    """The scorer with the largest `value(scores, held)` on a fifth of the training prompts, fitted to the others."""
    held = np.random.default_rng(1).permutation(len(labels)) % 5 == 0
    rest, apart = train.only(~held), train.only(held)
    found = [value(one(rest, labels[~held], apart), held) for one in scorers]
    return scorers[int(np.argmax(found))]
