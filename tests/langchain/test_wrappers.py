"""Models inside LangChain's wrappers, and with tools bound before the router was made: asked, checked and shaped as bare ones."""

from __future__ import annotations

import httpx
import pytest
from langchain.chat_models import init_chat_model
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from confroute import Cascade, KeepPrivate, SelfConsistency, TokenLogprob
from confroute.errors import PolicyError
from confroute.testing import Reply, ScriptedModel, ScriptedServer
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE

POLICY = Cascade.of(TokenLogprob(), 0.25)


def small(text="4", **given):
    return ScriptedChat.of(text, name="small", logprob=-0.01, **given)


def large():
    return ScriptedChat.of("four", name="large")


def decision_of(message):
    return message.response_metadata["confroute"]


WRAPPED = {
    "with_retry": lambda model: model.with_retry(),
    "with_config": lambda model: model.with_config(tags=["a"]),
    "bind": lambda model: model.bind(seed=7),
    "with_fallbacks": lambda model: model.with_fallbacks([ScriptedChat.of("spare")]),
    "configurable_fields": lambda model: model.configurable_fields(temperature=ConfigurableField(id="t")),
    "alternatives": lambda model: model.configurable_alternatives(
        ConfigurableField(id="which"), other=ScriptedChat.of("other", logprob=-0.01), made=large
    ),
    "chain": lambda model: RunnableLambda(lambda messages: messages) | model,
    "several": lambda model: (RunnableLambda(list) | model.with_retry()).with_fallbacks([large()]),
}


@pytest.mark.parametrize("wrapper", WRAPPED)
async def test_an_edge_is_asked_for_log_probabilities(wrapper):
    """In whatever it is wrapped; what only we asked for is dropped from the answer."""
    router = ChatConfRoute(edge=WRAPPED[wrapper](small()), cloud=large(), policy=POLICY)
    for answer in (router.invoke("q"), await router.ainvoke("q"), list(router.stream("q"))[-1]):
        assert decision_of(answer)["signal"] == "token_logprob"
        assert decision_of(answer)["route"] == "edge"
        assert "logprobs" not in answer.response_metadata


@pytest.mark.parametrize("wrapper", WRAPPED)
def test_an_edge_is_sampled(wrapper):
    """At a temperature of its own, by copies."""
    edge = small(samples=["4", "4", "4"])
    router = ChatConfRoute(
        edge=WRAPPED[wrapper](edge), cloud=large(), policy=Cascade.of(SelfConsistency(n=3), 0.4)
    )
    assert decision_of(router.invoke("2 + 2?"))["route"] == "edge"
    assert {call.temperature for call in edge.script.calls} == {None, 0.7}


def test_what_is_configured_at_the_call_still_holds():
    """Fields and alternatives are chosen by the config, also of a draft."""
    edge = small()
    fields = ChatConfRoute(edge=WRAPPED["configurable_fields"](edge), cloud=large(), policy=POLICY)
    fields.invoke("q", {"configurable": {"t": 0.5}})
    assert [call.temperature for call in edge.script.calls] == [0.5]
    chosen = ChatConfRoute(edge=WRAPPED["alternatives"](small()), cloud=large(), policy=POLICY)
    assert chosen.invoke("q", {"configurable": {"which": "other"}}).text == "other"


class Number(BaseModel):
    """A number."""

    n: int


@pytest.mark.parametrize("wrapper", sorted(WRAPPED.keys() - {"bind"}))
@pytest.mark.parametrize("threshold", [0.25, 0.0])
def test_structured_output(wrapper, threshold):
    """On either tier, by the parser of whichever model answered."""
    edge, cloud = WRAPPED[wrapper](small()), WRAPPED[wrapper](large())
    router = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(span="all"), threshold))
    assert router.with_structured_output(Number).invoke("give 17") == Number(n=17)


def test_structured_output_of_a_fallback():
    """Its parser is another one."""
    down = ScriptedChat.of("x", name="large", fault=ConnectionError("down"))
    router = ChatConfRoute(
        edge=small(),
        cloud=down.with_fallbacks([large()]),
        policy=Cascade.of(TokenLogprob(), 0.0),
        cloud_limits=ONCE,
    )
    assert router.with_structured_output(Number).invoke("give 17") == Number(n=17)


@pytest.fixture
def client():
    with httpx.Client() as client:
        yield client


def test_models_that_are_made_at_the_call(client):
    """`init_chat_model(configurable_fields=...)` has no fields to set: asked by arguments, and without where they are refused."""
    with ScriptedServer(ScriptedModel([Reply(text="4 it is", logprob=-0.05)])) as server:
        settings = {"base_url": server.url, "api_key": "k", "max_retries": 0, "http_client": client}
        edge = init_chat_model("openai:small", configurable_fields=("temperature",), **settings)
        router = ChatConfRoute(edge=edge, cloud=large(), policy=POLICY)
        assert decision_of(router.invoke("q"))["signal"] == "token_logprob"


@pytest.mark.parametrize("tier", ["edge", "cloud"])
def test_values_of_a_model_that_is_made_at_the_call_are_refused_at_build(tier):
    """Nobody can judge them; an edge that is passed over for it would not be missed."""
    made_at_call = init_chat_model("openai:small", configurable_fields=("temperature",), api_key="k")
    router = ChatConfRoute(**{"edge": small(), "cloud": large(), "policy": POLICY, tier: made_at_call})
    with pytest.raises(
        PolicyError, match=f"values of {tier} .*made anew at every call .*; give a chat model"
    ):
        router.with_structured_output(Number)


@tool
def transfer(amount: int) -> str:
    """Transfer money."""
    return str(amount)


CALL = {"calls": [{"name": "transfer", "args": {"amount": 5}}]}


def bound(args=None, **given):
    """A router between models that came with their tools."""
    edge = small().model_copy(
        update=CALL if args is None else {"calls": [{"name": "transfer", "args": args}]}
    )
    cloud = large().model_copy(update=CALL)
    return ChatConfRoute(
        edge=edge.bind_tools([transfer]), cloud=cloud.bind_tools([transfer]), **{"policy": POLICY, **given}
    )


def test_tools_bound_to_the_models():
    """A call without words is an answer."""
    answer = bound().invoke("q")
    assert (decision_of(answer)["route"], answer.tool_calls[0]["args"]) == ("edge", {"amount": 5})


@pytest.mark.parametrize(
    ("given", "reason"),
    [({"cloud_tools": ("transfer",)}, "always the cloud's"), ({"args": {"amount": "five"}}, "does not fit")],
)
def test_tools_bound_to_the_models_are_checked(given, reason):
    """As those that are bound to the router are."""
    answer = bound(**given).invoke("q")
    assert decision_of(answer)["route"] == "cloud"
    assert reason in decision_of(answer)["reason"]


@pytest.mark.parametrize(
    "rule", [KeepPrivate(tools=("transfer",)), KeepPrivate(patterns=("Transfer money",))]
)
def test_rules_see_tools_bound_to_the_models(rule):
    """By name and by their descriptions, also where only one of the models has them."""
    assert decision_of(bound(policy=Cascade(rules=(rule,))).invoke("q"))["private"]
    router = ChatConfRoute(edge=small(), cloud=large().bind_tools([transfer]), policy=Cascade(rules=(rule,)))
    assert decision_of(router.invoke("q"))["private"]


def test_tools_in_the_forms_of_providers(client):
    """Bound as dictionaries of OpenAI or Anthropic."""
    openai = {
        "type": "function",
        "function": {"name": "transfer", "parameters": {"type": "object", "properties": {}}},
    }
    anthropic = {"name": "transfer", "description": "x", "input_schema": {"type": "object", "properties": {}}}
    for form in (openai, anthropic):
        edge = small().model_copy(update=CALL)
        router = ChatConfRoute(
            edge=ChatOpenAI(model="m", api_key="k", http_client=client).bind(tools=[form]),
            cloud=edge,
            policy=Cascade(rules=(KeepPrivate(tools=("transfer",)),)),
        )
        assert set(router._plan.shape.offered) == {"transfer"}


def test_configurable_fields_on_the_router():
    """It is made anew at each call, and keeps what it was given."""
    router = ChatConfRoute(edge=small(), cloud=large(), policy=POLICY, timeout=5, max_retries=0)
    chosen = router.configurable_fields(temperature=ConfigurableField(id="t"))
    used, _ = chosen.prepare({"configurable": {"t": 0.5}})
    assert used._plan.limits == router._plan.limits
    assert used._plan.limits["edge"].timeout_s == 5
    edge = small().model_copy(update={"output_version": "v1"})
    used, _ = (
        ChatConfRoute(edge=edge, cloud=large())
        .configurable_fields(temperature=ConfigurableField(id="t"))
        .prepare({"configurable": {"t": 0.5}})
    )
    assert used._plan.tiers["edge"].chat.output_version == "v1"
