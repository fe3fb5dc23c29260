"""Calls that answer from retrieved text: what a cascade does otherwise for them."""

from __future__ import annotations

from confroute.policy.gate import Gate
from confroute.policy.rules import Ruling
from confroute.policy.threshold import DEFAULT_SOURCE, Threshold
from confroute.policy.verdict import Verdict
from confroute.signals.answers import normalised
from confroute.signals.lacking import ContextLacks
from confroute.types import Generation, Request


def default_lacking() -> Gate:
    """Believe a draft that says the context lacks the answer if at most half of the question's words stand there.

    0.5 was not fitted to your models and texts.
    """
    return Gate(signal=ContextLacks(), threshold=Threshold(value=0.5, source=DEFAULT_SOURCE))


def gates_for(request: Request, gates: tuple[Gate, ...], lacking: Gate | None) -> tuple[Gate, ...]:
    """The gates of one call, that for lacking context first where something was retrieved."""
    if lacking is None or request.context is None or not request.context.passages:
        return gates
    known = {gate.signal.name for gate in gates}
    return gates if lacking.signal.name in known else (lacking, *gates)


def repeated(request: Request, tier: str, draft: Generation) -> Verdict | None:
    """Keep a draft that repeats the answer it was to refine, which this tier gave and which was kept then.

    It is not measured: a copied text is certain whatever it says.
    """
    before = request.context.existing_answer if request.context is not None else None
    if before is None or request.begun_on != tier or normalised(before) != normalised(draft.text):
        return None
    reason = f"{tier} repeats its answer that was kept before: answer kept"
    return Verdict(keep=True, stage="draft", reason=reason)


def stay(request: Request, tiers: tuple[str, ...]) -> Ruling | None:
    """Hold a call that goes on from a later tier's answer on that tier.

    A weaker model would rewrite it; and what it copies from it would look certain.
    """
    begun = request.begun_on
    if begun is None or begun not in tiers[1:]:
        return None
    return Ruling(rule="sticky", tier=begun, reason=f"goes on from an answer of {begun}: stays on {begun}")
