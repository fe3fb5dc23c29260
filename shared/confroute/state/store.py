"""Where budgets and audits keep their records: in memory, in a SQLite file, in Redis.

A store has one method, which changes several records at once, exactly.
"""

from __future__ import annotations

import functools
import json
import os
import random
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from confroute.errors import MissingExtraError, PolicyError, StateError

T = TypeVar("T")
_REDIS_PREFIX = "confroute:"
_LONGEST_WAIT_S = 0.02
Record: TypeAlias = dict[str, Any]
# May run more than once, so it must do nothing but compute.
Change: TypeAlias = Callable[[list[Record | None]], tuple[list[Record], T]]


@runtime_checkable
class Store(Protocol):
    """Keeps JSON records by key; every change of any number of them is one transaction.

    Attributes
    ----------
    waits : bool
        Whether a change may block on a disk or a network: then it runs in a thread in async calls.
    """

    @property
    def waits(self) -> bool:
        """See the class."""
        ...

    def now(self) -> float:
        """Seconds since the epoch, the same for all that share the store."""
        ...

    def change(self, keys: Sequence[str], change: Change[T]) -> T:
        """Replace the records under `keys` by what `change` makes of them, and return its result.

        What `change` raises leaves everything as it was.

        Raises
        ------
        StateError
            The records cannot be read or written; they are as they were.
        """
        ...


class MemoryStore:
    """Keeps records in this process; lost when it ends.

    Parameters
    ----------
    clock : callable
        Seconds since the epoch; for tests and simulations.

    Examples
    --------
    >>> store = MemoryStore()
    >>> store.change(["a"], lambda records: ([{"n": 1}], "done"))
    'done'
    >>> store.change(["a"], lambda records: (records, records[0]["n"]))
    1
    """

    waits = False

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self.now = clock
        # As text, as other stores keep them: what cannot be kept there shows here, and nobody holds a record by reference.
        self._records: dict[str, str] = {}
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: object) -> MemoryStore:
        # Hosts copy their models; the state stays one.
        return self

    def change(self, keys: Sequence[str], change: Change[T]) -> T:
        """See `Store`."""
        with self._lock:
            found = [self._records.get(key) for key in keys]
            changed, result = change([None if text is None else json.loads(text) for text in found])
            self._records |= {key: json.dumps(record) for key, record in zip(keys, changed, strict=True)}
        return result


class SQLiteStore:
    """Keeps records in a SQLite file, exactly under any number of threads and processes of one machine.

    Parameters
    ----------
    path : str or Path
        Made if it is not there. Not on a network drive: SQLite's locks do not hold there.
    clock : callable
        Seconds since the epoch; for tests and simulations.
    timeout_s : float
        How long a change waits for those of others before it ends in `StateError`.

    Notes
    -----
    Write-ahead log, `synchronous=NORMAL`: what was changed survives the end of the process; a power cut may lose the
    last changes, never their order.
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
        """Close the file; the next change opens it again."""
        self._connection = None
        if self._closing is not None:
            self._closing()

    def change(self, keys: Sequence[str], change: Change[T]) -> T:
        """See `Store`."""
        try:
            return self._changed(keys, change)
        except sqlite3.Error as error:
            msg = f"the state in {self.path} cannot be changed ({type(error).__name__}: {error})"
            raise StateError(msg) from error

    def _changed(self, keys: Sequence[str], change: Change[T]) -> T:
        with self._lock, closing(self._open().cursor()) as cursor:
            # Locks at once: two that read first and write later would have to start again.
            cursor.execute("BEGIN IMMEDIATE")
            try:
                found = [
                    cursor.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone() for key in keys
                ]
                changed, result = change([json.loads(row[0]) if row else None for row in found])
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
            # Not `__del__`: a store that lives until the interpreter ends would find its modules gone.
            self._closing = weakref.finalize(self, _closed, connection, self._process)
        return self._connection


def _closed(connection: sqlite3.Connection, process: int) -> None:
    if process == os.getpid():
        connection.close()


class RedisStore:
    """Keeps records in Redis; a change that another one overtook is computed again, so each is exact.

    Parameters
    ----------
    url : str
        "redis://HOST:PORT/DB", as `redis.Redis.from_url` takes it.
    clock : callable
        Seconds since the epoch; for tests and simulations. Keep the machines' clocks together (NTP): windows and
        leases are compared with them.

    Raises
    ------
    MissingExtraError
        `redis` is not installed.
    """

    waits = True

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        try:
            import redis
        except ImportError as error:
            raise MissingExtraError(extra="redis", needed_for="state in Redis") from error
        self.now = clock
        self._redis: Any = redis.Redis.from_url(url)
        self._overtaken, self._failed = redis.WatchError, redis.RedisError

    def __deepcopy__(self, memo: object) -> RedisStore:
        return self

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def change(self, keys: Sequence[str], change: Change[T]) -> T:
        """See `Store`."""
        try:
            return self._changed([_REDIS_PREFIX + key for key in keys], change)
        except self._failed as error:
            msg = f"the state in Redis cannot be changed ({type(error).__name__}: {error})"
            raise StateError(msg) from error

    def _changed(self, names: list[str], change: Change[T]) -> T:
        with self._redis.pipeline() as pipe:
            while True:
                try:
                    pipe.watch(*names)
                    found = [json.loads(value) if value else None for value in pipe.mget(names)]
                    changed, result = change(found)
                    pipe.multi()
                    for name, record in zip(names, changed, strict=True):
                        pipe.set(name, json.dumps(record))
                    pipe.execute()
                except self._overtaken:
                    time.sleep(random.uniform(0, _LONGEST_WAIT_S))  # noqa: S311  spreads the retries, no secret
                else:
                    return result


def open_store(where: Store | str) -> Store:
    """The store itself, or the one that a text names; the same text is the same store in this process.

    Parameters
    ----------
    where : Store or str
        "memory:NAME", "sqlite:PATH", or "redis://HOST:PORT/DB" (also rediss and unix).

    Raises
    ------
    PolicyError
        A text that names no store.
    MissingExtraError
        A Redis store without the `redis` package.

    Examples
    --------
    >>> open_store("memory:a") is open_store("memory:a"), open_store("memory:a") is open_store("memory:b")
    (True, False)
    """
    return _named(where) if isinstance(where, str) else where


@functools.cache
def _named(where: str) -> Store:
    kind, _, rest = where.partition(":")
    if kind == "memory":
        return MemoryStore()
    if kind == "sqlite" and rest:
        return SQLiteStore(rest)
    if kind in {"redis", "rediss", "unix"}:
        return RedisStore(where)
    msg = f"store {where!r}: expected 'memory:NAME', 'sqlite:PATH' or 'redis://HOST:PORT/DB'"
    raise PolicyError(msg)
