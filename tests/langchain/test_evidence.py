"""Drafts, samples and log-probabilities: what is asked for, what is read, what is never believed."""

from __future__ import annotations

import functools
import math
import operator
from typing import ClassVar

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.globals import set_llm_cache
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from pydantic import BaseModel

from confroute import Cascade, SelfConsistency, TokenLogprob
from confroute.errors import NoSignalError
from confroute.testing import Reply, ScriptedModel
from confroute.types import Usage
from langchain_confroute import ChatConfRoute, extract_token_logprobs, extract_tokens
from langchain_confroute.messages import chunk_scores, to_generation
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE


def decision_of(message):
    return message.response_metadata["confroute"]


class Logprob(BaseModel):
    """As `ollama.Logprob`."""

    token: str
    logprob: float


ENTRIES = [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": 0}]


@pytest.mark.parametrize(
    "found",
    [
        {"content": ENTRIES, "refusal": None},
        ENTRIES,
        [Logprob(**entry) for entry in ENTRIES],
        {"tokens": ["a", "b"], "token_logprobs": [-0.5, 0]},
    ],
)
def test_every_shape_is_read(found):
    """OpenAI's dictionary, Ollama's list of objects, plain lists and the old completions form."""
    message = AIMessage("ab", response_metadata={"logprobs": found})
    assert extract_token_logprobs(message) == (-0.5, 0.0)
    assert extract_tokens(message) == ("a", "b")


@pytest.mark.parametrize(
    "metadata",
    [
        {"choices": [{"logprobs": {"content": ENTRIES}}]},
        {"output": [{"content": [{"text": "ab", "logprobs": ENTRIES}]}]},
    ],
)
def test_an_answer_kept_whole_is_read(metadata):
    """An integration may hand the provider's reply on as it came: every reader finds the numbers there too."""
    message = AIMessageChunk("ab", response_metadata=metadata)
    assert (
        extract_token_logprobs(message)
        == to_generation(message).logprobs
        == chunk_scores(message).logprobs
        == (-0.5, 0.0)
    )
    assert extract_tokens(message) == ("a", "b")


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"logprobs": None},
        {"logprobs": {"content": None, "refusal": None}},
        {"logprobs": {"content": []}},
        {"logprobs": []},
        {"logprobs": "yes"},
        {"logprobs": True},
        {"logprobs": {"content": [{"token": "a", "logprob": -0.1}, {"token": "b", "logprob": None}]}},
        {"logprobs": [{"token": "a"}]},
        {"logprobs": {"token_logprobs": [None, -0.1]}},
    ],
)
def test_what_is_missing_is_not_invented(metadata):
    """No numbers, or numbers for a part of the tokens only, are none."""
    assert extract_token_logprobs(AIMessage("a", response_metadata=metadata)) is None


def test_wrong_numbers_come_through_for_the_core_to_judge():
    """NaN and positive values are passed on, not repaired."""
    message = AIMessage("a", response_metadata={"logprobs": [{"token": "a", "logprob": math.nan}]})
    assert math.isnan(extract_token_logprobs(message)[0])


@pytest.mark.parametrize(
    "reply",
    [
        Reply(text="two words", logprobs=(math.nan, -0.1)),
        Reply(text="two words", logprobs=(0.7, -0.1)),
        Reply(text="two words", logprobs=(-math.inf, -0.1)),
        Reply(text="two words", logprobs=(-0.01,), usage=Usage(input_tokens=3, output_tokens=9)),
        Reply(text="two words", logprob=None),
        Reply(text=""),
    ],
    ids=["nan", "positive", "infinite", "too few", "none", "empty"],
)
async def test_bad_log_probabilities_are_never_confidence(cloud, reply):
    """None of them keeps the draft; the decision says why."""
    edge = ScriptedChat(script=ScriptedModel([reply], name="small"), model="small")
    model = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 5.0))
    for answer in (model.invoke("q"), await model.ainvoke("q")):
        assert decision_of(answer)["route"] == "cloud"
        assert decision_of(answer)["stage"] in {"no_signal", "fallback"}
    strict = ChatConfRoute(
        edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 5.0, on_no_signal="raise")
    )
    if reply.text:
        with pytest.raises(NoSignalError):
            strict.invoke("q")


def test_drafts_ask_for_log_probabilities_once_and_finals_do_not(accepting, edge, cloud):
    """The edge's copy asks; the user's object and the cloud are left alone."""
    answer = accepting.invoke("q")
    assert edge.logprobs is None
    assert decision_of(answer)["signals"]["token_logprob"]["tokens"] == 3
    first = accepting._plan.tiers["edge"].draft()
    accepting.invoke("q")
    assert accepting._plan.tiers["edge"].draft() is first
    assert first is not edge


def test_log_probabilities_the_user_asked_for_stay(edge, cloud):
    """keep_logprobs, or a model that was told to return them, leaves them on the answer."""
    policy = Cascade.of(TokenLogprob(), 0.5)
    for model in (
        ChatConfRoute(edge=edge, cloud=cloud, policy=policy, keep_logprobs=True),
        ChatConfRoute(edge=edge.model_copy(update={"logprobs": True}), cloud=cloud, policy=policy),
        ChatConfRoute(edge=edge.bind(logprobs=True), cloud=cloud, policy=policy),
    ):
        assert extract_token_logprobs(model.invoke("q")) == (-0.2, -0.2, -0.2)


@pytest.mark.parametrize("form", ["invoke", "ainvoke", "stream"])
@pytest.mark.parametrize(
    ("inner", "logprob", "route"), [(0.5, -0.2, "edge"), (0.1, -0.2, "edge"), (0.1, -2.0, "cloud")]
)
async def test_a_router_as_an_edge_has_evidence(form, inner, logprob, route):
    """Whichever of its models answers: it is asked for log-probabilities like any other edge, and the answer holds none."""
    small = ScriptedChat.of("small says", name="small", logprob=-0.2)
    middle = ScriptedChat.of("middle says", name="middle", logprob=logprob)
    nested = ChatConfRoute(edge=small, cloud=middle, policy=Cascade.of(TokenLogprob(), inner))
    model = ChatConfRoute(
        edge=nested, cloud=ScriptedChat.of("large says", name="large"), policy=Cascade.of(TokenLogprob(), 0.5)
    )
    if form == "stream":
        answer = functools.reduce(operator.add, model.stream("q"))
    else:
        answer = await model.ainvoke("q") if form == "ainvoke" else model.invoke("q")
    decision = decision_of(answer)
    assert (decision["route"], decision["uncertainty"]) == (route, -logprob if inner == 0.1 else 0.2)
    assert extract_token_logprobs(answer) is None
    assert nested.keep_logprobs is False


def test_a_cloud_that_refuses_them_is_asked_without(edge):
    """Keeping log-probabilities costs no answer."""
    cloud = ScriptedChat.of("four", name="large").model_copy(update={"rejects_logprobs": True})
    model = ChatConfRoute(
        edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.1), keep_logprobs=True, cloud_limits=ONCE
    )
    assert model.invoke("q").text == "four"
    assert len(cloud.seen) == 2, "asked with them first, and refused"


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_rejected_log_probabilities_are_asked_for_once(cloud, asynchronous):
    """A provider that refuses them is asked again without, and remembered."""
    edge = ScriptedChat.of("4", name="small", samples=["4"]).model_copy(update={"rejects_logprobs": True})
    model = ChatConfRoute(edge=edge, cloud=cloud, edge_limits=ONCE)
    for _ in range(2):
        answer = await model.ainvoke("2 + 2?") if asynchronous else model.invoke("2 + 2?")
        assert decision_of(answer)["signal"] == "self_consistency"
        assert decision_of(answer)["route"] == "edge"
    greedy = [seen for seen in edge.script.calls if not seen.temperature]
    assert len(greedy) == 2  # the refused call never reached the script
    assert len(edge.seen) == len(edge.script.calls) + 1


def test_other_errors_do_not_stop_the_asking(cloud):
    """Only an error about log-probabilities does."""
    edge = ScriptedChat.of("4", name="small", fault=ValueError("bad request"))
    model = ChatConfRoute(edge=edge, cloud=cloud, edge_limits=ONCE)
    for _ in range(2):
        assert decision_of(model.invoke("q"))["stage"] == "fallback"
    assert not model._plan.fallback._refusals


@pytest.fixture
def llm_cache():
    set_llm_cache(InMemoryCache())
    yield
    set_llm_cache(None)


class Batched(ScriptedChat):
    """Gives several samples in one call, as ChatLocal does."""

    samples_in_one_call: ClassVar[bool] = True


@pytest.mark.usefixtures("llm_cache")
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", [ScriptedChat, Batched])
async def test_a_global_cache_does_not_make_samples_identical(cloud, kind, asynchronous):
    """Samples come from the model, not from LangChain's answer cache, however often the call is made."""
    edge = kind(
        script=ScriptedModel(["4"], samples=["5", "6", "7"], name="small"), model="small", temperature=0
    )
    model = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(SelfConsistency(n=3, step=3), 0.5))
    for _ in range(2):
        answer = await model.ainvoke("2 + 2?") if asynchronous else model.invoke("2 + 2?")
        assert decision_of(answer)["uncertainty"] == 1.0
        assert decision_of(answer)["route"] == "cloud"


@pytest.mark.usefixtures("llm_cache")
def test_draft_and_plain_calls_have_keys_of_their_own(accepting, edge):
    """An answer cached without log-probabilities is not taken for a draft."""
    edge.invoke("q")
    assert decision_of(accepting.invoke("q"))["signal"] == "token_logprob"


@pytest.mark.parametrize("kind", [ScriptedChat, Batched])
async def test_samples_are_hot_seedless_and_tagged(cloud, watch, kind):
    """Samples ignore the caller's temperature and seed, and are told apart in traces."""
    edge = kind(
        script=ScriptedModel(["4"], samples=["4"], name="small"), model="small", seed=7, temperature=0
    )
    bound = edge.bind(temperature=0, seed=7)
    model = ChatConfRoute(edge=bound, cloud=cloud, policy=Cascade.of(SelfConsistency(n=3, step=3), 0.3))
    with get_usage_metadata_callback() as usage:
        model.invoke("2 + 2?", {"callbacks": [watch]}, temperature=0)
    hot = [seen.temperature for seen in edge.script.calls]
    assert hot == [0, 0.7, 0.7, 0.7]
    assert all(seen.get("seed") != 7 for seen in edge.seen[1:])
    drafts_and_samples = ["draft", "sample"] if kind is Batched else ["draft", "sample", "sample", "sample"]
    assert watch.roles == drafts_and_samples
    assert all("nostream" in run["tags"] for run in watch.runs.values() if run["kind"] == "llm")
    assert edge.seed == 7
    if kind is ScriptedChat:
        assert usage.usage_metadata["small"]["output_tokens"] == 4


def test_samples_stop_when_the_decision_is_settled(cloud):
    """Steps of one: two agreeing samples of three settle a threshold of a third."""
    edge = ScriptedChat.of("4", name="small", samples=["4"])
    model = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(SelfConsistency(n=3), 0.34))
    decision = decision_of(model.invoke("2 + 2?"))
    assert decision["signals"]["self_consistency"]["drawn"] == 2
    assert decision["usage"]["edge"]["output_tokens"] == 3


def test_a_model_without_temperature_is_not_sampled(cloud):
    """profile["temperature"] is False: samples would all be alike."""
    edge = ScriptedChat.of("4", name="small", logprob=None)
    edge = edge.model_copy(update={"profile": {"temperature": False}})
    decision = decision_of(ChatConfRoute(edge=edge, cloud=cloud).invoke("2 + 2?"))
    assert decision["stage"] == "no_signal"
    assert "cannot draw" in decision["skipped"]["self_consistency"]


def test_prompt_longer_than_the_edges_context(edge, cloud):
    """The edge is not asked; the decision says why."""
    small = edge.model_copy(update={"profile": {"max_input_tokens": 20}})
    model = ChatConfRoute(edge=small, cloud=cloud, policy=Cascade.of(TokenLogprob(), 5.0))
    decision = decision_of(model.invoke("word " * 100))
    assert decision["route"] == "cloud"
    assert "longer than the context of edge (20)" in decision["reason"]
    assert not edge.seen
    assert decision_of(model.invoke("short"))["route"] == "edge"


IMAGE = {"type": "image", "url": "https://example.org/a.png"}


@pytest.mark.parametrize(
    ("block", "key", "word"),
    [
        (IMAGE, "image_inputs", "images"),
        ({"type": "image_url", "image_url": {"url": "https://example.org/a.png"}}, "image_inputs", "images"),
        ({"type": "audio", "base64": "AAAA", "mime_type": "audio/wav"}, "audio_inputs", "audio"),
        ({"type": "file", "base64": "AAAA", "mime_type": "application/pdf"}, "pdf_inputs", "files"),
    ],
)
def test_content_the_edge_cannot_read(edge, cloud, block, key, word):
    """Content that the edge's profile denies goes to the cloud at once; what it does not mention is tried."""
    prompt = [HumanMessage([{"type": "text", "text": "what is this?"}, block])]
    blind = edge.model_copy(update={"profile": {key: False}})
    policy = Cascade.of(TokenLogprob(), 5.0)
    decision = decision_of(ChatConfRoute(edge=blind, cloud=cloud, policy=policy).invoke(prompt))
    assert decision["route"] == "cloud"
    assert word in decision["reason"]
    assert decision_of(ChatConfRoute(edge=edge, cloud=cloud, policy=policy).invoke(prompt))["route"] == "edge"


def test_a_picture_without_words_is_a_request(edge, cloud):
    """Attachments alone are content."""
    model = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 5.0))
    assert decision_of(model.invoke([HumanMessage([IMAGE])]))["route"] == "edge"


@pytest.mark.parametrize("kind", [ScriptedChat, Batched])
@pytest.mark.parametrize("streaming", [False, True])
async def test_the_majority_of_the_samples_is_returned_as_its_own_message(cloud, kind, streaming):
    """Where the policy says so: the first of the samples that agree, its usage counted once, sync and async."""
    policy = Cascade(gates=Cascade.of(SelfConsistency(n=3, step=3), 1.0).gates, returns="majority")
    for asynchronous in (False, True):
        script = ScriptedModel(["So 7"], samples=["8 legs", "It is 8", "6"], name="small")
        model = ChatConfRoute(edge=kind(script=script, model="small"), cloud=cloud, policy=policy)
        with get_usage_metadata_callback() as usage:
            if streaming and asynchronous:
                chunks = [chunk async for chunk in model.astream("How many legs?")]
            elif streaming:
                chunks = list(model.stream("How many legs?"))
            else:
                said = (
                    await model.ainvoke("How many legs?") if asynchronous else model.invoke("How many legs?")
                )
        if streaming:
            said = chunks[0]
            for chunk in chunks[1:]:
                said += chunk
        decision = decision_of(said)
        assert (said.text, decision["route"], decision["sampled"]) == ("8 legs", "edge", True)
        assert "2 of 4 answers" in decision["reason"]
        assert decision["usage"]["edge"]["output_tokens"] == 2 + (2 + 3 + 1)
        if kind is ScriptedChat:
            assert usage.usage_metadata["small"]["output_tokens"] == 2 + (2 + 3 + 1)


def test_a_refusal_is_remembered_by_copies():
    """Agents bind tools anew at each step, and callers copy routers: the model is the same."""
    pytest.importorskip("langchain.agents", reason="the middleware is for agents of the langchain package")
    from langchain.agents import create_agent

    from langchain_confroute.middleware import ConfRouteMiddleware

    def small():
        return ScriptedChat.of("4", name="small", samples=["4"]).model_copy(update={"rejects_logprobs": True})

    def look_up(word: str) -> str:
        """Look it up."""
        return word

    policy = Cascade.of(TokenLogprob(), 0.5, on_no_signal="edge")
    edge = small()
    router = ChatConfRoute(edge=edge, cloud=ScriptedChat.of("four", name="large"), policy=policy)
    for copy in (router, router, router.model_copy(update={"keep_logprobs": True})):
        create_agent(copy, [look_up]).invoke({"messages": [("user", "q")]})
    assert len(edge.seen) - len(edge.script.calls) == 1
    edge = small()
    routed = ConfRouteMiddleware(edge, policy=policy)
    for text in ("four", "vier"):
        create_agent(ScriptedChat.of(text), [look_up], middleware=[routed]).invoke(
            {"messages": [("user", "q")]}
        )
    assert len(edge.seen) - len(edge.script.calls) == 1
