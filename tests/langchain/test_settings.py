"""Arguments of a call reach the models that take them, in the form in which they take them."""

from __future__ import annotations

import json

import httpx
import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI

from confroute import Cascade, SelfConsistency, TokenLogprob
from confroute.errors import RequestError
from langchain_confroute import ChatConfRoute
from langchain_confroute.settings import own_settings
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE, forced


@tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


OPENAI = ChatOpenAI(model="m", api_key="k")
OLLAMA = ChatOllama(model="m")
ANTHROPIC = ChatAnthropic(model="m", api_key="k")
CACHE = {"cache_control": {"type": "ephemeral"}}


@pytest.mark.parametrize(
    ("chat", "given", "passed", "fields"),
    [
        (OPENAI, CACHE, {}, {}),
        (OLLAMA, CACHE, {}, {}),
        (ANTHROPIC, CACHE, CACHE, {}),
        (OPENAI, {"max_tokens": 5, "user": "u", "parallel_tool_calls": False}, ..., {}),
        (OLLAMA, {"max_tokens": 5}, {}, {"num_predict": 5}),
        (OLLAMA, {"temperature": 0.2, "top_p": 0.5}, {}, {"temperature": 0.2, "top_p": 0.5}),
        (OLLAMA, {"parallel_tool_calls": False, "user": "u", "service_tier": "flex"}, {}, {}),
        (OLLAMA, {"format": "json", "options": {"x": 1}, "reasoning": True, "strict": True}, ..., {}),
        (ANTHROPIC, {"parallel_tool_calls": False, "max_tokens": 5, "thinking": {}}, ..., {}),
        (ANTHROPIC, {"prompt_cache_key": "x", "logprobs": True}, {}, {}),
        (ScriptedChat.of("x"), {"anything": 1}, ..., {}),
        (ScriptedChat.of("x"), CACHE, {}, {}),
        (None, CACHE, ..., {}),
    ],
)
def test_own_settings(chat, given, passed, fields):
    """As arguments, as fields of a copy, or not at all."""
    assert own_settings(given, chat) == (given if passed is ... else passed, fields)


class Served:
    """An Ollama server that keeps what it is sent."""

    def __init__(self):
        self.bodies = []

    def __call__(self, request):
        self.bodies.append(json.loads(request.content))
        message = {"role": "assistant", "content": "4"}
        line = {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": True}
        line |= {"done_reason": "stop", "prompt_eval_count": 5, "eval_count": 1}
        scored = {"logprobs": [{"token": "4", "logprob": -0.01}]}
        return httpx.Response(200, text=json.dumps({**line, **scored}) + "\n")


def ollama(served):
    return ChatOllama(model="small", client_kwargs={"transport": httpx.MockTransport(served)})


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"max_tokens": 5}, {"num_predict": 5}),
        ({"temperature": 0.2}, {"temperature": 0.2}),
        ({"parallel_tool_calls": False}, {}),
        (CACHE, {}),
    ],
)
def test_ollama_as_an_edge(given, sent):
    """Every call answered there, with the setting where Ollama has one; bound with tools, too."""
    served = Served()
    edge = ollama(served)
    router = ChatConfRoute(edge=edge, cloud=ScriptedChat.of("four"), policy=Cascade.of(TokenLogprob(), 0.25))
    answers = [router.invoke("q", **given), router.invoke("q", forced("edge"), **given)]
    answers += [
        router.bind_tools([add], **given).invoke("q"),
        router.bind_tools([add]).bind(**given).invoke("q"),
    ]
    assert [answer.response_metadata["confroute"]["route"] for answer in answers] == ["edge"] * 4
    assert all(body["options"] == sent for body in served.bodies)
    assert edge.num_predict is None


def test_samples_keep_their_temperature():
    """Whatever the caller sets for the answer."""
    served = Served()
    router = ChatConfRoute(
        edge=ollama(served),
        cloud=ScriptedChat.of("four"),
        policy=Cascade.of(SelfConsistency(n=2, step=2), 0.4),
    )
    router.invoke("2 + 2?", temperature=0.1, max_tokens=5)
    options = [body["options"] for body in served.bodies]
    assert options == [{"temperature": 0.1, "num_predict": 5}, *[{"temperature": 0.7, "num_predict": 5}] * 2]


@pytest.mark.parametrize("how", ["call", "bind", "bind_tools"])
def test_an_argument_that_no_model_takes(how):
    """It is named, before anything is sent."""
    router = ChatConfRoute(edge=OLLAMA, cloud=ANTHROPIC, edge_limits=ONCE, cloud_limits=ONCE)
    given = {"temprature": 0.3}
    with pytest.raises(
        RequestError, match=r"temprature: neither edge \(ChatOllama\) nor cloud \(ChatAnthropic\)"
    ):
        {
            "call": lambda: router.invoke("q", **given),
            "bind": lambda: router.bind(**given).invoke("q"),
            "bind_tools": lambda: router.bind_tools([add], **given),
        }[how]()


def test_an_agent_with_prompt_caching():
    """Anthropic's middleware sets `cache_control` on every call, also where the edge is another provider's."""
    from langchain.agents import create_agent
    from langchain_anthropic.middleware import AnthropicPromptCachingMiddleware

    from langchain_confroute.middleware import ConfRouteMiddleware

    served = Served()
    routed = ConfRouteMiddleware(ollama(served), policy=Cascade.of(TokenLogprob(), 0.25))
    for tools in ([], [add]):
        agent = create_agent(ANTHROPIC, tools, middleware=[AnthropicPromptCachingMiddleware(), routed])
        answer = agent.invoke({"messages": [("user", "q")]})["messages"][-1]
        assert answer.response_metadata["confroute"]["route"] == "edge"
