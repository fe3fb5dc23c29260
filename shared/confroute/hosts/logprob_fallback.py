"""Models that refuse requests for log-probabilities: asked again for less of them, and not asked for them any more.

Without this such an edge would fail every time, and the cloud would answer every call.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import TypeVar

from confroute.hosts.model import HostModel, ModelCall
from confroute.models.resilience import rejects_logprobs
from confroute.types import Generation

C = TypeVar("C")
_WITHOUT_ALTERNATIVES, _WITHOUT_LOGPROBS = 1, 2


class LogprobFallback:
    """Makes calls of models and remembers, by the models' identity, what each of them refused.

    A refused call is made again without alternatives, then without log-probabilities. Nothing is caught of a call that asked
    for none.
    """

    __slots__ = ("_refused",)

    def __init__(self) -> None:
        self._refused: dict[object, int] = {}

    def call(self, model: HostModel[C], call: ModelCall) -> Sequence[Generation]:
        """Make a call of `model` and return its answers."""
        asked = self._eased(model, call)
        while True:
            try:
                return model.call(asked)
            except Exception as error:
                less = self._less(model, asked, error)
                if less is None:
                    raise
                asked = less

    async def acall(self, model: HostModel[C], call: ModelCall) -> Sequence[Generation]:
        """Async form of `call`."""
        asked = self._eased(model, call)
        while True:
            try:
                return await model.acall(asked)
            except Exception as error:
                less = self._less(model, asked, error)
                if less is None:
                    raise
                asked = less

    def stream(self, model: HostModel[C], call: ModelCall) -> Generator[C | Generation, None, None]:
        """Pass on a stream of `model`; it is begun again only if it was refused before its first item."""
        asked, begun = self._eased(model, call), False
        while True:
            try:
                with closing(model.stream(asked)) as items:
                    for item in items:
                        begun = True
                        yield item
                return
            except Exception as error:
                less = None if begun else self._less(model, asked, error)
                if less is None:
                    raise
                asked = less

    async def astream(self, model: HostModel[C], call: ModelCall) -> AsyncGenerator[C | Generation, None]:
        """Async form of `stream`."""
        asked, begun = self._eased(model, call), False
        while True:
            try:
                async with aclosing(model.astream(asked)) as items:
                    async for item in items:
                        begun = True
                        yield item
                return
            except Exception as error:
                less = None if begun else self._less(model, asked, error)
                if less is None:
                    raise
                asked = less

    def _eased(self, model: HostModel[C], call: ModelCall) -> ModelCall:
        """The call without what the model refused before."""
        refused = self._refused.get(model.facts.identity) if self._refused else None
        return call if refused is None else _without(call, refused)

    def _less(self, model: HostModel[C], asked: ModelCall, error: Exception) -> ModelCall | None:
        """The call to make after `error`; None where log-probabilities were not what failed."""
        if not asked.logprobs or not rejects_logprobs(error):
            return None
        refused = _WITHOUT_ALTERNATIVES if asked.top_logprobs else _WITHOUT_LOGPROBS
        identity = model.facts.identity
        if identity is not None:
            # Another thread may have learnt more in the meantime.
            self._refused[identity] = max(refused, self._refused.get(identity, 0))
        return _without(asked, refused)


def _without(call: ModelCall, refused: int) -> ModelCall:
    return replace(call, top_logprobs=0, logprobs=call.logprobs and refused == _WITHOUT_ALTERNATIVES)
