"""Telling whoever listens what was decided."""

from __future__ import annotations

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event

from confroute.decision import Decision
from confroute.types import JSON
from langchain_confroute._compat import graph_writer
from langchain_confroute._run import Opened

EVENT = "confroute.decision"


def announce(decision: Decision, opened: Opened | None) -> dict[str, JSON]:
    """Send the decision to LangChain's handlers and to LangGraph's custom stream; return its JSON form."""
    record = decision.to_dict()
    if opened is not None and opened.manager.handlers:
        dispatch_custom_event(EVENT, record, config=opened.config)
    _to_graph(record)
    return record


async def aannounce(decision: Decision, opened: Opened | None) -> dict[str, JSON]:
    """Async form of `announce`."""
    record = decision.to_dict()
    if opened is not None and opened.manager.handlers:
        await adispatch_custom_event(EVENT, record, config=opened.config)
    _to_graph(record)
    return record


def _to_graph(record: dict[str, JSON]) -> None:
    writer = graph_writer()
    if writer is not None:
        writer({EVENT: record})
