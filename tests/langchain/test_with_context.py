"""`WithContext`: a retrieval chain as users write it, with one line more."""

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from confroute import Cascade, ContextSupport, RetrievalScore, SendTo, record
from confroute.errors import RequestError
from langchain_confroute import ChatConfRoute, ConfidenceRouter, WithContext
from langchain_confroute.testing import ScriptedChat

PASSAGE = "The ferry to Holm leaves the pier at noon."
QUESTION = "When does the ferry leave?"
PROMPT = ChatPromptTemplate.from_template("Passages: {context}\n\n{question}")
GOOD, BAD = "It leaves the pier at noon.", "A zeppelin departs daily."


def model(text, policy=None):
    edge = ScriptedChat.of(text, name="small")
    policy = policy or Cascade.of(ContextSupport(), 0.3)
    return ChatConfRoute(edge=edge, cloud=ScriptedChat.of("cloud", name="large"), policy=policy)


def chain(router, *, retrieved=None, told=True):
    rest = PROMPT | router
    found = RunnableLambda(lambda _: [Document(PASSAGE)] if retrieved is None else retrieved)
    head = {"context": found, "question": RunnablePassthrough()}
    return head | (WithContext(rest) if told else rest) | StrOutputParser()


async def every_way(built, given, config=None):
    """The answer by each way of calling a chain."""
    yield built.invoke(given, config)
    yield await built.ainvoke(given, config)
    yield "".join(built.stream(given, config))
    yield "".join([chunk async for chunk in built.astream(given, config)])
    yield built.batch([given], config)[0]
    yield (await built.abatch([given], config))[0]


@pytest.mark.parametrize(("text", "route", "said"), [(GOOD, "edge", GOOD), (BAD, "cloud", "cloud")])
async def test_an_answer_is_held_against_what_the_chain_retrieved(text, route, said):
    """Whole, streamed and in batches; the same chain without the line has no such evidence."""
    with record() as decisions:
        async for answer in every_way(chain(model(text)), QUESTION):
            assert answer == said
    assert [(one.route, one.signal) for one in decisions] == [(route, "context_support")] * 6
    with record() as decisions:
        chain(model(text), told=False).invoke(QUESTION)
    assert decisions[0].stage == "no_signal"


@pytest.mark.parametrize(
    "retrieved", [PASSAGE, [PASSAGE], [Document(PASSAGE)], [(Document(PASSAGE), 0.9)]], ids=repr
)
def test_documents_in_every_form(retrieved):
    """One text, as `retriever | format_docs` makes it, texts, documents and pairs with a score."""
    with record() as decisions:
        chain(model(GOOD), retrieved=retrieved).invoke(QUESTION)
    assert decisions[0].route == "edge"


def test_scores_reach_the_policy():
    """Where they come in pairs."""
    with record() as decisions:
        chain(model(GOOD, Cascade.of(RetrievalScore(), 0.5)), retrieved=[(PASSAGE, 0.9)]).invoke(QUESTION)
    assert decisions[0].uncertainty == pytest.approx(0.1)


@pytest.mark.parametrize(
    "question", [QUESTION, HumanMessage(QUESTION), [HumanMessage(QUESTION), AIMessage("Which one?")]]
)
def test_questions_in_every_form(question):
    """Rules see the question without the passages."""
    asked = []

    def rule(request):
        asked.append(request.question)

    built = WithContext(RunnableLambda(lambda _: "q") | model(GOOD, Cascade(rules=(rule,))), question="input")
    built.invoke({"context": [PASSAGE], "input": question, "history": []})
    assert asked == [QUESTION]


def test_the_callers_own_context_counts():
    """Given for this call, it is about this call."""
    config = {"configurable": {"confroute_context": {"documents": ["Nothing of it."], "question": QUESTION}}}
    with record() as decisions:
        chain(model(GOOD)).invoke(QUESTION, config)
    assert decisions[0].route == "cloud"


def test_other_options_and_chains_keep_working():
    """Tags reach the rules beside the context; a router between whole chains is told too."""
    policy = Cascade.of(ContextSupport(), 0.3, rules=(SendTo(tier="cloud", tags=("hard",)),))
    with record() as decisions:
        chain(model(GOOD, policy)).invoke(QUESTION, {"tags": ["hard"]})
        edge, cloud = (ScriptedChat.of(text) | StrOutputParser() for text in (GOOD, "cloud"))
        router = ConfidenceRouter(edge=edge, cloud=cloud, policy=Cascade.of(ContextSupport(), 0.3))
        chain(RunnableLambda(lambda value: value.to_string()) | router).invoke(QUESTION)
    assert [(one.route, one.rule) for one in decisions] == [("cloud", "send_to"), ("edge", None)]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"context": [], "input": "secret"}, "has context, input: expected"),
        ("secret", "str: expected a dictionary"),
        ({"context": [], "question": 7}, "question of WithContext is a int"),
    ],
)
def test_what_cannot_be_read_is_refused_without_its_words(given, words):
    """With the keys that were given and those that were expected."""
    with pytest.raises(RequestError, match=words) as refused:
        WithContext(PROMPT | model(GOOD)).invoke(given)
    assert "secret" not in str(refused.value)


def test_the_question_stays_out_of_the_metadata():
    """LangChain copies plain values of `configurable` there, which go into traces."""
    seen = []
    rest = RunnableLambda(lambda _, config: seen.append(config["metadata"]) or "x")
    WithContext(rest).invoke({"context": [PASSAGE], "question": QUESTION})
    assert not any(QUESTION in str(one) or PASSAGE in str(one) for one in seen)
