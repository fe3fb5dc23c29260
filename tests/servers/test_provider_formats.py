"""What is particular to one provider, through the real clients; what all are compared in is the table of docs/providers.md."""

import math
from dataclasses import replace

import httpx
import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.globals import set_llm_cache
from langchain_core.messages import HumanMessage
from langchain_openai import ChatOpenAI
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from openai import OpenAI

from confroute import Cascade, KeepPrivate, Router, SelfConsistency, TokenLogprob, record
from confroute.models.provider_answers import (
    ends_by_reason,
    read_answer_logprobs,
    read_finish,
    read_logprobs,
    read_usage,
)
from confroute.models.resilience import rejects_logprobs
from confroute.prices import Price
from confroute.signals import TokenEntropy
from confroute.testing import Reply, ScriptedModel
from confroute.types import Usage
from langchain_confroute import ChatConfRoute
from langchain_confroute.compat import bills_apart, with_whole_bills
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM
from tests.servers.formats import CHOSEN, MEAN, VLLM, Chat, DeepSeek, Gemini, Ollama, Responses, Said
from tests.servers.ways import (
    KEY,
    ONCE,
    OPENAI,
    POLICY,
    PROVIDERS,
    QUESTION,
    WATCHED,
    Provider,
    called_by_llamaindex,
    look_up,
    plain,
    stop_all,
)

THOUGHTS = (("Hm", -3.0), ("?", -2.0))
BILL = Usage(input_tokens=1000, output_tokens=9, cached_tokens=900, reasoning_tokens=6)
ASKED = "message.output_text.logprobs"


@pytest.fixture(scope="module", autouse=True)
def _servers():
    yield
    stop_all()


def ways(*names):
    """Every client of these providers."""
    pairs = [(PROVIDERS[name].serving, way) for name in names for way in PROVIDERS[name].ways]
    ids = [f"{name}-{way.host}" for name in names for way in PROVIDERS[name].ways]
    return pytest.mark.parametrize(("serving", "way"), pairs, ids=ids)


@ways("DeepSeek", "Ollama")
def test_reasoning_is_not_the_answer(serving, way):
    """DeepSeek scores it in a list of its own, Ollama before the answer's tokens: the answer's alone are measured."""
    with serving(Said(thoughts=THOUGHTS)) as server:
        decision = way.decide(server)
    assert (decision.route, decision.uncertainty) == ("edge", pytest.approx(MEAN))


@ways("DeepSeek")
def test_reasoning_is_not_the_answer_of_a_stream(serving, way):
    """It comes first, in parts without text."""
    with serving(Said(thoughts=THOUGHTS)) as server:
        decision = way.decide(server, WATCHED, streamed=True)
    assert (decision.route, decision.stage, decision.uncertainty) == ("edge", "prefix", pytest.approx(0.02))


@ways("OpenAI", "OpenAI Responses", "DeepSeek", "Anthropic")
def test_a_draft_is_billed_at_the_prices_of_its_parts(serving, way):
    """Cached input and reasoning cost their own, wherever the provider counts them."""
    said = Said(input_tokens=1000, cached=900, reasoning=6)
    with serving(said) as server:
        usage = way.decide(server).usage["edge"]
    assert usage == BILL
    price = Price(input_usd=10, output_usd=40, cached_usd=1, reasoning_usd=20)
    assert price.of(usage) == pytest.approx((100 * 10 + 900 * 1 + 3 * 40 + 6 * 20) / 1e6)


@ways("OpenAI", "DeepSeek")
def test_a_streamed_draft_has_the_whole_bill(serving, way):
    """LangChain reads OpenAI's names alone in the bill of a stream: DeepSeek's are carried past it."""
    with serving(Said(input_tokens=1000, cached=900, reasoning=6)) as server:
        assert way.decide(server, WATCHED, streamed=True).usage["edge"] == BILL


class OlderLlamaCpp(Chat):
    """llama.cpp before its bill told cached tokens: they stand in the timings beside it."""

    def usage(self, said):
        return {"prompt_tokens": said.input_tokens, "completion_tokens": said.output_tokens}

    def whole(self, body, said):
        return {**super().whole(body, said), "timings": {"cache_n": said.cached, "prompt_n": 1}}

    def events(self, body, said):
        for name, event in super().events(body, said):
            told = isinstance(event, dict) and event.get("usage")
            yield name, {**event, "timings": {"cache_n": said.cached}} if told else event


# Its only call is a final answer of the edge, made as the user set the model up.
BOUND = Cascade(gates=POLICY.gates, rules=(KeepPrivate(patterns=("Capital",)),))


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("policy", [POLICY, BOUND], ids=["draft", "final"])
@pytest.mark.parametrize("way", OPENAI, ids=lambda way: way.host)
@pytest.mark.parametrize("server", [DeepSeek, OlderLlamaCpp])
def test_cached_tokens_are_read_wherever_a_server_tells_them(server, way, policy, streamed):
    """In drafts and final answers, whole and in streams, through every host."""
    with server(Said(input_tokens=1000, cached=900)) as served:
        usage = way.decide(served, policy, streamed=streamed).usage["edge"]
    assert (usage.input_tokens, usage.cached_tokens) == (1000, 900)


def test_the_users_chat_keeps_its_clients():
    """They are copied; what stands in their place in another model is left alone."""
    chat = ChatOpenAI(model="small", base_url="http://127.0.0.1:9/v1", **KEY)
    before = dict(vars(chat))
    assert bills_apart(chat)
    copy = with_whole_bills(chat, {"temperature": 0.5})
    assert vars(chat) == before
    assert (copy.temperature, copy.client is chat.client) == (0.5, False)
    own = chat.model_copy(update={"client": object(), "async_client": None})
    for other in (ChatOpenAI(model="small", **KEY), own, ScriptedChat.of("4", name="small")):
        assert not bills_apart(other)
        assert getattr(with_whole_bills(other, {}), "client", None) is getattr(other, "client", None)


@ways("Anthropic")
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("kept", ["5m", "1h", None])
def test_tokens_that_anthropic_writes_to_its_cache(serving, way, streamed, kept):
    """Counted beside its input and not in it; LangChain writes 0 for the sum where it knows how long they are kept."""
    with serving(Said(input_tokens=1000, cached=700, written=200, kept=kept)) as server:
        usage = way.decide(server, BOUND, streamed=streamed).usage["edge"]
    assert (usage.input_tokens, usage.cached_tokens, usage.cache_write_tokens) == (1000, 700, 200)
    price = Price(input_usd=3, output_usd=15, cached_usd=0.3, cache_write_usd=3.75)
    assert price.of(usage) == pytest.approx(
        (100 * 3 + 700 * 0.3 + 200 * 3.75 + usage.output_tokens * 15) / 1e6
    )


@ways("vLLM")
def test_tokens_that_are_named_by_their_numbers(serving, way):
    """Their bytes spell them, so that the answer's own tokens are found; alternatives have numbers, and letters no name."""
    answer = Said(tokens=(('{"apples":', -0.1), (" 42", -1.5), ("}", -0.1)))
    with serving(answer) as server:
        assert way.decide(server, Cascade.of(TokenLogprob(span="answer"), 9)).uncertainty == pytest.approx(
            1.5
        )


@ways("OpenAI", "vLLM")
def test_the_drawn_token_is_known_among_its_alternatives(serving, way):
    """By whatever name: counted twice, it would make every answer less certain than it is."""
    with serving() as server:
        entropy = way.decide(server, Cascade.of(TokenEntropy(), 9)).uncertainty
    # Five known tokens each, whose probabilities leave nothing over.
    known = [[value - rank for rank in range(5)] for _, value in CHOSEN]
    assert entropy == pytest.approx(
        -sum(math.exp(one) * one for place in known for one in place) / len(known)
    )


def test_a_character_of_several_tokens_is_spelt_by_their_bytes():
    """Each of its tokens has a part of it; what is no bytes leaves the name as it was sent."""
    parts = [[0xC3], [0xA9]]
    entries = [{"token": f"token_id:{at}", "logprob": -0.5, "bytes": part} for at, part in enumerate(parts)]
    assert read_logprobs(entries).tokens == (r"bytes:\xc3", r"bytes:\xa9")
    for wrong in (None, "é", [256], [0.5]):
        assert read_logprobs([{**entries[0], "bytes": wrong}]).tokens == ("token_id:0",)


def test_log_probabilities_of_the_prompt_are_not_the_answers():
    """Also where those of the answer are missing."""
    with VLLM() as server:
        body = {"model": "small", "messages": [], "prompt_logprobs": 1}
        answer = httpx.post(f"{server.url}/chat/completions", json=body).json()
    assert answer["prompt_logprobs"][1]["7"]["logprob"] == -9.5
    assert read_answer_logprobs(answer) is None


def test_whole_answers_of_ollama():
    """Its clients in Python stream; others may not."""
    with Ollama(Said(thoughts=THOUGHTS)) as server:
        body = {"model": "small", "messages": [], "stream": False, "logprobs": True, "top_logprobs": 2}
        answer = httpx.post(f"{server.root}/api/chat", json=body).json()
    scored = read_answer_logprobs(answer)
    assert list(zip(scored.tokens, scored.logprobs, strict=True)) == [*THOUGHTS, *CHOSEN]
    assert [len(place) for place in scored.alternatives] == [2] * 5
    assert (read_finish(answer), read_usage(answer)) == ("stop", Usage(input_tokens=50, output_tokens=5))


@pytest.mark.parametrize("tops", [0, 3])
def test_gemini_as_it_is_sent(tops):
    """Each token, its alternatives, the parts of the bill, and the reason, in the names of its JSON."""
    said = Said(input_tokens=1000, cached=900, reasoning=6)
    answer = Gemini.answer(said, tops=tops)
    scored = read_answer_logprobs(answer)
    assert tuple(zip(scored.tokens, scored.logprobs, strict=True)) == CHOSEN
    assert (scored.alternatives is None) == (not tops)
    if tops:
        assert scored.alternatives[0] == (("Paris", -0.03), ("Paris1", -1.03), ("Paris2", -2.03))
    assert read_usage(answer["usageMetadata"]) == BILL
    assert (read_finish(answer), ends_by_reason(answer)) == ("stop", True)


def test_gemini_in_the_names_of_its_client():
    """As objects of google-genai are dumped, and as LangChain keeps the list of tokens."""
    chosen = [{"token": token, "log_probability": value} for token, value in CHOSEN]
    candidate = {"finish_reason": "MAX_TOKENS", "logprobs_result": {"chosen_candidates": chosen}}
    for answer in ({"candidates": [candidate]}, candidate):
        assert read_answer_logprobs(answer).logprobs == tuple(value for _, value in CHOSEN)
        assert read_finish(answer) == "length"
    listed = [{"token": token, "logprob": value} for token, value in CHOSEN]
    assert read_answer_logprobs({"logprobs_result": listed}).tokens == ("Paris", " it", " is")


def test_the_mean_of_gemini_is_not_taken_for_its_tokens():
    """It says nothing of any one of them; nor does a list in which one token has no number."""
    assert read_answer_logprobs(Gemini.answer(Said(), scored=False)) is None
    answer = Gemini.answer(Said())
    del answer["candidates"][0]["logprobsResult"]["chosenCandidates"][1]["logProbability"]
    assert read_answer_logprobs(answer) is None


@pytest.mark.parametrize(
    "said",
    [
        Gemini.refusal["error"]["message"],
        Chat.refusals["reasoning models"][2]["error"]["message"],
        DeepSeek.refusals["reasoning models"][2]["error"]["message"],
        VLLM.refusals["more alternatives than its limit"][2]["error"]["message"],
        Ollama.refusals["more than 20 alternatives"][2]["error"],
    ],
)
def test_refusals_without_a_parameter_are_known_by_their_sentence(said):
    """As servers word them."""
    assert rejects_logprobs(ValueError(said))


def test_a_parameter_for_everything_optional_names_nothing():
    """OpenAI's Responses API names `include` whatever of it is wrong: the sentence tells."""

    class RefusedError(Exception):
        status_code, param = 400, "include"

    assert rejects_logprobs(RefusedError("logprobs are not supported with this model"))
    assert not rejects_logprobs(RefusedError("the value 'file_search' is not supported"))


@pytest.mark.parametrize("host", ["langchain", "llamaindex"])
async def test_the_router_without_a_framework_around_models_of_the_hosts(host):
    """Whole and streamed; where the numbers come with the end of a stream, the text is held until then."""
    edge = {"langchain": responses_edge, "llamaindex": responses_llm}[host]
    with Responses() as server:
        decisions = [plain(edge).decide(server), plain(edge).decide(server, WATCHED, streamed=True)]
        streaming = Router(edge=edge(server), cloud=ScriptedModel(["cloud"]), policy=WATCHED, **ONCE)
        with record() as recorded:
            assert "".join([part async for part in streaming.astream(QUESTION)]) == Said().text
    for decision in (*decisions, *recorded):
        assert (decision.route, decision.uncertainty) == ("edge", pytest.approx(MEAN))
        assert decision.usage["edge"] == Usage(input_tokens=50, output_tokens=3)


# OpenAI's Responses API in LangChain.


def responses_edge(server, **settings):
    return ChatOpenAI(model="small", base_url=server.url, use_responses_api=True, **KEY, **settings)


def responses_llm(server):
    return OpenAIResponses(model="gpt-4o", api_base=server.url, **KEY)


def router(edge, **settings):
    cloud = ScriptedChat.of("cloud", name="large")
    return ChatConfRoute(edge=edge, cloud=cloud, **{"policy": POLICY, **ONCE, **settings})


def test_langchain_itself_drops_them():
    """Why they are carried past it: where this fails, it has begun to keep them."""
    with Responses() as server:
        edge = responses_edge(server, include=[ASKED])
        answers = [edge.invoke(QUESTION), *edge.stream(QUESTION)]
        assert all(body["include"] == [ASKED] for body in server.bodies)
    assert "logprob" not in str([(one.content, one.response_metadata) for one in answers]).replace(ASKED, "")


@pytest.mark.parametrize("keep", [False, True])
async def test_they_stand_where_those_of_chat_do(keep):
    """On the answer only if they are to be kept, whole or streamed; what carried them is gone."""
    with Responses() as server:
        model = router(responses_edge(server), keep_logprobs=keep)
        for answer in (model.invoke(QUESTION), await model.ainvoke(QUESTION)):
            assert answer.response_metadata["confroute"]["uncertainty"] == pytest.approx(MEAN)
            assert answer.response_metadata["metadata"] == {}
            assert ("logprobs" in answer.response_metadata) is keep
            if keep:
                assert answer.response_metadata["logprobs"]["content"][0]["logprob"] == -0.03


@pytest.mark.parametrize("keep", [False, True])
async def test_they_come_with_the_end_of_a_stream(keep):
    """LangChain keeps no part of a part, so that a draft is judged when it is whole."""
    with Responses() as server:
        model = router(responses_edge(server), policy=WATCHED, keep_logprobs=keep)
        streams = [list(model.stream(QUESTION)), [chunk async for chunk in model.astream(QUESTION)]]
        assert all(body["stream"] for body in server.bodies)
    for chunks in streams:
        decision = chunks[-1].response_metadata["confroute"]
        assert (decision["stage"], decision["uncertainty"]) == ("draft", pytest.approx(MEAN))
        assert any("logprobs" in chunk.response_metadata for chunk in chunks) is keep
        assert not any(ASKED in str(chunk) for chunk in chunks)


@pytest.mark.parametrize(
    "settings", [{"include_response_headers": True}, {"output_version": "v0"}, {"output_version": "v1"}]
)
async def test_every_form_of_the_integrations_answers_carries_them(settings):
    """Raw responses, and the other ways to write content."""
    with Responses() as server:
        model = router(responses_edge(server, **settings), policy=WATCHED)
        answers = [model.invoke(QUESTION), await model.ainvoke(QUESTION), [*model.stream(QUESTION)][-1]]
        answers.append([chunk async for chunk in model.astream(QUESTION)][-1])
    for answer in answers:
        assert answer.response_metadata["confroute"]["uncertainty"] == pytest.approx(MEAN)


def test_what_the_user_asked_for_is_asked_for_too():
    """The edge's own `include` and metadata stay; its alternatives are as many as the signal reads; the cloud is asked for nothing."""
    with Responses() as server:
        edge = responses_edge(server, include=["reasoning.encrypted_content"], metadata={"run": "7"})
        cloud = responses_edge(server)
        model = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(TokenEntropy(), 1e-9), **ONCE)
        model.invoke(QUESTION)
        first, final = server.bodies
    assert first["include"] == ["reasoning.encrypted_content", ASKED]
    assert first["top_logprobs"] == 5
    assert "logprobs" not in first
    assert {"include", "top_logprobs"}.isdisjoint(final)


def test_the_users_model_stays_as_it_is():
    """Its own calls carry nothing, before and after the router's."""
    with Responses() as server:
        edge = responses_edge(server, include=[ASKED])
        client = edge.root_client
        router(edge).invoke(QUESTION)
        assert edge.root_client is client
        assert type(client.responses) is type(OpenAI(api_key="none").responses)
        assert edge.invoke(QUESTION).response_metadata["metadata"] == {}


def test_a_refusal_is_remembered():
    """Models that reason refuse: asked again without, then no more, and samples decide."""
    policy = Cascade.of(SelfConsistency(n=2, step=2), 0.5)
    gates = (*POLICY.gates, *policy.gates)
    with Responses(refused="reasoning models") as server:
        model = router(responses_edge(server), policy=Cascade(gates=gates))
        decisions = [model.invoke(QUESTION).response_metadata["confroute"] for _ in range(2)]
        asked = [ASKED in (body.get("include") or ()) for body in server.bodies]
    assert [decision["signal"] for decision in decisions] == ["self_consistency"] * 2
    assert (asked.count(True), asked[0]) == (1, True)


def test_answers_from_a_cache_carry_them():
    """They are plain JSON of the answer, and survive where objects do not."""
    set_llm_cache(InMemoryCache())
    try:
        with Responses() as server:
            model = router(responses_edge(server))
            decisions = [model.invoke(QUESTION).response_metadata["confroute"] for _ in range(2)]
            assert len(server.bodies) == 1
    finally:
        set_llm_cache(None)
    assert [decision["uncertainty"] for decision in decisions] == [pytest.approx(MEAN)] * 2


def test_a_client_of_another_kind_gives_no_evidence():
    """It is called as it is."""

    class Spoken:
        def __init__(self, client):
            self.responses = client.responses

    with Responses() as server:
        edge = responses_edge(server)
        edge.root_client = Spoken(edge.root_client)
        decision = router(edge).invoke(QUESTION).response_metadata["confroute"]
    assert (decision["route"], decision["stage"]) == ("cloud", "no_signal")


def test_a_conversation_can_be_gone_on_with():
    """The answer is sent back without anything of ours."""
    with Responses() as server:
        model = router(responses_edge(server))
        model.invoke([HumanMessage(QUESTION), model.invoke(QUESTION), HumanMessage("Sure?")])
        assert "logprob" not in str(server.bodies[-1]["input"])


class Counting(Chat):
    """Tells with every part what was billed so far, as vLLM does with `continuous_usage_stats`."""

    def events(self, body, said):
        for at, (name, event) in enumerate(super().events(body, said)):
            so_far = replace(said, tokens=said.tokens[: at + 1])
            yield name, {**event, "usage": self.usage(so_far)}


class Repeating(Chat):
    """Tells the bill with the reason of the end, and once more after it."""

    def events(self, body, said):
        for name, event in super().events(body, said):
            ends = event["choices"] and event["choices"][0]["finish_reason"]
            yield name, {**event, "usage": self.usage(said)} if ends else event


@pytest.mark.parametrize("server", [Counting, Repeating])
@pytest.mark.parametrize("way", PROVIDERS["OpenAI"].ways, ids=lambda way: way.host)
def test_a_bill_that_a_stream_tells_again_is_counted_once(server, way):
    """Each is of the whole call so far; LangChain adds up what the parts of a stream tell."""
    with Provider(server, ()).serving() as serving:
        decision = way.decide(serving, WATCHED, streamed=True)
    assert (decision.route, decision.stage) == ("edge", "prefix")
    assert decision.usage["edge"] == Usage(input_tokens=50, output_tokens=3)


class Cut(Chat):
    """A stream whose connection ends in the middle of a tool call, as if it were whole."""

    last_words = ""

    def events(self, body, said):
        yield from list(super().events(body, said))[:2]


def _cut_in_langchain(server):
    cloud = ChatOpenAI(model="large", base_url=server.url, **KEY)
    router = ChatConfRoute(edge=ScriptedChat.of("hm", logprob=-9.0), cloud=cloud, policy=POLICY)
    list(router.bind_tools([look_up]).stream(QUESTION))


def _cut_in_llamaindex(server):
    cloud = OpenAILike(
        model="large", api_base=server.url, is_chat_model=True, is_function_calling_model=True, **KEY
    )
    edge = ScriptedLLM(model=ScriptedModel([Reply(text="hm", logprob=-9.0)]))
    tools = [FunctionTool.from_defaults(called_by_llamaindex)]
    list(ConfRouteLLM(edge=edge, cloud=cloud, policy=POLICY).stream_chat_with_tools(tools, QUESTION))


@pytest.mark.parametrize("call", [_cut_in_langchain, _cut_in_llamaindex])
def test_a_tool_call_whose_stream_gives_no_reason_is_flagged(call):
    """As text is: its arguments may be cut off, and LangChain closes their quotes."""
    with Provider(Cut, ()).serving() as server, record() as decisions:
        call(server)
    (decision,) = decisions
    assert decision.route == "cloud"
    assert decision.steps[-1].unfinished
    assert "may be cut off" in decision.reason
