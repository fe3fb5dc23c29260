"""ChatOpenAI on both sides, against a server on this machine: what is really sent and read."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI

from confroute import Cascade, SelfConsistency, TokenLogprob
from langchain_confroute import ChatConfRoute
from tests.langchain.conftest import forced


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word


class Server(ThreadingHTTPServer):
    """Answers chat completions, and keeps what it was sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies = []
        self.refuse_logprobs = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.bodies.append(body)
        if body.get("logprobs") and self.server.refuse_logprobs:
            self._send(400, {"error": {"message": "logprobs are not supported with this model", "code": "x"}})
        elif body.get("stream"):
            self._stream(body)
        else:
            self._send(200, self._answer(body))

    def _send(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _answer(self, body):
        message = {"role": "assistant", "content": "4 it is"}
        if body.get("tools"):
            name = body["tools"][0]["function"]["name"]
            call = {"id": "c1", "type": "function", "function": {"name": name, "arguments": '{"word": "x"}'}}
            message = {"role": "assistant", "content": None, "tool_calls": [call]}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        if body.get("logprobs"):
            # A server scores the tokens that it wrote: those of the call, where it calls.
            tokens = ['{"word', '": "', "x", '"}'] if "tool_calls" in message else ["4", " it", " is"]
            entries = [{"token": t, "logprob": -0.1, "bytes": None, "top_logprobs": []} for t in tokens]
            choice["logprobs"] = {"content": entries, "refusal": None}
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        return {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [choice],
            "usage": usage,
        }

    def _stream(self, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        base = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": body["model"]}
        for text in ("cloud", " says", " so"):
            delta = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
            self._event({**base, "choices": [delta]})
        self._event({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, data):
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())


@pytest.fixture
def server():
    running = Server()
    yield running
    running.shutdown()
    running.server_close()


def router(server, policy):
    edge = ChatOpenAI(model="edge-model", base_url=server.url, api_key="k", max_retries=0)
    cloud = ChatOpenAI(model="cloud-model", base_url=server.url, api_key="k", max_retries=0)
    return ChatConfRoute(edge=edge, cloud=cloud, policy=policy)


def decision_of(message):
    return message.response_metadata["confroute"]


async def test_drafts_are_whole_and_ask_for_log_probabilities(server):
    """One request with logprobs and without stream, also when the caller streams; usage is there."""
    model = router(server, Cascade.of(TokenLogprob(), 0.5))
    answers = [model.invoke("q"), await model.ainvoke("q"), list(model.stream("q"))[-1]]
    for answer in answers:
        assert decision_of(answer)["uncertainty"] == pytest.approx(0.1)
        assert decision_of(answer)["usage"]["edge"] == {"input_tokens": 5, "output_tokens": 3}
        assert "logprobs" not in answer.response_metadata
    assert all(body["logprobs"] is True and not body.get("stream") for body in server.bodies)


async def test_finals_stream_and_ask_for_nothing(server):
    """The cloud's request is the user's own."""
    model = router(server, Cascade.of(TokenLogprob(), 0.01))
    assert "".join(chunk.text for chunk in model.stream("q")) == "cloud says so"
    assert "".join([chunk.text async for chunk in model.astream("q", forced("cloud"))]) == "cloud says so"
    finals = [body for body in server.bodies if body["model"] == "cloud-model"]
    assert all(body["stream"] and "logprobs" not in body for body in finals)
    assert len(server.bodies) == 3


async def test_a_refusal_of_log_probabilities_is_remembered(server):
    """400 about logprobs: asked again without, then never again; samples stand in."""
    server.refuse_logprobs = True
    model = router(server, Cascade(gates=Cascade().gates))
    for answer in (model.invoke("2 + 2?"), await model.ainvoke("2 + 2?")):
        assert decision_of(answer)["signal"] == "self_consistency"
        assert decision_of(answer)["route"] == "edge"
    assert sum(body.get("logprobs", False) for body in server.bodies) == 1
    assert {body.get("temperature") for body in server.bodies} == {None, 0.7}


def test_samples_are_counted_by_the_usage_callback(server):
    """Each sample is a request of its own, with its usage."""
    model = router(server, Cascade.of(SelfConsistency(n=3, step=3), 0.3))
    with get_usage_metadata_callback() as usage:
        decision = decision_of(model.invoke("2 + 2?"))
    assert (
        decision["usage"]["edge"]["output_tokens"]
        == usage.usage_metadata["edge-model"]["output_tokens"]
        == 12
    )


def test_tools_are_sent_in_the_providers_form(server):
    """An edge call that fits is kept, with evidence from log-probabilities."""
    answer = (
        router(server, Cascade.of(TokenLogprob(), 0.5)).bind_tools([look_up], tool_choice="any").invoke("q")
    )
    assert answer.tool_calls[0]["args"] == {"word": "x"}
    assert decision_of(answer)["route"] == "edge"
    assert server.bodies[0]["tool_choice"] == "required"
    assert server.bodies[0]["tools"][0]["function"]["name"] == "look_up"
