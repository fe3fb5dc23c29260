"""Collecting decisions: `with record() as decisions:` sees every call routed inside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from confroute.decision import Decision

_sinks: ContextVar[tuple[list[Decision], ...]] = ContextVar("confroute_sinks", default=())


@contextmanager
def record() -> Iterator[list[Decision]]:
    """Collect the decisions of every call routed in this context, in the order in which they finish.

    Works in both hosts, through chains, agents, query engines, tasks and `asyncio.to_thread`. A bare
    `threading.Thread` and other processes have a context of their own and are not seen.

    Yields
    ------
    list of Decision

    Examples
    --------
    >>> with record() as decisions:
    ...     pass
    >>> decisions
    []
    """
    collected: list[Decision] = []
    token = _sinks.set((*_sinks.get(), collected))
    try:
        yield collected
    finally:
        _sinks.reset(token)


def publish(decision: Decision) -> None:
    """Hand `decision` to every enclosing `record()`."""
    for sink in _sinks.get():
        sink.append(decision)
