"""Tools and structured answers of real servers: what comes back, with which evidence, and what a server refuses."""

import json
import urllib.error

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel

from confroute import Cascade, Prefix, Threshold, TokenLogprob, record
from confroute.errors import TierError

pytestmark = pytest.mark.slow

ANY = 1e9
# Never commits before the answer is whole.
WHOLE = Prefix(commit=Threshold(value=ANY), cut=Threshold(value=ANY), tokens=99, least=99)


ASKED = "What is the capital of France? Answer in JSON."


def capital(country: str) -> str:
    """Look up the capital of a country."""
    raise AssertionError("no test runs the tool")


class City(BaseModel):
    """A city."""

    city: str


def turns():
    """Two calls that were answered, which the small model goes on with, and a question."""
    for number, country in enumerate(("Spain", "Italy")):
        yield "user", f"What is the capital of {country}?", None
        yield "call", country, f"c{number}"
        yield "result", "It is known.", f"c{number}"
    yield "user", "What is the capital of France?", None


def for_langchain():
    """The conversation in LangChain's messages."""
    made = {
        "user": lambda text, _: HumanMessage(text),
        "call": lambda country, number: AIMessage(
            "", tool_calls=[{"name": "capital", "args": {"country": country}, "id": number}]
        ),
        "result": lambda text, number: ToolMessage(text, tool_call_id=number),
    }
    return [made[kind](text, number) for kind, text, number in turns()]


def for_llamaindex():
    """The conversation in LlamaIndex's messages."""

    def call(country, number):
        function = {"name": "capital", "arguments": json.dumps({"country": country})}
        calls = [{"id": number, "type": "function", "function": function}]
        return ChatMessage(role="assistant", content="", additional_kwargs={"tool_calls": calls})

    made = {
        "user": lambda text, _: ChatMessage(role="user", content=text),
        "call": call,
        "result": lambda text, number: ChatMessage(
            role="tool", content=text, additional_kwargs={"tool_call_id": number}
        ),
    }
    return [made[kind](text, number) for kind, text, number in turns()]


@pytest.fixture(params=["sync", "stream"])
def streamed(request):
    """Whether the answer is read as a stream."""
    return request.param == "stream"


def by_langchain(client, server, streamed, policy):
    """The calls of the answer and the decision."""
    router = client(server, policy).router.bind_tools([capital])
    with record() as decisions:
        if streamed:
            chunks = list(router.stream(for_langchain()))
            answer = sum(chunks[1:], chunks[0])
        else:
            answer = router.invoke(for_langchain())
    return [(call["name"], call["args"]) for call in answer.tool_calls], decisions[0]


def by_llamaindex(client, server, streamed, policy):
    """The calls of the answer and the decision."""
    llm = client(server, policy).router
    tools = [FunctionTool.from_defaults(fn=capital)]
    with record() as decisions:
        if streamed:
            *_, answer = llm.stream_chat_with_tools(tools, chat_history=for_llamaindex())
        else:
            answer = llm.chat_with_tools(tools, chat_history=for_llamaindex())
    calls = llm.get_tool_calls_from_response(answer, error_on_no_tool_call=False)
    return [(call.tool_name, call.tool_kwargs) for call in calls], decisions[0]


BY = {"langchain": by_langchain, "llamaindex": by_llamaindex}


@pytest.mark.parametrize("client", BY, indirect=True)
def test_tools_are_called_and_measured(llamacpp, client, streamed):
    """A call of llama.cpp's is as measured as words, the whole of it, in answers that are not written for the caller."""
    calls, decision = BY[client.name](client, llamacpp, streamed, Cascade.of(TokenLogprob(), ANY))
    assert calls == [("capital", {"country": "France"})]
    assert (decision.route, decision.signal, decision.skipped) == ("edge", "token_logprob", {})
    assert 0 < decision.uncertainty < 1


@pytest.mark.parametrize("client", BY, indirect=True)
def test_a_server_that_reads_no_tool_calls_leaves_them_to_the_cloud(transformers_serve, client, streamed):
    """`transformers serve` gives what the model wrote: here nothing, since the model's own template leaves calls out."""
    _, decision = BY[client.name](client, transformers_serve, streamed, Cascade.of(TokenLogprob(), ANY))
    assert (decision.route, decision.stage) == ("cloud", "fallback")
    assert "edge failed (TierError)" in decision.reason
    assert decision.steps[0].usage.output_tokens == 1


@pytest.mark.parametrize("client", BY, indirect=True)
def test_tool_calls_are_drafted_whole_where_streams_of_them_are_refused_evidence(llamacpp, client):
    """llama.cpp refuses log-probabilities of a stream with tools; a draft with tools is never streamed, so they are there."""
    schema = {"type": "object", "properties": {"country": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "capital", "parameters": schema}}
    with pytest.raises(urllib.error.HTTPError, match="400") as caught:
        llamacpp.post(
            messages=[{"role": "user", "content": "Hello"}], tools=[tool], stream=True, logprobs=True
        )
    with caught.value as refused:
        assert "logprobs is not supported with tools + stream" in refused.read().decode()
    policy = Cascade(gates=Cascade.of(TokenLogprob(), ANY).gates, prefix=WHOLE)
    calls, decision = BY[client.name](client, llamacpp, True, policy)
    assert calls == [("capital", {"country": "France"})]
    assert (decision.route, decision.signal, decision.skipped) == ("edge", "token_logprob", {})


def structured_by_langchain(client, server, **how):
    """A value of the schema and the decision."""
    router = client(server, Cascade.of(TokenLogprob(), ANY)).router
    with record() as decisions:
        value = router.with_structured_output(City, **how).invoke(ASKED)
    return value, decisions[0]


@pytest.mark.parametrize("client", ["langchain"], indirect=True)
def test_a_schema_binds_llamacpp_and_its_values_are_measured(llamacpp, client):
    """Its grammar writes the object, and the value's own tokens are found in it."""
    value, decision = structured_by_langchain(client, llamacpp, method="json_schema")
    assert value == City(city="Paris")
    assert (decision.route, decision.signal) == ("edge", "token_logprob")
    assert set(decision.signals["token_logprob"].details["fields"]) == {"city"}


@pytest.mark.parametrize("client", ["langchain"], indirect=True)
def test_a_schema_that_is_ignored_leaves_a_draft_without_evidence(transformers_serve, client):
    """`transformers serve` ignores `response_format` and log-probabilities alike: the cloud fills the schema."""
    value, decision = structured_by_langchain(client, transformers_serve, method="json_schema")
    assert (value, decision.route, decision.stage) == (City(city="text"), "cloud", "no_signal")
    assert "returned no log-probabilities" in decision.skipped["token_logprob"]


@pytest.mark.parametrize("client", ["langchain"], indirect=True)
def test_a_forced_tool_is_not_called(server, client):
    """Both servers ignore a tool that is forced by its name: an answer in words is not kept as the value."""
    _, decision = structured_by_langchain(client, server, method="function_calling")
    assert (decision.route, decision.stage) == ("cloud", "draft")
    assert "there is no structured value" in decision.reason


@pytest.mark.parametrize("client", ["llamaindex"], indirect=True)
def test_an_answer_without_the_schema_s_value_is_never_kept(server, client):
    """LlamaIndex forces the tool by its name too; the error says what became of the draft, and that the cloud failed."""
    llm = client(server, Cascade.of(TokenLogprob(), ANY)).router
    rejected = "after the draft was rejected: edge answer cannot be used: no valid City"
    with pytest.raises(TierError, match=rejected), record() as decisions:
        llm.as_structured_llm(City).chat([ChatMessage(role="user", content=ASKED)])
    assert [decision.stage for decision in decisions] == ["failed"]
