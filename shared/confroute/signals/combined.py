"""Several signals made into one calibrated number: P(edge wrong) or the cloud's expected gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.base import Asking, Case, Range, Signal, alternatives_wanted
from confroute.stats.isotonic import Curve
from confroute.types import JSON

Decides: TypeAlias = Literal["gain", "wrong"]
# The logistic's own share in the result: isotonic regression is flat in places, and ties must keep their order.
_SLOPE = 0.01
Span: TypeAlias = "tuple[float, float] | None"


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of the combined signals.

    Attributes
    ----------
    name : str
        Its column in recorded runs, and its key in the details.
    signal : Signal
    rank : Curve
        From its uncertainty to the share of recorded calls below it, in [0, 1]: whatever its unit and its outliers are.
    """

    name: str
    signal: Signal
    rank: Curve


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A logistic function of the members' ranks, calibrated by isotonic regression.

    Attributes
    ----------
    intercept : float
    weights : tuple of float
        One a member, for rank - 1/2.
    absent : tuple of float
        One a member, added instead where it could not be measured.
    calibrated : Curve
        From the logistic's logit to the calibrated value.
    low, high : float
        Ends of the values: 0 and 1 for a probability, -1 and 1 for a gain.
    """

    intercept: float
    weights: tuple[float, ...]
    absent: tuple[float, ...]
    calibrated: Curve
    low: float = 0.0
    high: float = 1.0

    def logit(self, ranks: Sequence[float | None]) -> float:
        """Of one rank a member; None where it was not measured."""
        parts = zip(ranks, self.weights, self.absent, strict=True)
        return self.intercept + math.fsum(
            absent if rank is None else weight * (rank - 0.5) for rank, weight, absent in parts
        )

    def value(self, logit: float) -> float:
        """The calibrated value; rises strictly with the logit."""
        return (1 - _SLOPE) * self.calibrated(logit) + _SLOPE * self.logistic(logit)

    def logistic(self, logit: float) -> float:
        """The value before calibration."""
        own = 1 / (1 + math.exp(-max(-700.0, min(700.0, logit))))
        return self.low + (self.high - self.low) * own

    def bounds(self, spans: Sequence[Span | Literal["unknown"]]) -> tuple[float, float]:
        """Least and greatest value over what is not known yet.

        Parameters
        ----------
        spans : sequence
            One a member: the lowest and highest rank it can still have, None if it could not be measured, "unknown" if
            it has not been tried: then it may also turn out not to be measurable.
        """
        low = high = self.intercept
        for span, weight, absent in zip(spans, self.weights, self.absent, strict=True):
            if span is None:
                ends = [absent]
            else:
                ranks = (0.0, 1.0) if span == "unknown" else span
                ends = [weight * (rank - 0.5) for rank in ranks] + ([absent] if span == "unknown" else [])
            low, high = low + min(ends), high + max(ends)
        return self.value(low), self.value(high)


@register(
    kind="signal",
    needs="what its members need",
    why_not="is fitted to recorded columns: `confroute fit --signal combined`",
)
@dataclass(frozen=True, slots=True, kw_only=True)
class Combined:
    """A fitted combination of signals; see `confroute.fitting.fit_combined`.

    Parameters
    ----------
    members : tuple of Member
        In the order of their cost. Those that cannot be measured are left out, as they were in the recorded rows.
    wrong : Head
        P(edge wrong).
    gain : Head or None
        Expected quality of the cloud's answer minus the edge's; None where no cloud was recorded.
    decides : {"gain", "wrong"}
        Which of them is the uncertainty. With "gain" a threshold is a price: an answer goes to the cloud if that is expected to
        be worth more.

    Raises
    ------
    PolicyError
        No member, heads for another number of members, or "gain" without its head.

    Notes
    -----
    Members are measured one after the other, and no further one is as soon as none can change the decision: with the ranks
    that are known and every rank that is not anywhere in [0, 1], the value lies in an interval, and the gate is asked
    whether all of it leads to the same step. The same holds inside a member that draws samples one by one.
    """

    members: tuple[Member, ...]
    wrong: Head
    gain: Head | None = None
    decides: Decides = "gain"

    def __post_init__(self) -> None:
        heads = [head for head in (self.wrong, self.gain) if head is not None]
        sizes = {len(head.weights) for head in heads} | {len(head.absent) for head in heads}
        if not self.members or sizes != {len(self.members)}:
            msg = f"{len(self.members)} members and heads of {sorted(sizes)} weights: expected one weight a member"
            raise PolicyError(msg)
        if self.decides not in {"gain", "wrong"} or (self.decides == "gain" and self.gain is None):
            msg = f"decides is {self.decides!r}: expected 'wrong', or 'gain' with a gain head"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "combined"

    @property
    def range(self) -> Range:
        """A probability, or a difference of qualities."""
        if self.decides == "wrong":
            return Range(high=1.0, unit="P(wrong)")
        return Range(low=-1.0, high=1.0, unit="expected gain")

    @property
    def top_logprobs(self) -> int:
        """Alternatives a token that the draft is asked for: the most that any member reads."""
        return alternatives_wanted(member.signal for member in self.members)

    @property
    def head(self) -> Head:
        """The head that decides."""
        return self.gain if self.decides == "gain" and self.gain is not None else self.wrong

    def measure(self, case: Case) -> Asking[Measurement]:
        """Measure members until no further one can change the decision.

        Raises
        ------
        SignalUnavailableError
            No member could be measured.
        """
        spans: list[Span | Literal["unknown"]] = ["unknown"] * len(self.members)
        details: dict[str, JSON] = {}
        for at, member in enumerate(self.members):
            if details and any(spans[:at]) and case.settled(*self.head.bounds(spans)):
                break
            found = yield from self._member(at, case, spans)
            spans[at] = None if isinstance(found, str) else (found.rank, found.rank)
            details[member.name] = found if isinstance(found, str) else found.shown
        if not any(span not in {None, "unknown"} for span in spans):
            raise SignalUnavailableError("; ".join(f"{name}: {why}" for name, why in details.items()))
        return self._measurement(spans, details)

    def _member(
        self, at: int, case: Case, spans: Sequence[Span | Literal["unknown"]]
    ) -> Asking[_Found | str]:
        member = self.members[at]

        def settled(low: float, high: float) -> bool:
            known = list(spans)
            known[at] = (member.rank(low), member.rank(high))
            return case.settled(*self.head.bounds(known))

        try:
            measured = yield from member.signal.measure(replace(case, settled=settled))
        except SignalUnavailableError as error:
            return str(error)
        shown: dict[str, JSON] = {"uncertainty": round(measured.uncertainty, 6)}
        shown |= {key: measured.details[key] for key in ("drawn", "of") if key in measured.details}
        return _Found(rank=member.rank(measured.uncertainty), shown=shown)

    def _measurement(
        self, spans: Sequence[Span | Literal["unknown"]], details: dict[str, JSON]
    ) -> Measurement:
        low, high = self.head.bounds(spans)
        # What was not measured because it did not matter counts as middling, within the bounds of the decision.
        ranks = [0.5 if span == "unknown" else None if span is None else span[0] for span in spans]
        value = min(max(self.head.value(self.head.logit(ranks)), low), high)
        told: dict[str, JSON] = {
            "p_wrong": round(self.wrong.value(self.wrong.logit(ranks)), 6),
            "expected_gain": None if self.gain is None else round(self.gain.value(self.gain.logit(ranks)), 6),
            "members": details,
            "not_needed": [m.name for m, span in zip(self.members, spans, strict=True) if span == "unknown"],
        }
        return Measurement(signal=self.name, uncertainty=value, details=told)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    rank: float
    shown: dict[str, JSON]
