"""What a benchmark's methods are given: its prompts and the training set, without test prompts, as vectors."""

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

_CHUNK = 1000


def embedded(
    encoder: Encoder, texts: Sequence[str], folder: Path, *, progress: Callable[[str], None] = lambda _: None
) -> Vectors:
    """Vectors of `texts`, from `folder` where they were embedded before.

    Parameters
    ----------
    encoder : Encoder
        Only its embedding is kept; features are computed anew.
    texts : sequence of str
    folder : Path
        One safetensors file a thousand texts, named by a hash of the encoder and the texts.
    progress : callable
        Told after each file that had to be made.

    Returns
    -------
    array of float32, shape (len(texts), dim)
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = [
        _chunk(encoder, texts[start : start + _CHUNK], folder, progress)
        for start in range(0, len(texts), _CHUNK)
    ]
    return encoder.with_features(np.concatenate(found), texts)


def _chunk(encoder: Encoder, texts: Sequence[str], folder: Path, progress: Callable[[str], None]) -> Vectors:
    from safetensors.numpy import load_file, save_file

    path = folder / f"{chunk_key(encoder, texts)}.safetensors"
    if not path.is_file():
        part = path.with_suffix(".part")
        save_file({"vectors": np.ascontiguousarray(encoder.embedded(texts))}, part)
        part.replace(path)
        progress(f"embedded {len(texts)} prompts")
    return np.asarray(load_file(path)["vectors"], dtype=np.float32)


def chunk_key(encoder: Encoder, texts: Sequence[str]) -> str:
    """Name of the file that holds these texts' vectors."""
    digest = hashlib.sha256(f"{encoder.name}\0{encoder.sha256}".encode())
    for text in texts:
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()[:32]


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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """A benchmark and its training set with their vectors, and with those of the tuned encoder."""

    bench: Benchmark
    tests: Texts
    tuned_tests: Texts
    train: TrainingSet
    texts: Texts
    tuned_texts: Texts

    @property
    def dim(self) -> int:
        """Of the embedding alone."""
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
    """Embed, leave test prompts out, and tune: on prompts that are no near-duplicate of any benchmark's.

    Parameters
    ----------
    benches : mapping of str to Benchmark
    train : TrainingSet
    encoder : Encoder
        With features.
    tune : callable
        Makes an encoder that has seen the labels of the training set it is given.
    cache : Path
        Folder of embeddings.
    say : callable
        Told of progress and of what is left out.
    """

    def texts(made: Encoder, prompts: tuple[str, ...]) -> Texts:
        return Texts(prompts=prompts, vectors=embedded(made, prompts, cache, progress=say))

    known = texts(encoder, train.prompts)
    tests = {name: texts(encoder, bench.prompts) for name, bench in benches.items()}
    keep = {name: _kept(name, train, known, asked, say) for name, asked in tests.items()}
    tuned = tune(train.only(np.logical_and.reduce([*keep.values()])))
    tuned_known = texts(tuned, train.prompts)
    return {
        name: Material(
            bench=bench,
            tests=tests[name],
            tuned_tests=texts(tuned, bench.prompts),
            train=train.only(keep[name]),
            texts=known.only(keep[name]),
            tuned_texts=tuned_known.only(keep[name]),
        )
        for name, bench in benches.items()
    }


def _kept(name: str, train: TrainingSet, known: Texts, tests: Texts, say: Callable[[str], None]) -> Flags:
    by_words, by_cosine = train.apart(
        tests.prompts, known.vectors[:, : known.dim], tests.vectors[:, : tests.dim]
    )
    keep: Flags = by_words & by_cosine
    say(
        f"{name}: trained on {keep.sum()} prompts ({train.source}); {(~by_words).sum()} more left out as "
        f"near-duplicates of test prompts by their words, {(by_words & ~by_cosine).sum()} by their vectors"
    )
    return keep
