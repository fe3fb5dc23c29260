"""Prefix streaming: an edge's draft is released, cut off or kept back while it is written."""

import asyncio

import pytest
from llama_index.core import Settings
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from confroute import Cascade, Gate, Prefix, Threshold, TokenLogprob, record
from confroute.asks import Tentative
from confroute.errors import StreamInterruptedError
from confroute.testing import Reply, ScriptedModel, ScriptedServer
from llamaindex_confroute.responses import chunk_logprobs
from llamaindex_confroute.testing import ToolReply

POLICY = Cascade(
    gates=(Gate(signal=TokenLogprob(), threshold=Threshold(value=0.5)),),
    prefix=Prefix(commit=Threshold(value=0.1), cut=Threshold(value=1.0), tokens=3, least=2),
)
SAYS, KNOWS = "edge says so at some length", "cloud knows it well"
USER = [ChatMessage(role="user", content="Which city?")]
STREAMS = ("stream_chat", "stream_complete", "astream_chat", "astream_complete")
# Log-probability of each token, and what becomes of it: committed, kept whole, rejected whole, cut off.
CASES = (
    (-0.05, "edge", "prefix"),
    (-0.3, "edge", "draft"),
    (-0.8, "cloud", "draft"),
    (-3.0, "cloud", "prefix"),
)
SAME = ("route", "stage", "reason", "uncertainty", "threshold", "signals")


def pair(kit, logprob, *, text=SAYS, policy=POLICY, **settings):
    """An edge of one certainty behind a router."""
    edge = kit.scripted(Reply(text=text, logprob=logprob), name="small")
    return kit.router(edge, kit.cloud(KNOWS), policy=policy, **settings)


def text_of(response):
    """Of a chat or a completion."""
    return response.text if hasattr(response, "text") else response.message.content


async def begun(llm, form, **kwargs):
    """A stream in one form."""
    stream = getattr(llm, form)(USER if "chat" in form else "Which city?", **kwargs)
    return await stream if form.startswith("a") else stream


async def chunks_of(llm, form, **kwargs):
    """All chunks of a stream in one form."""
    stream = await begun(llm, form, **kwargs)
    return [chunk async for chunk in stream] if form.startswith("a") else list(stream)


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("form", STREAMS)
@pytest.mark.parametrize(("logprob", "route", "stage"), CASES)
async def test_one_answer_with_one_decision(kit, seen, until, logprob, route, stage, form, threaded):
    """Whatever becomes of the draft: chunks add up to one answer, the last alone carries the decision."""
    llm = pair(kit, logprob, edge_in_thread=threaded)
    with record() as decisions:
        chunks = await chunks_of(llm, form)
    assert (
        "".join(chunk.delta for chunk in chunks)
        == text_of(chunks[-1])
        == (SAYS if route == "edge" else KNOWS)
    )
    assert not any("edge" in chunk.delta for chunk in chunks if route == "cloud")
    assert ["confroute" in c.additional_kwargs for c in chunks] == [False] * (len(chunks) - 1) + [True]
    decision = kit.decision(chunks[-1])
    assert (decision["route"], decision["stage"]) == (route, stage)
    assert [one.to_dict() for one in decisions] == [decision]
    assert len(seen.of("ConfRouteDecisionEvent")) == 1
    cut = (route, stage) == ("cloud", "prefix")
    assert decision["usage"]["edge"]["output_tokens"] == (2 if cut else 6)
    if threaded:  # a thread closes behind us
        await until(lambda: llm.edge.open_streams == llm.cloud.open_streams == 0)
    await asyncio.sleep(0)
    assert llm.edge.open_streams == llm.cloud.open_streams == 0
    whole = kit.decision(pair(kit, logprob).chat(USER))
    assert {key: decision[key] for key in SAME} == {key: whole[key] for key in SAME}


@pytest.mark.parametrize("form", STREAMS)
@pytest.mark.parametrize(("logprob", "route", "stage"), CASES)
async def test_callbacks_see_each_call_once(kit, seen, logprob, route, stage, form):
    """One start and one end a child's call, however it ended; a draft that was cut off ends with an exception."""
    debug, counter = LlamaDebugHandler(print_trace_on_end=False), TokenCountingHandler()
    Settings.callback_manager = CallbackManager([debug, counter])
    Settings.llm = pair(kit, logprob)
    await chunks_of(Settings.llm, form)
    calls = 1 if route == "edge" else 2
    pairs = debug.get_event_pairs(CBEventType.LLM)
    assert [len(one) for one in pairs] == [2] * calls
    assert len(counter.llm_token_counts) == calls
    cut = (route, stage) == ("cloud", "prefix")
    assert sum("exception" in end.payload for _, end in pairs) == int(cut)
    assert len(seen.of("LLMChatStartEvent")) == calls
    assert len(seen.of("LLMChatEndEvent")) == calls - cut


@pytest.mark.parametrize("form", STREAMS)
async def test_a_committed_draft_flows(kit, form):
    """Its first chunk is out before the edge has finished, and leaving early closes the edge."""
    llm = pair(kit, -0.05)
    with record() as decisions:
        stream = await begun(llm, form)
        first = await anext(stream) if form.startswith("a") else next(stream)
        assert (first.delta, llm.edge.open_streams) == ("edge", 1)
        if form.startswith("a"):
            await stream.aclose()
            await asyncio.sleep(0)
        else:
            stream.close()
    assert (llm.edge.open_streams, [one.stage for one in decisions]) == (0, ["abandoned"])
    assert llm.cloud.model.calls == []


@pytest.mark.parametrize("form", STREAMS)
async def test_nothing_is_shown_before_the_commitment(kit, form):
    """The edge breaks off at its second word: the cloud's answer is the only one."""
    edge = kit.scripted(Reply(text=SAYS, fault=OSError("cut"), fault_after=2), name="small")
    chunks = await chunks_of(kit.router(edge, kit.cloud(KNOWS), policy=POLICY), form)
    assert "".join(chunk.delta for chunk in chunks) == KNOWS
    assert kit.decision(chunks[-1])["stage"] == "fallback"


@pytest.mark.parametrize("form", STREAMS)
async def test_a_break_after_the_commitment_is_an_error(kit, form):
    """What was shown cannot be taken back, and no other model goes on."""
    edge = kit.scripted(Reply(text=SAYS, fault=OSError("cut"), fault_after=4), name="small")
    llm = kit.router(edge, kit.cloud(KNOWS), policy=POLICY)
    with pytest.raises(StreamInterruptedError, match="OSError: cut"):
        await chunks_of(llm, form)
    assert llm.cloud.model.calls == []


@pytest.mark.parametrize("form", STREAMS)
async def test_no_log_probabilities_no_commitment(kit, form):
    """Never read as confidence: the draft is not shown, and the cloud answers once."""
    chunks = await chunks_of(pair(kit, None), form)
    assert text_of(chunks[-1]) == KNOWS
    assert kit.decision(chunks[-1])["stage"] == "no_signal"


def test_half_of_the_log_probabilities_is_no_evidence(kit):
    """A stream that stops giving them is judged by none of them."""

    class Fading(type(kit.sure())):
        def _logprobs(self, said, kwargs):
            return {} if said.tokens == (" so",) else super()._logprobs(said, kwargs)

    edge = Fading(model=ScriptedModel([Reply(text="edge so", logprob=-0.01)], name="small"))
    *_, last = kit.router(edge, policy=POLICY).stream_chat(USER)
    assert kit.decision(last)["stage"] == "no_signal"


class Capital(BaseModel):
    """A capital."""

    name: str


def name_it(name: str) -> str:
    """Name a capital."""
    return name


def test_what_has_to_be_judged_whole_is_not_watched(kit):
    """Tool calls in either form, structured values, and calls with a threshold of their own; plain calls are."""
    asked = []

    class Looking:
        def flow(self, request):
            flow = POLICY.flow(request)
            ask = next(flow)
            asked.append(isinstance(ask, Tentative))
            while True:
                try:
                    ask = flow.send((yield ask))
                except StopIteration as done:
                    return done.value

    tools = [FunctionTool.from_defaults(name_it)]
    edge = kit.scripted(ToolReply(calls=(("name_it", {"name": "Bern"}),), logprob=-0.01), name="small")
    llm = kit.router(edge, policy=Looking())
    list(llm.stream_chat_with_tools(tools, chat_history=USER))
    list(llm.stream_chat(USER, tools=[{"type": "function"}]))
    list(llm.stream_chat(USER, confroute_threshold=0.2))
    json = kit.scripted(Reply(text='{"name":"Bern"}'), name="small", is_function_calling_model=False)
    list(kit.router(json, policy=Looking()).stream_structured_predict(Capital, PromptTemplate("Which?")))
    assert asked == [False] * 4
    list(llm.stream_chat_with_tools([], chat_history=USER))
    list(llm.stream_chat(USER))
    assert asked[4:] == [True, True]


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(("logprob", "expected"), [(-0.05, SAYS), (-3.0, KNOWS)])
async def test_query_engines_stream_it(kit, index, logprob, expected, asynchronous):
    """Streaming responses of an engine: one answer."""
    engine = index.as_query_engine(llm=pair(kit, logprob), streaming=True)
    if asynchronous:
        response = await engine.aquery("Which city?")
        text = "".join([token async for token in response.response_gen])
    else:
        text = "".join(engine.query("Which city?").response_gen)
    assert text == expected


def openai_like(server, name):
    """LlamaIndex's own client of OpenAI's protocol."""
    return OpenAILike(
        model=name, api_base=server.url, api_key="none", is_chat_model=True, max_retries=0, timeout=5
    )


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("keeping", [False, True])
async def test_a_real_connection_is_cut(kit, request, until, asynchronous, keeping):
    """The edge's server sees its client go, though a handler keeps every event; the cloud's words arrive whole."""
    long = "word " * 60
    models = {"small": ScriptedModel([Reply(text=long, logprob=-3.0)]), "large": ScriptedModel([KNOWS])}
    if keeping:
        request.getfixturevalue("seen")
    with ScriptedServer(models, pause_s=0.02) as server:
        edge, cloud = (openai_like(server, name) for name in ("small", "large"))
        llm = kit.router(edge, cloud, policy=POLICY)
        chunks = await chunks_of(llm, "astream_chat" if asynchronous else "stream_chat")
        await until(lambda: server.abandoned == 1)
    assert "".join(chunk.delta for chunk in chunks) == KNOWS
    assert kit.decision(chunks[-1])["stage"] == "prefix"
    assert server.bodies[0]["logprobs"] is True
    assert "logprobs" not in server.bodies[1]


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_leaving_a_real_stream_closes_its_connection(kit, until, asynchronous):
    """A committed draft that nobody reads to its end is not written to its end."""
    models = {
        "small": ScriptedModel([Reply(text="word " * 60, logprob=-0.01)]),
        "large": ScriptedModel([KNOWS]),
    }
    with ScriptedServer(models, pause_s=0.02) as server:
        edge, cloud = (openai_like(server, name) for name in ("small", "large"))
        stream = await begun(
            kit.router(edge, cloud, policy=POLICY), "astream_chat" if asynchronous else "stream_chat"
        )
        if asynchronous:
            assert (await anext(stream)).delta == "word"
            await stream.aclose()
        else:
            assert next(stream).delta == "word"
            stream.close()
        await until(lambda: server.abandoned == 1)
    assert len(server.bodies) == 1


def test_scored_reasoning_is_not_watched():
    """A chunk without text for the user says nothing about the answer."""
    raw = {"choices": [{"logprobs": {"content": [{"token": "Hm", "logprob": -0.001}]}}]}
    chunk = ChatResponse(message=ChatMessage(role="assistant", content="So"), delta="", raw=raw)
    assert chunk_logprobs(chunk) == ()
    assert chunk_logprobs(chunk.model_copy(update={"delta": "Hm"})).logprobs == (-0.001,)
