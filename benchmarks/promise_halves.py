"""Whether promises are kept, through the functions of the very commands: `fit` on one random half of a run, `apply` on the other.

    CONFROUTE_DATA=... python benchmarks/promise_halves.py [--halves 200] [--runs NAME ...] [--json]

`above`: share of halves, of those with a promise, on which the loss measured on the other half is above alpha, with a Wilson 95 %
interval. Where the promise is also about the measured loss (losses of 0 and 1) that should be at most delta. `beyond chance`:
those on which the measured loss is further above alpha than chance explains at .05 (a bet on the mean of the other half), as
far as a half can tell whether the mean itself is above. `refused`: halves without a promise.

gsm8k_graded: the edge's quality is the share of its 48 answers that are right, its signal their disagreement. llmrouter_graded: the edge's
quality is the mean score of three small models, the cloud's that of a 51B one, the signal the length of the prompt.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import recorded_rows
from _recorded import gsm8k_samples, lines
from guarantee import wilson

from confroute.errors import UnmetPromiseError
from confroute.fitting import MaxLoss, fit, replay, table_of
from confroute.recording import Row, Side
from confroute.recording.extraction import read_anew
from confroute.stats.tails import betting

DELTA = 0.1
SMALL = ("llama-3.1-8b-instruct", "gemma-2-9b-it", "mistral-7b-instruct-v0.3")


def gsm8k_graded():
    """The expected quality of one answer, and how little the answers agree."""
    for r in gsm8k_samples():
        answers = [str(one) for one in r["weak_sample_answers"]]
        right = np.mean([one == r["reference"] for one in r["weak_sample_answers"]])
        votes = Counter(answers).most_common(1)[0][1]
        yield Row(
            id=r["id"],
            edge=Side(quality=float(right)),
            cloud=Side(quality=float(r["gpt4_1106_correct"])),
            signals={"disagreement": 1 - votes / len(answers)},
        )


def llmrouter_graded():
    """The expected quality of one of three small models, and the length of the prompt."""
    for r in lines("llmrouter_9models.jsonl.gz"):
        scores = r["scores"]
        yield Row(
            id=r["id"],
            edge=Side(quality=float(np.mean([scores[name] for name in SMALL]))),
            cloud=Side(quality=float(scores["llama-3.1-nemotron-51b-instruct"])),
            signals={"length": float(len(r["prompt"]))},
        )


# Rows, goal and signal of each run.
RUNS = {
    "nine_models_mmlu": (lambda: recorded_rows.nine_models("mmlu"), 0.05, "auto"),
    "nine_models_medmcqa": (lambda: recorded_rows.nine_models("medmcqa"), 0.05, "auto"),
    "gsm8k_x48": (lambda: (read_anew(r, "auto") for r in recorded_rows.gsm8k(vote=False)), 0.3, "auto"),
    "gsm8k_graded": (gsm8k_graded, 0.25, "auto"),
    "llmrouter_graded": (llmrouter_graded, 0.1, "auto"),
}


def regrets(policy, rows):
    """What each call loses to always asking the cloud under a policy."""
    return np.array(
        [
            max(0.0, row.cloud.quality - one.quality)
            for row, one in zip(rows, replay(policy, rows), strict=True)
        ]
    )


def experiment(rows, alpha, signal, halves):
    """Promises made on random halves of some rows, and what came of them on the other halves."""
    made, cloud, method = [], [], None
    for seed in range(halves):
        order = np.random.default_rng(seed).permutation(len(rows)).tolist()
        half = len(rows) // 2
        try:
            fitted = fit([rows[at] for at in order[:half]], MaxLoss(alpha=alpha, delta=DELTA), signal=signal)
        except UnmetPromiseError:
            continue
        method = fitted.certificate.method
        lost = regrets(fitted.policy, [rows[at] for at in order[half:]])
        # The mean is below alpha: the bet against it is lost where that is not so.
        chance = betting(1 - lost, 1 - alpha, 0.05)
        made.append((lost.mean() > alpha, chance <= 0.05, lost.mean()))
        cloud.append(fitted.expected.cloud_share)
    above, beyond, lost = np.mean(made, axis=0).tolist() if made else (math.nan,) * 3
    return {
        **{"n": len(rows) // 2, "alpha": alpha, "method": method, "promises": len(made)},
        "refused": 1 - len(made) / halves,
        "above": above,
        "above_ci": wilson(above, max(1, len(made))),
        "beyond_chance": beyond,
        "lost": lost,
        "cloud_share": float(np.mean(cloud)) if cloud else None,
    }


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--halves", type=int, default=200)
    parser.add_argument("--runs", nargs="+", choices=RUNS, default=list(RUNS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.json:
        print(f"{options.halves} halves, delta {DELTA:g}")
        print(
            f"{'run':20} {'n':>5} alpha {'method':18} {'above':>6} {'95 %':>15} beyond chance  lost cloud share refused"
        )
    for name in options.runs:
        rows, alpha, signal = RUNS[name]
        # Measured once: every fit would measure all signals anew.
        one = experiment(table_of(rows()).rows, alpha, signal, options.halves)
        if options.json:
            print(json.dumps({"run": name, **one}), flush=True)
            continue
        share = "-" if one["cloud_share"] is None else f"{one['cloud_share']:.3f}"
        print(
            f"{name:20} {one['n']:5} {alpha:5} {one['method']!s:18} {one['above']:6.3f} {'{:.3f} to {:.3f}'.format(*one['above_ci']):>15} "
            f"{one['beyond_chance']:13.3f} {one['lost']:5.3f} {share:>11} {one['refused']:7.3f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
