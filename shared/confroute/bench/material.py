"""Prepares a benchmark for its methods: its prompts and the training sets as vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from confroute.bench.data import Benchmark
from confroute.bench.training import TrainingSet
from confroute.errors import PolicyError
from confroute.heads import FEATURES
from confroute.heads.base import Vectors
from confroute.heads.encoder import Encoder
from confroute.stats.arrays import Array, Flags
from confroute.tensors import read_arrays, write_arrays

_CHUNK_SIZE = 1000
_WHAT = "stored embeddings"


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
    path = folder / f"{chunk_key(encoder, texts)}.safetensors"
    if not path.is_file():
        write_arrays(path, {"vectors": encoder.embeddings(texts)}, _WHAT)
        progress(f"embedded {len(texts)} prompts")
    return np.asarray(read_arrays(path, _WHAT, PolicyError)["vectors"], dtype=np.float32)


def chunk_key(encoder: Encoder, texts: Sequence[str]) -> str:
    """Name of the file with these texts' vectors."""
    digest = hashlib.sha256(f"{encoder.name}\0{encoder.sha256}".encode())
    for text in texts:
        digest.update(b"\0" + text.encode())
    return digest.hexdigest()[:32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Texts:
    """Prompts with their vectors: the embedding, followed by the features.

    Attributes
    ----------
    prompts : tuple of str
    vectors : array of float32, shape (n, dim + features)
    others : mapping of str to array
        The same of further encoders, by name.
    """

    prompts: tuple[str, ...]
    vectors: Vectors = field(repr=False)
    others: Mapping[str, Vectors] = field(default_factory=dict, repr=False)

    @property
    def dim(self) -> int:
        """Length of the embedding, without features."""
        return int(self.vectors.shape[1]) - len(FEATURES)

    def subset(self, keep: Flags) -> Texts:
        """The prompts whose flag is set."""
        indices = np.flatnonzero(keep)
        return Texts(
            prompts=tuple(self.prompts[at] for at in indices),
            vectors=self.vectors[indices],
            others={name: vectors[indices] for name, vectors in self.others.items()},
        )

    def and_then(self, more: Texts) -> Texts:
        """These prompts, followed by others of the same encoders."""
        return Texts(
            prompts=self.prompts + more.prompts,
            vectors=np.concatenate([self.vectors, more.vectors]),
            others={
                name: np.concatenate([vectors, more.others[name]]) for name, vectors in self.others.items()
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Material:
    """A benchmark, and what its heads learn from.

    Attributes
    ----------
    bench : Benchmark
    tests : Texts
        Its prompts.
    train : TrainingSet
        MMLU questions with nine models' answers, from which the paper's heads learn.
    texts : Texts
        Its prompts.
    runs : tuple of (Texts, array)
        Prompts and gains of every run, that whose questions are like the benchmark's first.
    """

    bench: Benchmark
    tests: Texts
    train: TrainingSet
    texts: Texts
    runs: tuple[tuple[Texts, Array], ...]

    @property
    def dim(self) -> int:
        """Length of the embedding, without features."""
        return self.tests.dim


def distinct(
    runs: Mapping[str, TrainingSet],
    benches: Mapping[str, Benchmark],
    embed: Callable[[Sequence[str]], Vectors],
    *,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, Flags]:
    """Flag, in each run, the prompts that are no near-duplicates of any benchmark's.

    Parameters
    ----------
    runs : mapping of str to TrainingSet
    benches : mapping of str to Benchmark
    embed : callable
        Vectors of prompts, without features.
    say : callable
        Called with the numbers of prompts that are.
    """
    tests = {name: embed(bench.prompts) for name, bench in benches.items()}
    found = {}
    for name, run in runs.items():
        vectors, keep = embed(run.prompts), np.ones(len(run.prompts), dtype=bool)
        for bench, one in benches.items():
            by_words, by_cosine = run.distinct_from(one.prompts, vectors, tests[bench])
            keep &= by_words & by_cosine
            say(
                f"{run.source}: near-duplicates of {bench}'s prompts: {(~by_words).sum()} by their words, "
                f"{(by_words & ~by_cosine).sum()} by their vectors"
            )
        say(f"{run.source}: {keep.sum()} of {keep.size} prompts kept")
        found[name] = keep
    return found


def own_run(bench: str, runs: Sequence[str]) -> str:
    """Name of the run whose questions are like a benchmark's: the one of its name, else the first."""
    return bench if bench in runs else runs[0]


def materials(
    benches: Mapping[str, Benchmark],
    runs: Mapping[str, TrainingSet],
    encoder: Encoder,
    others: Mapping[str, Callable[[TrainingSet], Encoder]],
    *,
    only: Collection[str] | None = None,
    cache: Path,
    say: Callable[[str], None],
) -> dict[str, Material]:
    """Embed all prompts, and remove near-duplicates of test prompts from the runs.

    Parameters
    ----------
    benches : mapping of str to Benchmark
    runs : mapping of str to TrainingSet
        The first is the nine models' answers to MMLU questions.
    encoder : Encoder
        With features.
    others : mapping of str to callable
        Makes each further encoder, given the first run without test prompts.
    only : collection of str, optional
        Benchmarks to prepare; near-duplicates of the others' prompts are removed all the same.
    cache : Path
        Folder of embeddings.
    say : callable
        Called with lines of progress, and with the numbers of prompts removed.
    """

    def plain(prompts: Sequence[str]) -> Vectors:
        return embed_cached(encoder, prompts, cache, progress=say)

    keep = distinct(runs, benches, lambda prompts: plain(prompts)[:, : -len(FEATURES)], say=say)
    kept = {name: run.subset(keep[name]) for name, run in runs.items()}
    first = next(iter(kept.values()))
    # One tuned encoder serves all benchmarks, so it must not see any benchmark's prompts.
    further = {name: make(first) for name, make in others.items()}

    def texts(prompts: tuple[str, ...]) -> Texts:
        vectors = {name: embed_cached(embed, prompts, cache, progress=say) for name, embed in further.items()}
        return Texts(prompts=prompts, vectors=plain(prompts), others=vectors)

    # All of them are embedded, so that another filter finds their vectors in the cache.
    known = {name: (texts(run.prompts).subset(keep[name]), kept[name].gain()) for name, run in runs.items()}
    found = {}
    for name, bench in benches.items():
        if only is not None and name not in only:
            continue
        own = own_run(name, [*known])
        rest = (pair for run, pair in known.items() if run != own)
        found[name] = Material(
            bench=bench,
            tests=texts(bench.prompts),
            train=first,
            texts=next(iter(known.values()))[0],
            runs=(known[own], *rest),
        )
    return found
