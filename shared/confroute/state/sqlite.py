"""A store for one machine: a SQLite file that its processes share."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

from confroute.errors import StateError
from confroute.state.store import Change

T = TypeVar("T")


class SQLiteStore:
    """Keeps records in a SQLite file, exactly, for any number of threads and processes of one machine.

    Parameters
    ----------
    path : str or Path
        Created if needed. Not on a network drive, where SQLite's locks are not reliable.
    clock : callable
        Seconds since the epoch; for tests and simulations.
    timeout_s : float
        How long a change waits for others before it raises `StateError`.

    Notes
    -----
    Uses a write-ahead log with `synchronous=NORMAL`: changes survive the end of the process; a power cut may lose the
    last ones, never their order.
    """

    waits = True

    def __init__(
        self, path: str | Path, *, clock: Callable[[], float] = time.time, timeout_s: float = 30.0
    ) -> None:
        self.path, self.timeout_s = Path(path), timeout_s
        self.now = clock
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._process = 0
        self._closing: weakref.finalize[[sqlite3.Connection, int], SQLiteStore] | None = None

    def __deepcopy__(self, memo: object) -> SQLiteStore:
        return self

    def close(self) -> None:
        """Close the file; the next change reopens it."""
        self._connection = None
        if self._closing is not None:
            self._closing()

    def change(self, keys: Sequence[str], change: Change[T]) -> T:
        """See `Store`."""
        try:
            return self._change(keys, change)
        except sqlite3.Error as error:
            msg = f"the state in {self.path} cannot be changed ({type(error).__name__}: {error})"
            raise StateError(msg) from error

    def _change(self, keys: Sequence[str], change: Change[T]) -> T:
        with self._lock, closing(self._open().cursor()) as cursor:
            # Takes the write lock at once: of two that read first and write later, one would have to start again.
            cursor.execute("BEGIN IMMEDIATE")
            try:
                rows = [
                    cursor.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone() for key in keys
                ]
                changed, result = change([json.loads(row[0]) if row else None for row in rows])
                cursor.executemany(
                    "INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    [(key, json.dumps(record)) for key, record in zip(keys, changed, strict=True)],
                )
            except BaseException:
                cursor.execute("ROLLBACK")
                raise
            cursor.execute("COMMIT")
        return result

    def _open(self) -> sqlite3.Connection:
        # A connection must not be carried through a fork.
        if self._connection is None or self._process != os.getpid():
            connection = sqlite3.connect(
                self.path, timeout=self.timeout_s, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            self._connection, self._process = connection, os.getpid()
            # Not `__del__`: when the interpreter ends, it may run after the modules it needs are gone.
            self._closing = weakref.finalize(self, _close, connection, self._process)
        return self._connection


def _close(connection: sqlite3.Connection, process: int) -> None:
    if process == os.getpid():
        connection.close()
