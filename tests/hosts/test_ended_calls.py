"""Calls that their caller gives up, and streams that their reader leaves: each leaves one decision, with what was spent until then."""

import asyncio
import gc

import pytest

from confroute import Cascade, Decision, KeepPrivate, TokenLogprob, record
from confroute.asks import Final
from confroute.budget import Budget, Paced
from confroute.decision import Routed
from confroute.drift import Audited, DriftTest
from confroute.heads import WordRidge
from confroute.hosts.router import Router
from confroute.observe.log import DecisionLog, read_log
from confroute.policy import HeadFirst
from confroute.policy.hedge import Hedged
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

POLICY = Cascade.of(TokenLogprob(), 0.25)
DOUBTED = Reply(text="a doubted draft", logprob=-2.0)
WORDS = "one two three four five"
HOSTS = ("router", "langchain", "llamaindex")


def scripted(reply):
    return reply if isinstance(reply, ScriptedModel) else ScriptedModel([reply])


def made(host, edge, cloud, policy=POLICY):
    """A router of a host between two scripts."""
    edge, cloud = scripted(edge), scripted(cloud)
    if host == "langchain":
        return ChatConfRoute(edge=ScriptedChat(script=edge), cloud=ScriptedChat(script=cloud), policy=policy)
    if host == "llamaindex":
        return ConfRouteLLM(edge=ScriptedLLM(model=edge), cloud=ScriptedLLM(model=cloud), policy=policy)
    return Router(edge=edge, cloud=cloud, policy=policy)


def streamed(router):
    return router.stream_complete("?") if isinstance(router, ConfRouteLLM) else router.stream("?")


async def astreamed(router):
    return await router.astream_complete("?") if isinstance(router, ConfRouteLLM) else router.astream("?")


def asked(router):
    if isinstance(router, ConfRouteLLM):
        return router.acomplete("?")
    return router.aask("?") if isinstance(router, Router) else router.ainvoke("?")


def asked_in_turn(router):
    if isinstance(router, ConfRouteLLM):
        return router.complete("?")
    return router.ask("?") if isinstance(router, Router) else router.invoke("?")


async def cancelled(call, model):
    """Cancel a call once this model has been asked."""
    task = asyncio.create_task(call)
    while not model.calls:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def only(decisions):
    (decision,) = decisions
    return decision


def check_abandoned(decision):
    """What the draft said stands in it; of the cloud's answer at least what was read is counted, and at most all of it."""
    assert (decision.route, decision.stage, decision.uncertainty) == ("cloud", "abandoned", 2.0)
    draft, final = decision.steps
    assert (draft.kind, draft.error, draft.usage.output_tokens) == ("draft", None, 3)
    assert (final.kind, final.tier, final.error, final.attempts) == ("final", "cloud", "abandoned", 1)
    assert 1 <= final.usage.output_tokens < len(WORDS.split())
    assert decision.run_id


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("how", ["close", "collect"])
def test_a_stream_that_its_reader_leaves(host, how):
    """By closing it, or by forgetting it."""
    with record() as decisions:
        items = streamed(made(host, DOUBTED, Reply(text=WORDS)))
        next(items)
        next(items)
        assert not decisions
        if how == "close":
            items.close()
        del items
        gc.collect()
    check_abandoned(only(decisions))


@pytest.mark.parametrize("host", HOSTS)
async def test_an_async_stream_that_its_reader_leaves(host):
    with record() as decisions:
        items = await astreamed(made(host, DOUBTED, Reply(text=WORDS)))
        await anext(items)
        await anext(items)
        await items.aclose()
    check_abandoned(only(decisions))


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("slow", ["edge", "cloud"])
async def test_a_cancelled_call(host, slow):
    """While the edge drafts or the cloud answers; what was measured before stands in the decision."""
    late = ScriptedModel([Reply(text=WORDS, latency_s=60)])
    router = made(host, *((late, DOUBTED) if slow == "edge" else (DOUBTED, late)))
    with record() as decisions:
        await cancelled(asked(router), late)
    decision = only(decisions)
    assert (decision.route, decision.stage) == (slow, "cancelled")
    assert decision.steps[-1].error == "cancelled"
    assert decision.steps[-1].latency_s > 0
    assert decision.uncertainty == (None if slow == "edge" else 2.0)


@pytest.mark.parametrize("host", HOSTS)
async def test_a_task_that_is_cancelled_while_it_reads_a_stream(host):
    """The reader has seen nothing yet, or some of it."""
    late = ScriptedModel([Reply(text=WORDS, latency_s=60)])
    router = made(host, DOUBTED, late)

    async def read():
        async for _ in await astreamed(router):
            pass

    with record() as decisions:
        await cancelled(read(), late)
    decision = only(decisions)
    assert (decision.route, decision.uncertainty) == ("cloud", 2.0)
    assert decision.stage in {"cancelled", "abandoned"}


@pytest.mark.parametrize("host", HOSTS)
def test_a_call_that_is_interrupted(host):
    """Ctrl-C while the cloud answers."""
    router = made(host, DOUBTED, Reply(fault=KeyboardInterrupt()))
    with record() as decisions, pytest.raises(KeyboardInterrupt):
        asked_in_turn(router)
    assert (only(decisions).stage, only(decisions).route, only(decisions).uncertainty) == (
        "cancelled",
        "cloud",
        2.0,
    )


@pytest.mark.parametrize("host", HOSTS)
def test_a_stream_that_was_read_to_its_end_has_one_decision(host):
    """Closing it afterwards adds none."""
    with record() as decisions:
        items = streamed(made(host, DOUBTED, Reply(text=WORDS)))
        list(items)
        items.close()
    assert only(decisions).stage == "draft"


@pytest.mark.parametrize("host", HOSTS)
def test_a_private_stream_that_is_left_stays_marked(host):
    policy = Cascade.of(TokenLogprob(), 0.25, rules=(KeepPrivate(patterns=(r"\?",)),))
    with record() as decisions:
        items = streamed(made(host, Reply(text=WORDS), DOUBTED, policy))
        next(items)
        items.close()
    assert (only(decisions).stage, only(decisions).private, only(decisions).route) == (
        "abandoned",
        True,
        "edge",
    )


class Alone:
    """A policy that reports nothing."""

    def flow(self, request):
        evidence = yield Final(tier="cloud")
        decision = Decision(route="cloud", stage="forced", reason="always")
        return Routed(generation=evidence.generations[0], decision=decision)


def head_first():
    head = WordRidge.fit(["prove this", "name that"] * 8, [1, 0] * 8, penalty=0.1)
    return HeadFirst(head=head, cascade=POLICY, cloud_above=0.0, doubt=9.0)


WRAPPED = {
    "audited": lambda: Audited(policy=POLICY, test=DriftTest(level=0.1)),
    "hedged": lambda: Hedged(policy=POLICY, when="draft"),
    "paced": lambda: Paced(
        policy=POLICY, budgets=(Budget(limit=10_000, unit="tokens"),), store="memory:ended"
    ),
    "head": head_first,
    "own": Alone,
}


@pytest.mark.parametrize("name", WRAPPED)
async def test_every_policy_leaves_a_decision(name):
    """One, whichever wrapper the cancellation goes through."""
    late = ScriptedModel([Reply(text=WORDS, latency_s=60)])
    with record() as decisions:
        await cancelled(made("router", DOUBTED, late, WRAPPED[name]()).aask("?"), late)
    assert only(decisions).stage == "cancelled"


async def test_a_budget_is_charged_at_once_for_what_may_be_billed():
    """The whole reservation, which no lease holds any longer."""
    store = MemoryStore()
    paced = Paced(policy=POLICY, budgets=(Budget(limit=10_000, unit="tokens"),), store=store)
    late = ScriptedModel([Reply(text=WORDS, latency_s=60)])
    await cancelled(made("router", DOUBTED, late, paced).aask("?"), late)
    found = store.change(["budget/cloud"], lambda records: (records, records[0]))
    assert found["spent"] > paced.max_output_tokens
    assert not found["held"]


async def test_a_router_inside_tells_what_it_spent():
    """Its decision stands in the step of the outer one, which is billed for both."""
    late = ScriptedModel([Reply(text=WORDS, latency_s=60)])
    inner = made("router", DOUBTED, late)

    async def cloud(messages):
        return (await inner.aask("?")).text

    router = Router(edge=ScriptedModel([DOUBTED]), cloud=cloud, policy=POLICY)
    with record() as decisions:
        await cancelled(router.aask("?"), late)
    final = only(decisions).steps[-1]
    assert [decision.stage for decision in final.inner] == ["cancelled"]
    assert final.usage.output_tokens == 3


def test_a_log_keeps_them(tmp_path):
    """And reads them back."""
    path = tmp_path / "decisions.jsonl"
    with DecisionLog(path):
        items = streamed(made("router", DOUBTED, Reply(text=WORDS)))
        next(items)
        items.close()
    (entry,) = read_log(path)
    check_abandoned(entry.decision)
