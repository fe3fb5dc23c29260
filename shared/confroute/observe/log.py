"""The decision log: one JSON line per call and per audit, without any text of prompts or answers; rotated, and read back."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import TextIOWrapper
from itertools import chain
from logging.handlers import RotatingFileHandler
from pathlib import Path
from types import TracebackType
from typing import IO

from confroute.decision import Decision, read_billed, read_decision
from confroute.display import logger
from confroute.errors import LogError
from confroute.observe.trace import AuditedLoss, subscribe, subscribe_losses
from confroute.reading import (
    GZIP,
    Fields,
    end_whole,
    fields,
    is_json,
    json_lines,
    number,
    optional_text,
    read_json,
    refused,
    refusing,
    text,
)
from confroute.types import JSON
from confroute.writing import Appending


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a log.

    Attributes
    ----------
    at : datetime
        When the decision was made, UTC.
    decision : Decision
    """

    at: datetime
    decision: Decision


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedLoss:
    """A line of a log that holds what an audit found.

    Attributes
    ----------
    at : datetime
        When the audit ended, UTC.
    loss : AuditedLoss
    """

    at: datetime
    loss: AuditedLoss


class _Lines(RotatingFileHandler):
    def _open(self) -> TextIOWrapper:
        return TextIOWrapper(Appending(self.baseFilename), encoding="utf-8", newline="\n", write_through=True)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's name
        """Raise the error; logging would print it and lose the line."""
        raise  # noqa: PLE0704  called by logging inside its except block


_log = logger()


class DecisionLog:
    """Write every decision and every audited loss of this process to a file, until `close`.

    Parameters
    ----------
    path : str or Path
        The file to append to; its folder must exist.
    max_bytes : int
        The file is renamed to `path`.1 (and that to .2, ...) before it would grow beyond this. 0: never.
    backups : int
        How many renamed files are kept.

    Raises
    ------
    LogError
        There is another kind of file at `path`; it is left as it is.
    OSError
        It cannot be opened.

    Notes
    -----
    Use one file per process: two processes that rotate the same file lose lines. A decision holds no text of prompts or answers, so
    neither does the log. Where a decision cannot be written, as on a full disk, its call ends in a LogError, and the log is as it was: one
    that loses decisions is none.

    Examples
    --------
    >>> import tempfile
    >>> from confroute.observe.trace import publish
    >>> path = Path(tempfile.mkdtemp()) / "decisions.jsonl"
    >>> with DecisionLog(path):
    ...     publish(Decision(route="edge", stage="draft", reason="kept"))
    >>> [entry.decision.route for entry in read_log(path)]
    ['edge']
    """

    def __init__(self, path: str | Path, *, max_bytes: int = 10_000_000, backups: int = 5) -> None:
        _check(Path(path))
        self._lines = _Lines(path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8")
        self._stops = (
            subscribe(lambda decision: self._write(decision.to_dict())),
            subscribe_losses(lambda loss: self._write({_LOSS: loss.to_dict()})),
        )

    def _write(self, fields: dict[str, JSON]) -> None:
        entry = {"at": datetime.now(UTC).isoformat(timespec="milliseconds"), **fields}
        line = json.dumps(entry, ensure_ascii=False, allow_nan=False)
        record = logging.LogRecord("confroute", logging.INFO, __file__, 0, line, args=None, exc_info=None)
        try:
            self._lines.handle(record)
        except OSError as error:
            msg = f"{self._lines.baseFilename} cannot be written ({error}): this decision is not in it; make room, or close the log"
            raise LogError(msg) from error

    def close(self) -> None:
        """Stop logging and close the file; a second call does nothing."""
        for stop in self._stops:
            stop()
        self._lines.close()

    def __enter__(self) -> DecisionLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# How every line of a log begins.
_START = b'{"at"'
# What a line holds that is no decision.
_LOSS = "audited"


def _check(path: Path) -> None:
    """See that what is to be appended to is a log, and end it with a whole line."""
    # Not a device, such as the standard output.
    if not path.is_file():
        return
    with path.open("rb") as file:
        first = file.read(len(_START))
    if not _START.startswith(first):
        msg = f"{path} begins with {first!r}: expected a file that DecisionLog wrote, or a new one"
        raise LogError(msg)
    end_whole(path, _START, LogError)


def _warn(where: str) -> None:
    _log.warning("%s is cut off in the middle, as by the end of a process or a full disk: skipped", where)


def read_log(path: str | Path, *, torn: Callable[[str], None] = _warn) -> Iterator[Entry]:
    """Read the decisions of a log and its renamed files, oldest first; see `read_all`."""
    return (line for line in read_all(path, torn=torn) if isinstance(line, Entry))


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a log was read: which file is its newest, and how much of that.

    Attributes
    ----------
    file : tuple of int
        Device and number of the file.
    size, lines : int
        Bytes and lines that were read.
    """

    file: tuple[int, int]
    size: int = 0
    lines: int = 0


class GrowingLog:
    """A log that is read again and again, each time only what was appended.

    Parameters
    ----------
    path : str or Path
        As of `read_all`.

    Examples
    --------
    >>> import tempfile
    >>> from confroute.observe.trace import publish
    >>> path = Path(tempfile.mkdtemp()) / "decisions.jsonl"
    >>> with DecisionLog(path):
    ...     publish(Decision(route="edge", stage="draft", reason="kept"))
    ...     log = GrowingLog(path)
    ...     [line.decision.route for line in log.read()[1]]
    ...     publish(Decision(route="cloud", stage="draft", reason="not kept"))
    ...     goes_on, lines = log.read()
    ...     goes_on, [line.decision.route for line in lines]
    ['edge']
    (True, ['cloud'])
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        self._place: Place | None = None

    def read(self) -> tuple[bool, Iterator[Entry | LoggedLoss]]:
        """The lines that are new, and whether they go on where the last ones ended.

        They do not the first time, and once the newest file was renamed, or is another one: then these are all lines. A last line that
        is still being written is left to the next time.

        Raises
        ------
        LogError
            As of `read_all`.
        """
        *older, newest = _files(self._path)
        file = _opened(newest)
        if file.read(len(GZIP)) == GZIP:
            # Nothing is appended to what was packed.
            file.close()
            return False, read_all(self._path, torn=lambda _: None)
        held = os.fstat(file.fileno())
        place, self._place = self._place, None
        same = place is not None and place.file == (held.st_dev, held.st_ino) and place.size <= held.st_size
        if same and place is not None:
            return True, self._appended(file, place)
        begin = Place(file=(held.st_dev, held.st_ino))
        before = (line for one in older for line in _lines_of(one, lambda _: None))
        return False, chain(before, self._appended(file, begin))

    def _appended(self, file: IO[bytes], place: Place) -> Iterator[Entry | LoggedLoss]:
        """The lines of the newest file from a place on; keeps where they end."""
        with file:
            file.seek(place.size)
            for line in file:
                whole = line.endswith(b"\n")
                if not whole and not is_json(line):
                    break
                if line.strip():
                    with refusing(LogError, f"{self._path}, line {place.lines + 1}: not a decision"):
                        entry = _line(read_json(line))
                    yield entry
                place = replace(place, size=place.size + len(line), lines=place.lines + whole)
        self._place = place


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("rb")
    except OSError as error:
        msg = f"{path} cannot be read: {error}; expected a file that DecisionLog wrote"
        raise LogError(msg) from error


def read_all(path: str | Path, *, torn: Callable[[str], None] = _warn) -> Iterator[Entry | LoggedLoss]:
    """Read the decisions and the audited losses of a log and its renamed files, oldest first.

    Parameters
    ----------
    path : str or Path
        The newest file, as given to `DecisionLog`.
    torn : callable
        Called with file and line of each last line that is cut off in the middle, which is skipped; by default, a warning.

    Raises
    ------
    LogError
        No such file, or a line that is neither; the message names file and line.
    """
    for file in _files(Path(path)):
        yield from _lines_of(file, torn)


def _files(newest: Path) -> list[Path]:
    """The files of a log, oldest first."""
    if not newest.exists():
        msg = f"{newest} does not exist: expected a file that DecisionLog wrote"
        raise LogError(msg)
    older = sorted(
        (p for p in newest.parent.glob(f"{newest.name}.*") if p.suffix[1:].isdigit()),
        key=lambda p: -int(p.suffix[1:]),
    )
    return [*older, newest]


def _lines_of(file: Path, torn: Callable[[str], None]) -> Iterator[Entry | LoggedLoss]:
    cut: list[int] = []
    for at, data in json_lines(file, LogError, torn=cut.append, start=_START):
        with refusing(LogError, f"{file}, line {at}: not a decision"):
            line = _line(data)
        yield line
    for at in cut:
        torn(f"{file}, line {at}")


def _line(data: JSON) -> Entry | LoggedLoss:
    given = fields(data, "the line")
    at = _time(given)
    if _LOSS not in given:
        return Entry(at=at, decision=read_decision(given))
    audited = fields(given[_LOSS], _LOSS)
    loss = AuditedLoss(
        name=text(audited.get("name"), f"{_LOSS}.name"),
        loss=number(audited.get("loss"), f"{_LOSS}.loss", low=0.0, high=1.0),
        tier=optional_text(audited.get("tier"), f"{_LOSS}.tier"),
        usage=read_billed(audited.get("usage"), f"{_LOSS}.usage"),
    )
    return LoggedLoss(at=at, loss=loss)


def _time(given: Fields) -> datetime:
    made = text(given.get("at"), "at")
    try:
        at = datetime.fromisoformat(made)
        # Near the ends of the calendar there is no such time elsewhere.
        at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise refused("at", made, "a date and time as ISO 8601 writes them") from error
    if at.tzinfo is None:
        raise refused("at", made, "a date and time with its offset from UTC")
    return at
