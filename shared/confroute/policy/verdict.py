"""From one gate's measurement to keep or not: the comparisons that a cascade makes."""

from __future__ import annotations

from dataclasses import dataclass

from confroute.decision import Measurement, Stage
from confroute.policy.gate import Gate
from confroute.signals.base import Settled
from confroute.types import Tier


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a draft is kept, and why."""

    keep: bool
    stage: Stage
    reason: str
    gate: Gate | None = None
    measurement: Measurement | None = None


def blocked_by(tier: Tier) -> str | None:
    """Why a tier cannot take this request, or None."""
    if tier.lacks is not None:
        return f"{tier.name} cannot do {tier.lacks}"
    if not tier.fits:
        return f"the prompt ({tier.input_tokens} tokens) is longer than the context of {tier.name} ({tier.context_window})"
    return None


def is_grey(gate: Gate, uncertainty: float) -> bool:
    """Whether a further gate is asked at this uncertainty."""
    return gate.grey is not None and gate.grey[0] < uncertainty <= gate.grey[1]


def settled(gate: Gate, *, more: bool) -> Settled:
    """Whether every uncertainty between two bounds leads to the same next step."""

    def same(low: float, high: float) -> bool:
        edges = [gate.threshold.value]
        if more and gate.grey is not None:
            edges = [*gate.grey]
        return not any(low <= edge < high for edge in edges)

    return same


def verdict_of(gate: Gate, measured: Measurement, *, stage: Stage) -> Verdict:
    """What one gate says of its measurement, in words too."""
    keep = measured.uncertainty <= gate.threshold.value
    sign, then = ("<=", "kept") if keep else (">", "not kept")
    unit = gate.signal.range.unit
    reason = (
        f"{measured.signal.replace('_', ' ')} {measured.uncertainty:.3g} {unit} {sign} {gate.threshold.value:.3g} "
        f"({gate.threshold.source}): answer {then}"
    )
    return Verdict(keep=keep, stage=stage, reason=reason, gate=gate, measurement=measured)
