"""The label format: one JSON object a line, one-hot winners as in the training data of RouteLLM and of the paper."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from confroute.judge.verdicts import Winner
from confroute.recording import RecordError
from confroute.recording import _fields as read
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
