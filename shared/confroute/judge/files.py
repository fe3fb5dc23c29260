"""Answers in files as what judges take: recorded rows, or lines of "id", "prompt" and "response"."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeAlias

from confroute.judge.verdicts import Grading, Pair, Single
from confroute.policy.rules import KeepPrivate
from confroute.recording import RecordError, Row, Side, read_rows
from confroute.recording.prompts import messages_of
from confroute.types import Message, Request

SideName: TypeAlias = Literal["edge", "cloud"]
_TEXTS = ("response", "text", "answer", "output")


def is_private(row: Row, rule: KeepPrivate, *more: str | None) -> bool:
    """Whether a row, and `more` that goes with it, must not reach a remote model.

    It says "private", is tagged so, or a text matches: the conversation's, the prompt, or one of `more`.
    """
    if row.extra.get("private") is True:
        return True
    tags = row.extra.get("tags")
    named = frozenset(str(tag) for tag in tags) if isinstance(tags, list) else frozenset[str]()
    said = tuple(Message(role="user", text=text) for text in (row.prompt, *more) if text)
    return rule(Request(messages=(*messages_of(row), *said), tags=named)) is not None


def asked(row: Row) -> str:
    """What a judge is told was asked: the prompt, or the conversation turn by turn."""
    if row.prompt is not None or not row.messages:
        return row.question
    turns = messages_of(row)
    return turns[0].text if len(turns) == 1 else "\n\n".join(f"{turn.role}: {turn.text}" for turn in turns)


def reference_text(row: Row) -> str | None:
    """The reference as a judge reads it."""
    if row.reference is None or isinstance(row.reference, str):
        return row.reference
    return json.dumps(row.reference, ensure_ascii=False)


def answer_of(row: Row, side: SideName) -> str | None:
    """The answer of one side; lines that are no recorded rows have one answer, whatever the side."""
    of: Side | None = row.edge if side == "edge" else row.cloud
    if of is not None and of.text is not None:
        return of.text
    return next((said for key in _TEXTS if isinstance(said := row.extra.get(key), str)), None)


def read_pairs(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    side_a: SideName = "edge",
    side_b: SideName = "edge",
    private: KeepPrivate | None = None,
) -> list[Pair]:
    """Pairs of the answers that two files give to the same prompts.

    Parameters
    ----------
    a, b : path-like
        JSON lines, plain or gzip; rows are matched by id, in the order of `a`. They may be one file, to compare its sides.
    side_a, side_b : {"edge", "cloud"}
        Which answer of recorded rows.
    private : KeepPrivate, optional
        Marks pairs that no remote judge may see.

    Raises
    ------
    RecordError
        No id stands in both files with an answer, or one id has different prompts in them.
    """
    rule = private or KeepPrivate()
    others = {row.id: row for row in read_rows(b, recorded=False)}
    pairs = []
    for row in read_rows(a, recorded=False):
        other = others.get(row.id)
        if other is None:
            continue
        if asked(row) and asked(other) and asked(row) != asked(other):
            msg = f"row {row.id!r} has one prompt in {a} and another in {b}: expected answers to the same prompts"
            raise RecordError(msg)
        first, second = answer_of(row, side_a), answer_of(other, side_b)
        if first is not None and second is not None:
            known = row if asked(row) else other
            reference = reference_text(row)
            hidden = is_private(row, rule, first, second, reference) or is_private(other, rule)
            pairs.append(
                Pair(
                    id=row.id,
                    question=asked(known),
                    a=first,
                    b=second,
                    reference=reference,
                    private=hidden,
                )
            )
    if not pairs:
        msg = f"no id stands in both {a} and {b} with an answer ({side_a} and {side_b})"
        raise RecordError(msg)
    return pairs


def singles(
    rows: Iterable[Row], sides: Sequence[SideName], *, again: bool, private: KeepPrivate
) -> Iterator[Single]:
    """The answers of recorded rows that are to be graded; ids are "ID|SIDE".

    Parameters
    ----------
    rows : iterable of Row
    sides : sequence of {"edge", "cloud"}
    again : bool
        Also those that have a quality.
    private : KeepPrivate
    """
    for row in rows:
        for name in sides:
            side = row.edge if name == "edge" else row.cloud
            if side is not None and side.text is not None and (again or side.quality is None):
                reference = reference_text(row)
                yield Single(
                    id=f"{row.id}|{name}",
                    question=asked(row),
                    answer=side.text,
                    reference=reference,
                    private=is_private(row, private, side.text, reference),
                )


def with_grades(row: Row, gradings: dict[str, Grading]) -> Row:
    """The row with `quality` from its gradings, and what the judges said under "judge"; errors give no quality."""
    edge = _graded(row.edge, gradings.get(f"{row.id}|edge"))
    cloud = None if row.cloud is None else _graded(row.cloud, gradings.get(f"{row.id}|cloud"))
    return replace(row, edge=edge, cloud=cloud)


def _graded(side: Side, grading: Grading | None) -> Side:
    if grading is None:
        return side
    told = {key: value for key, value in grading.to_dict().items() if key != "id"}
    quality = side.quality if grading.quality is None else round(grading.quality, 6)
    return replace(side, quality=quality, extra={**side.extra, "judge": told})
