"""Run a local model in threads, so that an event loop keeps turning and a cancelled task stops the decoding."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


async def in_thread(run: Callable[[threading.Event], T]) -> T:
    """Return `run(cancel)` from a thread; leaving early sets `cancel`.

    Examples
    --------
    >>> loop = asyncio.new_event_loop()
    >>> loop.run_until_complete(in_thread(lambda cancel: cancel.is_set()))
    False
    >>> loop.run_until_complete(loop.shutdown_default_executor())
    >>> loop.close()
    """
    cancel = threading.Event()
    try:
        return await asyncio.to_thread(run, cancel)
    finally:
        cancel.set()


async def stream_in_thread(start: Callable[[threading.Event], Iterator[T]]) -> AsyncGenerator[T, None]:
    """Yield from `start(cancel)`, each item fetched in a thread; leaving early sets `cancel`."""
    cancel = threading.Event()
    end = object()
    try:
        # Not only the items: counting the prompt and a first load take long as well.
        items = await asyncio.to_thread(start, cancel)
        while (item := await asyncio.to_thread(next, items, end)) is not end:
            yield item  # type: ignore[misc]  # `next` with a default widens to object
    finally:
        cancel.set()
