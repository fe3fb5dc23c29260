"""Query engines and chat engines over a small index: nothing of them knows that it talks to a router."""

import asyncio

import pytest
from llama_index.core import Settings
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import ChatPromptTemplate, PromptTemplate

from confroute import Cascade, KeepPrivate, TokenLogprob, record
from confroute.testing import Reply

MODES = ("compact", "refine", "tree_summarize", "accumulate", "compact_accumulate", "simple_summarize")


class Looking:
    """A cascade that keeps what it was asked."""

    def __init__(self):
        self.requests = []

    def flow(self, request):
        self.requests.append(request)
        return Cascade.of(TokenLogprob(), 0.3).flow(request)


@pytest.fixture
def looking():
    """A policy and the requests it saw."""
    return Looking()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("edge", ["sure", "unsure"])
async def test_response_modes(kit, index, mode, edge, asynchronous):
    """All six, answered by the model that the evidence chose, each call recorded."""
    Settings.llm = kit.router(getattr(kit, edge)())
    engine = index.as_query_engine(response_mode=mode, similarity_top_k=3)
    with record() as decisions:
        response = await engine.aquery("Which city?") if asynchronous else engine.query("Which city?")
    assert ("edge says this" if edge == "sure" else "cloud says that") in response.response
    assert {decision.route for decision in decisions} == {"edge" if edge == "sure" else "cloud"}
    assert len(decisions) == (3 if mode in ("refine", "accumulate") else 1)


@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize", "simple_summarize"])
@pytest.mark.parametrize("edge", ["sure", "unsure"])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_streaming_response_modes(kit, index, mode, edge, asynchronous):
    """No word of a rejected draft."""
    engine = index.as_query_engine(llm=kit.router(getattr(kit, edge)()), response_mode=mode, streaming=True)
    if asynchronous:
        response = await engine.aquery("Which city?")
        text = "".join([token async for token in response.response_gen])
    else:
        text = "".join(engine.query("Which city?").response_gen)
    assert text == ("edge says this" if edge == "sure" else "cloud says that")


@pytest.mark.parametrize("form", ["predict", "apredict", "stream", "astream"])
async def test_question_is_kept_apart(kit, looking, form):
    """The policy judges the question, not the stuffed prompt; rules still see all that is sent."""
    llm = kit.router(kit.unsure(), policy=looking)
    prompt = PromptTemplate("Context: {context_str}\nQuestion: {query_str}")
    called = getattr(llm, form)(prompt, context_str="long " * 99, query_str="Which city?")
    called = await called if form.startswith("a") else called
    if form == "stream":
        called = "".join(called)
    if form == "astream":
        called = "".join([token async for token in called])
    assert called == "cloud says that"
    (request,) = looking.requests
    assert request.question == request.asked == "Which city?"
    assert "long long" in request.messages[0].text
    llm.chat([ChatMessage(role="user", content="Another?")])
    assert looking.requests[-1].asked == "Another?"


def test_question_of_partial_and_chat_templates(kit, looking):
    """Wherever the template keeps it."""
    llm = kit.router(policy=looking)
    llm.predict(PromptTemplate("{query_str}{x}").partial_format(query_str="Partial?"), x="")
    llm.predict(ChatPromptTemplate([ChatMessage(role="user", content="{query_str}")]), query_str="Chat?")
    llm.predict(PromptTemplate("Write a name."))
    assert [request.question for request in looking.requests] == ["Partial?", "Chat?", None]


def test_question_in_query_engines(kit, looking, index):
    """As LlamaIndex's own templates have it."""
    index.as_query_engine(llm=kit.router(policy=looking), response_mode="refine", similarity_top_k=2).query(
        "Which city?"
    )
    assert [request.asked for request in looking.requests] == ["Which city?"] * 2


def test_private_context_stays(kit, index):
    """What the retriever found counts as much as what the user wrote."""
    large = kit.cloud()
    policy = Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(patterns=("Bern",)),))
    engine = index.as_query_engine(llm=kit.router(kit.unsure(), large, policy=policy), similarity_top_k=3)
    assert engine.query("Which city?").response == "edge may be wrong"
    assert large.model.calls == []


def test_system_prompt_of_the_router(kit):
    """Reaches both models through `predict`."""
    edge, large = kit.unsure(), kit.cloud()
    kit.router(edge, large, system_prompt="Be brief.").predict(PromptTemplate("Hello"))
    for child in (edge, large):
        assert child.model.calls[0].prompt == "system: Be brief.\nuser: Hello"


def test_small_edge_does_not_shrink_the_chunks(kit, index):
    """One call on the larger window, not eight on the smaller."""
    edge = kit.sure(context_window=60, num_output=20)
    with record() as decisions:
        index.as_query_engine(llm=kit.router(edge), similarity_top_k=3).query("Which city?")
    assert [decision.rule for decision in decisions] == ["capability"]


async def test_decisions_of_parallel_queries_stay_apart(kit, index):
    """Each `record()` sees its own."""

    def answer(prompt):
        return Reply(text="x", logprob=-0.05 if "easy" in prompt else -1.0)

    edge = kit.sure()
    edge.model.replies = answer
    engine = index.as_query_engine(llm=kit.router(edge))

    async def ask(question):
        with record() as decisions:
            await engine.aquery(question)
        return [decision.route for decision in decisions]

    assert await asyncio.gather(ask("easy"), ask("hard"), ask("easy")) == [["edge"], ["cloud"], ["edge"]]
