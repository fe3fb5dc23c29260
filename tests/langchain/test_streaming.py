"""Streams, events and LangGraph: one answer, never a rejected draft."""

from __future__ import annotations

from functools import reduce
from operator import add
from typing import Annotated, TypedDict

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessageChunk, HumanMessage
from langchain_core.runnables import RunnableLambda
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from confroute import Cascade, SelfConsistency, TokenLogprob, record
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE, forced

CASES = [
    ("accepting", {}, "edge says so", "edge"),
    ("escalating", {}, "cloud knows it well", "cloud"),
    ("escalating", forced("edge"), "edge says so", "edge"),
    ("accepting", forced("cloud"), "cloud knows it well", "cloud"),
]


@pytest.mark.parametrize(("router", "config", "text", "route"), CASES)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_chunks_add_up_to_one_answer(request, router, config, text, route, asynchronous):
    """The sum of a stream is the message that invoke gives; one chunk carries the decision, the last."""
    model = request.getfixturevalue(router)
    if asynchronous:
        chunks = [chunk async for chunk in model.astream("q", config)]
    else:
        chunks = list(model.stream("q", config))
    whole = reduce(add, chunks)
    assert whole.text == text
    assert len(chunks) > 2
    assert [("confroute" in c.response_metadata) for c in chunks] == [False] * (len(chunks) - 1) + [True]
    assert [c.chunk_position for c in chunks] == [None] * (len(chunks) - 1) + ["last"]
    assert len({c.id for c in chunks}) == 1
    same = model.invoke("q", config)
    assert whole.response_metadata["confroute"]["route"] == route
    assert whole.usage_metadata == same.usage_metadata
    drop = {"confroute"}
    assert {k: v for k, v in whole.response_metadata.items() if k not in drop} == {
        k: v for k, v in same.response_metadata.items() if k not in drop
    }


def test_forced_calls_stream_as_they_come(accepting, cloud):
    """A forced call passes chunks on before the answer is whole."""
    stream = accepting.stream("q", forced("cloud"))
    assert next(stream).text == "cloud"
    assert cloud.seen
    stream.close()


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_early_close_closes_the_inner_stream(accepting, watch, asynchronous):
    """A caller that leaves early leaves no open run behind, and a decision that says so."""
    config = {**forced("cloud"), "callbacks": [watch]}
    with record() as decisions:
        if asynchronous:
            stream = accepting.astream("q", config)
            await anext(stream)
            await stream.aclose()
        else:
            stream = accepting.stream("q", config)
            next(stream)
            stream.close()
    assert [decision.stage for decision in decisions] == ["abandoned"]
    assert {run["end"] for run in watch.runs.values()} == {"end", "error"}
    assert next(run for run in watch.runs.values() if run["kind"] == "llm")["end"] == "error"


def test_disable_streaming_is_honoured(edge, cloud):
    """disable_streaming=True gives one chunk with everything."""
    model = ChatConfRoute(
        edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.1), disable_streaming=True
    )
    (chunk,) = model.stream("q")
    assert chunk.text == "cloud knows it well"
    assert "confroute" in chunk.response_metadata


def test_blocks_come_as_one_chunk(cloud):
    """Content that is a list of blocks is not taken apart."""
    from langchain_core.messages import AIMessage

    lines = RunnableLambda(lambda _: AIMessage([{"type": "text", "text": "a b"}]))
    model = ChatConfRoute(edge=lines, cloud=cloud, policy=Cascade(on_no_signal="edge"))
    (chunk,) = model.stream("q")
    assert chunk.text == "a b"
    assert isinstance(chunk, AIMessageChunk)


@pytest.mark.parametrize(("router", "config", "text", "route"), CASES)
async def test_astream_events_show_no_rejected_draft(request, router, config, text, route):
    """In astream_events the router's stream is the answer, and so is what models stream: once, in the answer's own run."""
    model = request.getfixturevalue(router)
    events = [event async for event in model.astream_events("q", config, version="v2")]
    mine = [
        e["data"]["chunk"] for e in events if e["event"] == "on_chain_stream" and e["name"] == "ChatConfRoute"
    ]
    assert reduce(add, mine).text == text
    assert [e["name"] for e in events if e["event"] == "on_custom_event"] == ["confroute.decision"]
    streamed = [e for e in events if e["event"] == "on_chat_model_stream"]
    assert reduce(add, [e["data"]["chunk"] for e in streamed]).text == text
    (run_id,) = {e["run_id"] for e in streamed}
    own = [e["event"] for e in events if e["run_id"] == run_id]
    assert own == ["on_chat_model_start", *["on_chat_model_stream"] * len(streamed), "on_chat_model_end"]
    assert events[0]["event"] == "on_chain_start"
    assert events[-1]["event"] == "on_chain_end"


@pytest.mark.filterwarnings("ignore:.*beta")
def test_stream_events_v3_on_the_router_counts_once(accepting, escalating, watch):
    """LangChain's model-run path gives the same answer and reports no inner run."""
    for model, text, name in (
        (accepting, "edge says so", "small"),
        (escalating, "cloud knows it well", "large"),
    ):
        with get_usage_metadata_callback() as usage:
            stream = model.stream_events("q", version="v3", config={"callbacks": [watch]})
            assert "".join(stream.text) == text
            assert stream.output.response_metadata["confroute"]
        assert list(usage.usage_metadata) == [name]
    assert [run["kind"] for run in watch.runs.values()] == ["llm", "llm"]


@pytest.mark.filterwarnings("ignore:.*beta")
async def test_astream_events_v3_on_the_router(escalating):
    """Async form."""
    stream = await escalating.astream_events("q", version="v3")
    output = await stream
    assert output.text == "cloud knows it well"


class State(TypedDict):
    messages: Annotated[list, add_messages]


def graph(model, *, asynchronous=False):
    def node(state: State):
        return {"messages": [model.invoke(state["messages"])]}

    async def anode(state: State, config):
        return {"messages": [await model.ainvoke(state["messages"], config)]}

    built = StateGraph(State)
    built.add_node("chat", anode if asynchronous else node)
    built.add_edge(START, "chat")
    built.add_edge("chat", END)
    return built.compile()


def sampled(edge_text="edge says so"):
    edge = ScriptedChat.of(edge_text, name="small", samples=["one thing", "another thing", "a third"])
    return ChatConfRoute(
        edge=edge,
        cloud=ScriptedChat.of("cloud knows it well", name="large"),
        policy=Cascade.of(SelfConsistency(n=3), 0.3),
        cloud_limits=ONCE,
    )


def assert_streamed_once(chunks, text):
    """Tokens of one message id at a time, and their sum is the answer."""
    assert "".join(c.text for c in chunks) == text
    assert len({c.id for c in chunks}) == 1


@pytest.mark.parametrize(
    ("router", "config", "text"), [(*case[:3],) for case in CASES] + [(None, {}, "cloud knows it well")]
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_langgraph_messages_hold_the_answer_only(request, router, config, text, asynchronous):
    """stream_mode="messages" shows the answer once, and neither draft nor samples."""
    model = sampled() if router is None else request.getfixturevalue(router)
    built = graph(model, asynchronous=asynchronous)
    given = {"messages": [HumanMessage("q")]}
    if asynchronous:
        chunks = [c async for c, _ in built.astream(given, config, stream_mode="messages")]
    else:
        chunks = [c for c, _ in built.stream(given, config, stream_mode="messages")]
    assert_streamed_once(chunks, text)


async def test_langgraph_custom_and_updates(escalating):
    """stream_mode="custom" carries the decision, "updates" the answer; usage stays exact."""
    with get_usage_metadata_callback() as usage:
        items = list(
            graph(escalating).stream({"messages": [HumanMessage("q")]}, stream_mode=["custom", "updates"])
        )
    custom = [data for mode, data in items if mode == "custom"]
    assert [d["confroute.decision"]["route"] for d in custom] == ["cloud"]
    (update,) = [data for mode, data in items if mode == "updates"]
    assert update["chat"]["messages"][0].text == "cloud knows it well"
    assert {name: u["total_tokens"] for name, u in usage.usage_metadata.items()} == {"small": 5, "large": 6}


def test_langgraph_interrupts_pass(edge, cloud):
    """An interrupt inside a tier is LangGraph's business, not a failed edge."""
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.types import Command, interrupt

    def ask(messages):
        from langchain_core.messages import AIMessage

        return AIMessage(interrupt("may I?"))

    model = ChatConfRoute(edge=RunnableLambda(ask), cloud=cloud, policy=Cascade(on_no_signal="edge"))
    built = graph(model)
    built.checkpointer = InMemorySaver()
    config = {"configurable": {"thread_id": "1"}}
    paused = built.invoke({"messages": [HumanMessage("q")]}, config)
    assert paused["__interrupt__"][0].value == "may I?"
    assert not cloud.seen
    done = built.invoke(Command(resume="yes"), config)
    assert done["messages"][-1].text == "yes"
