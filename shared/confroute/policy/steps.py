"""What was done for a call, as its decision keeps it."""

from __future__ import annotations

from confroute.asks import Draft, Evidence, Final, Tentative
from confroute.decision import Step
from confroute.policy.prefix import Prefix
from confroute.types import Generation, Request, Usage


def drafting(tier: str, prefix: Prefix | None, request: Request) -> Draft | Tentative:
    """The ask for a draft: watched while it is written where the policy and the request allow it."""
    if prefix is None or request.whole or request.threshold is not None:
        return Draft(tier=tier)
    return Tentative(tier=tier, watch=prefix)


def kind_of(ask: Draft | Tentative | Final) -> str:
    """What an ask for one answer is called in a step."""
    return "final" if isinstance(ask, Final) else "draft"


def is_missing(answer: Generation, evidence: Evidence) -> bool:
    """Whether a draft has nothing in it; one that was cut off or shown already is past that question."""
    settled = evidence.seen is not None and evidence.seen.outcome != "wait"
    return not (settled or answer.text.strip() or answer.answer is not None or answer.flaw is not None)


def step_of(kind: str, evidence: Evidence, *, tier: str | None, model: str) -> Step:
    """One ask that was answered."""
    usages = [g.usage for g in evidence.generations if g.usage is not None]
    return Step(
        kind=kind,
        tier=tier,
        model=model,
        n=len(evidence.generations) or (0 if evidence.numbers is None else len(evidence.numbers)),
        usage=sum(usages, Usage()) if usages else None,
        latency_s=evidence.latency_s,
        attempts=evidence.attempts,
    )
