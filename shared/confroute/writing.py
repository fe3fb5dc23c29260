"""Files that are whole whatever happens: lines that are appended, and files that take the place of others."""

from __future__ import annotations

import io
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

__all__ = ["Appending", "replacing", "write_whole"]


class Appending(io.FileIO):
    r"""A file opened for appending, created if needed, to which each write goes whole or, on a full disk, not at all.

    For one process at a time: what another one appends during a write that fails is cut off with it.

    Parameters
    ----------
    path : str or Path

    Examples
    --------
    >>> path = Path(tempfile.mkdtemp()) / "lines"
    >>> for line in (b"a\n", b"b\n"):
    ...     with Appending(path) as file:
    ...         _ = file.write(line)
    >>> path.read_bytes()
    b'a\nb\n'
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(os.fspath(path), "ab")

    def write(self, data: Any) -> int:
        """Write all bytes; see `io.RawIOBase.write`.

        Raises
        ------
        OSError
            They could not be written; the file ends where it did. A device or a pipe may have had a part of them.
        """
        whole = memoryview(data).cast("B")
        end = self.seek(0, os.SEEK_END) if stat.S_ISREG(os.fstat(self.fileno()).st_mode) else None
        rest = whole
        try:
            while rest:
                # None where a pipe that does not wait is full.
                rest = rest[super().write(rest) or 0 :]
        except OSError:
            if end is not None:
                self.truncate(end)
            raise
        return len(whole)


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` once it is whole and on the disk.

    Raises
    ------
    OSError
        It could not be written; `path` is as it was.
    """
    # Through a link the file that it names is replaced, not the link.
    real = Path(os.path.realpath(path))
    handle, name = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name}.")
    unfinished = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # Only its owner may read a temporary file; a file that is replaced keeps its mode.
        unfinished.chmod(real.stat().st_mode & 0o777 if real.exists() else 0o644)
        unfinished.replace(real)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: str | os.PathLike[str], text: str) -> None:
    """Write a text as UTF-8 in the place of what was at `path`, which stays if that fails; into a device or a pipe directly.

    Raises
    ------
    OSError
        It could not be written.
    """
    if Path(path).exists() and not Path(path).is_file():
        Path(path).write_text(text, encoding="utf-8")
        return
    with replacing(path) as file:
        file.write(text.encode("utf-8"))
