"""A store for many machines: a Redis server."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from confroute.errors import MissingExtraError, StateError
from confroute.state.store import Change

T = TypeVar("T")
_PREFIX = "confroute:"
_MAX_WAIT_S = 0.02


class RedisStore:
    """Keeps records in Redis, exactly: a change that was overtaken by another one is computed again.

    Parameters
    ----------
    url : str
        "redis://HOST:PORT/DB", as in `redis.Redis.from_url`.
    clock : callable
        Seconds since the epoch; for tests and simulations. Synchronise the machines' clocks (NTP): windows and leases
        are compared with them.

    Raises
    ------
    MissingExtraError
        `redis` is not installed.
    """

    waits = True

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        try:
            import redis
        except ImportError as error:
            raise MissingExtraError(extra="redis", needed_for="state in Redis") from error
        self.now = clock
        self._redis: Any = redis.Redis.from_url(url)
        self._watch_error, self._redis_error = redis.WatchError, redis.RedisError

    def __deepcopy__(self, memo: object) -> RedisStore:
        return self

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()

    def change(self, keys: Sequence[str], change: Change[T]) -> T:
        """See `Store`."""
        try:
            return self._change([_PREFIX + key for key in keys], change)
        except self._redis_error as error:
            msg = f"the state in Redis cannot be changed ({type(error).__name__}: {error})"
            raise StateError(msg) from error

    def _change(self, names: list[str], change: Change[T]) -> T:
        with self._redis.pipeline() as pipe:
            while True:
                try:
                    pipe.watch(*names)
                    records = [json.loads(value) if value else None for value in pipe.mget(names)]
                    changed, result = change(records)
                    pipe.multi()
                    for name, record in zip(names, changed, strict=True):
                        pipe.set(name, json.dumps(record))
                    pipe.execute()
                except self._watch_error:
                    time.sleep(random.uniform(0, _MAX_WAIT_S))  # noqa: S311  spreads the retries, no secret
                else:
                    return result
