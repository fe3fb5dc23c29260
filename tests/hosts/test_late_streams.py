"""Real clients whose first chunk comes after the time limit: the connection is closed and the thread ends, without a collector."""

import gc
import threading

import pytest

from confroute import Cascade, Limits, TokenLogprob
from confroute.hosts.router import Router
from confroute.models.resilience import _THREAD
from confroute.testing import Reply, ScriptedModel, ScriptedServer

httpx = pytest.importorskip("httpx")
pytest.importorskip("langchain_openai")
pytest.importorskip("llama_index.llms.openai_like")
POLICY = Cascade.of(TokenLogprob(), 0.1, on_cloud_error="edge")
ONCE = Limits(timeout_s=0.2, attempts=1)
DRAFT = Reply(text="draft", logprob=-5.0)


@pytest.fixture
async def clients():
    """Connections of the test's own, which end with it."""
    async with httpx.AsyncClient() as asynchronous:
        with httpx.Client() as sync:
            yield sync, asynchronous


def langchain(url, clients):
    from langchain_openai import ChatOpenAI

    sync, asynchronous = clients
    return ChatOpenAI(
        model="large",
        base_url=url,
        api_key="k",
        max_retries=0,
        http_client=sync,
        http_async_client=asynchronous,
    )


def chat_router(url, clients):
    from langchain_confroute import ChatConfRoute
    from langchain_confroute.testing import ScriptedChat

    edge = ScriptedChat(script=ScriptedModel([DRAFT]), model="small")
    return ChatConfRoute(edge=edge, cloud=langchain(url, clients), policy=POLICY, cloud_limits=ONCE)


def llm_router(url, clients):
    from llama_index.llms.openai_like import OpenAILike

    from llamaindex_confroute import ConfRouteLLM
    from llamaindex_confroute.testing import ScriptedLLM

    sync, asynchronous = clients
    cloud = OpenAILike(
        model="large",
        api_base=url,
        api_key="k",
        is_chat_model=True,
        max_retries=0,
        http_client=sync,
        async_http_client=asynchronous,
    )
    edge = ScriptedLLM(model=ScriptedModel([DRAFT]))
    return ConfRouteLLM(edge=edge, cloud=cloud, policy=POLICY, cloud_limits=ONCE)


def plain_router(url, clients):
    return Router(
        edge=ScriptedModel([DRAFT]), cloud=langchain(url, clients), policy=POLICY, cloud_limits=ONCE
    )


def text_of(router):
    """A streamed answer."""
    if isinstance(router, Router):
        return "".join(router.stream("q"))
    if hasattr(router, "invoke"):
        return "".join(chunk.text for chunk in router.stream("q"))
    return "".join(chunk.delta or "" for chunk in router.stream_complete("q"))


async def atext_of(router):
    """Async form of `text_of`."""
    if isinstance(router, Router):
        return "".join([part async for part in router.astream("q")])
    if hasattr(router, "invoke"):
        return "".join([chunk.text async for chunk in router.astream("q")])
    return "".join([chunk.delta or "" async for chunk in await router.astream_complete("q")])


def waiting():
    """Threads that wait for a client."""
    return [thread for thread in threading.enumerate() if thread.name == _THREAD]


@pytest.mark.parametrize("asynchronous", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("make", [chat_router, llm_router, plain_router])
async def test_a_late_stream_leaves_nothing_open(make, asynchronous, clients, until):
    """The server sees its client go in the middle of the answer; the user has the draft."""
    late = ScriptedModel([Reply(text="word " * 100, latency_s=0.6)], name="large")
    with ScriptedServer(late, pause_s=0.02) as server:
        router = make(server.url, clients)
        gc.disable()
        try:
            text = await atext_of(router) if asynchronous else text_of(router)
            assert text.strip() == "draft"
            await until(lambda: server.abandoned == 1)
            await until(lambda: not waiting())
        finally:
            gc.enable()
