"""A conversation that moves between providers: what each one's own package really sends to a server here."""

from __future__ import annotations

import copy
import json

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI

from confroute import Cascade, TokenLogprob
from confroute.testing import wire
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE, forced

CACHED = {"type": "ephemeral"}
LONG = "x" * 60


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word


class Handler(wire.RequestHandler):
    """Speaks three providers' protocols as far as one answer needs."""

    # Keeps no connection open, which a client that is only collected would leave behind.
    protocol_version = "HTTP/1.0"

    def respond(self, body):
        self.served.bodies[-1] = (self.path, body)
        if self.path.endswith("/messages"):
            answer = {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": body["model"],
                "content": [{"type": "text", "text": "ok"}],
                "stop_reason": "end_turn",
                "usage": {"input_tokens": 3, "output_tokens": 1},
            }
        elif self.path.endswith("/api/chat"):
            answer = {
                "model": body["model"],
                "created_at": "2026-01-01T00:00:00Z",
                "message": {"role": "assistant", "content": "ok"},
                "done": True,
                "done_reason": "stop",
                "prompt_eval_count": 3,
                "eval_count": 1,
            }
        else:
            answer = {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": body["model"],
                "choices": [
                    {"index": 0, "message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}
                ],
                "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
            }
        self.send_json(answer)


class Server(wire.LoopbackServer):
    """Every provider at one address, with the path that each request came to."""

    handler = Handler

    @property
    def root(self):
        return self.url.removesuffix("/v1")


@pytest.fixture
def server():
    with Server() as running:
        yield running


def model(provider, server):
    if provider == "anthropic":
        return ChatAnthropic(model_name="c", base_url=server.root, api_key="k", max_retries=0)
    if provider == "ollama":
        return ChatOllama(model="o", base_url=server.root)
    return ChatOpenAI(model="g", base_url=server.url, api_key="k", max_retries=0)


def call(id_):
    return {"name": "look_up", "args": {"word": "w"}, "id": id_, "type": "tool_call"}


def written_by(provider):
    """A turn with a tool call, in the form in which each provider's own package returns it."""
    if provider == "anthropic":
        blocks = [
            {"type": "thinking", "thinking": "secret", "signature": "sig"},
            {"type": "text", "text": "I look it up.", "citations": [], "index": 1},
            {"type": "tool_use", "id": "toolu_1", "name": "look_up", "input": {"word": "w"}},
        ]
        said = AIMessage(blocks, tool_calls=[call("toolu_1")], id="msg_own")
    elif provider == "ollama":
        said = AIMessage(
            "I look it up.", tool_calls=[call(LONG)], additional_kwargs={"reasoning_content": "secret"}
        )
    else:
        blocks = [
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "secret"}]},
            {"type": "text", "text": "I look it up.", "annotations": [], "id": "msg_2"},
            {
                "type": "function_call",
                "call_id": "call|1",
                "name": "look_up",
                "arguments": "{}",
                "id": "fc_1",
            },
        ]
        said = AIMessage(blocks, tool_calls=[call("call|1")], id="resp_1")
    said.response_metadata = {"model_provider": provider, "model_name": "m", "id": "resp_1"}
    return [said, ToolMessage("w means w", tool_call_id=said.tool_calls[0]["id"])]


def conversation(provider):
    return [
        SystemMessage([{"type": "text", "text": "Be brief.", "cache_control": CACHED}]),
        HumanMessage([{"type": "text", "text": "What is w?", "cache_control": CACHED}]),
        *written_by(provider),
        HumanMessage("And now?"),
    ]


def ids_in(path, body):
    """Ids of calls and of results in a request, in order."""
    if path.endswith("/messages"):
        blocks = [b for m in body["messages"] if isinstance(m["content"], list) for b in m["content"]]
        calls = [b["id"] for b in blocks if b["type"] == "tool_use"]
        return calls, [b["tool_use_id"] for b in blocks if b["type"] == "tool_result"]
    calls = [c["id"] for m in body["messages"] for c in m.get("tool_calls") or () if "id" in c]
    return calls, [m["tool_call_id"] for m in body["messages"] if m.get("tool_call_id")]


@pytest.mark.parametrize("writer", ["anthropic", "openai", "ollama"])
@pytest.mark.parametrize("reader", ["anthropic", "openai", "ollama"])
def test_each_provider_gets_what_it_can_read(server, writer, reader):
    """Nine pairs: reasoning and foreign block types never arrive, calls and results keep belonging together."""
    router = ChatConfRoute(
        edge=ScriptedChat.of("x"), cloud=model(reader, server), policy=Cascade.of(TokenLogprob(), 0.5)
    ).bind_tools([look_up])
    given = conversation(writer)
    before = copy.deepcopy(given)
    if writer == reader == "openai":
        given[2:3] = [AIMessage("I look it up.", tool_calls=[call("call|1")])]
        before = copy.deepcopy(given)
    answer = router.invoke(given, forced("cloud"))
    assert answer.text == "ok"
    assert given == before
    ((path, body),) = server.bodies
    sent = json.dumps(body)
    own = writer == reader == "anthropic"
    assert ("secret" in sent) is own or (writer == reader == "ollama")
    assert ("cache_control" in sent) is (reader == "anthropic")
    assert "I look it up." in sent
    for foreign in ("rs_1", "fc_1", "citations", "annotations", "summary_text"):
        assert own or foreign not in sent
    calls, results = ids_in(path, body)
    assert calls == results or reader == "ollama"
    assert all(len(id_) <= 40 and id_.replace("-", "").replace("_", "").isalnum() for id_ in calls)
    if reader != "ollama":
        assert len(calls) == 1
    roles = [m["role"] for m in body["messages"]]
    assert roles.count("assistant") == 1


@pytest.mark.parametrize("how", ["invoke", "ainvoke", "stream"])
async def test_one_call_may_reach_two_providers(server, how):
    """Draft and final each get the conversation in their own provider's form; the caller's stays as it was."""
    router = ChatConfRoute(
        edge=model("ollama", server),
        cloud=model("anthropic", server),
        policy=Cascade.of(TokenLogprob(), 0.5),
        edge_limits=ONCE,
        disable_streaming=True,
    ).bind_tools([look_up])
    given = conversation("openai")
    before = copy.deepcopy(given)
    if how == "ainvoke":
        await router.ainvoke(given)
    else:
        list(router.stream(given)) if how == "stream" else router.invoke(given)
    (edge_path, edge), (cloud_path, cloud) = server.bodies
    assert (edge_path, cloud_path) == ("/api/chat", "/v1/messages")
    assert ("cache_control" in json.dumps(edge), "cache_control" in json.dumps(cloud)) == (False, True)
    for body in (edge, cloud):
        assert "secret" not in json.dumps(body)
        assert "w means w" in json.dumps(body)
    (call_id,), (result_id,) = ids_in(cloud_path, cloud)
    assert call_id == result_id != "call|1"
    assert given == before


def test_a_conversation_moves_on_with_real_answers(server):
    """Each provider's own answer is the next one's history, its tool results included."""
    turns = [HumanMessage("What is w?")]
    for provider in ("anthropic", "openai", "ollama", "anthropic"):
        router = ChatConfRoute(
            edge=ScriptedChat.of("x"), cloud=model(provider, server), policy=Cascade.of(TokenLogprob(), 0.5)
        )
        turns = [*turns, router.invoke(turns, forced("cloud")), HumanMessage("Go on.")]
    assert [len(body["messages"]) for _, body in server.bodies] == [1, 3, 5, 7]
    for _, body in server.bodies[1:]:
        assert [m["role"] for m in body["messages"][:2]] == ["user", "assistant"]
        assert "confroute" not in json.dumps(body)


def test_settings_of_one_provider_stay_there(server):
    """Anthropic's cache_control and OpenAI's prompt_cache_key, given with the call, reach only their own."""
    router = ChatConfRoute(
        edge=model("openai", server),
        cloud=model("anthropic", server),
        policy=Cascade.of(TokenLogprob(), 0.5),
        edge_limits=ONCE,
    )
    settings = {"cache_control": CACHED, "prompt_cache_key": "thread-1"}
    answer = router.invoke("q", **settings)
    (_, edge), (_, cloud) = server.bodies
    assert answer.response_metadata["confroute"]["stage"] == "no_signal"
    assert "cache_control" not in json.dumps(edge)
    assert edge["prompt_cache_key"] == "thread-1"
    assert "cache_control" in json.dumps(cloud)
    assert "prompt_cache_key" not in json.dumps(cloud)


def test_calls_without_ids_are_matched_in_order(server):
    """A local model gives calls no ids: they get some, and results in order the same."""
    messages = [
        HumanMessage("q"),
        AIMessage("", tool_calls=[call(None), call("")]),
        ToolMessage("one", tool_call_id=""),
        ToolMessage("two", tool_call_id=""),
    ]
    router = ChatConfRoute(edge=ScriptedChat.of("x"), cloud=model("openai", server))
    router.invoke(messages, forced("cloud"))
    calls, results = ids_in(*server.bodies[0])
    assert calls == results == ["call_1", "call_2"]


def test_messages_that_need_nothing_are_passed_on_as_they_are(edge, cloud):
    """The same objects reach the model: no copy is made for nothing."""
    messages = [HumanMessage("q"), AIMessage("a"), HumanMessage("r")]
    ChatConfRoute(edge=edge, cloud=cloud).invoke(messages, forced("cloud"))
    assert all(one is other for one, other in zip(cloud.seen[0]["messages"], messages, strict=True))


class Stored(wire.RequestHandler):
    """OpenAI's Responses API of one server, which knows only what it stored itself."""

    protocol_version = "HTTP/1.0"

    def respond(self, body):
        name, turn = self.served.name, len(self.served.bodies)
        before = body.get("previous_response_id") or f"resp_{name}"
        ids = [before, *(str(item.get("id")) for item in body["input"] if item.get("type") == "reasoning")]
        if not all(one.startswith((f"resp_{name}", f"rs_{name}")) for one in ids):
            self.fail(404, f"no such item among {ids}")
            return
        part = {"type": "output_text", "text": f"{name} {turn}", "annotations": []}
        said = {"type": "message", "id": f"msg_{name}{turn}", "status": "completed", "role": "assistant"}
        thought = {"type": "reasoning", "id": f"rs_{name}{turn}", "summary": []}
        about = {"object": "response", "created_at": 1, "model": body["model"], "status": "completed"}
        more = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        output = [thought, {**said, "content": [part]}]
        self.send_json({"id": f"resp_{name}{turn}", **about, **more, "output": output})


class Storing(wire.LoopbackServer):
    """A server of that kind."""

    handler = Stored

    def __init__(self, name):
        super().__init__()
        self.name = name


@pytest.mark.parametrize("previous", [False, True])
def test_two_servers_behind_one_class(previous):
    """What one of them stored the other does not know; going back, each is sent its own again."""
    with Storing("edge") as small, Storing("cloud") as big:
        edge, cloud = (
            ChatOpenAI(
                model=one.name,
                base_url=one.url,
                api_key="k",
                max_retries=0,
                use_responses_api=True,
                use_previous_response_id=previous,
            )
            for one in (small, big)
        )
        router = ChatConfRoute(edge=edge, cloud=cloud, edge_limits=ONCE, cloud_limits=ONCE)
        messages = [HumanMessage("q")]
        for tier in ("edge", "cloud", "edge", "cloud"):
            answer = router.invoke(messages, forced(tier))
            assert answer.text.startswith(tier)
            messages += [answer, HumanMessage("and now?")]
        if previous:
            assert small.bodies[-1]["previous_response_id"] == "resp_edge1"
