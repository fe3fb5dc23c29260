"""Answers from LangChain's answer cache cost nothing, and the decision says so."""

from __future__ import annotations

import asyncio

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.output_parsers import StrOutputParser

from confroute import Cascade, TokenLogprob, record
from confroute.budget import Budget, Paced
from confroute.hosts.router import Router
from confroute.prices import Price
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedModel
from confroute.types import Usage
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.testing import ScriptedChat

POLICY = Cascade.of(TokenLogprob(), 0.25)
BILL = Usage(input_tokens=1000, output_tokens=500)


def cached(text="four", usage=BILL):
    """A model whose answers LangChain keeps."""
    script = ScriptedModel([Reply(text=text, usage=usage)], name="large")
    return ScriptedChat(script=script, cache=InMemoryCache())


def edge():
    """A model whose drafts are rejected."""
    return ScriptedChat.of("4", logprob=-3.0, name="small")


def ask_chat(cloud, policy=POLICY):
    """Calls of the chat router."""
    router = ChatConfRoute(edge=edge(), cloud=cloud, policy=policy)
    return lambda: router.invoke("2 + 2?")


def aask_chat(cloud, policy=POLICY):
    """Asynchronous calls of the chat router."""
    router = ChatConfRoute(edge=edge(), cloud=cloud, policy=policy)
    return lambda: asyncio.run(router.ainvoke("2 + 2?"))


def ask_chains(cloud, policy=POLICY):
    """Calls of the router between chains."""
    small, large = edge().bind(logprobs=True) | StrOutputParser(), cloud | StrOutputParser()
    router = ConfidenceRouter(edge=small, cloud=large, policy=policy)
    return lambda: router.invoke("2 + 2?")


def ask_plain(cloud, policy=POLICY):
    """Calls of the plain router with LangChain's models."""
    router = Router(edge=edge(), cloud=cloud, policy=policy)
    return lambda: router.ask("2 + 2?")


ROUTERS = (ask_chat, aask_chat, ask_chains, ask_plain)


@pytest.mark.parametrize("made", ROUTERS)
def test_a_hit_costs_nothing_and_says_so(made):
    """The first call is billed, the second is not; both routers' decisions tell them apart."""
    cloud = cached()
    ask = made(cloud)
    with record() as decisions:
        for _ in range(3):
            ask()
    assert len(cloud.seen) == 1
    assert [decision.usage["cloud"] for decision in decisions] == [BILL, Usage(), Usage()]
    assert [decision.steps[-1].cache_hits for decision in decisions] == [0, 1, 1]
    assert [step.get("cache_hits") for one in decisions for step in one.to_dict()["steps"][-1:]] == [
        None,
        1,
        1,
    ]
    assert type(decisions[1]).from_dict(decisions[1].to_dict()).steps[-1].cache_hits == 1


@pytest.mark.parametrize("unit", ["usd", "tokens", "calls"])
@pytest.mark.parametrize("made", ROUTERS)
def test_a_budget_is_not_spent_on_hits(made, unit):
    """After one paid call, any number of hits leaves the budget as it is, and no draft is returned in their place."""
    limit = {"usd": 0.05, "tokens": 4000.0, "calls": 2.0}[unit]
    policy = Paced(
        policy=POLICY,
        budgets=(Budget(limit=limit, unit=unit),),
        price=Price(input_usd=10, output_usd=10),
        max_output_tokens=500,
        store=MemoryStore(),
    )
    ask = made(cached(), policy)
    with record() as decisions:
        for _ in range(6):
            ask()
    notes = [next(iter(decision.layers["budget"].values())) for decision in decisions]
    assert notes[0]["charged"] > 0
    assert [note["charged"] for note in notes[1:]] == [0.0] * 5
    assert [(decision.route, decision.degraded) for decision in decisions] == [("cloud", False)] * 6


def test_a_hit_of_a_model_that_reports_no_usage():
    """LangChain writes a cost of nothing where there were no tokens before."""

    class Silent(ScriptedChat):
        def _message(self, *args):
            return super()._message(*args).model_copy(update={"usage_metadata": None})

    script = ScriptedModel(["four"], name="large")
    router = ChatConfRoute(edge=edge(), cloud=Silent(script=script, cache=InMemoryCache()), policy=POLICY)
    with record() as decisions:
        texts = [router.invoke("2 + 2?").text for _ in range(2)]
    assert texts == ["four", "four"]
    assert ["cloud" in decision.usage for decision in decisions] == [False, True]
    assert decisions[1].usage["cloud"] == Usage()


def test_a_cached_draft_costs_nothing_either():
    """Drafts are answers too; the evidence is as it was."""
    draft = edge().model_copy(update={"cache": InMemoryCache()})
    router = ChatConfRoute(edge=draft, cloud=ScriptedChat.of("four"), policy=POLICY)
    with record() as decisions:
        for _ in range(2):
            router.invoke("2 + 2?")
    assert [decision.usage["edge"].total_tokens > 0 for decision in decisions] == [True, False]
    assert decisions[0].uncertainty == decisions[1].uncertainty == pytest.approx(3.0)
