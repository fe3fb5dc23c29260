"""A local model behind OpenAI's format: what the real client reads is what the model says."""

import json

import openai
import pytest

from confroute.models.local import LocalModel
from confroute.testing import ModelServer
from confroute.testing.model_server import calls_in, messages_of
from confroute.types import Message

NAME = "smollm2-135m"
ASKED = {"model": NAME, "messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 6}
TOOL = {
    "type": "function",
    "function": {"name": "fare", "parameters": {"type": "object", "properties": {"to": {"type": "string"}}}},
}


@pytest.fixture(scope="module")
def server():
    with ModelServer(NAME) as running:
        yield running


@pytest.fixture
def client(server):
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=60) as made:
        yield made


def local(**fields):
    """The same model without a server."""
    (said,) = LocalModel.load(NAME).generate([Message(role="user", text="Name a colour.")], **fields)
    return said


def test_whole_answers_are_the_models_own(client):
    """Text, tokens, log-probabilities, alternatives and usage."""
    said, direct = client.chat.completions.create(**ASKED, logprobs=True, top_logprobs=2), local(max_tokens=6)
    (choice,) = said.choices
    assert choice.message.content == direct.text
    assert [one.token for one in choice.logprobs.content] == list(direct.tokens)
    assert [one.logprob for one in choice.logprobs.content] == pytest.approx(direct.logprobs)
    assert len(choice.logprobs.content[0].top_logprobs) == 2
    assert said.usage.completion_tokens == direct.usage.output_tokens
    assert client.chat.completions.create(**ASKED).choices[0].logprobs is None


def test_streams_bring_tokens_as_they_are_made(client):
    """Several events, together the whole answer; the end says why, and what it cost."""
    events = list(client.chat.completions.create(**ASKED, stream=True, logprobs=True))
    texts = [event.choices[0].delta.content for event in events if event.choices]
    direct = local(max_tokens=6)
    assert "".join(filter(None, texts)) == direct.text
    assert len(texts) > 2
    assert events[-2].choices[0].finish_reason == direct.finish
    assert events[-1].usage.completion_tokens == direct.usage.output_tokens


def test_samples_differ(client):
    """Several answers of one request."""
    said = client.chat.completions.create(**ASKED, n=3, temperature=1.5, seed=1)
    assert len({choice.message.content for choice in said.choices}) > 1


def test_a_reader_that_goes_leaves_the_server_alive(client):
    """The next request is answered."""
    with client.chat.completions.create(**{**ASKED, "max_tokens": 200}, stream=True) as events:
        next(iter(events))
    assert client.chat.completions.create(**ASKED).choices[0].message.content


def test_refusals_say_why(client):
    """A model that is not there, and what is not served."""
    with pytest.raises(openai.NotFoundError, match="this server has smollm2-135m"):
        client.chat.completions.create(**{**ASKED, "model": "other"})
    with pytest.raises(openai.BadRequestError, match="response_format is not served"):
        client.chat.completions.create(**ASKED, response_format={"type": "json_object"})


def test_tools_are_told_and_calls_are_read():
    """History as text, the tools in the system turn, calls in the form that clients know."""
    call = {"id": "1", "type": "function", "function": {"name": "fare", "arguments": '{"to": "Holm"}'}}
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What does it cost?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "14"},
    ]
    told = messages_of({"messages": turns, "tools": [TOOL], "tool_choice": "required"})
    assert [message.role for message in told] == ["system", "user", "assistant", "tool"]
    assert told[0].text.startswith("Be brief.")
    assert '"name": "fare"' in told[0].text
    assert "must call" in told[0].text
    (again,) = calls_in(told[2].text, [TOOL])
    assert again["function"] == {"name": "fare", "arguments": '{"to": "Holm"}'}


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ('```json\n{"name": "fare", "arguments": {"to": "Holm", "more": {"a": 1}}}\n```', 1),
        ('{"name": "other", "arguments": {}}', 0),
        ('<tool_call>\n{"name": "other", "arguments": {}}\n</tool_call>', 1),
        ('<tool_call>{"name": "fare", "arguments": {"a": {}}}</tool_call> <tool_call>{"name": "fare"}', 2),
        ('<tool_call>{"name": "fare", </tool_call>', 0),
        ('["fare"]', 0),
        ("It costs 14.", 0),
    ],
)
def test_only_calls_are_calls(text, calls):
    """Between tags any name, bare only a known one; what cannot be read stays text."""
    found = calls_in(text, [TOOL])
    assert len(found) == calls
    assert all(json.loads(call["function"]["arguments"]) is not None for call in found)


def test_a_model_without_tools_still_answers(client):
    """In words, whole or streamed."""
    whole = client.chat.completions.create(**ASKED, tools=[TOOL])
    events = list(client.chat.completions.create(**ASKED, tools=[TOOL], stream=True))
    assert whole.choices[0].message.content == events[0].choices[0].delta.content
    assert events[-1].usage.total_tokens == whole.usage.total_tokens
