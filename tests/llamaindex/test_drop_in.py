"""The parts of LlamaIndex that take an LLM: with a router in its place they give what the model alone would have given.

A response mode, chat mode or evaluator that LlamaIndex adds fails the tests of completeness until it stands in a table.
"""

import inspect

import llama_index.core.evaluation as evaluation
import pytest
from llama_index.core import DocumentSummaryIndex, Settings, SimpleKeywordTableIndex, TreeIndex
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.extractors import (
    KeywordExtractor,
    QuestionsAnsweredExtractor,
    SummaryExtractor,
    TitleExtractor,
)
from llama_index.core.indices.keyword_table import KeywordTableIndex
from llama_index.core.indices.query.query_transform import HyDEQueryTransform
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.llms import ChatMessage
from llama_index.core.memory import ChatSummaryMemoryBuffer
from llama_index.core.postprocessor import LLMRerank
from llama_index.core.query_engine import (
    CitationQueryEngine,
    RouterQueryEngine,
    SubQuestionQueryEngine,
    TransformQueryEngine,
)
from llama_index.core.question_gen import LLMQuestionGenerator
from llama_index.core.response_synthesizers.type import ResponseMode
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import Document, NodeWithScore, TextNode
from llama_index.core.selectors import LLMSingleSelector, PydanticSingleSelector
from llama_index.core.tools import FunctionTool, QueryEngineTool
from llama_index.core.workflow import Context, StartEvent, StopEvent, Workflow, step
from pydantic import BaseModel

from confroute import Cascade, Gate, Threshold, TokenLogprob, record
from confroute.testing import Reply
from llamaindex_confroute.testing import ToolReply

WAYS = ("kept", "escalated")
SAYS = Reply(text="Paris lies on the Seine.")


def script(reply):
    """Replies in turn, afresh for each model."""
    return [reply] if isinstance(reply, Reply) else list(reply)


def routed(kit, way, reply):
    """A router whose answers are to be what a model says alone."""
    if way == "escalated":
        return kit.router(kit.unsure(), kit.scripted(*script(reply), name="large"))
    policy = Cascade(
        gates=(Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3)),),
        on_no_signal="edge",
        lacking=None,
    )
    return kit.router(kit.scripted(*script(reply), name="small"), kit.down(name="large"), policy=policy)


async def alike(kit, way, reply, use):
    """Use a model alone and a router; both give the same, and every call was routed as it should be."""
    alone = await use(kit.scripted(*script(reply), name="large"))
    with record() as decisions:
        got = await use(routed(kit, way, reply))
    assert got == alone
    assert {decision.route for decision in decisions} <= {"edge" if way == "kept" else "cloud"}
    return decisions


async def called(part, form, *args, **kwargs):
    """A method in its sync or async form."""
    result = getattr(part, form)(*args, **kwargs)
    return await result if inspect.isawaitable(result) else result


@pytest.mark.parametrize("form", ["query", "aquery"])
@pytest.mark.parametrize("mode", list(ResponseMode))
@pytest.mark.parametrize("way", WAYS)
async def test_every_response_mode(kit, index, mode, way, form):
    """All that the host has, those without a model included."""

    async def use(llm):
        Settings.llm = llm  # two modes look for one there, and use none
        engine = index.as_query_engine(response_mode=mode, similarity_top_k=3)
        response = await called(engine, form, "Which city?")
        return response.response, [node.text for node in response.source_nodes]

    decisions = await alike(kit, way, SAYS, use)
    assert bool(decisions) == (mode not in {ResponseMode.NO_TEXT, ResponseMode.CONTEXT_ONLY})


CHATS = [mode for mode in ChatMode if mode not in {ChatMode.REACT, ChatMode.OPENAI}]  # the host removed these


@pytest.mark.parametrize("form", ["chat", "achat", "stream_chat", "astream_chat"])
@pytest.mark.parametrize("mode", CHATS)
@pytest.mark.parametrize("way", WAYS)
async def test_every_chat_mode(kit, index, mode, way, form):
    """Two turns in each form."""

    async def use(llm):
        engine, said = index.as_chat_engine(chat_mode=mode, llm=llm), []
        for question in ("Which city?", "And which river?"):
            response = await called(engine, form, question)
            if form == "astream_chat":
                said.append("".join([token async for token in response.async_response_gen()]))
            elif form == "stream_chat":
                said.append("".join(response.response_gen))
            else:
                said.append(response.response)
        return said, [(message.role, message.content) for message in engine.chat_history]

    assert await alike(kit, way, SAYS, use)


RATED = Reply(text="4.5\nIt is right.")
EVALUATORS = {
    "AnswerRelevancyEvaluator": Reply(text="Feedback:\nYes it is.\n[RESULT] 2"),
    "ContextRelevancyEvaluator": Reply(text="Feedback:\nYes it is.\n[RESULT] 4"),
    "CorrectnessEvaluator": RATED,
    "FaithfulnessEvaluator": Reply(text="YES"),
    "GuidelineEvaluator": Reply(text='{"passing": true, "feedback": "fine"}'),
    "PairwiseComparisonEvaluator": Reply(text="The first is better. [[A]]"),
    "RelevancyEvaluator": Reply(text="YES"),
}
# Other names of the same, and what judges nothing.
OTHERS = {"QueryResponseEvaluator", "ResponseEvaluator", "DatasetGenerator"}
CASE = {"query": "q", "response": "r", "contexts": ["c"]}
MORE = {
    "CorrectnessEvaluator": {"reference": "r"},
    "PairwiseComparisonEvaluator": {"second_response": "s", "reference": "r"},
}


def test_evaluators_are_complete():
    """What LlamaIndex adds has to be looked at."""
    taking = {
        name
        for name in dir(evaluation)
        if inspect.isclass(cls := getattr(evaluation, name))
        and "llm" in inspect.signature(cls.__init__).parameters
    }
    assert taking == {*EVALUATORS, *OTHERS & taking}


@pytest.mark.parametrize("form", ["evaluate", "aevaluate"])
@pytest.mark.parametrize("name", EVALUATORS)
@pytest.mark.parametrize("way", WAYS)
async def test_every_evaluator(kit, name, way, form):
    """Scores and verdicts."""

    async def use(llm):
        judge = getattr(evaluation, name)(llm=llm)
        result = await called(judge, form, **CASE, **MORE.get(name, {}))
        assert not result.invalid_result
        return result.passing, result.score, result.feedback

    assert await alike(kit, way, EVALUATORS[name], use)


def river(city: str) -> str:
    """The river of a city."""
    return f"{city} lies on the Seine"


TOOLS = [FunctionTool.from_defaults(river)]
CALL = ToolReply(calls=(("river", {"city": "Paris"}),))
REACT = (
    Reply(text='Thought: I need a tool.\nAction: river\nAction Input: {"city": "Paris"}'),
    Reply(text="Thought: I can answer.\nAnswer: The Seine."),
)


class River(BaseModel):
    """A river."""

    name: str


class Asking(Workflow):
    """A workflow of the user's own."""

    llm: object

    def __init__(self, llm):
        super().__init__()
        self.llm = llm

    @step
    async def ask(self, ctx: Context, ev: StartEvent) -> StopEvent:
        """Ask, streamed and whole."""
        streamed = [chunk.delta async for chunk in await self.llm.astream_complete(ev.question)]
        return StopEvent(result="".join(streamed) + str(await self.llm.acomplete(ev.question)))


async def agent_with(agent, llm, **kwargs):
    """What an agent answers, and which tools it called."""
    output = await agent(llm=llm, tools=TOOLS, **kwargs).run("Which river?")
    return str(output), [call.tool_kwargs for call in output.tool_calls], output.structured_response


async def workflow_of(llm):
    """A workflow that the host makes of functions."""
    return str(await AgentWorkflow.from_tools_or_functions(TOOLS, llm=llm).run("Which river?"))


AGENTS = {
    "function agent": ([CALL, SAYS], lambda llm: agent_with(FunctionAgent, llm)),
    "function agent, not streaming": (
        [CALL, SAYS],
        lambda llm: agent_with(FunctionAgent, llm, streaming=False),
    ),
    "function agent with a class": (
        [CALL, SAYS, ToolReply(calls=(("River", {"name": "Seine"}),))],
        lambda llm: agent_with(FunctionAgent, llm, output_cls=River),
    ),
    "react agent": (REACT, lambda llm: agent_with(ReActAgent, llm)),
    "react agent, not streaming": (REACT, lambda llm: agent_with(ReActAgent, llm, streaming=False)),
    "agent workflow": ([CALL, SAYS], workflow_of),
    "workflow": (SAYS, lambda llm: Asking(llm).run(question="Which river?")),
}


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("way", WAYS)
async def test_every_agent(kit, name, way):
    """Tools are called by the host, once, with the same arguments."""
    reply, use = AGENTS[name]
    assert await alike(kit, way, reply, use)


NODES = [TextNode(text="Paris is the capital of France."), TextNode(text="Rome is the capital of Italy.")]


async def ingested(extractor, llm):
    """What an extractor adds to nodes."""
    nodes = await IngestionPipeline(transformations=[extractor(llm=llm)]).arun(nodes=list(NODES))
    return [node.metadata for node in nodes]


def engine_tools(index, llm):
    """Two query engines as tools."""
    engine = index.as_query_engine(llm=llm)
    return [
        QueryEngineTool.from_defaults(engine, name=name, description=name) for name in ("cities", "rivers")
    ]


def routing_engine(index, llm, selector):
    """Choose an engine by the model, then ask it."""
    engine = RouterQueryEngine(selector.from_defaults(llm=llm), engine_tools(index, llm), llm=llm)
    return engine.query("Which city?").response


CHOICE = '[{"choice": 1, "reason": "cities"}]'
QUESTIONS = '```json\n{"items": [{"sub_question": "Which?", "tool_name": "cities"}]}\n```'

PARTS = {
    "title": (SAYS, lambda llm, index: ingested(TitleExtractor, llm)),
    "keywords": (SAYS, lambda llm, index: ingested(KeywordExtractor, llm)),
    "summaries": (SAYS, lambda llm, index: ingested(SummaryExtractor, llm)),
    "questions answered": (SAYS, lambda llm, index: ingested(QuestionsAnsweredExtractor, llm)),
    "rerank": (
        Reply(text="Doc: 2, Relevance: 9\nDoc: 1, Relevance: 3"),
        lambda llm, index: [
            (one.text, one.score)
            for one in LLMRerank(llm=llm).postprocess_nodes(
                [NodeWithScore(node=n) for n in NODES], query_str="q"
            )
        ],
    ),
    "selector": (
        [Reply(text=CHOICE), SAYS],
        lambda llm, index: routing_engine(index, llm, LLMSingleSelector),
    ),
    "selector by a class": (
        [ToolReply(calls=(("SingleSelection", {"index": 0, "reason": "x"}),)), SAYS],
        lambda llm, index: routing_engine(index, llm, PydanticSingleSelector),
    ),
    "sub-questions": (
        [Reply(text=QUESTIONS), SAYS, Reply(text="All in all: Paris.")],
        lambda llm, index: (
            SubQuestionQueryEngine.from_defaults(
                engine_tools(index, llm),
                llm=llm,
                question_gen=LLMQuestionGenerator.from_defaults(llm=llm),
                use_async=False,
                verbose=False,
            )
            .query("Which?")
            .response
        ),
    ),
    "hypothetical document": (
        SAYS,
        lambda llm, index: (
            TransformQueryEngine(index.as_query_engine(llm=llm), HyDEQueryTransform(llm=llm))
            .query("Which?")
            .response
        ),
    ),
    "citations": (
        SAYS,
        lambda llm, index: CitationQueryEngine.from_args(index, llm=llm).query("Which?").response,
    ),
    "query fusion": (
        Reply(text="Which city?\nWhich river?"),
        lambda llm, index: [
            node.text
            for node in QueryFusionRetriever(
                [index.as_retriever()], llm=llm, use_async=False, num_queries=3
            ).retrieve("q")
        ],
    ),
    "keyword table": (
        Reply(text="KEYWORDS: Paris, France"),
        lambda llm, index: str(
            KeywordTableIndex(list(NODES), llm=llm).as_query_engine(llm=llm).query("Paris?")
        ),
    ),
    "simple keyword table": (
        SAYS,
        lambda llm, index: str(
            SimpleKeywordTableIndex(list(NODES), llm=llm).as_query_engine(llm=llm).query("Paris?")
        ),
    ),
    "tree": (
        [SAYS, Reply(text="ANSWER: 1"), SAYS],
        lambda llm, index: str(
            TreeIndex(list(NODES), llm=llm, num_children=2, use_async=False)
            .as_query_engine(llm=llm)
            .query("Paris?")
        ),
    ),
    "document summaries": (
        SAYS,
        lambda llm, index: str(
            DocumentSummaryIndex.from_documents(
                [Document(text="Paris")], llm=llm, embed_model=index._embed_model
            )
            .as_query_engine(llm=llm)
            .query("Paris?")
        ),
    ),
    "summarising memory": (SAYS, lambda llm, index: remembered(llm)),
}


def remembered(llm):
    """A memory that sums up what does not fit."""
    memory = ChatSummaryMemoryBuffer.from_defaults(llm=llm, token_limit=6, tokenizer_fn=str.split)
    for text in ("one two three four", "five six seven", "eight nine"):
        memory.put(ChatMessage(role="user", content=text))
    return [(message.role, message.content) for message in memory.get()]


@pytest.mark.parametrize("name", PARTS)
@pytest.mark.parametrize("way", WAYS)
async def test_every_part_that_asks_a_model(kit, index, name, way):
    """Extractors, indices, selectors, rerankers, query transformations and memory."""
    reply, use_of = PARTS[name]

    async def use(llm):
        result = use_of(llm, index)
        return await result if inspect.isawaitable(result) else result

    assert await alike(kit, way, reply, use)
