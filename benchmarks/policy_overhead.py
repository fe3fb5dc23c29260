"""Time that a policy itself takes for one decision, without signals' own cost and without a host.

    python benchmarks/policy_overhead.py [--calls 5000] [--rounds 9]

The flow is driven with answers that are ready; the signal returns a number at once. Median over calls of each round, then the
median and extremes over rounds, in microseconds.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from dataclasses import replace

import numpy as np

from confroute import Cascade, Gate, KeepPrivate, Message, Request, Threshold, TokenLogprob
from confroute.asks import Consult, Evidence
from confroute.flow import drive
from confroute.policy import Sticky, TierPrice
from confroute.policy.verdict import verdict_of
from confroute.prices import Price
from confroute.signals import Measurement, Range
from confroute.state import MemoryStore
from confroute.types import Generation, Usage

MEASURED = Measurement(signal="instant", uncertainty=0.5)


class Instant:
    """A signal that costs nothing."""

    name = "instant"
    range = Range(high=1.0)

    def measure(self, case):
        """Return a number at once."""
        return MEASURED
        yield


def timed(work, calls, rounds):
    """Median microseconds of each round but the first."""
    found = []
    for _ in range(rounds + 1):
        times = []
        for _ in range(calls):
            start = time.perf_counter()
            work()
            times.append(time.perf_counter() - start)
        found.append(1e6 * statistics.median(times))
    return found[1:]


def conversation(request, ready):
    """A turn without and with `Sticky`, whose store is this process' memory: on a tier whose cache is not at stake, and on one it is."""
    price = Price(input_usd=1.0, cached_usd=0.1)
    billed = replace(
        ready.generations[0], usage=Usage(input_tokens=1000, output_tokens=10, cached_tokens=900)
    )
    clock = itertools.count(0, 200.0)
    turn = replace(request, tags=frozenset({"thread_id=7"}))

    def under(threshold, store):
        policy = Sticky(
            policy=Cascade.of(Instant(), threshold),
            prices=(TierPrice(tier="cloud", price=price),),
            store=store,
        )

        def answer(ask):
            return Evidence(value=ask.work()) if isinstance(ask, Consult) else Evidence(generations=(billed,))

        return lambda: drive(policy.flow(turn), answer)

    return {
        "kept, in a conversation": under(0.6, MemoryStore()),
        "stayed or not, in a conversation": under(0.4, MemoryStore(clock=lambda: next(clock))),
    }


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    request = Request(messages=(Message(role="user", text="What is 2 + 2?"),))
    ready = Evidence(generations=(Generation(text="4", logprobs=(-0.1,), model="m"),))
    promised = Threshold.certify(np.linspace(0, 1, 500), np.ones(500), alpha=0.05)
    policies = {
        "kept": Cascade.of(Instant(), 0.6),
        "escalated": Cascade.of(Instant(), 0.4),
        "kept, certified": Cascade(gates=(Gate(signal=Instant(), threshold=promised),)),
        "kept, with a privacy rule": Cascade(
            gates=(Gate(signal=Instant(), threshold=Threshold(value=0.6)),),
            rules=(KeepPrivate(patterns=(r"(?i)salary",)),),
        ),
        "kept, token log-probabilities": Cascade.of(TokenLogprob(), 0.6),
    }
    gate = policies["kept"].gates[0]
    works = {"the comparison alone": lambda: verdict_of(gate, MEASURED, stage="draft")}
    works |= {name: (lambda p=p: drive(p.flow(request), lambda _ask: ready)) for name, p in policies.items()}
    works |= conversation(request, ready)
    print(f"{'decision':32} {'p50 us':>7} {'min to max':>15}")
    for name, work in works.items():
        found = timed(work, options.calls, options.rounds)
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"{name:32} {statistics.median(found):7.1f} {spread:>15}")


if __name__ == "__main__":
    main()
