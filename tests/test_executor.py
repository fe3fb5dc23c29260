"""Time lost on a model that failed is in the decision."""

from __future__ import annotations

import asyncio
import time

import pytest

from confroute import Cascade, Message, Request, SelfConsistency, TokenLogprob, record
from confroute.errors import StreamInterruptedError
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.testing import Reply, ScriptedModel
from confroute.types import Generation, Tier

WAIT_S = 0.02
POLICY = Cascade.of(TokenLogprob(), 0.3)
REQUEST = Request(
    messages=(Message(role="user", text="q"),),
    tiers={name: Tier(name=name, model=name) for name in ("edge", "cloud")},
)


def call(ask):
    """The edge fails after a while, the cloud answers."""
    if ask.tier == "edge":
        time.sleep(WAIT_S)
        raise ConnectionError("refused")
    return [Generation(text="yes")]


async def acall(ask):
    if ask.tier == "edge":
        await asyncio.sleep(WAIT_S)
    return call(ask)


def stream(ask):
    yield from call(ask)


async def astream(ask):
    for answer in await acall(ask):
        yield answer


async def by(form):
    if form == "run":
        return run(POLICY, REQUEST, call, {})
    if form == "arun":
        return await arun(POLICY, REQUEST, acall, {})
    scores = {"scores": lambda chunk: (-0.1,)}
    if form == "run_stream":
        return [*run_stream(POLICY, REQUEST, call, stream, {}, **scores)][-1]
    return [item async for item in arun_stream(POLICY, REQUEST, acall, astream, {}, **scores)][-1]


@pytest.mark.parametrize("form", ["run", "arun", "run_stream", "arun_stream"])
async def test_a_failed_draft_took_time(form):
    """Its step has the seconds, and the decision counts them."""
    decision = (await by(form)).decision
    step = decision.steps[0]
    assert (decision.route, step.kind, step.error) == ("cloud", "draft", "ConnectionError")
    assert WAIT_S <= step.latency_s <= decision.latency_s
    assert decision.to_dict()["steps"][0]["latency_s"] == pytest.approx(step.latency_s, abs=1e-3)


@pytest.mark.parametrize("form", ["run_stream", "arun_stream"])
async def test_a_stream_that_breaks_off_took_time(form):
    """Also where the answer had begun, and where it is the last tier's."""

    def broken(ask):
        yield "chunk"
        time.sleep(WAIT_S)
        raise ConnectionError("reset")

    async def abroken(ask):
        for chunk in broken(ask):
            yield chunk

    forced = Request(messages=REQUEST.messages, tiers=REQUEST.tiers, route="cloud")

    async def streamed():
        if form == "run_stream":
            return list(run_stream(POLICY, forced, call, broken, {}))
        return [item async for item in arun_stream(POLICY, forced, acall, abroken, {})]

    with record() as decisions, pytest.raises(StreamInterruptedError, match="broke off"):
        await streamed()
    assert decisions[0].steps[0].latency_s >= WAIT_S


def test_failed_samples_took_time():
    """A signal's ask that fails is a step as well."""

    def sampled(ask):
        if type(ask).__name__ == "Sample":
            time.sleep(WAIT_S)
            raise ConnectionError("refused")
        return [Generation(text="yes")]

    routed = run(Cascade.of(SelfConsistency(n=3), 0.3), REQUEST, sampled, {})
    failed = [step for step in routed.decision.steps if step.error]
    assert [step.kind for step in failed] == ["sample"]
    assert failed[0].latency_s >= WAIT_S


SLOW = Reply(fault=ConnectionError("refused"), latency_s=WAIT_S)


@pytest.mark.parametrize("form", ["invoke", "ainvoke", "stream", "astream"])
async def test_langchain_counts_it(form):
    """In every form."""
    pytest.importorskip("langchain_core")
    from langchain_confroute import ChatConfRoute
    from langchain_confroute.testing import ScriptedChat

    chat = ChatConfRoute(
        edge=ScriptedChat(script=ScriptedModel([SLOW])), cloud=ScriptedChat.of("yes"), policy=POLICY
    )
    with record() as decisions:
        if form == "astream":
            _ = [chunk async for chunk in chat.astream("q")]
        else:
            done = getattr(chat, form)("q")
            _ = await done if form == "ainvoke" else list(done)
    assert decisions[0].steps[0].latency_s >= WAIT_S


@pytest.mark.parametrize("form", ["complete", "acomplete", "stream_complete", "astream_complete"])
async def test_llamaindex_counts_it(form):
    """In every form."""
    pytest.importorskip("llama_index.core")
    from llamaindex_confroute import ConfRouteLLM
    from llamaindex_confroute.testing import ScriptedLLM

    edge, cloud = (ScriptedLLM(model=ScriptedModel([reply])) for reply in (SLOW, "yes"))
    llm = ConfRouteLLM(edge=edge, cloud=cloud, policy=POLICY)
    with record() as decisions:
        done = getattr(llm, form)("q")
        done = await done if form.startswith("a") else done
        if form == "astream_complete":
            _ = [chunk async for chunk in done]
        elif form == "stream_complete":
            list(done)
    assert decisions[0].steps[0].latency_s >= WAIT_S
