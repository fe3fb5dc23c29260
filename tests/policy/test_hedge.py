"""Hedged calls: the cloud runs beside the samples."""

import inspect
import time

import pytest

from confroute import (
    Cascade,
    Gate,
    KeepPrivate,
    Limits,
    Message,
    Request,
    SelfConsistency,
    Threshold,
    TokenLogprob,
)
from confroute.executor import arun, run
from confroute.policy.hedge import Hedged
from confroute.testing import Reply, ScriptedCalls, ScriptedModel

ONCE = {"edge": Limits(attempts=1), "cloud": Limits(attempts=1)}


SURE, UNSURE = Reply(text="4", logprob=-0.01), Reply(text="5", logprob=-0.5)


GREY = Cascade(
    gates=(
        Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3), grey=(0.1, 0.9)),
        Gate(signal=SelfConsistency(n=3), threshold=Threshold(value=0.4)),
    ),
    rules=(KeepPrivate(patterns=("secret",)),),
    on_cloud_error="edge",
)


def ask(text="What is 2 + 2?", **kwargs):
    return Request(messages=(Message(role="user", text=text),), **kwargs)


def calls_of(*, edge=SURE, samples=(), cloud="four"):
    return ScriptedCalls(
        models={"edge": ScriptedModel([edge], samples=samples), "cloud": ScriptedModel([cloud])}
    )


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
