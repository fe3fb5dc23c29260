"""Fixtures for all tests."""

import asyncio
import inspect
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass
class OpenAIServer:
    """An OpenAI-compatible chat server on loopback that gives set answers and keeps what it was sent."""

    url: str = ""
    answer: str = "Paris."
    logprob: float = -0.01
    status: int = 200
    respond: Callable[[dict], tuple[str, float]] | None = None
    bodies: list[dict] = field(default_factory=list)

    def completion(self, body):
        """The answer to one request, in OpenAI's form."""
        answer, logprob = self.respond(body) if self.respond else (self.answer, self.logprob)
        words = answer.split()
        logprobs = None
        if body.get("logprobs"):
            content = [{"token": w, "logprob": logprob, "bytes": None, "top_logprobs": []} for w in words]
            logprobs = {"content": content, "refusal": None}
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
        usage = {"prompt_tokens": 7, "completion_tokens": len(words), "total_tokens": 7 + len(words)}
        base = {"id": "c1", "object": "chat.completion", "created": 1, "model": body["model"]}
        return {**base, "choices": [choice], "usage": usage}

    def chunks(self, body):
        """The same as server-sent events."""
        whole = self.completion(body)
        base = {**whole, "object": "chat.completion.chunk"}
        base.pop("usage")
        for word in re.findall(r"\s*\S+", whole["choices"][0]["message"]["content"]):
            delta = {"role": "assistant", "content": word}
            yield {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
        yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        yield {**base, "choices": [], "usage": whole["usage"]}


@pytest.fixture(autouse=True)
def own_loop(request):
    """A loop for synchronous tests, closed after them: LlamaIndex makes one where there is none and leaves it open."""
    if inspect.iscoroutinefunction(getattr(request, "function", None)):
        yield
        return
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


@pytest.fixture
def openai_server(monkeypatch):
    """A running `OpenAIServer`; both hosts' OpenAI classes find it through their environment variables."""
    told = OpenAIServer()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            told.bodies.append(body)
            if told.status != 200:
                self.reply(
                    json.dumps({"error": {"message": "scripted", "code": told.status}}).encode(),
                    "application/json",
                )
            elif body.get("stream"):
                events = [f"data: {json.dumps(chunk)}\n\n" for chunk in told.chunks(body)]
                self.reply("".join([*events, "data: [DONE]\n\n"]).encode(), "text/event-stream")
            else:
                self.reply(json.dumps(told.completion(body)).encode(), "application/json")

        def reply(self, content, kind):
            self.send_response(told.status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    told.url = f"http://127.0.0.1:{server.server_port}/v1"
    for name in ("OPENAI_BASE_URL", "OPENAI_API_BASE"):
        monkeypatch.setenv(name, told.url)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    yield told
    server.shutdown()
    server.server_close()
    thread.join()
