"""The files of the label pipeline: prompts in; labels out, with one-hot winners as in RouteLLM's training data; a summary."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice

from confroute import reading as read
from confroute.errors import FormatError
from confroute.judge.verdicts import Winner
from confroute.recording import RecordError, Row, read_rows
from confroute.recording.rows import START
from confroute.types import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The label of one prompt: which of two models answered it better, and how that was decided.

    Attributes
    ----------
    id, prompt : str
    model_a, model_b : str
        Names of the models; a is the edge, b the cloud.
    response_a, response_b : str or None
    winner : {"a", "b", "tie"}
    source : {"entropy", "correctness", "judge"}
        What decided this label.
    se_a, se_b : float or None
        Semantic entropies in nats, if measured.
    delta : float or None
        ``|se_b - se_a| / se_b``; infinite if only se_b is 0, written to the file as null beside both entropies.
    quality_a, quality_b : float in [0, 1] or None
        Qualities, if graded.
    run : str
        Fingerprint of the settings.
    """

    id: str
    model_a: str
    model_b: str
    prompt: str = field(repr=False)
    response_a: str | None = field(repr=False)
    response_b: str | None = field(repr=False)
    winner: Winner
    source: str
    se_a: float | None = None
    se_b: float | None = None
    delta: float | None = None
    quality_a: float | None = None
    quality_b: float | None = None
    run: str = ""

    @property
    def cloud_wins(self) -> float:
        """The target for training a head: 1 if the cloud's answer is better, 0 if the edge's is, 0.5 for a tie."""
        return {"a": 0.0, "tie": 0.5, "b": 1.0}[self.winner]

    def to_dict(self) -> dict[str, JSON]:
        """Return the label as JSON."""
        return {
            "id": self.id,
            "model_a": self.model_a,
            "model_b": self.model_b,
            "prompt": self.prompt,
            "response_a": self.response_a,
            "response_b": self.response_b,
            "winner_model_a": int(self.winner == "a"),
            "winner_model_b": int(self.winner == "b"),
            "winner_tie": int(self.winner == "tie"),
            "source": self.source,
            "se_a": self.se_a,
            "se_b": self.se_b,
            "delta": None if self.delta is None or math.isinf(self.delta) else self.delta,
            "quality_a": self.quality_a,
            "quality_b": self.quality_b,
            "run": self.run,
        }


@read.refusing(RecordError)
def label_from_dict(data: JSON) -> Label:
    """Read one label from its JSON form.

    Raises
    ------
    RecordError
        A field is missing or invalid, or the winners are not one-hot.

    Examples
    --------
    >>> label = Label(
    ...     id="1",
    ...     model_a="m",
    ...     model_b="c",
    ...     prompt="?",
    ...     response_a="",
    ...     response_b="",
    ...     winner="b",
    ...     source="judge",
    ... )
    >>> label_from_dict(label.to_dict()) == label
    True
    """
    return _label(data)


def _label(data: JSON) -> Label:
    row = read.fields(data, "the label")
    one_hot = {
        name: row.get(f"winner_{key}") for name, key in (("a", "model_a"), ("b", "model_b"), ("tie", "tie"))
    }
    winners: list[Winner] = [name for name in ("a", "b", "tie") if one_hot[name] == 1]
    if len(winners) != 1 or not all(type(value) is int and value in (0, 1) for value in one_hot.values()):
        msg = f"winners are {one_hot}: expected one 1 and two 0"
        raise FormatError(msg)
    se_a, se_b = (read.optional_number(row.get(key), key, low=0.0) for key in ("se_a", "se_b"))
    delta = read.optional_number(row.get("delta"), "delta", low=0.0)
    if delta is None and se_a is not None and se_b is not None:
        delta = math.inf
    return Label(
        id=read.text(row.get("id"), "id"),
        model_a=read.text(row.get("model_a"), "model_a"),
        model_b=read.text(row.get("model_b"), "model_b"),
        prompt=read.text(row.get("prompt"), "prompt"),
        response_a=read.optional_text(row.get("response_a"), "response_a"),
        response_b=read.optional_text(row.get("response_b"), "response_b"),
        winner=winners[0],
        source=read.optional_text(row.get("source"), "source") or "unknown",
        se_a=se_a,
        se_b=se_b,
        delta=delta,
        quality_a=read.optional_number(row.get("quality_a"), "quality_a", low=0.0, high=1.0),
        quality_b=read.optional_number(row.get("quality_b"), "quality_b", low=0.0, high=1.0),
        run=read.optional_text(row.get("run"), "run") or "",
    )


def read_labels(
    path: str | os.PathLike[str], *, torn: Callable[[int], None] | None = None
) -> Iterator[Label]:
    """Read a file of labels, line by line.

    Parameters
    ----------
    path : path-like
    torn : callable, optional
        As in `confroute.recording.read_rows`.

    Raises
    ------
    RecordError
        A line is not a label; the message contains its number, counted from 1.
    """
    for at, data in read.json_lines(path, RecordError, torn=torn, start=START):
        with read.refusing(RecordError, f"{path}, line {at}"):
            label = _label(data)
        yield label


def read_inputs(path: str | os.PathLike[str], *, limit: int | None = None) -> Iterator[Row]:
    """Read prompts or recorded rows, line by line.

    Parameters
    ----------
    path : path-like
        JSON lines, plain or gzip: objects with "id", "prompt" (or "question", or "messages"), and, if known, "reference" (or
        "answers", a list of right texts); or the lines of a recorded run.
    limit : int, optional
        Read this many lines at most.

    Raises
    ------
    RecordError
        A line is not such an object.
    """
    for row in islice(read_rows(path, recorded=False), limit):
        prompt, reference = row.prompt, row.reference
        question, answers = row.extra.get("question"), row.extra.get("answers")
        if prompt is None and not row.messages and isinstance(question, str):
            prompt = question
        if reference is None and isinstance(answers, list):
            reference = answers
        if prompt is None and not row.messages:
            msg = f"{path}: row {row.id!r} has neither prompt, question nor messages: expected one of them"
            raise RecordError(msg)
        yield replace(row, prompt=prompt, reference=reference)


# A short factual prompt may well give equal samples, but not every one of this many prompts.
_MIN_PROMPTS = 10


@dataclass(slots=True, kw_only=True)
class Summary:
    """The summary of a run.

    Attributes
    ----------
    labelled, failed : int
        Number of prompts that this run labelled, and that failed in it.
    kept : int
        Number of labels that were in the file already.
    winners, sources : Counter
        Winners and sources of all labels in the file.
    sampled, alike : Counter
        By model: number of prompts that this run sampled, and of those whose samples were all exactly the same.
    tokens : Counter
        By "edge" and "cloud": input and output tokens of this run's samples together.
    """

    labelled: int = 0
    failed: int = 0
    kept: int = 0
    winners: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    sampled: Counter[str] = field(default_factory=Counter)
    alike: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)

    def add(self, label: Label) -> None:
        """Count a label."""
        self.winners[label.winner] += 1
        self.sources[label.source] += 1

    def add_samples(self, row: Row) -> None:
        """Count the samples that this run drew for a row."""
        for name, side in (("edge", row.edge), ("cloud", row.cloud)):
            if side is None or not isinstance(usage := side.extra.get("sampled"), dict):
                continue
            self.tokens[name] += sum(value for value in usage.values() if isinstance(value, int))
            if len(side.samples) > 1:
                self.sampled[name] += 1
                self.alike[name] += len({sample.text for sample in side.samples}) == 1

    def models_with_constant_samples(self) -> list[str]:
        """Models whose samples never differ: they ignore the temperature, so that their entropy is meaningless."""
        return [name for name, n in self.sampled.items() if n >= _MIN_PROMPTS and self.alike[name] == n]

    def to_dict(self) -> dict[str, JSON]:
        """Return the summary as JSON."""
        return {
            "labelled": self.labelled,
            "failed": self.failed,
            "kept": self.kept,
            "winners": dict(self.winners),
            "sources": dict(self.sources),
            "tokens": dict(self.tokens),
            "samples_never_differ": [*self.models_with_constant_samples()],
        }
