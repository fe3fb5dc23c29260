"""Errors, time limits, retries and cancellation."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage

from confroute import Cascade, KeepPrivate, TokenLogprob, record
from confroute.errors import (
    AllTiersFailedError,
    RequestError,
    StreamInterruptedError,
    TierError,
    TierTimeoutError,
)
from confroute.models.resilience import Limits
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE, forced


class Busy(Exception):  # noqa: N818  read as a sentence in the tests
    """A transient HTTP error."""

    status_code = 503


class Held(ScriptedChat):
    """A model that waits, in each of its calls, at a place of the test's own, in a thread or in a task."""

    thread: Any = None
    task: Any = None

    def _generate(self, *args: Any, **kwargs: Any) -> Any:
        self.thread()
        return super()._generate(*args, **kwargs)

    async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
        await self.task()
        return await super()._agenerate(*args, **kwargs)

    def _stream(self, *args: Any, **kwargs: Any) -> Any:
        self.thread()
        yield from super()._stream(*args, **kwargs)


def model_of(*replies, name):
    return ScriptedChat(script=ScriptedModel([*replies], name=name), model=name)


def router(edge, cloud, **settings):
    limits = {"edge_limits": ONCE, "cloud_limits": ONCE}
    return ChatConfRoute(edge=edge, cloud=cloud, **{**limits, **settings})


def decision_of(message):
    return message.response_metadata["confroute"]


@pytest.mark.parametrize("given", ["", [], [HumanMessage("")], [HumanMessage([])]])
async def test_empty_conversations(accepting, watch, given):
    """Refused before any model is asked, in all four forms, the run closed as an error."""
    with pytest.raises(RequestError, match="empty"):
        accepting.invoke(given, {"callbacks": [watch]})
    with pytest.raises(RequestError):
        await accepting.ainvoke(given, {"callbacks": [watch]})
    with pytest.raises(RequestError):
        list(accepting.stream(given, {"callbacks": [watch]}))
    with pytest.raises(RequestError):
        _ = [chunk async for chunk in accepting.astream(given, {"callbacks": [watch]})]
    assert [(run["kind"], run["end"]) for run in watch.runs.values()] == [("chain", "error")] * 4


@pytest.mark.parametrize("streaming", [False, True])
async def test_edge_down_goes_to_the_cloud(cloud, streaming):
    """Recorded as a fallback, in every form."""
    model = router(model_of(Reply(fault=Busy("busy")), name="small"), cloud)
    if streaming:
        answers = [list(model.stream("q"))[-1], [c async for c in model.astream("q")][-1]]
    else:
        answers = [model.invoke("q"), await model.ainvoke("q")]
    for answer in answers:
        assert decision_of(answer)["stage"] == "fallback"
        assert decision_of(answer)["route"] == "cloud"
        assert decision_of(answer)["steps"][0]["error"] == "Busy"


def test_edge_down_may_raise(cloud):
    """on_edge_error="raise" hands the edge's own error on."""
    model = router(
        model_of(Reply(fault=Busy("busy")), name="small"), cloud, policy=Cascade(on_edge_error="raise")
    )
    with pytest.raises(Busy):
        model.invoke("q")


def test_transient_errors_are_tried_again(cloud):
    """The attempts stand in the decision."""
    edge = model_of(Reply(fault=Busy("busy")), Reply(text="fine", logprob=-0.01), name="small")
    model = router(edge, cloud, edge_limits=Limits(attempts=2, wait_s=0.001, max_wait_s=0.001))
    decision = decision_of(model.invoke("q"))
    assert decision["route"] == "edge"
    assert decision["steps"][0]["attempts"] == 2


async def test_cloud_down_after_a_rejected_draft(edge):
    """Raised from the cloud's error, or the draft flagged degraded, as the policy says."""
    cloud = model_of(Reply(fault=Busy("busy")), name="large")
    with pytest.raises(TierError, match="rejected") as caught:
        router(edge, cloud, policy=Cascade.of(TokenLogprob(), 0.1)).invoke("q")
    assert isinstance(caught.value.__cause__, Busy)
    lenient = router(edge, cloud, policy=Cascade.of(TokenLogprob(), 0.1, on_cloud_error="edge"))
    for answer in (
        lenient.invoke("q"),
        await lenient.ainvoke("q"),
        list(lenient.stream("q"))[-1],
        [c async for c in lenient.astream("q")][-1],
    ):
        assert decision_of(answer)["degraded"]
        assert decision_of(answer)["route"] == "edge"
    assert "".join(chunk.text for chunk in lenient.stream("q")) == "edge says so"


async def test_both_down(watch):
    """One error that names both, and every run closed."""
    model = router(
        model_of(Reply(fault=Busy("edge busy")), name="small"),
        model_of(Reply(fault=OSError("cloud gone")), name="large"),
    )
    with pytest.raises(AllTiersFailedError, match=r"edge busy.*cloud gone"):
        model.invoke("q", {"callbacks": [watch]})
    with pytest.raises(AllTiersFailedError):
        await model.ainvoke("q")
    assert {run["end"] for run in watch.runs.values()} == {"error"}


def test_private_text_never_leaves_the_edge(cloud):
    """With the edge down a private call fails, whatever is asked for."""
    edge = model_of(Reply(fault=Busy("busy")), name="small")
    model = router(edge, cloud, policy=Cascade(rules=(KeepPrivate(patterns=("secret",)),)))
    with pytest.raises(TierError, match="private"):
        model.invoke("my secret", forced("cloud"))
    assert not cloud.seen


async def test_time_limits(cloud, silence):
    """An edge that does not answer is given up on, sync and async; forced, it raises."""
    edge = Held(model="small", thread=silence.wait, task=silence.await_end)
    model = router(edge, cloud, edge_limits=Limits(timeout_s=0.05, attempts=1))
    for answer in (model.invoke("q"), await model.ainvoke("q")):
        assert decision_of(answer)["steps"][0]["error"] == "TierTimeoutError"
        assert decision_of(answer)["route"] == "cloud"
    with pytest.raises(TierTimeoutError):
        model.invoke("q", forced("edge"))
    with pytest.raises(TierTimeoutError):
        list(model.stream("q", forced("edge")))


async def test_a_broken_stream_is_not_patched_up(edge):
    """After the first chunk no other answer may follow."""
    cloud = model_of(Reply(text="one two three", fault=Busy("cut"), fault_after=2), name="large")
    model = router(edge, cloud, policy=Cascade.of(TokenLogprob(), 0.1, on_cloud_error="edge"))
    stream = model.stream("q")
    assert [next(stream).text, next(stream).text] == ["one", " two"]
    with pytest.raises(StreamInterruptedError):
        next(stream)
    with pytest.raises(StreamInterruptedError):
        _ = [c async for c in model.astream("q")]


@pytest.mark.parametrize("streaming", [False, True])
async def test_cancellation_closes_every_run(edge, watch, until, streaming):
    """A cancelled task leaves no open run, and a decision that says so."""
    slow = model_of(Reply(text="late", latency_s=5), name="large")
    model = router(edge, slow, policy=Cascade.of(TokenLogprob(), 0.1))

    async def consume():
        if streaming:
            return [c async for c in model.astream("q", {"callbacks": [watch]})]
        return await model.ainvoke("q", {"callbacks": [watch]})

    with record() as decisions:
        task = asyncio.create_task(consume())
        await until(lambda: slow.seen)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [decision.stage for decision in decisions] == ["cancelled"]
    ends = {(run["kind"], run["end"]) for run in watch.runs.values()}
    assert ("chain", "error") in ends
    assert not any(end is None for kind, end in ends if kind == "chain")


async def test_concurrent_calls_overlap(cloud, meeting):
    """None of five calls ends before all have begun."""
    script = ScriptedModel([Reply(text="fine", logprob=-0.01)])
    model = router(Held(script=script, model="small", task=meeting(5).await_all), cloud)
    answers = await asyncio.gather(*(model.ainvoke(f"q{i}") for i in range(5)))
    assert {decision_of(a)["route"] for a in answers} == {"edge"}


async def test_a_model_without_an_async_form_runs_in_a_thread(cloud):
    """ChatHuggingFace around a local pipeline raises NotImplementedError from ainvoke."""

    class SyncOnly(ScriptedChat):
        async def _agenerate(self, *args, **kwargs):
            raise NotImplementedError

    edge = SyncOnly(script=ScriptedModel([Reply(text="fine", logprob=-0.01)], name="small"), model="small")
    model = router(edge, cloud)
    for _ in range(2):
        assert decision_of(await model.ainvoke("q"))["route"] == "edge"
    assert model._plan.tiers["edge"].sync_only


@pytest.mark.parametrize(
    "message",
    [
        HumanMessage([{"type": "text-plain", "mime_type": "text/plain", "text": "a secret"}]),
        HumanMessage(
            [{"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a secret"}}]
        ),
        AIMessage([{"type": "reasoning", "reasoning": "a secret"}]),
        AIMessage(
            "",
            invalid_tool_calls=[
                {"name": "f", "args": "{secret", "id": "1", "error": None, "type": "invalid_tool_call"}
            ],
        ),
    ],
)
def test_private_text_is_found_wherever_a_message_holds_it(edge, cloud, message):
    """Plain-text files, documents, reasoning and broken tool calls are sent as well: rules see them."""
    model = router(edge, cloud, policy=Cascade(rules=(KeepPrivate(patterns=("secret",)),)))
    answer = model.invoke([HumanMessage("q"), message, HumanMessage("go on")])
    assert answer.response_metadata["confroute"]["rule"] == "keep_private"


class Overloaded(Exception):  # noqa: N818  as clients name theirs
    """A client's own error, which callers retry by its class."""

    status_code = 418


def failing_once():
    """A cloud that fails once, behind an edge whose draft is rejected."""
    edge = ScriptedChat.of("weak", name="small", logprob=-3.0)
    cloud = model_of(Reply(fault=Overloaded("busy")), Reply(text="fine"), name="large")
    return router(edge, cloud, policy=Cascade.of(TokenLogprob(), 0.25))


def test_callers_that_act_by_the_class_of_an_error():
    """with_retry, with_fallbacks, a graph's retry policy: they see the cloud's error, and which tier failed."""
    pytest.importorskip("langgraph", reason="the caller is a graph of langgraph")
    from langgraph.graph import MessagesState, StateGraph
    from langgraph.types import RetryPolicy

    with pytest.raises(Overloaded) as raised:
        failing_once().invoke("q")
    assert isinstance(raised.value, TierError)
    retried = failing_once().with_retry(
        retry_if_exception_type=(Overloaded,), wait_exponential_jitter=False, stop_after_attempt=2
    )
    assert retried.invoke("q").text == "fine"
    spare = ScriptedChat.of("spare")
    handled = failing_once().with_fallbacks([spare], exceptions_to_handle=(Overloaded,))
    assert handled.invoke("q").text == "spare"
    model, graph = failing_once(), StateGraph(MessagesState)
    graph.add_node(
        "chat",
        lambda state: {"messages": [model.invoke(state["messages"])]},
        retry_policy=RetryPolicy(retry_on=Overloaded, initial_interval=0.001, max_attempts=2),
    )
    graph.add_edge("__start__", "chat")
    assert graph.compile().invoke({"messages": [("user", "q")]})["messages"][-1].text == "fine"


@pytest.mark.parametrize(
    ("fault", "retried"),
    [(Overloaded("busy"), True), (ConnectionResetError(), True), (ValueError("bad"), False)],
)
def test_a_graph_retries_what_it_retries_of_a_bare_model(fault, retried):
    """Its own rule goes by classes that a failed tier must not bring along."""
    pytest.importorskip("langgraph", reason="the rule is that of langgraph's retry policy")
    from langgraph.types import RetryPolicy

    edge = ScriptedChat.of("weak", name="small", logprob=-3.0)
    cloud = model_of(Reply(fault=fault), name="large")
    policy = Cascade.of(TokenLogprob(), 0.25)
    behind_a_draft = router(edge, cloud, policy=policy, cloud_limits=Limits(attempts=1))
    down = model_of(Reply(fault=ConnectionResetError()), name="small")
    both_failed = router(
        down, cloud, policy=policy, edge_limits=Limits(attempts=1), cloud_limits=Limits(attempts=1)
    )
    retry_on = RetryPolicy().retry_on
    for failing in (behind_a_draft, both_failed):
        with pytest.raises(TierError) as raised:
            failing.invoke("q")
        assert retry_on(raised.value) is retry_on(fault) is retried


def test_a_wrong_key_is_not_tried_again_by_an_agent():
    """The class says that it is of no use, and each attempt would draft anew."""
    pytest.importorskip("langchain.agents", reason="the caller is an agent of the langchain package")
    pytest.importorskip("langchain_openai", reason="the wrong key is one of OpenAI's client")
    import httpx
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelRetryMiddleware
    from langchain_openai import ChatOpenAI

    from confroute.testing import ScriptedServer

    edge = ScriptedChat.of("weak", name="small", logprob=-3.0)
    with ScriptedServer(ScriptedModel(["x"]), refuse=lambda _: (401, {"message": "no"})) as server:
        with httpx.Client() as client:
            cloud = ChatOpenAI(
                model="large", base_url=server.url, api_key="k", max_retries=0, http_client=client
            )
            agent = create_agent(
                router(edge, cloud, policy=Cascade.of(TokenLogprob(), 0.25)),
                middleware=[ModelRetryMiddleware(initial_delay=0.001, jitter=False, on_failure="error")],
            )
            with pytest.raises(TierError, match="401"):
                agent.invoke({"messages": [("user", "q")]})
        assert len(server.bodies) == len(edge.script.calls) == 1
