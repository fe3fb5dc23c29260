"""The prompts of a recorded run, and which of them are still to be recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from confroute.recording.rows import ROLES, RecordError, Row, content_of, read_rows
from confroute.types import JSON, Message


def read_prompts(path: str | os.PathLike[str]) -> list[Row]:
    """Read the rows to record: lines of a recorded run, or objects with "id", "prompt" or "messages", and "reference".

    Parameters
    ----------
    path : path-like
        JSON lines, plain or gzip.

    Raises
    ------
    RecordError
        A line is not a row, a row has neither prompt nor messages, or an id occurs twice.
    """
    rows = list(read_rows(path, recorded=False))
    for row in rows:
        if row.prompt is None and not row.messages:
            msg = f"{path}: row {row.id!r} has neither a prompt nor messages: expected one of them"
            raise RecordError(msg)
    return rows


def messages_of(row: Row, system: str | None = None) -> tuple[Message, ...]:
    """The conversation of a row, after a system message if one is given.

    Raises
    ------
    RecordError
        A message with an unknown role, or content that is not text.
    """
    first = () if system is None else (Message(role="system", text=system),)
    if row.messages:
        return (*first, *(_message(message, row.id) for message in row.messages))
    return (*first, Message(role="user", text=row.prompt or ""))


def _message(message: Mapping[str, JSON], owner: str) -> Message:
    role, text = message.get("role"), content_of(message)
    if not isinstance(role, str) or role not in ROLES:
        msg = f"row {owner!r} has a message of role {role!r}: expected one of {', '.join(ROLES)}"
        raise RecordError(msg)
    if text is None:
        msg = f"row {owner!r} has a message of role {role!r} whose content is not text: expected a string, or parts of type text"
        raise RecordError(msg)
    return Message(role=ROLES[role], text=text)


def pending(rows: list[Row], done: set[str], limit: int | None) -> Iterator[Row]:
    """Rows of the first `limit` prompts that are not recorded yet."""
    return (row for row in rows[:limit] if row.id not in done)
