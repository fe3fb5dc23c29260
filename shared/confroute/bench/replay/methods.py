"""Scores of every method: the higher, the sooner a prompt goes to the cloud."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from confroute.bench._arrays import Array
from confroute.bench.replay.data import Benchmark
from confroute.bench.replay.training import TrainingSet
from confroute.heads import FEATURES, MLP, MatrixFactorisation, NearestNeighbours, Ridge, SimilarityRanking
from confroute.heads.base import Head, Vectors

BEST = "confroute best"
IN_DOMAIN = "confroute best, five-fold in-domain"
_RUNS = 10
_FOLDS = 5
# See docs/results.md for how they were chosen, and how blindly.
_PENALTY, _NEIGHBOURS = 3e4, 50


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """A benchmark and its training set with their vectors: the embedding first, the features behind."""

    bench: Benchmark
    vectors: Vectors
    train: TrainingSet | None
    train_vectors: Vectors | None

    @property
    def dim(self) -> int:
        """Of the embedding alone."""
        return int(self.vectors.shape[1]) - len(FEATURES)


Scored = tuple[str, Array]


def without_training(bench: Benchmark) -> Iterator[Scored]:
    """Random (ten runs), the oracle, and prompt length."""
    generator = np.random.default_rng(0)
    yield "random", generator.random((_RUNS, bench.n))
    yield "oracle", bench.strong - bench.weak
    yield "prompt length", np.array([len(prompt) for prompt in bench.prompts], dtype=np.float64)


def trained(material: Material) -> Iterator[Scored]:
    """The paper's four heads on battles, the accuracy-labelled ones of TO-Router, cheap features, and our best."""
    train, x = material.train, material.train_vectors
    assert train is not None
    assert x is not None
    dim, tests = material.dim, material.vectors
    fits: dict[str, Callable[[Vectors, Array], Head]] = {
        "kNN": lambda a, y: NearestNeighbours.fit(a, y, k=_NEIGHBOURS),
        "SW": SimilarityRanking.fit,
        "MF": MatrixFactorisation.fit,
        "MLP": lambda a, y: MLP.fit(a, y, epochs=8),
    }
    for name, fit in fits.items():
        yield name, fit(x[:, :dim], train.battle).estimate(tests[:, :dim]).cloud_wins
    if train.wrong is not None:
        for name in ("kNN", "MLP"):
            head = fits[name](x[:, :dim], train.wrong)
            yield f"TO-Router-style {name}", head.estimate(tests[:, :dim]).cloud_wins
    features = Ridge.fit(x[:, dim:], train.gain, penalty=100.0)
    yield "cheap features", features.estimate(tests[:, dim:]).cloud_wins
    yield BEST, blend(x, train.gain, tests, dim)


def blend(x: Vectors, labels: Array, tests: Vectors, dim: int) -> Array:
    """Mean of the standardised scores of ridge and nearest neighbours on the embedding and ridge with features."""
    parts = (
        Ridge.fit(x[:, :dim], labels, penalty=_PENALTY).estimate(tests[:, :dim]),
        NearestNeighbours.fit(x[:, :dim], labels, k=_NEIGHBOURS).estimate(tests[:, :dim]),
        Ridge.fit(x, labels, penalty=_PENALTY).estimate(tests),
    )
    scores = [part.cloud_wins for part in parts]
    return np.asarray(sum((score - score.mean()) / max(float(score.std()), 1e-12) for score in scores))


def in_domain(material: Material) -> Iterator[Scored]:
    """Five-fold on the benchmark's own labels: what more labels of the same questions would give."""
    bench, x, dim = material.bench, material.vectors, material.dim
    gap = (bench.strong - bench.weak) / max(1.0, float(np.abs(bench.strong - bench.weak).max()))
    labels = ((1 + gap) / 2 + 1 - bench.weak / max(1.0, float(bench.weak.max()))) / 2
    fold = np.random.default_rng(0).permutation(bench.n) % _FOLDS
    scores = np.empty(bench.n)
    for held in range(_FOLDS):
        apart = fold == held
        scores[apart] = _fold(x[~apart], labels[~apart], x[apart], dim)
    yield IN_DOMAIN, scores


def _fold(x: Vectors, labels: Array, tests: Vectors, dim: int) -> Array:
    ridge = Ridge.fit(x, labels, penalty=_PENALTY / 10).estimate(tests).cloud_wins
    k = min(_NEIGHBOURS, len(x) // 4)
    near = NearestNeighbours.fit(x[:, :dim], labels, k=k).estimate(tests[:, :dim]).cloud_wins
    network = MLP.fit(x, labels, epochs=6, dropout=0.5).estimate(tests).cloud_wins
    # Standardised by constants of the training labels: a fold's scores are ranked among all others'.
    return np.asarray(ridge + near + network)
