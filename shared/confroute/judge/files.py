"""Reads answers to judge from files of recorded rows, or of lines with "id", "prompt" and "response"."""

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
from confroute.types import JSON, Message, Request

SideName: TypeAlias = Literal["edge", "cloud"]
Field: TypeAlias = Literal["quality", "judged"]
"""Where a judge's grade goes: in place of a quality that is missing, or beside the quality."""
_TEXTS = ("response", "text", "answer", "output")
_FIELD = KeepPrivate(tags=("private",))


def is_private(row: Row, rule: KeepPrivate, *more: str | None) -> bool:
    """Return whether a row, together with the texts `more`, must not reach a remote model.

    It must not if its "private" says yes or it has a private tag, or if the rule matches its conversation, its prompt or one of
    `more`.

    Raises
    ------
    RequestError
        Its "private" says neither yes nor no.
    """
    tags = row.extra.get("tags")
    names = {str(tag) for tag in (tags if isinstance(tags, list) else [tags])}
    texts = tuple(Message(role="user", text=text) for text in (row.prompt, *more) if text)
    labels = frozenset({*names, f"private={row.extra.get('private')}"})
    request = Request(messages=(*messages_of(row), *texts), tags=labels)
    return _FIELD(request) is not None or rule(request) is not None


def question_text(row: Row) -> str:
    """The question as a judge reads it: the prompt, or the conversation turn by turn."""
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
    """The answer of one side of a recorded row; any other line has a single answer, whatever the side."""
    recorded: Side | None = row.edge if side == "edge" else row.cloud
    if recorded is not None and recorded.shown is not None:
        return recorded.shown
    return next((text for key in _TEXTS if isinstance(text := row.extra.get(key), str)), None)


def read_pairs(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    side_a: SideName = "edge",
    side_b: SideName = "edge",
    private: KeepPrivate | None = None,
) -> list[Pair]:
    """Read the answers of two files to the same prompts as pairs.

    Parameters
    ----------
    a, b : path-like
        JSON lines, plain or gzip; rows are matched by id, in the order of `a`. Give the same file twice to compare its
        sides.
    side_a, side_b : {"edge", "cloud"}
        Which answer of recorded rows to take.
    private : KeepPrivate, optional
        Rule that marks pairs that no remote judge may see.

    Raises
    ------
    RecordError
        No id has an answer in both files, or an id has different prompts in them.
    """
    rule = private or KeepPrivate()
    others = {row.id: row for row in read_rows(b, recorded=False)}
    pairs = []
    for row in read_rows(a, recorded=False):
        other = others.get(row.id)
        if other is None:
            continue
        if question_text(row) and question_text(other) and question_text(row) != question_text(other):
            msg = f"row {row.id!r} has different prompts in {a} and {b}: expected answers to the same prompts"
            raise RecordError(msg)
        first, second = answer_of(row, side_a), answer_of(other, side_b)
        if first is not None and second is not None:
            reference = reference_text(row)
            pairs.append(
                Pair(
                    id=row.id,
                    question=question_text(row) or question_text(other),
                    a=first,
                    b=second,
                    reference=reference,
                    private=is_private(row, rule, first, second, reference) or is_private(other, rule),
                )
            )
    if not pairs:
        msg = f"no id has an answer in both {a} ({side_a}) and {b} ({side_b}): expected answers to the same prompts"
        raise RecordError(msg)
    return pairs


def singles_to_grade(
    rows: Iterable[Row],
    sides: Sequence[str] | None,
    *,
    again: bool,
    private: KeepPrivate,
    into: Field = "quality",
) -> Iterator[Single]:
    """Yield the answers of recorded rows that need a grade, with ids "ID|SIDE".

    Parameters
    ----------
    rows : iterable of Row
    sides : sequence of str, or None
        Tiers whose answers are taken; None takes those of every model of a row.
    again : bool
        Include answers that have a grade there already.
    private : KeepPrivate
        Rule that marks answers that no remote judge may see.
    into : {"quality", "judged"}
        Where the grade is to go.
    """
    for row in rows:
        for name in row.models if sides is None else sides:
            side = row.side(name)
            if side is not None and side.text is not None and (again or getattr(side, into) is None):
                reference = reference_text(row)
                yield Single(
                    id=f"{row.id}|{name}",
                    question=question_text(row),
                    answer=side.text,
                    reference=reference,
                    private=is_private(row, private, side.text, reference),
                )


def with_grades(row: Row, gradings: dict[str, Grading], *, into: Field = "quality") -> Row:
    """Return the row with the grades of its gradings; errors set none.

    The details stand under "judge" beside a `quality`, which marks it as a judge's, and under "judged_by" beside `judged`.
    """
    edge = _with_grade(row.edge, gradings.get(f"{row.id}|edge"), into)
    tiers = {
        name: replace(one, side=_with_grade(one.side, gradings.get(f"{row.id}|{name}"), into))
        for name, one in row.tiers.items()
    }
    cloud = None if row.cloud is None else _with_grade(row.cloud, gradings.get(f"{row.id}|cloud"), into)
    return replace(row, edge=edge, tiers=tiers, cloud=cloud)


def _with_grade(side: Side, grading: Grading | None, into: Field) -> Side:
    if grading is None:
        return side
    details: JSON = {key: value for key, value in grading.to_dict().items() if key != "id"}
    grade = getattr(side, into) if grading.quality is None else round(grading.quality, 6)
    if into == "judged":
        return replace(side, judged=grade, extra={**side.extra, "judged_by": details})
    return replace(side, quality=grade, extra={**side.extra, "judge": details})
