"""Models that are asked without a host framework: servers, functions, chat models of both hosts, scripts."""

from __future__ import annotations

import asyncio
import gc

import pytest

from confroute.errors import MissingExtraError, ModelError, PolicyError
from confroute.models.openai import OpenAIModel
from confroute.models.provider_answers import ScoredTokens
from confroute.models.resolution import resolve
from confroute.models.text_model import (
    FunctionModel,
    Piece,
    Pieces,
    StreamingTextModel,
    TextModel,
    piece_logprobs,
)
from confroute.testing import Reply, ScriptedModel, ScriptedServer, wire
from confroute.types import Generation, Message, Usage

ASKED = (Message(role="user", text="Capital of France?"),)


def test_openai_compatible_server_answers_with_logprobs(openai_server):
    """Real HTTP: temperature, length and messages arrive, text, log-probabilities and usage come back."""
    model = OpenAIModel(model="small", base_url=openai_server.url)
    (answer,) = model.generate(ASKED, temperature=0.3, max_tokens=9, top_logprobs=2)
    assert (answer.text, answer.logprobs, answer.usage.input_tokens) == ("Paris.", (-0.01,), 7)
    (body,) = openai_server.bodies
    assert (body["temperature"], body["max_tokens"], body["logprobs"]) == (0.3, 9, True)
    assert body["top_logprobs"] == 2
    assert body["messages"] == [{"role": "user", "content": "Capital of France?"}]


def test_server_that_returns_one_sample_a_request_is_asked_again(openai_server):
    """Three samples of a server that ignores `n` take three requests, and all three are there."""
    texts = iter(["a", "b", "c"])
    openai_server.respond = lambda body: (next(texts), -0.1)
    answers = OpenAIModel(model="small", base_url=openai_server.url).generate(ASKED, n=3, temperature=1.0)
    assert [one.text for one in answers] == ["a", "b", "c"]
    assert [body.get("n") for body in openai_server.bodies] == [3, 2, None]


def refuse_several(body):
    """As llama.cpp refuses more answers than it has slots."""
    if body.get("n", 1) == 1:
        return None
    message = f"Field 'n': Value must be between 1 <= value <= 1, but got {body['n']}"
    return 400, {"code": 400, "message": message, "type": "invalid_request_error"}


@pytest.mark.parametrize("form", ["sync", "async"])
async def test_server_that_refuses_several_answers_at_once_is_asked_for_each(openai_server, form):
    """One refused request, then one for each answer."""
    openai_server.refuse = refuse_several
    texts = iter(["a", "b", "c"])
    openai_server.respond = lambda body: (next(texts), -0.1)
    model = OpenAIModel(model="small", base_url=openai_server.url)
    drawn = model.generate if form == "sync" else model.agenerate
    answers = drawn(ASKED, n=3, temperature=1.0)
    answers = answers if form == "sync" else await answers
    assert [one.text for one in answers] == ["a", "b", "c"]
    assert [body.get("n") for body in openai_server.bodies] == [3, None, None, None]


@pytest.mark.parametrize(("status", "requests"), [(400, 2), (401, 1), (429, 1), (500, 1)])
def test_other_errors_of_a_request_for_several_answers_are_raised(openai_server, status, requests):
    """What the server refuses for one answer too was not refused for their number."""
    openai_server.status = status
    model = OpenAIModel(model="small", base_url=openai_server.url)
    with pytest.raises(Exception, match=str(status)) as caught:
        model.generate(ASKED, n=3)
    assert caught.value.status_code == status
    assert len(openai_server.bodies) == requests


async def test_async_openai_gives_the_same(openai_server):
    """The async form sends the same request and reads the same answer."""
    model = OpenAIModel(model="small", base_url=openai_server.url)
    assert await model.agenerate(ASKED) == model.generate(ASKED)
    (answer,) = await model.agenerate(ASKED, logprobs=False)
    assert (answer.text, answer.logprobs) == ("Paris.", None)
    assert openai_server.bodies[0] == openai_server.bodies[1]
    assert "logprobs" not in openai_server.bodies[2]


def test_what_the_caller_leaves_out_is_the_model_s_own(openai_server):
    """None for temperature or length; a model that may not be told its temperature is not."""
    own = OpenAIModel(model="m", base_url=openai_server.url, temperature=0.4, max_tokens=7)
    silent = OpenAIModel(model="m", base_url=openai_server.url, temperature=None, max_tokens=None)
    for model in (own, silent):
        model.generate(ASKED, temperature=None, max_tokens=None)
    first, second = openai_server.bodies
    assert (first["temperature"], first["max_tokens"]) == (0.4, 7)
    assert not {"temperature", "max_tokens", "max_completion_tokens"} & set(second)


async def test_a_server_is_read_in_pieces():
    """Text, log-probabilities, finish and usage, which together are the whole answer."""
    with ScriptedServer(ScriptedModel(["It is Paris"])) as server:
        model = OpenAIModel(model="small", base_url=server.url)
        (whole,) = model.generate(ASKED)
        for streamed in ([*model.stream(ASKED)], [piece async for piece in model.astream(ASKED)]):
            pieces = Pieces()
            for piece in streamed:
                pieces.add(piece)
            assert pieces.whole(model="small") == whole
            assert [piece.text for piece in streamed if piece.text] == ["It", " is", " Paris"]
    assert server.bodies[-1]["stream_options"] == {"include_usage": True}


async def test_a_stream_that_is_left_ends_on_the_server(until):
    """Or it would go on writing an answer that nobody reads."""
    with ScriptedServer(ScriptedModel(["word " * 50]), pause_s=0.02) as server:
        model = OpenAIModel(model="small", base_url=server.url)
        stream = model.stream(ASKED)
        next(stream)
        stream.close()
        astream = model.astream(ASKED)
        await anext(astream)
        await astream.aclose()
        await until(lambda: server.abandoned == 2)


@pytest.fixture
def connections(monkeypatch):
    """The clients' ends of connections as a server sees them: those that were opened, and those that ended."""
    opened, ended = [], []
    handle = wire.RequestHandler.handle

    def counted(handler):
        opened.append(handler.client_address)
        handle(handler)
        ended.append(handler.client_address)

    monkeypatch.setattr(wire.RequestHandler, "handle", counted)
    gc.disable()
    yield opened, ended
    gc.enable()


def test_clients_end_with_their_event_loop(openai_server, connections, until):
    """One per loop, which keeps its connections, and the server sees them end with it, without a collector."""
    from confroute.models import openai

    opened, ended = connections
    model = OpenAIModel(model="small", base_url=openai_server.url)

    async def twice():
        await model.agenerate(ASKED)
        (first,) = openai._async_clients.values()
        await asyncio.gather(model.agenerate(ASKED), model.agenerate(ASKED))
        assert [*openai._async_clients.values()] == [first]

    for loops in (1, 2):
        asyncio.run(twice())
        assert openai._async_clients == {}
        assert len(opened) == 2 * loops, "the first is used again by one of the two calls at once"
        asyncio.run(until(lambda: sorted(ended) == sorted(opened)))


@pytest.mark.parametrize(
    ("base_url", "remote"),
    [(None, True), ("https://api.example.com/v1", True), ("http://127.0.0.1:8080/v1", False)],
)
def test_only_a_loopback_server_is_not_remote(base_url, remote, monkeypatch):
    """What may be sent to other machines counts as remote unless the URL says otherwise, given or in the environment."""
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert OpenAIModel(model="m", base_url=base_url).remote is remote
    if base_url is not None:
        monkeypatch.setenv("OPENAI_BASE_URL", base_url)
        assert OpenAIModel(model="m").remote is remote


def test_a_key_is_wanted_by_openai_only(openai_server, monkeypatch):
    """A server of one's own needs none; without one, OpenAI's is not asked and the error says what to set."""
    monkeypatch.delenv("OPENAI_API_KEY")
    assert OpenAIModel(model="m", base_url=openai_server.url, timeout_s=9).generate(ASKED)[0].text == "Paris."
    assert OpenAIModel(model="m", timeout_s=8).generate(ASKED)[0].text == "Paris."
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(ModelError, match="set OPENAI_API_KEY, or give a base URL"):
        OpenAIModel(model="m", timeout_s=7).generate(ASKED)


async def test_chat_models_of_both_hosts_are_taken_as_they_are():
    """A LangChain chat model and a LlamaIndex LLM answer through the same interface, and are remote."""
    from langchain_confroute.testing import ScriptedChat
    from llamaindex_confroute.testing import ScriptedLLM

    for model in (
        resolve(ScriptedChat(script=ScriptedModel(["Paris"], samples=["Paris", "Lyon"]))),
        resolve(ScriptedLLM(model=ScriptedModel(["Paris"], samples=["Paris", "Lyon"]))),
    ):
        assert isinstance(model, TextModel)
        assert model.remote
        (answer,) = model.generate(ASKED)
        assert (answer.text, answer.logprobs) == ("Paris", (-0.05,))
        assert {one.text for one in await model.agenerate(ASKED, n=2, temperature=0.7)} == {"Paris", "Lyon"}


async def test_chat_models_of_both_hosts_stream():
    """Text, log-probabilities and usage, chunk by chunk."""
    from langchain_confroute.testing import ScriptedChat
    from llamaindex_confroute.testing import ScriptedLLM

    for model in (
        resolve(ScriptedChat(script=ScriptedModel(["It is Paris"]))),
        resolve(ScriptedLLM(model=ScriptedModel(["It is Paris"]))),
    ):
        assert isinstance(model, StreamingTextModel)
        for streamed in ([*model.stream(ASKED)], [piece async for piece in model.astream(ASKED)]):
            pieces = Pieces()
            for piece in streamed:
                pieces.add(piece)
            whole = pieces.whole(model="m")
            assert (whole.text, whole.logprobs, whole.usage.output_tokens) == ("It is Paris", (-0.05,) * 3, 3)
            assert len([piece for piece in streamed if piece.text]) == 3


async def test_a_temperature_reaches_models_that_take_it_as_a_setting_only():
    """Such a LlamaIndex LLM ignores it as an argument: its samples would all be the greedy answer."""
    from llama_index.core.llms import CompletionResponse, MockLLM

    heard = []

    class BySetting(MockLLM):
        temperature: float = 0.0
        seed: int = 7

        def complete(self, prompt, formatted=False, **kwargs):
            heard.append((self.temperature, self.seed))
            return CompletionResponse(text="Paris")

    llm = BySetting()
    model = resolve(llm)
    for answers in (
        model.generate(ASKED, n=2, temperature=0.7),
        await model.agenerate(ASKED, n=2, temperature=0.7),
    ):
        assert [one.text for one in answers] == ["Paris", "Paris"]
    assert heard == [(0.7, 8), (0.7, 9)] * 2
    assert (llm.temperature, llm.seed) == (0.0, 7)
    model.generate(ASKED, temperature=None)
    assert heard[-1] == (0.0, 7)


def test_a_langchain_model_keeps_its_settings_but_the_temperature():
    """Its own one where the caller says none; a bound one gives way; log-probabilities are asked of a copy."""
    from langchain_confroute.testing import ScriptedChat

    script = ScriptedModel(["Paris"])
    chat = ScriptedChat(script=script, temperature=0.3, logprobs=None)
    model = resolve(chat.bind(temperature=0.9, stop=["!"]))
    for temperature in (None, 0.0, 0.7):
        model.generate(ASKED, temperature=temperature, logprobs=False)
    assert [heard.temperature for heard in script.calls] == [0.9, 0.0, 0.7]
    assert model.generate(ASKED, logprobs=True)[0].logprobs == (-0.05,)
    assert (chat.temperature, chat.logprobs) == (0.3, None)


async def test_functions_get_what_they_name_and_seeds_differ():
    """A function's parameters are filled by name; samples of one seed have seeds of their own."""
    seen = []

    def answer(messages, seed, temperature):
        seen.append((messages[0].text, seed, temperature))
        return Generation(text=str(seed))

    async def later(messages):
        return "later"

    class Later:
        async def __call__(self, messages):
            return "later"

    answers = resolve(answer).generate(ASKED, n=2, temperature=0.5, seed=7)
    assert [one.text for one in answers] == ["7", "8"]
    assert seen == [("Capital of France?", 7, 0.5), ("Capital of France?", 8, 0.5)]
    assert [one.text for one in await resolve(answer).agenerate(ASKED, n=2, seed=7)] == ["7", "8"]
    for function in (later, Later()):
        assert (await resolve(function).agenerate(ASKED))[0].text == "later"


def test_an_async_function_is_awaited_by_sync_callers():
    """In a loop of its own."""

    async def later(messages):
        return "later"

    assert resolve(later).generate(ASKED)[0].text == "later"


def test_function_that_returns_something_else_is_an_error():
    """Neither a text nor a Generation is not an answer."""
    with pytest.raises(PolicyError, match="returned a int"):
        FunctionModel(function=lambda messages: 7).generate(ASKED)


async def test_scripted_models_are_text_models():
    """For tests of whatever takes one: whole and in pieces."""
    model = ScriptedModel([Reply(text="It is 4.", logprob=-0.2)])
    assert isinstance(model, StreamingTextModel)
    (whole,) = model.generate(ASKED)
    for streamed in ([*model.stream(ASKED)], [piece async for piece in model.astream(ASKED)]):
        pieces = Pieces()
        for piece in streamed:
            pieces.add(piece)
        assert pieces.whole(model="scripted") == whole


def test_pieces_without_all_log_probabilities_have_none():
    """The rest would speak for an answer of which it saw only a part."""
    pieces = Pieces()
    parts = [
        Piece(text="It", logprobs=(-0.1,), tokens=("It",)),
        Piece(text=" is"),
        Piece(text="", finish="stop", usage=Usage(output_tokens=2)),
    ]
    for piece in parts:
        pieces.add(piece)
    whole = pieces.whole(model="m")
    assert (whole.text, whole.logprobs, whole.finish, whole.usage) == (
        "It is",
        None,
        "stop",
        Usage(output_tokens=2),
    )
    scored = ScoredTokens(logprobs=(-0.1,), tokens=("It",))
    assert [piece_logprobs(piece) for piece in parts] == [scored, None, ()]


def test_a_missing_package_is_named_exactly(monkeypatch):
    """`confroute[openai]` and nothing that brings a host along."""
    monkeypatch.setitem(__import__("sys").modules, "openai", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'confroute\[openai\]'$"):
        OpenAIModel(model="m", timeout_s=6).generate(ASKED)
