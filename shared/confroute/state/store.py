"""The interface of a store, which changes several records in one transaction, and the store in memory."""

from __future__ import annotations

import functools
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from confroute.errors import PolicyError

T = TypeVar("T")
Record: TypeAlias = dict[str, Any]
# May run more than once, so it must have no side effects.
Change: TypeAlias = Callable[[list[Record | None]], tuple[list[Record], T]]


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
        from confroute.state.sqlite import SQLiteStore

        return SQLiteStore(rest)
    if kind in {"redis", "rediss", "unix"}:
        from confroute.state.redis import RedisStore

        return RedisStore(where)
    msg = f"store {where!r}: expected 'memory:NAME', 'sqlite:PATH' or 'redis://HOST:PORT/DB'"
    raise PolicyError(msg)


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
        self._lock = threading.Lock()

    def __deepcopy__(self, memo: object) -> MemoryStore:
        # Hosts copy their models; all copies share one state.
        return self

    def change(self, keys: Sequence[str], change: Change[T]) -> T:
        """See `Store`."""
        with self._lock:
            texts = [self._records.get(key) for key in keys]
            changed, result = change([None if text is None else json.loads(text) for text in texts])
            self._records |= {key: json.dumps(record) for key, record in zip(keys, changed, strict=True)}
        return result
