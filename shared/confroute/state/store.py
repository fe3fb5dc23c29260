"""Stores in which budgets, audits and learned thresholds keep their records: in memory, in a SQLite file, in Redis.

A store changes any number of records in one transaction, so that concurrent calls count exactly.
"""

from __future__ import annotations

import functools
import json
import math
import os
import random
import shlex
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from confroute.display import Address
from confroute.errors import MissingExtraError, PolicyError, StateError
from confroute.reading import fields, is_version, read_json, refused, refusing

T = TypeVar("T")
_REDIS_PREFIX = "confroute:"
_MAX_WAIT_S = 0.02
Record: TypeAlias = dict[str, Any]
VERSION = 1
"""Version of stored records, which each of them holds."""
UNTIL = "_until"
"""A record's own key for the second since the epoch from which on nobody needs it; stores may drop it then."""
_VERSION = "_v"
# May run more than once, so it must have no side effects.
Change: TypeAlias = Callable[[list[Record | None]], tuple[list[Record], T]]


def unreadable(key: str, problem: object) -> StateError:
    """Make the error for a record that cannot be used, with the command that starts it again."""
    msg = f"the record {key!r} cannot be used: {problem}; `confroute reset STORE {shlex.quote(key)}` starts it again"
    return StateError(msg)


@contextmanager
def using(key: str) -> Iterator[None]:
    """Name the record in which a field is not what its owner wrote."""
    with refusing(functools.partial(unreadable, key)):
        yield


def encoded(record: Record) -> str:
    """A record as stores keep it: JSON with its version."""
    return json.dumps({_VERSION: VERSION, **record})


def decoded(key: str, stored: object) -> Record | None:
    """The record that `encoded` made text of; None where there is none.

    Raises
    ------
    StateError
        It is damaged, or of another version.

    Examples
    --------
    >>> decoded("budget/cloud", encoded({"spent": 1.0}))
    {'spent': 1.0}
    """
    if stored is None:
        return None
    with using(key):
        if not isinstance(stored, (str, bytes)):
            raise refused("its value", stored, "text")
        record: Record = {**fields(read_json(stored, infinite=True), "its value")}
        version = record.pop(_VERSION, VERSION)
        if not is_version(version, VERSION):
            raise refused("its version", version, f"{VERSION}, the one that this confroute reads")
    record.pop(UNTIL, None)
    return record


@runtime_checkable
class Store(Protocol):
    """Keeps JSON records by key, and changes any number of them in one transaction.

    Attributes
    ----------
    waits : bool
        Whether a change may block on a disk or a network; async calls then run it in a thread.
    """

    @property
    def waits(self) -> bool:
        """See the class."""
        ...

    def now(self) -> float:
        """Seconds since the epoch, by the clock that all users of the store share."""
        ...

    def change(self, keys: Sequence[str], change: Change[T]) -> T:
        """Replace the records under `keys` by those that `change` returns, and return its result.

        If `change` raises, the records stay unchanged.

        Raises
        ------
        StateError
            The records cannot be read or written; they stay unchanged.
        """
        ...

    def remove(self, key: str) -> bool:
        """Remove the record under `key`, whatever it holds; False if there is none.

        Raises
        ------
        StateError
            The store cannot be written.
        """
        ...


class MemoryStore:
    """Keeps records in this process; they are lost when it ends.

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
        # As text, like other stores: a record that is not JSON fails here too, and none is shared by reference.
        self._records: dict[str, str] = {}
        self._ends: dict[str, float] = {}
        self._next_end = math.inf
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: object) -> MemoryStore:
        # Hosts copy their models; all copies share one state.
        return self

    def change(self, keys: Sequence[str], change: Change[T]) -> T:
        """See `Store`."""
        with self._lock:
            self._drop_ended()
            changed, result = change([decoded(key, self._records.get(key)) for key in keys])
            kept = [*zip(keys, changed, strict=True)]
            self._records |= {key: encoded(record) for key, record in kept}
            self._ends |= {key: record[UNTIL] for key, record in kept if UNTIL in record}
            self._next_end = min([self._next_end, *(record.get(UNTIL, math.inf) for record in changed)])
        return result

    def _drop_ended(self) -> None:
        # Windows end together: all records are looked at once a window, not at every change.
        now = self.now()
        if now < self._next_end:
            return
        for key in [key for key, end in self._ends.items() if end <= now]:
            del self._records[key], self._ends[key]
        self._next_end = min(self._ends.values(), default=math.inf)

    def remove(self, key: str) -> bool:
        """See `Store`."""
        with self._lock:
            self._ends.pop(key, None)
            return self._records.pop(key, None) is not None


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
        with self._transaction() as cursor:
            _drop_ended(cursor, self.now())
            rows = [
                cursor.execute("SELECT value FROM state WHERE key = ?", (key,)).fetchone() for key in keys
            ]
            changed, result = change(
                [decoded(key, row[0] if row else None) for key, row in zip(keys, rows, strict=True)]
            )
            kept = [*zip(keys, changed, strict=True)]
            cursor.executemany(
                "INSERT INTO state VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                [(key, encoded(record)) for key, record in kept],
            )
            cursor.executemany(
                "INSERT INTO ends VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET at = excluded.at",
                [(key, record[UNTIL]) for key, record in kept if UNTIL in record],
            )
        return result

    def remove(self, key: str) -> bool:
        """See `Store`."""
        with self._transaction() as cursor:
            cursor.execute("DELETE FROM ends WHERE key = ?", (key,))
            return cursor.execute("DELETE FROM state WHERE key = ?", (key,)).rowcount > 0

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Cursor]:
        try:
            with self._lock, closing(self._open().cursor()) as cursor:
                # Takes the write lock at once: of two that read first and write later, one would have to start again.
                cursor.execute("BEGIN IMMEDIATE")
                try:
                    yield cursor
                except BaseException:
                    cursor.execute("ROLLBACK")
                    raise
                cursor.execute("COMMIT")
        except sqlite3.Error as error:
            msg = f"the state in {self.path} cannot be changed ({type(error).__name__}: {error})"
            raise StateError(msg) from error

    def _open(self) -> sqlite3.Connection:
        # A connection must not be carried through a fork.
        if self._connection is None or self._process != os.getpid():
            connection = sqlite3.connect(
                self.path, timeout=self.timeout_s, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=NORMAL")
            connection.execute("CREATE TABLE IF NOT EXISTS state (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            # A table of its own: processes of an earlier version use the same file.
            connection.execute("CREATE TABLE IF NOT EXISTS ends (key TEXT PRIMARY KEY, at REAL NOT NULL)")
            connection.execute("CREATE INDEX IF NOT EXISTS ends_at ON ends (at)")
            self._connection, self._process = connection, os.getpid()
            # Not `__del__`: when the interpreter ends, it may run after the modules it needs are gone.
            self._closing = weakref.finalize(self, _close, connection, self._process)
        return self._connection


def _drop_ended(cursor: sqlite3.Cursor, now: float) -> None:
    cursor.execute("DELETE FROM state WHERE key IN (SELECT key FROM ends WHERE at <= ?)", (now,))
    cursor.execute("DELETE FROM ends WHERE at <= ?", (now,))


def _close(connection: sqlite3.Connection, process: int) -> None:
    if process == os.getpid():
        connection.close()


class RedisStore:
    """Keeps records in Redis, exactly: a change that was overtaken by another one is computed again.

    Parameters
    ----------
    url : str
        "redis://HOST:PORT/DB", as in `redis.Redis.from_url`.
    clock : callable
        Seconds since the epoch; for tests and simulations. Synchronise the machines' clocks (NTP): windows and leases
        are compared with them.

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
        try:
            self._redis: Any = redis.Redis.from_url(url)
        except ValueError:
            # Not its cause: that repeats parts of the address.
            msg = f"{Address(url)!r} is not an address of Redis: expected 'redis://HOST:PORT/DB', special characters in a password as %XX"
            raise PolicyError(msg) from None
        self._watch_error, self._redis_error = redis.WatchError, redis.RedisError

    def __deepcopy__(self, memo: object) -> RedisStore:
        return self

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def change(self, keys: Sequence[str], change: Change[T]) -> T:
        """See `Store`."""
        with self._named_errors():
            return self._change(keys, change)

    def remove(self, key: str) -> bool:
        """See `Store`."""
        with self._named_errors():
            return bool(self._redis.delete(_REDIS_PREFIX + key))

    @contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except self._redis_error as error:
            msg = f"the state in Redis cannot be changed ({type(error).__name__}: {error})"
            raise StateError(msg) from error

    def _change(self, keys: Sequence[str], change: Change[T]) -> T:
        names = [_REDIS_PREFIX + key for key in keys]
        with self._redis.pipeline() as pipe:
            while True:
                try:
                    pipe.watch(*names)
                    changed, result = change([*map(decoded, keys, pipe.mget(names))])
                    pipe.multi()
                    for name, record in zip(names, changed, strict=True):
                        pipe.set(name, encoded(record), px=self._left_ms(record))
                    pipe.execute()
                except self._watch_error:
                    time.sleep(random.uniform(0, _MAX_WAIT_S))  # noqa: S311  spreads the retries, no secret
                else:
                    return result

    def _left_ms(self, record: Record) -> int | None:
        """Milliseconds for which a record is kept, by Redis' own clock; None for ever."""
        return max(1, math.ceil((record[UNTIL] - self.now()) * 1000)) if UNTIL in record else None


def keep_address(owner: Any) -> None:
    """Make the `store` of a frozen object one that prints no password, where it is an address."""
    if isinstance(owner.store, str):
        object.__setattr__(owner, "store", Address(owner.store))


def open_store(where: Store | str) -> Store:
    """Return the store, or open the one with this name; within a process the same name is the same store.

    Parameters
    ----------
    where : Store or str
        A store, or "memory:NAME", "sqlite:PATH", or "redis://HOST:PORT/DB" (also rediss and unix).

    Raises
    ------
    PolicyError
        The name is not that of a store.
    MissingExtraError
        A Redis store needs the `redis` package.

    Examples
    --------
    >>> open_store("memory:a") is open_store("memory:a"), open_store("memory:a") is open_store("memory:b")
    (True, False)
    """
    return _open(where) if isinstance(where, str) else where


@functools.cache
def _open(where: str) -> Store:
    kind, _, rest = where.partition(":")
    if kind == "memory":
        return MemoryStore()
    if kind == "sqlite" and rest:
        return SQLiteStore(rest)
    if kind in {"redis", "rediss", "unix"}:
        return RedisStore(where)
    msg = f"store {Address(where)!r}: expected 'memory:NAME', 'sqlite:PATH' or 'redis://HOST:PORT/DB'"
    raise PolicyError(msg)
