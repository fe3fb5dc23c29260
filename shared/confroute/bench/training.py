"""What heads are trained on in the replay: recorded models' answers to questions that are in no benchmark."""

from __future__ import annotations

import gzip
import hashlib
import json
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
from confroute.stats.arrays import Array, Flags

_GRAM = 5
_CONTAINED = 0.5
# A sequence of words in more test prompts than this is a form to fill in, not a question (cf. the 13-grams of Brown et
# al., arXiv 2005.14165, appendix C, which are dropped beyond ten documents).
_FORM = 10


def near_duplicates(prompts: Sequence[str], tests: Sequence[str]) -> set[int]:
    """Which of `prompts` share half of their five-word sequences with a test prompt; all of a shorter prompt's words.

    Numbers count as equal, letters without case: a problem with other figures is a duplicate too. Sequences that stand
    in more than ten test prompts are left out of the count, so that two questions of one form are no duplicates.

    Examples
    --------
    >>> near_duplicates(
    ...     ["Tom has 3 red apples and eats one.", "Why?"], ["tom has 12 red apples, and eats one"]
    ... )
    {0}
    """
    theirs = [_grams(text) for text in tests]
    held = Counter(gram for grams in theirs for gram in grams)
    forms = {gram for gram, count in held.items() if count > _FORM}
    mine = [_grams(text) for text in prompts]
    # A prompt that is nothing but form is compared as a whole.
    mine = [grams - forms or grams for grams in mine]
    holders: dict[str, list[int]] = defaultdict(list)
    for at, grams in enumerate(mine):
        for gram in grams:
            holders[gram].append(at)
    found: set[int] = set()
    for grams in theirs:
        shared = Counter(at for gram in grams for at in holders.get(gram, ()))
        found |= {at for at, count in shared.items() if count >= _CONTAINED * len(mine[at])}
    return found


def _grams(text: str) -> set[str]:
    words = re.findall(r"[a-z]+|0", re.sub(r"\d[\d.,]*", " 0 ", text.lower()))
    if len(words) < _GRAM:
        return {" ".join(words)} if words else set()
    return {" ".join(words[at : at + _GRAM]) for at in range(len(words) - _GRAM + 1)}


NINE = "nine_models_mmlu_medmcqa.jsonl.gz"
OVERLAP = "mmlu_val_overlap_with_test_ids.json"
WEAK = ("llama3.2-1b", "llama3.2-3b", "llama3.1-8b", "gpt-4o-mini", "qwen2.5-32b-coder-instruct")
STRONG = ("llama3.1-70b", "llama3.1-405b", "gpt-4o", "qwen2.5-72b-instruct")
_SAME = 0.95


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingSet:
    """Prompts with the answers' correctness, and three kinds of labels made of it.

    Attributes
    ----------
    source : str
        What it was made of.
    prompts : tuple of str
    subjects : tuple of str
    weak, strong : array of 0 and 1, shape (models, n)
        Correctness of each model's answer, in the order of `WEAK` and `STRONG`.
    removed : int
        Prompts left out because they, or almost they, are test prompts.
    """

    source: str
    prompts: tuple[str, ...]
    subjects: tuple[str, ...]
    weak: Array = field(repr=False)
    strong: Array = field(repr=False)
    removed: int = 0

    @property
    def battle(self) -> Array:
        """Outcome of one battle of a strong and a weak model a prompt: 1, 0.5 or 0. What RouteLLM's heads learn from."""
        weak, strong = self._turn()
        return (1 + strong - weak) / 2

    @property
    def wrong(self) -> Array:
        """Whether the weak model of the battle is wrong: the accuracy label of TO-Router."""
        return 1 - self._turn()[0]

    def _turn(self) -> tuple[Array, Array]:
        # Each prompt's battle is between the next pair; the smallest model is no edge that anyone would choose.
        each = np.arange(len(self.prompts))
        return self.weak[1:][each % (len(WEAK) - 1), each], self.strong[each % len(STRONG), each]

    def gain(self, *, without: tuple[str, ...] = (), wrong: float = 0.0) -> Array:
        """Soft label in [0, 1] over all models but those in `without`.

        Strong right minus weak right, and `wrong` times weak wrong, each the mean over models, scaled.
        """
        weak = np.mean(
            [row for name, row in zip(WEAK, self.weak, strict=True) if name not in without], axis=0
        )
        strong = np.mean(
            [row for name, row in zip(STRONG, self.strong, strict=True) if name not in without], axis=0
        )
        return np.asarray((1 + strong - weak + wrong * (1 - weak)) / (2 + wrong))

    def apart(self, tests: Sequence[str], vectors: Vectors, test_vectors: Vectors) -> tuple[Flags, Flags]:
        """Which prompts are no near-duplicate of `tests` by words, and which have no test prompt at cosine 0.95 or more.

        Parameters
        ----------
        tests : sequence of str
        vectors, test_vectors : array of float, shape (n, dim) and (len(tests), dim)
            Embeddings of the training prompts and of `tests`.
        """
        near = near_duplicates(self.prompts, tests)
        similar = (unit_rows(vectors) @ unit_rows(test_vectors).T).max(axis=1)
        by_words = np.array([at not in near for at in range(len(self.prompts))])
        return by_words, np.asarray(similar < _SAME)

    def only(self, keep: Flags) -> TrainingSet:
        """The prompts in `keep`; the others count as removed."""
        chosen = np.flatnonzero(keep)
        return replace(
            self,
            prompts=tuple(self.prompts[at] for at in chosen),
            subjects=tuple(self.subjects[at] for at in chosen),
            weak=self.weak[:, chosen],
            strong=self.strong[:, chosen],
            removed=self.removed + len(self.prompts) - chosen.size,
        )


def training_set(folder: Path) -> TrainingSet | None:
    """MMLU validation and dev questions with the recorded models' answers, or None where the file is not there.

    Parameters
    ----------
    folder : Path
        Holds `nine_models_mmlu_medmcqa.jsonl.gz`.

    Raises
    ------
    PolicyError
        A file that cannot be read.
    """
    if not (folder / NINE).is_file():
        return None
    try:
        return _mmlu(folder)
    except (OSError, ValueError, KeyError) as error:
        msg = f"{folder}: {type(error).__name__}: {error}: expected the recorded files as they are"
        raise PolicyError(msg) from error


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def _mmlu(folder: Path) -> TrainingSet:
    rows = [row for row in _rows(folder / NINE) if row["dataset"] == "mmlu"]
    known = folder / OVERLAP
    overlap = {*json.loads(known.read_text(encoding="utf-8"))} if known.is_file() else set()
    kept = [row for row in rows if row["id"] not in overlap]

    def right(names: tuple[str, ...]) -> Array:
        return np.array([[float(row["models"][name]["correct"]) for row in kept] for name in names])

    return TrainingSet(
        source="MMLU validation and dev, nine models' recorded answers",
        prompts=tuple(map(_as_routellm, kept)),
        subjects=tuple(str(row.get("subject")) for row in kept),
        weak=right(WEAK),
        strong=right(STRONG),
        removed=len(rows) - len(kept),
    )


def _as_routellm(row: dict[str, Any]) -> str:
    """A recorded question in the form of RouteLLM's prompts."""
    choices = row["prompt"].split("Choices:\n", 1)[1].rsplit("\n\nAnswer", 1)[0]
    lettered = re.sub(r"(?m)^([A-Z]): ", r"\g<1>. ", choices)
    return f"{row['question']}\n{lettered}\nAnswer:"


def tuned_on(
    train: TrainingSet, *, cache: Path, base: str = DEFAULT_MODEL, say: Callable[[str], None] = lambda _: None
) -> Encoder:
    """Tune `base` to predict every recorded model's correctness, or take what was tuned on the same before.

    Parameters
    ----------
    train : TrainingSet
        Free of test prompts.
    cache : Path
        Folder of tuned models.
    base : str
        A local embedding model.
    say : callable
        Told of progress.
    """
    qualities = np.concatenate([train.weak, train.strong]).T
    digest = hashlib.sha256("\0".join([base, *train.prompts]).encode())
    digest.update(np.ascontiguousarray(qualities).tobytes())
    folder = cache / f"tuned-{digest.hexdigest()[:16]}"
    if not folder.is_dir():
        say(f"tuning {base} on {len(train.prompts)} prompts, minutes; kept in {folder}")
        tune_encoder(train.prompts, qualities, folder, base=base, progress=say)
    return encoder(str(folder), features=True)
