"""What a store is: one method that changes several records at once, exactly."""

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
        from confroute.state.sqlite import SQLiteStore

        return SQLiteStore(rest)
    if kind in {"redis", "rediss", "unix"}:
        from confroute.state.redis import RedisStore

        return RedisStore(where)
    msg = f"store {where!r}: expected 'memory:NAME', 'sqlite:PATH' or 'redis://HOST:PORT/DB'"
    raise PolicyError(msg)


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
