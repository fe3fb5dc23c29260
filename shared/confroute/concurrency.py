"""Many pieces of work at the same time, results in the order of the work."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from confroute.errors import PolicyError

T = TypeVar("T")
R = TypeVar("R")
# Results per thread that wait for a slow piece before them; they are lost if the process dies.
_AHEAD = 4


def check_concurrency(concurrency: int) -> None:
    """Refuse a concurrency below 1.

    Raises
    ------
    PolicyError
        Below 1.
    """
    if concurrency < 1:
        msg = f"concurrency is {concurrency}: expected at least 1"
        raise PolicyError(msg)


async def off_the_loop(do: Callable[..., R], *args: object) -> R:
    """`asyncio.to_thread` for work that may be the user's.

    A `StopIteration` becomes a `RuntimeError`, as in a coroutine: no future of the event loop takes one, and who waits for it would
    wait for ever.
    """
    return await asyncio.to_thread(_without_stop_iteration, do, *args)


def _without_stop_iteration(do: Callable[..., R], *args: object) -> R:
    try:
        return do(*args)
    except StopIteration as error:
        msg = "the function raised StopIteration: it takes the next of an iterator that has ended"
        raise RuntimeError(msg) from error


def bounded(do: Callable[[T], R], items: Iterable[T], *, concurrency: int) -> Generator[R, None, None]:
    """Run `map(do, items)` in at most `concurrency` threads, reading at most four items per thread ahead.

    An error of `do` is raised where its result would stand; what runs then is finished first, the rest is never begun.

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


def together(do: Callable[[T], R], items: Sequence[T]) -> tuple[R | Exception, ...]:
    """Do all `items` at once, each in a thread of its own and in a copy of this context.

    Returns
    -------
    tuple
        In the order of `items`: what `do` returned, or the exception that it ended in. A KeyboardInterrupt and the like are raised
        instead, once all have ended.

    Examples
    --------
    >>> together(lambda n: 6 // n, (1, 0))
    (6, ZeroDivisionError('integer division or modulo by zero'))
    """

    def one(item: T) -> R | Exception:
        try:
            return do(item)
        except Exception as error:  # noqa: BLE001  the result of this item, for the caller to judge
            return error

    if len(items) < 2:
        return tuple(one(item) for item in items)
    with ThreadPoolExecutor(len(items), thread_name_prefix="confroute-gather") as pool:
        return (*pool.map(lambda work: work[0].run(one, work[1]), _placed(items)),)


def _placed(items: Sequence[T]) -> list[tuple[contextvars.Context, T]]:
    """Each item with its own copy of the context: one context cannot be entered by two threads."""
    return [(contextvars.copy_context(), item) for item in items]


async def atogether(do: Callable[[T], Awaitable[R]], items: Sequence[T]) -> tuple[R | Exception, ...]:
    """Async form of `together`: tasks on this loop, all cancelled if the caller gives up."""

    async def one(item: T) -> R | Exception:
        try:
            return await do(item)
        except Exception as error:  # noqa: BLE001  the result of this item, for the caller to judge
            return error

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return tuple(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


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
        # The start as well as the items: it may load a model.
        items = await asyncio.to_thread(start, cancel)
        while (item := await asyncio.to_thread(next, items, end)) is not end:
            yield item  # type: ignore[misc]  # `next` with a default widens to object
    finally:
        cancel.set()
