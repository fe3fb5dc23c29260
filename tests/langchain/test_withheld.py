"""What handlers see of drafts and samples: their runs, and tokens only of the answer that is returned."""

from __future__ import annotations

import threading

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda

from confroute import Cascade, Gate, Prefix, SelfConsistency, Threshold, TokenLogprob
from confroute.models.resilience import Limits
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.testing import ScriptedChat

DRAFT, ANSWER = "edge says so", "cloud knows it well"
FORMS = ("invoke", "ainvoke", "stream", "astream")
ONCE = Limits(attempts=1)


class Tokens(BaseCallbackHandler):
    """Keeps tokens, as a handler that prints them would."""

    def __init__(self):
        self.tokens, self.ends, self.lock = [], 0, threading.Lock()

    def on_llm_new_token(self, token, **kwargs):
        with self.lock:
            self.tokens.append(token)

    def on_llm_end(self, response, **kwargs):
        with self.lock:
            self.ends += 1

    @property
    def text(self):
        return "".join(self.tokens)


class AsyncTokens(AsyncCallbackHandler):
    """The same, as coroutines."""

    def __init__(self):
        self.tokens, self.ends = [], 0

    async def on_llm_new_token(self, token, **kwargs):
        self.tokens.append(token)

    async def on_llm_end(self, response, **kwargs):
        self.ends += 1

    @property
    def text(self):
        return "".join(self.tokens)


def noisy(*texts, **reply):
    """A model that reports tokens whatever it is told."""
    return ScriptedChat.of(*texts, **reply).model_copy(update={"streams_inside": True})


def edge(logprob=-0.2):
    return noisy(DRAFT, name="small", logprob=logprob)


def router(policy, **given):
    cloud = ScriptedChat.of(ANSWER, name="large")
    return ChatConfRoute(**{"edge": edge(), "cloud": cloud, "policy": policy, "edge_limits": ONCE, **given})


async def made(model, form, config, given="q"):
    """Make one call in one form, to its end."""
    if form == "invoke":
        model.invoke(given, config)
    elif form == "ainvoke":
        await model.ainvoke(given, config)
    elif form == "stream":
        list(model.stream(given, config))
    else:
        assert [chunk async for chunk in model.astream(given, config)]


async def streamed(model, given="q"):
    """Texts of `on_chat_model_stream` by run, as an app reads them."""
    runs = {}
    async for event in model.astream_events(given, version="v2"):
        if event["event"] == "on_chat_model_stream":
            runs[event["run_id"]] = runs.get(event["run_id"], "") + event["data"]["chunk"].text
    return list(runs.values())


def prefix(threshold, commit, tokens=2):
    """Reads drafts in chunks; what is neither committed to nor cut off is judged as a whole."""
    return Cascade(
        gates=(Gate(signal=TokenLogprob(), threshold=Threshold(value=threshold)),),
        prefix=Prefix(
            commit=Threshold(value=commit), cut=Threshold(value=commit + 0.3), tokens=tokens, least=2
        ),
    )


REJECTING = {
    "draft": lambda: Cascade.of(TokenLogprob(), 0.1),
    "samples": lambda: Cascade.of(SelfConsistency(n=3), 0.3),
    "prefix, cut": lambda: prefix(0.1, 0.05),
    "prefix, judged": lambda: prefix(0.1, 0.1),
}


@pytest.mark.parametrize("handler", [Tokens, AsyncTokens])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("policy", REJECTING)
async def test_no_token_of_a_rejected_draft(policy, form, handler):
    """Nor of a sample, whether the model was asked for chunks or reports tokens by itself; each run is reported."""
    small = edge(-0.5 if policy == "prefix, cut" else -0.2)
    small.script.samples = list(noisy("one", "another", "a third").script.replies)
    seen = handler()
    await made(router(REJECTING[policy](), edge=small), form, {"callbacks": [seen]})
    assert seen.text in ("", ANSWER)
    assert bool(seen.text) == (form in {"stream", "astream"})
    assert seen.ends >= (1 if policy == "prefix, cut" else 2)


@pytest.mark.parametrize("form", FORMS)
async def test_handlers_of_the_model_itself(form):
    """On the model, or bound around it: they stand on the edge, and see no token of its drafts."""
    own, bound = Tokens(), Tokens()
    small = edge().model_copy(update={"callbacks": [own]}).with_config(callbacks=[bound])
    await made(router(Cascade.of(TokenLogprob(), 0.1), edge=small), form, {})
    assert (own.tokens, bound.tokens, own.ends, bound.ends) == ([], [], 1, 1)


@pytest.mark.parametrize("handler", [Tokens, AsyncTokens])
@pytest.mark.parametrize("form", ["stream", "astream"])
@pytest.mark.parametrize(
    "policy",
    [Cascade.of(TokenLogprob(), 0.5), prefix(0.5, 0.3), prefix(0.5, 0.1)],
    ids=["cascade", "committed", "judged"],
)
async def test_a_kept_draft_is_reported_to_handlers_of_a_stream(policy, form, handler):
    """As a bare model's stream is: every token, once."""
    seen = handler()
    await made(router(policy), form, {"callbacks": [seen]})
    assert (seen.text, seen.ends) == (DRAFT, 1)


KEPT = {
    "accepted": Cascade.of(TokenLogprob(), 0.5),
    "committed": prefix(0.5, 0.3),
    "judged": prefix(0.5, 0.1),
    "longer than the answer": prefix(0.5, 0.3, tokens=50),
}


@pytest.mark.parametrize("policy", KEPT)
async def test_events_of_a_kept_draft(policy):
    """Apps filter for `on_chat_model_stream`: a kept answer comes there, once, alone or in a chain."""
    model = router(KEPT[policy])
    assert await streamed(model) == [DRAFT]
    assert await streamed(RunnableLambda(model.invoke)) == [DRAFT]
    assert await streamed(model | StrOutputParser()) == [DRAFT]


async def test_events_of_a_draft_kept_for_want_of_a_cloud():
    """The cloud fails after the draft was rejected: the draft is the answer."""
    down = ScriptedChat.of("x", name="large", fault=ConnectionError("down"))
    policy = Cascade.of(TokenLogprob(), 0.1, on_cloud_error="edge")
    assert await streamed(router(policy, cloud=down, cloud_limits=ONCE)) == [DRAFT]


async def test_events_of_tool_calls():
    """A kept tool call comes as its chunk."""
    tool = {
        "type": "function",
        "function": {"name": "add", "parameters": {"type": "object", "properties": {}}},
    }
    events = router(Cascade.of(TokenLogprob(), 0.5)).bind_tools([tool]).astream_events("q", version="v2")
    calls = [
        chunk["name"]
        async for event in events
        if event["event"] == "on_chat_model_stream"
        for chunk in event["data"]["chunk"].tool_call_chunks
    ]
    assert calls == ["add"]


@pytest.mark.parametrize(("outer", "inner"), [(0.5, 0.5), (0.5, 0.1), (0.1, 0.5), (0.1, 0.1)])
async def test_events_of_a_router_as_an_edge(outer, inner):
    """Of three models the one whose answer is returned streams, once."""
    middle = ScriptedChat.of("middle", name="middle", logprob=-0.2).model_copy(update={"logprobs": True})
    small = edge().model_copy(update={"logprobs": True})
    nested = ChatConfRoute(
        edge=small, cloud=middle, policy=Cascade.of(TokenLogprob(), inner), keep_logprobs=True
    )
    expected = ANSWER if outer == 0.1 else DRAFT if inner == 0.5 else "middle"
    model = router(Cascade.of(TokenLogprob(), outer, on_no_signal="edge"), edge=nested)
    assert await streamed(model) == [expected]
    seen = Tokens()
    await made(model, "stream", {"callbacks": [seen]})
    assert seen.text == expected


@pytest.mark.parametrize(("threshold", "text"), [(0.5, DRAFT), (0.1, ANSWER)])
@pytest.mark.parametrize("form", FORMS)
async def test_chains(threshold, text, form):
    """The models inside a rejected chain stay quiet too, and those of a kept one come once."""
    small = edge().model_copy(update={"logprobs": True}) | StrOutputParser()
    large = ScriptedChat.of(ANSWER, name="large") | StrOutputParser()
    model = ConfidenceRouter(edge=small, cloud=large, policy=Cascade.of(TokenLogprob(), threshold))
    assert await streamed(model) == [text]
    seen = Tokens()
    await made(model, form, {"callbacks": [seen]})
    assert seen.text == (text if form in {"stream", "astream"} else "")


async def test_failed_calls_end_the_runs_of_drafts():
    """No run stays open in the events when the call fails after its draft."""
    down = ScriptedChat.of("x", name="large", fault=ConnectionError("down"))
    model = router(Cascade.of(TokenLogprob(), 0.1), cloud=down, cloud_limits=ONCE)
    events = []

    async def read():
        async for event in model.astream_events([HumanMessage("q")], version="v2"):
            events.append(event["event"])

    with pytest.raises(Exception, match="down"):
        await read()
    assert events.count("on_chat_model_start") - events.count("on_chat_model_end") == 1
    assert "on_chat_model_stream" not in events


@pytest.mark.filterwarnings("ignore:.*deprecated")
async def test_astream_log_shows_no_rejected_draft():
    """The older form of events."""
    patches = [patch async for patch in router(Cascade.of(TokenLogprob(), 0.1)).astream_log("q")]
    values = [op["value"] for patch in patches for op in patch.ops if "streamed_output_str" in op["path"]]
    assert DRAFT not in "".join(map(str, values))


def speaking_agent(model, text):
    """A graph that writes to its custom stream, and then asks an agent."""
    from langchain.agents import create_agent
    from langgraph.config import get_stream_writer
    from langgraph.graph import MessagesState, StateGraph

    def speak(state):
        get_stream_writer()(text)
        return {}

    graph = StateGraph(MessagesState)
    graph.add_node("speak", speak)
    graph.add_node("agent", create_agent(model, []))
    graph.add_edge("__start__", "speak")
    graph.add_edge("speak", "agent")
    return graph.compile()


def around(model):
    """A graph whose one node asks a router between graphs."""
    from langgraph.graph import MessagesState, StateGraph

    def node(state):
        return {"messages": model.invoke({"messages": state["messages"]})["messages"][-1:]}

    async def anode(state, config):
        return {"messages": (await model.ainvoke({"messages": state["messages"]}, config))["messages"][-1:]}

    graph = StateGraph(MessagesState)
    graph.add_node("chat", RunnableLambda(node, anode))
    graph.add_edge("__start__", "chat")
    return graph.compile()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("mode", ["messages", "updates", "values", "custom"])
@pytest.mark.parametrize(("threshold", "route"), [(0.1, "cloud"), (0.5, "edge")])
async def test_graphs_inside_a_graph(threshold, route, mode, asynchronous):
    """An agent as the edge: nothing of its rejected draft stands in any stream of the graph around it."""
    small = edge().model_copy(update={"logprobs": True})
    model = ConfidenceRouter(
        edge=speaking_agent(small, DRAFT),
        cloud=speaking_agent(ScriptedChat.of(ANSWER, name="large"), ANSWER),
        policy=Cascade.of(TokenLogprob(), threshold),
        text=lambda state: state["messages"][-1].text,
    )
    built, given = around(model), {"messages": [HumanMessage("q")]}
    if asynchronous:
        items = [item async for item in built.astream(given, stream_mode=mode, subgraphs=True)]
    else:
        items = list(built.stream(given, stream_mode=mode, subgraphs=True))
    shown = repr(items)
    if route == "cloud":
        assert DRAFT not in shown
        assert "cloud" in shown
    elif mode != "custom":
        assert DRAFT in shown
