"""The first call of a model in this process: what its load takes is no latency, and the log tells of it."""

import asyncio
import logging

import pytest
from langchain_core.messages import HumanMessage

from confroute import Cascade, Router, TokenLogprob, record, streaming
from confroute import clock as clock_module
from confroute.models import loading
from confroute.models.local import LocalTextModel
from langchain_confroute import ChatConfRoute, ChatLocal
from llamaindex_confroute import ConfRouteLLM, LocalLLM

POLICY = Cascade.of(TokenLogprob(), 1e9)
QUESTION = "u"


class Clock:
    """A clock that stands until somebody moves it."""

    at = 100.0

    def perf_counter(self):
        """Its time."""
        return self.at


def by_router(folder):
    """No host."""
    model = LocalTextModel(model=folder, max_tokens=2)
    return Router(edge=model, cloud=LocalTextModel(model=folder, max_tokens=3), policy=POLICY).ask(QUESTION)


def by_langchain(folder):
    """LangChain."""
    edge, cloud = (ChatLocal(model=folder, max_tokens=most) for most in (2, 3))
    return ChatConfRoute(edge=edge, cloud=cloud, policy=POLICY).invoke([HumanMessage(QUESTION)])


def by_langchain_async(folder):
    """LangChain's async form."""
    edge, cloud = (ChatLocal(model=folder, max_tokens=most) for most in (2, 3))
    return asyncio.run(ChatConfRoute(edge=edge, cloud=cloud, policy=POLICY).ainvoke([HumanMessage(QUESTION)]))


def by_langchain_stream(folder):
    """LangChain's chunks."""
    edge, cloud = (ChatLocal(model=folder, max_tokens=most) for most in (2, 3))
    return list(ChatConfRoute(edge=edge, cloud=cloud, policy=POLICY).stream([HumanMessage(QUESTION)]))


def by_llamaindex(folder):
    """LlamaIndex."""
    edge, cloud = (LocalLLM(model=folder, max_tokens=most, context_window=32) for most in (2, 3))
    return ConfRouteLLM(edge=edge, cloud=cloud, policy=POLICY).complete(QUESTION)


@pytest.mark.parametrize(
    "ask", [by_router, by_langchain, by_langchain_async, by_langchain_stream, by_llamaindex]
)
def test_the_first_call_takes_no_longer_than_the_second(ask, tiny_folder, monkeypatch, caplog):
    """The load moves the clock by a minute, and nothing else moves it; it is logged once, before it begins."""
    clock, load = Clock(), loading.freeze
    for module in (clock_module, streaming):
        monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(loading, "_cache", {})

    def in_a_minute(*args):
        clock.at += 60
        return load(*args)

    monkeypatch.setattr(loading, "freeze", in_a_minute)
    with caplog.at_level(logging.INFO, logger="confroute"), record() as decisions:
        ask(str(tiny_folder))
        ask(str(tiny_folder))
    told = [line.message for line in caplog.records if line.message.startswith("loading ")]
    assert (clock.at, told) == (160, [f"loading {tiny_folder.name} in float32"])
    assert len(decisions) == 2
    assert {step.latency_s for decision in decisions for step in decision.steps} == {0.0}
