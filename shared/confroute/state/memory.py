"""State of one process."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from confroute.state.store import Change

T = TypeVar("T")


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
