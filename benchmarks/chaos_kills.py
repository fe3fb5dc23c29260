"""Calls through the three hosts while their processes are killed and their disk is full: is a record lost, a budget overspent, a log unreadable?

    python benchmarks/chaos_kills.py [--calls 1800] [--json]

A third of the calls each: LangChain, LlamaIndex and `confroute.Router`, with the real clients and the servers of chaos.py, which fail in
nothing here. Two processes a host, four threads each, share a budget in one SQLite file; each has a decision log of its own. They are
killed (SIGKILL) after a random number of calls, in the middle of others, and new ones go on with the calls that had not ended, in the same
files. Every third kill also leaves half a line in the log, which no kill has been seen to do and a power cut may. Some blocks of calls find
the disk full: the system takes no byte more of any file of the process (RLIMIT_FSIZE), first of the store, then of the log too.

`lost`: calls that ended neither in an answer nor in one of confroute's errors. `unlogged`: calls that ended while there was room and whose
decision is in no log. `overspent`: requests at the cloud beyond the budget, or beyond what the store says was reserved for them.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import multiprocessing
import os
import random
import resource
import signal
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from chaos import ask, chat_models, llamaindex_models, servers

from confroute import Cascade, Gate, KeepPrivate, Router, SelfConsistency, Threshold, TokenLogprob, record
from confroute.budget import Budget, Paced
from confroute.errors import ConfrouteError
from confroute.observe.log import DecisionLog, read_log
from confroute.state import SQLiteStore

HOSTS = ("langchain", "llamaindex", "router")
SLOTS, THREADS, BLOCK = 2, 4, 4
ROOM, STORE_FULL, ALL_FULL = "room", "store full", "log and store full"
# Of each eight blocks of calls of a process.
BLOCKS = (ROOM, ROOM, ROOM, STORE_FULL, ROOM, ROOM, ALL_FULL, ROOM)
HALF_A_LINE = b'{"at": "2026-01-01T00:00:00.000+00:00", "route": "ed'


def budget(calls):
    """Less than the calls would need, so that it is spent before they end."""
    return Budget(limit=max(1, calls // 5), unit="calls", name="kills")


def router_of(host, urls, store, calls):
    """A router of this host, under a hard budget in that store."""
    cascade = Cascade(
        gates=(
            Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3), grey=(0.1, 0.9)),
            Gate(signal=SelfConsistency(n=3, step=3), threshold=Threshold(value=0.4)),
        ),
        rules=(KeepPrivate(patterns=("PRIVATE",)),),
        on_cloud_error="edge",
    )
    policy = Paced(policy=cascade, budgets=(budget(calls),), store=SQLiteStore(store))
    if host == "llamaindex":
        from llamaindex_confroute import ConfRouteLLM

        return ConfRouteLLM(**llamaindex_models(urls), policy=policy)
    if host == "langchain":
        from langchain_confroute import ChatConfRoute

        return ChatConfRoute(**chat_models(urls), policy=policy)
    return Router(**chat_models(urls), policy=policy)


@contextlib.contextmanager
def disk(state, log):
    """The log of a block of calls, on a disk in that state."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with contextlib.nullcontext() if state == STORE_FULL else DecisionLog(log):
        if state != ROOM:
            resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def work(host, urls, folder, slot, calls, numbers, begin, told):
    """Make the calls of one process, and tell of each how it ended."""
    logging.getLogger("confroute").setLevel(logging.CRITICAL)
    router = router_of(host, urls, folder / f"{host}.sqlite", calls)

    def one(number, state):
        error, text = None, None
        with record() as decisions:
            try:
                text = ask(router, number)
            except Exception as caught:  # noqa: BLE001  what kind it is, is the question
                error = caught
        decision = decisions[-1] if decisions else None
        end = {
            "call": number,
            "disk": state,
            "answered": text is not None,
            "degraded": bool(decision and decision.degraded),
            "error": error and type(error).__name__,
            "typed": isinstance(error, ConfrouteError),
            "run_id": decision and decision.run_id,
        }
        # One write: what a pipe takes at once is not torn by a kill.
        os.write(told.fileno(), json.dumps(end).encode() + b"\n")

    with ThreadPoolExecutor(THREADS) as pool:
        for at in range(0, len(numbers), BLOCK):
            state = BLOCKS[(begin + at // BLOCK) % len(BLOCKS)]
            with disk(state, folder / f"{host}-{slot}.jsonl"):
                list(pool.map(one, numbers[at : at + BLOCK], [state] * BLOCK))


def torn_lines(path):
    """How many lines of a log are torn; that it can be read is the point."""
    torn = []
    if path.exists():
        list(read_log(path, torn=torn.append))
    return len(torn)


class Slot:
    """One process after the other, on the calls that are left of its share."""

    def __init__(self, host, urls, folder, slot, calls, left, draw):
        self.about = (host, urls, folder, slot, calls)
        self.log = folder / f"{host}-{slot}.jsonl"
        self.left, self.draw = left, draw
        self.kills, self.halves, self.torn = 0, 0, 0

    def run(self):
        """Every end that was told, until none is left."""
        ends = []
        while self.left:
            ends += self._life()
            done = {end["call"] for end in ends}
            self.left = [number for number in self.left if number not in done]
        return ends

    def _life(self):
        own, childs = multiprocessing.Pipe(duplex=False)
        processes = multiprocessing.get_context("forkserver")
        process = processes.Process(
            target=work, args=(*self.about, self.left, self.draw.randrange(len(BLOCKS)), childs)
        )
        process.start()
        childs.close()
        # The last calls are made too.
        lives = self.draw.randint(8, 32) if len(self.left) > 16 else len(self.left) + 1
        ends = []
        with os.fdopen(os.dup(own.fileno()), "rb") as told:
            for line in told:
                ends.append(json.loads(line))
                if len(ends) == lives:
                    os.kill(process.pid, signal.SIGKILL)
        own.close()
        process.join()
        if process.exitcode == -signal.SIGKILL:
            self._after_kill()
        elif process.exitcode != 0:
            msg = f"a process ended with {process.exitcode}: {self.about}"
            raise RuntimeError(msg)
        return ends

    def _after_kill(self):
        self.kills += 1
        if self.kills % 3 == 0 and self.log.exists():
            before = torn_lines(self.log)
            with self.log.open("ab") as file:
                file.write(HALF_A_LINE)
            self.halves += 1 - before
        self.torn += torn_lines(self.log)


def run_host(host, urls, folder, calls, first):
    """What became of all calls of one host."""
    numbers = list(range(first, first + calls))
    draw = random.Random(first)
    slots = [
        Slot(host, urls, folder, slot, calls, numbers[slot::SLOTS], random.Random(draw.random()))
        for slot in range(SLOTS)
    ]
    with ThreadPoolExecutor(SLOTS) as pool:
        ends = [end for told in pool.map(Slot.run, slots) for end in told]
    logged = {entry.decision.run_id for slot in slots for entry in read_log(slot.log)}
    kept = SQLiteStore(folder / f"{host}.sqlite").change(
        [f"budget/{budget(calls).name}"], lambda records: (records, records[0])
    )
    answered = [end for end in ends if end["answered"]]
    return {
        "calls": len({end["call"] for end in ends}),
        "kills": sum(slot.kills for slot in slots),
        "answered": len(answered),
        "degraded": sum(end["degraded"] for end in answered),
        "errors": dict(Counter(end["error"] for end in ends if end["error"])),
        "lost": [end for end in ends if end["error"] and not end["typed"]],
        "unlogged": [end for end in answered if end["disk"] == ROOM and end["run_id"] not in logged],
        "torn": sum(slot.torn for slot in slots),
        "halves": sum(slot.halves for slot in slots),
        "full": sum(end["disk"] != ROOM for end in ends),
        "reserved": kept["spent"] + sum(amount for amount, _ in kept["held"].values()),
        "limit": budget(calls).limit,
    }


def chaos(calls):
    """By host, with what the cloud's server saw."""
    multiprocessing.set_forkserver_preload(
        ["__main__", "langchain_openai", "langchain_confroute", "llama_index.llms.openai_like"]
    )
    share = calls // len(HOSTS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with servers(folder, {"block": 10**9, "timeout_s": 5}) as (urls, log):
            found = {host: run_host(host, urls, folder, share, at * share) for at, host in enumerate(HOSTS)}
        seen = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    for at, row in enumerate(found.values()):
        own = [one for one in seen if one["tier"] == "cloud" and one["call"] // share == at]
        row["cloud"] = len(own)
        row["overspent"] = max(0, len(own) - min(row["limit"], row["reserved"]))
        row["indiscreet"] = sum(one["private"] for one in own)
    return found


COLUMNS = (
    "",
    "calls",
    "kills",
    "disk full",
    "answered",
    "errors of ours",
    "lost",
    "unlogged",
    "half lines, told",
    "cloud, budget",
)


def print_table(found):
    """As Markdown, and below it the errors, and what was lost or not logged."""
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for host, row in found.items():
        ours = sum(row["errors"].values()) - len(row["lost"])
        counts = (
            row["calls"],
            row["kills"],
            row["full"],
            row["answered"],
            ours,
            len(row["lost"]),
            len(row["unlogged"]),
        )
        pairs = (f"{row['halves']}, {row['torn']}", f"{row['cloud']}, {row['limit']}")
        print(f"| {' | '.join(map(str, (host, *counts, *pairs)))} |")
    kinds = sum((Counter(row["errors"]) for row in found.values()), Counter())
    print("\nerrors:", ", ".join(f"{name} {count}" for name, count in kinds.most_common()))
    print("overspent:", *(row["overspent"] for row in found.values()))
    print("private calls at the cloud:", *(row["indiscreet"] for row in found.values()))
    for host, row in found.items():
        for end in (row["lost"] + row["unlogged"])[:5]:
            print("   ", host, end)


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=1800)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = chaos(options.calls)
    if options.json:
        print(json.dumps(found))
    else:
        print_table(found)


if __name__ == "__main__":
    main()
