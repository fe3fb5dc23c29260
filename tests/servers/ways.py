"""Each provider's loopback server with the clients that reach it: what a router decides on its answers, and what its host reads."""

from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache

from langchain_anthropic import ChatAnthropic
from langchain_core.tools import tool
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from llama_index.core.llms import ChatMessage
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAIResponses
from llama_index.llms.openai_like import OpenAILike

from confroute import Cascade, Decision, Limits, Prefix, Router, Threshold, TokenLogprob, record
from confroute.models.openai import OpenAIModel
from confroute.testing import ScriptedModel
from confroute.types import Generation, Message
from langchain_confroute import ChatConfRoute
from langchain_confroute.messages import to_generation as of_langchain
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.responses import to_generation as of_llamaindex
from llamaindex_confroute.testing import ScriptedLLM
from tests.servers.formats import VLLM, Anthropic, Chat, DeepSeek, Format, Ollama, Responses, Said

KEY = {"api_key": "none", "max_retries": 0}
QUESTION = "Capital of France?"
POLICY = Cascade.of(TokenLogprob(), 0.5)
# Kept by its first two tokens where they come scored, and else judged when it is whole.
WATCHED = Cascade(
    gates=POLICY.gates,
    prefix=Prefix(commit=Threshold(value=0.5), cut=Threshold(value=5.0), tokens=2, least=1),
)
ONCE = {"edge_limits": Limits(attempts=1), "cloud_limits": Limits(attempts=1)}


@tool
def look_up(word: str) -> str:
    """Look a word up."""
    return word


def called_by_llamaindex(word: str) -> str:
    """Look a word up."""
    return word


@dataclass(frozen=True)
class Way:
    """One host's own client of a server.

    Attributes
    ----------
    decide : callable
        From a server and a policy to the decision of one call; with tools or as a stream where it is told so.
    read : callable
        From a server to the host's reading of one answer, without a router.
    host : str
    """

    host: str
    decide: Callable[..., Decision]
    read: Callable[..., Generation]


def langchain(edge):
    """A chat model that `edge` makes for a server, in LangChain's router."""
    # Each has a client of its own, whose making takes longer than a call.
    edge = lru_cache(edge)

    def decide(server, policy=POLICY, *, question=QUESTION, tools=False, streamed=False):
        cloud = ScriptedChat.of("cloud", name="large")
        router = ChatConfRoute(edge=edge(server), cloud=cloud, policy=policy, **ONCE)
        router = router.bind_tools([look_up]) if tools else router
        with record() as decisions:
            list(router.stream(question)) if streamed else router.invoke(question)
        return decisions[0]

    return Way("langchain", decide, lambda server: of_langchain(edge(server).invoke(QUESTION)))


def llamaindex(edge):
    """An LLM that `edge` makes for a server, in LlamaIndex's router."""
    edge = lru_cache(edge)

    def decide(server, policy=POLICY, *, question=QUESTION, tools=False, streamed=False):
        cloud = ScriptedLLM(model=ScriptedModel(["cloud"], name="large"))
        router = ConfRouteLLM(edge=edge(server), cloud=cloud, policy=policy, **ONCE)
        message = ChatMessage(role="user", content=question)
        with record() as decisions:
            if tools:
                look = FunctionTool.from_defaults(called_by_llamaindex)
                router.chat_with_tools([look], chat_history=[message])
            else:
                list(router.stream_chat([message])) if streamed else router.chat([message])
        return decisions[0]

    def read(server):
        return of_llamaindex(edge(server).chat([ChatMessage(role="user", content=QUESTION)]), model="small")

    return Way("llamaindex", decide, read)


def plain(edge):
    """A model that `edge` makes for a server, in the router without a framework, which has no tools."""

    def decide(server, policy=POLICY, *, question=QUESTION, streamed=False):
        router = Router(
            edge=edge(server), cloud=ScriptedModel(["cloud"], name="large"), policy=policy, **ONCE
        )
        with record() as decisions:
            list(router.stream(question)) if streamed else router.ask(question)
        return decisions[0]

    def read(server):
        return edge(server).generate([Message(role="user", text=QUESTION)])[0]

    return Way("plain", decide, read)


OPENAI = (
    langchain(lambda server: ChatOpenAI(model="small", base_url=server.url, **KEY)),
    llamaindex(
        lambda server: OpenAILike(
            model="small",
            api_base=server.url,
            is_chat_model=True,
            is_function_calling_model=True,
            **KEY,
        )
    ),
    plain(lambda server: OpenAIModel(model="small", base_url=server.url)),
)


@dataclass(frozen=True)
class Provider:
    """A server and the clients that reach it.

    Attributes
    ----------
    serves : type of Format
    ways : tuple of Way
    """

    serves: type
    ways: tuple[Way, ...] = field(repr=False)

    @contextmanager
    def serving(self, said=None, *, refused=None):
        """Its server, one for all tests of a file, which says or refuses this from now on."""
        server = _RUNNING.get(self.serves)
        if server is None:
            server = _RUNNING[self.serves] = self.serves()
            server.start()
        server.said, server.refused, server.bodies = said or Said(), refused, []
        yield server


_RUNNING: dict[type, Format] = {}


def stop_all():
    """Stop the servers of a file's tests."""
    while _RUNNING:
        _RUNNING.popitem()[1].stop()


PROVIDERS = {
    "OpenAI": Provider(Chat, OPENAI),
    "OpenAI Responses": Provider(
        Responses,
        (
            langchain(
                lambda server: ChatOpenAI(model="small", base_url=server.url, use_responses_api=True, **KEY)
            ),
            llamaindex(lambda server: OpenAIResponses(model="gpt-4o", api_base=server.url, **KEY)),
        ),
    ),
    "vLLM": Provider(VLLM, OPENAI),
    "DeepSeek": Provider(DeepSeek, OPENAI),
    "Ollama": Provider(Ollama, (langchain(lambda server: ChatOllama(model="small", base_url=server.root)),)),
    "Anthropic": Provider(
        Anthropic,
        (langchain(lambda server: ChatAnthropic(model="small", base_url=server.root, max_tokens=64, **KEY)),),
    ),
}
