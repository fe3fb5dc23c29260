"""The base of loopback servers that speak OpenAI's chat format: listening, framing, and the JSON of log-probabilities."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any

from confroute.types import Alternatives

if TYPE_CHECKING:
    from typing import Self


class LoopbackServer:
    """Listens on a free port of 127.0.0.1 while it is entered, or between `start` and `stop`.

    Attributes
    ----------
    url : str
        Base URL for clients, once the server has started.
    bodies : list of dict
        The JSON of every request, in order of arrival.
    abandoned : int
        Number of streams that clients closed before the end.
    """

    handler: type[RequestHandler]

    def __init__(self) -> None:
        self.url = ""
        self.bodies: list[dict[str, Any]] = []
        self.abandoned = 0
        self.closing = threading.Event()
        self._server: ThreadingHTTPServer | None = None

    def __enter__(self) -> Self:
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
        handler = type("Handler", (self.handler,), {"served": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def stop(self) -> None:
        """Stop listening, and end the waiting of open requests."""
        self.closing.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


class RequestHandler(BaseHTTPRequestHandler):
    """Handles one connection: reads a request's JSON, and writes a whole answer or events."""

    protocol_version = "HTTP/1.1"
    # Headers and body are written one after the other: the second would wait 40 ms for the client's delayed acknowledgement.
    disable_nagle_algorithm = True
    served: Any

    def handle(self) -> None:
        """Serve a client, which may disconnect at any time."""
        with suppress(ConnectionError):
            super().handle()

    def do_POST(self) -> None:
        """Answer one request."""
        size = int(self.headers["content-length"])
        content = self.rfile.read(size)
        if len(content) < size:
            # The client disconnected while it was sending, as a cancelled call does.
            self.close_connection = True
            return
        body = json.loads(content)
        self.served.bodies.append(body)
        self.respond(body)

    def respond(self, body: dict[str, Any]) -> None:
        """Answer one request."""
        raise NotImplementedError  # each server has its own

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  http.server's name
        """Log nothing."""

    def send_json(self, content: Any, *, code: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Send a whole answer; bytes are sent unchanged."""
        sent = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(sent)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(sent)

    def fail(self, code: int, message: str, *, headers: Mapping[str, str] | None = None) -> None:
        """Send an HTTP error in OpenAI's format."""
        self.send_json({"error": {"message": message, "code": code}}, code=code, headers=headers)

    def begin_events(self) -> None:
        """Send the headers of a streamed answer."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()

    def event(self, content: str | Mapping[str, Any]) -> bool:
        """Send one event; return False if the client has disconnected."""
        text = content if isinstance(content, str) else json.dumps(content)
        sent = f"data: {text}\n\n".encode()
        try:
            self.wfile.write(f"{len(sent):x}\r\n".encode() + sent + b"\r\n")
            self.wfile.flush()
        except OSError:
            self.served.abandoned += 1
            self.close_connection = True
        return not self.close_connection

    def end_events(self) -> None:
        """Send the last event and the end of the HTTP body."""
        if self.event("[DONE]"):
            self.wfile.write(b"0\r\n\r\n")


def logprobs_of(
    body: Mapping[str, Any],
    tokens: Iterable[str],
    values: Sequence[float] | None,
    tops: Sequence[Alternatives] | None = None,
) -> dict[str, Any] | None:
    """The JSON of the log-probabilities; None if the request does not ask for them or there are none."""
    if not body.get("logprobs") or values is None:
        return None
    content: list[dict[str, Any]] = [
        {
            **_logprob(token, value),
            "top_logprobs": [_logprob(*other) for other in tops[at]] if tops and at < len(tops) else [],
        }
        for at, (token, value) in enumerate(zip(tokens, values, strict=False))
    ]
    return {"content": content, "refusal": None}


def _logprob(token: str, value: float) -> dict[str, Any]:
    return {"token": token, "logprob": value, "bytes": None}
