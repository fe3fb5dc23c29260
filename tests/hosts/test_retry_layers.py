"""Retries of a model's client and retries of its limits do not multiply, and who retries is said when the router is made."""

import logging

import pytest

from confroute import Cascade, Limits, TokenLogprob, record
from confroute.hosts import requests
from confroute.hosts.model import ModelFacts
from confroute.hosts.requests import with_one_retry_layer
from confroute.hosts.router import Router
from confroute.testing import Reply, ScriptedModel, ScriptedServer
from confroute.testing.faults import rate_limited

pytest.importorskip("langchain_openai")
pytest.importorskip("llama_index.llms.openai_like")
POLICY = Cascade.of(TokenLogprob(), 0.1)


@pytest.fixture(autouse=True)
def anew():
    """What is said once per process is said in each test."""
    requests._say.cache_clear()


def edge_of(host, url, retries):
    """A provider's class whose client retries so often; None leaves it to the class."""
    own = {} if retries is None else {"max_retries": retries}
    if host == "llamaindex":
        from llama_index.llms.openai_like import OpenAILike

        return OpenAILike(model="small", api_base=url, api_key="k", is_chat_model=True, **own)
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="small", base_url=url, api_key="k", **own)


def asked(host, edge, **limits):
    """Call a router once; its edge fails and its cloud answers."""
    if host == "llamaindex":
        from llamaindex_confroute import ConfRouteLLM
        from llamaindex_confroute.testing import ScriptedLLM

        cloud = ScriptedLLM(model=ScriptedModel(["four"], name="large"))
        return lambda: ConfRouteLLM(edge=edge, cloud=cloud, policy=POLICY, **limits).complete("2 + 2?")
    from langchain_confroute import ChatConfRoute
    from langchain_confroute.testing import ScriptedChat

    if host == "langchain":
        cloud = ScriptedChat.of("four", name="large")
        return lambda: ChatConfRoute(edge=edge, cloud=cloud, policy=POLICY, **limits).invoke("2 + 2?")
    return lambda: Router(edge=edge, cloud=ScriptedModel(["four"]), policy=POLICY, **limits).ask("2 + 2?")


def requests_of_one_call(host, scripted_server, retries, **limits):
    """How many requests the edge's server got for one call, and what its step says."""
    server: ScriptedServer = scripted_server({"small": ScriptedModel([Reply(fault=rate_limited())])})
    with record() as decisions:
        asked(host, edge_of(host, server.url, retries), **limits)()
    (decision,) = decisions
    return len(server.bodies), decision.steps[0].attempts


@pytest.mark.parametrize("host", ["langchain", "llamaindex", "plain"])
def test_one_layer_by_default(host, scripted_server):
    """The client's own retry is made, and no attempt of ours beside it."""
    assert requests_of_one_call(host, scripted_server, 1) == (2, 1)


@pytest.mark.parametrize("host", ["langchain", "llamaindex", "plain"])
def test_ours_where_the_client_has_none(host, scripted_server):
    """Three attempts, and the step counts them."""
    assert requests_of_one_call(host, scripted_server, 0, edge_limits=Limits(wait_s=0.0)) == (3, 3)


@pytest.mark.parametrize("host", ["langchain", "llamaindex", "plain"])
def test_who_retries_is_said_at_build(host, caplog):
    """A default gives way, with a note; attempts of the user's own are made, with a warning. Neither is repeated."""
    edge = edge_of(host, "http://127.0.0.1:1/v1", None)
    with caplog.at_level(logging.INFO, logger="confroute"):
        for limits in ({}, {}, {"edge_limits": Limits(attempts=2)}):
            _made(host, edge, **limits)
    said = [
        (one.levelname, one.getMessage())
        for one in caplog.records
        if "retries failed calls" in one.getMessage()
    ]
    assert [level for level, _ in said] == ["INFO", "WARNING"]
    assert all("max_retries=0" in text for _, text in said)


def _made(host, edge, **limits):
    if host == "llamaindex":
        from llamaindex_confroute import ConfRouteLLM
        from llamaindex_confroute.testing import ScriptedLLM

        return ConfRouteLLM(edge=edge, cloud=ScriptedLLM(model=ScriptedModel()), policy=POLICY, **limits)
    if host == "langchain":
        from langchain_confroute import ChatConfRoute
        from langchain_confroute.testing import ScriptedChat

        return ChatConfRoute(edge=edge, cloud=ScriptedChat.of("four"), policy=POLICY, **limits)
    return Router(edge=edge, cloud=ScriptedModel(["four"]), policy=POLICY, **limits)


def test_limits_of_the_users_own_stand():
    """Also three attempts around a client that retries; and one attempt needs no word."""
    retrying, plain = ModelFacts(model="m", retries=True), ModelFacts(model="m")
    for limits in (Limits(attempts=3), Limits(attempts=1)):
        assert with_one_retry_layer(limits, retrying, "edge") is limits
    assert with_one_retry_layer(Limits(), plain, "edge").most == 3
    assert with_one_retry_layer(Limits(timeout_s=7), retrying, "edge") == Limits(timeout_s=7, attempts=1)


def test_langchains_own_retry_is_a_layer():
    """`with_retry` around a model counts as the client's."""
    from langchain_confroute.models import TierModel
    from langchain_confroute.testing import ScriptedChat

    chat = ScriptedChat.of("4")
    assert not TierModel("edge", chat).facts.retries
    assert TierModel("edge", chat.with_retry(stop_after_attempt=2)).facts.retries
