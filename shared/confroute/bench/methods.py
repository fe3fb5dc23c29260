"""Scores the prompts of a benchmark by every method: the higher the score, the sooner a prompt goes to the cloud."""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias
from unittest import mock

import numpy as np

from confroute.bench.candidates import (
    HEAD_CHOICES,
    MEMBERS,
    best_of,
    learn_and_score,
    mean,
    neighbours,
    process,
    quantities,
    ridge,
    words,
)
from confroute.bench.data import Benchmark
from confroute.bench.material import Material, Texts
from confroute.heads import MLP, MatrixFactorisation, NearestNeighbours, SimilarityRanking
from confroute.heads.base import Head, Vectors
from confroute.stats.arrays import Array, Flags
from confroute.stats.metrics import apgr

BEST = "confroute best"
IN_DOMAIN = "confroute best, five-fold in-domain"
_RUNS = 10
_FOLDS = 5
_NEIGHBOURS = 50


# (name of the method, scores)
Scored: TypeAlias = "tuple[str, Array]"


def without_training(bench: Benchmark) -> Iterator[Scored]:
    """Score by chance (ten runs), by the oracle, and by prompt length."""
    generator = np.random.default_rng(0)
    yield "random", generator.random((_RUNS, bench.n))
    yield "oracle", bench.strong - bench.weak
    yield "prompt length", np.array([len(prompt) for prompt in bench.prompts], dtype=np.float64)


def trained(material: Material) -> Iterator[Scored]:
    """Score by the paper's four heads on battles, TO-Router's on accuracy labels, cheap features, ridge, and our best."""
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
    gains = train.gain()
    for name, member in (
        ("cheap features", "features"),
        ("ridge", "minilm"),
        ("ridge, tuned encoder", "tuned"),
    ):
        yield name, MEMBERS[member](texts, gains, tests)
    yield BEST, learn_and_score(HEAD_CHOICES[material.bench.name], material.runs, tests)


def in_domain(material: Material) -> Iterator[Scored]:
    """Score by five-fold cross-fitting on the benchmark's own labels: the effect of labels of the same questions."""
    bench, tests = material.bench, material.tests
    gap = (bench.strong - bench.weak) / max(1.0, float(np.abs(bench.strong - bench.weak).max()))
    labels = (1 + gap) / 2
    fold = np.random.default_rng(0).permutation(bench.n) % _FOLDS
    scores = np.empty(bench.n)
    for number in range(_FOLDS):
        held_out = fold == number
        weak, strong = bench.weak[~held_out], bench.strong[~held_out]

        def value(scores: Array, rows: Flags, weak: Array = weak, strong: Array = strong) -> float:
            return apgr(scores, weak[rows], strong[rows]) or 0.0

        scores[held_out] = _score_fold(
            tests.subset(~held_out), labels[~held_out], tests.subset(held_out), value
        )
    yield IN_DOMAIN, scores


def _score_fold(train: Texts, labels: Array, tests: Texts, value: Callable[[Array, Flags], float]) -> Array:
    # Penalties and members are selected within the training folds. All scores estimate the same label, so they need no scaling.
    ridges = best_of([ridge(penalty) for penalty in (3e3, 1e4, 3e4)], train, labels, value)
    worded = best_of([words(penalty) for penalty in (3.0, 10.0, 30.0)], train, labels, value)
    smooth, near, counted = process(keep=2000), neighbours(100), quantities(100.0)
    blends = (
        mean(ridges, worded, near),
        mean(worded, smooth),
        mean(ridges, worded, near, smooth),
        mean(worded, smooth, counted),
    )
    return best_of(blends, train, labels, value)(train, labels, tests)


_NEEDS = ("routellm", "openai", "pandas", "sklearn", "torch")
_EPOCHS, _RANK = 100, 128


def missing_packages() -> list[str]:
    """Packages that RouteLLM's code needs and that are not installed."""
    return [name for name in _NEEDS if importlib.util.find_spec(name) is None]


def routellm(material: Material) -> Iterator[Scored]:
    """Score by RouteLLM's own similarity-weighted ranking and matrix factorisation, trained on the battles."""
    train, texts, dim = material.train, material.texts, material.dim
    x, tests = texts.vectors[:, :dim], material.tests.vectors[:, :dim]
    # Its modules create an OpenAI client on import, which none of the calls below uses.
    with mock.patch.dict(os.environ, {"OPENAI_API_KEY": "unused"}):
        ranking = importlib.import_module("routellm.routers.similarity_weighted.utils")
    yield "RouteLLM SW", _ranking(ranking, x, train.battle, tests)
    with mock.patch.dict(os.environ, {"OPENAI_API_KEY": "unused"}):
        factorisation = importlib.import_module(
            "routellm.routers.matrix_factorization.train_matrix_factorization"
        )
    yield "RouteLLM MF", _factorisation(factorisation, x, train.battle, tests)


def _ranking(module: Any, x: Vectors, battle: Array, tests: Vectors) -> Array:
    """Run its `compute_elo_mle_with_tie` for each prompt, with the weights of its `SWRankingRouter`."""
    pd: Any = importlib.import_module("pandas")
    winner = np.where(battle > 0.5, "model_a", np.where(battle < 0.5, "model_b", "tie"))
    # Text columns would become Arrow's, whose comparisons do not give numpy masks.
    battles = pd.DataFrame({"model_a": 1, "model_b": 0, "winner": winner.astype(object)})
    scores = np.empty(len(tests))
    for at, query in enumerate(tests):
        similarity = x @ query / (np.linalg.norm(x, axis=1) * np.linalg.norm(query))
        weight = 10 * 10 ** (similarity / similarity.max())
        ratings = module.compute_elo_mle_with_tie(battles, sample_weight=weight.astype(np.float64))
        scores[at] = 1 - 1 / (1 + 10 ** ((ratings[1] - ratings[0]) / 400))
    return scores


# Any weaker and stronger model that its code knows.
_MODELS = ("mixtral-8x7b-instruct-v0.1", "gpt-4-1106-preview")


def _battles(battle: Array) -> list[dict[str, object]]:
    """The rows of its data set, without ties."""
    edge, cloud = _MODELS
    return [
        {"model_a": cloud, "model_b": edge, "idx": at, "winner": "model_a" if won > 0.5 else "model_b"}
        for at, won in enumerate(battle.tolist())
        if won != 0.5
    ]


def _factorisation(module: Any, x: Vectors, battle: Array, tests: Vectors) -> Array:
    """Train its `MFModel_Train` by its `train_loops` with its settings; ties are dropped, as in its script."""
    import tempfile
    from pathlib import Path

    import torch

    torch.manual_seed(42)
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder) / "vectors.npy", x)
        net = module.MFModel_Train(
            dim=_RANK,
            num_models=len(module.MODEL_IDS),
            num_prompts=len(x),
            text_dim=x.shape[1],
            npy_path=str(Path(folder) / "vectors.npy"),
        )
    data = module.PairwiseDataset(_battles(battle))
    with mock.patch.object(module, "tqdm", mock.MagicMock()):
        module.train_loops(
            net,
            data.get_dataloaders(64),
            data.get_dataloaders(1024, shuffle=False),
            lr=3e-4,
            weight_decay=1e-5,
            alpha=0.1,
            num_epochs=_EPOCHS,
            device="cpu",
        )
    with torch.no_grad():
        ids = torch.tensor([module.MODEL_IDS[name] for name in _MODELS])
        edge, cloud = torch.nn.functional.normalize(net.P(ids), dim=1)
        logits = net.classifier((cloud - edge) * net.text_proj(torch.from_numpy(tests.copy()))).squeeze(1)
    return np.asarray(logits.numpy(), dtype=np.float64)
