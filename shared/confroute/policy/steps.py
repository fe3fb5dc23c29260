"""The asks of a call as steps of its decision."""

from __future__ import annotations

from collections.abc import Iterator

from confroute.asks import Ask, Embed, Entails, Evidence, Gather
from confroute.decision import Step
from confroute.error_notes import forget_bill, noted_attempts, noted_inner, noted_latency_s, noted_usage
from confroute.errors import CallEndedError
from confroute.types import Usage


def step_of(kind: str, evidence: Evidence, *, tier: str | None, model: str, group: int | None = None) -> Step:
    """The step of one ask that brought evidence."""
    if evidence.passes is not None:
        count = len(evidence.passes.logprobs)
    elif evidence.numbers is not None:
        count = len(evidence.numbers)
    else:
        count = len(evidence.generations)
    answers = evidence.generations
    usages = [answer.usage for answer in answers if answer.usage is not None]
    if evidence.lost is not None:
        usages.append(evidence.lost)
    return Step(
        kind=kind,
        tier=tier,
        model=model,
        n=count,
        usage=None if not usages else usages[0] if len(usages) == 1 else sum(usages, Usage()),
        latency_s=evidence.latency_s,
        attempts=evidence.attempts,
        group=group,
        cache_hits=sum([answer.from_cache for answer in answers]),
        unfinished=any(answer.unfinished for answer in answers),
        inner=evidence.inner,
    )


def failed_step(
    kind: str, error: BaseException, *, tier: str | None, model: str | None = None, group: int | None = None
) -> Step:
    """The step of one ask that ended in `error`."""
    step = Step(
        kind=kind,
        tier=tier,
        model=model,
        n=0,
        usage=noted_usage(error),
        inner=noted_inner(error),
        latency_s=noted_latency_s(error),
        attempts=noted_attempts(error),
        error=error.stage if isinstance(error, CallEndedError) else type(error).__name__,
        group=group,
    )
    forget_bill(error)
    return step


def steps_of(ask: Ask, result: Evidence | BaseException, model: str, *, before: int) -> list[Step]:
    """The steps of one ask of a signal: one, or one for each part of a `Gather`.

    Parameters
    ----------
    ask : Ask
    result : Evidence or BaseException
    model : str
        The judged tier's, where the answers do not name theirs.
    before : int
        Steps of the call so far, which number the group of a `Gather`.
    """
    return [*_steps(ask, result, model, group=before if isinstance(ask, Gather) else None)]


def _steps(
    ask: Ask, result: Evidence | BaseException, model: str, group: int | None = None
) -> Iterator[Step]:
    if isinstance(ask, Gather):
        parts = (result,) * len(ask.asks) if isinstance(result, BaseException) else result.parts
        for part, its_result in zip(ask.asks, parts, strict=True):
            yield from _steps(part, its_result, model, group=group)
        return
    kind, tier = type(ask).__name__.lower(), getattr(ask, "tier", None)
    if isinstance(result, BaseException):
        yield failed_step(kind, result, tier=tier, group=group)
        return
    named = next((answer.model for answer in result.generations if answer.model), None)
    name = ask.model if isinstance(ask, (Embed, Entails)) else named or model
    yield step_of(kind, result, tier=tier, model=name, group=group)
