"""Collecting decisions: `record` those of the calls routed inside it, `subscribe` those of all calls of this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TypeAlias

from confroute.decision import Decision
from confroute.display import Displayable


class Trace(Displayable, list[Decision]):
    """A list of decisions that a notebook shows as a table.

    Examples
    --------
    >>> Trace([Decision(route="edge", stage="draft", reason="kept")])
    <1 decision: edge 1; 0.00 s>
    """


Sink: TypeAlias = Callable[[Decision], object]
_traces: ContextVar[tuple[Trace, ...]] = ContextVar("confroute_traces", default=())
_sinks: tuple[Sink, ...] = ()
_lock = threading.Lock()


@contextmanager
def record() -> Iterator[Trace]:
    """Collect the decisions of every call routed in this context, in the order in which they finish.

    It works in every host, through chains, agents, query engines, tasks and `asyncio.to_thread`. A bare `threading.Thread` and other
    processes have a context of their own, so that their calls are not collected; `subscribe` covers all threads.

    Yields
    ------
    Trace
        A list of decisions.

    Examples
    --------
    >>> with record() as decisions:
    ...     pass
    >>> len(decisions)
    0
    """
    collected = Trace()
    token = _traces.set((*_traces.get(), collected))
    try:
        yield collected
    finally:
        _traces.reset(token)


def subscribe(sink: Sink) -> Callable[[], None]:
    """Hand every decision of this process to `sink`, whichever thread made it.

    Parameters
    ----------
    sink : callable
        Called with each `Decision` before the answer is returned, so it should be quick. What it raises reaches the caller of the
        model: a log that loses decisions silently would be useless.

    Returns
    -------
    callable
        Ends the subscription; a second call does nothing.

    Examples
    --------
    >>> seen = []
    >>> stop = subscribe(seen.append)
    >>> publish(Decision(route="edge", stage="draft", reason="kept"))
    >>> stop()
    >>> len(seen)
    1
    """
    global _sinks  # noqa: PLW0603  replaced as a whole: readers need no lock
    # An object of its own: the same sink may be subscribed twice, and each `stop` ends one subscription.
    entry = partial(sink)
    with _lock:
        _sinks = (*_sinks, entry)

    def stop() -> None:
        global _sinks  # noqa: PLW0603  as above
        with _lock:
            _sinks = tuple(other for other in _sinks if other is not entry)

    return stop


def publish(decision: Decision) -> None:
    """Hand `decision` to every enclosing `record()` and every subscriber."""
    for trace in _traces.get():
        trace.append(decision)
    for sink in _sinks:
        sink(decision)
