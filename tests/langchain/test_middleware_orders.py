"""The middleware beside others, listed before or after it; and what a LangGraph run tells it."""

from dataclasses import dataclass

import pytest
from langchain.agents import create_agent
from langchain.agents.middleware import (
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
    wrap_model_call,
)
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langgraph.types import TracePolicy, omit_payload
from pydantic import BaseModel

from confroute import Cascade, KeepPrivate, TokenLogprob, record
from confroute.errors import RequestError
from confroute.hosts.options import KEYS
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute, ConfidenceRouter, RoutingContext
from langchain_confroute.middleware import AgentBudget, ConfRouteMiddleware
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE, Watch

STRICT, GOOD = Cascade.of(TokenLogprob(), 0.01), Cascade.of(TokenLogprob(), 0.5)
PRIVATE = Cascade.of(TokenLogprob(), 0.01, rules=(KeepPrivate(patterns=("Jane Doe",)),))
orders = pytest.mark.parametrize("first", [False, True], ids=["listed after", "listed before"])
both = pytest.mark.parametrize("asynchronous", [False, True])


def small():
    return ScriptedChat.of("edge done", name="small", logprob=-0.1)


def failing(name, *replies):
    """A model whose first answers are errors."""
    return ScriptedChat(
        script=ScriptedModel([Reply(fault=RuntimeError("down")), *replies], name=name), model=name
    )


def routed(policy=STRICT, edge=None, **settings):
    return ConfRouteMiddleware(
        edge or small(), policy=policy, edge_limits=ONCE, cloud_limits=ONCE, **settings
    )


def agent(other, ours, *, first, cloud=None):
    """An agent with another middleware before or after ours."""
    middleware = [other, ours] if first else [ours, other]
    return create_agent(cloud or ScriptedChat.of("cloud done", name="large"), middleware=middleware)


async def run(built, asynchronous, text="2 + 3?", **given):
    asked = {"messages": [HumanMessage(text)]}
    return await built.ainvoke(asked, **given) if asynchronous else built.invoke(asked, **given)


def last(result):
    message = result["messages"][-1]
    return message.text, message.response_metadata["confroute"]["route"]


@orders
@both
async def test_a_fallback_is_the_cloud_where_the_cloud_fails(first, asynchronous):
    """In either order its answer is routed, has its decision and is counted."""
    fallback = ModelFallbackMiddleware(ScriptedChat.of("fallback done", name="other"))
    built = agent(fallback, routed(budget=AgentBudget(calls=9)), first=first, cloud=failing("large"))
    result = await run(built, asynchronous)
    assert last(result) == ("fallback done", "cloud")
    kept = agent(fallback, routed(GOOD), first=first, cloud=failing("large"))
    assert last(await run(kept, asynchronous)) == ("edge done", "edge")


@orders
@both
async def test_a_fallback_is_never_sent_what_is_private(first, asynchronous):
    """The edge fails, and nobody else is asked."""
    other = ScriptedChat.of("fallback done", name="other")
    edge = ScriptedChat(
        script=ScriptedModel([Reply(fault=RuntimeError("down"))], name="small"), model="small"
    )
    built = agent(ModelFallbackMiddleware(other), routed(PRIVATE, edge), first=first)
    with pytest.raises(Exception, match="private"):
        await run(built, asynchronous, "Call Jane Doe.")
    assert other.seen == []


@orders
@both
async def test_a_retry_asks_again_from_the_draft_on(first, asynchronous):
    """Draft and cloud are asked once more; the answer is routed."""
    retry = ModelRetryMiddleware(max_retries=1, initial_delay=0, jitter=False)
    cloud = failing("large", Reply(text="cloud done"))
    with record() as decisions:
        result = await run(agent(retry, routed(), first=first, cloud=cloud), asynchronous)
    assert last(result) == ("cloud done", "cloud")
    assert [one.stage for one in decisions] == ["failed", "draft"]


@orders
@both
async def test_a_failure_that_a_retry_puts_into_words_has_no_decision(first, asynchronous):
    """With on_failure="continue" the agent is told, and nothing breaks on that message."""
    retry = ModelRetryMiddleware(max_retries=0, on_failure="continue")
    result = await run(agent(retry, routed(), first=first, cloud=failing("large")), asynchronous)
    assert result["messages"][-1].text.startswith("Model call failed")


@orders
@both
async def test_a_model_that_is_chosen_by_another_is_the_cloud(first, asynchronous):
    """What a middleware that picks a model by the request does (`ModelRouterMiddleware`)."""
    picked = ScriptedChat.of("picked done", name="picked")

    if asynchronous:

        @wrap_model_call
        async def picks(request, handler):
            return await handler(request.override(model=picked, messages=[*request.messages]))
    else:

        @wrap_model_call
        def picks(request, handler):
            return handler(request.override(model=picked, messages=[*request.messages]))

    assert last(await run(agent(picks, routed(), first=first), asynchronous)) == ("picked done", "cloud")
    assert last(await run(agent(picks, routed(GOOD), first=first), asynchronous)) == ("edge done", "edge")
    result = await run(agent(picks, routed(PRIVATE), first=first), asynchronous, "Call Jane Doe.")
    assert last(result) == ("edge done", "edge")


@orders
@both
async def test_a_summary_comes_before_the_call_in_either_order(first, asynchronous):
    """It is made in a node of its own, by its own model, and is the user's turn from then on."""
    writer = ScriptedChat.of("They counted.", name="writer")
    summary = SummarizationMiddleware(writer, trigger=("messages", 3), keep=("messages", 1))
    built = agent(summary, routed(), first=first)
    calls = [{"name": "t", "args": {}, "id": "1"}]
    history = [HumanMessage("1?"), AIMessage("1"), HumanMessage("2?"), AIMessage("", tool_calls=calls)]
    given = {"messages": [*history, ToolMessage("2", tool_call_id="1"), HumanMessage("3?")]}
    result = await built.ainvoke(given) if asynchronous else built.invoke(given)
    assert last(result) == ("cloud done", "cloud")
    assert "They counted." in result["messages"][0].text
    assert len(writer.seen) == 1


class Typed(RoutingContext):
    """A user's own, with what routers read."""

    user: str


@dataclass
class Plain:
    """A user's own dataclass."""

    user: str = "ada"
    confroute_route: str | None = None
    confroute_tags: tuple[str, ...] = ()


class Checked(BaseModel):
    """A user's own pydantic class."""

    confroute_threshold: float | None = None


@both
@pytest.mark.parametrize("inside", ["model", "middleware"])
@pytest.mark.parametrize(
    ("schema", "context", "route"),
    [
        (Typed, {"user": "ada", "confroute_route": "edge"}, "edge"),
        (Plain, Plain(confroute_route="edge"), "edge"),
        (Plain, Plain(), "cloud"),
        (Checked, Checked(confroute_threshold=0.5), "edge"),
        (Typed, None, "cloud"),
    ],
)
async def test_a_run_tells_its_routers_by_its_context(schema, context, route, inside, asynchronous):
    """A router that is the agent's model reads it as the middleware does; the config of the call counts first."""
    cloud = ScriptedChat.of("cloud done", name="large")
    router = ChatConfRoute(edge=small(), cloud=cloud, policy=STRICT, edge_limits=ONCE)
    middleware = [routed()] if inside == "middleware" else []
    built = create_agent(
        cloud if middleware else router, middleware=middleware, context_schema=schema, tools=[]
    )
    assert last(await run(built, asynchronous, context=context))[1] == route
    config = {"configurable": {"confroute_route": "cloud"}}
    assert last(await run(built, asynchronous, context=context, config=config))[1] == "cloud"


def test_labels_add_up_and_a_misspelt_name_is_refused():
    """As in the config."""
    asked = []

    def rule(request):
        asked.append(request.tags & {"a", "b"})

    router = ChatConfRoute(
        edge=small(), cloud=ScriptedChat.of("x", name="large"), policy=Cascade(rules=(rule,))
    )
    built = create_agent(router, context_schema=Plain)
    config = {"configurable": {"confroute_tags": ["b"]}}
    built.invoke({"messages": [HumanMessage("?")]}, config, context=Plain(confroute_tags=("a",)))
    assert asked == [{"a", "b"}]
    with pytest.raises(RequestError, match="the run's context has confroute_rout"):
        create_agent(router).invoke({"messages": [HumanMessage("?")]}, context={"confroute_rout": "edge"})


def test_the_context_is_about_the_outer_router_alone():
    """A router inside the cloud decides for itself, as with the options of a config."""
    inner = ChatConfRoute(edge=small(), cloud=ScriptedChat.of("x", name="large"), policy=GOOD)
    outer = ChatConfRoute(edge=ScriptedChat.of("y", name="tiny"), cloud=inner)
    with record() as decisions:
        create_agent(outer, context_schema=RoutingContext).invoke(
            {"messages": [HumanMessage("?")]}, context={"confroute_route": "cloud"}
        )
    assert [one.route for one in decisions] == ["cloud"]
    (step,) = decisions[0].steps
    assert step.inner[0].route == "edge"


def test_the_typed_context_has_every_option():
    """A new option is not shipped without its place there."""
    assert set(RoutingContext.__annotations__) == {f"confroute_{key}" for key in KEYS}


def test_the_span_of_the_hook_follows_the_trace_policy():
    """Given here, or the class's own."""
    policy = TracePolicy(process_inputs=omit_payload)
    assert routed(trace_policy=policy).trace_policy is policy
    assert routed().trace_policy is None


def test_traces_hold_the_version():
    """Of both kinds of router, beside those of LangChain."""
    cloud = ScriptedChat.of("four", name="large")
    for router in (
        ChatConfRoute(edge=small(), cloud=cloud),
        ConfidenceRouter(edge=small(), cloud=cloud),
        ChatConfRoute(edge=small(), cloud=cloud).bind_tools([]),
    ):
        watch = Watch()
        router.invoke("2 + 2?", {"callbacks": [watch]})
        (top,) = [run for run in watch.runs.values() if run["parent"] is None]
        assert "confroute" in top["metadata"]["lc_versions"]
