"""What a benchmark's methods are given: its prompts and the training set, without test prompts, as vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from confroute.bench._arrays import Flags
from confroute.bench.replay.blends import Texts
from confroute.bench.replay.data import Benchmark
from confroute.bench.replay.embeddings import embedded
from confroute.bench.replay.training import TrainingSet
from confroute.heads.encoder import Encoder


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
