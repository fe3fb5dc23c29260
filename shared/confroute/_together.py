"""Several pieces of work at the same time, each ending in its result or its error."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def together(do: Callable[[T], R], items: Sequence[T]) -> tuple[R | Exception, ...]:
    """Do all `items` at once, each in a thread of its own and in a copy of this context.

    Returns
    -------
    tuple
        In the order of `items`: what `do` returned, or the exception it ended in. What is no `Exception`, such as a
        KeyboardInterrupt, is raised instead, once all have ended.

    Examples
    --------
    >>> together(lambda n: 6 // n, (1, 0))
    (6, ZeroDivisionError('integer division or modulo by zero'))
    """

    def one(item: T) -> R | Exception:
        try:
            return do(item)
        except Exception as error:  # noqa: BLE001  the result of this item: whoever asked for several judges each
            return error

    if len(items) < 2:
        return tuple(one(item) for item in items)
    with ThreadPoolExecutor(len(items), thread_name_prefix="confroute-gather") as pool:
        return (*pool.map(lambda work: work[0].run(one, work[1]), _placed(items)),)


def _placed(items: Sequence[T]) -> list[tuple[contextvars.Context, T]]:
    """Each item with its own copy of the context: one context cannot be entered by two threads."""
    return [(contextvars.copy_context(), item) for item in items]


async def atogether(do: Callable[[T], Awaitable[R]], items: Sequence[T]) -> tuple[R | Exception, ...]:
    """Async form of `together`: tasks on this loop; if the caller gives up, all of them are cancelled."""

    async def one(item: T) -> R | Exception:
        try:
            return await do(item)
        except Exception as error:  # noqa: BLE001  see above
            return error

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return tuple(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise
