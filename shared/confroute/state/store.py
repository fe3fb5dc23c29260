"""What a store is: one method that changes several records at once, exactly."""

from __future__ import annotations

import functools
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
        from confroute.state.memory import MemoryStore

        return MemoryStore()
    if kind == "sqlite" and rest:
        from confroute.state.sqlite import SQLiteStore

        return SQLiteStore(rest)
    if kind in {"redis", "rediss", "unix"}:
        from confroute.state.redis import RedisStore

        return RedisStore(where)
    msg = f"store {where!r}: expected 'memory:NAME', 'sqlite:PATH' or 'redis://HOST:PORT/DB'"
    raise PolicyError(msg)
