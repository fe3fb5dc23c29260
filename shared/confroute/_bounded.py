"""Many pieces of work, a few at a time, results in the order of the work."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from confroute.errors import PolicyError

T = TypeVar("T")
R = TypeVar("R")
# Work that is done ahead of a slow piece; all of it is lost if the process dies.
_AHEAD = 4


def check_concurrency(concurrency: int) -> None:
    """Refuse fewer than one.

    Raises
    ------
    PolicyError
        Below 1.
    """
    if concurrency < 1:
        msg = f"concurrency is {concurrency}: expected at least 1"
        raise PolicyError(msg)


def bounded(do: Callable[[T], R], items: Iterable[T], *, concurrency: int) -> Generator[R, None, None]:
    """`map(do, items)` with at most `concurrency` threads, reading at most four items a thread ahead.

    An error of `do` is raised where its result would stand; what runs then is ended first, the rest never begun.

    Examples
    --------
    >>> [*bounded(lambda n: n * n, range(4), concurrency=2)]
    [0, 1, 4, 9]
    """
    check_concurrency(concurrency)
    if concurrency == 1:
        yield from map(do, items)
        return
    waiting: deque[Future[R]] = deque()
    with ThreadPoolExecutor(concurrency, thread_name_prefix="confroute-work") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(do, item))
                if len(waiting) >= concurrency * _AHEAD:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


async def abounded(
    do: Callable[[T], Awaitable[R]], items: Iterable[T], *, concurrency: int
) -> AsyncIterator[R]:
    """Async form of `bounded`: tasks on this loop, cancelled if the caller stops."""
    check_concurrency(concurrency)
    gate = asyncio.Semaphore(concurrency)

    async def one(item: T) -> R:
        async with gate:
            return await do(item)

    waiting: deque[asyncio.Task[R]] = deque()
    try:
        for item in items:
            waiting.append(asyncio.ensure_future(one(item)))
            if len(waiting) >= concurrency * _AHEAD:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
