"""What LangChain reports of a routed call, by the script that prints it beside other ways to put two models in one."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("langgraph")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "langchain_table.py"
spec = importlib.util.spec_from_file_location("langchain_table", SCRIPT)
table = importlib.util.module_from_spec(spec)
# pydantic looks the annotations of a model up there.
sys.modules[spec.name] = table
spec.loader.exec_module(table)

EXPECTED = {
    "usage callback, kept": "small 3",
    "usage callback, escalated": "large 4 small 3",
    "usage callback, stream escalated": "large 4 small 3",
    # LangChain's own model run there counts what it returns; the draft is in the decision.
    "usage callback, v3 events escalated": "large 4",
    "run tree, escalated": "chain[llm llm]",
    "run tree, stream escalated": "chain[llm llm]",
    "sum of chunks, escalated": table.CLOUD,
    "LangGraph messages, escalated": table.CLOUD,
    "LangGraph messages, kept": table.EDGE,
    "astream_events v2, tokens of models": table.CLOUD,
    "one call forced by its config": "yes",
    "decision event without parent run": "confroute.decision",
}
# Where the host shows one model, the router has to show the same.
AS_THE_BARE_MODEL = ("usage callback, kept", "sum of chunks, escalated")
AS_THE_BARE_MODEL += tuple(row for row in EXPECTED if row.startswith(("LangGraph", "astream")))


@pytest.mark.filterwarnings("ignore:.*beta")
@pytest.mark.parametrize("row", table.ROWS)
def test_the_host_reports_one_model_and_every_token_once(row):
    """No draft in any stream, no token counted twice, one tree."""
    keeps, question = table.ROWS[row]
    assert question(table.models(keeps)["ChatConfRoute"]) == EXPECTED[row]


@pytest.mark.parametrize("row", AS_THE_BARE_MODEL)
def test_a_caller_sees_what_the_answering_model_alone_would_show(row):
    """The same cell as the bare model."""
    keeps, question = table.ROWS[row]
    found = table.models(keeps)
    assert question(found["ChatConfRoute"]) == question(found["bare model"])
