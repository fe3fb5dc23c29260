"""Routing that knows what was retrieved: in real query and chat engines, over a real vector index."""

import asyncio

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.indices.keyword_table import KeywordTableIndex
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.prompts import PromptTemplate
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import TextNode
from llama_index_instrumentation.dispatcher import instrument_tags

from confroute import (
    Cascade,
    ContextSupport,
    Gate,
    RetrievalScore,
    SendTo,
    Threshold,
    TokenLogprob,
    record,
)
from confroute.errors import ModelError
from confroute.testing import Reply
from llamaindex_confroute import LocalEmbedding

TEXTS = (
    "A bicycle costs 4 euros each way on the ferry. Cars are not carried.",
    "Dogs travel free and stay on the open deck.",
    "The ferry to Holm island leaves the north quay at 07:30, 12:15 and 18:40 every day.",
)


class Looking:
    """A cascade that keeps what it was asked."""

    def __init__(self, **fields):
        """Hand on the cascade's fields."""
        self.requests, self.cascade = [], Cascade(gates=Cascade.of(TokenLogprob(), 0.3).gates, **fields)

    def flow(self, request):
        """Keep the request, route as the cascade does."""
        self.requests.append(request)
        return self.cascade.flow(request)


@pytest.fixture(scope="module")
def ferry():
    """Three texts under real embeddings."""
    pytest.importorskip("transformers")
    from confroute.models.download import pull

    try:
        pull("all-minilm-l6-v2")
    except ModelError as error:
        pytest.skip(f"all-minilm-l6-v2 cannot be had here: {error}")
    return VectorStoreIndex(
        nodes=[TextNode(text=text) for text in TEXTS], embed_model=LocalEmbedding(), use_async=False
    )


def scored(*names, threshold):
    """A policy of one context signal."""
    return Cascade(gates=tuple(Gate(signal=one, threshold=Threshold(value=threshold)) for one in names))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_policy_sees_question_passages_and_scores(kit, ferry, asynchronous):
    """Apart from the prompt they were put into, with the retriever's cosines."""
    looking = Looking()
    engine = ferry.as_query_engine(llm=kit.router(policy=looking), similarity_top_k=2)
    question = "What does a bicycle cost?"
    await engine.aquery(question) if asynchronous else engine.query(question)
    (request,) = looking.requests
    assert request.question == question
    assert request.purpose == "text_qa"
    assert request.context.passages[0] == TEXTS[0]
    assert len(request.context.passages) == len(request.context.scores) == 2
    assert 1 > request.context.scores[0] > request.context.scores[1] > -1


def test_weak_retrieval_escalates_and_good_retrieval_does_not(kit, ferry):
    """By the scores of real embeddings."""
    engine = ferry.as_query_engine(llm=kit.router(policy=scored(RetrievalScore(), threshold=0.5)))
    with record() as decisions:
        engine.query("What does a bicycle cost on the ferry?")
        engine.query("Who won the football match in Lisbon?")
    assert [decision.route for decision in decisions] == ["edge", "cloud"]
    assert decisions[0].uncertainty < 0.4 < 0.8 < decisions[1].uncertainty


@pytest.mark.parametrize("by", ["words", "embedding"])
def test_answers_are_held_against_the_context(kit, ferry, by):
    """A fare that stands nowhere is not kept, however certain its tokens."""
    edge = kit.scripted("A bicycle costs 4 euros.", "A bicycle costs 9 euros.", name="small")
    engine = ferry.as_query_engine(llm=kit.router(edge, policy=scored(ContextSupport(by=by), threshold=0.5)))
    with record() as decisions:
        engine.query("What does a bicycle cost on the ferry?")
        engine.query("What does a bicycle cost on the ferry?")
    assert [decision.route for decision in decisions] == ["edge", "cloud"]
    assert decisions[1].uncertainty == 1.0


def test_missing_answer_is_not_sent_on(kit, ferry):
    """A verdict of its own; asked about what the text holds, the same words are not believed."""
    edge = kit.scripted(Reply(text="The context does not mention that.", logprob=-2.0), name="small")
    engine = ferry.as_query_engine(llm=kit.router(edge), similarity_top_k=1)
    with record() as decisions:
        response = engine.query("Which captain sails to Holm on Christmas Eve?")
        engine.query("What does a bicycle cost on the ferry?")
    assert response.response == "The context does not mention that."
    assert [(d.route, d.stage) for d in decisions] == [("edge", "lacking"), ("cloud", "lacking")]


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_synthesis_stays_on_the_model_it_escalated_to(kit, ferry, streaming, asynchronous):
    """Edge, cloud, cloud: no weaker model rewrites the cloud's answer."""
    edge = kit.scripted("first", Reply(text="second", logprob=-2.0), "third", "fourth", name="small")
    large = kit.scripted("better", "best", "other", name="large")
    engine = ferry.as_query_engine(
        llm=kit.router(edge, large), response_mode="refine", similarity_top_k=3, streaming=streaming
    )

    async def ask(question):
        response = await engine.aquery(question) if asynchronous else engine.query(question)
        if streaming and asynchronous:
            return "".join([token async for token in response.response_gen])
        return "".join(response.response_gen) if streaming else response.response

    with record() as decisions:
        assert await ask("When does the ferry leave?") == "best"
        assert [(d.route, d.rule) for d in decisions] == [
            ("edge", None),
            ("cloud", None),
            ("cloud", "sticky"),
        ]
        assert "stays on cloud" in decisions[2].reason
        decisions.clear()
        # Another question starts afresh.
        await ask("Are dogs allowed?")
    assert decisions[0].route == "edge"


def test_parallel_syntheses_do_not_mix(kit, ferry):
    """Each question has its own line of answers."""

    def answer(prompt):
        return Reply(text="same words", logprob=-2.0 if "hard" in prompt else -0.01)

    edge = kit.sure()
    edge.model.replies = answer
    engine = ferry.as_query_engine(
        llm=kit.router(edge, kit.cloud("same words")), response_mode="refine", similarity_top_k=3
    )

    async def ask(question):
        with record() as decisions:
            await engine.aquery(question)
        return [decision.route for decision in decisions]

    async def both():
        return await asyncio.gather(ask("easy ferry?"), ask("hard ferry?"))

    loop = asyncio.new_event_loop()
    assert loop.run_until_complete(both()) == [["edge"] * 3, ["cloud"] * 3]
    loop.close()


def test_a_refinement_that_copies_is_not_measured(kit, ferry):
    """The edge repeats itself without confidence: nothing new was said, so nothing is sent on."""
    edge = kit.scripted("At 07:30.", Reply(text="At 07:30.", logprob=-2.0), name="small")
    engine = ferry.as_query_engine(llm=kit.router(edge), response_mode="refine", similarity_top_k=3)
    with record() as decisions:
        engine.query("When does the first ferry leave?")
    assert [decision.route for decision in decisions] == ["edge"] * 3
    assert all("repeats its answer" in decision.reason for decision in decisions[1:])


def test_roles_have_a_tier_of_their_own(kit, ferry):
    """Condensing and summing up stay on the edge, answering goes by the evidence."""
    rules = (SendTo(tier="edge", purposes=("condense", "summary", "keyword_extract", "query_gen")),)
    policy = Cascade.of(TokenLogprob(), 0.3, rules=rules)
    for mode, expected in (
        (ChatMode.CONDENSE_QUESTION, ["cloud", "edge", "cloud"]),
        (ChatMode.CONDENSE_PLUS_CONTEXT, ["cloud", "edge", "cloud"]),
        (ChatMode.CONTEXT, ["cloud", "cloud"]),
    ):
        engine = ferry.as_chat_engine(chat_mode=mode, llm=kit.router(kit.unsure(), policy=policy))
        with record() as decisions:
            engine.chat("What does a bicycle cost?")
            engine.chat("And a dog?")
        assert [decision.route for decision in decisions] == expected, mode
    engine = ferry.as_query_engine(
        llm=kit.router(kit.unsure(), policy=policy), response_mode="tree_summarize"
    )
    with record() as decisions:
        engine.query("What is free?")
    assert {(d.route, d.rule) for d in decisions} == {("edge", "send_to")}


def test_keywords_have_a_tier_of_their_own(kit):
    """Those of the texts and of the question; the answer goes by the evidence."""
    rules = (SendTo(tier="edge", purposes=("keyword_extract", "query_keyword_extract")),)
    edge = kit.scripted(Reply(text="KEYWORDS: ferry, bicycle", logprob=-2.0), name="small")
    llm = kit.router(edge, policy=Cascade.of(TokenLogprob(), 0.3, rules=rules))
    with record() as decisions:
        keywords = KeywordTableIndex([TextNode(text=TEXTS[0])], llm=llm)
        keywords.as_query_engine(llm=llm).query("What does a bicycle cost?")
    assert [(d.route, d.rule) for d in decisions] == [
        ("edge", "send_to"),
        ("edge", "send_to"),
        ("cloud", None),
    ]


@pytest.mark.parametrize("mode", [ChatMode.CONTEXT, ChatMode.CONDENSE_PLUS_CONTEXT])
def test_chat_engines_keep_their_context_apart(kit, ferry, mode):
    """Question, passages and scores; the condensed turn is known by its words."""
    looking = Looking()
    engine = ferry.as_chat_engine(chat_mode=mode, llm=kit.router(policy=looking), similarity_top_k=1)
    engine.chat("What does a bicycle cost?")
    engine.chat("And a dog on the open deck?")
    answering = [request for request in looking.requests if request.context is not None]
    assert [request.purpose for request in answering] == ["text_qa", "text_qa"]
    assert answering[0].context.passages == (TEXTS[0],)
    assert len(answering[0].context.scores) == 1
    others = [request.purpose for request in looking.requests if request.context is None]
    assert others == (["condense"] if mode == ChatMode.CONDENSE_PLUS_CONTEXT else [])


def test_fusion_queries_are_known(kit, ferry):
    """The retriever's own call of the model, a plain completion."""
    looking = Looking()
    llm = kit.router(policy=looking)
    fusion = QueryFusionRetriever([ferry.as_retriever()], llm=llm, use_async=False, num_queries=2)
    fusion.retrieve("bicycle")
    assert [request.purpose for request in looking.requests] == ["query_gen"]


def test_only_passages_in_the_prompt_count(kit, ferry):
    """Not those that a postprocessor dropped, nor an earlier query's."""
    looking = Looking()
    llm = kit.router(policy=looking)
    engine = ferry.as_query_engine(
        llm=llm, similarity_top_k=3, node_postprocessors=[SimilarityPostprocessor(similarity_cutoff=0.5)]
    )
    engine.query("What does a bicycle cost on the ferry?")
    assert len(looking.requests[0].context.passages) < 3
    prompt = PromptTemplate("{context_str} {query_str}")
    llm.predict(prompt, context_str="Quite another text.", query_str="What?")
    other = looking.requests[-1].context
    assert (other.passages, other.scores) == (("Quite another text.",), None)


async def test_parallel_queries_have_their_own_passages(kit, ferry):
    """Each task sees what it retrieved."""
    looking = Looking()
    engine = ferry.as_query_engine(llm=kit.router(policy=looking), similarity_top_k=1)
    questions = ("What does a bicycle cost?", "Where do dogs stay on the deck?", "When does the ferry leave?")
    await asyncio.gather(*[engine.aquery(question) for question in questions])
    found = {request.question: request.context.passages for request in looking.requests}
    assert found == {q: (text,) for q, text in zip(questions, TEXTS, strict=True)}


def test_purpose_can_be_set_by_the_caller(kit):
    """For calls of the user's own."""
    looking = Looking(rules=(SendTo(tier="cloud", purposes=("translate",)),))
    with instrument_tags({"confroute": {"purpose": "translate"}}):
        assert kit.decision(kit.router(policy=looking).complete("x"))["rule"] == "send_to"
