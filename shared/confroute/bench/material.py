"""Prepares a benchmark for its methods: its prompts and the training set as vectors, and the candidates for our best head."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import numpy as np

from confroute.bench.data import Benchmark
from confroute.bench.training import TrainingSet
from confroute.heads import FEATURES, NearestNeighbours, Ridge, WordRidge
from confroute.heads.base import Vectors
from confroute.heads.encoder import Encoder
from confroute.stats.arrays import Array, Flags

_CHUNK_SIZE = 1000


def embed_cached(
    encoder: Encoder, texts: Sequence[str], folder: Path, *, progress: Callable[[str], None] = lambda _: None
) -> Vectors:
    """Embed `texts`, or take their vectors from `folder` if they were embedded before.

    Parameters
    ----------
    encoder : Encoder
        Its embeddings are stored; features are computed each time.
    texts : sequence of str
    folder : Path
        Holds one safetensors file per thousand texts, named by a hash of the encoder and the texts.
    progress : callable
        Called with a line of text after each new file.

    Returns
    -------
    array of float32, shape (len(texts), dim)
    """
    folder.mkdir(parents=True, exist_ok=True)
    chunks = [
        _embed_chunk(encoder, texts[start : start + _CHUNK_SIZE], folder, progress)
        for start in range(0, len(texts), _CHUNK_SIZE)
    ]
    return encoder.with_features(np.concatenate(chunks), texts)


def _embed_chunk(
    encoder: Encoder, texts: Sequence[str], folder: Path, progress: Callable[[str], None]
) -> Vectors:
    from safetensors.numpy import load_file, save_file

    path = folder / f"{chunk_key(encoder, texts)}.safetensors"
    if not path.is_file():
        part = path.with_suffix(".part")
        save_file({"vectors": np.ascontiguousarray(encoder.embeddings(texts))}, part)
        part.replace(path)
        progress(f"embedded {len(texts)} prompts")
    return np.asarray(load_file(path)["vectors"], dtype=np.float32)


def chunk_key(encoder: Encoder, texts: Sequence[str]) -> str:
    """Name of the file with these texts' vectors."""
    digest = hashlib.sha256(f"{encoder.name}\0{encoder.sha256}".encode())
    for text in texts:
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texts:
    """Prompts with their vectors: the embedding, followed by the features."""

    prompts: tuple[str, ...]
    vectors: Vectors = field(repr=False)

    @property
    def dim(self) -> int:
        """Length of the embedding, without features."""
        return int(self.vectors.shape[1]) - len(FEATURES)

    def subset(self, keep: Flags) -> Texts:
        """The prompts whose flag is set."""
        indices = np.flatnonzero(keep)
        return Texts(prompts=tuple(self.prompts[at] for at in indices), vectors=self.vectors[indices])


# (training prompts, labels in [0, 1], prompts to score) -> scores in the labels' units
Scorer: TypeAlias = "Callable[[Texts, Array, Texts], Array]"


def length(train: Texts, labels: Array, tests: Texts) -> Array:
    """Score by the number of characters, without learning."""
    del train, labels
    return np.array([len(text) for text in tests.prompts], dtype=np.float64)


def ridge(penalty: float, *, embedding: bool = True, features: bool = True) -> Scorer:
    """Ridge regression on the embedding, the features or both."""

    def scores(train: Texts, labels: Array, tests: Texts) -> Array:
        columns = slice(0 if embedding else train.dim, None if features else train.dim)
        head = Ridge.fit(train.vectors[:, columns], labels, penalty=penalty)
        return head.estimate(tests.vectors[:, columns]).cloud_wins

    return scores


def words(penalty: float) -> Scorer:
    """Ridge regression on words and word pairs."""

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
    """The mean of several scores, which all estimate the same label."""

    def scores(train: Texts, labels: Array, tests: Texts) -> Array:
        return np.asarray(np.mean([scorer(train, labels, tests) for scorer in scorers], axis=0))

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
# Candidates that read the embedding are also tried with a tuned encoder's vectors.
TUNED = "tuned: "
EMBEDDED = tuple(name for name in CANDIDATES if name.startswith(("embedding", "both")))


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadChoice:
    """A candidate, the weight of the edge's errors in its label, and whether it reads a tuned encoder's vectors."""

    candidate: str
    wrong: float
    tuned: bool = False


# Selected by benchmarks/select_heads.py on the training prompts alone.
HEAD_CHOICES = {
    "mmlu": HeadChoice(candidate="words, ridge 10", wrong=1.0),
    "gsm8k": HeadChoice(candidate="features, ridge 100", wrong=0.0),
    "mt-bench": HeadChoice(candidate="embedding, ridge 1e4", wrong=0.0, tuned=True),
}


def best_of(
    scorers: Sequence[Scorer], train: Texts, labels: Array, value: Callable[[Array, Flags], float]
) -> Scorer:
    """Select the scorer that, fitted to four fifths of the prompts, has the largest `value(scores, held_out)` on the rest."""
    held_out = np.random.default_rng(1).permutation(len(labels)) % 5 == 0
    fitting, validation = train.subset(~held_out), train.subset(held_out)
    values = [value(scorer(fitting, labels[~held_out], validation), held_out) for scorer in scorers]
    return scorers[int(np.argmax(values))]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """A benchmark and its training set, with the vectors of the plain and of the tuned encoder."""

    bench: Benchmark
    tests: Texts
    tuned_tests: Texts
    train: TrainingSet
    texts: Texts
    tuned_texts: Texts

    @property
    def dim(self) -> int:
        """Length of the embedding, without features."""
        return self.tests.dim


def materials(
    benches: Mapping[str, Benchmark],
    train: TrainingSet,
    encoder: Encoder,
    tune: Callable[[TrainingSet], Encoder],
    *,
    cache: Path,
    say: Callable[[str], None],
) -> dict[str, Material]:
    """Embed all prompts, remove near-duplicates of test prompts from the training set, and tune an encoder on the rest.

    Parameters
    ----------
    benches : mapping of str to Benchmark
    train : TrainingSet
    encoder : Encoder
        With features.
    tune : callable
        Makes an encoder that is tuned on the labels of a training set.
    cache : Path
        Folder of embeddings.
    say : callable
        Called with lines of progress, and with the numbers of prompts removed.
    """

    def texts(embed: Encoder, prompts: tuple[str, ...]) -> Texts:
        return Texts(prompts=prompts, vectors=embed_cached(embed, prompts, cache, progress=say))

    training_texts = texts(encoder, train.prompts)
    tests = {name: texts(encoder, bench.prompts) for name, bench in benches.items()}
    keep = {name: _no_duplicates(name, train, training_texts, test, say) for name, test in tests.items()}
    # One tuned encoder serves all benchmarks, so it must not see any benchmark's prompts.
    tuned = tune(train.subset(np.logical_and.reduce([*keep.values()])))
    tuned_training_texts = texts(tuned, train.prompts)
    return {
        name: Material(
            bench=bench,
            tests=tests[name],
            tuned_tests=texts(tuned, bench.prompts),
            train=train.subset(keep[name]),
            texts=training_texts.subset(keep[name]),
            tuned_texts=tuned_training_texts.subset(keep[name]),
        )
        for name, bench in benches.items()
    }


def _no_duplicates(
    name: str, train: TrainingSet, texts: Texts, tests: Texts, say: Callable[[str], None]
) -> Flags:
    by_words, by_cosine = train.distinct_from(
        tests.prompts, texts.vectors[:, : texts.dim], tests.vectors[:, : tests.dim]
    )
    keep: Flags = by_words & by_cosine
    say(
        f"{name}: trained on {keep.sum()} prompts ({train.source}); {(~by_words).sum()} removed as near-duplicates of "
        f"test prompts by their words, {(by_words & ~by_cosine).sum()} by their vectors"
    )
    return keep
