"""Prefix streaming: one answer, one message with metadata, whatever becomes of the draft."""

from __future__ import annotations

from functools import reduce
from operator import add

import pytest
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessageChunk

from confroute import Cascade, Gate, Prefix, Threshold, TokenLogprob
from langchain_confroute import ChatConfRoute
from langchain_confroute.messages import chunk_scores
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE

POLICY = Cascade(
    gates=(Gate(signal=TokenLogprob(), threshold=Threshold(value=0.5)),),
    prefix=Prefix(commit=Threshold(value=0.1), cut=Threshold(value=1.0), tokens=3, least=2),
)
SAYS = "edge says so at some length"


def router(logprob, **settings):
    edge = ScriptedChat.of(SAYS, name="small", logprob=logprob)
    cloud = ScriptedChat.of("cloud knows it well", name="large")
    edge = edge.model_copy(update={"rejects_logprobs": settings.pop("rejects", False)})
    return ChatConfRoute(
        edge=edge, cloud=cloud, policy=POLICY, edge_limits=ONCE, cloud_limits=ONCE, **settings
    )


async def chunks_of(model, asynchronous, config=None):
    if asynchronous:
        return [chunk async for chunk in model.astream("q", config)]
    return list(model.stream("q", config))


CASES = [
    (-0.05, "edge", "prefix"),
    (-0.3, "edge", "draft"),
    (-0.8, "cloud", "draft"),
    (-3.0, "cloud", "prefix"),
]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("logprob", "route", "stage"), CASES)
async def test_one_answer_with_one_decision(logprob, route, stage, asynchronous, watch):
    """Committed, kept whole, rejected whole, cut off: chunks add up to one answer, with everything on the last."""
    model = router(logprob)
    with get_usage_metadata_callback() as usage:
        chunks = await chunks_of(model, asynchronous, {"callbacks": [watch]})
    whole = reduce(add, chunks)
    assert whole.text == (SAYS if route == "edge" else "cloud knows it well")
    assert len({chunk.id for chunk in chunks}) == 1
    assert [bool(c.response_metadata.get("confroute")) for c in chunks] == [False] * (len(chunks) - 1) + [
        True
    ]
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
    decision = whole.response_metadata["confroute"]
    assert (decision["route"], decision["stage"]) == (route, stage)
    assert "logprobs" not in whole.response_metadata
    assert whole.response_metadata["model_name"] == ("small" if route == "edge" else "large")
    assert decision["usage"]["edge"]["output_tokens"] == (2 if (route, stage) == ("cloud", "prefix") else 6)
    assert watch.roles == (["draft"] if route == "edge" else ["draft", "final"])
    assert {run["end"] for run in watch.runs.values()} <= {"end", "error"}
    assert list(usage.usage_metadata)[-1] == whole.response_metadata["model_name"]
    same = (await model.ainvoke("q")).response_metadata["confroute"]
    assert {k: same[k] for k in ("route", "stage", "reason", "uncertainty", "signals")} == {
        k: decision[k] for k in ("route", "stage", "reason", "uncertainty", "signals")
    }


def test_a_committed_draft_flows(watch):
    """The first chunk is out before the edge has finished; leaving early ends the edge's run."""
    stream = router(-0.05).stream("q", {"callbacks": [watch]})
    assert next(stream).text == "edge"
    (draft,) = [run for run in watch.runs.values() if run["kind"] == "llm"]
    assert draft["end"] is None
    assert "nostream" in draft["tags"]
    stream.close()
    assert draft["end"] == "error"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_refusal_of_log_probabilities_ends_the_watch(asynchronous):
    """Asked again without them; then no evidence is left, and the cloud answers once."""
    model = router(-0.05, rejects=True)
    for _ in range(2):
        whole = reduce(add, await chunks_of(model, asynchronous))
        assert whole.text == "cloud knows it well"
        assert whole.response_metadata["confroute"]["stage"] == "no_signal"


def test_log_probabilities_stay_where_they_are_wanted():
    """keep_logprobs leaves them on the chunks, in order and complete."""
    whole = reduce(add, router(-0.05, keep_logprobs=True).stream("q"))
    assert len(whole.response_metadata["logprobs"]["content"]) == 6


@pytest.mark.filterwarnings("ignore:.*beta")
@pytest.mark.skipif(
    not hasattr(ChatConfRoute, "stream_events"), reason="this langchain-core has no such method"
)
@pytest.mark.parametrize(("logprob", "route", "stage"), CASES)
def test_stream_events_v3(logprob, route, stage):
    """LangChain's model-run path streams the same single answer."""
    stream = router(logprob).stream_events("q", version="v3")
    assert "".join(stream.text) == (SAYS if route == "edge" else "cloud knows it well")
    assert stream.output.response_metadata["confroute"]["stage"] == stage


@pytest.mark.parametrize("content", ["", [{"type": "reasoning", "reasoning": "Hm"}]])
def test_scored_reasoning_is_not_watched(content):
    """A chunk without text for the user, a block of reasoning too, says nothing about the answer."""
    metadata = {"logprobs": {"content": [{"token": "Hm", "logprob": -0.001}]}}
    assert chunk_scores(AIMessageChunk(content=content, response_metadata=metadata)) == ()
    assert chunk_scores(AIMessageChunk(content="Hm", response_metadata=metadata)).logprobs == (-0.001,)
