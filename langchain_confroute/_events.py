"""Telling whoever listens what was decided."""

from __future__ import annotations

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.tracers import LangChainTracer

from confroute.decision import Decision
from confroute.types import JSON
from langchain_confroute._compat import graph_writer
from langchain_confroute._run import Opened

EVENT = "confroute.decision"


def announce(decision: Decision, opened: Opened | None) -> dict[str, JSON]:
    """Send the decision to LangChain's handlers and to LangGraph's custom stream; return its JSON form."""
    record = decision.to_dict()
    if opened is not None and opened.manager.handlers:
        _to_langsmith(decision, opened)
        dispatch_custom_event(EVENT, record, config=opened.config)
    _to_graph(record)
    return record


async def aannounce(decision: Decision, opened: Opened | None) -> dict[str, JSON]:
    """Async form of `announce`."""
    record = decision.to_dict()
    if opened is not None and opened.manager.handlers:
        _to_langsmith(decision, opened)
        await adispatch_custom_event(EVENT, record, config=opened.config)
    _to_graph(record)
    return record


def _to_langsmith(decision: Decision, opened: Opened) -> None:
    """What runs are filtered by, as metadata of the router's run; the whole decision stands in its output."""
    for handler in opened.manager.handlers:
        if not isinstance(handler, LangChainTracer):
            continue
        run = handler.run_map.get(str(opened.manager.run_id))
        if run is not None:
            told = {
                "route": decision.route,
                "stage": decision.stage,
                "signal": decision.signal,
                "uncertainty": decision.uncertainty,
                "threshold": decision.threshold,
                "degraded": decision.degraded,
            }
            run.add_metadata(
                {f"confroute_{name}": value for name, value in told.items() if value is not None}
            )


def _to_graph(record: dict[str, JSON]) -> None:
    writer = graph_writer()
    if writer is not None:
        writer({EVENT: record})
