"""What heads are trained on in the replay, and the check that no test prompt is among it."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from confroute.bench._arrays import Array
from confroute.errors import PolicyError

NINE, QUERIES = "nine_models_mmlu_medmcqa.jsonl.gz", "train_queries.jsonl.gz"
OVERLAP = "mmlu_val_overlap_with_test_ids.json"
WEAK = ("llama3.2-3b", "llama3.1-8b", "gpt-4o-mini", "qwen2.5-32b-coder-instruct")
STRONG = ("llama3.1-70b", "llama3.1-405b", "gpt-4o", "qwen2.5-72b-instruct")
# How hard a collection is, from what is known of it: one-step sums, grade-school problems, competitions.
MATHS = {"svamp": 0.0, "asdiv": 0.0, "mawps": 0.0, "gsm8k_train": 0.5, "math_level3-5": 1.0}
_A_SOURCE = 1000
_GRAM = 5
_CONTAINED = 0.5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSet:
    """Prompts with three kinds of labels.

    Attributes
    ----------
    source : str
        What it was made of.
    prompts : tuple of str
    battle : array, shape (n,)
        Outcome of one battle of a strong and a weak model a prompt: 1, 0.5 or 0. What RouteLLM's heads learn from.
    gain : array in [0, 1], shape (n,)
        Soft label over all models: mean of (1 + strong right - weak right) / 2 and of weak wrong.
    wrong : array, shape (n,) or None
        Whether the weak model of the battle is wrong: the accuracy label of TO-Router.
    removed : int
        Prompts left out because they, or almost they, are test prompts.
    """

    source: str
    prompts: tuple[str, ...]
    battle: Array = field(repr=False)
    gain: Array = field(repr=False)
    wrong: Array | None = field(default=None, repr=False)
    removed: int = 0

    def without(self, tests: Sequence[str]) -> TrainingSet:
        """Without prompts that are, or almost are, among `tests`."""
        near = near_duplicates(self.prompts, tests)
        keep = np.array([at not in near for at in range(len(self.prompts))])
        return TrainingSet(
            source=self.source,
            prompts=tuple(text for text, kept in zip(self.prompts, keep, strict=True) if kept),
            battle=self.battle[keep],
            gain=self.gain[keep],
            wrong=None if self.wrong is None else self.wrong[keep],
            removed=self.removed + len(near),
        )


def near_duplicates(prompts: Sequence[str], tests: Sequence[str]) -> set[int]:
    """Which of `prompts` share half of their five-word sequences with a test prompt; all of a shorter prompt's words.

    Numbers count as equal, letters without case: a problem with other figures is a duplicate too.

    Examples
    --------
    >>> near_duplicates(
    ...     ["Tom has 3 red apples and eats one.", "Why?"], ["tom has 12 red apples, and eats one"]
    ... )
    {0}
    """
    mine = [_grams(text) for text in prompts]
    holders: dict[str, list[int]] = defaultdict(list)
    for at, grams in enumerate(mine):
        for gram in grams:
            holders[gram].append(at)
    found: set[int] = set()
    for text in tests:
        shared = Counter(at for gram in _grams(text) for at in holders.get(gram, ()))
        found |= {at for at, count in shared.items() if count >= _CONTAINED * len(mine[at])}
    return found


def _grams(text: str) -> set[str]:
    words = re.findall(r"[a-z]+|0", re.sub(r"\d[\d.,]*", " 0 ", text.lower()))
    if len(words) < _GRAM:
        return {" ".join(words)} if words else set()
    return {" ".join(words[at : at + _GRAM]) for at in range(len(words) - _GRAM + 1)}


def training_sets(folder: Path) -> dict[str, TrainingSet]:
    """The training sets that the recorded files in `folder` allow, by benchmark.

    Parameters
    ----------
    folder : Path
        Holds `nine_models_mmlu_medmcqa.jsonl.gz` (for MMLU), `train_queries.jsonl.gz` (for GSM8K), or both (for
        MT-Bench, which gets both pooled).

    Raises
    ------
    PolicyError
        A file that cannot be read.
    """
    found: dict[str, TrainingSet] = {}
    try:
        if (folder / NINE).is_file():
            found["mmlu"] = _mmlu(folder)
        if (folder / QUERIES).is_file():
            found["gsm8k"] = _maths(folder)
    except (OSError, ValueError, KeyError) as error:
        msg = f"{folder}: {type(error).__name__}: {error}: expected the recorded files as they are"
        raise PolicyError(msg) from error
    if len(found) == 2:
        found["mt-bench"] = _pooled(*found.values())
    return found


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _mmlu(folder: Path) -> TrainingSet:
    rows = [row for row in _rows(folder / NINE) if row["dataset"] == "mmlu"]
    known = folder / OVERLAP
    overlap = {*json.loads(known.read_text(encoding="utf-8"))} if known.is_file() else set()
    kept = [row for row in rows if row["id"] not in overlap]
    right = {
        name: np.array([float(row["models"][name]["correct"]) for row in kept]) for name in WEAK + STRONG
    }
    weak, strong = (np.stack([right[name] for name in names]) for names in (WEAK, STRONG))
    turn, each = np.arange(len(kept)) % len(WEAK), np.arange(len(kept))
    gain = (1 + strong.mean(axis=0) - weak.mean(axis=0)) / 2
    return TrainingSet(
        source="MMLU validation and dev, nine models' recorded answers",
        prompts=tuple(map(_as_routellm, kept)),
        battle=(1 + strong[turn, each] - weak[turn, each]) / 2,
        gain=(gain + 1 - weak.mean(axis=0)) / 2,
        wrong=1 - weak[turn, each],
        removed=len(rows) - len(kept),
    )


def _as_routellm(row: dict[str, Any]) -> str:
    """A recorded question in the form of RouteLLM's prompts."""
    choices = row["prompt"].split("Choices:\n", 1)[1].rsplit("\n\nAnswer", 1)[0]
    lettered = re.sub(r"(?m)^([A-Z]): ", r"\g<1>. ", choices)
    return f"{row['question']}\n{lettered}\nAnswer:"


def _maths(folder: Path) -> TrainingSet:
    by_source: dict[str, list[str]] = {name: [] for name in MATHS}
    for row in _rows(folder / QUERIES):
        prompts = by_source.get(row["dataset"])
        if prompts is not None and len(prompts) < _A_SOURCE:
            prompts.append(row["question"])
    labels = np.array([MATHS[name] for name, prompts in by_source.items() for _ in prompts])
    return TrainingSet(
        source=f"{', '.join(MATHS)}: which collection a problem is from, {_A_SOURCE} of each",
        prompts=tuple(text for prompts in by_source.values() for text in prompts),
        battle=labels,
        gain=labels,
    )


def _pooled(first: TrainingSet, second: TrainingSet) -> TrainingSet:
    return TrainingSet(
        source=f"both: {first.source}; {second.source}",
        prompts=first.prompts + second.prompts,
        battle=np.concatenate([first.battle, second.battle]),
        gain=np.concatenate([first.gain, second.gain]),
        removed=first.removed + second.removed,
    )
