"""A recorded row in place of the models: it answers what a policy asks for, and bills it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

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
from confroute.errors import CalibrationError, SignalUnavailableError, TierError
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
from confroute.types import JSON, TIERS, Generation, Message, Request, Tier

# In place of an answer that was graded, but whose text was not recorded.
UNRECORDED = "(not recorded)"


@dataclass(slots=True, kw_only=True)
class RecordedCalls:
    """Answers the asks of one call from its row, and adds up what they take.

    Attributes
    ----------
    row : Row
    rates : Rates
    tiers : mapping of str to str
        By tier of the policy, the tier of the row that stands for it (`recorded_tiers`); every other is its cloud.
    bill : Bill
    failure : Decision or None
        The decision of a call that ended in an error.
    begun : mapping of Final to float
        Answers in progress beside other steps, each with the seconds of the call after which it was begun.
    """

    row: Row
    rates: Rates
    tiers: Mapping[str, str] = field(default_factory=lambda: {"edge": "edge"})
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
            found = self._answered(ask.tier)
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
            ask.then(self._unseen(ask.ask.tier))
            return Evidence()
        msg = f"a recorded row does not answer {type(ask).__name__}"
        raise SignalUnavailableError(msg)

    def _awaited(self, ask: Final) -> Evidence:
        """Wait for an answer that was begun earlier, for as long as it still takes."""
        before = self.bill.latency_s
        beside = before - self.begun.pop(ask)
        try:
            return self._answered(ask.tier)
        finally:
            left = self.bill.latency_s - before - beside
            # Not max(): what is unknown has to stay so.
            self.bill = replace(self.bill, latency_s=before if left < 0 else before + left)

    def _cancelled(self, ask: Final) -> Evidence:
        """Give up an answer that was begun: it is paid for, and returned only if it was complete by now."""
        beside = self.bill.latency_s - self.begun.pop(ask)
        outcome = self._unseen(ask.tier)
        return outcome if isinstance(outcome, Evidence) and outcome.latency_s <= beside else Evidence()

    def _unseen(self, tier: str) -> Evidence | Exception:
        """An answer or its error, paid for without waiting for it."""
        waited = self.bill.latency_s
        try:
            return self._answered(tier)
        except TierError as error:
            return error
        finally:
            self.bill = replace(self.bill, latency_s=waited)

    def _of_row(self, tier: str) -> str:
        return self.tiers.get(tier, "cloud")

    def _answered(self, tier: str) -> Evidence:
        name = self._of_row(tier)
        side = self.row.side(name)
        if name == "cloud" or side is None:
            return self._cloud()
        self.bill += bill_of_draft(side, self.rates.drafting(name))
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
        name = self._of_row(ask.tier)
        side = self.row.side(name) or Side()
        drawn = side.further(ask.drawn, ask.n)
        bill = bill_of_samples(side, drawn, self.rates.drafting(name))
        self.bill += bill
        known = bill.latency_s if bill.latency_s == bill.latency_s else 0.0
        return Evidence(generations=drawn, latency_s=known)


def draft_of(edge: Side) -> Generation:
    """The draft as a policy judges it; if no text was recorded, without one, so that signals that read texts find none."""
    unrecorded = Generation(text="", model=edge.model, answer=UNRECORDED, finish=edge.finish)
    return edge.generation() or unrecorded


def recorded_tiers(tiers: Sequence[str], row: Row) -> dict[str, str]:
    """By tier of a policy, the tier of a row that stands for it: that of its name, else the one in its place.

    Raises
    ------
    CalibrationError
        Neither the names nor the number of the tiers are those of the row.

    Examples
    --------
    >>> from confroute.recording import Middle
    >>> row = Row(id="a", edge=Side(), tiers={"mid": Middle(side=Side())}, cloud=Side())
    >>> recorded_tiers(("mid", "cloud"), row), recorded_tiers(("small", "large"), row)
    ({'mid': 'mid', 'cloud': 'cloud'}, {'small': 'edge', 'large': 'cloud'})
    """
    if set(tiers) <= set(row.models):
        return {tier: tier for tier in tiers}
    if len(tiers) == len(row.models):
        return dict(zip(tiers, row.models, strict=True))
    if len(tiers) == len(TIERS):
        return dict(zip(tiers, TIERS, strict=True))
    msg = (
        f"the policy has tiers {', '.join(tiers)} and row {row.id!r} those of {', '.join(row.models)}: expected some of the row's names, or the "
        "same number of tiers; `confroute record --tier` records more models"
    )
    raise CalibrationError(msg)


def request_of(row: Row, tiers: Mapping[str, str] = MappingProxyType({"edge": "edge"})) -> Request:
    """The request that led to a recorded row; `tiers` as `recorded_tiers` returns them."""
    sides = {tier: side for tier, name in tiers.items() if name != "cloud" and (side := row.side(name))}
    return Request(
        messages=conversation(row) or (Message(role="user", text=UNRECORDED),),
        tiers={
            tier: Tier(name=tier, model=side.model or tier, can_sample=bool(side.samples))
            for tier, side in sides.items()
        },
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


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedByTier:
    """A signal that measures each tier's draft by what the row holds of it."""

    by_tier: Mapping[str, Signal]

    @property
    def name(self) -> str:
        """Key in the decision."""
        return self._any.name

    @property
    def range(self) -> Range:
        """That of the signal."""
        return self._any.range

    @property
    def _any(self) -> Signal:
        return next(iter(self.by_tier.values()))

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Measure the draft of the case's tier."""
        return (yield from self.by_tier[case.tier.name].measure(case))


def replayed_by_tier(signal: Signal, row: Row, tiers: Mapping[str, str]) -> Signal:
    """Make the signal that measures what `signal` does on the drafts in a row.

    Parameters
    ----------
    signal : Signal
    row : Row
    tiers : mapping of str to str
        As `recorded_tiers` returns them; the last one's answer is not measured.
    """
    *drafting, _ = tiers.items()
    if len(drafting) == 1:
        return replayed(signal, row if row.models == TIERS else row.between(drafting[0][1], "cloud"))
    by_tier = {tier: replayed(signal, row.between(name, "cloud")) for tier, name in drafting}
    return ReplayedByTier(by_tier=by_tier)


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
