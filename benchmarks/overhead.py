"""Time that ChatConfRoute adds to a call, beside `with_fallbacks` and cascadeflow, measured in one run.

    python benchmarks/overhead.py [--json] [--cpu] [--rounds N] [--calls N]

The model is a fake that answers at once, so that everything measured is the wrapper's own time and one bare call's.
Variants take turns in every round; a variant's number for a round is its median call. `--cpu` counts this process's own
time, which other processes of a busy machine do not lengthen. cascadeflow is measured if it is
installed: `python -m venv V && V/bin/pip install cascadeflow==1.2.0 langchain-core`, then V/bin/python with
PYTHONPATH=shared:. .
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.outputs import ChatGeneration, ChatResult

from confroute import Cascade, TokenLogprob
from langchain_confroute import ChatConfRoute

LOGPROBS = {"content": [{"token": "word", "logprob": -0.2, "bytes": None, "top_logprobs": []}] * 20}
USAGE = {"input_tokens": 12, "output_tokens": 20, "total_tokens": 32}
TEXT = "word " * 20


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


def variants() -> tuple[dict[str, Callable[[], Any]], dict[str, Callable[[], Any]]]:
    """What is measured, sync and async."""
    # Names that cascadeflow has prices of: it prints a warning a call for others.
    edge, cloud = Instant(model="gpt-4o-mini"), Instant(model="gpt-4o")
    keeps = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.5))
    sends = ChatConfRoute(edge=edge, cloud=cloud, policy=Cascade.of(TokenLogprob(), 0.1))
    falls = edge.with_fallbacks([cloud])
    prompt = [HumanMessage("What is the capital of France? Answer in one word.")]
    forced: Any = {"configurable": {"confroute_route": "cloud"}}
    models: dict[str, tuple[Any, Any]] = {
        "bare model": (edge, None),
        "with_fallbacks": (falls, None),
        "with_fallbacks, first fails": (Failing(model="gpt-4o-mini").with_fallbacks([cloud]), None),
        "ChatConfRoute, edge accepted": (keeps, None),
        "ChatConfRoute, pre-routed": (keeps, forced),
        "ChatConfRoute, escalated": (sends, None),
        "two bare calls": (edge, "twice"),
    }
    theirs = cascadeflow(edge, cloud, 0.1), cascadeflow(edge, cloud, 0.999)
    if theirs[0] is not None:
        models |= {"cascadeflow, accepted": (theirs[0], None), "cascadeflow, escalated": (theirs[1], None)}

    def sync(model: Any, config: Any) -> Callable[[], Any]:
        if config == "twice":
            return lambda: (model.invoke(prompt), model.invoke(prompt))
        return lambda: model.invoke(prompt, config)

    def asynchronous(model: Any, config: Any) -> Callable[[], Any]:
        async def twice() -> None:
            await model.ainvoke(prompt)
            await model.ainvoke(prompt)

        return twice if config == "twice" else (lambda: model.ainvoke(prompt, config))

    return (
        {name: sync(*given) for name, given in models.items()},
        {name: asynchronous(*given) for name, given in models.items()},
    )


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
    sync, asynchronous = variants()
    clock = time.process_time if options.cpu else time.perf_counter
    given = options.rounds, options.calls, clock
    results = {
        "invoke": summary(measure(sync, *given)),
        "ainvoke": summary(asyncio.run(ameasure(asynchronous, *given))),
    }
    if options.json:
        print(json.dumps(results))
        return
    for title, rows in results.items():
        print(table(title, rows), end="\n\n")
    if "cascadeflow, accepted" not in results["invoke"]:
        print("cascadeflow is not installed here: see the head of this file.", file=sys.stderr)


if __name__ == "__main__":
    main()
