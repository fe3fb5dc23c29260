"""Chains around a router are recorded: their own results, the router's evidence, and the context that a step told."""

from __future__ import annotations

import pytest
from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.tools import tool
from pydantic import BaseModel

from confroute import Cascade, KeepPrivate, TokenLogprob, load_policy, record
from confroute.fitting import CloudShare, fit
from confroute.recording import Row, Side, read_rows, record_pipeline
from confroute.recording.pipeline import PipelineRecorder
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat

PASSAGE = "The ferry to Holm leaves the pier at noon."
NAMES = ("Holm", "Nardo", "Skagen", "Lyn", "Aero", "Fur", "Anholt", "Mors", "Samso", "Fano")


def draft(prompt):
    """The surer the earlier in the list."""
    at = next(n for n, name in enumerate(NAMES) if name in prompt.rsplit("ferry to", 1)[1])
    return Reply(text="It leaves at noon." if at % 2 else "At nine.", logprob=-0.05 * (at + 1))


def router(policy=None, edge=None, cloud="It leaves at noon."):
    edge = edge or ScriptedChat(script=ScriptedModel(draft, samples=["At noon.", "At nine."], name="small"))
    return ChatConfRoute(
        edge=edge,
        cloud=ScriptedChat.of(cloud, name="large") if isinstance(cloud, str) else cloud,
        policy=policy or Cascade.of(TokenLogprob(), 0.1),
    )


def question(name="Holm"):
    return f"When leaves the ferry to {name}?"


def chain(model):
    """A prompt, the router and a parser."""
    prompt = ChatPromptTemplate.from_template("Be brief. {question}")
    return {"question": RunnablePassthrough()} | prompt | model | StrOutputParser()


def recorded(pipeline, **wanted):
    given = Row(id="a", prompt=question(), reference="noon", edge=Side())
    return PipelineRecorder(pipeline=pipeline, **wanted).row(given)


def test_a_chain_is_recorded_fitted_and_deployed(tmp_path):
    """The row's prompt is the one that the model saw; the deployed chain goes by the fitted policy."""
    rows = [Row(id=name, prompt=question(name), reference="noon", edge=Side()) for name in NAMES]
    made = chain(router())
    assert record_pipeline(made, rows, tmp_path / "run.jsonl", samples=2).failed == 0
    found = [*read_rows(tmp_path / "run.jsonl")]
    assert found[0].messages == ({"role": "user", "content": f"Be brief. {question()}"},)
    assert [row.edge.quality for row in found] == [0.0, 1.0] * 5
    assert {row.cloud.quality for row in found} == {1.0}
    assert {len(row.edge.samples) for row in found} == {2}
    fit(found, CloudShare(share=0.5), signal="token_logprob.mean").save(tmp_path / "policy.json")
    deployed = chain(router(load_policy(tmp_path / "policy.json")))
    with record() as decisions:
        deployed.batch([question(name) for name in NAMES])
    assert [one.route for one in decisions] == ["edge"] * 5 + ["cloud"] * 5
    with record() as decisions:
        made.invoke(question("Fano"))
    assert decisions[0].route == "cloud"


def test_a_context_that_a_step_told_stands_in_the_row():
    """As signals of retrieved text read it."""
    model = router()

    def step(asked):
        documents = [(Document(PASSAGE), 0.8)]
        config = {"configurable": {"confroute_context": {"question": asked, "documents": documents}}}
        return model.invoke(f"{PASSAGE}\n{asked}", config)

    row = recorded(RunnableLambda(step))
    assert row.question == question()
    assert row.context.passages == (PASSAGE,)
    assert row.signals["retrieval_score"] == pytest.approx(0.2)
    assert row.signals["context_support"] is not None


class Departure(BaseModel):
    """A departure."""

    hour: int


def test_structured_values_are_json():
    """Of both models, whatever object the chain returns."""
    edge = ScriptedChat(
        script=ScriptedModel(draft, name="small"), calls=[{"name": "Departure", "args": {"hour": 9}}]
    )
    large = ScriptedChat.of("x", name="large").model_copy(
        update={"calls": [{"name": "Departure", "args": {"hour": 12}}]}
    )
    model = router(edge=edge, cloud=large)
    row = recorded(model.with_structured_output(Departure), grade=lambda _q, text, _r: text == '{"hour":12}')
    assert (row.edge.quality, row.cloud.quality) == (0.0, 1.0)
    assert row.edge.shown == '{"hour":9}'


def test_an_agent_is_a_function_of_one_question():
    """Several calls: the evidence is that of its last answer."""

    @tool
    def timetable(island: str) -> str:
        """The timetable."""
        return PASSAGE

    edge = ScriptedChat(script=ScriptedModel(lambda _: Reply(text="At noon.", logprob=-0.2), name="small"))
    agent = create_agent(router(edge=edge), [timetable])
    row = recorded(lambda asked: agent.invoke({"messages": [("user", asked)]}))
    assert (row.edge.text, row.edge.quality, row.extra["calls"]) == ("At noon.", 1.0, 2)
    assert row.messages[-1]["role"] == "tool"


async def test_streams_and_async_chains():
    """Read to their end by a function."""
    made = chain(router())
    row = recorded(lambda asked: "".join(made.stream(asked)))
    assert (row.edge.text, row.cloud.text) == ("At nine.", "It leaves at noon.")
    assert recorded(made.ainvoke).edge.text == "At nine."
    assert recorded(lambda asked: AIMessage(made.invoke(asked))).edge.shown == "At nine."


def test_a_private_question_has_no_cloud():
    """And none of the cloud's calls was made."""
    large = ScriptedChat.of("x", name="large")
    policy = Cascade.of(TokenLogprob(), 0.1, rules=(KeepPrivate(patterns=("Holm",)),))
    row = recorded(chain(router(policy, cloud=large)))
    assert (row.cloud, row.extra["private"], row.edge.text) == (None, True, "At nine.")
    assert large.script.calls == []
