"""How many grades by people a judge saves at the same promise: recorded runs, with a judge simulated from the recorded grades.

The judge grades each answer as recorded, but for an error rate of its own, the same for right and wrong answers. GPT-4 contradicts people
on .132 of the pairs of LLMBar where its two orders agree, and on .181 by one order (docs/judge.md).

For each run, error rate and number m of rows that people grade, over random draws of these rows: the share of answers kept by the labels
alone (exact binomial test on m rows), by the judge and the labels (`certified_judged`), and with how many labels alone as much would be kept.
A refusal keeps nothing.

    CONFROUTE_DATA=... python benchmarks/judged_labels.py [--draws N]
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _recorded import nine_models

from confroute.errors import CalibrationError
from confroute.policy.guarantee import Grades, certified, certified_judged

ALPHA, DELTA = 0.1, 0.1
LABELS = (100, 200, 400, 800)
ALONE = (60, 80, 100, 140, 200, 280, 400, 560, 800, 1100, 1500)
ERRORS = (0.0, 0.01, 0.03, 0.05, 0.13)
NAN = float("nan")


def kept(find, u):
    """Share of answers that the threshold keeps, and 0 for a refusal."""
    try:
        return float((u <= find()[0]).mean())
    except CalibrationError:
        return 0.0


def alone(u, edge, cloud, m, generator):
    """Share kept by the grades of m rows."""
    chosen = generator.permutation(u.size)[:m]
    return kept(
        lambda: certified(u[chosen], edge[chosen], cloud[chosen], alpha=ALPHA, delta=DELTA, horizon=math.inf),
        u,
    )


def powered(u, edge, cloud, m, error, generator):
    """Share kept by the grades of m rows and a judge's of all."""
    people = generator.permutation(u.size) < m
    said = [np.abs(grades - (generator.random(u.size) < error)) for grades in (edge, cloud)]
    known = [np.where(people, grades, NAN) for grades in (edge, cloud)]
    return kept(
        lambda: certified_judged(
            u,
            judged=Grades(edge=said[0], cloud=said[1]),
            human=Grades(edge=known[0], cloud=known[1]),
            alpha=ALPHA,
            delta=DELTA,
        ),
        u,
    )


def mean(measure, draws):
    """Mean over draws, each with a seed of its own."""
    return float(np.mean([measure(np.random.default_rng(seed)) for seed in range(draws)]))


def table(dataset, u, edge, cloud, draws):
    """Print what is kept at each number of labels and error rate."""
    curve = [mean(lambda g, m=m: alone(u, edge, cloud, m, g), draws) for m in ALONE]
    print(
        f"\n{dataset}: {u.size} rows, regret {ALPHA:g} at {1 - DELTA:g}; edge {edge.mean():.3f}, cloud {cloud.mean():.3f}"
    )
    print(
        "| labels | kept, labels alone | "
        + " | ".join(f"judge wrong on {error:.0%}" for error in ERRORS)
        + " |"
    )
    print("|---|---|" + "---|" * len(ERRORS))
    for m in LABELS:
        cells = []
        for error in ERRORS:
            share = mean(lambda g, m=m, error=error: powered(u, edge, cloud, m, error, g), draws)
            worth = np.interp(share, np.maximum.accumulate(curve), ALONE)
            cells.append(f"{share:.3f} (as {worth:.0f})")
        base = mean(lambda g, m=m: alone(u, edge, cloud, m, g), draws)
        print(f"| {m} | {base:.3f} | " + " | ".join(cells) + " |", flush=True)


def main():
    """Print a table per run."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=40)
    draws = parser.parse_args().draws
    for dataset in ("mmlu", "medmcqa"):
        table(dataset, *nine_models(dataset)[:3], draws)


if __name__ == "__main__":
    main()
