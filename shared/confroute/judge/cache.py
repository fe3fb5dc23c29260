"""Replies of judges on disk: each question to a judge is paid for once."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from confroute.errors import ConfrouteError
from confroute.judge.protocol import PROTOCOL
from confroute.types import Message


class CacheError(ConfrouteError, OSError):
    """A file that cannot be used as a cache."""


def cache_key(messages: Sequence[Message], *, model: str, max_tokens: int) -> str:
    """SHA-256 over protocol version, model, longest reply and every word that is sent."""
    told = [PROTOCOL, model, max_tokens, [[message.role, message.text] for message in messages]]
    return hashlib.sha256(json.dumps(told).encode("ascii")).hexdigest()


class ReplyCache:
    """An SQLite file of replies; several threads and processes of one machine may use it at once.

    Parameters
    ----------
    path : path-like
        Made if it is not there. It holds what judges wrote, which may quote answers: keep it as you keep those.

    Raises
    ------
    CacheError
        The file cannot be made, read or written, or is something else.

    Examples
    --------
    >>> import tempfile
    >>> with ReplyCache(Path(tempfile.mkdtemp()) / "replies.sqlite") as cache:
    ...     cache.put("key", "judge", "VERDICT: A")
    ...     cache.get("key"), cache.get("other")
    ('VERDICT: A', None)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        with self._told():
            self._file = sqlite3.connect(self.path, timeout=60, check_same_thread=False, isolation_level=None)
        try:
            # Readers go on while another process writes.
            self._rows("PRAGMA journal_mode=WAL")
            self._rows(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL)"
            )
        except CacheError:
            self.close()
            raise

    def get(self, key: str) -> str | None:
        """The reply kept under `key`."""
        rows = self._rows("SELECT text FROM replies WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def put(self, key: str, model: str, text: str) -> None:
        """Keep a reply; the first one kept under a key stays."""
        self._rows("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", key, model, text)

    def _rows(self, command: str, *values: str) -> list[tuple[object, ...]]:
        with self._lock, self._told():
            return self._file.execute(command, values).fetchall()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What SQLite says, with the file and what to do."""
        try:
            yield
        except sqlite3.Error as error:
            msg = (
                f"{self.path} cannot be used as a cache of replies: {error}; name a new file in a folder that can be "
                "written to, or an earlier cache"
            )
            raise CacheError(msg) from error

    def __reduce__(self) -> tuple[type[ReplyCache], tuple[Path]]:
        # Workers in other processes open the same file.
        return ReplyCache, (self.path.absolute(),)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
