"""Retrieved context, told by the caller or left by a tool: signals see it apart from the prompt."""

from __future__ import annotations

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda

from confroute import Cascade, ContextSupport, RetrievalScore, TokenLogprob
from confroute.errors import RequestError
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.messages import retrieved
from langchain_confroute.testing import ScriptedChat

PASSAGE = "The ferry to Holm leaves the pier at noon."
QUESTION = "When does the ferry leave?"


def decision_of(message):
    return message.response_metadata["confroute"]


def told(documents, **fields):
    return {"configurable": {"confroute_context": {"documents": documents, **fields}}}


def router(text, signal, threshold=0.3):
    edge = ScriptedChat.of(text, name="small")
    return ChatConfRoute(
        edge=edge, cloud=ScriptedChat.of("cloud", name="large"), policy=Cascade.of(signal, threshold)
    )


@pytest.mark.parametrize(
    ("text", "route"), [("It leaves the pier at noon.", "edge"), ("A zeppelin departs daily.", "cloud")]
)
async def test_an_answer_is_held_against_what_was_retrieved(text, route):
    """In a chain, sync, async and streamed: the question is not the whole prompt."""
    model = router(text, ContextSupport())
    chain = ChatPromptTemplate.from_template("{context} {question}") | model
    given = {"context": PASSAGE, "question": QUESTION}
    config = told([Document(PASSAGE)], question=QUESTION)
    *_, last = chain.stream(given, config)
    for answer in (chain.invoke(given, config), await chain.ainvoke(given, config), last):
        decision = decision_of(answer)
        assert (decision["route"], decision["signal"]) == (route, "context_support")


def test_a_step_of_a_chain_tells_what_it_retrieved():
    """The config of a nested call reaches the router."""
    model = router("It leaves the pier at noon.", ContextSupport())

    def step(question):
        return model.invoke(f"{PASSAGE} {question}", told([PASSAGE], question=question))

    answer = RunnableLambda(step).invoke(QUESTION, {"tags": ["outer"]})
    assert decision_of(answer)["signals"]["context_support"]["uncertainty"] < 0.3


@pytest.mark.parametrize(("best", "route"), [(0.9, "edge"), (0.1, "cloud")])
def test_scores_come_in_the_form_that_vector_stores_give(best, route):
    """Pairs of document and relevance."""
    config = told([(Document(PASSAGE), best), (Document("x"), 0.05)], question=QUESTION)
    answer = router("noon", RetrievalScore(), 0.5).invoke("q", config)
    assert (decision_of(answer)["route"], decision_of(answer)["signal"]) == (route, "retrieval_score")


def test_without_a_context_there_is_no_evidence_of_it():
    """As before: nothing is made up."""
    decision = decision_of(router("noon", ContextSupport()).invoke("q"))
    assert decision["stage"] == "no_signal"


def test_a_draft_that_says_the_context_lacks_the_answer_is_kept():
    """A larger model, shown the same passages, could not find it either."""
    model = router("The context does not say who the captain is.", TokenLogprob(), 0.0)
    config = told([PASSAGE], question="Who is the captain of the Heron?")
    assert decision_of(model.invoke("q", config))["route"] == "edge"
    assert decision_of(model.invoke("q"))["route"] == "cloud"


def test_documents_of_a_tool_are_the_context_of_the_next_step():
    """Those since the user last spoke, in order."""
    call = {"name": "search", "args": {}, "id": "1", "type": "tool_call"}
    results = [
        ToolMessage("x", tool_call_id="1", artifact=[Document(text)]) for text in ("old", PASSAGE, "second")
    ]
    turns = [
        HumanMessage("before"),
        AIMessage("", tool_calls=[call]),
        results[0],
        AIMessage("done"),
        HumanMessage(QUESTION),
        AIMessage("", tool_calls=[call, {**call, "id": "2"}]),
        *results[1:],
    ]
    context = retrieved(turns)
    assert (context.passages, context.scores) == ((PASSAGE, "second"), None)
    assert retrieved(turns[:5]) is None
    assert retrieved([HumanMessage("q"), ToolMessage("x", tool_call_id="1", artifact={"a": 1})]) is None
    model = router("It leaves the pier at noon.", ContextSupport())
    assert decision_of(model.invoke(turns))["route"] == "edge"


def test_chains_are_told_in_the_same_way():
    """ConfidenceRouter reads the same key."""
    edge, cloud = (
        RunnableLambda(lambda _: "It leaves the pier at noon."),
        RunnableLambda(lambda _: "cloud"),
    )
    chains = ConfidenceRouter(edge=edge, cloud=cloud, policy=Cascade.of(ContextSupport(), 0.3))
    assert chains.invoke("q", told([PASSAGE], question=QUESTION)) == "It leaves the pier at noon."


@pytest.mark.parametrize(
    "given",
    [
        PASSAGE,
        [PASSAGE],
        {"documents": PASSAGE},
        {"documents": [3]},
        {"documents": [(PASSAGE, "near")]},
        {"question": 3, "documents": []},
        {"passages": []},
    ],
)
def test_a_context_that_cannot_be_read_is_refused(given):
    """With what was expected."""
    with pytest.raises(RequestError, match="expected"):
        router("noon", ContextSupport()).invoke("q", {"configurable": {"confroute_context": given}})


def test_passages_stay_out_of_the_records():
    """Neither the decision nor the run's metadata holds them."""
    seen = []

    class Keep(ScriptedChat):
        def _generate(self, messages, stop=None, run_manager=None, **kwargs):
            seen.append(str(run_manager.metadata))
            return super()._generate(messages, stop, run_manager, **kwargs)

    edge = Keep.of("It leaves the pier at noon.", name="small")
    model = ChatConfRoute(edge=edge, cloud=ScriptedChat.of("c"), policy=Cascade.of(ContextSupport(), 0.3))
    decision = decision_of(model.invoke("q", told([PASSAGE], question=QUESTION)))
    assert not any(word in str(decision) + str(seen) for word in ("ferry", "Holm"))
    assert seen
