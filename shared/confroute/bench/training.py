"""The training set of the replay: recorded models' answers to questions that no benchmark contains."""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from confroute.errors import PolicyError
from confroute.heads.base import Vectors, unit_rows
from confroute.heads.encoder import DEFAULT_MODEL, Encoder, encoder
from confroute.heads.tuning import tune_encoder
from confroute.reading import fields, json_file, json_lines, optional_texts
from confroute.stats.arrays import Array, Flags

NINE = "nine_models_mmlu_medmcqa.jsonl.gz"
OVERLAP = "mmlu_val_overlap_with_test_ids.json"
WEAK = ("llama3.2-1b", "llama3.2-3b", "llama3.1-8b", "gpt-4o-mini", "qwen2.5-32b-coder-instruct")
STRONG = ("llama3.1-70b", "llama3.1-405b", "gpt-4o", "qwen2.5-72b-instruct")
# Near-duplicates share this part of their sequences of so many words, or have vectors of this cosine.
_GRAM_WORDS = 5
_MIN_SHARED = 0.5
_MIN_COSINE = 0.95
# A word sequence in more test prompts than this belongs to a template, not to a question (cf. the 13-grams of Brown et
# al., arXiv 2005.14165, appendix C, which are dropped if they occur in more than ten documents).
_MAX_PROMPTS = 10


def near_duplicates(prompts: Sequence[str], tests: Sequence[str]) -> set[int]:
    """Indices of prompts that share half of their five-word sequences with a test prompt; short ones all their words.

    All numbers are equal and case is ignored, so that the same problem with other figures is a duplicate. Sequences in
    more than ten test prompts are not counted, so that two questions from one template are not duplicates.

    Examples
    --------
    >>> near_duplicates(
    ...     ["Tom has 3 red apples and eats one.", "Why?"], ["tom has 12 red apples, and eats one"]
    ... )
    {0}
    """
    test_grams = [_grams(text) for text in tests]
    test_counts = Counter(gram for grams in test_grams for gram in grams)
    templates = {gram for gram, count in test_counts.items() if count > _MAX_PROMPTS}
    # A prompt that is nothing but template is compared as a whole.
    prompt_grams = [grams - templates or grams for grams in map(_grams, prompts)]
    prompts_with: dict[str, list[int]] = defaultdict(list)
    for index, grams in enumerate(prompt_grams):
        for gram in grams:
            prompts_with[gram].append(index)
    duplicates: set[int] = set()
    for grams in test_grams:
        shared = Counter(index for gram in grams for index in prompts_with.get(gram, ()))
        duplicates |= {at for at, count in shared.items() if count >= _MIN_SHARED * len(prompt_grams[at])}
    return duplicates


def _grams(text: str) -> set[str]:
    words = re.findall(r"[a-z]+|0", re.sub(r"\d[\d.,]*", " 0 ", text.lower()))
    if len(words) < _GRAM_WORDS:
        return {" ".join(words)} if words else set()
    return {" ".join(words[at : at + _GRAM_WORDS]) for at in range(len(words) - _GRAM_WORDS + 1)}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSet:
    """Prompts with the correctness of several models' answers, and three kinds of labels derived from it.

    Attributes
    ----------
    source : str
        Where the data come from.
    prompts : tuple of str
    subjects : tuple of str
    weak, strong : array of 0 and 1, shape (models, n)
        Correctness of each model's answer, in the order of `WEAK` and `STRONG`.
    removed : int
        Number of prompts removed as near-duplicates of test prompts.
    """

    source: str
    prompts: tuple[str, ...]
    subjects: tuple[str, ...]
    weak: Array = field(repr=False)
    strong: Array = field(repr=False)
    removed: int = 0

    @property
    def battle(self) -> Array:
        """Outcome of one battle per prompt between a strong and a weak model, 1, 0.5 or 0: the label of RouteLLM's heads."""
        weak, strong = self._battle_models()
        return (1 + strong - weak) / 2

    @property
    def wrong(self) -> Array:
        """Whether the weak model of the battle is wrong: the accuracy label of TO-Router."""
        return 1 - self._battle_models()[0]

    def _battle_models(self) -> tuple[Array, Array]:
        """Correctness of the weak and the strong model of each prompt's battle."""
        # Prompts take the pairs in turn; the smallest model is left out, as nobody would use it as an edge.
        index = np.arange(len(self.prompts))
        return self.weak[1:][index % (len(WEAK) - 1), index], self.strong[index % len(STRONG), index]

    def gain(self, *, without: tuple[str, ...] = (), wrong: float = 0.0) -> Array:
        """Soft label in [0, 1] over all models except those in `without`.

        It is how often strong models are right, minus how often weak ones are, plus `wrong` times how often weak ones are
        wrong, scaled to [0, 1].
        """
        weak = np.mean(
            [row for name, row in zip(WEAK, self.weak, strict=True) if name not in without], axis=0
        )
        strong = np.mean(
            [row for name, row in zip(STRONG, self.strong, strict=True) if name not in without], axis=0
        )
        return np.asarray((1 + strong - weak + wrong * (1 - weak)) / (2 + wrong))

    def distinct_from(
        self, tests: Sequence[str], vectors: Vectors, test_vectors: Vectors
    ) -> tuple[Flags, Flags]:
        """Flag the prompts that are not near-duplicates of `tests` by their words, and those that are not by their vectors.

        Parameters
        ----------
        tests : sequence of str
        vectors, test_vectors : array of float, shape (n, dim) and (len(tests), dim)
            Embeddings of the training prompts and of `tests`.
        """
        duplicates = near_duplicates(self.prompts, tests)
        similarity = (unit_rows(vectors) @ unit_rows(test_vectors).T).max(axis=1)
        by_words = np.array([index not in duplicates for index in range(len(self.prompts))])
        return by_words, np.asarray(similarity < _MIN_COSINE)

    def subset(self, keep: Flags) -> TrainingSet:
        """The prompts whose flag is set; the others count as removed."""
        indices = np.flatnonzero(keep)
        return replace(
            self,
            prompts=tuple(self.prompts[at] for at in indices),
            subjects=tuple(self.subjects[at] for at in indices),
            weak=self.weak[:, indices],
            strong=self.strong[:, indices],
            removed=self.removed + len(self.prompts) - indices.size,
        )


def load_training_set(folder: Path) -> TrainingSet | None:
    """Read MMLU's validation and dev questions with the recorded models' answers; None if the file is missing.

    Parameters
    ----------
    folder : Path
        Contains `nine_models_mmlu_medmcqa.jsonl.gz`.

    Raises
    ------
    PolicyError
        A file cannot be read.
    """
    if not (folder / NINE).is_file():
        return None
    try:
        return _mmlu(folder)
    except (OSError, ValueError, KeyError) as error:
        msg = f"{folder}: {type(error).__name__}: {error}: expected the recorded files, unchanged"
        raise PolicyError(msg) from error


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    for _, data in json_lines(path, PolicyError):
        yield fields(data, "the line")


def _mmlu(folder: Path) -> TrainingSet:
    rows = [row for row in _rows(folder / NINE) if row["dataset"] == "mmlu"]
    overlap_file = folder / OVERLAP
    listed = json_file(overlap_file, PolicyError) if overlap_file.is_file() else None
    overlap = {*(optional_texts(listed, OVERLAP) or ())}
    kept = [row for row in rows if row["id"] not in overlap]

    def correctness(names: tuple[str, ...]) -> Array:
        return np.array([[float(row["models"][name]["correct"]) for row in kept] for name in names])

    return TrainingSet(
        source="MMLU validation and dev, nine models' recorded answers",
        prompts=tuple(map(_as_routellm, kept)),
        subjects=tuple(str(row.get("subject")) for row in kept),
        weak=correctness(WEAK),
        strong=correctness(STRONG),
        removed=len(rows) - len(kept),
    )


def _as_routellm(row: dict[str, Any]) -> str:
    """A recorded question in the format of RouteLLM's prompts."""
    choices = row["prompt"].split("Choices:\n", 1)[1].rsplit("\n\nAnswer", 1)[0]
    options = re.sub(r"(?m)^([A-Z]): ", r"\g<1>. ", choices)
    return f"{row['question']}\n{options}\nAnswer:"


def tuned_encoder(
    train: TrainingSet, *, cache: Path, base: str = DEFAULT_MODEL, say: Callable[[str], None] = lambda _: None
) -> Encoder:
    """Tune `base` to predict every recorded model's correctness, or reuse an encoder tuned on the same data before.

    Parameters
    ----------
    train : TrainingSet
        Without test prompts.
    cache : Path
        Folder of tuned models.
    base : str
        A local embedding model.
    say : callable
        Called with lines of progress.
    """
    qualities = np.concatenate([train.weak, train.strong]).T
    digest = hashlib.sha256("\0".join([base, *train.prompts]).encode())
    digest.update(np.ascontiguousarray(qualities).tobytes())
    folder = cache / f"tuned-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        say(f"tuning {base} on {len(train.prompts)} prompts, which takes minutes; kept in {folder}")
        tune_encoder(train.prompts, qualities, folder, base=base, progress=say)
    return encoder(str(folder), features=True)
