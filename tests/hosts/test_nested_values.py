"""Texts and values that are nested deeper than Python's stack: answered as the bare model answers them."""

import pytest
from langchain_core.messages import AIMessage, HumanMessage
from llama_index.core.llms import ChatMessage

from confroute import Cascade, KeepPrivate, TokenLogprob
from confroute.testing import Reply, ScriptedModel
from confroute.text_extraction import read
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

POLICY = Cascade.of(TokenLogprob(), 0.25, rules=(KeepPrivate(patterns=("secret",)),))
DEEP = 20_000


def nested(kind, depth=DEEP):
    """A value inside so many others."""
    value = "secret"
    for _ in range(depth):
        value = [value] if kind is list else {"a": value}
    return value


@pytest.mark.parametrize("kind", [list, dict])
def test_values(kind):
    """Down to the innermost word."""
    assert read(nested(kind)).texts[-1] == "secret"
    assert any("secret" in text for text in read("[" * 300 + '"\\u0073ecret"' + "]" * 300).texts)


@pytest.mark.parametrize("text", ["[" * DEEP, "[" * DEEP + "]" * DEEP, '{"a":' * DEEP, "[" * 900 + "]" * 900])
def test_texts(text):
    """They are searched as they are."""
    assert read(text, {"b": f"{text} secret"}).texts == (text, "b", f"{text} secret")


def test_a_value_that_holds_itself():
    """Is read once."""
    value = {"a": ["secret"]}
    value["a"].append(value)
    assert read(value).texts == ("a", "secret")
    assert not read(value).unread


@pytest.mark.parametrize("depth", [300, 1200, DEEP])
def test_hosts(depth):
    """In blocks of content, and in what stands beside them."""
    edge = ScriptedChat.of("4", name="small", logprob=-0.01)
    router = ChatConfRoute(edge=edge, cloud=ScriptedChat.of("four", name="large"), policy=POLICY)
    text = "[" * depth
    beside = AIMessage("", additional_kwargs={"function_call": {"name": "f", "arguments": text}})
    for messages in ([HumanMessage([{"type": "text", "text": text}])], [beside, HumanMessage("q")]):
        assert router.invoke(messages).text == "4"
    small, large = ScriptedModel([Reply(text="4", logprob=-0.01)], name="small"), ScriptedModel(["four"])
    llm = ConfRouteLLM(edge=ScriptedLLM(model=small), cloud=ScriptedLLM(model=large), policy=POLICY)
    assert llm.chat([ChatMessage(text, additional_kwargs={"x": text})]).message.content == "4"
