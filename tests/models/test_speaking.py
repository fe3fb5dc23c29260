"""Models by name or object, asked outside a router."""

from __future__ import annotations

import sys
import types

import pytest

from confroute.errors import PolicyError
from confroute.models.openai import OpenAISpeaker
from confroute.models.speaking import FunctionSpeaker, LocalSpeaker, Speaker, speaker
from confroute.testing import ScriptedModel
from confroute.types import Generation, Message

ASKED = (Message(role="user", text="Capital of France?"),)


def test_openai_compatible_server_answers_with_logprobs(openai_server):
    """Real HTTP: temperature, length and messages arrive, text, log-probabilities and usage come back."""
    model = speaker("openai:small", base_url=openai_server.url)
    (answer,) = model.say(ASKED, temperature=0.3, max_tokens=9)
    assert (answer.text, answer.logprobs, answer.usage.input_tokens) == ("Paris.", (-0.01,), 7)
    (body,) = openai_server.bodies
    assert (body["temperature"], body["max_tokens"], body["logprobs"]) == (0.3, 9, True)
    assert body["messages"] == [{"role": "user", "content": "Capital of France?"}]


def test_server_that_returns_one_sample_a_request_is_asked_again(openai_server):
    """Three samples of a server that ignores `n` take three requests, and all three are there."""
    texts = iter(["a", "b", "c"])
    openai_server.respond = lambda body: (next(texts), -0.1)
    said = speaker("openai:small", base_url=openai_server.url).say(ASKED, n=3, temperature=1.0)
    assert [one.text for one in said] == ["a", "b", "c"]
    assert [body.get("n") for body in openai_server.bodies] == [3, 2, None]


async def test_async_openai_gives_the_same(openai_server):
    """The async form sends the same request and reads the same answer."""
    model = speaker("openai:small", base_url=openai_server.url, logprobs=False)
    (answer,) = await model.asay(ASKED)
    assert (answer.text, answer.logprobs) == ("Paris.", None)
    assert "logprobs" not in openai_server.bodies[0]


@pytest.mark.parametrize(
    ("base_url", "remote"),
    [(None, True), ("https://api.example.com/v1", True), ("http://127.0.0.1:8080/v1", False)],
)
def test_only_a_loopback_server_is_not_remote(base_url, remote):
    """What may be sent to other machines counts as remote unless the URL says otherwise."""
    assert OpenAISpeaker(model="m", base_url=base_url).remote is remote


async def test_chat_models_of_both_hosts_are_taken_as_they_are():
    """A LangChain chat model and a LlamaIndex LLM answer through the same interface, and are remote."""
    from langchain_confroute.testing import ScriptedChat
    from llamaindex_confroute.testing import ScriptedLLM

    for model in (
        speaker(ScriptedChat(script=ScriptedModel(["Paris"], samples=["Paris", "Lyon"]))),
        speaker(ScriptedLLM(model=ScriptedModel(["Paris"], samples=["Paris", "Lyon"]))),
    ):
        assert isinstance(model, Speaker)
        assert model.remote
        assert [one.text for one in model.say(ASKED)] == ["Paris"]
        assert [one.text for one in await model.asay(ASKED, n=2, temperature=0.7)] == ["Paris", "Lyon"]


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
    model = speaker(llm)
    for said in (model.say(ASKED, n=2, temperature=0.7), await model.asay(ASKED, n=2, temperature=0.7)):
        assert [one.text for one in said] == ["Paris", "Paris"]
    assert heard == [(0.7, 8), (0.7, 9)] * 2
    assert (llm.temperature, llm.seed) == (0.0, 7)


async def test_functions_get_what_they_name_and_seeds_differ():
    """A function's parameters are filled by name; samples of one seed have seeds of their own."""
    seen = []

    def answer(messages, seed, temperature):
        seen.append((messages[0].text, seed, temperature))
        return Generation(text=str(seed))

    async def later(messages):
        return "later"

    assert [one.text for one in speaker(answer).say(ASKED, n=2, temperature=0.5, seed=7)] == ["7", "8"]
    assert seen == [("Capital of France?", 7, 0.5), ("Capital of France?", 8, 0.5)]
    assert (await speaker(later).asay(ASKED))[0].text == "later"


def test_names_of_every_kind(monkeypatch):
    """local:, openai:, ollama: and MODULE:OBJECT make the speaker that they say."""
    module = types.ModuleType("mymodels")
    module.judge = lambda messages: "yes"
    monkeypatch.setitem(sys.modules, "mymodels", module)
    assert speaker("local:smollm2-135m") == LocalSpeaker(model="smollm2-135m")
    assert speaker("openai:org/model:free").name == "org/model:free"
    ollama = speaker("ollama:qwen3:1.7b")
    assert ollama == OpenAISpeaker(model="qwen3:1.7b", base_url="http://127.0.0.1:11434/v1")
    assert not ollama.remote
    assert isinstance(speaker("mymodels:judge"), FunctionSpeaker)


def test_a_module_of_the_current_folder_is_found(tmp_path, monkeypatch):
    """Also from an installed script, which has its own folder on the path in place of the current one."""
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p not in ("", str(tmp_path))])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models_of_this_folder.py").write_text("def judge(messages):\n    return 'yes'\n")
    assert speaker("models_of_this_folder:judge").say(ASKED)[0].text == "yes"


@pytest.mark.parametrize(
    ("model", "base_url", "says"),
    [
        ("smollm2-135m", None, "did you mean 'local:smollm2-135m'"),
        ("smollm2", None, "expected local:NAME, openai:MODEL, ollama:MODEL"),
        ("no_such_module:x", None, "cannot be imported"),
        ("confroute:no_such_name", None, "cannot be imported"),
        ("local:smollm2-135m", "http://x", "takes no base URL"),
        (7, None, "a int is no model"),
    ],
)
def test_what_is_no_model_is_refused_with_what_is_expected(model, base_url, says):
    """Errors name what was given and what is taken."""
    with pytest.raises(PolicyError, match=says):
        speaker(model, base_url=base_url)


def test_function_that_returns_something_else_is_an_error():
    """Neither a text nor a Generation is no answer."""
    with pytest.raises(PolicyError, match="returned a int"):
        speaker(lambda messages: 7).say(ASKED)
