"""False alarms of the drift test, and audits until it notices a change.

    python benchmarks/drift.py [--json] [--runs N] [--audits N]

Losses are Bernoulli: at the promised level (0.05) for the false alarms; after 200 such audits at 0.10, 0.15, 0.30 at once
(abrupt), or rising by equal steps over the next 400 (slow). A run that raises no alarm counts as longer than its audits.
"""

from __future__ import annotations

import argparse
import json
import math

import numpy as np

from confroute.drift import DriftTest

LEVEL, BEFORE, RAMP = 0.05, 200, 400


def wilson(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share."""
    z, p = 1.96, hits / n
    middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return (middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)


def delays(test: DriftTest, after: float, *, slow: bool, runs: int, audits: int) -> dict[str, float]:
    """Audits from the change to the alarm: median, 90th percentile, share of alarms before it and of none."""
    chance = np.random.default_rng(7)
    step = np.arange(audits)
    grown = np.clip((step - BEFORE) / RAMP, 0, 1) if slow else (step >= BEFORE)
    mean = LEVEL + (after - LEVEL) * grown
    alarms = [test.first_alarm((chance.random(audits) < mean).astype(float)) for _ in range(runs)]
    found = np.array([np.inf if alarm is None else alarm - BEFORE for alarm in alarms])
    late = np.sort(found[found > 0])
    return {
        "median": float(late[len(late) // 2]),
        "p90": float(late[int(0.9 * len(late))]),
        "before": float((found <= 0).mean()),
        "none": float(np.isinf(found).mean()),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--audits", type=int, default=3000)
    options = parser.parse_args()
    test, chance = DriftTest(level=LEVEL, false_alarm=0.05), np.random.default_rng(0)
    still = (chance.random((options.runs, options.audits)) < LEVEL).astype(float)
    alarms = sum(test.first_alarm(losses) is not None for losses in still)
    results = {
        "false_alarms": {"share": alarms / options.runs, "ci": wilson(alarms, options.runs), "stated": 0.05},
        "audits_to_alarm": {
            f"{'slow' if slow else 'abrupt'} to {after:g}": delays(
                test, after, slow=slow, runs=min(options.runs, 300), audits=options.audits
            )
            for after in (0.10, 0.15, 0.30)
            for slow in (False, True)
        },
    }
    print(json.dumps(results, indent=None if options.json else 2))


if __name__ == "__main__":
    main()
