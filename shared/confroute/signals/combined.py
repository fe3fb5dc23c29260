"""Combine several signals into one calibrated number: P(edge wrong) or the cloud's expected gain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.base import Case, Range, Signal, max_top_logprobs
from confroute.stats.isotonic import MonotoneInterpolator
from confroute.types import JSON

Decides: TypeAlias = Literal["gain", "wrong"]
# Weight of the logistic in the calibrated value: isotonic regression is flat in places, and ranks must stay strict.
_SLOPE = 0.01
Span: TypeAlias = "tuple[float, float] | None"


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One of the combined signals.

    Attributes
    ----------
    name : str
        The signal's column in recorded runs, and its key in the details.
    signal : Signal
    rank : MonotoneInterpolator
        Maps its uncertainty to the share of recorded calls below it, in [0, 1], which removes units and outliers.
    """

    name: str
    signal: Signal
    rank: MonotoneInterpolator


@register(kind="part", aliases=("Head",))
@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticCalibrator:
    """A logistic function of the members' ranks, calibrated by isotonic regression.

    Attributes
    ----------
    intercept : float
    weights : tuple of float
        One per member, for rank - 1/2.
    absent : tuple of float
        One per member, added instead where the member could not be measured.
    calibrated : MonotoneInterpolator
        Maps the logistic's logit to the calibrated value.
    low, high : float
        Limits of the value: 0 and 1 for a probability, -1 and 1 for a gain.
    """

    intercept: float
    weights: tuple[float, ...]
    absent: tuple[float, ...]
    calibrated: MonotoneInterpolator
    low: float = 0.0
    high: float = 1.0

    def logit(self, ranks: Sequence[float | None]) -> float:
        """The logit for one rank per member; None where the member was not measured."""
        parts = zip(ranks, self.weights, self.absent, strict=True)
        return self.intercept + math.fsum(
            absent if rank is None else weight * (rank - 0.5) for rank, weight, absent in parts
        )

    def value(self, logit: float) -> float:
        """The calibrated value; strictly increasing in the logit."""
        return (1 - _SLOPE) * self.calibrated(logit) + _SLOPE * self.logistic(logit)

    def logistic(self, logit: float) -> float:
        """The value before calibration."""
        share = 1 / (1 + math.exp(-max(-700.0, min(700.0, logit))))
        return self.low + (self.high - self.low) * share

    def bounds(self, spans: Sequence[Span | Literal["unknown"]]) -> tuple[float, float]:
        """Bound the value over all ranks that are still possible.

        Parameters
        ----------
        spans : sequence
            One per member: the lowest and highest rank that it can still have, None if it could not be measured, or
            "unknown" if it has not been tried and may turn out not to be measurable.
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
    """A fitted combination of signals; made by `confroute.fitting.fit_combined`.

    Parameters
    ----------
    members : tuple of Member
        Cheapest first. Members that cannot be measured are left out, as in the recorded rows.
    wrong : LogisticCalibrator
        P(edge wrong).
    gain : LogisticCalibrator or None
        Expected quality of the cloud's answer minus that of the edge's; None where no cloud was recorded.
    decides : {"gain", "wrong"}
        Which of the two is the uncertainty. With "gain" a threshold is a price: a call goes to the cloud if the expected
        gain is higher.

    Raises
    ------
    PolicyError
        No member, calibrators for another number of members, or "gain" without its calibrator.

    Notes
    -----
    Members are measured one after the other, until no further one can change the decision: with the known ranks fixed
    and every other rank anywhere in [0, 1], the value lies in an interval; measuring stops once that whole interval leads
    to the same step. The same holds within a member that draws samples one by one.
    """

    members: tuple[Member, ...]
    wrong: LogisticCalibrator
    gain: LogisticCalibrator | None = None
    decides: Decides = "gain"

    def __post_init__(self) -> None:
        calibrators = [one for one in (self.wrong, self.gain) if one is not None]
        sizes = {len(one.weights) for one in calibrators} | {len(one.absent) for one in calibrators}
        if not self.members or sizes != {len(self.members)}:
            msg = f"{len(self.members)} members and calibrators of {sorted(sizes)} weights: expected at least one member and one weight per member"
            raise PolicyError(msg)
        if self.decides not in {"gain", "wrong"} or (self.decides == "gain" and self.gain is None):
            msg = f"decides is {self.decides!r}: expected 'wrong', or 'gain' together with gain="
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
        """The most alternatives per token that any member reads; the draft is asked for as many."""
        return max_top_logprobs(member.signal for member in self.members)

    @property
    def calibrator(self) -> LogisticCalibrator:
        """The one whose value is the uncertainty."""
        return self.gain if self.decides == "gain" and self.gain is not None else self.wrong

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Measure members in order until no further one can change the decision.

        Raises
        ------
        SignalUnavailableError
            No member could be measured.
        """
        spans: list[Span | Literal["unknown"]] = ["unknown"] * len(self.members)
        details: dict[str, JSON] = {}
        for at, member in enumerate(self.members):
            if details and any(spans[:at]) and case.settled(*self.calibrator.bounds(spans)):
                break
            result = yield from self._measure_member(at, case, spans)
            spans[at] = None if isinstance(result, str) else (result.rank, result.rank)
            details[member.name] = result if isinstance(result, str) else result.details
        if not any(span not in {None, "unknown"} for span in spans):
            raise SignalUnavailableError("; ".join(f"{name}: {why}" for name, why in details.items()))
        return self._measurement(spans, details)

    def _measure_member(
        self, at: int, case: Case, spans: Sequence[Span | Literal["unknown"]]
    ) -> AskGenerator[_Ranked | str]:
        """Measure one member; a string says why it could not be measured."""
        member = self.members[at]

        def settled(low: float, high: float) -> bool:
            known = list(spans)
            known[at] = (member.rank(low), member.rank(high))
            return case.settled(*self.calibrator.bounds(known))

        try:
            measurement = yield from member.signal.measure(replace(case, settled=settled))
        except SignalUnavailableError as error:
            return str(error)
        details: dict[str, JSON] = {"uncertainty": round(measurement.uncertainty, 6)}
        details |= {key: measurement.details[key] for key in ("drawn", "of") if key in measurement.details}
        return _Ranked(rank=member.rank(measurement.uncertainty), details=details)

    def _measurement(
        self, spans: Sequence[Span | Literal["unknown"]], details: dict[str, JSON]
    ) -> Measurement:
        low, high = self.calibrator.bounds(spans)
        # Members that were not needed count with a middle rank, within the bounds that settled the decision.
        ranks = [0.5 if span == "unknown" else None if span is None else span[0] for span in spans]
        value = min(max(self.calibrator.value(self.calibrator.logit(ranks)), low), high)
        summary: dict[str, JSON] = {
            "p_wrong": round(self.wrong.value(self.wrong.logit(ranks)), 6),
            "expected_gain": None if self.gain is None else round(self.gain.value(self.gain.logit(ranks)), 6),
            "members": details,
            "not_needed": [m.name for m, span in zip(self.members, spans, strict=True) if span == "unknown"],
        }
        return Measurement(signal=self.name, uncertainty=value, details=summary)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ranked:
    rank: float
    details: dict[str, JSON]
