"""A model behind an OpenAI-compatible API, asked through OpenAI's own client."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias
from urllib.parse import urlsplit

from confroute.display import Address
from confroute.error_notes import note_usage
from confroute.errors import MissingExtraError, ModelError
from confroute.models.breaker import status_of
from confroute.models.provider_answers import (
    ends_by_reason,
    field,
    no_answer,
    read_answer_logprobs,
    read_answer_usage,
    read_finish,
    read_generations,
)
from confroute.models.text_model import MAX_TOKENS, Piece, Settings, scored_piece
from confroute.types import Generation, Message, total_usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI, OpenAI

OLLAMA_URL = "http://127.0.0.1:11434/v1"
REFUSED_STATUSES = frozenset({400, 422})
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


def is_loopback(url: str | None) -> bool:
    """Whether a server is on this machine's loopback.

    Examples
    --------
    >>> is_loopback("http://127.0.0.1:8080/v1"), is_loopback("https://api.example.com/v1"), is_loopback(None)
    (True, False, False)
    """
    return urlsplit(url or "").hostname in _LOOPBACK


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenAIModel:
    """A chat model of OpenAI, or of any server that speaks its protocol (vLLM, llama.cpp, Ollama).

    Parameters
    ----------
    model : str
    base_url : str, optional
        The server; that in `OPENAI_BASE_URL`, or OpenAI's own, where not given. The key is read from `OPENAI_API_KEY`;
        a server of your own needs none.
    timeout_s : float
        Of one request, in seconds.
    temperature : float, optional
        Of answers whose caller says none. None leaves it to the server: some of OpenAI's models refuse any other.
    max_tokens : int, optional
        Longest answer where the caller says none; None leaves it to the server.
    context_window : int, optional
        Tokens that prompt and answer may take together; None if it is not known.

    Notes
    -----
    No seed is sent: servers that give all samples of a request one seed would return one sample n times.
    """

    takes: ClassVar[frozenset[str]] = frozenset({"chat", "stop"})

    model: str
    base_url: str | None = None
    timeout_s: float = 120.0
    temperature: float | None = 0.0
    max_tokens: int | None = MAX_TOKENS
    context_window: int | None = None

    def __post_init__(self) -> None:
        if self.base_url is not None:
            object.__setattr__(self, "base_url", Address(self.base_url))

    @property
    def name(self) -> str:
        """The model's own name."""
        return self.model

    @property
    def url(self) -> str | None:
        """The server that is asked; None for OpenAI's own."""
        return self.base_url or os.environ.get("OPENAI_BASE_URL") or None

    @property
    def remote(self) -> bool:
        """False only for a server on this machine's loopback."""
        return not is_loopback(self.url)

    def generate(self, messages: Sequence[Message], *, n: int = 1, **settings: Any) -> tuple[Generation, ...]:
        """`n` answers; a server that returns fewer in one request is asked again, one that refuses `n` once for each.

        Raises
        ------
        MissingExtraError
            The `openai` package is not installed.
        ModelError
            No key.
        TierError
            A response without an answer, such as a page of a proxy. Errors of the API are passed on as OpenAI's.
        """
        body, drawn = self.body(messages, Settings(**settings)), _Drawn(n)
        with _billing(drawn.answers):
            while drawn.missing > 0:
                try:
                    drawn.answers += self._answers(self.request({**body, "n": drawn.missing}))
                except Exception as error:
                    if not drawn.goes_on_singly(error):
                        raise
        return tuple(drawn.answers[:n])

    async def agenerate(
        self, messages: Sequence[Message], *, n: int = 1, **settings: Any
    ) -> tuple[Generation, ...]:
        """Async form of `generate`."""
        body, drawn = self.body(messages, Settings(**settings)), _Drawn(n)
        client = await _async_client(self.url, self.timeout_s)
        with _billing(drawn.answers):
            while drawn.missing > 0:
                try:
                    completion = await client.chat.completions.create(**_sent({**body, "n": drawn.missing}))
                    drawn.answers += self._answers(completion)
                except Exception as error:
                    if not drawn.goes_on_singly(error):
                        raise
        return tuple(drawn.answers[:n])

    def stream(self, messages: Sequence[Message], **settings: Any) -> Generator[Piece, None, None]:
        """Answer once, piece by piece; closing the stream closes the connection, so that the server stops writing."""
        body = self.body(messages, Settings(**settings))
        with closing(self.request({**body, **_STREAMED})) as events:
            for event in events:
                yield _piece(event)

    async def astream(self, messages: Sequence[Message], **settings: Any) -> AsyncGenerator[Piece, None]:
        """Async form of `stream`."""
        body = self.body(messages, Settings(**settings))
        client = await _async_client(self.url, self.timeout_s)
        async with await client.chat.completions.create(**{**body, **_STREAMED}) as events:
            async for event in events:
                yield _piece(event)

    def body(self, messages: Sequence[Message], settings: Settings) -> dict[str, Any]:
        """The request of one answer."""
        chat = settings.chat
        plain = [{"role": message.role, "content": message.text} for message in messages]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": plain if chat is None else list(chat.messages),
            **({} if chat is None else chat.fields),
        }
        if settings.stop:
            body["stop"] = list(settings.stop)
        temperature = self.temperature if settings.temperature is None else settings.temperature
        if temperature is not None:
            body["temperature"] = temperature
        if max_tokens := settings.max_tokens or self.max_tokens:
            # OpenAI's newer models know only the second name, many other servers only the first.
            body["max_tokens" if self.url else "max_completion_tokens"] = max_tokens
        if settings.logprobs:
            body["logprobs"] = True
            body |= {"top_logprobs": settings.top_logprobs} if settings.top_logprobs else {}
        return body

    def request(self, body: dict[str, Any]) -> Any:
        """Send a request as it is, and return what OpenAI's client makes of the response."""
        return _client(self.url, self.timeout_s).chat.completions.create(**_sent(body))

    def _answers(self, completion: object) -> list[Generation]:
        answers = read_generations(completion, model=self.model)
        if not answers:
            raise no_answer(self.model, completion)
        beside = [_beside(field(choice, "message")) for choice in field(completion, "choices")]
        if not any(beside):
            return answers
        return [replace(answer, raw=more) for answer, more in zip(answers, beside, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedWindow:
    """What a server says of a model's context window.

    Attributes
    ----------
    tokens : int
        Tokens that prompt and answer may take together.
    field : str
        The field that says so.
    is_limit : bool
        False where it is the length that the model was trained on: the server may be set to less.
    """

    tokens: int
    field: str
    is_limit: bool


# llama.cpp (per slot), vLLM and SGLang, OpenRouter, Groq, Mistral; llama.cpp's last is the model's, not the server's.
_WINDOW_FIELDS = (
    "meta.n_ctx",
    "max_model_len",
    "context_length",
    "context_window",
    "max_context_length",
    "meta.n_ctx_train",
)


def served_window(model: OpenAIModel) -> ServedWindow | None:
    """Ask the server's list of models for a context window; None where it says none.

    Raises
    ------
    MissingExtraError
        The `openai` package is not installed.
    ModelError
        No key. Errors of the API are passed on as OpenAI's.
    """
    listed = list(_client(model.url, model.timeout_s).models.list())
    # A server with a single model may answer to any name.
    only = listed[0] if len(listed) == 1 else None
    entry = next((one for one in listed if one.id == model.model), only)
    for path in _WINDOW_FIELDS:
        tokens: object = entry
        for name in path.split("."):
            tokens = field(tokens, name)
        if isinstance(tokens, int) and tokens > 0:
            return ServedWindow(tokens=tokens, field=path, is_limit=path != "meta.n_ctx_train")
    return None


class _Drawn:
    """The answers of one call, in as few requests as its server makes them."""

    def __init__(self, n: int) -> None:
        self.answers: list[Generation] = []
        self._n = self._at_once = n

    @property
    def missing(self) -> int:
        """How many the next request asks for; 0 or less where all are there."""
        return min(self._at_once, self._n - len(self.answers))

    def goes_on_singly(self, error: Exception) -> bool:
        """Whether a request may have been refused for the number of its answers: llama.cpp gives no more than it has slots."""
        too_many = self.missing > 1 and status_of(error) in REFUSED_STATUSES
        self._at_once = 1
        return too_many


@contextmanager
def _billing(answers: Sequence[Generation]) -> Iterator[None]:
    """Note on an error the bill of the answers that came before it."""
    try:
        yield
    except Exception as error:
        note_usage(error, total_usage(answers))
        raise


# Without the second part a stream tells no usage.
_STREAMED: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}


def _sent(body: dict[str, Any]) -> dict[str, Any]:
    """The request without what says nothing: some servers refuse an `n` that they do not know."""
    return {name: value for name, value in body.items() if name != "n" or value > 1}


def _piece(event: Any) -> Piece:
    text = (event.choices[0].delta.content or "") if event.choices else ""
    # Servers name no reason until the end.
    finish = read_finish(event) if ends_by_reason(event) else None
    return scored_piece(
        text,
        read_answer_logprobs(event),
        finish=finish,
        usage=read_answer_usage(event),
        beside=_beside(event.choices[0].delta) if event.choices else None,
    )


# Of a message or a delta, what our own values have fields for.
_READ = frozenset({"role", "content"})


def _beside(message: Any) -> dict[str, Any] | None:
    """What else a message or a delta holds, as JSON: tool calls, a refusal, whatever its server adds; None where that is nothing."""
    names: frozenset[str] = getattr(message, "model_fields_set", frozenset()) - _READ
    # Writing the whole of it would cost more than reading the event.
    if all(getattr(message, name, None) is None for name in names):
        return None
    written: dict[str, Any] = message.model_dump(mode="json", exclude_none=True)
    return {name: value for name, value in written.items() if name not in _READ}


def _package() -> Any:
    try:
        import openai
    except ImportError as error:
        raise MissingExtraError(extra="openai", needed_for="a model named 'openai:MODEL'") from error
    return openai


def _made(kind: Any, url: str | None, timeout_s: float) -> Any:
    # Servers of one's own want no key, the client does.
    key = os.environ.get("OPENAI_API_KEY") or ("none" if url else None)
    try:
        # Retries are the caller's: its limits say how many.
        return kind(base_url=url, api_key=key, timeout=timeout_s, max_retries=0)
    except _package().OpenAIError as error:
        msg = f"no OpenAI client can be made: {error}; set OPENAI_API_KEY, or give a base URL"
        raise ModelError(msg) from error


@lru_cache(maxsize=8)
def _client(url: str | None, timeout_s: float) -> OpenAI:
    """One client per server: it keeps connections open and may be used by several threads."""
    client: OpenAI = _made(_package().OpenAI, url, timeout_s)
    return client


_LoopKey: TypeAlias = "tuple[asyncio.AbstractEventLoop, str | None, float]"
_async_clients: dict[_LoopKey, tuple[AsyncOpenAI, AsyncGenerator[None, None]]] = {}


async def _async_client(url: str | None, timeout_s: float) -> AsyncOpenAI:
    """One client per server and event loop: connections belong to the loop that they were opened on."""
    key = (asyncio.get_running_loop(), url, timeout_s)
    if key not in _async_clients:
        client: AsyncOpenAI = _made(_package().AsyncOpenAI, url, timeout_s)
        closer = _closed_with_loop(key, client)
        _async_clients[key] = client, closer
        await anext(closer)
    return _async_clients[key][0]


async def _closed_with_loop(key: _LoopKey, client: AsyncOpenAI) -> AsyncGenerator[None, None]:
    """Close a client before its loop ends: async generators are all that a loop ends by itself."""
    try:
        async with client:
            yield
    finally:
        del _async_clients[key]
