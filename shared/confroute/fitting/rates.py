"""What calls cost: prices, power, and the bill of a single call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from confroute.errors import PolicyError
from confroute.prices import Price
from confroute.recording import RecordedSample, Side
from confroute.recording.rows import billed
from confroute.types import Generation, Usage

NAN = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Prices and power that turn recorded tokens and seconds into money and energy, if the run did not record these.

    Attributes
    ----------
    edge, cloud : Price or None
        If None, the cost of a call is known only if its `cost_usd` was recorded.
    edge_watts, cloud_watts : float or None
        Power while a tier works on a call; energy is power times recorded latency. None if unknown.

    Raises
    ------
    PolicyError
        A negative power.
    """

    edge: Price | None = None
    cloud: Price | None = None
    edge_watts: float | None = None
    cloud_watts: float | None = None

    def __post_init__(self) -> None:
        for watts in (self.edge_watts, self.cloud_watts):
            if watts is not None and not watts >= 0:
                msg = f"power is {watts}: expected watts, 0 or more"
                raise PolicyError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """What one or more calls took, one after the other; NaN marks what is unknown.

    Attributes
    ----------
    usd, latency_s : float
    sent_tokens : float
        Prompt tokens sent to the cloud.
    energy_j : float
    """

    usd: float = 0.0
    latency_s: float = 0.0
    sent_tokens: float = 0.0
    energy_j: float = 0.0

    def __add__(self, other: Bill) -> Bill:
        return Bill(**{name: getattr(self, name) + getattr(other, name) for name in Bill.__slots__})


def bill_of_draft(side: Side, rates: Rates) -> Bill:
    """Bill the edge's answer to a prompt."""
    seconds = NAN if side.latency_s is None else side.latency_s
    return Bill(usd=_usd(side, rates.edge), latency_s=seconds, energy_j=_energy(seconds, rates.edge_watts))


def bill_of_cloud(side: Side | None, rates: Rates) -> Bill:
    """Bill the cloud's answer to a prompt."""
    if side is None:
        return Bill(**dict.fromkeys(Bill.__slots__, NAN))
    seconds = NAN if side.latency_s is None else side.latency_s
    usage = tokens(side)
    return Bill(
        usd=_usd(side, rates.cloud),
        latency_s=seconds,
        sent_tokens=NAN if usage is None else float(usage.input_tokens),
        energy_j=_energy(seconds, rates.cloud_watts),
    )


def bill_of_samples(side: Side, drawn: Sequence[Generation | RecordedSample], rates: Rates) -> Bill:
    """Bill further answers of the edge that were drawn in one step.

    Runs record neither cost nor time of samples. Each sample costs as much as the draft times the ratio of their lengths (1
    if lengths are unknown). Samples of one step are drawn together, so that they take as long as the longest of them.
    """
    if not drawn:
        return Bill()
    draft = bill_of_draft(side, rates)
    made = _length(side)
    ratios = [len(one.logprobs) / made if one.logprobs and made else 1.0 for one in drawn]
    seconds = draft.latency_s * max(ratios)
    return Bill(usd=draft.usd * sum(ratios), latency_s=seconds, energy_j=_energy(seconds, rates.edge_watts))


def tokens(side: Side) -> Usage | None:
    """Tokens billed for a recorded answer; None if they were not counted."""
    return billed(side.usage)


def _usd(side: Side, price: Price | None) -> float:
    if side.cost_usd is not None:
        return side.cost_usd
    if price is not None and price.input_usd == price.output_usd == 0:
        return 0.0
    usage = tokens(side)
    return NAN if usage is None or price is None else price.of(usage)


def _energy(seconds: float, watts: float | None) -> float:
    return NAN if watts is None else watts * seconds


def _length(side: Side) -> int:
    """Tokens of an answer; 0 if they are not known."""
    usage = tokens(side)
    return len(side.logprobs) if side.logprobs else usage.output_tokens if usage else 0
