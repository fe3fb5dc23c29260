"""Scores of every method: the higher, the sooner a prompt goes to the cloud."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from confroute.bench._arrays import Array, Flags
from confroute.bench._routing import apgr
from confroute.bench.replay.blends import CANDIDATES, CHOSEN, Texts, best_of, mean, neighbours, ridge, words
from confroute.bench.replay.data import Benchmark
from confroute.bench.replay.material import Material
from confroute.heads import MLP, MatrixFactorisation, NearestNeighbours, SimilarityRanking
from confroute.heads.base import Head, Vectors

BEST = "confroute best"
IN_DOMAIN = "confroute best, five-fold in-domain"
_RUNS = 10
_FOLDS = 5
_NEIGHBOURS = 50
_RIDGE = "embedding and features, ridge 1e4"


Scored = tuple[str, Array]


def without_training(bench: Benchmark) -> Iterator[Scored]:
    """Random (ten runs), the oracle, and prompt length."""
    generator = np.random.default_rng(0)
    yield "random", generator.random((_RUNS, bench.n))
    yield "oracle", bench.strong - bench.weak
    yield "prompt length", np.array([len(prompt) for prompt in bench.prompts], dtype=np.float64)


def trained(material: Material) -> Iterator[Scored]:
    """The paper's four heads on battles, the accuracy-labelled ones of TO-Router, cheap features, ridge, and our best."""
    train, texts, tests, dim = material.train, material.texts, material.tests, material.dim
    x = texts.vectors[:, :dim]
    fits: dict[str, Callable[[Vectors, Array], Head]] = {
        "kNN": lambda a, y: NearestNeighbours.fit(a, y, k=min(_NEIGHBOURS, len(y))),
        "SW": SimilarityRanking.fit,
        "MF": MatrixFactorisation.fit,
        "MLP": lambda a, y: MLP.fit(a, y, epochs=8),
    }
    for name, fit in fits.items():
        yield name, fit(x, train.battle).estimate(tests.vectors[:, :dim]).cloud_wins
    for name in ("kNN", "MLP"):
        head = fits[name](x, train.wrong)
        yield f"TO-Router-style {name}", head.estimate(tests.vectors[:, :dim]).cloud_wins
    yield "cheap features", CANDIDATES["features, ridge 100"](texts, train.gain(wrong=0.0), tests)
    known, asked = material.tuned_texts, material.tuned_tests
    yield "ridge", CANDIDATES[_RIDGE](texts, train.gain(), tests)
    yield "ridge, tuned encoder", CANDIDATES[_RIDGE](known, train.gain(), asked)
    choice = CHOSEN[material.bench.name]
    if not choice.tuned:
        known, asked = texts, tests
    yield BEST, CANDIDATES[choice.candidate](known, train.gain(wrong=choice.wrong), asked)


def in_domain(material: Material) -> Iterator[Scored]:
    """Five-fold on the benchmark's own labels: what more labels of the same questions would give."""
    bench, tests = material.bench, material.tests
    gap = (bench.strong - bench.weak) / max(1.0, float(np.abs(bench.strong - bench.weak).max()))
    labels = (1 + gap) / 2
    fold = np.random.default_rng(0).permutation(bench.n) % _FOLDS
    scores = np.empty(bench.n)
    for held in range(_FOLDS):
        apart = fold == held
        weak, strong = bench.weak[~apart], bench.strong[~apart]

        def value(found: Array, rows: Flags, weak: Array = weak, strong: Array = strong) -> float:
            return apgr(found, weak[rows], strong[rows]) or 0.0

        scores[apart] = _fold(tests.only(~apart), labels[~apart], tests.only(apart), value)
    yield IN_DOMAIN, scores


def _fold(train: Texts, labels: Array, tests: Texts, value: Callable[[Array, Flags], float]) -> Array:
    # Each part's penalty is chosen within the training folds; scores are estimates of one label and need no scaling.
    parts = (
        best_of([ridge(penalty) for penalty in (3e3, 1e4, 3e4)], train, labels, value),
        best_of([words(penalty) for penalty in (3.0, 10.0, 30.0)], train, labels, value),
        neighbours(100),
    )
    return mean(*parts)(train, labels, tests)
