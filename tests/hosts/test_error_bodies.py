"""Servers that answer 200 with an error in the body: their words are raised, and the status that they name holds."""

import httpx
import pytest
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from confroute import Router, record
from confroute.errors import TierError
from confroute.models.openai import OpenAIModel
from confroute.models.resilience import Limits, is_transient
from confroute.testing import Reply, ScriptedModel, ScriptedServer
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

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
    """Its client raises the body in an error of Python's, which says as well whether to ask again."""
    with serving(error) as server, httpx.Client() as client:
        edge = ChatOpenAI(model="small", base_url=server.url, api_key="k", max_retries=0, http_client=client)
        on_edge = {"configurable": {"confroute_route": "edge"}}
        once = Limits(attempts=1)
        with pytest.raises(ValueError, match=words) as raised:
            ChatConfRoute(edge=edge, cloud=ScriptedChat.of("four"), edge_limits=once).invoke("q", on_edge)
        assert is_transient(raised.value) is transient


def test_langchain_is_tried_again():
    """As the other hosts are: two requests, and the second one's answer."""
    with serving({"message": "overloaded", "code": 502}) as server, httpx.Client() as client:
        edge = ChatOpenAI(model="small", base_url=server.url, api_key="k", max_retries=0, http_client=client)
        limits = Limits(attempts=2, wait_s=0.001, max_wait_s=0.001)
        router = ChatConfRoute(edge=edge, cloud=ScriptedChat.of("four"), edge_limits=limits)
        answer = router.invoke("q", {"configurable": {"confroute_route": "edge"}})
        assert (answer.text, len(server.bodies)) == ("4", 2)


class Place(BaseModel):
    """A place."""

    name: str


USER = [ChatMessage(role="user", content="q")]
FORMS = {
    "chat": lambda llm, route: llm.chat(USER, **route),
    "complete": lambda llm, route: llm.complete("q", **route),
    "structured": lambda llm, route: llm.structured_predict(
        Place, PromptTemplate("Where?"), llm_kwargs=route
    ),
}


def on_llamaindex(server, **clients):
    """A router whose edge is the server."""
    edge = OpenAILike(
        model="small", api_base=server.url, api_key="k", is_chat_model=True, max_retries=0, **clients
    )
    cloud = ScriptedLLM(model=ScriptedModel(["four"], name="large"))
    return ConfRouteLLM(edge=edge, cloud=cloud, edge_limits=Limits(attempts=1))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("error", "words", "transient"), ERRORS)
def test_llamaindex(error, words, transient, form):
    """Its client takes the first of no choices; what stands in their place is raised."""
    with serving(error) as server, httpx.Client() as client:
        llm = on_llamaindex(server, http_client=client)
        with pytest.raises(TierError, match=words) as raised:
            FORMS[form](llm, {"confroute_route": "edge"})
        assert is_transient(raised.value) is transient


async def test_llamaindex_async():
    """As in its synchronous form."""
    with serving({"message": "overloaded", "code": 503}) as server:
        async with httpx.AsyncClient() as client:
            llm = on_llamaindex(server, async_http_client=client)
            with pytest.raises(TierError, match="overloaded"):
                await llm.achat(USER, confroute_route="edge")
