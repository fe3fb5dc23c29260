"""Simulated days of traffic under a budget: what is spent, and how the threshold moves.

    python benchmarks/budget.py [--calls 10000] [--days 2] [--store memory sqlite] [--traffic bursty even noon office]
                                [--svg FILE] [--json]

Calls go through `Paced` and `run` by 8 threads, in order of arrival, under a clock that is moved to each call's time. The cloud's answers
differ in length; their reservation is several times their mean cost. The budget pays for 3 of 10 calls and its cap is hard. The first
day nothing is known of the traffic, the second what the first has taught.

Traffic: `bursty` is a daily wave times bursts of 2 to 15 minutes at 5 to 25 times the rate; `even`; `noon` a Beta(2, 2); `office` two humps
and a dead evening. Signal values are drawn half as high again as those that the ladder was fitted on.

`spent`: share of the budget, as charged by all calls. `over`: USD above the cap. `unbooked`: by how many USD the store's books differ from
the sum of all calls. `path`: total variation of the
threshold, as cloud share. `turns`: how often it turned by 0.05 or more; a controller that oscillates turns with every few calls.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from confroute import Cascade, Limits, Message, Request, TokenLogprob
from confroute.budget import Budget, Pace, Paced
from confroute.executor import run
from confroute.prices import Price
from confroute.state import MemoryStore, SQLiteStore
from confroute.types import Generation, Usage
from confroute.views.svg import COLOURS, MARGIN, TOP, Line, Panel, document

DAY_S, WORKERS, SHARE, LONGEST = 86_400.0, 8, 0.3, 300
PRICE = Price(input_usd=0.15, output_usd=0.60)
PROMPT_TOKENS, MEAN_OUTPUT = 60, 90
ONCE = {"edge": Limits(attempts=1), "cloud": Limits(attempts=1)}
TRAFFIC = ("bursty", "even", "noon", "office")


def arrivals(kind, calls, chance):
    """When the calls of one day come, as sorted shares of it."""
    if kind == "even":
        times = chance.random(calls)
    elif kind == "noon":
        times = chance.beta(2, 2, calls)
    elif kind == "office":
        humps = np.where(chance.random(calls) < 0.5, 0.42, 0.62) + 0.06 * chance.normal(size=calls)
        times = np.clip(humps, 0, 0.999)
    else:
        rate, minute = 1 + 0.6 * np.sin(np.linspace(0, 2 * np.pi, 1440) - 1.5), 0
        while minute < 1440:
            long = int(chance.integers(2, 15)) if chance.random() < 0.02 else 0
            rate[minute : minute + long] *= chance.uniform(5, 25)
            minute += max(1, long)
        times = (chance.choice(1440, calls, p=rate / rate.sum()) + chance.random(calls)) / 1440
    return np.sort(times)


@dataclass
class Day:
    """What one day brought, by call in the order of arrival."""

    now_s: list = field(default_factory=list)
    threshold: list = field(default_factory=list)
    spent: list = field(default_factory=list)
    sent: int = 0
    booked: float = 0.0


def simulated(kind, *, calls, days, store_of, seed=0):
    """The days, the budget's limit, and the recorded uncertainties of the ladder."""
    chance, clock = np.random.default_rng(seed), {"now": 0.0}
    recorded = chance.exponential(1.0, 500)
    mean = PRICE.of(Usage(input_tokens=PROMPT_TOKENS, output_tokens=MEAN_OUTPUT))
    budget = Budget(
        limit=SHARE * calls * mean, pace=Pace.fit("token_logprob", recorded.tolist(), cloud_share=0.5)
    )
    store = store_of(lambda: clock["now"])
    policy = Paced(
        policy=Cascade.of(TokenLogprob(), 1.0),
        budgets=(budget,),
        price=PRICE,
        max_output_tokens=LONGEST,
        store=store,
        # Simulated hours pass while a thread waits for its turn; none of these reservations is abandoned.
        lease_s=DAY_S,
    )
    found, lock = [], threading.Lock()
    for number in range(days):
        day = Day()
        found.append(day)
        times = (number + arrivals(kind, calls, chance)) * DAY_S
        doubts, lengths = chance.exponential(1.5, calls), chance.gamma(2, MEAN_OUTPUT / 2, calls)
        todo = zip(times.tolist(), doubts.tolist(), np.clip(lengths, 1, LONGEST).tolist(), strict=True)
        with ThreadPoolExecutor(WORKERS) as pool:
            for _ in range(WORKERS):
                pool.submit(work, todo, lock, clock, policy, day)
        # A thread that waited may have noted its call late.
        order = np.argsort(day.now_s, kind="stable")
        day.now_s, day.threshold, day.spent = (
            np.array(values)[order] for values in (day.now_s, day.threshold, day.spent)
        )
        day.spent = np.cumsum(day.spent)
        day.booked = store.change(["budget/cloud"], lambda found: (found, found[0]["spent"]))
    if isinstance(store, SQLiteStore):
        store.close()
    return found, budget, recorded


def work(todo, lock, clock, policy, day):
    """One worker: take the next call at its time, route it, note what the books say."""
    request = Request(messages=(Message(role="user", text="What is 2 + 2?"),))
    while True:
        with lock:
            now, doubt, length = next(todo, (None, 0, 0))
            if now is None:
                return
            clock["now"] = now

        def call(ask, doubt=doubt, length=length):
            if ask.tier == "edge":
                return [Generation(text="4", logprobs=(-doubt,), usage=Usage(output_tokens=1))]
            usage = Usage(input_tokens=PROMPT_TOKENS, output_tokens=round(length))
            return [Generation(text="four", usage=usage)]

        decision = run(policy, request, call, ONCE).decision
        with lock:
            day.now_s.append(now)
            day.threshold.append(decision.threshold)
            day.spent.append(decision.layers["budget"]["cloud"]["charged"])
            day.sent += decision.route == "cloud"


def turns(levels, band=0.05):
    """How often a path turned round by at least `band`."""
    count, way, low, high = 0, 0, levels[0], levels[0]
    for level in levels:
        low, high = min(low, level), max(high, level)
        if way >= 0 and high - level >= band:
            count, way, low, high = count + (way > 0), -1, level, level
        elif way <= 0 and level - low >= band:
            count, way, low, high = count + (way < 0), 1, level, level
    return count


def measured(days, budget, recorded):
    """The numbers of each day."""
    ranks = np.sort(recorded)
    for day in days:
        levels = np.interp(day.threshold, ranks, np.linspace(0, 1, ranks.size))
        yield {
            "spent": float(day.spent[-1] / budget.limit),
            "over": max(0.0, float(day.spent[-1]) - budget.limit),
            "unbooked": abs(float(day.spent[-1]) - day.booked),
            "cloud_share": day.sent / len(day.now_s),
            "path": float(np.abs(np.diff(levels)).sum()),
            "turns": turns(levels.tolist()),
        }


def svg_of(results):
    """For each traffic a panel: the threshold over the days, and the share of the budget that was spent."""
    parts, size, high = [], 300, 0.0
    for name, (days, budget) in results.items():
        panel = Panel(MARGIN, TOP + high, size, width=480, across=(0, len(days)))
        top = max(max(day.threshold) for day in days)
        parts += panel.axes(name, "days", f"threshold, of {top:.2g} nats; spent, of the budget", percent="y")
        lines = []
        for day in days:
            now = np.array(day.now_s) / DAY_S
            pick = np.unique(np.linspace(0, now.size - 1, 800).astype(int))
            for words, values, scale in (
                ("threshold", day.threshold, top),
                ("spent", day.spent, budget.limit),
            ):
                points = [(float(now[at]), values[at] / scale) for at in pick]
                lines.append(Line(words=words, points=points, colour=COLOURS[words == "spent"]))
        parts += [panel.line(line.points, colour=line.colour) for line in lines[:-2]]
        parts += panel.lines(lines[-2:])
        high += TOP + size + 50
    return document(MARGIN + 480 + 140, high, parts)


def stores(names, folder):
    """How each store is made."""
    made = {
        "memory": lambda clock: MemoryStore(clock=clock),
        "sqlite": lambda clock: SQLiteStore(Path(folder) / "budget.db", clock=clock),
    }
    return {name: made[name] for name in names}


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=2)
    parser.add_argument("--store", nargs="+", default=["memory", "sqlite"], choices=["memory", "sqlite"])
    parser.add_argument("--traffic", nargs="+", default=[*TRAFFIC], choices=TRAFFIC)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--svg", type=Path)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    # Every refused call would be told.
    logging.getLogger("confroute").setLevel(logging.ERROR)
    results, drawn = {}, {}
    for kind in options.traffic:
        for store in options.store:
            with tempfile.TemporaryDirectory() as folder:
                days, budget, recorded = simulated(
                    kind,
                    calls=options.calls,
                    days=options.days,
                    store_of=stores([store], folder)[store],
                    seed=options.seed,
                )
            results[f"{kind}, {store}"] = [*measured(days, budget, recorded)]
            drawn[f"{kind}, {store}"] = days, budget
            if not options.json:
                for number, day in enumerate(results[f"{kind}, {store}"], 1):
                    print(
                        f"{kind:7} {store:7} day {number}  spent {day['spent']:.4f}  over {day['over']:.3g}  "
                        f"unbooked {day['unbooked']:.1g}  "
                        f"cloud share {day['cloud_share']:.3f}  path {day['path']:.1f}  turns {day['turns']}",
                        flush=True,
                    )
    if options.svg is not None:
        options.svg.write_text(svg_of(drawn), encoding="utf-8")
    if options.json:
        print(json.dumps(results))


if __name__ == "__main__":
    main()
