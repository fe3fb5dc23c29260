"""What LangChain reports of a routed call: ChatConfRoute beside a bare model and other ways to put two models in one.

    python benchmarks/langchain_table.py [--json]

Every cell is measured. "nested" is a chat model that calls edge and cloud in its own `_generate` and `_stream`, as one
would write it first; cascadeflow is a column where it is installed. A draft has 3 tokens, the cloud's answer 4. How the
standard suites end is counted by `standard_suites.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from functools import reduce
from operator import add
from typing import Annotated, Any, TypedDict

from langchain_core.callbacks import (
    BaseCallbackHandler,
    CallbackManagerForLLMRun,
    get_usage_metadata_callback,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tracers.context import collect_runs
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from confroute import Cascade, TokenLogprob
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat

EDGE, CLOUD = "edge says so", "cloud knows it well"


class Nested(BaseChatModel):
    """The obvious router: two models called in the hooks of a third, as its children."""

    edge: Any
    cloud: Any
    keeps: bool

    @property
    def _llm_type(self) -> str:
        return "nested"

    def _draft(self, messages: list[BaseMessage], manager: CallbackManagerForLLMRun | None) -> AIMessage:
        return self.edge.invoke(messages, {"callbacks": manager.handlers if manager else None})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        draft = self._draft(messages, run_manager)
        config = {"callbacks": run_manager.handlers if run_manager else None}
        answer = draft if self.keeps else self.cloud.invoke(messages, config)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        draft = self._draft(messages, run_manager)
        if self.keeps:
            chunk = AIMessageChunk(**draft.model_dump(exclude={"type"}), chunk_position="last")
            yield ChatGenerationChunk(message=chunk)
            return
        for piece in self.cloud.stream(messages):
            yield ChatGenerationChunk(message=piece)


def models(keeps: bool) -> dict[str, Any]:
    """One model a column, whose edge is kept or replaced."""
    edge = ScriptedChat.of(EDGE, name="small", logprob=-0.2)
    cloud = ScriptedChat.of(CLOUD, name="large")
    policy = Cascade.of(TokenLogprob(), 0.5 if keeps else 0.1)
    found: dict[str, Any] = {
        "bare model": edge if keeps else cloud,
        "nested": Nested(edge=edge, cloud=cloud, keeps=keeps),
        "ChatConfRoute": ChatConfRoute(edge=edge, cloud=cloud, policy=policy),
    }
    try:
        from cascadeflow.integrations.langchain import CascadeFlow
    except ImportError:
        return found
    quality = 0.1 if keeps else 0.999
    return found | {"cascadeflow": CascadeFlow(drafter=edge, verifier=cloud, quality_threshold=quality)}


def usage(model: Any) -> str:
    """Output tokens that LangChain's own usage callback counts, by model."""
    with get_usage_metadata_callback() as counted:
        model.invoke("q")
    return _counts(counted.usage_metadata)


def usage_of_a_stream(model: Any) -> str:
    """The same of a stream."""
    with get_usage_metadata_callback() as counted:
        list(model.stream("q"))
    return _counts(counted.usage_metadata)


def usage_v3(model: Any) -> str:
    """The same of `stream_events(version="v3")`, LangChain's path through a model's own hooks."""
    with get_usage_metadata_callback() as counted:
        stream = model.stream_events("q", version="v3")
        _ = stream.output
    return _counts(counted.usage_metadata)


def _counts(counted: Any) -> str:
    return " ".join(f"{name} {one['output_tokens']}" for name, one in sorted(counted.items())) or "nothing"


def tree(model: Any) -> str:
    """The run tree of `invoke`."""
    with collect_runs() as collected:
        model.invoke("q")
    return _drawn(collected.traced_runs)


def tree_of_a_stream(model: Any) -> str:
    """The run tree of `stream`."""
    with collect_runs() as collected:
        list(model.stream("q"))
    return _drawn(collected.traced_runs)


def _drawn(runs: list[Any]) -> str:
    return " ".join(
        f"{run.run_type}[{_drawn(run.child_runs)}]" if run.child_runs else run.run_type for run in runs
    )


def chunk_sum(model: Any) -> str:
    """What a stream's chunks add up to."""
    return str(reduce(add, list(model.stream("q"))).text)


class _State(TypedDict):
    messages: Annotated[list[BaseMessage], add_messages]


def langgraph_messages(model: Any) -> str:
    """All that a LangGraph user sees with `stream_mode="messages"`."""
    built = StateGraph(_State)
    built.add_node("chat", lambda state: {"messages": [model.invoke(state["messages"])]})
    built.add_edge(START, "chat")
    built.add_edge("chat", END)
    given = {"messages": [HumanMessage("q")]}
    return "".join(chunk.text for chunk, _ in built.compile().stream(given, stream_mode="messages"))


def streamed_by_models(model: Any) -> str:
    """All that `astream_events` (v2) shows as tokens of chat models."""

    async def collect() -> list[str]:
        events = model.astream_events("q", version="v2")
        return [e["data"]["chunk"].text async for e in events if e["event"] == "on_chat_model_stream"]

    return "".join(asyncio.run(collect())) or "nothing"


def one_call_forced(model: Any) -> str:
    """Whether `config["configurable"]` can send one call to the edge."""
    config: Any = {"configurable": {"confroute_route": "edge"}}
    return "yes" if model.invoke("q", config).text == EDGE else "no"


def decision_events(model: Any) -> str:
    """Custom events of a call that has no parent run."""
    heard: list[str] = []

    class Listener(BaseCallbackHandler):
        def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
            heard.append(name)

    model.invoke("q", {"callbacks": [Listener()]})
    return " ".join(heard) or "none"


# Question, whether the edge's draft is kept, how it is measured.
ROWS: dict[str, tuple[bool, Callable[[Any], str]]] = {
    "usage callback, kept": (True, usage),
    "usage callback, escalated": (False, usage),
    "usage callback, stream escalated": (False, usage_of_a_stream),
    "usage callback, v3 events escalated": (False, usage_v3),
    "run tree, escalated": (False, tree),
    "run tree, stream escalated": (False, tree_of_a_stream),
    "sum of chunks, escalated": (False, chunk_sum),
    "LangGraph messages, escalated": (False, langgraph_messages),
    "LangGraph messages, kept": (True, langgraph_messages),
    "astream_events v2, tokens of models": (False, streamed_by_models),
    "one call forced by its config": (False, one_call_forced),
    "decision event without parent run": (False, decision_events),
}


def measure() -> dict[str, dict[str, str]]:
    """Cells by row and column; an error is a finding too."""
    found: dict[str, dict[str, str]] = {}
    for row, (keeps, question) in ROWS.items():
        found[row] = {}
        # New models for every cell: what one reported stays out of the next.
        for name in models(keeps):
            try:
                found[row][name] = question(models(keeps)[name])
            except Exception as error:  # noqa: BLE001  the others' errors are findings; ours fail a test
                found[row][name] = f"{type(error).__name__}: {str(error)[:60]}"
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    found = measure()
    if options.json:
        print(json.dumps(found))
        return
    for row, cells in found.items():
        print(row)
        for name, cell in cells.items():
            print(f"    {name:14} {cell}")


if __name__ == "__main__":
    main()
