"""What of the host is not public API, all of it, as of llama-index-core 0.14, and how the host's streams are closed."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine.condense_plus_context import DEFAULT_CONDENSE_PROMPT_TEMPLATE
from llama_index.core.llms.llm import LLM
from llama_index.core.output_parsers.pydantic import PYDANTIC_FORMAT_TMPL
from llama_index.core.output_parsers.utils import extract_json_str
from llama_index.core.retrievers.fusion_retriever import QUERY_GEN_PROMPT
from llama_index_instrumentation import root_dispatcher
from llama_index_instrumentation.dispatcher import active_instrument_tags
from llama_index_instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.span import active_span_id

F = TypeVar("F", bound=Callable[..., Any])
G = TypeVar("G", bound=Generator[Any, None, None])
A = TypeVar("A", bound=AsyncGenerator[Any, None])


def unspanned(function: F) -> F:
    """Keep the host from opening a span for an override of a method that opens one itself.

    Its span mixin wraps every override of a method with a span; calling `super()` from there would give two spans
    of one name, one in the other.
    """
    function.__dispatcher_span_decorated__ = True  # type: ignore[attr-defined]  # the host's own mark
    return function


def tags() -> Mapping[str, Any]:
    """Return what the user set by `instrument_tags`."""
    return active_instrument_tags.get()


def span_id() -> str | None:
    """Return the span that is open here."""
    return active_span_id.get()


def with_system_prompt(llm: LLM, messages: list[ChatMessage]) -> list[ChatMessage]:
    """Put the LLM's own system prompt before `messages`, as its `predict` does."""
    return llm._extend_messages(messages)


_HEAD, _, _TAIL = PYDANTIC_FORMAT_TMPL.partition("{schema}")
JSON_FORM = _HEAD, _TAIL
"""What the host's own parser of pydantic values writes before and behind their schema."""


def read_json(text: str) -> Any:
    """Read the JSON in a text as that parser does."""
    return json.loads(extract_json_str(text))


def completion_heads() -> Mapping[str, str]:
    """How the prompts begin that the host fills in itself and sends to `complete`, and what they are for."""
    return {
        DEFAULT_CONDENSE_PROMPT_TEMPLATE.lstrip().split("{", 1)[0]: "condense",
        QUERY_GEN_PROMPT.lstrip().split("{", 1)[0]: "query_gen",
    }


def listen(handler: BaseEventHandler) -> None:
    """Let `handler` see every event of the host, once."""
    if handler not in root_dispatcher.event_handlers:
        root_dispatcher.add_event_handler(handler)


@contextmanager
def closing_all(stream: G) -> Generator[G, None, None]:
    """Close `stream` at the end, the generators that it reads from, and their HTTP responses.

    Closing the generator that an LLM of the host returned is not enough. The host's wrapper never closes what it wraps, and
    sends the exception of its own end to handlers: while one keeps it, its traceback keeps the generator inside alive. And the
    stream objects of OpenAI's client and its like are cycles, which nobody closes until the garbage collector runs. The server
    would go on writing a draft that was cut off, on the machine that the next draft needs.
    """
    try:
        yield stream
    finally:
        generators, responses = _behind(stream)
        for one in (stream, *generators, *responses):
            one.close()


@asynccontextmanager
async def aclosing_all(stream: A) -> AsyncGenerator[A, None]:
    """Async form of `closing_all`."""
    try:
        yield stream
    finally:
        generators, responses = _behind(stream)
        for one in (stream, *generators, *responses):
            await one.aclose()


def _behind(stream: Any) -> tuple[list[Any], list[Any]]:
    """What a suspended stream reads from: generators of its own kind, the outer ones first, and HTTP responses.

    None, if it has ended. Only what its frames hold is looked at, so nothing is found that is another's.
    """
    generators: list[Any] = []
    responses: dict[int, Any] = {}
    waiting = [stream]
    while waiting:
        one = waiting.pop()
        frame = getattr(one, "gi_frame", None) or getattr(one, "ag_frame", None)
        if frame is None:
            continue
        # What a loop reads from has no name: it is found among the references only.
        for value in (*frame.f_locals.values(), *gc.get_referents(one, frame)):
            if type(value) is type(stream) and value is not stream and value not in generators:
                generators.append(value)
                waiting.append(value)
            elif (response := _response(value)) is not None:
                responses[id(response)] = response
    return generators, [*responses.values()]


def reply_behind(error: BaseException) -> Any:
    """What the provider replied, where the host's client stumbled over it; None where it cannot be found.

    The host takes the first choice of a reply without looking for one, and keeps the reply in the frame where that fails.
    """
    reply, at = None, error.__traceback__
    while at is not None:
        frame = at.tb_frame
        if str(frame.f_globals.get("__name__")).startswith("llama_index.llms."):
            reply = frame.f_locals.get("response", reply)
        at = at.tb_next
    return reply if hasattr(reply, "choices") else None


def _response(value: Any) -> Any:
    """The HTTP response that a value is, or reads its events from."""
    httpx = sys.modules.get("httpx")
    if httpx is None:
        return None
    # Not by `getattr`, which would run properties.
    held: Any = value if isinstance(value, httpx.Response) else getattr(value, "__dict__", {}).get("response")
    return held if isinstance(held, httpx.Response) and not held.is_closed else None
