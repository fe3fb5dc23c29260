"""Scripted edges and clouds, and handlers that watch what LangChain reports."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from langchain_core.callbacks import BaseCallbackHandler

from confroute import Cascade, TokenLogprob
from confroute.models.resilience import Limits
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat

ONCE = Limits(attempts=1)


class Watch(BaseCallbackHandler):
    """The run tree as LangChain reports it."""

    run_inline = True

    def __init__(self) -> None:
        self.runs: dict[Any, dict[str, Any]] = {}
        self.custom: list[tuple[str, Any]] = []
        self.lock = threading.Lock()

    def _start(self, kind: str, run_id: Any, parent: Any, kwargs: dict[str, Any]) -> None:
        with self.lock:
            self.runs[run_id] = {
                "kind": kind,
                "parent": parent,
                "tags": kwargs.get("tags") or [],
                "name": kwargs.get("name"),
                "end": None,
                "output": None,
                "metadata": kwargs.get("metadata"),
            }

    def on_chain_start(self, serialized, inputs, *, run_id, parent_run_id=None, **kwargs):
        self._start("chain", run_id, parent_run_id, kwargs)

    def on_chat_model_start(self, serialized, messages, *, run_id, parent_run_id=None, **kwargs):
        self._start("llm", run_id, parent_run_id, kwargs)

    def _end(self, run_id, how, output):
        with self.lock:
            self.runs[run_id] |= {"end": how, "output": output}

    def on_chain_end(self, outputs, *, run_id, **kwargs):
        self._end(run_id, "end", outputs)

    def on_llm_end(self, response, *, run_id, **kwargs):
        self._end(run_id, "end", response)

    def on_chain_error(self, error, *, run_id, **kwargs):
        self._end(run_id, "error", error)

    def on_llm_error(self, error, *, run_id, **kwargs):
        self._end(run_id, "error", error)

    def on_custom_event(self, name, data, *, run_id, **kwargs):
        self.custom.append((name, data))

    def tree(self, parent=None) -> list[Any]:
        """Nested (name, children), in the order in which runs began."""
        return [
            (run["name"] if run["kind"] == "chain" else run["kind"], self.tree(run_id))
            for run_id, run in self.runs.items()
            if run["parent"] == parent
        ]

    @property
    def roles(self) -> list[str]:
        """The confroute tag of each model run."""
        return [
            tag.removeprefix("confroute:")
            for run in self.runs.values()
            if run["kind"] == "llm"
            for tag in run["tags"]
            if tag.startswith("confroute:")
        ]


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def edge() -> ScriptedChat:
    model = ScriptedChat.of("edge says so", name="small", logprob=-0.2)
    # The hardest kind to keep quiet.
    return model.model_copy(update={"streams_inside": True})


@pytest.fixture
def cloud() -> ScriptedChat:
    return ScriptedChat.of("cloud knows it well", name="large")


@pytest.fixture
def accepting(edge, cloud) -> ChatConfRoute:
    return ChatConfRoute(
        edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.5), edge_limits=ONCE, cloud_limits=ONCE
    )


@pytest.fixture
def escalating(edge, cloud) -> ChatConfRoute:
    return ChatConfRoute(
        edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.1), edge_limits=ONCE, cloud_limits=ONCE
    )


def forced(tier: str) -> dict[str, Any]:
    """Config of a call that is forced to one tier."""
    return {"configurable": {"confroute_route": tier}}
