"""The prompts of a recorded run, and which of them are still to be recorded."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from confroute.hosts.tool_calls import canonical_text, tool_facts, written_calls
from confroute.recording.rows import ROLES, RecordError, Row, content_of, read_rows
from confroute.types import JSON, Message, Role


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
    calls = written_calls(message)
    if text is None and message.get("content") is None and calls:
        text = ""  # an answer that is a call of a tool, and no words
    if not isinstance(role, str) or role not in ROLES:
        msg = f"row {owner!r} has a message of role {role!r}: expected one of {', '.join(ROLES)}"
        raise RecordError(msg)
    if text is None:
        msg = f"row {owner!r} has a message of role {role!r} whose content is not text: expected a string, or parts of type text"
        raise RecordError(msg)
    return _with_calls(message, ROLES[role], text)


def _with_calls(message: Mapping[str, JSON], role: Role, text: str) -> Message:
    """The message with its calls written into its text, as the hosts do: a text model is sent nothing else of them."""
    written = [f"{call.name}({canonical_text(call.arguments)})" for call in written_calls(message)]
    return Message(role=role, text="\n".join(filter(None, (text, *written))), **tool_facts(message))


def conversation(row: Row) -> tuple[Message, ...]:
    """The conversation of a row of any run, for signals and rules: unlike `messages_of`, nothing in it is refused."""
    if row.prompt is None and row.messages:
        return tuple(
            _with_calls(message, ROLES.get(str(message.get("role")), "user"), content_of(message) or "")
            for message in row.messages
        )
    return (Message(role="user", text=row.prompt),) if row.prompt else ()


def pending(rows: list[Row], done: set[str], limit: int | None) -> Iterator[Row]:
    """Rows of the first `limit` prompts that are not recorded yet."""
    return (row for row in rows[:limit] if row.id not in done)
