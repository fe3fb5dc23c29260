"""Budgets and audits in SQLite and Redis, and breakers, through both hosts."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from confroute import Breaker, Cascade, Limits, TokenLogprob, background, record
from confroute.budget import Budget, Paced
from confroute.drift import Audited, DriftTest
from confroute.state import RedisStore, SQLiteStore
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

ONCE = Limits(attempts=1)
SURE, UNSURE = Reply(text="4", logprob=-0.01), Reply(text="5", logprob=-2.0)


@pytest.fixture(params=["sqlite", "redis"])
def store(request, tmp_path):
    """A store that outlives the process."""
    if request.param == "sqlite":
        store = SQLiteStore(tmp_path / "state.db")
    else:
        store = RedisStore(request.getfixturevalue("redis_url"))
        store._redis.flushdb()
    yield store
    store.close()


class Host:
    """One host's router over scripted models, with the same interface for both hosts."""

    def __init__(self, name, policy, *, edge=UNSURE, cloud="four", cloud_limits=ONCE):
        self.models = {
            "edge": ScriptedModel([edge], name="small"),
            "cloud": ScriptedModel([cloud], name="large"),
        }
        settings = {"policy": policy, "edge_limits": ONCE, "cloud_limits": cloud_limits}
        if name == "langchain":
            edge, cloud = (ScriptedChat(script=model, model=model.name) for model in self.models.values())
            router = ChatConfRoute(edge=edge, cloud=cloud, **settings)
            self.ask, self.aask = router.invoke, router.ainvoke
        else:
            edge, cloud = (ScriptedLLM(model=model) for model in self.models.values())
            router = ConfRouteLLM(edge=edge, cloud=cloud, **settings)
            self.ask, self.aask = router.complete, router.acomplete

    def one(self, _=None):
        """The decision of one sync call."""
        with record() as decisions:
            self.ask("What is 2 + 2?")
        return decisions[0]

    async def aone(self):
        """The decision of one async call."""
        with record() as decisions:
            await self.aask("What is 2 + 2?")
        return decisions[0]


@pytest.fixture(params=["langchain", "llamaindex"])
def host(request):
    """A function that makes a router of one host."""
    return lambda policy, **settings: Host(request.param, policy, **settings)


async def test_a_cap_holds_for_threads_and_tasks_together(host, store):
    """Of 12 calls by threads and 12 by tasks exactly the 10 that fit go to the cloud; a new router has nothing left."""
    policy = Paced(
        policy=Cascade.of(TokenLogprob(), 0.3), budgets=(Budget(limit=10, unit="calls"),), store=store
    )
    router = host(policy)
    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(router.one) for _ in range(12)]
        tasks = await asyncio.gather(*(router.aone() for _ in range(12)))
    decisions = [*tasks, *(thread.result() for thread in threads)]
    assert sum(decision.route == "cloud" for decision in decisions) == 10
    assert len(router.models["cloud"].calls) == 10
    assert sum(decision.degraded for decision in decisions) == 14
    assert host(policy).one().degraded


async def test_audits_are_counted_exactly(host, store):
    """Of 12 kept answers by threads and tasks each audit counts once, and the alarm holds for every router."""
    policy = Audited(
        policy=Cascade.of(TokenLogprob(), 0.3),
        test=DriftTest(level=0.05),
        share=1.0,
        on_alarm="cloud",
        store=store,
    )
    router = host(policy, edge=SURE, cloud="7")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(router.one, range(6)))
    await asyncio.gather(*(router.aone() for _ in range(6)))
    background.wait()
    await background.await_all()
    state = policy.state()
    assert state["audits"] <= len(router.models["cloud"].calls) <= 12
    assert state["alarm_at"] is not None
    assert state["lost"] == state["audits"]
    assert host(policy, edge=SURE).one().route == "cloud"


async def test_a_breaker_stops_sync_and_async_calls_alike(host):
    """After three consecutive failures neither asks the cloud; the flagged draft is returned."""
    breaker = Breaker(failures=3, open_s=60)
    policy = Cascade.of(TokenLogprob(), 0.3, on_cloud_error="edge")
    down = Reply(fault=ConnectionError("refused"))
    router = host(policy, cloud=down, cloud_limits=Limits(attempts=1, breaker=breaker))
    decisions = [router.one(), await router.aone(), router.one(), await router.aone(), router.one()]
    assert len(router.models["cloud"].calls) == 3
    assert breaker.state == "open"
    assert all(decision.degraded for decision in decisions)
    assert "BreakerOpenError" in decisions[-1].reason
