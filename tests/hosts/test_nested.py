"""A router as a model of a router: the inner decision stands inside the outer one, and every token is counted once."""

import asyncio

import pytest

from confroute import Cascade, KeepPrivate, Limits, SelfConsistency, TokenLogprob, record
from confroute.decision import Decision
from confroute.hosts.router import Router
from confroute.observe import subscribe
from confroute.testing import Reply, ScriptedModel
from confroute.types import Usage

POLICY = Cascade.of(TokenLogprob(), 0.25)
HOSTS = ("langchain", "llamaindex", "plain", "function")
FORMS = ("whole", "async", "stream", "astream")
BILLS = {"small": 10, "mid": 100, "large": 1000}


def scripted(name, logprob):
    """A model whose bill tells it apart."""
    usage = Usage(input_tokens=BILLS[name], output_tokens=2)
    return ScriptedModel([Reply(text=f"{name} says", logprob=logprob, usage=usage)], name=name)


def chat(name, logprob, fault=None):
    """The same in LangChain's interface."""
    from langchain_confroute.testing import ScriptedChat

    return ScriptedChat(script=_failing(fault, name) or scripted(name, logprob), model=name)


def llm(name, logprob, fault=None):
    """The same in LlamaIndex's."""
    from llamaindex_confroute.testing import ScriptedLLM

    return ScriptedLLM(model=_failing(fault, name) or scripted(name, logprob))


def _failing(fault, name):
    return None if fault is None else ScriptedModel([Reply(fault=fault)], name=name)


def nested(host, fault=None, inner_policy=POLICY):
    """A router whose cloud is a router; all drafts are rejected, and the innermost cloud answers."""
    if host == "llamaindex":
        from llamaindex_confroute import ConfRouteLLM

        inner = ConfRouteLLM(edge=llm("mid", -3.0), cloud=llm("large", -0.1, fault), policy=inner_policy)
        return ConfRouteLLM(edge=llm("small", -3.0), cloud=inner, policy=POLICY)
    if host == "langchain":
        from langchain_confroute import ChatConfRoute

        inner = ChatConfRoute(edge=chat("mid", -3.0), cloud=chat("large", -0.1, fault), policy=inner_policy)
        return ChatConfRoute(edge=chat("small", -3.0), cloud=inner, policy=POLICY)
    large = _failing(fault, "large") or scripted("large", -0.1)
    if host == "plain":
        from langchain_confroute import ChatConfRoute

        inner = ChatConfRoute(edge=chat("mid", -3.0), cloud=chat("large", -0.1, fault), policy=inner_policy)
        return Router(edge=scripted("small", -3.0), cloud=inner, policy=POLICY)
    inner = Router(edge=scripted("mid", -3.0), cloud=large, policy=inner_policy)
    return Router(
        edge=scripted("small", -3.0), cloud=lambda messages: inner.ask(messages).text, policy=POLICY
    )


async def _drained(items):
    return [item async for item in items]


def ask(router, form):
    """The text of one call."""
    if isinstance(router, Router):
        return _plain(router, form)
    if hasattr(router, "invoke"):
        if form == "whole":
            return router.invoke("q").text
        if form == "async":
            return asyncio.run(router.ainvoke("q")).text
        chunks = list(router.stream("q")) if form == "stream" else asyncio.run(_drained(router.astream("q")))
        return "".join(chunk.text for chunk in chunks)
    return _llamaindex(router, form)


def _plain(router, form):
    if form == "whole":
        return router.ask("q").text
    if form == "async":
        return asyncio.run(router.aask("q")).text
    return "".join(router.stream("q") if form == "stream" else asyncio.run(_drained(router.astream("q"))))


def _llamaindex(router, form):
    if form == "whole":
        return router.complete("q").text
    if form == "async":
        return asyncio.run(router.acomplete("q")).text
    if form == "stream":
        return [*router.stream_complete("q")][-1].text

    async def last():
        return (await _drained(await router.astream_complete("q")))[-1].text

    return asyncio.run(last())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("host", HOSTS)
def test_the_inner_decision_stands_inside_the_outer(host, form):
    """One decision for `record()` and for subscribers; the sums of its tiers are what the three models were billed."""
    seen = []
    stop = subscribe(seen.append)
    try:
        with record() as decisions:
            assert ask(nested(host), form) == "large says"
    finally:
        stop()
    (outer,) = decisions
    assert seen == [outer]
    assert {tier: usage.input_tokens for tier, usage in outer.usage.items()} == {"edge": 10, "cloud": 1100}
    (inner,) = outer.steps[-1].inner
    assert (outer.route, inner.route, inner.uncertainty) == ("cloud", "cloud", 3.0)
    assert {tier: usage.input_tokens for tier, usage in inner.usage.items()} == {"edge": 100, "cloud": 1000}
    again = Decision.from_dict(outer.to_dict()).steps[-1].inner
    assert [one.usage for one in again] == [inner.usage]


@pytest.mark.parametrize("form", ["whole", "async"])
@pytest.mark.parametrize("host", ["langchain", "llamaindex"])
def test_the_answer_carries_the_outer_record_with_the_inner_in_it(host, form):
    """Neither overwrites the other."""
    router = nested(host)
    if host == "langchain":
        answer = router.invoke("q") if form == "whole" else asyncio.run(router.ainvoke("q"))
        kept = answer.response_metadata["confroute"]
    else:
        answer = router.complete("q") if form == "whole" else asyncio.run(router.acomplete("q"))
        kept = answer.additional_kwargs["confroute"]
    assert kept["usage"]["cloud"]["input_tokens"] == 1100
    assert kept["steps"][-1]["inner"][0]["usage"]["edge"]["input_tokens"] == 100


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("host", HOSTS)
def test_what_a_failed_inner_call_was_billed_is_counted(host, form):
    """The inner cloud is down: the rejected inner draft was paid all the same, and the failed step holds it."""
    router = nested(host, fault=ConnectionResetError("cut"))
    with record() as decisions, pytest.raises(Exception):  # noqa: B017, PT011  each host's own error
        ask(router, form)
    (outer,) = decisions
    assert (outer.stage, outer.usage["cloud"].input_tokens % 100, outer.usage["edge"].input_tokens) == (
        "failed",
        0,
        10,
    )
    inner = outer.steps[-1].inner
    assert inner[0].stage == "failed"
    assert outer.usage["cloud"].input_tokens == 100 * len(inner)


def test_samples_of_an_inner_router_are_all_inside():
    """A router as edge, sampled: each draw's decision, each model's bill."""
    from langchain_confroute import ChatConfRoute

    inner = ChatConfRoute(edge=chat("small", -3.0), cloud=chat("mid", -0.1), policy=POLICY)
    router = Router(
        edge=lambda messages: inner.invoke([(m.role, m.text) for m in messages]).text,
        cloud=scripted("large", -0.1),
        policy=Cascade.of(SelfConsistency(n=2, step=2), 0.9),
    )
    with record() as decisions:
        router.ask("What is 2 + 2?")
    (outer,) = decisions
    drawn = [step for step in outer.steps if step.tier == "edge"]
    assert [len(step.inner) for step in drawn] == [step.n for step in drawn]
    assert outer.usage["edge"].input_tokens == 110 * sum(step.n for step in drawn)


def test_options_do_not_leak_inward():
    """A threshold, a route and labels of the outer call are not the inner router's."""
    router = nested("langchain")
    for options in ({"confroute_threshold": 5.0}, {"confroute_route": "cloud"}):
        with record() as decisions:
            router.invoke("q", {"configurable": options})
        (outer,) = decisions
        if outer.route == "cloud":
            (inner,) = outer.steps[-1].inner
            assert (inner.route, inner.stage) == ("cloud", "draft")
        else:
            assert outer.threshold == 5.0
    with record() as decisions:
        router.invoke("q", {"configurable": {"confroute_threshold": {"token_logprob": 0.1}}})
    assert decisions[0].steps[-1].inner[0].threshold == 0.25


def test_ambient_options_do_not_leak_inward():
    """LlamaIndex's tags around the call are the outer router's."""
    from llama_index_instrumentation.dispatcher import instrument_tags

    router = nested("llamaindex")
    with instrument_tags({"confroute": {"route": "cloud"}}), record() as decisions:
        router.complete("q")
    (outer,) = decisions
    assert outer.stage == "forced"
    assert outer.steps[-1].inner[0].stage == "draft"


def test_rules_of_the_inner_router_still_act():
    """It sees the conversation, and keeps private text on its own edge."""
    private = Cascade.of(TokenLogprob(), 0.25, rules=(KeepPrivate(patterns=("q",)),))
    with record() as decisions:
        assert nested("langchain", inner_policy=private).invoke("q").text == "mid says"
    assert decisions[0].steps[-1].inner[0].private


def test_a_record_inside_the_inner_call_collects():
    """Who records inside a model's call gets what is routed there."""
    seen = []
    inner = Router(edge=scripted("mid", -0.01), cloud=scripted("large", -0.1), policy=POLICY)

    def cloud(messages):
        with record() as decisions:
            text = inner.ask(messages).text
        seen.extend(decisions)
        return text

    with record() as decisions:
        Router(edge=scripted("small", -3.0), cloud=cloud, policy=POLICY).ask("q")
    assert [one.route for one in seen] == ["edge"]
    assert decisions[0].steps[-1].inner == tuple(seen)


def _large_fails_once():
    usage = Usage(input_tokens=BILLS["large"], output_tokens=2)
    replies = [Reply(fault=ConnectionResetError("cut")), Reply(text="large says", usage=usage)]
    return ScriptedModel(replies, name="large")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("host", ["langchain", "llamaindex"])
def test_an_inner_call_that_failed_and_was_made_again_is_billed_twice(host, form):
    """Of the first attempt the inner draft was paid, whole and streamed."""
    again, once = Limits(attempts=2, wait_s=0), Limits(attempts=1)
    limits = {"edge_limits": once, "cloud_limits": once}
    if host == "langchain":
        from langchain_confroute import ChatConfRoute
        from langchain_confroute.testing import ScriptedChat

        cloud = ScriptedChat(script=_large_fails_once(), model="large")
        inner = ChatConfRoute(edge=chat("mid", -3.0), cloud=cloud, policy=POLICY, **limits)
        router = ChatConfRoute(edge=chat("small", -3.0), cloud=inner, policy=POLICY, cloud_limits=again)
    else:
        from llamaindex_confroute import ConfRouteLLM
        from llamaindex_confroute.testing import ScriptedLLM

        cloud = ScriptedLLM(model=_large_fails_once())
        inner = ConfRouteLLM(edge=llm("mid", -3.0), cloud=cloud, policy=POLICY, **limits)
        router = ConfRouteLLM(edge=llm("small", -3.0), cloud=inner, policy=POLICY, cloud_limits=again)
    with record() as decisions:
        assert ask(router, form) == "large says"
    (outer,) = decisions
    assert [one.stage for one in outer.steps[-1].inner] == ["failed", "draft"]
    assert outer.usage["cloud"].input_tokens == 100 + 1100


@pytest.mark.parametrize("form", FORMS)
def test_samples_that_arrived_before_another_failed_are_billed_once(form):
    """They are kept when the rest is drawn again, and count with their own bill alone."""
    from langchain_confroute import ChatConfRoute
    from langchain_confroute.testing import ScriptedChat

    usage = Usage(input_tokens=BILLS["mid"], output_tokens=2)
    said = Reply(text="mid says", logprob=-0.1, usage=usage)
    # A draft, and of three samples the last fails once.
    mid = ScriptedModel([said, said, said, Reply(fault=ConnectionResetError("cut")), said], name="mid")
    limits = {"edge_limits": Limits(attempts=1), "cloud_limits": Limits(attempts=1)}
    inner = ChatConfRoute(
        edge=chat("small", -3.0), cloud=ScriptedChat(script=mid, model="mid"), policy=POLICY, **limits
    )
    router = ChatConfRoute(
        edge=inner,
        cloud=chat("large", -0.1),
        policy=Cascade.of(SelfConsistency(n=3, step=3), 0.9),
        edge_limits=Limits(attempts=2, wait_s=0),
    )
    with record() as decisions:
        assert ask(router, form) == "mid says"
    (outer,) = decisions
    assert (outer.steps[-1].attempts, len(outer.steps[-1].inner)) == (2, 4)
    # Five inner drafts, four inner answers.
    assert outer.usage["edge"].input_tokens == 5 * 10 + 4 * 100


def test_a_function_that_hands_on_an_inner_answer_is_billed_for_all_of_it():
    """Such an answer tells the bill of the model that gave it, and not of the drafts before it."""
    inner = Router(edge=scripted("mid", -3.0), cloud=scripted("large", -0.1), policy=POLICY)
    router = Router(
        edge=scripted("small", -3.0), cloud=lambda messages: inner.ask(messages).generation, policy=POLICY
    )
    decision = router.ask("q").decision
    assert decision.usage["cloud"] == Usage(input_tokens=1100, output_tokens=4)
