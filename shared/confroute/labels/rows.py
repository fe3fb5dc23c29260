"""The label format: one JSON object a line, one-hot winners as in the training data of RouteLLM and of the paper."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from confroute.judge.verdicts import Winner
from confroute.recording import RecordError, Row, read_rows
from confroute.recording import rows as read
from confroute.types import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """Which of two models answered a prompt better, and how that is known.

    Attributes
    ----------
    id, prompt : str
    model_a, model_b : str
        Names: a is the edge, b the cloud.
    response_a, response_b : str or None
    winner : {"a", "b", "tie"}
    source : {"entropy", "correctness", "judge"}
        What decided this row.
    se_a, se_b : float or None
        Semantic entropies in nats, where they were measured.
    delta : float or None
        ``|se_b - se_a| / se_b``; infinite where only se_b is 0, which the file writes as null beside both entropies.
    quality_a, quality_b : float in [0, 1] or None
        Where graded.
    run : str
        Fingerprint of the settings.
    """

    id: str
    model_a: str
    model_b: str
    prompt: str
    response_a: str | None
    response_b: str | None
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
        """What a head is trained on: 1 where the cloud's answer is better, 0 where the edge's is, 0.5 for a tie."""
        return {"a": 0.0, "tie": 0.5, "b": 1.0}[self.winner]

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
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


def label_from_dict(data: JSON) -> Label:
    """Read one label from its JSON form.

    Raises
    ------
    RecordError
        A field that is missing or not what the format says; winners that are not one-hot.

    Examples
    --------
    >>> made = Label(
    ...     id="1",
    ...     model_a="m",
    ...     model_b="c",
    ...     prompt="?",
    ...     response_a="",
    ...     response_b="",
    ...     winner="b",
    ...     source="judge",
    ... )
    >>> label_from_dict(made.to_dict()) == made
    True
    """
    row = read.fields(data, "the label")
    won = {
        name: row.get(f"winner_{key}") for name, key in (("a", "model_a"), ("b", "model_b"), ("tie", "tie"))
    }
    winners: list[Winner] = [name for name in ("a", "b", "tie") if won[name] == 1]
    if len(winners) != 1 or not all(value in (0, 1) for value in won.values()):
        msg = f"winners are {won}: expected one 1 and two 0"
        raise RecordError(msg)
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
        quality_a=read.optional_number(row.get("quality_a"), "quality_a"),
        quality_b=read.optional_number(row.get("quality_b"), "quality_b"),
        run=read.optional_text(row.get("run"), "run") or "",
    )


def read_labels(path: str | os.PathLike[str]) -> Iterator[Label]:
    """Read a file of labels, line by line.

    Raises
    ------
    RecordError
        A line is no label; the message holds its number, from 1.
    """
    with Path(path).open("rb") as file:
        for at, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                yield label_from_dict(json.loads(line))
            except ValueError as error:
                msg = f"{path}, line {at}: {error}"
                raise RecordError(msg) from error


def read_inputs(path: str | os.PathLike[str], *, limit: int | None = None) -> Iterator[Row]:
    """Read prompts or recorded rows, line by line.

    Parameters
    ----------
    path : path-like
        JSON lines, plain or gzip: objects of "id", "prompt" (or "question", or "messages"), and if known "reference" (or
        "answers", a list any of which is right); or lines of a recorded run.
    limit : int, optional
        Of the first lines only.

    Raises
    ------
    RecordError
        A line is none of these.
    """
    for row in islice(read_rows(path, recorded=False), limit):
        prompt, reference = row.prompt, row.reference
        asked, answers = row.extra.get("question"), row.extra.get("answers")
        if prompt is None and not row.messages and isinstance(asked, str):
            prompt = asked
        if reference is None and isinstance(answers, list):
            reference = answers
        if prompt is None and not row.messages:
            msg = f"{path}: row {row.id!r} has neither prompt, question nor messages: expected one of them"
            raise RecordError(msg)
        yield replace(row, prompt=prompt, reference=reference)


# Short factual prompts do give equal samples; all of so many do not.
_ENOUGH = 10


@dataclass(slots=True, kw_only=True)
class Summary:
    """What a run did.

    Attributes
    ----------
    labelled, failed : int
        Now.
    kept : int
        Labels that stood in the file already.
    winners, sources : Counter
        Of all labels of the file.
    sampled, alike : Counter
        By model, prompts sampled now, and those whose samples were letter for letter the same.
    tokens : Counter
        By "edge" and "cloud", drawn now, input and output together.
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

    def look(self, row: Row) -> None:
        """Count samples that were drawn now."""
        for name, side in (("edge", row.edge), ("cloud", row.cloud)):
            if side is None or not isinstance(used := side.extra.get("sampled"), dict):
                continue
            self.tokens[name] += sum(value for value in used.values() if isinstance(value, int))
            if len(side.samples) > 1:
                self.sampled[name] += 1
                self.alike[name] += len({sample.text for sample in side.samples}) == 1

    def suspicious(self) -> list[str]:
        """Models whose samples never differ: they ignore the temperature, and their entropy says nothing."""
        return [name for name, n in self.sampled.items() if n >= _ENOUGH and self.alike[name] == n]

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "labelled": self.labelled,
            "failed": self.failed,
            "kept": self.kept,
            "winners": dict(self.winners),
            "sources": dict(self.sources),
            "tokens": dict(self.tokens),
            "samples_never_differ": [*self.suspicious()],
        }
