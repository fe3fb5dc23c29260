"""Several answers of one call are refused in words: one would be returned, and all of them paid, drafts included."""

import asyncio

import pytest
from langchain_core.messages import HumanMessage
from pydantic import Field

from confroute import Cascade, TokenLogprob
from confroute.errors import PolicyError, RequestError
from confroute.testing import ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

POLICY = Cascade.of(TokenLogprob(), 0.25)


def chat():
    return ChatConfRoute(edge=ScriptedChat.of("4"), cloud=ScriptedChat.of("four"), policy=POLICY)


def llm():
    edge, cloud = ScriptedModel(["4"], name="small"), ScriptedModel(["four"], name="large")
    return ConfRouteLLM(edge=ScriptedLLM(model=edge), cloud=ScriptedLLM(model=cloud), policy=POLICY)


CALLS = {
    "generate": lambda: chat().generate([[HumanMessage("q")]], n=3),
    "agenerate": lambda: asyncio.run(chat().agenerate([[HumanMessage("q")]], n=3)),
    "invoke": lambda: chat().invoke("q", n=3),
    "ainvoke": lambda: asyncio.run(chat().ainvoke("q", n=3)),
    "bind": lambda: chat().bind(n=2).invoke("q"),
    "stream": lambda: list(chat().stream("q", n=3)),
    "candidates": lambda: chat().invoke("q", candidate_count=2),
    "beside the body": lambda: chat().invoke("q", extra_body={"n": 3}),
    "complete": lambda: llm().complete("q", n=3),
    "acomplete": lambda: asyncio.run(llm().acomplete("q", n=3)),
    "stream_complete": lambda: list(llm().stream_complete("q", n=3)),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_call_for_several_answers_is_refused(call):
    """Before any model is asked, naming the setting and what to do."""
    with pytest.raises(RequestError, match=r"is [23], and a router returns one answer"):
        call()


@pytest.mark.parametrize("value", [None, 1])
def test_one_answer_is_what_a_router_gives(value):
    """A call that says so is answered."""
    assert chat().invoke("q", n=value).text == "4"
    assert llm().complete("q", n=value).text == "4"


class Several(ScriptedChat):
    """A provider's class with a setting of its own."""

    n: int | None = 3
    model_kwargs: dict[str, int] = Field(default_factory=dict)
    extra_body: dict[str, int] | None = None


@pytest.mark.parametrize("role", ["edge", "cloud"])
@pytest.mark.parametrize(
    "model",
    [
        Several(),
        ScriptedChat.of("4", name="bound").bind(n=3),
        Several(n=None, model_kwargs={"best_of": 3}),
        Several(n=None, extra_body={"n": 3}),
    ],
)
def test_a_model_set_to_several_answers_is_refused_at_build(role, model):
    """Of each draft all of them would be paid."""
    models = {"edge": ScriptedChat.of("4", name="a"), "cloud": ScriptedChat.of("c", name="b"), role: model}
    with pytest.raises(PolicyError, match=f"{role}: .* is 3, and a router returns one answer"):
        ChatConfRoute(**models, policy=POLICY)


def test_a_model_of_llamaindex_set_to_several_answers_is_refused():
    """Its fixed arguments win over all others."""
    openai_like = pytest.importorskip("llama_index.llms.openai_like")
    edge = openai_like.OpenAILike(model="m", api_key="k", is_chat_model=True, additional_kwargs={"n": 3})
    with pytest.raises(PolicyError, match="edge: n is 3"):
        ConfRouteLLM(edge=edge, cloud=ScriptedLLM(model=ScriptedModel()), policy=POLICY)
