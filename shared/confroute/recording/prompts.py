"""The prompts of a recorded run, and which of them are still to be recorded."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from confroute.recording.rows import RecordError, Row, content_of, read_rows, write_rows
from confroute.types import JSON, Message, Role

_BLOCK = 65_536
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "tool": "tool",
}


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
    if not isinstance(role, str) or role not in _ROLES:
        msg = f"row {owner!r} has a message of role {role!r}: expected one of {', '.join(_ROLES)}"
        raise RecordError(msg)
    if text is None:
        msg = f"row {owner!r} has a message of role {role!r} whose content is not text: expected a string, or parts of type text"
        raise RecordError(msg)
    return Message(role=_ROLES[role], text=text)


def recorded_ids(path: Path, *, retry_errors: bool) -> set[str]:
    """Read the ids that a run holds already, and cut off a last line that a crash left incomplete.

    Parameters
    ----------
    path : Path
        The run; it may not exist yet.
    retry_errors : bool
        Remove rows whose edge or cloud failed from the run, so that they are recorded again.
    """
    if not path.exists():
        return set()
    cut_torn(path)
    kept = [row for row in read_rows(path) if not (retry_errors and errors_of(row))]
    if retry_errors:
        write_rows(path, kept)
    return {row.id for row in kept}


def errors_of(row: Row) -> list[str]:
    """The errors of the edge and the cloud, if they failed."""
    sides = (row.edge,) if row.cloud is None else (row.edge, row.cloud)
    return [side.error for side in sides if side.error is not None]


def cut_torn(path: Path) -> None:
    """Cut off a last line that was incomplete when the process died; a complete one only gets its line break."""
    with path.open("rb+") as file:
        end = _end_of_lines(file)
        file.seek(end)
        rest = file.read()
        if rest and _is_json(rest):
            file.write(b"\n")
        else:
            file.truncate(end)


def _end_of_lines(file: BinaryIO) -> int:
    """Where the last complete line ends, read from the end of the file, since runs are long."""
    at = file.seek(0, os.SEEK_END)
    while at > 0:
        start = max(0, at - _BLOCK)
        file.seek(start)
        found = file.read(at - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def pending(rows: list[Row], done: set[str], limit: int | None) -> Iterator[Row]:
    """Rows of the first `limit` prompts that are not recorded yet."""
    return (row for row in rows[:limit] if row.id not in done)
