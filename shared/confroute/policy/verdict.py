"""From one gate's measurement to keep or not: the comparisons that a cascade makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from confroute.decision import Measurement, Stage
from confroute.errors import NoSignalError
from confroute.policy.gate import Gate
from confroute.signals.base import Settled
from confroute.types import Tier

_ANOTHER = "take a signal that this model allows: `confroute doctor` tells which"


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
    if tier.closed is not None:
        return f"{tier.name} is passed over ({tier.closed})"
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
    said = ""
    if measured.lacking:
        stage, said = "lacking", "the draft says that the context lacks the answer; "
    keep = measured.uncertainty <= gate.threshold.value
    sign, then = ("<=", "kept") if keep else (">", "not kept")
    unit = gate.signal.range.unit
    reason = (
        f"{said}{measured.signal.replace('_', ' ')} {measured.uncertainty:.3g} {unit} {sign} {gate.threshold.value:.3g} "
        f"({gate.threshold.source}): answer {then}"
    )
    return Verdict(keep=keep, stage=stage, reason=reason, gate=gate, measurement=measured)


def unmeasured(
    tier: Tier, skipped: Mapping[str, str], on_no_signal: Literal["cloud", "edge", "raise"]
) -> Verdict:
    """What the policy says when nothing could be measured; `skipped` says why, by signal.

    Raises
    ------
    NoSignalError
        The policy says so.
    """
    why = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
    if on_no_signal == "raise":
        msg = f"no uncertainty could be measured for {tier.model} ({why}); set on_no_signal to 'cloud' or 'edge', or {_ANOTHER}"
        raise NoSignalError(msg)
    keep = on_no_signal == "edge"
    kept = f"{tier.name} answer kept" if keep else f"{tier.name} answer not kept"
    return Verdict(
        keep=keep,
        stage="no_signal",
        reason=f"no evidence ({why}): {kept} by on_no_signal={on_no_signal!r}; {_ANOTHER}",
    )
