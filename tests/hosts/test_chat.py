"""Calls in OpenAI's chat format through `Router`: what reaches each model, and what is refused."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from confroute import Cascade, KeepPrivate, Limits, Router, SelfConsistency, TokenLogprob
from confroute.asks import HelpTool
from confroute.errors import RequestError
from confroute.hosts.chat import read_chat
from confroute.models.openai import OpenAIModel
from confroute.testing import Reply, ScriptedModel, ScriptedServer

SURE, UNSURE = Reply(text="Bern", logprob=-0.01), Reply(text="Rome", logprob=-2.0)
POLICY = Cascade.of(TokenLogprob(), 0.3)
ONCE = Limits(attempts=1)
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def request(**settings):
    """A request of one question."""
    return {"messages": [{"role": "user", "content": "Capital of Switzerland?"}], **settings}


def answered(router, **settings):
    """What a router makes of it."""
    return asyncio.run(router.achat(read_chat(request(**settings))))


def served(server, **settings):
    """A router between a server's model and one that says "Geneva"."""
    edge = OpenAIModel(model="small", base_url=server.url)
    cloud = settings.pop("cloud", ScriptedModel(["Geneva"], name="large"))
    return Router(edge=edge, cloud=cloud, policy=POLICY, edge_limits=ONCE, cloud_limits=ONCE, **settings)


def test_every_setting_reaches_a_model_behind_a_server():
    """As the caller sent them, those that no other model knows too."""
    settings = {
        "temperature": 0.5,
        "max_tokens": 7,
        "seed": 3,
        "stop": ["."],
        "top_p": 0.9,
        "user": "ada",
        "tools": [WEATHER],
        "tool_choice": "auto",
    }
    with ScriptedServer(ScriptedModel([SURE])) as server:
        routed = answered(served(server), **settings)
    assert (routed.text, routed.decision.route) == ("Bern", "edge")
    assert {name: server.bodies[0].get(name) for name in settings} == settings


def test_samples_keep_the_tools_and_leave_the_seed():
    """A server gives all samples of a request one seed; with it they would be one sample."""
    with ScriptedServer(ScriptedModel([SURE])) as server:
        edge = OpenAIModel(model="small", base_url=server.url)
        policy = Cascade.of(SelfConsistency(n=2, temperature=0.7), 0.5)
        router = Router(edge=edge, cloud=ScriptedModel(name="large"), policy=policy)
        answered(router, seed=3, temperature=0.1, tools=[WEATHER])
    draft, *samples = server.bodies
    assert (draft["seed"], draft["temperature"]) == (3, 0.1)
    assert samples
    assert all(
        "seed" not in sample and sample["temperature"] == 0.7 and sample["tools"] for sample in samples
    )


class Knows:
    """A model that keeps how it was asked."""

    name, remote = "plain", False

    def __init__(self):
        self.asked = []

    def generate(self, messages, *, n=1, **settings):
        """Never in these tests."""
        raise NotImplementedError

    async def agenerate(self, messages, *, n=1, **settings):
        """Say yes."""
        self.asked.append(settings)
        return SURE.generation("", model="plain"), *[SURE.generation("", model="plain")] * (n - 1)


def test_a_plain_model_is_given_what_it_takes():
    """Temperature, length and seed; a neutral setting is none."""
    edge = Knows()
    router = Router(edge=edge, cloud=ScriptedModel(name="large"), policy=POLICY)
    answered(
        router, temperature=0.5, max_completion_tokens=7, seed=3, top_p=1, user="ada", tool_choice="none"
    )
    (asked,) = edge.asked
    assert (asked["temperature"], asked["max_tokens"], asked["seed"]) == (0.5, 7, 3)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"tools": [WEATHER]}, "tool calls"),
        ({"response_format": {"type": "json_object"}}, "a response format"),
        ({"stop": "."}, "stop strings"),
        ({"top_p": 0.5}, "the setting 'top_p'"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "images",
        ),
    ],
)
def test_what_a_model_does_not_take_passes_it_over_or_is_refused(settings, words):
    """An edge without it leaves the call to a cloud that has it; where neither has it, the error says what."""
    with ScriptedServer(ScriptedModel([SURE])) as server:
        cloud = OpenAIModel(model="large", base_url=server.url)
        routed = answered(Router(edge=ScriptedModel([SURE]), cloud=cloud, policy=POLICY), **settings)
    assert routed.decision.route == "cloud"
    assert words in routed.decision.reason
    edge = ScriptedModel([SURE])
    with pytest.raises(RequestError, match=words):
        answered(Router(edge=edge, cloud=ScriptedModel(name="large"), policy=POLICY), **settings)
    with pytest.raises(RequestError, match=words):
        answered(
            Router(edge=edge, cloud=ScriptedModel(name="large"), policy=POLICY),
            confroute_route="edge",
            **settings,
        )
    assert not edge.calls


def tool_answer(arguments):
    """A server's whole answer with one tool call."""
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


@pytest.fixture
def calling(monkeypatch):
    """Makes servers answer with a message of the test's own."""
    from confroute.testing import server as module

    def answer_with(message):
        def completion(body, answer):
            choice = {"index": 0, "message": message, "finish_reason": "tool_calls", "logprobs": None}
            return module.chat_format.completion(body, [choice], answer.usage)

        monkeypatch.setattr(module, "_completion", completion)

    return answer_with


@pytest.mark.parametrize(
    ("arguments", "flaw"),
    [('{"town": "Bern"}', "lacks city"), ("no", "not a JSON object"), ('{"city": 1}', "city is not")],
)
def test_a_draft_whose_call_does_not_fit_is_not_kept(calling, arguments, flaw):
    """However certain the model was; here the caller forced nothing, and the cloud answers."""
    calling(tool_answer(arguments))
    with ScriptedServer(ScriptedModel([SURE])) as server, ScriptedServer(ScriptedModel([SURE])) as other:
        cloud = OpenAIModel(model="large", base_url=other.url)
        routed = answered(served(server, cloud=cloud), tools=[WEATHER])
    assert routed.decision.route == "cloud"
    assert flaw in routed.decision.reason
    assert routed.generation.raw["tool_calls"][0]["function"]["arguments"] == arguments


def test_a_value_is_held_against_its_schema():
    """Text that is not JSON, or does not fit, is no answer."""
    form = {
        "type": "json_schema",
        "json_schema": {"name": "city", "schema": {"type": "object", "required": ["city"]}},
    }
    good, bad = Reply(text=json.dumps({"city": "Bern"}), logprob=-0.01), Reply(text="{}", logprob=-0.01)
    for reply, route in ((good, "edge"), (bad, "cloud"), (SURE, "cloud")):
        with ScriptedServer(ScriptedModel([reply])) as server, ScriptedServer(ScriptedModel([good])) as other:
            router = served(server, cloud=OpenAIModel(model="large", base_url=other.url))
            assert answered(router, response_format=form).decision.route == route


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"confroute_rout": "edge"}, "confroute_rout"),
        ({"metadata": {"confroute_tresh": "1"}}, "confroute_tresh"),
        ({"metadata": {"confroute_threshold": "low"}}, "expected a number"),
        ({"n": 2}, "returns one answer"),
        ({"messages": "Hello"}, "messages"),
        ({"messages": [{"role": "robot", "content": "?"}]}, "robot"),
        ({"messages": [{"role": "user", "content": 7}]}, "content"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"top_logprobs": 21}, "at most 20"),
        ({"tools": [{"type": "function"}]}, "function"),
    ],
)
def test_what_is_wrong_with_a_request_is_said(settings, words):
    """Before a model is asked."""
    with pytest.raises(RequestError, match=words):
        read_chat(request(**settings))


def test_options_of_the_request_go_before_those_around_it():
    """Tags add up; documents may have scores."""
    around = read_chat(request(confroute_route="cloud", confroute_tags=["a"])).options
    metadata = {
        "confroute_route": "edge",
        "confroute_tags": "b, c",
        "confroute_threshold": "0.5",
        "team": "x",
    }
    context = {"question": "?", "documents": [["Bern is the capital.", 0.5], "Rome is not."]}
    call = read_chat(request(metadata=metadata, confroute_context=context), around=around)
    assert (call.options.route, call.options.threshold, call.options.tags) == (
        "edge",
        0.5,
        {"a", "b", "c", "team=x"},
    )
    assert call.options.context.passages == ("Bern is the capital.", "Rome is not.")
    assert call.sent.fields == {"metadata": {"team": "x"}}


def test_everything_that_is_sent_is_read_for_private_text():
    """Not the messages alone: tools' descriptions, arguments of calls, settings."""
    tool = {"type": "function", "function": {"name": "f", "description": "of Ada"}}
    past = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "f", "arguments": '{"who": "Charl\\u0065s"}'}}],
    }
    call = read_chat(
        {"messages": [past], "tools": [tool], "stop": "Grace", "prediction": {"content": "Alan"}}
    )
    assert {"of Ada", "Charles", "Grace", "Alan"} <= {
        *call.reading.texts,
        *call.messages[0].beside.split('"'),
    }


def test_private_text_stays_wherever_it_stands_in_the_request():
    """In a tool's description, in an argument of an earlier call, in a setting that only some servers know."""
    policy = Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(patterns=("Charles",)),))
    tool = {"type": "function", "function": {"name": "f", "description": "about Charles"}}
    past = {
        "role": "assistant",
        "tool_calls": [{"function": {"name": "f", "arguments": '{"who": "Charl\\u0065s"}'}}],
    }
    question = {"role": "user", "content": "Who?"}
    with ScriptedServer(ScriptedModel([UNSURE])) as server, ScriptedServer(ScriptedModel()) as other:
        edge = OpenAIModel(model="small", base_url=server.url)
        cloud = OpenAIModel(model="large", base_url=other.url)
        router = Router(edge=edge, cloud=cloud, policy=policy)
        for more in (
            {"tools": [tool]},
            {"messages": [past, question]},
            {"messages": [{**question, "name": "Charles"}]},
            {"prediction": {"type": "content", "content": "Charles"}},
            {"metadata": {"author": "Charles"}},
            {"stop": "Charles"},
        ):
            assert answered(router, confroute_route="cloud", **more).decision.private, more
    assert not other.bodies


@pytest.mark.parametrize(
    "settings",
    [
        {"metadata": {"private": "true"}},
        {"tools": [{"type": "custom", "custom": {"name": "records"}}]},
        {"tools": [{"type": "function", "function": {"name": "records"}}], "tool_choice": "none"},
        {"functions": [{"name": "records"}]},
    ],
)
def test_labels_and_tools_of_every_form_are_seen_by_rules(settings):
    """As in LangChain, where metadata are labels; the older form of tools and those of other kinds are tools too."""
    policy = Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(tools=("records",)),))
    with ScriptedServer(ScriptedModel([UNSURE])) as server, ScriptedServer(ScriptedModel()) as other:
        edge = OpenAIModel(model="small", base_url=server.url)
        cloud = OpenAIModel(model="large", base_url=other.url)
        assert answered(Router(edge=edge, cloud=cloud, policy=policy), **settings).decision.private
    assert not other.bodies


@pytest.mark.parametrize(
    "settings",
    [
        {"Confroute_Tags": ["private"]},
        {"confroute-tags": ["private"]},
        {"confroute": {"tags": ["private"]}},
        {"extra_body": {"confroute_tags": ["private"]}},
        {"extra_headers": {"x-confroute-tags": "private"}},
        {"metadata": {"confroute-tags": "private"}},
    ],
)
def test_an_option_in_another_place_or_spelling_is_no_setting_of_the_model(settings):
    """It would be sent to a model that ignores it, and the call go where its caller forbade."""
    with pytest.raises(RequestError, match="is not an option: expected confroute_route"):
        read_chat(request(**settings))


def test_a_tool_of_another_kind_is_not_dropped():
    """A model of texts alone would answer without it."""
    needs = read_chat(request(tools=[{"type": "custom", "custom": {"name": "f"}}])).needs
    assert needs == ("tool calls",)


@pytest.mark.parametrize(
    "settings",
    [
        {"stream": "false"},
        {"stream_options": "include_usage"},
        {"logprobs": "no"},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
    ],
)
def test_values_of_other_types_are_refused_before_anything_is_paid(settings):
    """A server would find them out while it writes the answer."""
    with pytest.raises(RequestError, match="expected"):
        read_chat({**request(), **settings})


@pytest.mark.parametrize("choice", ["auto", "none"])
def test_a_draft_may_ask_for_help(calling, choice):
    """By the policy's tool, which only a draft is offered, beside the caller's and where calls are allowed."""
    call = {"id": "1", "type": "function", "function": {"name": HelpTool().name, "arguments": "{}"}}
    calling({"role": "assistant", "content": None, "tool_calls": [call]})
    policy = replace(POLICY, ask_for_help=HelpTool())
    with ScriptedServer(ScriptedModel([SURE])) as server, ScriptedServer(ScriptedModel([SURE])) as other:
        edge = OpenAIModel(model="small", base_url=server.url)
        cloud = OpenAIModel(model="large", base_url=other.url)
        routed = answered(Router(edge=edge, cloud=cloud, policy=policy), tools=[WEATHER], tool_choice=choice)
    offered = [[tool["function"]["name"] for tool in one.bodies[0]["tools"]] for one in (server, other)]
    if choice == "auto":
        assert (routed.decision.stage, routed.decision.route) == ("asked", "cloud")
    assert offered == [["weather", *([HelpTool().name] if choice == "auto" else [])], ["weather"]]


@pytest.mark.parametrize(
    "message",
    [
        {"tool_calls": [{"id": "1", "type": "custom", "custom": {"name": "f", "input": "x"}}]},
        {"function_call": {"name": "f", "arguments": "{}"}},
        {"refusal": "No."},
        {"audio": {"id": "a", "data": "AA=="}},
    ],
)
def test_an_answer_without_words_is_an_answer(calling, message):
    """It is paid for; what it holds reaches the caller."""
    calling({"role": "assistant", "content": None, **message})
    with ScriptedServer(ScriptedModel([SURE])) as server:
        cloud = OpenAIModel(model="large", base_url=server.url)
        router = Router(edge=ScriptedModel(), cloud=cloud, policy=POLICY, cloud_limits=ONCE)
        routed = answered(router, confroute_route="cloud")
    assert message.items() <= routed.generation.raw.items()
