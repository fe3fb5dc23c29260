"""A recorded row in the place of both models: what a policy asks for is answered from it, and billed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from confroute.asks import Ask, AskGenerator, Draft, Evidence, Final, Report, Sample, Tentative
from confroute.decision import Decision, Measurement
from confroute.errors import SignalUnavailableError, TierError
from confroute.fitting.rates import (
    Bill,
    Rates,
    bill_of_cloud,
    bill_of_draft,
    bill_of_samples,
)
from confroute.recording import SIGNALS, Row, with_signals
from confroute.recording.extraction import with_kind
from confroute.recording.rows import content_of
from confroute.recording.signals import OPTION
from confroute.signals import (
    Combined,
    Recorded,
    SelfConsistency,
    SemanticEntropy,
    Signal,
)
from confroute.signals.answers import Kind
from confroute.signals.base import Case, Range
from confroute.streaming import replay
from confroute.types import JSON, Generation, Message, Request, Role, Tier

# Stands for an answer that was graded, but whose text was not recorded.
UNRECORDED = "(not recorded)"
_LEAST_SAMPLES = 2
_ROLES: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}


@dataclass(slots=True, kw_only=True)
class RecordedCalls:
    """Answers the asks of one call from its row, and adds up what they took.

    Attributes
    ----------
    row : Row
    rates : Rates
    edge : str
        The tier that the row's edge is; every other one is its cloud.
    bill : Bill
    failure : Decision or None
        The record of a call that ended in an error.
    """

    row: Row
    rates: Rates
    edge: str = "edge"
    bill: Bill = field(default_factory=Bill)
    failure: Decision | None = None

    def __call__(self, ask: Ask) -> Evidence:
        """Answer one ask.

        Raises
        ------
        SignalUnavailableError
            Samples or work that the row does not hold.
        TierError
            The recorded call failed.
        """
        if isinstance(ask, Sample):
            return self._samples(ask)
        if isinstance(ask, Report):
            self.failure = ask.decision
            return Evidence()
        if isinstance(ask, (Draft, Final, Tentative)):
            found = self._edge() if ask.tier == self.edge else self._cloud()
            watch = ask.watch if isinstance(ask, Tentative) else None
            return found if watch is None else replace(found, watch=replay(watch, found.generations[0]))
        msg = f"a recorded row does not answer {type(ask).__name__}"
        raise SignalUnavailableError(msg)

    def _edge(self) -> Evidence:
        side = self.row.edge
        self.bill += bill_of_draft(side, self.rates)
        if side.error is not None:
            raise TierError(side.error)
        # Only the answer stands in for a text that was not recorded: signals that read texts must not find one.
        draft = side.generation() or Generation(text="", model=side.model, answer=UNRECORDED)
        return Evidence(generations=(draft,), latency_s=side.latency_s or 0.0)

    def _cloud(self) -> Evidence:
        side = self.row.cloud
        self.bill += bill_of_cloud(side, self.rates)
        if side is not None and side.error is not None:
            raise TierError(side.error)
        answer = (side and side.generation()) or Generation(text=UNRECORDED)
        return Evidence(generations=(answer,), latency_s=(side.latency_s or 0.0) if side else 0.0)

    def _samples(self, ask: Sample) -> Evidence:
        drawn = self.row.edge.further()[ask.drawn : ask.drawn + ask.n]
        bill = bill_of_samples(self.row.edge, drawn, self.rates)
        self.bill += bill
        known = bill.latency_s if bill.latency_s == bill.latency_s else 0.0
        return Evidence(generations=drawn, latency_s=known)


def request_of(row: Row) -> Request:
    """The request that a row recorded."""
    edge = Tier(name="edge", model=row.edge.model or "edge", can_sample=bool(row.edge.samples))
    return Request(messages=_messages(row), tiers={"edge": edge}, tags=_tags(row.extra))


def _messages(row: Row) -> tuple[Message, ...]:
    if row.prompt is None and row.messages:
        return tuple(
            Message(role=_ROLES.get(str(m.get("role")), "user"), text=content_of(m) or "")
            for m in row.messages
        )
    return (Message(role="user", text=row.prompt or UNRECORDED),)


def _tags(extra: Mapping[str, JSON]) -> frozenset[str]:
    tags = extra.get("tags")
    return frozenset(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """A signal that takes a row's recorded value where there is one, and measures it otherwise.

    Samples that the row holds are drawn one by one even then: how many it takes is what a policy costs.
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
        """The signal's."""
        return self.signal.range

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Return the recorded value, or measure.

        Raises
        ------
        SignalUnavailableError
            Neither is possible.
        """
        if self.value is not None and not (self.text and getattr(self.signal, "n", math.inf) <= self.samples):
            return Measurement(signal=self.name, uncertainty=self.value, details={"recorded": True})
        if not self.text:
            raise SignalUnavailableError("neither the value nor the text of the draft was recorded")
        return (yield from self.signal.measure(case))


def replayed(signal: Signal, row: Row, *, column: str | None = None) -> Signal:
    """The signal as it is measured on a recorded row.

    Parameters
    ----------
    signal : Signal
    row : Row
    column : str, optional
        The column of `row.signals` that holds it; by default what `column_of` says.
    """
    if isinstance(signal, Combined):
        members = (replace(m, signal=replayed(m.signal, row, column=m.name)) for m in signal.members)
        return replace(signal, members=tuple(members))
    name = column or column_of(signal)
    value = row.signals.get(name)
    if value is None and name == OPTION:
        value = with_signals(row, signals={OPTION: SIGNALS[OPTION]}).signals[OPTION]
    return Replayed(signal=signal, value=value, text=row.edge.text is not None, samples=len(row.edge.samples))


def column_of(signal: Signal) -> str:
    """The column that a signal has in recorded runs: that of the first known one that measures the same, else its name.

    Examples
    --------
    >>> from confroute import TokenLogprob
    >>> column_of(TokenLogprob(statistic="max"))
    'token_logprob.max'
    """
    n = getattr(signal, "n", _LEAST_SAMPLES)
    same = with_kind(_stepwise(signal), "auto")
    return next((name for name in SIGNALS if signal_of(name, n) == same), signal.name)


def signal_of(column: str, samples: int, kind: Kind = "auto") -> Signal:
    """The signal that measures a column on new calls, one sample at a time; `Recorded` where none is known.

    Answers are compared by `kind`, as they were when the column was recorded.
    """
    if column not in SIGNALS:
        return Recorded(column=column)
    return with_kind(_stepwise(SIGNALS[column](max(_LEAST_SAMPLES, samples))), kind)


def _stepwise(signal: Signal) -> Signal:
    """How many samples are drawn at a time changes what a signal costs, not what it measures."""
    if isinstance(signal, (SelfConsistency, SemanticEntropy)):
        return replace(signal, step=1)
    return signal
