"""What was done for a call, as its decision keeps it."""

from __future__ import annotations

from collections.abc import Iterator

from confroute.asks import Ask, Draft, Embed, Entails, Evidence, Final, Gather, Tentative
from confroute.decision import Step
from confroute.errors import lost_s
from confroute.policy.prefix import Prefix
from confroute.types import Generation, Request, Usage


def drafting(tier: str, prefix: Prefix | None, request: Request, top_logprobs: int = 0) -> Draft | Tentative:
    """The ask for a draft: watched while it is written where the policy and the request allow it."""
    if prefix is None or request.whole or request.threshold is not None:
        return Draft(tier=tier, top_logprobs=top_logprobs)
    return Tentative(tier=tier, watch=prefix, top_logprobs=top_logprobs)


def kind_of(ask: Draft | Tentative | Final) -> str:
    """What an ask for one answer is called in a step."""
    return "final" if isinstance(ask, Final) else "draft"


def is_missing(answer: Generation, evidence: Evidence) -> bool:
    """Whether a draft has nothing in it; one that was cut off or shown already is past that question."""
    settled = evidence.seen is not None and evidence.seen.outcome != "wait"
    return not (settled or answer.text.strip() or answer.answer is not None or answer.flaw is not None)


def step_of(kind: str, evidence: Evidence, *, tier: str | None, model: str, group: int | None = None) -> Step:
    """The step of one ask that brought evidence."""
    usages = [g.usage for g in evidence.generations if g.usage is not None]
    return Step(
        kind=kind,
        tier=tier,
        model=model,
        n=_count(evidence),
        usage=None if not usages else usages[0] if len(usages) == 1 else sum(usages, Usage()),
        latency_s=evidence.latency_s,
        attempts=evidence.attempts,
        group=group,
    )


def failed_step(
    kind: str, error: Exception, *, tier: str | None, model: str | None = None, group: int | None = None
) -> Step:
    """The step of one ask that ended in `error`."""
    told = type(error).__name__
    return Step(kind=kind, tier=tier, model=model, n=0, latency_s=lost_s(error), error=told, group=group)


def _count(evidence: Evidence) -> int:
    if evidence.passes is not None:
        return len(evidence.passes.logprobs)
    return len(evidence.generations) or (0 if evidence.numbers is None else len(evidence.numbers))


def steps_of(ask: Ask, brought: Evidence | Exception | None, model: str, *, before: int) -> list[Step]:
    """The steps of one ask of a signal: one, or one for each part of a `Gather`.

    Parameters
    ----------
    ask : Ask
    brought : Evidence or Exception
    model : str
        The judged tier's, where the answers do not say.
    before : int
        Steps of the call so far: the number of this group, if it is one.
    """
    assert brought is not None, "an ask that was answered brought evidence or an error"
    return [*_steps(ask, brought, model, group=before if isinstance(ask, Gather) else None)]


def _steps(ask: Ask, brought: Evidence | Exception, model: str, group: int | None = None) -> Iterator[Step]:
    if isinstance(ask, Gather):
        parts = (brought,) * len(ask.asks) if isinstance(brought, Exception) else brought.parts
        for part, each in zip(ask.asks, parts, strict=True):
            yield from _steps(part, each, model, group=group)
        return
    kind, tier = type(ask).__name__.lower(), getattr(ask, "tier", None)
    if isinstance(brought, Exception):
        yield failed_step(kind, brought, tier=tier, group=group)
        return
    said = next((g.model for g in brought.generations if g.model), None)
    name = ask.model if isinstance(ask, (Embed, Entails)) else said or model
    yield step_of(kind, brought, tier=tier, model=name, group=group)
