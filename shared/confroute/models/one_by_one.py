"""Several answers of a model that gives one answer a call: the speakers of both hosts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from confroute.types import Generation, Message


class OneByOne:
    """`say` and `asay` of a `Speaker`, for a class that defines `one` and `aone`."""

    __slots__ = ()

    def one(self, messages: Sequence[Message], *, temperature: float, number: int) -> Generation:
        """Answer number `number`, 0 for the first."""
        raise NotImplementedError

    async def aone(self, messages: Sequence[Message], *, temperature: float, number: int) -> Generation:
        """Async form of `one`."""
        raise NotImplementedError

    def say(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int | None = None,
    ) -> tuple[Generation, ...]:
        """`n` calls of the model, one after the other."""
        return tuple(self.one(messages, temperature=temperature, number=number) for number in range(n))

    async def asay(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int | None = None,
    ) -> tuple[Generation, ...]:
        """Async form of `say`, all calls at once."""
        calls = [self.aone(messages, temperature=temperature, number=number) for number in range(n)]
        return tuple(await asyncio.gather(*calls))
