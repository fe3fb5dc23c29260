"""A local model behind OpenAI's format: a real client reads exactly what the model generates."""

import json

import openai
import pytest

from confroute.models.local import LocalModel
from confroute.testing import ModelServer
from confroute.testing.model_server import conversation_of, parse_tool_calls
from confroute.types import Message

NAME = "smollm2-135m"
REQUEST = {"model": NAME, "messages": [{"role": "user", "content": "Name a colour."}], "max_tokens": 6}
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
    with openai.OpenAI(base_url=server.url, api_key="none", max_retries=0, timeout=60) as real:
        yield real


def local(**fields):
    """The answer of the same model without a server."""
    (answer,) = LocalModel.load(NAME).generate([Message(role="user", text="Name a colour.")], **fields)
    return answer


def test_whole_answers_are_the_models_own(client):
    """Text, tokens, log-probabilities, alternatives and usage."""
    served = client.chat.completions.create(**REQUEST, logprobs=True, top_logprobs=2)
    direct = local(max_tokens=6)
    (choice,) = served.choices
    assert choice.message.content == direct.text
    assert [one.token for one in choice.logprobs.content] == list(direct.tokens)
    assert [one.logprob for one in choice.logprobs.content] == pytest.approx(direct.logprobs)
    assert len(choice.logprobs.content[0].top_logprobs) == 2
    assert served.usage.completion_tokens == direct.usage.output_tokens
    assert client.chat.completions.create(**REQUEST).choices[0].logprobs is None


def test_streams_send_tokens_as_they_are_generated(client):
    """There are several events, together the whole answer; the last ones have finish reason and usage."""
    events = list(client.chat.completions.create(**REQUEST, stream=True, logprobs=True))
    texts = [event.choices[0].delta.content for event in events if event.choices]
    direct = local(max_tokens=6)
    assert "".join(filter(None, texts)) == direct.text
    assert len(texts) > 2
    assert events[-2].choices[0].finish_reason == direct.finish
    assert events[-1].usage.completion_tokens == direct.usage.output_tokens


def test_samples_differ(client):
    """The answers to one request with `n` differ."""
    served = client.chat.completions.create(**REQUEST, n=3, temperature=1.5, seed=1)
    assert len({choice.message.content for choice in served.choices}) > 1


def test_the_server_survives_a_client_that_disconnects(client):
    """The next request is answered."""
    with client.chat.completions.create(**{**REQUEST, "max_tokens": 200}, stream=True) as events:
        next(iter(events))
    assert client.chat.completions.create(**REQUEST).choices[0].message.content


def test_refusals_say_why(client):
    """An unknown model, and an option that is not served."""
    with pytest.raises(openai.NotFoundError, match="this server has smollm2-135m"):
        client.chat.completions.create(**{**REQUEST, "model": "other"})
    with pytest.raises(openai.BadRequestError, match="response_format is not served"):
        client.chat.completions.create(**REQUEST, response_format={"type": "json_object"})


def test_tools_are_described_and_calls_are_parsed():
    """The history becomes text, the tools go into the system message, calls come in the clients' format."""
    call = {"id": "1", "type": "function", "function": {"name": "fare", "arguments": '{"to": "Holm"}'}}
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "What does it cost?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "14"},
    ]
    messages = conversation_of({"messages": turns, "tools": [TOOL], "tool_choice": "required"})
    assert [message.role for message in messages] == ["system", "user", "assistant", "tool"]
    assert messages[0].text.startswith("Be brief.")
    assert '"name": "fare"' in messages[0].text
    assert "must call" in messages[0].text
    (parsed,) = parse_tool_calls(messages[2].text, [TOOL])
    assert parsed["function"] == {"name": "fare", "arguments": '{"to": "Holm"}'}


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
def test_what_counts_as_a_tool_call(text, calls):
    """Between tags any name does, a bare object only with a known name; what cannot be parsed stays text."""
    parsed = parse_tool_calls(text, [TOOL])
    assert len(parsed) == calls
    assert all(json.loads(call["function"]["arguments"]) is not None for call in parsed)


def test_a_model_that_calls_no_tool_answers_in_words(client):
    """Whole or streamed."""
    whole = client.chat.completions.create(**REQUEST, tools=[TOOL])
    events = list(client.chat.completions.create(**REQUEST, tools=[TOOL], stream=True))
    assert whole.choices[0].message.content == events[0].choices[0].delta.content
    assert events[-1].usage.total_tokens == whole.usage.total_tokens
