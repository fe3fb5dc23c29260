"""Stores the replies of judges on disk, so that each question to a judge is paid for once."""

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
    """A file cannot be used as a cache."""


def cache_key(messages: Sequence[Message], *, model: str, max_tokens: int) -> str:
    """Return the SHA-256 of the protocol version, the model, the longest reply and all text that is sent."""
    request = [PROTOCOL, model, max_tokens, [[message.role, message.text] for message in messages]]
    return hashlib.sha256(json.dumps(request).encode("ascii")).hexdigest()


class ReplyCache:
    """Stores replies in an SQLite file that several threads and processes of one machine may use at once.

    Parameters
    ----------
    path : path-like
        Created if needed. Replies may quote answers: protect this file as you protect those.

    Raises
    ------
    CacheError
        The file cannot be created, read or written, or is not such a cache.

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
        with self._cache_errors():
            self._file = sqlite3.connect(self.path, timeout=60, check_same_thread=False, isolation_level=None)
        try:
            # Lets processes read while another one writes.
            self._rows("PRAGMA journal_mode=WAL")
            self._rows(
                "CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, model TEXT NOT NULL, text TEXT NOT NULL)"
            )
        except CacheError:
            self.close()
            raise

    def get(self, key: str) -> str | None:
        """The reply stored under `key`; None if there is none."""
        rows = self._rows("SELECT text FROM replies WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def put(self, key: str, model: str, text: str) -> None:
        """Store a reply, unless there is one under this key already."""
        self._rows("INSERT OR IGNORE INTO replies VALUES (?, ?, ?)", key, model, text)

    def _rows(self, command: str, *values: str) -> list[tuple[object, ...]]:
        with self._lock, self._cache_errors():
            return self._file.execute(command, values).fetchall()

    @contextmanager
    def _cache_errors(self) -> Iterator[None]:
        """Raise SQLite's errors as `CacheError`, which names the file and says what to do."""
        try:
            yield
        except sqlite3.Error as error:
            msg = (
                f"{self.path} cannot be used as a cache of replies: {error}; name a new file in a writable folder, or an "
                "existing cache"
            )
            raise CacheError(msg) from error

    def __reduce__(self) -> tuple[type[ReplyCache], tuple[Path]]:
        # Workers in other processes reopen the same file.
        return ReplyCache, (self.path.absolute(),)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
