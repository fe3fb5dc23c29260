"""Closing a child's stream down to its connection.

Closing the generator that an LLM of the host returned is not enough. The host's wrapper never closes what it wraps, and sends
the exception of its own end to handlers: while one keeps it, its traceback keeps the generator inside alive. And the stream
objects of OpenAI's client and its like are cycles, which nobody closes until the garbage collector runs. The server would go
on writing a draft that was cut off, on the machine that the next draft needs.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar

G = TypeVar("G", bound=Generator[Any, None, None])
A = TypeVar("A", bound=AsyncGenerator[Any, None])


@contextmanager
def closing_all(stream: G) -> Generator[G, None, None]:
    """Close `stream` at the end, the generators that it reads from, and their HTTP responses."""
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


def _response(value: Any) -> Any:
    """The HTTP response that a value is, or reads its events from."""
    httpx = sys.modules.get("httpx")
    if httpx is None:
        return None
    # Not by `getattr`, which would run properties.
    held: Any = value if isinstance(value, httpx.Response) else getattr(value, "__dict__", {}).get("response")
    return held if isinstance(held, httpx.Response) and not held.is_closed else None
