"""The candidates for the replay's best head: members that estimate the same gain, and blends of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from confroute.bench.material import Texts
from confroute.heads import (
    FEATURES,
    GaussianProcess,
    NearestNeighbours,
    Ridge,
    WordRidge,
    word_problem_features,
)
from confroute.stats.arrays import Array, Flags

# Names of the encoders beside the plain one, whose vectors stand in `Texts.others`.
LARGER, TUNED = "all-mpnet-base-v2", "tuned"

# (training prompts, labels in [0, 1], prompts to score) -> scores in the labels' units
Scorer: TypeAlias = "Callable[[Texts, Array, Texts], Array]"


def length(train: Texts, labels: Array, tests: Texts) -> Array:
    """Score by the number of characters, without learning."""
    del train, labels
    return np.array([len(text) for text in tests.prompts], dtype=np.float64)


def ridge(
    penalty: float, *, encoder: str | None = None, embedding: bool = True, features: bool = True
) -> Scorer:
    """Ridge regression on an encoder's embedding (the plain one's by default), the features or both."""

    def scores(train: Texts, labels: Array, tests: Texts) -> Array:
        columns = slice(0 if embedding else train.dim, None if features else train.dim)
        x, z = (t.vectors if encoder is None else t.others[encoder] for t in (train, tests))
        head = Ridge.fit(x[:, columns], labels, penalty=penalty)
        return head.estimate(z[:, columns]).cloud_wins

    return scores


def quantities(penalty: float) -> Scorer:
    """Ridge regression on the features of word problems."""

    def scores(train: Texts, labels: Array, tests: Texts) -> Array:
        head = Ridge.fit(word_problem_features(train.prompts), labels, penalty=penalty)
        return head.estimate(word_problem_features(tests.prompts)).cloud_wins

    return scores


def words(penalty: float) -> Scorer:
    """Ridge regression on words and word pairs."""

    def scores(train: Texts, labels: Array, tests: Texts) -> Array:
        return WordRidge.fit(train.prompts, labels, penalty=penalty).estimate(tests.prompts).cloud_wins

    return scores


def process(*, encoder: str | None = None, keep: int = 1000) -> Scorer:
    """A Gaussian process on an encoder's embedding (the plain one's by default) and the features."""

    def scores(train: Texts, labels: Array, tests: Texts) -> Array:
        x, z = (t.vectors if encoder is None else t.others[encoder] for t in (train, tests))
        return GaussianProcess.fit(x, labels, features=len(FEATURES), keep=keep).estimate(z).cloud_wins

    return scores


def neighbours(k: int) -> Scorer:
    """Nearest neighbours on the embedding."""

    def scores(train: Texts, labels: Array, tests: Texts) -> Array:
        head = NearestNeighbours.fit(train.vectors[:, : train.dim], labels, k=min(k, len(labels)))
        return head.estimate(tests.vectors[:, : tests.dim]).cloud_wins

    return scores


def mean(*scorers: Scorer) -> Scorer:
    """The mean of several scores, which all estimate the same label."""

    def scores(train: Texts, labels: Array, tests: Texts) -> Array:
        return np.asarray(np.mean([scorer(train, labels, tests) for scorer in scorers], axis=0))

    return scores


def best_of(
    scorers: Sequence[Scorer], train: Texts, labels: Array, value: Callable[[Array, Flags], float]
) -> Scorer:
    """Select the scorer that, fitted to four fifths of the prompts, has the largest `value(scores, held_out)` on the rest."""
    held_out = np.random.default_rng(1).permutation(len(labels)) % 5 == 0
    fitting, validation = train.subset(~held_out), train.subset(held_out)
    values = [value(scorer(fitting, labels[~held_out], validation), held_out) for scorer in scorers]
    return scorers[int(np.argmax(values))]


# From the cheapest at use to the dearest.
MEMBERS: dict[str, Scorer] = {
    "length": length,
    "features": ridge(100.0, embedding=False),
    "quantities": quantities(100.0),
    "words": words(10.0),
    "minilm": ridge(1e4),
    "process": process(),
    "tuned": ridge(1e4, encoder=TUNED),
    "tuned process": process(encoder=TUNED),
    "mpnet": ridge(1e4, encoder=LARGER),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadChoice:
    """What scores a prompt: the mean of members, and what they learn from.

    Attributes
    ----------
    members : tuple of str
        Names in `MEMBERS`.
    wide : bool
        Whether they learn from every run, or only from the one whose questions are like the benchmark's.
    doubt : bool
        Whether the members' standard deviation is taken off, so that prompts on which they disagree stay at the edge.
    """

    members: tuple[str, ...]
    wide: bool = False
    doubt: bool = False

    def __str__(self) -> str:
        """Name in tables."""
        return " + ".join(self.members) + ", doubt" * self.doubt + ", all runs" * self.wide

    def score(self, scores: Mapping[str, Array]) -> Array:
        """Combine the members' scores, arrays of shape (n,), into one."""
        table = np.array([scores[name] for name in self.members])
        return np.asarray(table.mean(axis=0) - (table.std(axis=0) if self.doubt else 0.0))


# In the order of the tie-break: fewer and cheaper members first, then without doubt, then one run.
_BLENDS = (
    *((name,) for name in MEMBERS),
    ("features", "quantities"),
    ("features", "words"),
    ("quantities", "words"),
    ("words", "minilm"),
    ("words", "process"),
    ("words", "tuned"),
    ("words", "tuned process"),
    ("words", "mpnet"),
    ("features", "quantities", "words"),
    ("quantities", "words", "process"),
    ("words", "minilm", "mpnet"),
    ("words", "process", "tuned"),
    ("words", "tuned", "mpnet"),
    ("quantities", "words", "tuned", "mpnet"),
)
CANDIDATES = tuple(
    HeadChoice(members=members, wide=wide, doubt=doubt)
    for members in _BLENDS
    for doubt in ((False, True) if len(members) > 2 else (False,))
    for wide in ((False,) if members == ("length",) else (False, True))
)

# What benchmarks/select_heads.py chose on the training questions alone.
HEAD_CHOICES = {
    "mmlu": HeadChoice(members=("words", "tuned process")),
    "gsm8k": HeadChoice(members=("quantities", "words")),
    "mt-bench": HeadChoice(members=("words", "tuned process")),
}


def learn_and_score(choice: HeadChoice, runs: Sequence[tuple[Texts, Array]], tests: Texts) -> Array:
    """Score `tests` by a choice.

    Parameters
    ----------
    choice : HeadChoice
    runs : sequence of (Texts, array)
        Prompts and labels in [0, 1] of each run, the benchmark's own first.
    tests : Texts
    """
    train, labels = joined(runs if choice.wide else runs[:1])
    return choice.score({name: MEMBERS[name](train, labels, tests) for name in choice.members})


def joined(runs: Sequence[tuple[Texts, Array]]) -> tuple[Texts, Array]:
    """Prompts and labels of several runs as one; labels of each have mean 0.5, so that none tells the runs apart."""
    train, labels = runs[0]
    if len(runs) == 1:
        return train, labels
    for more, _ in runs[1:]:
        train = train.and_then(more)
    return train, np.clip(np.concatenate([own - own.mean() + 0.5 for _, own in runs]), 0, 1)
