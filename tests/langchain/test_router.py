"""ConfidenceRouter: whole chains by the same policy."""

from __future__ import annotations

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from confroute import Cascade, KeepPrivate, SelfConsistency, TokenLogprob, record
from confroute.errors import AllTiersFailedError, PolicyError, RequestError
from confroute.models.resilience import Limits
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.runnable import prompt_of
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE, forced

PROMPT = ChatPromptTemplate.from_template("Answer: {question}")


def chain_of(model):
    return PROMPT | model | StrOutputParser()


@pytest.fixture
def small():
    return ScriptedChat.of("edge says so", name="small", logprob=-0.2).bind(logprobs=True)


@pytest.fixture
def large():
    return ScriptedChat.of("cloud knows it well", name="large")


def router(small, large, threshold, **settings):
    limits = {"edge_limits": ONCE, "cloud_limits": ONCE}
    policy = Cascade.of(TokenLogprob(), threshold)
    return ConfidenceRouter(
        **{"edge": chain_of(small), "cloud": chain_of(large), "policy": policy, **limits, **settings}
    )


@pytest.mark.parametrize(
    ("threshold", "text", "route"), [(0.5, "edge says so", "edge"), (0.1, "cloud knows it well", "cloud")]
)
async def test_all_forms_agree(small, large, watch, threshold, text, route):
    """invoke, ainvoke, batch, stream and astream give one answer and one decision a call."""
    chains = router(small, large, threshold)
    given = {"question": "q"}
    with record() as decisions, get_usage_metadata_callback() as usage:
        assert chains.invoke(given, {"callbacks": [watch]}) == text
        assert await chains.ainvoke(given) == text
        assert chains.batch([given, given]) == [text] * 2
        assert await chains.abatch([given]) == [text]
        assert "".join(chains.stream(given)) == text
        assert "".join([c async for c in chains.astream(given)]) == text
    assert [d.route for d in decisions] == [route] * 7
    assert decisions[0].usage["edge"].output_tokens == 3
    assert usage.usage_metadata["small"]["output_tokens"] == 21
    assert watch.custom[0][0] == "confroute.decision"
    assert watch.tree()[0][0] == "ConfidenceRouter"


def test_the_same_policy_decides_as_in_the_chat_model(small, large):
    """One policy object, both classes, one verdict."""
    policy = Cascade.of(TokenLogprob(), 0.15)
    with record() as decisions:
        ConfidenceRouter(edge=small, cloud=large, policy=policy).invoke("q")
        ChatConfRoute(edge=small, cloud=large, policy=policy).invoke("q")
    one, other = decisions
    assert (one.route, one.uncertainty, one.reason) == (other.route, other.uncertainty, other.reason)


def test_log_probabilities_of_every_model_count(small, large):
    """With two models in the chain, one without log-probabilities leaves the chain without evidence."""
    silent = ScriptedChat.of("edge says so", name="silent")
    two = PROMPT | small | RunnableLambda(lambda m: [HumanMessage(m.text)]) | silent | StrOutputParser()
    with record() as decisions:
        assert router(small, large, 5.0, edge=two).invoke({"question": "q"}) == "cloud knows it well"
        both = PROMPT | small | RunnableLambda(lambda m: [HumanMessage(m.text)]) | silent.bind(logprobs=True)
        router(small, large, 5.0, edge=both).invoke({"question": "q"})
    assert decisions[0].stage == "no_signal"
    assert decisions[1].route == "edge"
    assert decisions[1].signals["token_logprob"].details["tokens"] == 6


def test_sampling_needs_a_sampler(large):
    """Without one there is no evidence; with one its temperature is the policy's."""
    model = ScriptedChat.of("4", name="small", samples=["4"])
    policy = Cascade.of(SelfConsistency(n=3, temperature=0.9), 0.3)
    with record() as decisions:
        router(model, large, 0.5, policy=policy).invoke({"question": "2 + 2?"})
        router(
            model, large, 0.5, policy=policy, edge_sampler=lambda t: chain_of(model.bind(temperature=t))
        ).invoke({"question": "2 + 2?"})
    assert [d.stage for d in decisions] == ["no_signal", "evidence"]
    assert [d.route for d in decisions] == ["cloud", "edge"]
    assert {heard.temperature for heard in model.script.calls} == {None, 0.9}


def test_overrides_rules_and_errors(small, large):
    """As in the chat model."""
    chains = router(small, large, 0.1)
    assert chains.invoke({"question": "q"}, forced("edge")) == "edge says so"
    assert "".join(chains.stream({"question": "q"}, forced("cloud"))) == "cloud knows it well"
    assert {"confroute_route", "confroute_threshold"} <= {spec.id for spec in chains.config_specs}
    with pytest.raises(RequestError):
        chains.invoke({"question": ""})
    private = router(small, large, 0.1, policy=Cascade(rules=(KeepPrivate(patterns=("secret",)),)))
    assert private.invoke({"question": "a secret"}) == "edge says so"
    with pytest.raises(PolicyError, match="same chain"):
        ConfidenceRouter(edge=small, cloud=small)
    with pytest.raises(PolicyError, match="tiers"):
        router(small, large, 0.1, policy=Cascade(tiers=("a", "b")))

    def broken(_):
        raise OSError("no")

    with pytest.raises(AllTiersFailedError):
        router(
            small,
            large,
            0.1,
            edge=RunnableLambda(broken),
            cloud=RunnableLambda(broken),
            cloud_limits=Limits(attempts=1),
        ).invoke("q")


def test_inputs_as_conversations():
    """Strings, messages, prompts and mappings are what the rules see."""
    assert [m.text for m in prompt_of("a")] == ["a"]
    assert [m.role for m in prompt_of([("system", "s"), HumanMessage("h")])] == ["system", "user"]
    assert [m.text for m in prompt_of({"a": "x", "b": [HumanMessage("y")], "c": 3})] == ["x", "y", "3"]
    assert [m.text for m in prompt_of(PROMPT.invoke({"question": "q"}))] == ["Answer: q"]


async def test_early_close(small, large, watch, until):
    """Leaving a stream early closes the chain below."""
    chains = router(small, large, 0.1)
    stream = chains.stream({"question": "q"}, {**forced("cloud"), "callbacks": [watch]})
    next(stream)
    stream.close()
    assert all(run["end"] for run in watch.runs.values())
    astream = chains.astream({"question": "q"}, {**forced("cloud"), "callbacks": [watch]})
    await anext(astream)
    await astream.aclose()
    # LangChain's own sequence leaves its last generators to the event loop, and the model's run open for good.
    await until(lambda: all(run["end"] for run in watch.runs.values() if run["kind"] == "chain"))
