"""Models that refuse requests for log-probabilities: asked again for less of them, and not asked for them for a while.

Without this such an edge would fail every time, and the cloud would answer every call. The other mistake is as costly: an error that
only mentions log-probabilities (servers repeat the request, users ask about them) must not switch the evidence off. So a refusal
counts once the same call without them has succeeded, and models are asked in full again from time to time.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, replace
from typing import TypeVar

from confroute.hosts.model import HostModel, ModelCall
from confroute.models.resilience import rejects_logprobs
from confroute.types import Generation

C = TypeVar("C")
_NOTHING, _WITHOUT_ALTERNATIVES, _WITHOUT_LOGPROBS = 0, 1, 2
_AGAIN_S = 600.0


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What a model refused, and until when it is not asked for it."""

    refused: int
    until: float


class LogprobFallback:
    """Makes calls of models and remembers, by the models' identity, what each of them refused.

    A refused call is made again without alternatives, then without log-probabilities. Nothing is caught of a call that asked
    for none.

    Parameters
    ----------
    again_s : float
        Seconds for which a model is not asked for what it refused. Then one call asks for it again.
    clock : callable
        A monotonic clock in seconds; for tests.
    """

    __slots__ = ("_again_s", "_clock", "_refusals")

    def __init__(self, *, again_s: float = _AGAIN_S, clock: Callable[[], float] = time.monotonic) -> None:
        self._again_s, self._clock = again_s, clock
        self._refusals: dict[object, _Refusal] = {}

    def call(self, model: HostModel[C], call: ModelCall) -> Sequence[Generation]:
        """Make a call of `model` and return its answers."""
        descent = self._begun(model, call)
        while True:
            try:
                answers = model.call(descent.asked)
            except Exception as error:
                if not descent.ask_for_less(error):
                    raise
            else:
                self._learn(model, descent)
                return answers

    async def acall(self, model: HostModel[C], call: ModelCall) -> Sequence[Generation]:
        """Async form of `call`."""
        descent = self._begun(model, call)
        while True:
            try:
                answers = await model.acall(descent.asked)
            except Exception as error:
                if not descent.ask_for_less(error):
                    raise
            else:
                self._learn(model, descent)
                return answers

    def stream(self, model: HostModel[C], call: ModelCall) -> Generator[C | Generation, None, None]:
        """Pass on a stream of `model`; it is begun again only if it was refused before its first item."""
        descent, begun = self._begun(model, call), False
        while True:
            try:
                with closing(model.stream(descent.asked)) as items:
                    for item in items:
                        if not begun:
                            begun = True
                            self._learn(model, descent)
                        yield item
                return
            except Exception as error:
                if begun or not descent.ask_for_less(error):
                    raise

    async def astream(self, model: HostModel[C], call: ModelCall) -> AsyncGenerator[C | Generation, None]:
        """Async form of `stream`."""
        descent, begun = self._begun(model, call), False
        while True:
            try:
                async with aclosing(model.astream(descent.asked)) as items:
                    async for item in items:
                        if not begun:
                            begun = True
                            self._learn(model, descent)
                        yield item
                return
            except Exception as error:
                if begun or not descent.ask_for_less(error):
                    raise

    def _begun(self, model: HostModel[C], call: ModelCall) -> _Descent:
        """The call without what the model refused lately."""
        identity = model.facts.identity
        refusal = self._refusals.get(identity) if self._refusals else None
        if refusal is None:
            return _Descent(call)
        now = self._clock()
        if now < refusal.until or (refusal.refused == _WITHOUT_ALTERNATIVES and not call.top_logprobs):
            return _Descent(_without(call, refusal.refused))
        # This call alone asks in full; the others wait for what it learns.
        self._refusals[identity] = replace(refusal, until=now + self._again_s)
        return _Descent(call, probes=True)

    def _learn(self, model: HostModel[C], descent: _Descent) -> None:
        """Remember what the model refused, now that the call without it has succeeded, or that it refuses nothing any more."""
        identity = model.facts.identity
        if identity is None:
            return
        if descent.refused:
            until, known = self._clock() + self._again_s, self._refusals.get(identity)
            # Another thread may have learnt more in the meantime.
            most = max(descent.refused, _NOTHING if known is None or descent.probes else known.refused)
            self._refusals[identity] = _Refusal(most, until)
        elif descent.probes:
            self._refusals.pop(identity, None)


@dataclass(slots=True)
class _Descent:
    """One call on its way down: what it asks for now, and what was refused on the way."""

    asked: ModelCall
    probes: bool = False
    refused: int = _NOTHING

    def ask_for_less(self, error: Exception) -> bool:
        """Whether the call is worth making again, after `error`, for less."""
        if not self.asked.logprobs or not rejects_logprobs(error):
            return False
        self.refused = _WITHOUT_ALTERNATIVES if self.asked.top_logprobs else _WITHOUT_LOGPROBS
        self.asked = _without(self.asked, self.refused)
        return True


def _without(call: ModelCall, refused: int) -> ModelCall:
    return replace(call, top_logprobs=0, logprobs=call.logprobs and refused == _WITHOUT_ALTERNATIVES)
