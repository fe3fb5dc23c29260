"""A recorded row in place of both models: it answers what a policy asks for, and bills it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from confroute.asks import (
    Ask,
    AskGenerator,
    Begin,
    Cancel,
    Consult,
    Draft,
    Embed,
    Evidence,
    Final,
    Report,
    Sample,
    Shadow,
    Tentative,
)
from confroute.decision import Decision, Measurement
from confroute.errors import SignalUnavailableError, TierError
from confroute.fitting.rates import (
    Bill,
    Rates,
    bill_of_cloud,
    bill_of_draft,
    bill_of_samples,
)
from confroute.recording import SIGNALS, Row, Side, with_signals
from confroute.recording.prompts import conversation
from confroute.recording.signals import OPTION, column_of
from confroute.signals import Combined, Signal
from confroute.signals.base import Case, Range
from confroute.streaming import replay
from confroute.types import JSON, Generation, Message, Request, Tier

# In place of an answer that was graded, but whose text was not recorded.
UNRECORDED = "(not recorded)"


@dataclass(slots=True, kw_only=True)
class RecordedCalls:
    """Answers the asks of one call from its row, and adds up what they take.

    Attributes
    ----------
    row : Row
    rates : Rates
    edge : str
        The tier that the row's edge stands for; every other tier is its cloud.
    bill : Bill
    failure : Decision or None
        The decision of a call that ended in an error.
    begun : mapping of Final to float
        Answers in progress beside other steps, each with the seconds of the call after which it was begun.
    """

    row: Row
    rates: Rates
    edge: str = "edge"
    bill: Bill = field(default_factory=Bill)
    failure: Decision | None = None
    begun: dict[Final, float] = field(default_factory=dict)

    def __call__(self, ask: Ask) -> Evidence:
        """Answer one ask.

        Raises
        ------
        SignalUnavailableError
            The row does not hold these samples or this work.
        TierError
            The recorded call failed.
        """
        if isinstance(ask, Sample):
            return self._samples(ask)
        if isinstance(ask, Final) and ask in self.begun:
            return self._awaited(ask)
        if isinstance(ask, (Draft, Final, Tentative)):
            found = self._edge() if ask.tier == self.edge else self._cloud()
            watch = ask.watch if isinstance(ask, Tentative) else None
            return found if watch is None else replace(found, watch=replay(watch, found.generations[0]))
        if isinstance(ask, Embed) and ask.embed is not None:
            return Evidence(numbers=ask.embed(ask.texts))
        return self._of_wrapper(ask)

    def _of_wrapper(self, ask: Ask) -> Evidence:
        """Answer what a wrapper around the policy asks for."""
        if isinstance(ask, Report):
            self.failure = ask.decision
            return Evidence()
        if isinstance(ask, Consult):
            return Evidence(value=ask.work())
        if isinstance(ask, Begin):
            self.begun[ask.ask] = self.bill.latency_s
            return Evidence()
        if isinstance(ask, Cancel):
            return self._cancelled(ask.ask)
        if isinstance(ask, Shadow):
            ask.then(self._unseen())
            return Evidence()
        msg = f"a recorded row does not answer {type(ask).__name__}"
        raise SignalUnavailableError(msg)

    def _awaited(self, ask: Final) -> Evidence:
        """Wait for an answer that was begun earlier, for as long as it still takes."""
        before = self.bill.latency_s
        beside = before - self.begun.pop(ask)
        try:
            return self._cloud()
        finally:
            left = self.bill.latency_s - before - beside
            # Not max(): what is unknown has to stay so.
            self.bill = replace(self.bill, latency_s=before if left < 0 else before + left)

    def _cancelled(self, ask: Final) -> Evidence:
        """Give up an answer that was begun: it is paid for, and returned only if it was complete by now."""
        beside = self.bill.latency_s - self.begun.pop(ask)
        outcome = self._unseen()
        return outcome if isinstance(outcome, Evidence) and outcome.latency_s <= beside else Evidence()

    def _unseen(self) -> Evidence | Exception:
        """The cloud's answer or its error, paid for without waiting for it."""
        waited = self.bill.latency_s
        try:
            return self._cloud()
        except TierError as error:
            return error
        finally:
            self.bill = replace(self.bill, latency_s=waited)

    def _edge(self) -> Evidence:
        side = self.row.edge
        self.bill += bill_of_draft(side, self.rates)
        if side.error is not None:
            raise TierError(side.error)
        return Evidence(generations=(draft_of(side),), latency_s=side.latency_s or 0.0)

    def _cloud(self) -> Evidence:
        side = self.row.cloud
        self.bill += bill_of_cloud(side, self.rates)
        if side is not None and side.error is not None:
            raise TierError(side.error)
        answer = (side and side.generation()) or Generation(text=UNRECORDED)
        return Evidence(generations=(answer,), latency_s=(side.latency_s or 0.0) if side else 0.0)

    def _samples(self, ask: Sample) -> Evidence:
        drawn = self.row.edge.further(ask.drawn, ask.n)
        bill = bill_of_samples(self.row.edge, drawn, self.rates)
        self.bill += bill
        known = bill.latency_s if bill.latency_s == bill.latency_s else 0.0
        return Evidence(generations=drawn, latency_s=known)


def draft_of(edge: Side) -> Generation:
    """The draft as a policy judges it; if no text was recorded, without one, so that signals that read texts find none."""
    unrecorded = Generation(text="", model=edge.model, answer=UNRECORDED, finish=edge.finish)
    return edge.generation() or unrecorded


def request_of(row: Row) -> Request:
    """The request that led to a recorded row."""
    edge = Tier(name="edge", model=row.edge.model or "edge", can_sample=bool(row.edge.samples))
    return Request(
        messages=conversation(row) or (Message(role="user", text=UNRECORDED),),
        tiers={"edge": edge},
        tags=_tags(row.extra),
        question=row.question if isinstance(row.extra.get("context"), dict) else None,
        context=row.context,
    )


def _tags(extra: Mapping[str, JSON]) -> frozenset[str]:
    tags = extra.get("tags")
    return frozenset(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A signal that returns a row's recorded value if there is one, and else measures it on the row.

    If the row holds enough samples, they are drawn one by one even so: their number is what the policy costs.
    """

    signal: Signal
    value: float | None
    text: bool
    samples: int

    @property
    def name(self) -> str:
        """Key in the decision."""
        return self.signal.name

    @property
    def range(self) -> Range:
        """That of the signal."""
        return self.signal.range

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Return the recorded value, or measure.

        Raises
        ------
        SignalUnavailableError
            There is no value, and it cannot be measured.
        """
        if self.value is not None and not (self.text and getattr(self.signal, "n", math.inf) <= self.samples):
            return Measurement(signal=self.name, uncertainty=self.value, details={"recorded": True})
        if not self.text:
            raise SignalUnavailableError("neither the value nor the text of the draft was recorded")
        try:
            return (yield from self.signal.measure(case))
        except SignalUnavailableError:
            # The samples were drawn, since they cost; what else the signal asks for is in its recorded value.
            if self.value is None:
                raise
            return Measurement(signal=self.name, uncertainty=self.value, details={"recorded": True})


def replayed(signal: Signal, row: Row, *, column: str | None = None) -> Signal:
    """Make the signal that measures what `signal` does on a recorded row.

    Parameters
    ----------
    signal : Signal
    row : Row
    column : str, optional
        The column of `row.signals` that holds it; by default that of `confroute.recording.signals.column_of`.
    """
    if isinstance(signal, Combined):
        members = (replace(m, signal=replayed(m.signal, row, column=m.name)) for m in signal.members)
        return replace(signal, members=tuple(members))
    name = column or column_of(signal, row)
    value = row.signals.get(name)
    if value is None and name == OPTION:
        value = with_signals(row, signals={OPTION: SIGNALS[OPTION]}).signals[OPTION]
    return Replayed(signal=signal, value=value, text=row.edge.text is not None, samples=len(row.edge.samples))
