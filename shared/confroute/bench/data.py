"""Reads RouteLLM's three benchmarks from its own folder: quality and cost of both models for each prompt."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from confroute.errors import PolicyError
from confroute.reading import fields, json_lines
from confroute.stats.arrays import Array

WEAK, STRONG = "mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview"
# RouteLLM's own prices (arXiv 2406.18665, section 5), in USD per token.
USD = {WEAK: 0.24e-6, STRONG: 24.7e-6}
_CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Benchmark:
    """One benchmark after decontamination.

    Attributes
    ----------
    name : {"gsm8k", "mmlu", "mt-bench"}
    prompts : tuple of str
        The text that a router sees; for MT-Bench the first turn.
    weak, strong : array of float, shape (n,)
        Quality of both models: 0 or 1, or the mean of the judge's two scores from 1 to 10.
    weak_usd, strong_usd : array of float, shape (n,)
        Cost of both models' calls, by RouteLLM's prices and four characters per token.
    dropped : int
        Number of rows left out as contaminated.
    """

    name: str
    prompts: tuple[str, ...]
    weak: Array = field(repr=False)
    strong: Array = field(repr=False)
    weak_usd: Array = field(repr=False)
    strong_usd: Array = field(repr=False)
    dropped: int = 0

    @property
    def n(self) -> int:
        """Number of prompts."""
        return len(self.prompts)


def load_benchmarks(folder: Path) -> dict[str, Benchmark]:
    """Read the benchmarks in `folder`.

    Parameters
    ----------
    folder : Path
        A clone of RouteLLM, its `routellm` or `routellm/evals` folder, or a folder that contains one of them.

    Raises
    ------
    PolicyError
        There is no benchmark, or a file is not RouteLLM's.
    """
    names = ("routellm/routellm/evals", "routellm/evals", "evals", ".")
    evals = next((path for name in names if _is_evals(path := folder / name)), None)
    if evals is None:
        msg = f"{folder}: expected RouteLLM's folder layout (routellm/evals/gsm8k/gsm8k_responses.csv and so on); clone lm-sys/RouteLLM and pass its folder"
        raise PolicyError(msg)
    readers = {"gsm8k": (_gsm8k, "gsm8k"), "mmlu": (_mmlu, "mmlu"), "mt-bench": (_mt_bench, "mt_bench")}
    try:
        return {
            name: read(name, evals / part)
            for name, (read, part) in readers.items()
            if (evals / part).is_dir()
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{evals}: {type(error).__name__}: {error}: expected the unchanged files of lm-sys/RouteLLM; clone it again"
        raise PolicyError(msg) from error


def _is_evals(folder: Path) -> bool:
    return any((folder / part).is_dir() for part in ("gsm8k", "mmlu", "mt_bench"))


def _lines(path: Path) -> Iterator[dict[str, object]]:
    for _, data in json_lines(path, PolicyError):
        yield {**fields(data, "the line")}


def _contaminated(folder: Path) -> set[str]:
    path = folder / "contaminated_prompts.jsonl"
    return {str(row["eval_prompt"]) for row in _lines(path)} if path.is_file() else set()


def _csv(paths: list[Path]) -> list[dict[str, str]]:
    rows: list[dict[str, str]] = []
    for path in paths:
        with path.open(encoding="utf-8", newline="") as file:
            rows += csv.DictReader(file)
    return rows


def _graded(name: str, folder: Path, rows: list[dict[str, str]]) -> Benchmark:
    dropped = _contaminated(folder)
    kept = [row for row in rows if row["prompt"] not in dropped]

    def quality(model: str) -> Array:
        return np.array([{"True": 1.0, "False": 0.0}[row[model]] for row in kept])

    def usd(model: str) -> Array:
        sizes = [len(row["prompt"]) + len(row.get(f"{model}_response") or "A") for row in kept]
        return USD[model] * np.array(sizes, dtype=np.float64) / _CHARACTERS_PER_TOKEN

    return Benchmark(
        name=name,
        prompts=tuple(row["prompt"] for row in kept),
        weak=quality(WEAK),
        strong=quality(STRONG),
        weak_usd=usd(WEAK),
        strong_usd=usd(STRONG),
        dropped=len(rows) - len(kept),
    )


def _gsm8k(name: str, folder: Path) -> Benchmark:
    return _graded(name, folder, _csv([folder / "gsm8k_responses.csv"]))


def _mmlu(name: str, folder: Path) -> Benchmark:
    return _graded(name, folder, _csv(sorted((folder / "responses").glob("mmlu_*.csv"))))


def _mt_bench(name: str, folder: Path) -> Benchmark:
    dropped, questions = _contaminated(folder), [*_lines(folder / "question.jsonl")]
    turns = {
        int(str(row["question_id"])): [str(turn) for turn in _as_list(row["turns"])] for row in questions
    }
    kept = [key for key, texts in turns.items() if not dropped & {*texts}]
    scores: dict[tuple[int, str], list[float]] = {}
    sizes: dict[tuple[int, str], int] = {}
    for row in _lines(folder / "judgements.jsonl"):
        key = int(str(row["question_id"])), str(row["model"])
        scores.setdefault(key, []).append(float(str(row["score"])))
        # The judge sees the whole conversation, which the second turn's text contains.
        sizes[key] = max(sizes.get(key, 0), len(str(row["user_prompt"])))

    def quality(model: str) -> Array:
        return np.array([float(np.mean(scores[key, model])) for key in kept])

    def usd(model: str) -> Array:
        return USD[model] * np.array([sizes[key, model] for key in kept]) / _CHARACTERS_PER_TOKEN

    return Benchmark(
        name=name,
        prompts=tuple(turns[key][0] for key in kept),
        weak=quality(WEAK),
        strong=quality(STRONG),
        weak_usd=usd(WEAK),
        strong_usd=usd(STRONG),
        dropped=len(turns) - len(kept),
    )


def _as_list(value: object) -> list[object]:
    if not isinstance(value, list):
        msg = f"turns are {value!r}: expected a list"
        raise TypeError(msg)
    return value
