"""The middleware: an agent's model calls, routed step by step."""

from __future__ import annotations

import operator

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from confroute import Cascade, KeepPrivate, SendTo, TokenLogprob, record
from confroute.errors import PolicyError
from confroute.types import Usage
from langchain_confroute.middleware import AgentBudget, ConfRouteMiddleware, step_of
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return operator.add(a, b)


class City(BaseModel):
    """A city."""

    name: str


GOOD = Cascade.of(TokenLogprob(), 0.5)
STRICT = Cascade.of(TokenLogprob(), 0.01)


def ask():
    """A new question: LangGraph gives each message an id, and one of the same id would replace the first."""
    return {"messages": [HumanMessage("Add 2 and 3.")]}


def small(**reply):
    return ScriptedChat.of("edge done", name="small", logprob=-0.1, **reply)


def agent(policy=GOOD, *, tools=(add,), edge=None, checkpointer=None, response_format=None, **settings):
    routed = ConfRouteMiddleware(
        edge or small(), policy=policy, edge_limits=ONCE, cloud_limits=ONCE, **settings
    )
    return create_agent(
        ScriptedChat.of("cloud done", name="large"),
        list(tools),
        middleware=[routed],
        checkpointer=checkpointer,
        response_format=response_format,
    )


async def run(built, given, asynchronous, config=None):
    return await built.ainvoke(given, config) if asynchronous else built.invoke(given, config)


def routes(result):
    return [
        (m.response_metadata["confroute"]["route"], m.response_metadata["confroute"]["rule"])
        for m in result["messages"]
        if isinstance(m, AIMessage)
    ]


both = pytest.mark.parametrize("asynchronous", [False, True])


@both
async def test_steps_are_routed_and_counted(asynchronous):
    """Two model calls of a tool loop on the edge, usage exact, one decision each."""
    with record() as decisions, get_usage_metadata_callback() as usage:
        result = await run(agent(), ask(), asynchronous)
    assert routes(result) == [("edge", None)] * 2
    assert [m.type for m in result["messages"]] == ["human", "ai", "tool", "ai"]
    assert result["messages"][-1].text == "edge done"
    assert len(decisions) == 2
    assert list(usage.usage_metadata) == ["small"]
    billed = sum(d.usage["edge"].total_tokens for d in decisions)
    assert usage.usage_metadata["small"]["total_tokens"] == billed


@both
async def test_a_tool_loop_stays_on_the_cloud_once_it_was_there(asynchronous):
    """Escalated once: the rest of the loop is the cloud's, the next question is judged afresh."""
    built = agent(STRICT, checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    result = await run(built, ask(), asynchronous, config)
    assert routes(result) == [("cloud", None), ("cloud", "sticky")]
    again = await run(built, ask(), asynchronous, config)
    assert routes(again)[2:] == [("cloud", None), ("cloud", "sticky")]
    loose = await run(agent(STRICT, sticky=False), ask(), asynchronous)
    assert routes(loose) == [("cloud", None)] * 2


def test_stickiness_is_read_from_the_messages():
    """A second middleware object, in another process, sees the same loop."""
    first = agent(STRICT).invoke(ask())["messages"]
    result = agent(GOOD).invoke({"messages": first[:3]})
    assert routes(result)[-1] == ("cloud", "sticky")


@both
async def test_a_budget_is_a_threads_own(asynchronous):
    """Spent calls stand in the checkpoint: the thread goes on with the edge, another thread has its own."""
    built = agent(STRICT, budget=AgentBudget(calls=3), checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    first = await run(built, ask(), asynchronous, config)
    second = await run(built, ask(), asynchronous, config)
    assert routes(second) == [("cloud", None), ("cloud", "sticky"), ("cloud", None), ("edge", "budget")]
    assert built.get_state(config).values["confroute_cloud_calls"] == 3
    assert "confroute_cloud_calls" not in first
    other = await run(built, ask(), asynchronous, {"configurable": {"thread_id": "2"}})
    assert routes(other) == [("cloud", None), ("cloud", "sticky")]
    why = second["messages"][-1].response_metadata["confroute"]["reason"]
    assert why == "the thread has used 3 of 3 calls of the cloud: edge answers"


def test_a_budget_of_tokens():
    """The call that passes the limit is made, the next one is the edge's."""
    result = agent(STRICT, budget=AgentBudget(tokens=1)).invoke(ask())
    assert routes(result) == [("cloud", None), ("edge", "budget")]
    for wrong in ({}, {"calls": -1}):
        with pytest.raises(PolicyError):
            AgentBudget(**wrong)


def test_cached_and_reasoning_tokens_are_spent_once():
    """They are parts of the input and the output that stand beside them."""
    usage = Usage(input_tokens=100, output_tokens=10, cached_tokens=80, reasoning_tokens=6)
    cloud = ScriptedChat.of("cloud done", name="large", usage=usage)
    routed = ConfRouteMiddleware(small(), policy=STRICT, budget=AgentBudget(tokens=1000))
    built = create_agent(cloud, middleware=[routed], checkpointer=InMemorySaver())
    config = {"configurable": {"thread_id": "1"}}
    built.invoke(ask(), config)
    assert built.get_state(config).values["confroute_cloud_tokens"] == 110


@both
async def test_each_kind_of_step_has_its_own_policy(asynchronous):
    """Tools are chosen by the cloud, their results are read by the edge."""
    steps = {"select": "cloud", "digest": "edge"}
    assert routes(await run(agent(steps=steps), ask(), asynchronous)) == [("cloud", "step"), ("edge", "step")]
    steps = {"select": GOOD, "digest": STRICT, "final": "cloud"}
    assert routes(await run(agent(steps=steps), ask(), asynchronous)) == [("edge", None), ("cloud", None)]
    assert routes(await run(agent(steps=steps, tools=()), ask(), asynchronous)) == [("cloud", "step")]
    for wrong in ({"selct": GOOD}, {"select": "moon"}, {"select": None}):
        with pytest.raises(PolicyError):
            ConfRouteMiddleware(small(), steps=wrong)
    with pytest.raises(PolicyError):
        ConfRouteMiddleware(small(), policy="edge")


def test_the_kind_of_step_is_in_the_messages():
    """Tools offered, a tool's result since the user spoke, no tools left."""
    asked, called = HumanMessage("q"), AIMessage("", tool_calls=[{"name": "t", "args": {}, "id": "1"}])
    told = ToolMessage("4", tool_call_id="1")
    assert step_of([asked], tools=True) == "select"
    assert step_of([asked, called, told], tools=True) == "digest"
    assert step_of([asked, called, told, AIMessage("4"), asked], tools=True) == "select"
    assert step_of([asked, called, told], tools=False) == "final"


def test_private_text_and_the_caller_come_first():
    """A private rule beats stickiness and steps; a forced route beats a spent budget."""
    private = Cascade.of(TokenLogprob(), 0.01, rules=(KeepPrivate(patterns=("Add",)),))
    assert routes(agent(private, steps={"select": "cloud"}).invoke(ask())) == [("edge", "keep_private")] * 2
    forced = {"configurable": {"confroute_route": "cloud"}}
    result = agent(budget=AgentBudget(calls=0)).invoke(ask(), forced)
    assert routes(result) == [("cloud", None)] * 2


@both
async def test_streams_of_an_agent(asynchronous):
    """messages: no rejected draft; updates: the answer; custom: one decision a model call."""
    built = agent(STRICT)
    modes = ["messages", "updates", "custom"]
    if asynchronous:
        items = [item async for item in built.astream(ask(), stream_mode=modes)]
    else:
        items = list(built.stream(ask(), stream_mode=modes))
    custom = [data["confroute.decision"] for mode, data in items if mode == "custom"]
    assert [(d["route"], d["rule"]) for d in custom] == [("cloud", None), ("cloud", "sticky")]
    shown = [data[0] for mode, data in items if mode == "messages" and data[0].type.startswith("AI")]
    assert "".join(chunk.text for chunk in shown) == "cloud done"
    updates = [data["model"]["messages"] for mode, data in items if mode == "updates" and "model" in data]
    assert updates[-1][0].text == "cloud done"


@both
@pytest.mark.parametrize("strategy", [ToolStrategy, ProviderStrategy])
async def test_structured_answers(strategy, asynchronous):
    """response_format works with either strategy; a value that does not fit is the cloud's to give."""
    if strategy is ToolStrategy:
        result = await run(agent(tools=(), response_format=ToolStrategy(City)), ask(), asynchronous)
        assert result["structured_response"].name
        assert routes(result) == [("edge", None)]
        return
    edge = ScriptedChat.of('{"name": "Paris"}', name="small", logprob=-0.1)
    result = await run(
        agent(tools=(), edge=edge, response_format=ProviderStrategy(City)), ask(), asynchronous
    )
    assert result["structured_response"] == City(name="Paris")


def test_cloud_tools_are_never_the_edges():
    """The per-tool rule holds in an agent too."""
    result = agent(cloud_tools=("add",)).invoke(ask())
    assert routes(result)[0] == ("cloud", None)
    assert "always the cloud's" in result["messages"][1].response_metadata["confroute"]["reason"]


def test_models_of_other_middleware_are_the_cloud(monkeypatch):
    """A model that another middleware puts in the request is the cloud of that call; few routers are kept."""
    from langchain.agents.middleware import wrap_model_call

    made = [0]

    @wrap_model_call
    def another(request, handler):
        made[0] += 1
        return handler(request.override(model=ScriptedChat.of(f"cloud {made[0]}", name="other")))

    routed = ConfRouteMiddleware(small(), policy=STRICT, cloud_limits=ONCE)
    built = create_agent(ScriptedChat.of("never", name="large"), [], middleware=[another, routed])
    for number in range(1, 20):
        assert built.invoke(ask())["messages"][-1].text == f"cloud {number}"
    assert len(routed._routers) == 16


KEEPS = (KeepPrivate(patterns=("Jane Doe",)),)
LETS_OUT = Cascade.of(TokenLogprob(), 0.0)


@pytest.mark.parametrize("form", ["invoke", "ainvoke", "stream"])
@pytest.mark.parametrize(
    "step",
    [LETS_OUT, "cloud", Cascade.of(TokenLogprob(), 0.0, rules=(KeepPrivate(patterns=("other",)),))],
    ids=["policy", "route", "policy with a private rule of its own"],
)
async def test_what_the_policy_keeps_private_stays_in_every_step(step, form):
    """A step's own policy or route adds to the private rules of the middleware's policy; it takes none away."""
    steps = dict.fromkeys(("select", "digest", "final"), step)
    routed = agent(Cascade.of(TokenLogprob(), 0.5, rules=KEEPS), steps=steps)
    for text, private in (("Add for Jane Doe.", True), ("Add 2 and 3.", False)):
        given = {"messages": [HumanMessage(text)]}
        with record() as decisions:
            if form == "ainvoke":
                await routed.ainvoke(given)
            else:
                list(routed.stream(given)) if form == "stream" else routed.invoke(given)
        assert {(one.route, one.private) for one in decisions} == {("edge" if private else "cloud", private)}


def test_only_the_private_rules_of_the_policy_reach_a_step():
    """Where else the policy sends a call is its own business, and not the step's."""
    rules = (SendTo(tier="edge", patterns=("Add",)), *KEEPS)
    routed = agent(Cascade.of(TokenLogprob(), 0.5, rules=rules), steps={"select": LETS_OUT})
    with record() as decisions:
        routed.invoke(ask())
    assert decisions[0].route == "cloud"
