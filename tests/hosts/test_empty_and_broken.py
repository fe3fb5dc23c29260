"""Answers of the cloud that hold nothing, and streams that end without a reason."""

import asyncio

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.runnables import RunnableLambda

from confroute import Cascade, TokenLogprob, record
from confroute.errors import TierError
from confroute.hosts.router import Router
from confroute.testing import Reply, ScriptedModel
from confroute.types import Message
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

HOSTS = ("plain", "langchain", "llamaindex", "chains")
FORMS = ("whole", "async", "stream", "astream")
BACK = Cascade.of(TokenLogprob(), 0.1, on_cloud_error="edge")
STRICT = Cascade.of(TokenLogprob(), 0.1)


def router(host, cloud, policy, edge_logprob=-9.0):
    """One whose draft is rejected, and whose cloud gives `cloud`."""
    edge = ScriptedModel([Reply(text="a draft", logprob=edge_logprob)], name="small")
    cloud = ScriptedModel([cloud], name="large")
    if host == "plain":
        return Router(edge=edge, cloud=cloud, policy=policy)
    if host == "langchain":
        return ChatConfRoute(edge=ScriptedChat(script=edge), cloud=ScriptedChat(script=cloud), policy=policy)
    if host == "llamaindex":
        return ConfRouteLLM(edge=ScriptedLLM(model=edge), cloud=ScriptedLLM(model=cloud), policy=policy)
    small = ScriptedChat(script=edge, logprobs=True) | StrOutputParser()
    return ConfidenceRouter(edge=small, cloud=ScriptedChat(script=cloud) | StrOutputParser(), policy=policy)


async def _drained(items):
    return [item async for item in items]


def text(made, form):
    """What a caller reads."""
    if isinstance(made, Router):
        if form == "whole":
            return made.ask("q").text
        if form == "async":
            return asyncio.run(made.aask("q")).text
        return "".join(made.stream("q") if form == "stream" else asyncio.run(_drained(made.astream("q"))))
    if isinstance(made, ConfRouteLLM):
        return _llamaindex(made, form)
    if form == "whole":
        return _read(made.invoke("q"))
    if form == "async":
        return _read(asyncio.run(made.ainvoke("q")))
    chunks = made.stream("q") if form == "stream" else asyncio.run(_drained(made.astream("q")))
    return "".join(map(_read, chunks))


def _read(output):
    return output if isinstance(output, str) else output.text


def _llamaindex(llm, form):
    if form == "whole":
        return llm.complete("q").text
    if form == "async":
        return asyncio.run(llm.acomplete("q")).text
    if form == "stream":
        return "".join(chunk.delta or "" for chunk in llm.stream_complete("q"))

    async def streamed():
        return await _drained(await llm.astream_complete("q"))

    return "".join(chunk.delta or "" for chunk in asyncio.run(streamed()))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("nothing", ["", " \n"])
def test_an_empty_answer_of_the_cloud_is_a_failure(host, form, nothing):
    """So that the policy's choice acts: the draft comes back, flagged, and what the empty answer cost is counted."""
    with record() as decisions:
        read = text(router(host, Reply(text=nothing), BACK), form)
    (decision,) = decisions
    assert read.strip() == "a draft"
    assert (decision.route, decision.stage, decision.degraded) == ("edge", "fallback", True)
    assert decision.usage["cloud"].input_tokens > 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("host", HOSTS)
def test_an_empty_answer_is_raised_where_the_policy_says_so(host, form):
    """By default; the decision says that the call failed."""
    with record() as decisions, pytest.raises(TierError, match="empty answer, which ended by 'length'"):
        text(router(host, Reply(text="", finish="length"), STRICT), form)
    assert [decision.stage for decision in decisions] == ["failed"]


def cloud_message(message):
    """The answer of a router whose cloud gives this message."""
    edge = ScriptedChat.of("a draft", logprob=-9.0)
    return ChatConfRoute(edge=edge, cloud=RunnableLambda(lambda messages: message), policy=STRICT)


@pytest.mark.parametrize(
    "message",
    [
        AIMessage("", tool_calls=[{"name": "look", "args": {}, "id": "1"}]),
        AIMessage("", invalid_tool_calls=[{"name": "look", "args": "{", "id": "1", "error": None}]),
        AIMessage([{"type": "image", "base64": "AAAA", "mime_type": "image/png"}]),
        AIMessage("", additional_kwargs={"audio": {"id": "a", "data": "AAAA"}}),
        AIMessage("", additional_kwargs={"refusal": "I will not."}),
    ],
)
def test_an_answer_without_words_is_an_answer(message):
    """Tool calls, images, audio, a refusal: the cloud's are passed on."""
    assert cloud_message(message).invoke("q").content == message.content


@pytest.mark.parametrize("message", [AIMessage([]), AIMessage([{"type": "thinking", "thinking": "Hm."}])])
def test_thoughts_alone_are_not_an_answer(message):
    """Nothing that a user could read."""
    with pytest.raises(TierError, match="empty answer"):
        cloud_message(message).invoke("q")


def test_a_turn_after_a_tools_answer_may_be_silent():
    """Models end an agent's turn without words; the bare model returns it, and so does the router."""
    history = [
        HumanMessage("Send it."),
        AIMessage("", tool_calls=[{"name": "send", "args": {}, "id": "1"}]),
        ToolMessage("sent", tool_call_id="1"),
    ]
    silent = AIMessage("", response_metadata={"stop_reason": "end_turn"})
    assert cloud_message(silent).invoke(history).text == ""
    plain = Router(edge=lambda messages: "", cloud=ScriptedModel([Reply(text="")]), policy=STRICT)
    assert plain.ask([Message(role="user", text="Send it."), Message(role="tool", text="sent")]).text == ""


@pytest.mark.parametrize("form", ["stream", "astream"])
@pytest.mark.parametrize("host", ["plain", "langchain", "llamaindex"])
def test_a_stream_without_a_reason_is_flagged(host, form):
    """It counts as answered, since its text is shown; step and reason say that it may be cut off."""
    with record() as decisions:
        assert text(router(host, Reply(text="It is", finish="unknown"), STRICT), form) == "It is"
    (decision,) = decisions
    assert decision.steps[-1].unfinished
    assert decision.to_dict()["steps"][-1]["unfinished"] is True
    assert "may be cut off" in decision.reason


@pytest.mark.parametrize(
    ("form", "finish"),
    [
        *((form, finish) for form in FORMS for finish in ("stop", "length")),
        ("whole", "unknown"),
        ("async", "unknown"),
    ],
)
@pytest.mark.parametrize("host", ["plain", "langchain", "llamaindex"])
def test_answers_that_say_why_they_end_or_come_whole_are_not_flagged(host, form, finish):
    """Some servers never give a reason with a whole answer."""
    with record() as decisions:
        text(router(host, Reply(text="It is", finish=finish), STRICT), form)
    (decision,) = decisions
    assert not any(step.unfinished for step in decision.steps)
    assert "cut off" not in decision.reason


@pytest.mark.parametrize("form", ["stream", "astream"])
def test_a_model_that_does_not_stream_is_not_flagged(form):
    """Its one chunk is the whole answer."""
    edge = ScriptedModel([Reply(text="a draft", logprob=-9.0)], name="small")
    made = Router(edge=edge, cloud=lambda messages: "It is", policy=STRICT)
    with record() as decisions:
        assert text(made, form) == "It is"
    assert not decisions[0].steps[-1].unfinished
