"""What an agent may use of the cloud: by run and by thread, in calls, tokens and USD, and what happens when it is spent."""

import pytest
from langchain.agents import create_agent
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver

from confroute import Cascade, KeepPrivate, TokenLogprob, record
from confroute.budget import Budget, Paced
from confroute.errors import BudgetSpentError, PolicyError
from confroute.prices import Price
from confroute.testing import Reply, ScriptedModel
from confroute.types import Usage
from langchain_confroute import ChatConfRoute
from langchain_confroute.agent_budget import spending
from langchain_confroute.middleware import AgentBudget, ConfRouteMiddleware
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE

STRICT = Cascade.of(TokenLogprob(), 0.01)
PRICE = Price(input_usd=1.0, output_usd=10.0, cached_usd=0.1)
# 1000 tokens of prompt at 1 USD a million, 400 of them cached at 0.1, and 100 at 10.
BILL, USD = Usage(input_tokens=1000, output_tokens=100, cached_tokens=400), 0.0006 + 0.00004 + 0.001
both = pytest.mark.parametrize("asynchronous", [False, True])


@tool
def look(at: str) -> str:
    """Look at something."""
    return at


def agent(budget, policy=STRICT, *, usage=BILL, tools=(), edge=None):
    """An agent with checkpoints whose cloud bills the same for every call."""
    edge = edge or ScriptedChat.of("edge done", name="small", logprob=-0.1)
    cloud = ScriptedChat(
        script=ScriptedModel([Reply(text="cloud done", usage=usage)], name="large"), model="large"
    )
    routed = ConfRouteMiddleware(
        edge, policy=policy, edge_limits=ONCE, cloud_limits=ONCE, budget=budget, sticky=False
    )
    return create_agent(cloud, list(tools), middleware=[routed], checkpointer=InMemorySaver(), system_prompt="Be kind.")  # fmt: skip


async def said(built, asynchronous=False, thread="1", text="?"):
    """The last message of one run."""
    config = {"configurable": {"thread_id": thread}}
    given = {"messages": [HumanMessage(text)]}
    result = await built.ainvoke(given, config) if asynchronous else built.invoke(given, config)
    return result["messages"][-1].text


@both
@pytest.mark.parametrize(
    "limit", [{"usd": 2 * USD - 1e-9, "price": PRICE}, {"calls": 2}, {"tokens": 2200}], ids=str
)
async def test_a_thread_has_its_budget(limit, asynchronous):
    """Two calls of a thread use it up, in whatever unit; another thread has its own."""
    built = agent(AgentBudget(per="thread", **limit))
    assert [await said(built, asynchronous) for _ in range(3)] == ["cloud done"] * 2 + ["edge done"]
    assert await said(built, asynchronous, thread="2") == "cloud done"


@both
async def test_a_run_has_its_budget(asynchronous):
    """A loop of two calls uses it up; the next run of the same thread begins anew."""
    built = agent(AgentBudget(per="run", usd=USD, price=PRICE), tools=[look])
    for _ in range(2):
        with record() as decisions:
            assert await said(built, asynchronous) == "edge done"
        assert [(one.route, one.rule) for one in decisions] == [("cloud", None), ("edge", "budget")]
    assert built.get_state({"configurable": {"thread_id": "1"}}).values["confroute_cloud_usd"] == (
        pytest.approx(2 * USD)
    )


async def test_the_agent_is_told_in_words():
    """In its system message, beside its own, once the budget is spent and not before; the reason has the numbers."""
    edge = ScriptedChat.of("edge done", name="small", logprob=-0.1)
    built = agent(AgentBudget(usd=USD, price=PRICE), edge=edge)
    await said(built)
    with record() as decisions:
        await said(built)
    before, after = (seen["messages"][0].text for seen in edge.seen)
    assert before == "Be kind."
    assert after.startswith("Be kind.\n\nBudget: the thread has used 0.00164 of 0.00164 USD of the cloud.")
    assert decisions[0].reason.startswith("the thread has used 0.00164 of 0.00164 USD")


@both
async def test_what_happens_then(asynchronous):
    """The agent ends with words and without a call, or the call raises."""
    ends = agent(AgentBudget(calls=1, on_budget="end"))
    assert await said(ends, asynchronous) == "cloud done"
    with record() as decisions:
        assert "the thread has used 1 of 1 calls of the cloud" in await said(ends, asynchronous)
    assert len(decisions) == 0
    raises = agent(AgentBudget(calls=1, on_budget="raise"))
    await said(raises, asynchronous)
    with pytest.raises(BudgetSpentError, match=r"budget 'thread' has 0 calls left: raise the budget"):
        await said(raises, asynchronous)


async def test_private_text_comes_first():
    """It never costs the cloud, and is answered by the edge as before."""
    private = Cascade.of(TokenLogprob(), 0.01, rules=(KeepPrivate(patterns=("Jane",)),))
    with record() as decisions:
        await said(agent(AgentBudget(calls=0), private), text="Call Jane.")
    assert decisions[0].rule == "keep_private"


def test_a_cloud_that_bills_nothing_is_named(caplog):
    """What cannot be counted is said, for budgets that need it."""
    steps = [{"usage": None}, {"usage": BILL.to_dict()}]
    spending({}, steps, AgentBudget(calls=9))
    assert caplog.text == ""
    found = spending({}, steps, AgentBudget(usd=1, price=PRICE))
    assert found["confroute_cloud_usd"] == pytest.approx(USD)
    assert "reports no usage for 1 of 2 calls" in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {}, {"calls": -1}, {"usd": 1.0}, {"usd": float("nan"), "price": PRICE}, {"calls": 1, "per": "day"},
        {"calls": 1, "on_budget": "stop"},
    ],
    ids=str,
)  # fmt: skip
def test_a_budget_that_could_not_be_kept_is_refused(wrong):
    """With what was given."""
    with pytest.raises(PolicyError, match=r"expected|give price"):
        AgentBudget(**wrong)


async def test_a_hard_cap_by_thread():
    """`Paced` keeps a budget of each thread, by the label that LangGraph gives a call."""
    edge = ScriptedChat.of("edge done", name="small", logprob=-0.1)
    budgets = (Budget(limit=1, unit="calls", per="thread_id"),)
    policy = Paced(policy=STRICT, budgets=budgets, store="memory:a-hard-cap-by-thread")
    router = ChatConfRoute(edge=edge, cloud=ScriptedChat.of("cloud done", name="large"), policy=policy)
    built = create_agent(router, checkpointer=InMemorySaver())
    assert [await said(built, thread=one) for one in "112"] == ["cloud done", "edge done", "cloud done"]
