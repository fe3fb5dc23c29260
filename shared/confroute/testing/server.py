"""An OpenAI-compatible server on loopback that says what scripted models say: real clients, real bytes, no provider."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

from confroute.testing.faults import MALFORMED
from confroute.testing.scripted import Reply, ScriptedModel
from confroute.types import Generation


class ScriptedServer:
    """Serves `/v1/chat/completions` from scripted models, whole and streamed, with log-probabilities where asked.

    Parameters
    ----------
    models : ScriptedModel or mapping of str to ScriptedModel
        One for every request, or by the request's model name.
    hold_s : float
        Longest that a scripted time-out keeps a request waiting; the client's own limit should be shorter.

    Attributes
    ----------
    url : str
        What clients take as base URL, once the server has started.
    bodies : list of dict
        Every request's JSON, in order of arrival.

    Notes
    -----
    A reply's fault happens on the wire: an exception with a `status_code` becomes that status, a time-out is no
    answer, `JSONDecodeError` is a broken body, and anything else a cut connection; in streams after `fault_after` words.

    Examples
    --------
    >>> from urllib.request import Request, urlopen
    >>> body = b'{"model": "m", "messages": [{"role": "user", "content": "Capital of France?"}]}'
    >>> with ScriptedServer(ScriptedModel(["Paris"])) as server:
    ...     with urlopen(Request(f"{server.url}/chat/completions", data=body)) as answer:
    ...         json.load(answer)["choices"][0]["message"]["content"]
    'Paris'
    """

    def __init__(self, models: ScriptedModel | Mapping[str, ScriptedModel], *, hold_s: float = 5.0) -> None:
        self.models = models
        self.hold_s = hold_s
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self._closing = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> ScriptedServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen on a free port of 127.0.0.1."""
        handler = type("Handler", (_Handler,), {"scripted": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def stop(self) -> None:
        """Stop listening; requests that still wait are let go."""
        self._closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def reply(self, body: Mapping[str, Any]) -> tuple[Reply, str] | None:
        """What to say to a request, and the prompt as it was read; None if no model has that name.

        Override it to script requests by more than their text.
        """
        name = str(body.get("model"))
        model = self.models if isinstance(self.models, ScriptedModel) else self.models.get(name)
        if model is None:
            return None
        prompt = _prompt(body)
        return model.reply(prompt, temperature=body.get("temperature")), prompt

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than the server lives."""
        self._closing.wait(seconds)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    scripted: ScriptedServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.scripted.bodies.append(body)
        found = self.scripted.reply(body)
        if found is None:
            self._error(404, f"no scripted model {body.get('model')!r}", None)
            return
        reply, prompt = found
        self.scripted.wait(reply.latency_s)
        said = reply.generation(prompt, model=str(body.get("model")))
        if reply.fault is not None and not (body.get("stream") and reply.fault_after):
            self._fail(reply.fault)
        elif body.get("stream"):
            self._stream(body, reply, said)
        else:
            self._send(json.dumps(_completion(body, said)).encode(), "application/json")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Say nothing."""

    def _fail(self, fault: Exception) -> None:
        code = getattr(fault, "status_code", None)
        if isinstance(code, int):
            self._error(code, "scripted", getattr(fault, "retry_after_s", None))
        elif isinstance(fault, json.JSONDecodeError):
            self._send(MALFORMED.encode(), "application/json")
        else:
            self._abandon(fault)

    def _abandon(self, fault: Exception) -> None:
        """Answer no more: after a wait for a time-out, at once for a cut connection."""
        if "Timeout" in type(fault).__name__:
            self.scripted.wait(self.scripted.hold_s)
        self.close_connection = True

    def _error(self, code: int, message: str, retry_after_s: float | None) -> None:
        headers = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"}
        content = json.dumps({"error": {"message": message, "code": code}}).encode()
        self._send(content, "application/json", code=code, headers=headers)

    def _send(
        self, content: bytes, kind: str, *, code: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response(code)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, body: dict[str, Any], reply: Reply, said: Generation) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for sent, event in enumerate(_events(body, said)):
            if reply.fault is not None and sent >= reply.fault_after:
                if isinstance(reply.fault, json.JSONDecodeError):
                    self._chunk(f"data: {MALFORMED}\n\n")
                    break
                # The last chunk, which ends an HTTP body, is never sent.
                self._abandon(reply.fault)
                return
            self._chunk(f"data: {json.dumps(event)}\n\n")
        self._chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        content = text.encode()
        try:
            self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
            self.wfile.flush()
        except OSError:
            # The client has gone, which it may.
            self.close_connection = True


def _prompt(body: Mapping[str, Any]) -> str:
    return "\n".join(f"{m.get('role')}: {_text(m.get('content'))}" for m in body.get("messages", ()))


def _text(content: Any) -> str:
    """The text of a message, which may come in parts."""
    if isinstance(content, list):
        return "".join(part.get("text", "") for part in content if isinstance(part, Mapping))
    return content or ""


def _completion(body: Mapping[str, Any], said: Generation) -> dict[str, Any]:
    message = {"role": "assistant", "content": said.text}
    choice = {"index": 0, "message": message, "finish_reason": said.finish, "logprobs": _logprobs(body, said)}
    return {**_base(body, "chat.completion"), "choices": [choice], "usage": _usage(said)}


def _events(body: Mapping[str, Any], said: Generation) -> Iterator[dict[str, Any]]:
    base = _base(body, "chat.completion.chunk")
    values = said.logprobs or ()
    for position, token in enumerate(said.tokens or ()):
        one = replace(said, tokens=(token,), logprobs=tuple(values[position : position + 1]) or None)
        delta = {"role": "assistant", "content": token}
        choice = {"index": 0, "delta": delta, "finish_reason": None, "logprobs": _logprobs(body, one)}
        yield {**base, "choices": [choice]}
    yield {**base, "choices": [{"index": 0, "delta": {}, "finish_reason": said.finish}]}
    yield {**base, "choices": [], "usage": _usage(said)}


def _base(body: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "scripted", "object": kind, "created": int(time.time()), "model": body.get("model")}


def _usage(said: Generation) -> dict[str, int]:
    usage = said.usage
    given, made = (usage.input_tokens, usage.output_tokens) if usage else (0, 0)
    return {"prompt_tokens": given, "completion_tokens": made, "total_tokens": given + made}


def _logprobs(body: Mapping[str, Any], said: Generation) -> dict[str, Any] | None:
    if not body.get("logprobs") or said.logprobs is None:
        return None
    pairs = zip(said.tokens or (), said.logprobs, strict=False)
    content: list[dict[str, Any]] = [
        {"token": t, "logprob": v, "bytes": None, "top_logprobs": []} for t, v in pairs
    ]
    return {"content": content, "refusal": None}
