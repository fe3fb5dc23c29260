"""The server's application: who may ask, how much at once, and each request's way through the router and back."""

from __future__ import annotations

import asyncio
import hmac
import re
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, aclosing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from confroute.decision import Routed
from confroute.display import logger
from confroute.errors import PolicyError, RequestError
from confroute.hosts.chat import ChatCall, options_in_headers, read_chat
from confroute.hosts.chat_answers import END, Answer, event, header_of
from confroute.hosts.router import Router
from confroute.models.text_model import Piece
from confroute.observe.trace import Trace, record
from confroute.reading import fields, read_json, refusing
from confroute.serve.errors import RefusedError, error_object, failed
from confroute.types import JSON

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.types import Receive, Scope, Send

T = TypeVar("T")
_log = logger()
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_CLIENT_GONE = 499


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerLimits:
    """What one server takes on.

    Attributes
    ----------
    concurrent : int
        Calls at the same time; one more is refused with 503 and Retry-After.
    body_bytes : int
        The largest request.
    timeout_s : float
        Seconds from the request to the end of its answer.
    """

    concurrent: int = 64
    body_bytes: int = 8_000_000
    timeout_s: float = 600.0


def make_app(
    router: Router,
    *,
    name: str = "confroute",
    key: str | None = None,
    limits: ServerLimits | None = None,
    health: Callable[[], Mapping[str, JSON]] | None = None,
) -> Starlette:
    """An ASGI application that serves a router in OpenAI's format.

    Parameters
    ----------
    router : Router
    name : str
        The one model that it serves.
    key : str, optional
        What callers send as a bearer token. Without one only requests to this machine's loopback names are answered, which no page of
        another site can send.
    limits : ServerLimits, optional
    health : callable, optional
        What `/health` tells beside that the server runs. It is called in a thread.

    Raises
    ------
    PolicyError
        A key that no header can hold, such as an empty one, which everybody would send.

    Examples
    --------
    >>> from confroute import Cascade, TokenLogprob
    >>> from confroute.testing import ScriptedModel
    >>> router = Router(
    ...     edge=ScriptedModel(), cloud=ScriptedModel(name="large"), policy=Cascade.of(TokenLogprob(), 0.3)
    ... )
    >>> [route.path for route in make_app(router).routes]
    ['/v1/chat/completions', '/v1/models', '/health']
    """
    if key is not None and re.fullmatch(r"[!-~]+", key) is None:
        msg = "the key is empty or holds other signs than letters, digits and punctuation of ASCII: give another one, or None for loopback alone"
        raise PolicyError(msg)
    server = _Server(router, name, key, limits or ServerLimits(), health)
    return Starlette(
        routes=[
            Route("/v1/chat/completions", server.chat, methods=["POST"]),
            Route("/v1/models", server.models),
            Route("/health", server.health),
        ],
        exception_handlers={HTTPException: _no_such_page},
    )


class _Server:
    """What all requests share."""

    def __init__(
        self,
        router: Router,
        name: str,
        key: str | None,
        limits: ServerLimits,
        health: Callable[[], Mapping[str, JSON]] | None,
    ) -> None:
        self._router, self._name, self._key = router, name, key
        self._limits, self._health = limits, health
        self._running, self._started = 0, int(time.time())

    async def health(self, _: Request) -> Response:
        told = {} if self._health is None else await asyncio.to_thread(self._health)
        return JSONResponse({"status": "ok", "running": self._running, **told})

    async def models(self, request: Request) -> Response:
        try:
            self._admit(request)
        except RefusedError as error:
            return failed(error)
        model = {"id": self._name, "object": "model", "created": self._started, "owned_by": "confroute"}
        return JSONResponse({"object": "list", "data": [model]})

    async def chat(self, request: Request) -> Response:
        """Answer a call; whatever goes wrong is an answer too, since the text of an error may repeat the prompt and is not to be logged."""
        trace: Trace | None = None
        try:
            self._admit(request)
            if self._running >= self._limits.concurrent:
                msg = f"{self._running} calls are running, and this server takes no more at a time: try again"
                raise RefusedError(503, "busy", msg, wait_s=1.0)
            with self._counted(), record() as trace:
                body = await asyncio.wait_for(self._body(request), self._limits.timeout_s)
                tiers = self._router.tier_names
                chat = read_chat(body, around=options_in_headers(request.headers, tiers=tiers), tiers=tiers)
                return await (self._stream if body.get("stream") else self._whole)(
                    request, chat, Answer(body, chat)
                )
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        except Exception as error:  # noqa: BLE001  a provider's client raises what it likes
            _log.info("a call over HTTP failed: %s", type(error).__name__)
            # No decision: nobody said that the call was not private.
            return failed(error, private=not trace or any(decision.private for decision in trace))

    async def _whole(self, request: Request, chat: ChatCall, answer: Answer) -> Response:
        routed = await _unless_gone(request, self._router.achat(chat), self._limits.timeout_s)
        return JSONResponse(answer.whole(routed), headers=header_of(routed.decision))

    async def _stream(self, request: Request, chat: ChatCall, answer: Answer) -> Response:
        """Begin a stream once its first part is there: until then a failure has a status of its own."""
        deadline = time.monotonic() + self._limits.timeout_s
        items = self._router.astream_chat(chat)
        try:
            first = await _unless_gone(request, anext(items), self._limits.timeout_s)
        except BaseException:
            await items.aclose()
            raise
        headers = header_of(first.decision) if isinstance(first, Routed) else {}
        return _Events(_events(first, items, answer, deadline), items, self._counted(), headers)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    def _admit(self, request: Request) -> None:
        """Refuse who may not ask."""
        if self._key is not None:
            scheme, _, given = request.headers.get("authorization", "").partition(" ")
            # The names of schemes have no case (RFC 9110, 11.1).
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.encode(), self._key.encode()):
                msg = "the key is missing or wrong: send it as 'Authorization: Bearer KEY'"
                raise RefusedError(401, "invalid_api_key", msg)
        elif request.url.hostname not in LOOPBACK:
            msg = "this server has no key and answers on this machine's loopback alone: ask it as 127.0.0.1 or localhost, or start it with a key"
            raise RefusedError(403, "not_loopback", msg)

    async def _body(self, request: Request) -> dict[str, Any]:
        """The JSON of a request; of a larger one no more is read than may be kept."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            # Browsers send other types to any server without asking it first.
            msg = f"the request is declared as {kind or 'nothing'!r}: send 'Content-Type: application/json'"
            raise RefusedError(415, "not_json", msg)
        most, content = self._limits.body_bytes, bytearray()
        async for chunk in request.stream():
            content += chunk
            if len(content) > most:
                msg = f"the request is larger than {most} bytes, which is all that this server takes"
                raise RefusedError(413, "too_large", msg)
        with refusing(RequestError, "the request"):
            body = fields(read_json(bytes(content)), "the request")
        if body.get("model") != self._name:
            msg = f"this server has no model {body.get('model')!r}: ask for {self._name!r}"
            raise RefusedError(404, "model_not_found", msg)
        return body


class _Events(StreamingResponse):
    """A stream that counts as running until it ends, and whose model's answer ends with it, also where its reader has gone."""

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        items: AsyncGenerator[Piece | Routed, None],
        running: AbstractContextManager[None],
        headers: Mapping[str, str],
    ) -> None:
        told = {"cache-control": "no-cache", "x-accel-buffering": "no", **headers}
        super().__init__(events, headers=told, media_type="text/event-stream")
        self._items, self._events, self._running = items, events, running

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._running:
            async with aclosing(self._items), aclosing(self._events):
                await super().__call__(scope, receive, send)


async def _events(
    item: Piece | Routed, items: AsyncGenerator[Piece | Routed, None], answer: Answer, deadline: float
) -> AsyncGenerator[bytes, None]:
    try:
        while not isinstance(item, Routed):
            if (part := answer.part(item)) is not None:
                yield event(part)
            item = await asyncio.wait_for(anext(items), max(0.0, deadline - time.monotonic()))
        for part in answer.ending(item):
            yield event(part)
        yield END
    except Exception as error:  # noqa: BLE001  the status is sent already: clients raise what stands in an event
        _log.info("a stream over HTTP broke off: %s", type(error).__name__)
        yield event(error_object(error, private=True))


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T], timeout_s: float) -> T:
    """The result of `work`, which ends when its time is up or the caller hangs up.

    Raises
    ------
    ClientDisconnect
    TimeoutError
    """
    working, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({working, gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if gone.done():
            raise ClientDisconnect
        msg = f"no answer within {timeout_s:g} s"
        raise TimeoutError(msg)
    finally:
        working.cancel()
        gone.cancel()
        await asyncio.gather(working, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _no_such_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    msg = f"{request.method} {request.url.path}: expected POST /v1/chat/completions, GET /v1/models or GET /health"
    return failed(RefusedError(status, "not_found" if status == 404 else "not_allowed", msg))
