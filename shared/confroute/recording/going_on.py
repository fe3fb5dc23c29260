"""Going on with a file that an earlier process wrote: alone, after a check that it is such a file, and without losing a line."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from confroute.reading import GZIP, end_whole
from confroute.recording.rows import START, RecordError, Row, append_row, numbered_rows, replace_row

T = TypeVar("T")


@contextmanager
def alone(path: Path, error: Callable[[str], Exception]) -> Iterator[None]:
    """Keep other processes from writing to the same file, by whatever path they know it.

    Parameters
    ----------
    path : Path
        Its folder is made if needed.
    error : callable
        Makes the error that is raised if another process writes to it.
    """
    from filelock import FileLock, Timeout

    real = Path(os.path.realpath(path))
    real.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(f"{real}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout as busy:
        msg = f"{path} is being written by another process (it holds {lock.lock_file}): wait for it, or name another file"
        raise error(msg) from busy
    try:
        yield
    finally:
        lock.release()


def whole_lines(path: Path, read: Callable[[Callable[[int], None]], T]) -> T:
    """Read a file that is to be appended to, and end it with a whole line; a file of another kind is left as it is.

    Parameters
    ----------
    path : Path
    read : callable
        Reads every line of it, or raises; it is called with what `confroute.recording.read_rows` takes as `torn`.

    Returns
    -------
    object
        What `read` returned.

    Raises
    ------
    RecordError
        A line is not of this kind, or the end is not one that a crash could leave. Nothing is written then.
    """
    with path.open("rb") as file:
        if file.read(len(GZIP)) == GZIP:
            msg = f"{path} is compressed: expected a plain file, which an interrupted run can continue; decompress it first"
            raise RecordError(msg)
    # All of it before the first byte is written; a torn line is looked at below.
    found = read(lambda _: None)
    end_whole(path, START, RecordError)
    return found


def errors_of(row: Row) -> list[str]:
    """The errors of the models that failed."""
    return [*_failed(row).values()]


def _failed(row: Row) -> dict[str, str]:
    sides = {name: row.side(name) for name in row.models}
    return {name: side.error for name, side in sides.items() if side is not None and side.error is not None}


class RunFile:
    """A run that is being recorded: a row goes to its end, or takes the place of the one that had its id.

    Parameters
    ----------
    path : path-like
        It may not exist yet; a last line that a crash left incomplete is cut off.

    Raises
    ------
    RecordError
        It is not a run. Nothing is written then.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        # By id, where a row stands and which sides of it failed.
        self._known: dict[str, tuple[int, Set[str]]] = {}
        self._end = 0
        if self.path.exists():
            whole_lines(self.path, self._read)

    def _read(self, torn: Callable[[int], None]) -> None:
        for at, row in numbered_rows(self.path, torn=torn):
            self._known[row.id] = at, _failed(row).keys()
            self._end = at

    def done(self, *, retry_errors: bool) -> set[str]:
        """The ids that are not to be recorded again.

        Parameters
        ----------
        retry_errors : bool
            Whether rows of which a model failed are to be.
        """
        return {name for name, (_, failed) in self._known.items() if not (retry_errors and failed)}

    def put(self, row: Row) -> None:
        """Write a row at once. One that fails where the row before it did not is left out: what was paid for is kept."""
        known, failed = self._known.get(row.id), _failed(row).keys()
        if known is None:
            append_row(self.path, row)
            self._end += 1
            self._known[row.id] = self._end, failed
        elif failed <= known[1]:
            replace_row(self.path, known[0], row)
            self._known[row.id] = known[0], failed
