"""Hedged calls: the cloud runs beside the samples."""

import inspect
import time
from dataclasses import replace
from functools import partial

import pytest

from confroute import Cascade, Router, TokenLogprob, record
from confroute.budget import Budget, Paced
from confroute.drift import Audited, DriftTest
from confroute.errors import PolicyError
from confroute.executor import arun, run
from confroute.policy.hedge import Hedged
from confroute.policy.reuse import DraftReuse
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedModel, faults
from confroute.types import Usage
from tests.conftest import GREY, ONCE, UNSURE, ask, calls_of


@pytest.mark.parametrize(("samples", "route"), [(["5"], "edge"), (["4"], "cloud")])
async def test_a_hedge_is_used_or_paid_for(samples, route):
    """The cloud starts once beside the samples; it answers, or its step records the price of the hedge."""
    calls = calls_of(edge=UNSURE, samples=samples)
    for routed in (
        run(Hedged(policy=GREY), ask(), calls.call(ask()), ONCE),
        await arun(Hedged(policy=GREY), ask(), calls.acall(ask()), ONCE),
    ):
        decision = routed.decision
        assert decision.route == route
        assert decision.layers["hedge"]["used"] is (route == "cloud")
        paid = [step for step in decision.steps if step.tier == "cloud"]
        assert [step.kind for step in paid] == ["final" if route == "cloud" else "hedge"]
        assert paid[0].usage.input_tokens > 0


@pytest.mark.parametrize("samples", [["5"], ["4"]])
async def test_the_latency_of_a_hedged_call_is_the_callers(samples):
    """Time that the cloud ran beside the samples is not counted twice."""
    slow = [Reply(text=text, latency_s=0.1) for text in samples]
    calls = calls_of(edge=UNSURE, samples=slow, cloud=Reply(text="four", latency_s=0.15))
    for routed in (
        lambda: run(Hedged(policy=GREY), ask(), calls.call(ask()), ONCE),
        lambda: arun(Hedged(policy=GREY), ask(), calls.acall(ask()), ONCE),
    ):
        start = time.perf_counter()
        done = routed()
        decision = (await done if inspect.isawaitable(done) else done).decision
        assert decision.latency_s <= time.perf_counter() - start


HEDGED = Hedged(policy=replace(GREY, on_edge_error="raise"), when="draft")
TEST = DriftTest(level=0.1)
PAID = Usage(input_tokens=1000, output_tokens=2)


async def outcome(calls, form):
    """What a call under `HEDGED` ended in, whose edge answers after its cloud."""
    if form == "run":
        return run(HEDGED, ask(), calls.call(ask()), ONCE)
    return await arun(HEDGED, ask(), calls.acall(ask()), ONCE)


@pytest.mark.parametrize("form", ["run", "arun"])
async def test_a_call_that_fails_is_billed_for_its_hedge(form):
    """The answer of the cloud had come when the edge failed: it was paid, though nobody sees it."""
    edge = Reply(fault=ValueError("bad"), latency_s=0.3)
    calls = calls_of(edge=edge, cloud=Reply(text="four", usage=PAID))
    with record() as decisions, pytest.raises(ValueError, match="bad"):
        await outcome(calls, form)
    (decision,) = decisions
    assert decision.stage == "failed"
    assert decision.layers["hedge"] == {"used": False, "estimated": False}
    assert [(step.kind, step.error) for step in decision.steps] == [("draft", "ValueError"), ("hedge", None)]
    assert decision.usage == {"cloud": PAID}


@pytest.mark.parametrize("form", ["run", "arun"])
async def test_a_hedge_that_failed_is_billed_nothing(form):
    """A wrong key costs nothing, and the step names the error in place of "cancelled"."""
    edge = Reply(text="4", logprob=-0.001, latency_s=0.3)
    calls = calls_of(edge=edge, cloud=Reply(fault=faults.status(401)))
    decision = (await outcome(calls, form)).decision
    hedge = decision.steps[-1]
    assert (hedge.kind, hedge.tier, hedge.error, hedge.usage) == ("hedge", "cloud", "StatusError", None)
    assert decision.layers["hedge"] == {"used": False, "estimated": False}


@pytest.mark.parametrize("form", ["run", "arun"])
async def test_a_hedge_that_failed_costs_its_budget_nothing(form):
    """As any answer that never came."""
    edge = Reply(text="4", logprob=-0.001, latency_s=0.3)
    calls = calls_of(edge=edge, cloud=Reply(fault=faults.status(401)))
    budget = Budget(limit=10_000, unit="tokens")
    paced = Paced(policy=HEDGED, budgets=(budget,), store=MemoryStore())
    if form == "run":
        routed = run(paced, ask(), calls.call(ask()), ONCE)
    else:
        routed = await arun(paced, ask(), calls.acall(ask()), ONCE)
    assert routed.decision.layers["budget"][budget.name] == {"charged": 0, "left": 10_000}


@pytest.mark.parametrize("form", ["run", "arun"])
async def test_a_dropped_router_is_billed_for_its_drafts(form):
    """The cloud is a router itself: its decision stands in the hedge's step, and its drafts in the bill."""
    inner = Router(
        edge=ScriptedModel([Reply(text="4?", logprob=-3.0, usage=Usage(input_tokens=100))], name="mid"),
        cloud=ScriptedModel([Reply(text="four", usage=PAID)], name="large"),
        policy=Cascade.of(TokenLogprob(), 0.25),
    )
    edge = ScriptedModel([Reply(text="4", logprob=-0.001, latency_s=0.3)], name="small")
    router = Router(edge=edge, cloud=lambda messages: inner.ask(messages).text, policy=HEDGED)
    decision = (router.ask("2 + 2?") if form == "run" else await router.aask("2 + 2?")).decision
    assert [one.route for one in decision.steps[-1].inner] == ["cloud"]
    assert decision.usage["cloud"].input_tokens == 1100


@pytest.mark.parametrize("around", [Hedged, DraftReuse, partial(Audited, test=TEST)])
def test_a_budget_inside_is_refused(around):
    """It would not see what the wrapper around it has paid: a hard budget would be overspent."""
    with pytest.raises(
        PolicyError, match=r"a Paced inside .* would not see everything that is paid for: put Paced around"
    ):
        around(policy=Paced(policy=GREY, budgets=(Budget(limit=3, unit="calls"),)))


@pytest.mark.parametrize("inner", [Hedged(policy=GREY), Audited(policy=Hedged(policy=GREY), test=TEST)])
def test_a_hedge_is_neither_hedged_nor_given_drafts(inner):
    """Two would begin the cloud's answer, and one with a draft is not the one that was begun: the other is paid without a trace."""
    with pytest.raises(PolicyError, match="would start and pay for the same answer twice"):
        Hedged(policy=inner, when="draft")
    with pytest.raises(PolicyError, match="a hedge starts before there is a draft to reuse"):
        DraftReuse(policy=inner)
