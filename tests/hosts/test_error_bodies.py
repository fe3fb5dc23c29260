"""Servers that answer 200 with an error in the body: their words are raised, and the status that they name holds."""

import httpx
import pytest
from langchain_openai import ChatOpenAI

from confroute import Router, record
from confroute.models.openai import OpenAIModel
from confroute.models.resilience import Limits, is_transient
from confroute.testing import Reply, ScriptedModel, ScriptedServer
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat

ERRORS = [
    ({"message": "the model is overloaded", "code": 502}, "overloaded", True),
    ({"message": "no credit", "code": 402}, "no credit", False),
    ({"message": "odd", "code": 40303}, "odd", False),
    ("the model is loading", "loading", False),
]


def serving(error):
    """A server whose first answer is an error."""
    first = [(200, error)]
    return ScriptedServer(
        ScriptedModel([Reply(text="4", logprob=-0.01)]), refuse=lambda _: first.pop() if first else None
    )


@pytest.mark.parametrize(("error", "words", "transient"), ERRORS)
def test_without_a_host(error, words, transient):
    """In the error, whose status tells whether to ask again."""
    with serving(error) as server:
        edge = OpenAIModel(model="small", base_url=server.url)
        once = Router(edge=edge, cloud=ScriptedModel(["four"]), edge_limits=Limits(attempts=1))
        with pytest.raises(Exception, match=words) as raised:
            once.ask("q", route="edge")
        assert is_transient(raised.value) is transient


def test_is_tried_again():
    """As with the status in its place."""
    with serving({"message": "overloaded", "code": 503}) as server:
        edge = OpenAIModel(model="small", base_url=server.url)
        limits = Limits(attempts=2, wait_s=0.001, max_wait_s=0.001)
        router = Router(edge=edge, cloud=ScriptedModel(["four"]), edge_limits=limits)
        with record() as decisions:
            assert router.ask("q", route="edge").text == "4"
        assert decisions[0].steps[0].attempts == 2


@pytest.mark.parametrize(("error", "words", "transient"), ERRORS)
def test_langchain(error, words, transient):
    """Its client raises the provider's words."""
    with serving(error) as server, httpx.Client() as client:
        edge = ChatOpenAI(model="small", base_url=server.url, api_key="k", max_retries=0, http_client=client)
        router = ChatConfRoute(edge=edge, cloud=ScriptedChat.of("four"), edge_limits=Limits(attempts=1))
        with pytest.raises(ValueError, match=words):
            router.invoke("q", {"configurable": {"confroute_route": "edge"}})
