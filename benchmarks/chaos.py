"""Calls through the three hosts while edge and cloud fail in turn: is any lost, misrecorded or indiscreet, and what does routing cost?

    python benchmarks/chaos.py [--calls 15000] [--workers 8] [--block 40] [--timeout-s 0.5] [--json]

Real clients (ChatOpenAI, OpenAILike) against two OpenAI-compatible servers in a process of their own, which keep a log of every request.
A sixth of the calls each: LangChain, LlamaIndex and `confroute.Router` (over two ChatOpenAI), sync and async; every third is streamed,
every fifth is private. Around
the cascade (log-probabilities, then samples in a grey zone) stand a hedge, audits of 1 in 10 kept answers, and a budget; both tiers have a
time limit, retries and a breaker. The faults, one block of calls after the other: none; edge cut off; cloud 429; cloud 500; cloud silent;
cloud's answers and streams cut; both down; both flapping.

`lost`: calls that ended neither in an answer nor in one of confroute's errors. `misrecorded`: answers whose text is not the one that
the server of the recorded route sent for that call. `indiscreet`: requests with a private text in the cloud's log. `overhead`: a call's
wall time less the time of its asks, the host's own work included; with several workers also waiting for each other.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from confroute import (
    Breaker,
    Cascade,
    Gate,
    KeepPrivate,
    Limits,
    RetryBudget,
    Router,
    SelfConsistency,
    Threshold,
    TokenLogprob,
    background,
    record,
)
from confroute.budget import Budget, Paced
from confroute.drift import Audited, DriftTest
from confroute.errors import ConfrouteError
from confroute.policy.hedge import Hedged
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedModel, ScriptedServer, faults

PHASES = ("none", "edge cut", "cloud 429", "cloud 500", "cloud silent", "cloud cut", "both down", "flapping")
BLOCK, FLAP, TIMEOUT_S = 40, 7, 0.5
# After an error: callers that come back at once would spend all calls while a breaker's one probe is under way.
PAUSE_S = 0.1
FORMS = (
    "langchain sync",
    "langchain async",
    "llamaindex sync",
    "llamaindex async",
    "router sync",
    "router async",
)
MARK = re.compile(r"call (\d+)")


def fault_of(tier, number, block):
    """What goes wrong with a request, and after how many words of a stream."""
    now = PHASES[number // block % len(PHASES)]
    if now == "both down" or (now == "edge cut" and tier == "edge"):
        return faults.cut_off(), 0
    if now == "flapping" and number // FLAP % 2:
        return faults.server_error(), 0
    if tier == "edge":
        return None, 0
    kinds = {
        "cloud 429": (faults.rate_limited(retry_after_s=0.01), 0),
        "cloud 500": (faults.server_error(), 0),
        "cloud silent": (faults.timeout(), 0),
        "cloud cut": (faults.cut_off(), 2),
    }
    return kinds.get(now, (None, 0))


class Server(ScriptedServer):
    """One tier; each request goes into the log before it is answered."""

    def __init__(self, tier, log, *, block, timeout_s):
        super().__init__(ScriptedModel(), hold_s=1.3 * timeout_s)
        self.tier, self.log, self.block, self.lock = tier, log, block, threading.Lock()

    def reply(self, body):
        """By the number in the prompt: sure, unsure or grey drafts; the cloud says what it is."""
        prompt = "\n".join(str(message["content"]) for message in body["messages"])
        number = int(MARK.search(prompt)[1])
        fault, after = fault_of(self.tier, number, self.block)
        entry = {
            "tier": self.tier,
            "call": number,
            "private": "PRIVATE" in prompt,
            "fault": fault is not None,
        }
        with self.lock:
            self.log.write(json.dumps(entry) + "\n")
            self.log.flush()
        logprob = (-0.05, -1.0, -0.3)[number % 3]
        text = f"{self.tier} answer {number} and no other"
        return Reply(text=text, logprob=logprob, fault=fault, fault_after=after), prompt


def serve(path, how):
    """Serve both tiers until standard input ends."""
    with (
        Path(path).open("w", encoding="utf-8") as log,
        Server("edge", log, **how) as edge,
        Server("cloud", log, **how) as cloud,
    ):
        print(json.dumps({"edge": edge.url, "cloud": cloud.url}), flush=True)
        sys.stdin.read()


@contextlib.contextmanager
def servers(folder, how):
    """URLs of both tiers, and where their log stands."""
    log = Path(folder) / "log.jsonl"
    command = [sys.executable, __file__, "--serve", str(log), json.dumps(how)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline()), log
    finally:
        process.communicate()


def policy():
    """A cascade under every layer that talks to the cloud."""
    cascade = Cascade(
        gates=(
            Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3), grey=(0.1, 0.9)),
            Gate(signal=SelfConsistency(n=3, step=3), threshold=Threshold(value=0.4)),
        ),
        rules=(KeepPrivate(patterns=("PRIVATE",)),),
        on_cloud_error="edge",
    )
    # Audited answers name their tier, so each would count as an error: the alarm is to warn only.
    audited = Audited(
        policy=Hedged(policy=cascade), test=DriftTest(level=0.5), share=0.1, store=MemoryStore()
    )
    return Paced(policy=audited, budgets=(Budget(limit=1e9, unit="calls"),), store=MemoryStore())


def limits(timeout_s):
    """A time limit, retries and a breaker."""
    breaker = Breaker(failures=8, open_s=0.05)
    return Limits(
        timeout_s=timeout_s,
        attempts=2,
        wait_s=0.005,
        max_wait_s=0.01,
        breaker=breaker,
        retries=RetryBudget(share=0.5),
    )


def chat_models(urls):
    """A ChatOpenAI a tier."""
    from langchain_openai import ChatOpenAI

    return {
        tier: ChatOpenAI(model=f"{tier}-model", base_url=url, api_key="k", max_retries=0)
        for tier, url in urls.items()
    }


def langchain_router(urls, timeout_s):
    """ChatConfRoute over two ChatOpenAI."""
    from langchain_confroute import ChatConfRoute

    return ChatConfRoute(
        **chat_models(urls), policy=policy(), edge_limits=limits(timeout_s), cloud_limits=limits(timeout_s)
    )


def plain_router(urls, timeout_s):
    """`confroute.Router` over the same two."""
    return Router(
        **chat_models(urls), policy=policy(), edge_limits=limits(timeout_s), cloud_limits=limits(timeout_s)
    )


def llamaindex_models(urls):
    """An OpenAILike a tier."""
    from llama_index.llms.openai_like import OpenAILike

    return {
        tier: OpenAILike(
            model=f"{tier}-model",
            api_base=url,
            api_key="k",
            max_retries=0,
            is_chat_model=True,
            reuse_client=True,
        )
        for tier, url in urls.items()
    }


def llamaindex_router(urls, timeout_s):
    """ConfRouteLLM over them."""
    from llamaindex_confroute import ConfRouteLLM

    return ConfRouteLLM(
        **llamaindex_models(urls),
        policy=policy(),
        edge_limits=limits(timeout_s),
        cloud_limits=limits(timeout_s),
    )


HOSTS = {"langchain": langchain_router, "llamaindex": llamaindex_router, "router": plain_router}


def question(number):
    """The prompt of a call."""
    return f"This is call {number}." + (" It is PRIVATE." if number % 5 == 0 else "")


def ask(router, number):
    """One sync call of any host; the answer's text."""
    streamed = number % 3 == 0
    if isinstance(router, Router):
        return "".join(router.stream(question(number))) if streamed else router.ask(question(number)).text
    if hasattr(router, "invoke"):
        if not streamed:
            return router.invoke(question(number)).text
        return "".join(chunk.text for chunk in router.stream(question(number)))
    if not streamed:
        return router.complete(question(number)).text
    return "".join(chunk.delta or "" for chunk in router.stream_complete(question(number)))


async def aask(router, number):
    """One async call of any host."""
    streamed = number % 3 == 0
    if isinstance(router, Router):
        if not streamed:
            return (await router.aask(question(number))).text
        return "".join([part async for part in router.astream(question(number))])
    if hasattr(router, "invoke"):
        if not streamed:
            return (await router.ainvoke(question(number))).text
        return "".join([chunk.text async for chunk in router.astream(question(number))])
    if not streamed:
        return (await router.acomplete(question(number))).text
    return "".join([chunk.delta or "" async for chunk in await router.astream_complete(question(number))])


def ended(number, form, started, decisions, text, error):
    """What one call came to."""
    wall = time.perf_counter() - started
    decision = decisions[-1] if decisions else None
    return {
        "call": number,
        "form": form,
        "text": text,
        "error": None if error is None else type(error).__name__,
        "typed": isinstance(error, ConfrouteError),
        "route": decision and decision.route,
        "degraded": bool(decision and decision.degraded),
        "decisions": len(decisions),
        "overhead_s": wall - decision.latency_s if decision else None,
    }


def run_sync(router, form, numbers, workers):
    """All calls of one form, by threads."""

    def one(number):
        text, failed, started = None, None, time.perf_counter()
        with record() as decisions:
            try:
                text = ask(router, number)
            except Exception as error:  # noqa: BLE001  what kind it is, is the question
                failed = error
        end = ended(number, form, started, decisions, text, failed)
        if failed is not None:
            time.sleep(PAUSE_S)
        return end

    with ThreadPoolExecutor(workers) as pool:
        done = list(pool.map(one, numbers))
    background.wait()
    return done


async def run_async(router, form, numbers, workers):
    """All calls of one form, by tasks."""
    gate = asyncio.Semaphore(workers)

    async def one(number):
        async with gate:
            text, failed, started = None, None, time.perf_counter()
            with record() as decisions:
                try:
                    text = await aask(router, number)
                except Exception as error:  # noqa: BLE001  what kind it is, is the question
                    failed = error
            end = ended(number, form, started, decisions, text, failed)
            if failed is not None:
                await asyncio.sleep(PAUSE_S)
            return end

    done = await asyncio.gather(*(one(number) for number in numbers))
    await background.await_all()
    return done


def chaos(calls, workers, *, block, timeout_s):
    """Every call's end, and the servers' log."""
    share = calls // len(FORMS)
    # One for all: ChatOpenAI of one address share their client, whose connections belong to the loop that opened them.
    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as folder:
        with servers(folder, {"block": block, "timeout_s": timeout_s}) as (urls, log):
            done = []
            for at, form in enumerate(FORMS):
                numbers = range(at * share, (at + 1) * share)
                router = HOSTS[form.split()[0]](urls, timeout_s)
                if form.endswith("async"):
                    done += loop.run_until_complete(run_async(router, form, numbers, workers))
                else:
                    done += run_sync(router, form, numbers, workers)
        return done, [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def judged(done, log):
    """The four questions, by form."""
    answered = {(entry["tier"], entry["call"]) for entry in log if not entry["fault"]}
    found = {}
    for form in FORMS:
        ends = [end for end in done if end["form"] == form]
        good = [end for end in ends if end["error"] is None]
        overhead = sorted(end["overhead_s"] for end in good)
        found[form] = {
            "calls": len(ends),
            "answered": len(good),
            "degraded": sum(end["degraded"] for end in good),
            "errors": dict(Counter(end["error"] for end in ends if end["error"])),
            "lost": [end for end in ends if end["error"] and not end["typed"]],
            "misrecorded": [end for end in good if not told(end, answered)],
            "overhead_p50_ms": 1000 * statistics.median(overhead),
            "overhead_p99_ms": 1000 * overhead[int(0.99 * len(overhead))],
        }
    return found, [entry for entry in log if entry["tier"] == "cloud" and entry["private"]]


def told(end, answered):
    """Whether an answer is what the server of its recorded route sent, by one decision."""
    said = end["text"] == f"{end['route']} answer {end['call']} and no other"
    return said and (end["route"], end["call"]) in answered and end["decisions"] == 1


COLUMNS = (
    "",
    "calls",
    "answered",
    "degraded",
    "errors of ours",
    "lost",
    "recorded wrong",
    "p50 ms",
    "p99 ms",
)


def print_table(found):
    """As Markdown, and below it what was lost or recorded wrong."""
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for form, row in found.items():
        lost = len(row["lost"])
        ours = sum(row["errors"].values()) - lost
        counts = (row["calls"], row["answered"], row["degraded"], ours, lost, len(row["misrecorded"]))
        overhead = (f"{row['overhead_p50_ms']:.1f}", f"{row['overhead_p99_ms']:.1f}")
        print(f"| {' | '.join(map(str, (form, *counts, *overhead)))} |")
    print()
    kinds = sum((Counter(row["errors"]) for row in found.values()), Counter())
    print("errors:", ", ".join(f"{name} {count}" for name, count in kinds.most_common()))
    for form, row in found.items():
        for end in (row["lost"] + row["misrecorded"])[:5]:
            print("   ", form, end)


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=15000)
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--block", type=int, default=BLOCK, help="calls that each fault holds")
    parser.add_argument("--timeout-s", type=float, default=TIMEOUT_S)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], json.loads(options.serve[1]))
        return
    # Every fault would be told.
    logging.getLogger("confroute").setLevel(logging.CRITICAL)
    done, log = chaos(options.calls, options.workers, block=options.block, timeout_s=options.timeout_s)
    found, indiscreet = judged(done, log)
    private = sum(end["call"] % 5 == 0 for end in done)
    if options.json:
        print(json.dumps({"forms": found, "indiscreet": indiscreet, "log": log}))
        return
    print_table(found)
    print(f"{len(log)} requests at the servers, {len(indiscreet)} of {private} private calls at the cloud")


if __name__ == "__main__":
    main()
