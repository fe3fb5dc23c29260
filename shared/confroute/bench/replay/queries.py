"""Routers that look at the prompt alone, trained on other calls of the same recorded run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from confroute.bench._arrays import Array
from confroute.bench.replay.costs import Calls, Ranked
from confroute.heads import FEATURES, MLP, MatrixFactorisation, NearestNeighbours, Ridge, SimilarityRanking
from confroute.heads.base import Head, Vectors

Fit: TypeAlias = "Callable[[Vectors, Array], Head]"
LEAST_ROWS = 50
RANDOM, LENGTH, RIDGE = "random", "prompt length", "ridge, features too"
_FOLDS = 5
_NEIGHBOURS, _PENALTY = 50, 3e3


def untrained(prompts: Sequence[str], n: int) -> Iterator[Ranked]:
    """Mixing at random and, where prompts were recorded, their length."""
    yield Ranked(name=RANDOM, kind="query", scores=np.zeros(n))
    if all(prompts):
        lengths = np.array([len(prompt) for prompt in prompts], dtype=np.float64)
        yield Ranked(name=LENGTH, kind="query", scores=lengths)


def crossfitted(vectors: Vectors, calls: Calls, *, seed: int = 0) -> Iterator[Ranked]:
    """Heads on the prompts' embeddings, each call scored by one that was trained on the other folds.

    Parameters
    ----------
    vectors : array of float32, shape (n, dim)
        The embedding, with the cheap features behind it.
    calls : Calls
        50 or more.
    seed : int
        Of the five folds.

    Notes
    -----
    In-domain and so the best that a head can hope for: it learns from answers of these very models to questions of the same
    kind. kNN, SW, MF and MLP learn which answer was better (as the confidence-driven router and RouteLLM do), the
    "TO-Router-style" ones whether the edge is wrong.
    """
    dim = vectors.shape[1] - len(FEATURES)
    better, wrong = (1 + calls.cloud - calls.edge) / 2, 1 - calls.edge
    fold = np.random.default_rng(seed).permutation(calls.n) % _FOLDS
    for name, fit, part, labels in _trainings(dim, better, wrong):
        scores = np.empty(calls.n)
        for held in range(_FOLDS):
            apart = fold == held
            head = fit(vectors[~apart][:, part], labels[~apart])
            scores[apart] = head.estimate(vectors[apart][:, part]).cloud_wins
        yield Ranked(name=name, kind="query", scores=scores)


def together(heads: Sequence[Ranked]) -> Ranked:
    """The mean of some heads that learnt which answer was better, whose scores are estimates of one number."""
    scores = [head.scores for head in heads if head.name in (RIDGE, "kNN", "MLP")]
    return Ranked(name="mean of ridge, kNN and MLP", kind="query", scores=np.mean(scores, axis=0))


def _trainings(dim: int, better: Array, wrong: Array) -> Iterator[tuple[str, Fit, slice, Array]]:
    """Name, fit, columns and labels of every head, the quick ones first."""
    embedding, features, both = slice(0, dim), slice(dim, None), slice(None)
    yield "cheap features", lambda x, y: Ridge.fit(x, y, penalty=100.0), features, better
    yield RIDGE, lambda x, y: Ridge.fit(x, y, penalty=_PENALTY), both, better
    yield f"{RIDGE}, edge wrong", lambda x, y: Ridge.fit(x, y, penalty=_PENALTY), both, wrong
    fits: Mapping[str, Fit] = {
        "kNN": lambda x, y: NearestNeighbours.fit(x, y, k=min(_NEIGHBOURS, len(x) // 4)),
        "SW": SimilarityRanking.fit,
        "MLP": lambda x, y: MLP.fit(x, y, epochs=8),
        "MF": MatrixFactorisation.fit,
    }
    for name, fit in fits.items():
        yield name, fit, embedding, better
    for name in ("kNN", "MLP"):
        yield f"TO-Router-style {name}", fits[name], embedding, wrong
