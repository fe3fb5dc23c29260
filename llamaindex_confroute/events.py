"""The event by which a decision reaches LlamaIndex's own instrumentation."""

from __future__ import annotations

from typing import Any

from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent

from confroute.decision import Decision
from confroute.types import JSON

_dispatcher = get_dispatcher(__name__)


class ConfRouteDecisionEvent(BaseEvent):
    """A call was routed.

    Sent once a call, in the span of the router's method, after the child's own events.

    Attributes
    ----------
    decision : dict
        `confroute.Decision.to_dict()`: JSON-safe, without text of the prompt or the answer.
    """

    decision: dict[str, Any]

    @classmethod
    def class_name(cls) -> str:
        """Stable name of this event."""
        return "ConfRouteDecisionEvent"


def announce(decision: Decision, *, span_id: str | None) -> dict[str, JSON]:
    """Send `decision` to every event handler that is set; return its JSON form."""
    record = decision.to_dict()
    _dispatcher.event(ConfRouteDecisionEvent(decision=record, span_id=span_id))
    return record
