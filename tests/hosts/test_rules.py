"""Rules in both hosts: tools that decide a call, and that nothing overrides a private one."""

import itertools

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("llama_index.core")

from langchain_core.tools import tool
from llama_index.core.instrumentation.dispatcher import instrument_tags
from llama_index.core.tools import FunctionTool

from confroute import (
    Cascade,
    Gate,
    KeepPrivate,
    Limits,
    SelfConsistency,
    SendTo,
    Threshold,
    TokenLogprob,
    background,
    record,
)
from confroute.budget import Budget, Paced
from confroute.drift import Audited, DriftTest
from confroute.errors import ConfrouteError
from confroute.policy.hedge import Hedged
from confroute.policy.reuse import DraftReuse
from confroute.signals import PTrue
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

ONCE = Limits(attempts=1)
SURE, UNSURE = Reply(text="4", logprob=-0.01), Reply(text="5", logprob=-0.5)
DOWN = Reply(fault=ConnectionError("refused"))


@tool
def pay(amount: int) -> str:
    """Pay."""
    return str(amount)


def test_tool_rules_hold_in_both_hosts():
    """A call that is offered the tool goes to the cloud at once; one that is not is judged."""
    policy = Cascade.of(TokenLogprob(), 0.3, rules=(SendTo(tier="cloud", tools=("pay",)),))
    chat = ChatConfRoute(edge=ScriptedChat.of("4"), cloud=ScriptedChat.of("four"), policy=policy)
    llm = ConfRouteLLM(
        edge=ScriptedLLM(model=ScriptedModel([SURE], name="small")),
        cloud=ScriptedLLM(model=ScriptedModel(["four"], name="large")),
        policy=policy,
    )
    with record() as decisions:
        chat.bind_tools([pay]).invoke("What is 2 + 2?")
        llm.chat_with_tools([FunctionTool.from_defaults(fn=lambda amount: amount, name="pay")], "Pay 2")
        chat.invoke("What is 2 + 2?")
        llm.complete("What is 2 + 2?")
    assert [d.route for d in decisions] == ["cloud", "cloud", "edge", "edge"]
    assert [d.rule for d in decisions[:2]] == ["send_to"] * 2


LAYERS = {
    "plain": lambda policy: policy,
    "hedged at once": lambda policy: Hedged(policy=policy, when="draft"),
    "hedged in the grey zone": lambda policy: Hedged(policy=policy),
    "draft to verify": lambda policy: DraftReuse(policy=policy, mode="verify"),
    "draft to patch": lambda policy: DraftReuse(policy=policy, mode="patch"),
    "audited": lambda policy: audited(policy, "warn"),
    "alarm": lambda policy: audited(policy, "cloud", alarm=True),
    "budget": lambda policy: Paced(
        policy=policy, budgets=(Budget(limit=9, unit="calls"),), store=MemoryStore()
    ),
    "all": lambda policy: Paced(
        policy=audited(Hedged(policy=policy, when="draft"), "cloud", alarm=True),
        budgets=(Budget(limit=9, unit="calls"),),
        store=MemoryStore(),
    ),
}


def audited(policy, on_alarm, *, alarm=False):
    """Every kept answer is audited; the alarm may have been raised already."""
    layer = Audited(
        policy=policy, test=DriftTest(level=0.05), share=1.0, on_alarm=on_alarm, store=MemoryStore()
    )
    if alarm:
        layer._change(lambda state: {**state, "alarm_at": 1})
    return layer


def cascade(rule):
    """Samples and a judgement of its own answer in the grey zone; every fallback leads to the cloud."""
    return Cascade(
        gates=(
            Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3), grey=(0.1, 0.9)),
            Gate(signal=SelfConsistency(n=3), threshold=Threshold(value=0.4), grey=(0.1, 0.9)),
            Gate(signal=PTrue(), threshold=Threshold(value=0.4)),
        ),
        rules=(SendTo(tier="cloud", patterns=("secret",)), rule),
        on_no_signal="cloud",
        on_edge_error="cloud",
    )


RULES = {
    "pattern": (KeepPrivate(patterns=("secret",)), ()),
    "detector": (KeepPrivate(detect=lambda text: "secret" in text), ()),
    "tag": (KeepPrivate(), ("private",)),
}


@pytest.mark.parametrize(
    ("layer", "rule", "edge", "cloud", "host"),
    [
        *itertools.product(
            LAYERS, RULES, [SURE, UNSURE, DOWN], [Reply(text="four"), DOWN], ["langchain", "llamaindex"]
        )
    ],
)
async def test_nothing_overrides_a_private_call(layer, rule, edge, cloud, host):
    """Every layer, rule, outage and form of a call, with a forced route and another rule for the cloud: it hears nothing."""
    keeps, tags = RULES[rule]
    models = {
        "edge": ScriptedModel([edge], samples=["5"], name="small"),
        "cloud": ScriptedModel([cloud], name="large"),
    }
    policy = LAYERS[layer](cascade(keeps))
    given = {"policy": policy, "edge_limits": ONCE, "cloud_limits": ONCE}
    forms = (chat_forms if host == "langchain" else llm_forms)(models, given, tags)
    for form in forms:
        try:
            await form()
        except ConfrouteError:
            assert edge is DOWN
    background.wait()
    await background.await_all()
    assert models["cloud"].calls == []


def chat_forms(models, given, tags):
    """LangChain's four forms of a call."""
    router = ChatConfRoute(
        edge=ScriptedChat(script=models["edge"], model="small"),
        cloud=ScriptedChat(script=models["cloud"], model="large"),
        **given,
    )
    config = {"tags": list(tags), "configurable": {"confroute_route": "cloud"}}

    async def whole():
        router.invoke("a secret", config)

    async def streamed():
        list(router.stream("a secret", config))

    async def awhole():
        await router.ainvoke("a secret", config)

    async def astreamed():
        [chunk async for chunk in router.astream("a secret", config)]

    return whole, streamed, awhole, astreamed


def llm_forms(models, given, tags):
    """LlamaIndex's four forms of a call."""
    router = ConfRouteLLM(
        edge=ScriptedLLM(model=models["edge"]), cloud=ScriptedLLM(model=models["cloud"]), **given
    )
    told = {"confroute": {"route": "cloud", "tags": list(tags)}}

    async def whole():
        with instrument_tags(told):
            router.complete("a secret")

    async def streamed():
        with instrument_tags(told):
            list(router.stream_complete("a secret"))

    async def awhole():
        with instrument_tags(told):
            await router.acomplete("a secret")

    async def astreamed():
        with instrument_tags(told):
            [chunk async for chunk in await router.astream_complete("a secret")]

    return whole, streamed, awhole, astreamed
