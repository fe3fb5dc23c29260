"""Query engines around a router are recorded: question, passages and scores as the router has them, and both answers."""

import numpy as np
import pytest
from llama_index.core import get_response_synthesizer
from llama_index.core.query_engine import SubQuestionQueryEngine
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.tools import QueryEngineTool, ToolMetadata
from pydantic import BaseModel

from confroute import Cascade, ContextSupport, TokenLogprob, load_policy, record
from confroute.errors import PolicyError
from confroute.fitting import CloudShare, fit
from confroute.policy import register
from confroute.recording import Row, Side, read_rows, record_pipeline
from confroute.recording.pipeline import PipelineRecorder
from confroute.recording.signals import builds_of
from confroute.testing import Reply, ScriptedModel

QUESTIONS = [f"Which city is number {n}?" for n in range(12)]


@register(name="lengths_of_tests")
def lengths(texts):
    """One vector per text."""
    found = np.array([[len(text) % 11 + 1, len(text) % 3 + 1] for text in texts], dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def draft(prompt):
    n = int(prompt.rsplit("number ", 1)[1].split("?")[0])
    return Reply(text=f"Bern{'e' * n} is it.", logprob=-0.05 * (n + 1))


def router(kit, policy=None):
    small = kit.scripted(name="small").model_copy()
    small.model = ScriptedModel(draft, samples=["Bern.", "Rome."], name="small")
    return kit.router(small, kit.cloud("Bern is it."), policy=policy)


def recorded(pipeline, **wanted):
    given = Row(id="a", prompt=QUESTIONS[2], reference="Bern", edge=Side())
    return PipelineRecorder(pipeline=pipeline, **wanted).row(given)


def test_a_query_engine_is_recorded_fitted_and_deployed(kit, index, tmp_path):
    """By a signal of the retrieved text: its values are measured again, and routed by, in the same engine."""
    rows = [Row(id=str(n), prompt=text, reference="Bern", edge=Side()) for n, text in enumerate(QUESTIONS)]
    signals = builds_of(["support=ContextSupport(by='embedding', model=lengths_of_tests)"])
    engine = index.as_query_engine(llm=router(kit), similarity_top_k=2)
    run = tmp_path / "run.jsonl"
    assert record_pipeline(engine, rows, run, signals=signals, samples=2).failed == 0
    found = [*read_rows(run)]
    for row, question in zip(found, QUESTIONS, strict=True):
        assert row.question == question
        assert len(row.context.passages) == len(row.context.scores) == 2
        assert (row.cloud.text, row.cloud.quality, len(row.edge.samples)) == ("Bern is it.", 1.0, 2)
        assert row.extra["calls"] == 1
    assert found[0].edge.quality == 1.0
    assert {row.edge.quality for row in found[1:]} == {0.0}
    fitted = fit(found, CloudShare(share=0.5), signal="support")
    fitted.save(tmp_path / "policy.json")
    policy = load_policy(tmp_path / "policy.json")
    assert policy.gates[0].signal == ContextSupport(by="embedding", model=lengths)
    with record() as decisions:
        deployed = index.as_query_engine(llm=router(kit, policy), similarity_top_k=2)
        for question in QUESTIONS:
            deployed.query(question)
    assert [one.signals["context_support"].uncertainty for one in decisions] == pytest.approx(
        [row.signals["support"] for row in found], abs=1e-6
    )
    assert {one.route for one in decisions} == {"edge", "cloud"}


@pytest.mark.parametrize("mode", ["refine", "tree_summarize", "compact"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_response_modes(kit, index, mode, asynchronous):
    """The evidence is that of the call whose text is the response; their number stands in the row."""
    engine = index.as_query_engine(llm=router(kit), response_mode=mode, similarity_top_k=3)
    row = recorded(engine.aquery if asynchronous else engine)
    assert (row.edge.text, row.cloud.text) == ("Bernee is it.", "Bern is it.")
    assert row.extra["calls"] == (3 if mode == "refine" else 1)
    if mode == "refine":
        assert row.context.existing_answer == "Bernee is it."


def test_streams(kit, index):
    """A streaming response is read to its end."""
    row = recorded(index.as_query_engine(llm=router(kit), streaming=True))
    assert (row.edge.text, row.cloud.text) == ("Bernee is it.", "Bern is it.")


class City(BaseModel):
    """A city."""

    name: str


def test_structured_responses_are_json(kit, index):
    """Of both models."""
    small = kit.scripted(
        Reply(text='{"name": "Rome"}', logprob=-0.2), name="small", is_function_calling_model=False
    )
    large = kit.scripted('{"name": "Bern"}', name="large", is_function_calling_model=False)
    llm = kit.router(small, large)
    engine = index.as_query_engine(llm=llm, output_cls=City)
    row = recorded(engine, grade=lambda _question, answer, _reference: answer == '{"name":"Bern"}')
    assert (row.edge.quality, row.cloud.quality) == (0.0, 1.0)
    assert row.edge.text == '{"name":"Rome"}'


def test_an_engine_that_cannot_read_its_draft(kit, index):
    """The row of that question holds what it raised, and its draft's flaw; the cloud's answer is there."""
    questions = '[{"sub_question": "Which city is number 2?", "tool_name": "cities"}]'
    small = kit.scripted(Reply(text='[{"sub_q', logprob=-0.01), name="small", is_function_calling_model=False)
    large = kit.scripted(questions, "Bern", name="large", is_function_calling_model=False)
    llm = kit.router(small, large)
    tool = QueryEngineTool(
        query_engine=index.as_query_engine(llm=llm),
        metadata=ToolMetadata(name="cities", description="cities"),
    )
    engine = SubQuestionQueryEngine.from_defaults(
        [tool],
        llm=llm,
        question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
        response_synthesizer=get_response_synthesizer(llm=llm, response_mode="compact"),
        use_async=False,
        verbose=False,
    )
    row = recorded(engine)
    assert row.edge.error.startswith(("OutputParserException", "ValueError"))
    assert row.edge.extra["flaw"].startswith("the SubQuestionOutputParser parser cannot read it")
    assert (row.cloud.text, row.cloud.quality) == ("Bern", 1.0)


def test_a_chat_engine_is_to_be_made_anew_for_each_question(kit, index):
    """Else one question's answer would depend on those before it."""
    llm = router(kit)
    with pytest.raises(PolicyError, match="keeps a history from question to question"):
        PipelineRecorder(pipeline=index.as_chat_engine(llm=llm))
    row = recorded(lambda question: index.as_chat_engine(chat_mode="context", llm=llm).chat(question))
    assert (row.edge.text, row.cloud.text) == ("Bernee is it.", "Bern is it.")


def test_the_router_is_itself_again(kit, index):
    """Its policy is in force outside of the recording, and after one that failed."""
    llm = router(kit, Cascade.of(TokenLogprob(), 9.0))
    recorded(index.as_query_engine(llm=llm))
    with pytest.raises(PolicyError):
        recorded(lambda question: print(llm.complete(question)))
    with record() as decisions:
        llm.complete(QUESTIONS[0])
    assert decisions[0].stage == "draft"
