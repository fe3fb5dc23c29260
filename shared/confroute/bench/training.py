"""The training set of the replay: recorded models' answers to questions that no benchmark contains."""

from __future__ import annotations

import ast
import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
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
LLMROUTER = "llmrouter_9models.jsonl.gz"
OVERLAP = "mmlu_val_overlap_with_test_ids.json"
WEAK = ("llama3.2-1b", "llama3.2-3b", "llama3.1-8b", "gpt-4o-mini", "qwen2.5-32b-coder-instruct")
STRONG = ("llama3.1-70b", "llama3.1-405b", "gpt-4o", "qwen2.5-72b-instruct")
# Tasks of LLMRouter's rows that heads learn from. Its MMLU is the auxiliary questions, mostly on long passages, of which one weak
# model is left once those that fail by their format are out.
TASKS = ("gsm8k", "math")
# A model whose mean score on a task is at chance, or below this part of the best model's, fails by its format.
_LEAST_SCORE = 1 / 3
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
        Correctness of each model's answer, in the order of `weak_models` and `strong_models`.
    removed : int
        Number of prompts removed as near-duplicates of test prompts.
    weak_models, strong_models : tuple of str
        Names, each from the weakest to the strongest.
    """

    source: str
    prompts: tuple[str, ...]
    subjects: tuple[str, ...]
    weak: Array = field(repr=False)
    strong: Array = field(repr=False)
    removed: int = 0
    weak_models: tuple[str, ...] = WEAK
    strong_models: tuple[str, ...] = STRONG

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Pairs of a weak and a strong model, no model in two: the strongest of the weak ones."""
        count = min(len(self.weak_models), len(self.strong_models))
        return [*zip(self.weak_models[-count:], self.strong_models[:count], strict=True)]

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
        return self.weak[1:][index % (len(self.weak) - 1), index], self.strong[
            index % len(self.strong), index
        ]

    def gain(self, *, without: tuple[str, ...] = ()) -> Array:
        """Soft label in [0, 1] over all models except those in `without`.

        It is how often strong models are right, minus how often weak ones are, scaled to [0, 1].
        """
        weak, strong = (
            np.mean([row for name, row in zip(names, rows, strict=True) if name not in without], axis=0)
            for names, rows in ((self.weak_models, self.weak), (self.strong_models, self.strong))
        )
        return np.asarray((1 + strong - weak) / 2)

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


def load_tasks(folder: Path) -> dict[str, TrainingSet]:
    """Read LLMRouter's rows of `TASKS`; empty if the file is missing.

    Which models count, and which of them are weak, is read from the rows, task by task (`knowing`).

    Parameters
    ----------
    folder : Path
        Contains `llmrouter_9models.jsonl.gz`.

    Raises
    ------
    PolicyError
        The file cannot be read.
    """
    if not (folder / LLMROUTER).is_file():
        return {}
    try:
        rows = [*_rows(folder / LLMROUTER)]
        return {task: _task(task, [row for row in rows if row["task"] == task]) for task in TASKS}
    except (OSError, ValueError, KeyError, SyntaxError) as error:
        msg = f"{folder}: {type(error).__name__}: {error}: expected the recorded files, unchanged"
        raise PolicyError(msg) from error


def _task(task: str, rows: list[dict[str, Any]]) -> TrainingSet:
    scores = {
        name: np.array([row["scores"][name] for row in rows], dtype=np.float64) for name in rows[0]["scores"]
    }
    # Without options nothing is right by chance.
    chance = [1 / len(options) if (options := _options(row)) else 0.0 for row in rows]
    weak, strong = knowing(scores, chance=float(np.mean(chance)))
    return TrainingSet(
        source=f"LLMRouter's {task} rows, recorded scores of {len(weak) + len(strong)} models",
        prompts=tuple(map(_with_options, rows)),
        subjects=(task,) * len(rows),
        weak=np.array([scores[name] for name in weak]),
        strong=np.array([scores[name] for name in strong]),
        weak_models=weak,
        strong_models=strong,
    )


def knowing(scores: Mapping[str, Array], *, chance: float) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the weak and of the strong models among those whose scores measure what they know.

    A model is left out if its mean score is at or below chance, or below a third of the best model's: it failed by its
    format. The others are cut at the largest gap between neighbouring means. Both are sorted by the mean.

    Examples
    --------
    >>> means = {"silent": 0.1, "small": 0.5, "medium": 0.6, "large": 0.9}
    >>> knowing({name: np.array([mean]) for name, mean in means.items()}, chance=0.25)
    (('small', 'medium'), ('large',))
    """
    means = {name: float(row.mean()) for name, row in scores.items()}
    least = _LEAST_SCORE * max(means.values())
    names = sorted(
        (name for name, mean in means.items() if mean > chance and mean >= least), key=means.__getitem__
    )
    cut = 1 + int(np.argmax(np.diff([means[name] for name in names])))
    return tuple(names[:cut]), tuple(names[cut:])


def _options(row: dict[str, Any]) -> list[str]:
    """The options of a question; the file holds them as the text of a Python list."""
    return [str(option) for option in ast.literal_eval(row["choices"])] if row["choices"] else []


def _with_options(row: dict[str, Any]) -> str:
    """A question in the format of RouteLLM's prompts."""
    options = [f"{chr(ord('A') + at)}. {text}" for at, text in enumerate(_options(row))]
    return "\n".join([row["prompt"], *options, "Answer:"] if options else [row["prompt"]])


def local_encoder(source: str | Path) -> Encoder:
    """A local embedding model with features, its products in bfloat16 where the processor is fast at them."""
    from confroute.models.embed import LocalEmbedder

    local = LocalEmbedder.load(source, dtype="auto")
    return encoder(local, name=f"{local.name}, {local.dtype}", features=True)


def tuned_encoder(
    train: TrainingSet, *, cache: Path, base: str = DEFAULT_MODEL, say: Callable[[str], None] = lambda _: None
) -> Encoder:
    """Tune `base` to predict every recorded model's correctness, or reuse an encoder tuned on the same data before.

    It is tuned by one thread, because several add up in an order of their own: processors of one kind give equal weights.

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
    import torch

    qualities = np.concatenate([train.weak, train.strong]).T
    digest = hashlib.sha256("\0".join([base, *train.prompts]).encode())
    digest.update(np.ascontiguousarray(qualities).tobytes())
    folder = cache / f"tuned-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        say(f"tuning {base} on {len(train.prompts)} prompts, which takes minutes; kept in {folder}")
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            tune_encoder(train.prompts, qualities, folder, base=base, progress=say)
        finally:
            torch.set_num_threads(threads)
    return local_encoder(folder)
