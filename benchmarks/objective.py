"""Cost at equal quality on real recorded data: expected gain, raw uncertainty, FrugalGPT-style score, always-cloud.

    CONFROUTE_DATA=... python benchmarks/objective.py [--splits 200] [--quality 0.98]

Llama-3.1 8B to 405B on MMLU and MedMCQA. In every random split half of the rows fit and half test. Each method takes the least
cost whose quality, on the fitting half, is at least so much of always-cloud's, by `Objective.least_cost`; what counts is cost and
quality on the other half. The draft is always counted.

raw uncertainty: the answer token's negative log-probability. FrugalGPT-style: P(edge right) by a logistic function of the same evidence,
the threshold searched on the fitting half. expected gain: escalated by the fitted gain, of that log-probability
alone, or combined with the agreement of two smaller models (1B, 3B). The combined row gets that agreement for free: the calls of
both smaller models are in no cost here, so its saving is an upper bound. Intervals are 95 % of
splits, which also hold the scatter of the test half.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _recorded import lines

from confroute.errors import CalibrationError
from confroute.fitting import Objective, fit_combined, front_of, predicted, table_of
from confroute.recording import Row, Side
from confroute.signals import Recorded

EDGE, CLOUD, SMALL = "llama3.1-8b", "llama3.1-405b", ("llama3.2-3b", "llama3.2-1b")
COLUMNS = ("logprob", *SMALL)


def rows_of(dataset):
    """Recorded rows with the log-probability, and whether smaller models disagree, as signals."""
    for r in lines("nine_models_mmlu_medmcqa.jsonl.gz"):
        if r["dataset"] != dataset:
            continue
        edge, cloud = r["models"][EDGE], r["models"][CLOUD]
        yield Row(
            id=r["id"],
            edge=Side(quality=float(edge["correct"]), cost_usd=edge["cost_usd"]),
            cloud=Side(quality=float(cloud["correct"]), cost_usd=cloud["cost_usd"]),
            signals={"logprob": -edge["conf_logprob"]}
            | {name: float(r["models"][name]["answer"] != edge["answer"]) for name in SMALL},
        )


def fitted(columns, table, decides):
    """A combination of recorded columns as a function of a table."""
    signals = {name: Recorded(column=name) for name in columns}

    def matrix(t):
        return np.column_stack([t.signal(name) for name in columns])

    combined = fit_combined(signals, matrix(table), table.edge_quality, table.cloud_quality, decides=decides)
    return lambda t: predicted(combined, matrix(t))[1 if decides == "gain" else 0]


METHODS = {
    "raw uncertainty": lambda table: lambda t: t.signal("logprob"),
    "FrugalGPT-style": lambda table: fitted(("logprob",), table, "wrong"),
    "expected gain, one signal": lambda table: fitted(("logprob",), table, "gain"),
    "expected gain, combined": lambda table: fitted(COLUMNS, table, "gain"),
}


def split(table, generator, share):
    """Cost and quality on the test half by method, as shares of always-cloud's."""
    mask = np.zeros(table.n, dtype=bool)
    mask[generator.permutation(table.n)[: table.n // 2]] = True
    train, test = table.part(mask), table.part(~mask)
    always, quality = 1000 * test.cloud["usd"].mean(), test.cloud_quality.mean()
    found = {}
    for name, method in METHODS.items():
        score = method(train)
        front = front_of(train, score(train), resamples=0)
        goal = Objective.least_cost(quality=share * float(train.cloud_quality.mean()))
        try:
            value = goal.choose(front.points).threshold
        except CalibrationError:
            value = -np.inf
        sent = ~(score(test) <= value)
        usd = 1000 * (test.draft["usd"] + sent * test.cloud["usd"]).mean()
        got = np.where(sent, test.cloud_quality, test.edge_quality).mean()
        found[name] = usd / always, got / quality, sent.mean()
    return found


def shown(values):
    """Mean and the middle 95 %."""
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{np.mean(values):.3f} [{low:.3f}, {high:.3f}]"


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--splits", type=int, default=200)
    parser.add_argument("--quality", type=float, nargs="+", default=[0.95, 0.98])
    options = parser.parse_args()
    for dataset in ("mmlu", "medmcqa"):
        table = table_of(rows_of(dataset))
        for share in options.quality:
            generator = np.random.default_rng(0)
            done = [split(table, generator, share) for _ in range(options.splits)]
            print(f"{dataset}, {table.n} rows, least cost for {share:.0%} of the cloud's quality")
            print(f"  {'method':26} {'cost / always-cloud':24} {'quality / cloud':24} cloud share")
            for name in METHODS:
                cost, quality, sent = (np.array([d[name][i] for d in done]) for i in range(3))
                print(f"  {name:26} {shown(cost):24} {shown(quality):24} {sent.mean():.3f}")
            best = np.array([d["expected gain, combined"][0] for d in done])
            for name in list(METHODS)[:2]:
                print(f"  combined minus {name:16} {shown(best - np.array([d[name][0] for d in done]))}")


if __name__ == "__main__":
    main()
