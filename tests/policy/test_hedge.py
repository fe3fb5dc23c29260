"""Hedged calls: the cloud runs beside the samples."""

import inspect
import time

import pytest

from confroute.executor import arun, run
from confroute.policy.hedge import Hedged
from confroute.testing import Reply
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
