"""Asks that need a model in this process, and several asks at once, through the four loops."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest

from confroute.asks import Ask, Draft, DropoutPasses, Embed, Evidence, Gather, Hidden, Sample, Score
from confroute.decision import Decision, Measurement, Routed, Step
from confroute.errors import SignalUnavailableError
from confroute.executor import arun, run, work
from confroute.policy import Cascade
from confroute.signals import Case, Range
from confroute.signals.mc_dropout import McDropout
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from confroute.types import Generation, Message, Request, Usage

REQUEST = Request(messages=(Message(role="user", text="Capital of France?"),))


class Asks:
    """A policy that yields given asks and returns what they brought."""

    def __init__(self, *asks: Ask) -> None:
        self.asks = asks
        self.brought: list[Evidence | Exception] = []

    def flow(self, request: Request) -> Generator[Ask, Evidence, Routed]:
        for ask in self.asks:
            try:
                self.brought.append((yield ask))
            except SignalUnavailableError as error:
                self.brought.append(error)
        return Routed(
            generation=Generation(text=""), decision=Decision(route="edge", stage="forced", reason="test")
        )


def calls(**models: ScriptedModel) -> ScriptedCalls:
    return ScriptedCalls(models=models)


@pytest.mark.parametrize("form", ["sync", "async"])
def test_gathered_asks_run_at_the_same_time(form: str, meeting: Any) -> None:
    """None of three drafts ends before all have begun; they come back in the order of the asks, and no part outlasts the whole."""
    models = {name: ScriptedModel([Reply(text=name, latency_s=0.01)]) for name in ("a", "b", "c")}
    policy = Asks(Gather(asks=tuple(Draft(tier=name) for name in models)))
    made, place = calls(**models), meeting(3)

    def call(ask: Any) -> list[Generation]:
        place.wait()
        return made.call(REQUEST)(ask)

    async def acall(ask: Any) -> list[Generation]:
        await place.await_all()
        return await made.acall(REQUEST)(ask)

    if form == "sync":
        run(policy, REQUEST, call, {})
    else:
        asyncio.run(arun(policy, REQUEST, acall, {}))
    (brought,) = policy.brought
    assert isinstance(brought, Evidence)
    parts = [part for part in brought.parts if isinstance(part, Evidence)]
    assert [part.generations[0].text for part in parts] == [*"abc"]
    latencies = [part.latency_s for part in parts]
    assert 0.01 <= max(latencies) <= brought.latency_s


@pytest.mark.parametrize("form", ["sync", "async"])
def test_a_failed_part_is_its_error_and_the_others_stay(form: str) -> None:
    """One part fails: the gather itself does not."""
    made = calls(a=ScriptedModel(["x"]), b=ScriptedModel([Reply(fault=OSError("gone"))]))
    policy = Asks(Gather(asks=(Draft(tier="b"), Sample(tier="a", n=2))))
    if form == "sync":
        run(policy, REQUEST, made.call(REQUEST), {})
    else:
        asyncio.run(arun(policy, REQUEST, made.acall(REQUEST), {}))
    failed, drawn = policy.brought[0].parts
    assert isinstance(failed, OSError)
    assert isinstance(drawn, Evidence)
    assert len(drawn.generations) == 2


def test_gathered_threads_see_the_callers_context() -> None:
    """Host frameworks keep their run in a context variable."""
    seen: contextvars.ContextVar[str] = contextvars.ContextVar("seen", default="nothing")
    heard: list[tuple[str, bool]] = []

    def call(ask: Any) -> list[Generation]:
        heard.append((seen.get(), threading.current_thread() is threading.main_thread()))
        return [Generation(text="x")]

    seen.set("the run")
    run(Asks(Gather(asks=(Draft(tier="a"), Draft(tier="b")))), REQUEST, call, {})
    assert heard == [("the run", False)] * 2


def test_what_is_no_exception_leaves_a_gather() -> None:
    """Control flow of a host is no evidence: it passes the policy."""

    class Stop(BaseException):
        pass

    def call(ask: Any) -> list[Generation]:
        if ask.tier == "b":
            raise Stop
        return [Generation(text="x")]

    with pytest.raises(Stop):
        run(Asks(Gather(asks=(Draft(tier="a"), Draft(tier="b")))), REQUEST, call, {})


def test_a_cancelled_gather_cancels_its_parts(until: Any) -> None:
    """Whoever gives up waiting leaves no call behind."""
    begun: list[str] = []
    ended: list[str] = []

    async def call(ask: Any) -> list[Generation]:
        begun.append(ask.tier)
        try:
            await asyncio.sleep(30)
        finally:
            ended.append(ask.tier)
        return []

    async def main() -> None:
        policy = Asks(Gather(asks=(Draft(tier="a"), Draft(tier="b"))))
        task = asyncio.create_task(arun(policy, REQUEST, call, {}))
        await until(lambda: len(begun) == 2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert sorted(ended) == ["a", "b"]


@pytest.mark.parametrize("ask", [Score(tier="edge", answer="Paris"), Hidden(tier="edge", layers=(1,))])
def test_a_model_elsewhere_says_so(ask: Ask) -> None:
    """Neither passes nor hidden states can be had of a model behind an API."""
    policy, made = Asks(ask), calls(edge=ScriptedModel(name="gpt"))
    run(policy, REQUEST, made.call(REQUEST), {})
    assert isinstance(policy.brought[0], SignalUnavailableError)
    assert str(policy.brought[0]).startswith("gpt is not in this process")


def test_steps_of_a_group_count_once() -> None:
    """Latency of steps that ran at the same time is that of the longest."""
    steps = (
        Step(kind="draft", latency_s=1.0),
        Step(kind="draft", latency_s=2.0, group=1),
        Step(kind="draft", latency_s=3.0, group=1),
    )
    assert Decision(route="edge", stage="draft", reason="", steps=steps).latency_s == 4.0


class Both:
    """A signal that asks two members at once."""

    name = "both"
    range = Range(unit="share")

    def measure(self, case: Case) -> Generator[Ask, Evidence, Measurement]:
        evidence = yield Gather(
            asks=(Draft(tier="a"), Draft(tier="b"), Embed(texts=("x",), model="/nowhere"))
        )
        failed = sum(isinstance(part, Exception) for part in evidence.parts)
        return Measurement(signal=self.name, uncertainty=float(failed))


def test_a_cascade_keeps_a_step_a_part() -> None:
    """Tokens of members are billed under their names, failures stay visible, and the latency is the group's."""
    made = calls(
        edge=ScriptedModel(["4"]),
        a=ScriptedModel(["4"], name="model-a"),
        b=ScriptedModel([Reply(fault=OSError("gone"))]),
        cloud=ScriptedModel(["four"]),
    )
    routed = run(Cascade.of(Both(), 5.0), REQUEST, made.call(REQUEST), {})
    kinds = [(s.kind, s.tier, s.model, s.error, s.group) for s in routed.decision.steps]
    assert kinds == [
        ("draft", "edge", "scripted", None, None),
        ("draft", "a", "model-a", None, 1),
        ("draft", "b", None, "OSError", 1),
        ("embed", None, None, "UnknownModelError", 1),
    ]
    assert routed.decision.usage["a"] == Usage(input_tokens=4, output_tokens=1)
    assert routed.decision.signals["both"].uncertainty == 2.0


def test_dropout_passes_reach_the_gate() -> None:
    """A host that answers `Score` gives the policy its measurement; the step counts the passes."""
    passes = DropoutPasses(
        logprobs=np.array([[-0.1], [-0.3]]), total=np.array([0.9]), expected=np.array([0.5])
    )

    def call(ask: Any) -> Any:
        return Evidence(passes=passes) if isinstance(ask, Score) else [Generation(text="Paris.")]

    routed = run(Cascade.of(McDropout(passes=2, statistic="mutual_information"), 0.5), REQUEST, call, {})
    assert routed.decision.uncertainty == pytest.approx(0.4)
    assert [(step.kind, step.tier, step.n) for step in routed.decision.steps] == [
        ("draft", "edge", 1),
        ("score", "edge", 2),
    ]
    assert routed.decision.stage == "evidence"


def test_dropout_gate_without_weights_is_skipped() -> None:
    """An edge behind an API: the gate is skipped with the reason, and the next tier answers."""
    made = calls(edge=ScriptedModel(["4"], name="gpt"), cloud=ScriptedModel(["four"]))
    routed = run(Cascade.of(McDropout(), 0.5), REQUEST, made.call(REQUEST), {})
    assert routed.decision.route == "cloud"
    assert routed.decision.skipped == {"mc_dropout": "gpt is not in this process: no dropout passes"}


def test_numbers_that_are_not_finite_are_no_evidence():
    """A NaN from an embedding would pass each comparison as certainty."""
    ask = Embed(texts=("a",), model="mine", embed=lambda texts: np.full((len(texts), 2), np.nan))
    with pytest.raises(SignalUnavailableError, match="mine gave numbers that are not finite"):
        work(ask)
