"""A query engine over a folder on a real local edge: recorded, fitted, and routed by the fitted policy."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("llama_index.core")

from llama_index.core import Settings, SimpleDirectoryReader, VectorStoreIndex

from confroute import Cascade, TokenLogprob, load_policy, record
from confroute.fitting import CloudShare, fit
from confroute.recording import Row, Side, read_rows, record_pipeline
from confroute.recording.signals import builds_of
from confroute.testing import ScriptedModel
from llamaindex_confroute import ConfRouteLLM, LocalEmbedding, LocalLLM
from llamaindex_confroute.testing import ScriptedLLM

FOLDER = Path(__file__).parents[2] / "examples" / "ferry"
THINGS = ("bicycle", "car", "dog", "child", "return ticket", "caravan", "trailer", "motorcycle")
pytestmark = [pytest.mark.local, pytest.mark.slow, pytest.mark.timeout(600)]


def test_what_is_recorded_is_measured_again(tmp_path, monkeypatch):
    """By log-probabilities, samples and embeddings of retrieved text alike."""
    monkeypatch.setattr(Settings, "_tokenizer", str.split)
    documents = SimpleDirectoryReader(FOLDER).load_data()
    index = VectorStoreIndex.from_documents(documents, embed_model=LocalEmbedding())
    edge = LocalLLM(model="smollm2-135m", max_tokens=8)

    def engine(policy):
        cloud = ScriptedLLM(model=ScriptedModel(["4 euros."], name="large"))
        llm = ConfRouteLLM(edge=edge, cloud=cloud, policy=policy)
        return index.as_query_engine(llm=llm, similarity_top_k=1)

    rows = [
        Row(id=one, prompt=f"What does a {one} cost?", reference="4 euros", edge=Side()) for one in THINGS
    ]
    signals = builds_of(["token_logprob.mean", "support=ContextSupport(by='embedding')"])
    made = engine(Cascade.of(TokenLogprob(), 0.3))
    summary = record_pipeline(made, rows, tmp_path / "run.jsonl", signals=signals, samples=2)
    assert (summary.recorded, summary.failed) == (len(THINGS), 0)
    found = [*read_rows(tmp_path / "run.jsonl")]
    assert {len(row.edge.samples) for row in found} == {2}
    for column in signals:
        fit(found, CloudShare(share=0.5), signal=column, on_unfinished="judge").save(tmp_path / "policy.json")
        deployed = engine(load_policy(tmp_path / "policy.json"))
        with record() as decisions:
            for row in rows:
                deployed.query(row.prompt)
        measured = [next(iter(one.signals.values())).uncertainty for one in decisions if one.signals]
        assert measured == pytest.approx([row.signals[column] for row in found][: len(measured)], abs=1e-4)
        assert len(measured) == len(THINGS)
