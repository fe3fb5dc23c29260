"""Calls that nobody waits for: shadow audits, and hedges until their answer is needed."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

from confroute.asks import Evidence
from confroute.display import logger
from confroute.errors import loggable
from confroute.models.deadline import no_deadline

T = TypeVar("T")
_log = logger()
_threads: set[threading.Thread] = set()
_tasks: set[asyncio.Task[None]] = set()
_lock = threading.Lock()


def start(work: Callable[[], T]) -> Future[T]:
    """Run `work` in a thread of its own, in a copy of this context."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001  raised where the result is asked for
            future.set_exception(error)
        else:
            future.set_result(result)

    # A daemon: a call that nobody waits for must not keep the interpreter alive at exit.
    threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True).start()
    return future


def shadow(work: Callable[[], Evidence], then: Callable[[Evidence | Exception], None]) -> None:
    """Run `work` in the background without the caller's deadline, and hand its outcome to `then`."""

    def run() -> None:
        try:
            with no_deadline():
                _deliver(then, _outcome(work))
        finally:
            with _lock:
                _threads.discard(threading.current_thread())

    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), daemon=True)
    # Started inside the lock: `wait` must not meet a thread that cannot be joined yet.
    with _lock:
        _threads.add(thread)
        thread.start()


def ashadow(
    work: Callable[[], Coroutine[Any, Any, Evidence]], then: Callable[[Evidence | Exception], None]
) -> None:
    """Async form of `shadow`; ends with its event loop."""

    async def run() -> None:
        outcome: Evidence | Exception
        with no_deadline():
            try:
                outcome = await work()
            except Exception as error:  # noqa: BLE001  handed on, whatever it is
                outcome = error
            # `then` may write to a disk or a network.
            await asyncio.to_thread(_deliver, then, outcome)

    task = asyncio.get_running_loop().create_task(run())
    _tasks.add(task)
    task.add_done_callback(_tasks.discard)


def wait(timeout_s: float = 60.0) -> bool:
    """Wait for the shadow audits of synchronous calls, such as before a process ends.

    Returns
    -------
    bool
        False if some are still running after `timeout_s` seconds.
    """
    until = time.monotonic() + timeout_s
    with _lock:
        waiting = list(_threads)
    for thread in waiting:
        thread.join(max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in waiting)


async def await_all(timeout_s: float = 60.0) -> bool:
    """Async form of `wait`: for the shadow audits of this event loop's calls."""
    loop = asyncio.get_running_loop()
    # A list first: other threads' loops add to the set meanwhile.
    waiting = {task for task in list(_tasks) if task.get_loop() is loop}
    if not waiting:
        return True
    _, late = await asyncio.wait(waiting, timeout=timeout_s)
    return not late


def _outcome(work: Callable[[], Evidence]) -> Evidence | Exception:
    try:
        return work()
    except Exception as error:  # noqa: BLE001  handed on, whatever it is
        return error


def _deliver(then: Callable[[Evidence | Exception], None], outcome: Evidence | Exception) -> None:
    try:
        then(outcome)
    except Exception as error:  # noqa: BLE001  nobody waits here: only the log can say it
        _log.error("a shadow audit could not be kept: %s", loggable(error))
