"""Deviations of servers that call themselves OpenAI-compatible, read through the real clients of both hosts."""

import math

import pytest
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai_like import OpenAILike

from confroute import Cascade, Prefix, Threshold, TokenLogprob, record
from confroute.models.openai import OpenAIModel
from confroute.signals import OptionProbability, TokenEntropy, TokenMargin
from confroute.signals.base import Case
from confroute.testing import Reply, ScriptedModel, ScriptedServer
from confroute.testing.server import _ScriptHandler
from confroute.types import Message, Tier
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

TOP = ((" Paris", -0.02), (" Lyon", -4.0))
REPLY = Reply(text="The capital is Paris", logprob=-0.02, top_logprobs=(TOP,) * 4)


class Altered(_ScriptHandler):
    """Changes answers and events before they are sent."""

    def send_json(self, content, *, code=200, headers=None):
        if "choices" in content:
            self._limit_alternatives(content["choices"][0]["logprobs"])
            self.served.alter(content)
        super().send_json(content, code=code, headers=headers)

    def event(self, content):
        if not isinstance(content, str):
            self.served.alter_event(content)
        return super().event(content)

    def _limit_alternatives(self, logprobs):
        for place in logprobs["content"] if logprobs else ():
            del place["top_logprobs"][self.served.bodies[-1].get("top_logprobs") or 0 :]


class Server(ScriptedServer):
    """A server with one deviation."""

    handler = Altered

    def __init__(self, alter):
        super().__init__(ScriptedModel([REPLY]))
        self.alter = self.alter_event = alter


def no_usage(answer):
    del answer["usage"]


def usage_null(answer):
    answer["usage"] = None


def usage_zero(answer):
    answer["usage"] = dict.fromkeys(answer["usage"], 0)


def logprobs_null(answer):
    answer["choices"][0]["logprobs"] = None


def logprobs_left_out(answer):
    del answer["choices"][0]["logprobs"]


def content_null(answer):
    answer["choices"][0]["logprobs"]["content"] = None


def content_empty(answer):
    answer["choices"][0]["logprobs"]["content"] = []


def of_llama_cpp_alone(answer):
    """In the format of llama.cpp's own completions, beside the choices."""
    del answer["choices"][0]["logprobs"]
    answer["completion_probabilities"] = [{"content": "The", "probs": [{"tok_str": "The", "prob": 0.98}]}]


def one_null(answer):
    """Minus infinity, which JSON cannot express."""
    answer["choices"][0]["logprobs"]["content"][2]["logprob"] = None


def one_infinite(answer):
    """The same from servers written in Python."""
    answer["choices"][0]["logprobs"]["content"][2]["logprob"] = -math.inf


def shorter(answer):
    del answer["usage"]
    del answer["choices"][0]["logprobs"]["content"][1:]


def shorter_and_usage_zero(answer):
    usage_zero(answer)
    del answer["choices"][0]["logprobs"]["content"][1:]


def counted_with_the_stop_string(answer):
    """Its tokens are counted but not scored, as by llama.cpp: those that are scored spell the whole answer."""
    answer["usage"]["completion_tokens"] += 3


def shorter_by_a_word(answer):
    """By no more than the end-of-turn tokens that may be unscored."""
    del answer["choices"][0]["logprobs"]["content"][3:]


def later(answer):
    """Only the end of the answer."""
    del answer["usage"]
    del answer["choices"][0]["logprobs"]["content"][:3]


MISSING = [
    *(logprobs_null, logprobs_left_out, content_null, content_empty, of_llama_cpp_alone),
    *(one_null, one_infinite, shorter, shorter_and_usage_zero, shorter_by_a_word, later),
]


def lowest(answer):
    """The value of some servers for a token outside their best ones."""
    answer["choices"][0]["logprobs"]["content"][2]["logprob"] = -9999.0


def lowest_float(answer):
    """The value of llama.cpp for a probability of 0."""
    answer["choices"][0]["logprobs"]["content"][2]["logprob"] = -3.4028234663852886e38


def alternative_null(answer):
    for place in answer["choices"][0]["logprobs"]["content"]:
        for other in place["top_logprobs"][1:]:
            other["logprob"] = None


def alternative_infinite(answer):
    for place in answer["choices"][0]["logprobs"]["content"]:
        for other in place["top_logprobs"][1:]:
            other["logprob"] = -math.inf


def no_alternatives(answer):
    for place in answer["choices"][0]["logprobs"]["content"]:
        del place["top_logprobs"]


def stop_string(answer):
    """The scored tokens include the stop string, the text does not."""
    answer["choices"][0]["finish_reason"] = "stop"
    answer["choices"][0]["stop"] = "###"
    end = {"token": " ###", "logprob": -0.02, "bytes": None, "top_logprobs": []}
    answer["choices"][0]["logprobs"]["content"].append(end)


def special_end(answer):
    """An unscored end-of-turn token is counted, as by llama.cpp."""
    answer["usage"]["completion_tokens"] += 1


def scored_end(answer):
    """The end-of-turn token is scored, in whole answers alone, by llama.cpp: as a token without text."""
    answer["usage"]["completion_tokens"] += 1
    end = {"token": "", "logprob": -9.0, "bytes": [], "top_logprobs": []}
    answer["choices"][0]["logprobs"]["content"].append(end)


KEPT = [
    scored_end,
    counted_with_the_stop_string,
    no_usage,
    usage_null,
    usage_zero,
    no_alternatives,
    alternative_null,
    stop_string,
    special_end,
]


@pytest.fixture
def serving(request):
    """A server with one deviation, stopped at the end."""
    with Server(request.param) as server:
        yield server


def by_langchain(server, policy):
    edge = ChatOpenAI(model="small", base_url=server.url, api_key="none", max_retries=0)
    with record() as decisions:
        ChatConfRoute(edge=edge, cloud=ScriptedChat.of("cloud"), policy=policy).invoke("Capital of France?")
    return decisions[0]


def by_llamaindex(server, policy, **settings):
    edge = OpenAILike(
        model="small", api_base=server.url, api_key="none", is_chat_model=True, max_retries=0, **settings
    )
    llm = ConfRouteLLM(edge=edge, cloud=ScriptedLLM(model=ScriptedModel(["cloud"])), policy=policy)
    with record() as decisions:
        llm.chat([ChatMessage(role="user", content="Capital of France?")])
    return decisions[0]


def by_llamaindex_with_logprobs(server, policy):
    """A model whose own settings request log-probabilities, without alternatives."""
    return by_llamaindex(server, policy, logprobs=True)


HOSTS = pytest.mark.parametrize("through", [by_langchain, by_llamaindex, by_llamaindex_with_logprobs])


@HOSTS
@pytest.mark.parametrize("serving", MISSING, indirect=True)
def test_missing_evidence_is_reported_as_missing(serving, through):
    """In whatever form, and for whatever part of the answer: the draft is not kept, whatever the threshold."""
    decision = through(serving, Cascade.of(TokenLogprob(), 1e9))
    assert (decision.route, decision.stage) == ("cloud", "no_signal")
    assert decision.signals == {}
    assert "token_logprob" in decision.skipped


@HOSTS
@pytest.mark.parametrize("serving", KEPT, indirect=True)
def test_other_fields_may_be_missing(serving, through):
    """Usage, alternatives, the score of an end token, a stop string that the text lacks."""
    decision = through(serving, Cascade.of(TokenLogprob(), 0.1))
    assert (decision.route, decision.uncertainty) == ("edge", pytest.approx(0.02))


@HOSTS
@pytest.mark.parametrize("serving", [lowest, lowest_float], indirect=True)
def test_a_token_far_outside_the_best_ones_is_uncertain(serving, through):
    """The mean is that of the numbers received."""
    decision = through(serving, Cascade.of(TokenLogprob(), 0.1))
    assert decision.route == "cloud"
    assert decision.uncertainty == pytest.approx(
        (9999 if serving.alter is lowest else 3.4028234663852886e38) / 4, rel=1e-4
    )
    for signal in (TokenLogprob(statistic="sum"), TokenLogprob(statistic="perplexity")):
        assert through(serving, Cascade.of(signal, 1.5)).route == "cloud"


@HOSTS
@pytest.mark.parametrize("signal", [TokenEntropy(), TokenMargin(), OptionProbability()])
@pytest.mark.parametrize("serving", [alternative_null, no_alternatives], indirect=True)
def test_missing_alternatives_are_reported_as_missing(serving, through, signal):
    """Signals that read them are skipped."""
    decision = through(serving, Cascade.of(signal, 0.5))
    assert (decision.route, decision.stage) == ("cloud", "no_signal")
    assert signal.name in decision.skipped


@HOSTS
@pytest.mark.parametrize("serving", [alternative_infinite], indirect=True)
def test_an_impossible_alternative_still_counts(serving, through):
    """A probability of 0 is valid: the margin to it is the whole probability of the token."""
    decision = through(serving, Cascade.of(TokenMargin(), 0.9))
    assert decision.signals["token_margin"].uncertainty < 0.1
    assert serving.bodies[0]["top_logprobs"] >= 2


@pytest.mark.parametrize(
    "serving", [*MISSING, *KEPT, lowest, lowest_float, alternative_infinite], indirect=True
)
def test_the_model_without_a_host_reads_the_same(serving):
    """`openai:MODEL` of the commands: no exception, and missing evidence cannot be measured."""
    from confroute.errors import SignalUnavailableError

    model = OpenAIModel(model="small", base_url=serving.url)
    (said,) = model.generate([Message(role="user", text="Capital of France?")])
    assert said.text == "The capital is Paris"
    case = Case(tier=Tier(name="edge", model="small"), question="Capital of France?", draft=said)
    measuring = TokenLogprob().measure(case)
    with pytest.raises(SignalUnavailableError if serving.alter in MISSING else StopIteration) as caught:
        next(measuring)
    if serving.alter in KEPT:
        assert caught.value.value.uncertainty == pytest.approx(0.02)


def scored_places(event):
    """The scored tokens of one event."""
    return [
        place for choice in event["choices"] for place in (choice["logprobs"] or {"content": []})["content"]
    ]


def stream_without_usage(event):
    """The event that should have it is empty."""
    event.pop("usage", None)


def stream_with_usage_null(event):
    """From servers that put the field into every event."""
    event.setdefault("usage", None)


def stream_without_logprobs(event):
    for choice in event["choices"]:
        choice["logprobs"] = None


def stream_without_the_field(event):
    for choice in event["choices"]:
        del choice["logprobs"]


def stream_with_one_null(event):
    for place in scored_places(event):
        place["logprob"] = None if "is" in place["token"] else place["logprob"]


def stream_with_one_infinite(event):
    for place in scored_places(event):
        place["logprob"] = -math.inf if "is" in place["token"] else place["logprob"]


def stream_scored_in_part(event):
    """The last tokens are not scored."""
    for choice in event["choices"]:
        if "is" in (choice["delta"].get("content") or ""):
            choice["logprobs"] = None


def stream_of_empty_content(event):
    for choice in event["choices"]:
        if choice["logprobs"]:
            choice["logprobs"]["content"] = []


STREAM_KEPT = [stream_without_usage, stream_with_usage_null]
STREAM_MISSING = [
    *(stream_without_logprobs, stream_without_the_field, stream_of_empty_content),
    *(stream_with_one_null, stream_with_one_infinite, stream_scored_in_part),
]
# Never commits before the answer is whole.
WHOLE = Prefix(commit=Threshold(value=1e9), cut=Threshold(value=1e9), tokens=99, least=99)


def streamed_by_langchain(server, policy):
    edge = ChatOpenAI(model="small", base_url=server.url, api_key="none", max_retries=0)
    router = ChatConfRoute(edge=edge, cloud=ScriptedChat.of("cloud"), policy=policy)
    with record() as decisions:
        text = "".join(chunk.text for chunk in router.stream("Capital of France?"))
    return decisions[0], text


def streamed_by_llamaindex(server, policy):
    edge = OpenAILike(model="small", api_base=server.url, api_key="none", is_chat_model=True, max_retries=0)
    llm = ConfRouteLLM(edge=edge, cloud=ScriptedLLM(model=ScriptedModel(["cloud"])), policy=policy)
    with record() as decisions:
        chunks = list(llm.stream_chat([ChatMessage(role="user", content="Capital of France?")]))
    return decisions[0], "".join(chunk.delta or "" for chunk in chunks)


@pytest.mark.parametrize("through", [streamed_by_langchain, streamed_by_llamaindex])
@pytest.mark.parametrize("serving", [*STREAM_KEPT, *STREAM_MISSING], indirect=True)
def test_streamed_drafts_are_read_alike(serving, through):
    """Missing evidence in a stream is reported as missing, too."""
    policy = Cascade(gates=Cascade.of(TokenLogprob(), 1e9).gates, prefix=WHOLE)
    decision, text = through(serving, policy)
    assert serving.bodies[0]["stream"] is True
    if serving.alter in STREAM_KEPT:
        assert (decision.route, decision.uncertainty) == ("edge", pytest.approx(0.02))
        assert text == "The capital is Paris"
    else:
        assert (decision.route, decision.stage, text) == ("cloud", "no_signal", "cloud")
        assert decision.signals == {}
