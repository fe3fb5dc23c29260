"""Time that our routers add to a call, beside `with_fallbacks` and cascadeflow, measured in one run.

    python benchmarks/overhead.py [--json] [--cpu] [--rounds N] [--calls N]

The model is a fake that answers at once, so that everything measured is the wrapper's own time and one bare call's.
Variants take turns in every round; a variant's number for a round is its median call. `--cpu` counts this process's own
time, which other processes of a busy machine lengthen less. `ConfRouteLLM` is measured where LlamaIndex is installed, `Router`
where this version has one, and cascadeflow where it is installed: `make .venv-peers/.ready`, then
`.venv-peers/bin/python benchmarks/overhead.py`. Its rows are compared with ours round by round.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult

import confroute
from confroute import Cascade, Generation, TokenLogprob, Usage
from confroute.testing import ScriptedModel
from langchain_confroute import ChatConfRoute

LOGPROBS = {"content": [{"token": "word ", "logprob": -0.2, "bytes": None, "top_logprobs": []}] * 20}
USAGE = {"input_tokens": 12, "output_tokens": 20, "total_tokens": 32}
TEXT = "word " * 20
QUESTION = "What is the capital of France? Answer in one word."
# Rows of ours and theirs that do the same.
SAME = {
    f"{ours}, {route}": f"cascadeflow, {their_route}"
    for ours in ("ChatConfRoute", "ConfRouteLLM", "Router")
    for route, their_route in (("edge accepted", "accepted"), ("escalated", "escalated"))
}
Call = Callable[[], Any]


class Instant(BaseChatModel):
    """Answers at once, in the shape of an OpenAI-compatible provider."""

    model: str = "instant"
    logprobs: bool | None = None

    @property
    def _llm_type(self) -> str:
        return "instant"

    def _message(self) -> AIMessage:
        metadata: dict[str, Any] = {"model_name": self.model, "finish_reason": "stop"}
        if self.logprobs:
            metadata["logprobs"] = LOGPROBS
        return AIMessage(TEXT, response_metadata=metadata, usage_metadata=USAGE)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._message())])

    async def _agenerate(self, *args: Any, **kwargs: Any) -> ChatResult:
        return self._generate(*args, **kwargs)


class Failing(Instant):
    """Fails at once: what `with_fallbacks` needs to make two calls."""

    def _message(self) -> AIMessage:
        raise ConnectionError("down")


def cascadeflow(edge: BaseChatModel, cloud: BaseChatModel, quality: float) -> Any:
    """Their LangChain wrapper, or None where it is not installed."""
    try:
        from cascadeflow.integrations.langchain import CascadeFlow
    except ImportError:
        return None
    return CascadeFlow(drafter=edge, verifier=cloud, quality_threshold=quality)


def policies() -> dict[str, Cascade]:
    """By the route that they give a draft of 0.2 nats per token."""
    return {
        "edge accepted": Cascade.of(TokenLogprob(), 0.5),
        "escalated": Cascade.of(TokenLogprob(), 0.1),
    }


def langchain_variants() -> dict[str, tuple[Call, Call]]:
    """LangChain's models, sync and async."""
    # Names that cascadeflow has prices of: it prints a warning a call for others.
    edge, cloud = Instant(model="gpt-4o-mini"), Instant(model="gpt-4o")
    routers = {
        route: ChatConfRoute(edge=edge, cloud=cloud, policy=policy) for route, policy in policies().items()
    }
    prompt = [HumanMessage(QUESTION)]
    forced: Any = {"configurable": {"confroute_route": "cloud"}}
    models: dict[str, tuple[Any, Any]] = {
        "bare model": (edge, None),
        "with_fallbacks": (edge.with_fallbacks([cloud]), None),
        "with_fallbacks, first fails": (Failing(model="gpt-4o-mini").with_fallbacks([cloud]), None),
        "ChatConfRoute, edge accepted": (routers["edge accepted"], None),
        "ChatConfRoute, pre-routed": (routers["edge accepted"], forced),
        "ChatConfRoute, escalated": (routers["escalated"], None),
    }
    theirs = cascadeflow(edge, cloud, 0.1), cascadeflow(edge, cloud, 0.999)
    if theirs[0] is not None:
        models |= {"cascadeflow, accepted": (theirs[0], None), "cascadeflow, escalated": (theirs[1], None)}

    def both(model: Any, config: Any) -> tuple[Call, Call]:
        return lambda: model.invoke(prompt, config), lambda: model.ainvoke(prompt, config)

    async def twice() -> None:
        await edge.ainvoke(prompt)
        await edge.ainvoke(prompt)

    found = {name: both(*of) for name, of in models.items()}
    return {**found, "two bare calls": (lambda: (edge.invoke(prompt), edge.invoke(prompt)), twice)}


def llamaindex_variants() -> dict[str, tuple[Call, Call]]:
    """LlamaIndex's LLMs, sync and async."""
    from llama_index.core.llms import ChatMessage, ChatResponse

    from llamaindex_confroute import ConfRouteLLM
    from llamaindex_confroute.testing import ScriptedLLM

    logprobs = [{"token": "word ", "logprob": -0.2}] * 20
    raw = {"choices": [{"finish_reason": "stop", "logprobs": {"content": logprobs}}]}
    raw["usage"] = {"prompt_tokens": 12, "completion_tokens": 20}

    class InstantLLM(ScriptedLLM):
        def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
            return ChatResponse(message=ChatMessage(role="assistant", content=TEXT), raw=raw)

        async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
            return self.chat(messages)

    messages = [ChatMessage(role="user", content=QUESTION)]

    def both(llm: Any) -> tuple[Call, Call]:
        return lambda: llm.chat(messages), lambda: llm.achat(messages)

    edge, cloud = (InstantLLM(model=ScriptedModel(name=name)) for name in ("small", "large"))
    return {
        f"ConfRouteLLM, {route}": both(ConfRouteLLM(edge=edge, cloud=cloud, policy=policy))
        for route, policy in policies().items()
    }


class InstantText:
    """Answers at once, as a `TextModel`."""

    remote = True

    def __init__(self, name: str) -> None:
        usage = Usage(input_tokens=12, output_tokens=20)
        logprobs, tokens = (-0.2,) * 20, ("word ",) * 20
        self.name = name
        self.answer = Generation(text=TEXT, logprobs=logprobs, tokens=tokens, usage=usage, model=name)

    def generate(self, messages: Sequence[Any], **settings: Any) -> tuple[Generation, ...]:
        return (self.answer,)

    async def agenerate(self, messages: Sequence[Any], **settings: Any) -> tuple[Generation, ...]:
        return (self.answer,)


def router_variants() -> dict[str, tuple[Call, Call]]:
    """`confroute.Router`, sync and async."""

    def both(router: Any) -> tuple[Call, Call]:
        return lambda: router.ask(QUESTION), lambda: router.aask(QUESTION)

    edge, cloud = InstantText("small"), InstantText("large")
    return {
        f"Router, {route}": both(confroute.Router(edge=edge, cloud=cloud, policy=policy))
        for route, policy in policies().items()
    }


def variants() -> dict[str, tuple[Call, Call]]:
    """What is measured, sync and async."""
    found = langchain_variants()
    if find_spec("llama_index") is not None:
        found |= llamaindex_variants()
    if hasattr(confroute, "Router"):
        found |= router_variants()
    return found


def measure(
    calls: dict[str, Callable[[], Any]], rounds: int, count: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Median call of each round, in microseconds, by variant."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            times = []
            for _ in range(count):
                start = clock()
                call()
                times.append(clock() - start)
            if turn:  # the first round warms up
                found[name].append(1e6 * statistics.median(times))
    return found


async def ameasure(
    calls: dict[str, Callable[[], Any]], rounds: int, count: int, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Async form of `measure`."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(rounds + 1):
        for name, call in calls.items():
            times = []
            for _ in range(count):
                start = clock()
                await call()
                times.append(clock() - start)
            if turn:
                found[name].append(1e6 * statistics.median(times))
    return found


def summary(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and extremes over the rounds, and the ratios that the aims are about."""
    middle = {name: statistics.median(times) for name, times in found.items()}
    bare, other = middle["bare model"], middle["with_fallbacks"]
    return {
        name: {
            "median_us": round(middle[name], 1),
            "min_us": round(min(times), 1),
            "max_us": round(max(times), 1),
            "added_us": round(middle[name] - bare, 1),
            "times_bare": round(middle[name] / bare, 2),
            "times_with_fallbacks": round(middle[name] / other, 2),
            "added_times_with_fallbacks": round((middle[name] - bare) / (other - bare), 2),
        }
        for name, times in found.items()
    }


def beside_theirs(found: dict[str, list[float]]) -> dict[str, list[float]]:
    """Our time over cascadeflow's in the same round, for the same route: median, least and greatest."""
    ratios = {
        f"{ours} / {theirs}": [a / b for a, b in zip(found[ours], found[theirs], strict=True)]
        for ours, theirs in SAME.items()
        if ours in found and theirs in found
    }
    return {name: [round(x, 3) for x in (statistics.median(r), min(r), max(r))] for name, r in ratios.items()}


def table(title: str, rows: dict[str, dict[str, float]]) -> str:
    """The summary as text."""
    lines = [
        f"{title:30} {'median':>8} {'min-max':>17} {'added':>8} {'/ bare':>7} {'/ fallbacks':>11} {'added / f.':>10}   (us)"
    ]
    for name, row in rows.items():
        spread = f"{row['min_us']:.0f}-{row['max_us']:.0f}"
        lines.append(
            f"{name:30} {row['median_us']:8.0f} {spread:>17} {row['added_us']:8.0f} "
            f"{row['times_bare']:7.2f} {row['times_with_fallbacks']:11.2f} {row['added_times_with_fallbacks']:10.2f}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cpu", action="store_true", help="CPU time of this process, not wall time")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--calls", type=int, default=150)
    options = parser.parse_args()
    clock = time.process_time if options.cpu else time.perf_counter
    given = options.rounds, options.calls, clock
    calls = variants()
    found = {
        "invoke": measure({name: sync for name, (sync, _) in calls.items()}, *given),
        "ainvoke": asyncio.run(ameasure({name: of for name, (_, of) in calls.items()}, *given)),
    }
    results = {form: summary(times) for form, times in found.items()}
    ratios = {form: beside_theirs(times) for form, times in found.items()}
    if options.json:
        print(json.dumps({**results, "beside cascadeflow": ratios}))
        return
    for form, rows in results.items():
        print(table(form, rows))
        for name, (middle, low, high) in ratios[form].items():
            print(f"{name:56} {middle:.2f} ({low:.2f}-{high:.2f})")
        print()
    if "cascadeflow, accepted" not in calls:
        print("cascadeflow is not installed here: see the head of this file.", file=sys.stderr)


if __name__ == "__main__":
    main()
