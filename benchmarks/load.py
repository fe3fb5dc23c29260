"""Calls per second, and processor time per call, of real `ChatOpenAI` clients at 150 calls at once.

    python benchmarks/load.py [--calls 1500] [--at-once 150] [--repeats 3] [--answer-s 0.02] [--limit-s 600] [--json]

An OpenAI-compatible server on loopback, in a process of its own, answers every request after 20 ms, with log-probabilities where
they are asked for. Every variant makes all calls in every repeat, in turns of 300, so that what else the machine does falls on all
of them alike; compare the ratios to the bare client in the same turn, not the rates. Processor time is this process's, not the server's.
"both, by hand" asks for the scored draft and then the cloud, and decides nothing: what an escalated call cannot be cheaper than.
`Router` takes part where this version has one and `openai` is installed. What the time limit cuts off is not counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, TypeAlias

import confroute
from confroute import Cascade, TokenLogprob

PROMPT = "What is the capital of France? Answer in one word."
LOGPROBS = {"sure": -0.05, "unsure": -1.0, "cloud": -0.05}
TOKENS = 20
THRESHOLD = 0.3
TURN_CALLS = 300
# By variant: calls per second, and processor ms per call.
Turn: TypeAlias = "dict[str, dict[str, float]]"


def completion(model: str, *, logprobs: bool) -> bytes:
    """The server's whole answer to one request."""
    scores = [
        {"token": token, "logprob": LOGPROBS[model], "bytes": [*token.encode()], "top_logprobs": []}
        for token in [model, *[" word"] * (TOKENS - 1)]
    ]
    choice: dict[str, Any] = {
        "index": 0,
        "message": {"role": "assistant", "content": f"{model}{' word' * (TOKENS - 1)}", "refusal": None},
        "finish_reason": "stop",
        "logprobs": {"content": scores, "refusal": None} if logprobs else None,
    }
    usage = {"prompt_tokens": 12, "completion_tokens": TOKENS, "total_tokens": 12 + TOKENS}
    told = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": model}
    body = json.dumps({**told, "choices": [choice], "usage": usage}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def serve(answer_s: float) -> None:
    """Answer on a free port, which is printed, until standard input ends."""
    answers = {(m, asked): completion(m, logprobs=asked) for m in LOGPROBS for asked in (True, False)}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that closes its connection ends it.
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError), contextlib.closing(writer):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                await asyncio.sleep(answer_s)
                writer.write(answers[body["model"], bool(body.get("logprobs"))])
                await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    # Not by the loop's end, which would report every connection that a client keeps.
    os._exit(0)


@contextlib.contextmanager
def serving(answer_s: float) -> Iterator[str]:
    """A running server's address."""
    command = [sys.executable, __file__, "--serve", "--answer-s", str(answer_s)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/v1"
        finally:
            process.stdin.close()
            process.wait(10)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way to call, and the model that has to answer."""

    call: Callable[[], Awaitable[Any]]
    answers: str


def langchain_variants(url: str) -> dict[str, Variant]:
    """Real clients, bare and routed."""
    from langchain_openai import ChatOpenAI

    from langchain_confroute import ChatConfRoute

    def client(model: str) -> ChatOpenAI:
        return ChatOpenAI(model=model, base_url=url, api_key="none", max_retries=0)

    scored, cloud = client("unsure").bind(logprobs=True), client("cloud")

    async def by_hand() -> Any:
        await scored.ainvoke(PROMPT)
        return await cloud.ainvoke(PROMPT)

    def routed(edge: str) -> ChatConfRoute:
        policy = Cascade.of(TokenLogprob(), THRESHOLD)
        return ChatConfRoute(edge=client(edge), cloud=client("cloud"), policy=policy)

    models = {
        "bare": (client("sure"), "sure"),
        "with_fallbacks": (client("sure").with_fallbacks([client("cloud")]), "sure"),
        "ChatConfRoute, kept": (routed("sure"), "sure"),
        "ChatConfRoute, escalated": (routed("unsure"), "cloud"),
    }

    def variant(model: Any, answers: str) -> Variant:
        return Variant(call=lambda: model.ainvoke(PROMPT), answers=answers)

    made = {name: variant(*of) for name, of in models.items()}
    return {**made, "both, by hand": Variant(call=by_hand, answers="cloud")}


def router_variants() -> dict[str, Variant]:
    """`confroute.Router` on the models of OPENAI_BASE_URL; empty where there is none."""
    if not hasattr(confroute, "Router") or find_spec("openai") is None:
        return {}

    def variant(edge: str, answers: str) -> Variant:
        policy = Cascade.of(TokenLogprob(), THRESHOLD)
        router = confroute.Router(edge=f"openai:{edge}", cloud="openai:cloud", policy=policy)
        return Variant(call=lambda: router.aask(PROMPT), answers=answers)

    return {"Router, kept": variant("sure", "sure"), "Router, escalated": variant("unsure", "cloud")}


async def burst(variant: Variant, calls: int, at_once: int) -> tuple[float, float]:
    """Make that many calls, so many at once; seconds and processor seconds that they took together."""
    left = iter(range(calls))

    async def worker() -> None:
        for _ in left:
            answer = await variant.call()
            if not answer.text.startswith(f"{variant.answers} "):
                raise RuntimeError(
                    f"{answer.text[:40]!r} was answered: expected the model {variant.answers!r}"
                )

    gc.collect()
    started, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    return time.perf_counter() - started, time.process_time() - used


async def repeated(variants: dict[str, Variant], calls: int, at_once: int) -> list[Turn]:
    """All calls of every variant, in turns."""
    turns = []
    for size in (min(TURN_CALLS, calls - begun) for begun in range(0, calls, TURN_CALLS)):
        turn = {}
        for name, variant in variants.items():
            seconds, used = await burst(variant, size, at_once)
            turn[name] = {"calls_per_s": size / seconds, "cpu_ms": 1000 * used / size}
        turns.append(turn)
    return turns


async def measured(
    variants: dict[str, Variant], *, calls: int, at_once: int, repeats: int, limit_s: float
) -> list[list[Turn]]:
    """As many repeats as the time limit allows, after a few calls of each variant that only warm up."""
    until = time.monotonic() + limit_s
    found: list[list[Turn]] = []
    for size in [min(calls, at_once), *[calls] * repeats]:
        repeat = repeated(variants, size, at_once)
        try:
            found.append(await asyncio.wait_for(repeat, until - time.monotonic()))
        except TimeoutError:
            break
    return found[1:]


def summary(repeats: list[list[Turn]]) -> dict[str, dict[str, Any]]:
    """Medians over all turns, and ratios to the bare client of the same turn: their median, and its range over the repeats."""
    rows: dict[str, dict[str, Any]] = {}
    for name, first in repeats[0][0].items():
        rows[name] = {}
        for key in first:
            ratios = [[turn[name][key] / turn["bare"][key] for turn in turns] for turns in repeats]
            middles = [statistics.median(one) for one in ratios]
            rows[name][key] = statistics.median(turn[name][key] for turns in repeats for turn in turns)
            middle = statistics.median(ratio for one in ratios for ratio in one)
            rows[name][f"{key}_of_bare"] = [middle, min(middles), max(middles)]
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1500)
    parser.add_argument("--at-once", type=int, default=150)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--answer-s", type=float, default=0.02)
    parser.add_argument("--limit-s", type=float, default=600.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.answer_s))
        return
    with serving(options.answer_s) as url:
        os.environ |= {"OPENAI_BASE_URL": url, "OPENAI_API_KEY": "none"}
        variants = langchain_variants(url) | router_variants()
        sizes = {"calls": options.calls, "at_once": options.at_once, "repeats": options.repeats}
        found = asyncio.run(measured(variants, **sizes, limit_s=options.limit_s))
    if not found:
        sys.exit(
            f"no repeat of {options.calls} calls ended within {options.limit_s:g} s: ask for fewer calls"
        )
    rows = summary(found)
    if options.json:
        print(json.dumps({**sizes, "repeats": len(found), "variants": rows}))
        return
    print(
        f"{options.calls} calls, {options.at_once} at once, {len(found)} repeats: medians; ratios within a turn, their range over the repeats"
    )
    print(f"{'':26}{'calls/s':>9}{'of bare':>24}{'cpu ms':>9}{'of bare':>24}")
    for name, row in rows.items():
        line = f"{name:26}"
        for key, digits in (("calls_per_s", 0), ("cpu_ms", 2)):
            middle, low, high = row[f"{key}_of_bare"]
            line += f"{row[key]:9.{digits}f}{f'{middle:.2f} ({low:.2f}-{high:.2f})':>24}"
        print(line)


if __name__ == "__main__":
    main()
