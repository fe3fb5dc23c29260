"""Time that a policy itself takes for one decision, without signals' own cost and without a host.

    python benchmarks/policy_overhead.py [--calls 5000] [--rounds 9]

The flow is driven with answers that are ready; the signal returns a number at once. Median over calls of each round, then the
median and extremes over rounds, in microseconds.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np

from confroute import Cascade, Gate, KeepPrivate, Message, Request, Threshold, TokenLogprob
from confroute.asks import Evidence
from confroute.flow import drive
from confroute.policy.verdict import verdict_of
from confroute.signals import Measurement, Range
from confroute.types import Generation

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
    print(f"{'decision':32} {'p50 us':>7} {'min to max':>15}")
    for name, work in works.items():
        found = timed(work, options.calls, options.rounds)
        spread = f"{min(found):.1f} to {max(found):.1f}"
        print(f"{name:32} {statistics.median(found):7.1f} {spread:>15}")


if __name__ == "__main__":
    main()
