"""One call of the router, ready to be routed: whole or streamed, synchronously or not."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from confroute.decision import Routed
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.flow import Policy
from confroute.hosts.dispatch import Dispatcher
from confroute.models.resilience import Limits
from confroute.observe.trace import CallId
from confroute.types import JSON, Request
from llamaindex_confroute.context import Lineage
from llamaindex_confroute.events import announce
from llamaindex_confroute.responses import chunk_logprobs

C_co = TypeVar("C_co", covariant=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutedCall(Generic[C_co]):
    """Everything that routing one call takes; `C_co` is what its streams yield.

    Attributes
    ----------
    policy : Policy
    request : Request
    dispatcher : Dispatcher
    limits : mapping of str to Limits
        By tier.
    lineage : Lineage
        Remembers who answered, for the call that goes on from this answer.
    span_id : str or None
        Span of the router's method, for the event: a stream's decision falls after its span was left.
    """

    policy: Policy
    request: Request
    dispatcher: Dispatcher[C_co]
    limits: Mapping[str, Limits]
    lineage: Lineage
    span_id: str | None
    call_id: CallId

    def run(self) -> tuple[Routed, dict[str, JSON]]:
        """Route the whole call; with the answer comes its decision's JSON form."""
        routed = run(self.policy, self.request, self.dispatcher.call, self.limits, call_id=self.call_id)
        return routed, self.finish(routed)

    async def arun(self) -> tuple[Routed, dict[str, JSON]]:
        """Async form of `run`."""
        routed = await arun(
            self.policy, self.request, self.dispatcher.acall, self.limits, call_id=self.call_id
        )
        return routed, self.finish(routed)

    def stream(self) -> Generator[C_co | Routed, None, None]:
        """Route a streamed call: chunks of the answer, if it is streamed, then the `Routed`, which is to be given to `finish`."""
        call, stream = self.dispatcher.call, self.dispatcher.stream
        return run_stream(self.policy, self.request, call, stream, self.limits, **self._beside)

    def astream(self) -> AsyncGenerator[C_co | Routed, None]:
        """Async form of `stream`."""
        call, stream = self.dispatcher.acall, self.dispatcher.astream
        return arun_stream(self.policy, self.request, call, stream, self.limits, **self._beside)

    @property
    def _beside(self) -> dict[str, Any]:
        return {"scores": chunk_logprobs, "call_id": self.call_id}

    def finish(self, routed: Routed) -> dict[str, JSON]:
        """Announce the decision, remember who answered, and return the decision's JSON form."""
        if self.request.question is not None:
            self.lineage.note(self.request.question, routed.generation.text, routed.decision.route)
        return announce(routed.decision, span_id=self.span_id)
