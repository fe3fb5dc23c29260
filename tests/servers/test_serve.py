"""`confroute serve` before a real server, asked by OpenAI's own client."""

from __future__ import annotations

import json

import openai
import pytest

from confroute import Cascade, Router, TokenLogprob
from confroute.models.openai import OpenAIModel
from confroute.serve import make_app
from confroute.testing import ScriptedModel
from tests.serve.conftest import serving

pytestmark = pytest.mark.slow

ASKED = [{"role": "user", "content": "What is the capital of France?"}]
CAPITAL = {
    "type": "function",
    "function": {
        "name": "capital",
        "description": "Look up the capital of a country.",
        "parameters": {
            "type": "object",
            "properties": {"country": {"type": "string"}},
            "required": ["country"],
        },
    },
}
CITY = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture(scope="module")
def ask(llamacpp):
    """Asks a server whose edge is llama.cpp's, and keeps whatever that can be measured on."""
    router = Router(
        edge=OpenAIModel(model=llamacpp.model, base_url=llamacpp.url),
        cloud=ScriptedModel(["The cloud answers."], name="large"),
        policy=Cascade.of(TokenLogprob(), 1e9),
    )
    with (
        serving(make_app(router)) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        given = {"model": "confroute", "messages": ASKED, "temperature": 0, "max_tokens": 40}
        yield lambda **settings: client.chat.completions.create(**{**given, **settings})


def turns():
    """Two calls that were answered, which the small model goes on with, and a question."""
    for number, country in enumerate(("Spain", "Italy")):
        function = {"name": "capital", "arguments": json.dumps({"country": country})}
        yield {"role": "user", "content": f"What is the capital of {country}?"}
        yield {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": f"c{number}", "type": "function", "function": function}],
        }
        yield {"role": "tool", "tool_call_id": f"c{number}", "content": "It is known."}
    yield ASKED[0]


def decided(answer):
    """Where it came from, and on what."""
    decision = answer.metadata["confroute"]
    return decision["route"], decision["stage"]


@pytest.mark.parametrize("route", ["auto", "edge"])
def test_text_whole_and_streamed(ask, route):
    """The same text, by the same model; log-probabilities are the server's."""
    forced = {"extra_body": {"confroute_route": route}}
    whole = ask(logprobs=True, top_logprobs=2, stop=["zzz"], seed=1, **forced)
    events = [*ask(stream=True, stream_options={"include_usage": True}, seed=1, **forced)]
    text = whole.choices[0].message.content
    assert "Paris" in text
    assert "".join(one.choices[0].delta.content or "" for one in events if one.choices) == text
    assert decided(whole) == decided(events[-2]) == ("edge", "draft" if route == "auto" else "forced")
    assert whole.usage.completion_tokens == events[-1].usage.completion_tokens > 0
    scored = whole.choices[0].logprobs.content
    assert "".join(one.token for one in scored).startswith(text[:10])
    assert all(len(one.top_logprobs) == 2 for one in scored)


@pytest.mark.parametrize("route", ["auto", "edge"])
def test_a_tool_is_called(ask, route):
    """Its name and its arguments, whole and from a stream's parts."""
    settings = {"tools": [CAPITAL], "messages": [*turns()], "extra_body": {"confroute_route": route}}
    whole = ask(**settings)
    (call,) = whole.choices[0].message.tool_calls
    parts = [
        part.function
        for event in ask(stream=True, **settings)
        for part in (event.choices[0].delta.tool_calls or () if event.choices else ())
    ]
    assert decided(whole)[0] == "edge"
    assert (call.function.name, whole.choices[0].finish_reason) == ("capital", "tool_calls")
    assert set(json.loads(call.function.arguments)) == {"country"}
    assert parts[0].name == "capital"
    assert json.loads("".join(part.arguments or "" for part in parts)) == json.loads(call.function.arguments)


def test_a_value_fits_its_schema(ask):
    """As the server's grammar makes it, and as the router checks it."""
    answer = ask(response_format=CITY)
    assert decided(answer) == ("edge", "draft")
    assert set(json.loads(answer.choices[0].message.content)) == {"city"}
