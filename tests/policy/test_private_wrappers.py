"""Private text stays on the edge under budgets, audits, hedges and policies that forget."""

import itertools

import pytest

from confroute import Message, background
from confroute.asks import (
    Begin,
    Draft,
    Embed,
    Final,
    Gather,
    Hidden,
    Prompt,
    Sample,
    Score,
    Shadow,
    Tentative,
)
from confroute.budget import Budget, Paced
from confroute.drift import Audited, DriftTest
from confroute.errors import ConfrouteError, PrivacyError
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.policy.hedge import Hedged
from confroute.state import MemoryStore
from confroute.testing import Reply
from tests.conftest import GREY, ONCE, UNSURE, ask, calls_of

TEST = DriftTest(level=0.05)


@pytest.mark.parametrize(
    ("edge_up", "cloud_up", "route", "when", "driver"),
    [*itertools.product(*[(True, False)] * 2, [None, "cloud"], ["grey", "draft"], ["run", "arun", "stream"])],
)
async def test_no_wrapper_lets_private_text_out(edge_up, cloud_up, route, when, driver):
    """Budget, audit with an alarm, hedge, samples, forced route, outages: the cloud hears nothing."""
    audited = Audited(
        policy=Hedged(policy=GREY, when=when), test=TEST, share=1.0, on_alarm="cloud", store=MemoryStore()
    )
    audited._change(lambda state: {**state, "alarm_at": 1})
    policy = Paced(policy=audited, budgets=(Budget(limit=100, unit="calls"),), store=MemoryStore())
    down = Reply(fault=ConnectionError("refused"))
    calls = calls_of(edge=UNSURE if edge_up else down, samples=["5"], cloud="four" if cloud_up else down)
    request = ask("a secret", route=route)
    try:
        if driver == "arun":
            await arun(policy, request, calls.acall(request), ONCE)
            await background.await_all()
        elif driver == "stream":
            list(run_stream(policy, request, calls.call(request), calls.stream(request), ONCE))
        else:
            run(policy, request, calls.call(request), ONCE)
    except ConfrouteError:
        assert not edge_up
    background.wait()
    assert calls.models["cloud"].calls == []


async def driven(driver, policy, calls):
    """One call in one of the four forms, to its end."""
    request, scores = ask(), lambda chunk: (-0.1,)
    if driver == "run":
        run(policy, request, calls.call(request), ONCE)
    elif driver == "arun":
        await arun(policy, request, calls.acall(request), ONCE)
    elif driver == "stream":
        given = (calls.call(request), calls.stream(request), ONCE)
        list(run_stream(policy, request, *given, scores=scores))
    else:
        given = (calls.acall(request), calls.astream(request), ONCE)
        _ = [chunk async for chunk in arun_stream(policy, request, *given, scores=scores)]


SENT = []


FORGOTTEN = {
    "final": Final(tier="cloud"),
    "another seal": Final(tier="cloud", private=True),
    "draft": Draft(tier="cloud"),
    "tentative": Tentative(tier="cloud", watch=lambda tokens, nats: "commit"),
    "sample": Sample(tier="cloud"),
    "prompt": Prompt(tier="cloud", messages=(Message(role="user", text="a secret"),)),
    "score": Score(tier="cloud", answer="a secret"),
    "hidden": Hidden(tier="cloud", layers=(1,)),
    "begin": Begin(ask=Final(tier="cloud")),
    "shadow": Shadow(ask=Draft(tier="cloud"), then=SENT.append),
    "gather": Gather(asks=(Sample(tier="edge"), Draft(tier="cloud"))),
    "one gathered": Gather(asks=(Draft(tier="cloud"),)),
    "embedding elsewhere": Embed(texts=("a secret",), model="m", embed=SENT.append),
}


@pytest.mark.parametrize("driver", ["run", "arun", "stream", "astream"])
@pytest.mark.parametrize("forgotten", FORGOTTEN)
async def test_a_policy_that_forgets_is_refused(forgotten, driver):
    """Once a call is bound, whatever is asked of another tier, in whatever form, is refused before anything is sent."""

    class Careless:
        tiers = ("edge", "cloud")

        def flow(self, request):
            yield Final(tier="edge", private=True)
            evidence = yield FORGOTTEN[forgotten]
            raise next(part for part in evidence.parts if isinstance(part, Exception))

    calls = calls_of()
    with pytest.raises(PrivacyError, match="nothing was sent"):
        await driven(driver, Careless(), calls)
    assert background.wait()
    await background.await_all()
    assert (calls.models["cloud"].calls, SENT) == ([], [])
