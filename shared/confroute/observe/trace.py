"""Collecting decisions: `record` those of the calls routed inside it, `subscribe` those of all calls of this process."""

from __future__ import annotations

import itertools
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import Generic, TypeAlias, TypeVar
from uuid import UUID, uuid4

from confroute.decision import Decision
from confroute.display import Displayable
from confroute.types import JSON, Usage


class Trace(Displayable, list[Decision]):
    """A list of decisions that a notebook shows as a table.

    Examples
    --------
    >>> Trace([Decision(route="edge", stage="draft", reason="kept")])
    <1 decision: edge 1; 0.00 s>
    """

    def __init__(self, decisions: Sequence[Decision] = ()) -> None:
        super().__init__(decisions)
        self._places: list[int] = [0] * len(self)
        self._lock = threading.Lock()

    def put(self, decision: Decision, place: int) -> None:
        """Add a decision behind those of calls that began before it."""
        with self._lock:
            position = bisect_right(self._places, place)
            self._places.insert(position, place)
            self.insert(position, decision)


_count = itertools.count(1)


def next_place() -> int:
    """Place of a call that begins now."""
    return next(_count)


_reserved: dict[UUID, int] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class CallId:
    """What ties a decision to its call.

    Attributes
    ----------
    run_id : UUID
        The host's own where it has one.
    place : int
        Place among all calls of this process, in the order in which they began.
    """

    run_id: UUID = field(default_factory=uuid4)
    place: int = field(default_factory=next_place)

    @classmethod
    def of(cls, run_id: UUID | None, place: int) -> CallId:
        """The id of a call that the host calls `run_id`; in its place of a batch, where it has one."""
        if run_id is None:
            return cls(place=place)
        return cls(run_id=run_id, place=_reserved.get(run_id, place))


@contextmanager
def in_this_order(run_ids: Sequence[UUID]) -> Iterator[None]:
    """Reserve the places of a batch's calls: its threads begin them in any order."""
    _reserved.update((run_id, next(_count)) for run_id in run_ids)
    try:
        yield
    finally:
        for run_id in run_ids:
            _reserved.pop(run_id, None)


Sink: TypeAlias = Callable[[Decision], object]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditedLoss:
    """What the audit of one kept answer found; it comes after the decision on that answer was published.

    Attributes
    ----------
    name : str
        The audits that it belongs to, as `confroute.drift.Audited` names them.
    loss : float in [0, 1]
    tier : str or None
        The tier whose answer was compared with the kept one.
    usage : Usage or None
        What that answer was billed; None when the provider reported nothing.
    """

    name: str
    loss: float
    tier: str | None = None
    usage: Usage | None = None

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        usage = None if self.usage is None else self.usage.to_dict()
        return {"name": self.name, "loss": self.loss, "tier": self.tier, "usage": usage}


class _Sinks(Generic[T]):
    """Functions that get every value of a kind."""

    def __init__(self) -> None:
        # Replaced as a whole: readers need no lock.
        self._sinks: tuple[Callable[[T], object], ...] = ()

    def add(self, sink: Callable[[T], object]) -> Callable[[], None]:
        """Add a function, and return what takes it away again."""
        # An object of its own: the same sink may be subscribed twice, and each `stop` ends one subscription.
        entry = partial(sink)
        with _lock:
            self._sinks = (*self._sinks, entry)

        def stop() -> None:
            with _lock:
                self._sinks = tuple(other for other in self._sinks if other is not entry)

        return stop

    def hand(self, value: T) -> None:
        for sink in self._sinks:
            sink(value)


_lock = threading.Lock()
_decisions: _Sinks[Decision] = _Sinks()
_losses: _Sinks[AuditedLoss] = _Sinks()
_traces: ContextVar[tuple[Trace, ...]] = ContextVar("confroute_traces", default=())
# Where the decisions of a call go that one of a router's models makes: it is a router itself, or holds one.
# With the number of `record()` that stand around that call, as those inside it collect too, and whether that call is private.
_inner: ContextVar[tuple[list[Decision], int, bool] | None] = ContextVar("confroute_inner", default=None)


@contextmanager
def record() -> Iterator[Trace]:
    """Collect the decisions of every call routed in this context, in the order in which the calls began.

    The calls of a batch began in the order of its inputs. `Decision.run_id` ties each to its answer. Where a router's model is a router
    itself, its decisions stand in the steps of the outer one.

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
    return _decisions.add(sink)


def subscribe_losses(sink: Callable[[AuditedLoss], object]) -> Callable[[], None]:
    """Hand every audited loss of this process to `sink`, in the thread of the audit; returns what ends the subscription.

    Examples
    --------
    >>> seen = []
    >>> stop = subscribe_losses(seen.append)
    >>> publish_loss(AuditedLoss(name="edge", loss=0.0))
    >>> stop()
    >>> seen
    [AuditedLoss(name='edge', loss=0.0, tier=None, usage=None)]
    """
    return _losses.add(sink)


def publish_loss(loss: AuditedLoss) -> None:
    """Hand an audited loss to every subscriber."""
    _losses.hand(loss)


class nested_in:  # noqa: N801  used as a function; a generator's context takes three times as long
    """Collect the decisions of calls that are part of another call; whether that call is private holds for them too."""

    __slots__ = ("_decisions", "_private", "_token")

    def __init__(self, decisions: list[Decision], *, private: bool = False) -> None:
        self._decisions, self._private = decisions, private

    def __enter__(self) -> None:
        self._token = _inner.set((self._decisions, len(_traces.get()), self._private))

    def __exit__(self, *_: object) -> None:
        _inner.reset(self._token)


def is_nested() -> bool:
    """Whether this is part of a call that another router routes."""
    return _inner.get() is not None


def is_nested_in_private() -> bool:
    """Whether this is part of a private call of another router, whose text may go no further than the first tier of this one."""
    inner = _inner.get()
    return inner is not None and inner[2]


def publish(decision: Decision, call: CallId | None = None) -> None:
    """Hand `decision` to every enclosing `record()` and every subscriber, or to the call that it is part of."""
    inner, around, _ = _inner.get() or (None, 0, False)
    place = next(_count) if call is None else call.place
    for trace in _traces.get()[around:]:
        trace.put(decision, place)
    if inner is not None:
        inner.append(decision)
        return
    _decisions.hand(decision)
