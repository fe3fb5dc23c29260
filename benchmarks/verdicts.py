"""How often `confroute apply` notices that a policy's calls have changed, on real recorded data, and how often it is wrong.

    CONFROUTE_DATA=... python benchmarks/verdicts.py [--runs 300] [--json]

`shift`: the test of the uncertainties, without any grade. A random part of one recording (300 calls, half of the rows where there
are fewer than 600) stands in the policy; n calls of another one, drawn at random, are tested against it. In the rows that begin
with "as recorded" these are other calls of the same recording, so that every alarm is false (1 % at most are allowed).
`verdict`: the exact test of the promise. A threshold is certified on half of one recording, for a loss of 0.05 at 90 %, and judged by n
graded calls of the other half, or of another recording. `breaks` is the share of these thresholds whose mean loss over all calls of
that recording that are not calibrated on is above 0.05.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _recorded import gsm8k_samples, lines, nine_models

from confroute import Cascade, Threshold
from confroute.drift import like_recorded
from confroute.errors import CalibrationError
from confroute.fitting import verdict_of
from confroute.policy import Provenance
from confroute.policy.provenance import RecordedModel, RecordedUncertainty

SIZES, ALPHA, DELTA = (25, 50, 100), 0.05, 0.1


def qwen(prefix):
    """Mean negative log-probability of the drafts of a small local model."""
    rows = [row for row in lines("qwen_edge.jsonl.gz") if row["dataset"].startswith(prefix)]
    return np.array([-np.mean(row["edge"]["logprobs"]) for row in rows if row["edge"]["logprobs"]])


def disagreement(samples, first):
    """Share of five samples, from the `first` on, that differ from the one before them."""
    rows = [row["weak_sample_answers"][first : first + 6] for row in gsm8k_samples()]
    return np.array([np.mean([one != row[0] for one in row[1:]]) for row in rows if len(row) == samples + 1])


def holding(recorded):
    """A policy that holds the distribution of these uncertainties."""
    kept = RecordedUncertainty.of("u", recorded.tolist())
    side = RecordedModel()
    about = {"kind": None, "n": recorded.size, "date": "", "data_hash": "", "version": "", "cloud": None}
    return Cascade(provenance=Provenance(edge=side, uncertainty=(kept,), **about))


def shifts(runs):
    """Share of tests that tell a shift, by name and number of new calls."""
    mmlu, medmcqa, small = (
        nine_models("mmlu")[0],
        nine_models("medmcqa")[0],
        nine_models("mmlu", "llama3.2-1b")[0],
    )
    options, steps = qwen("mmlu"), qwen("gsm8k")
    cases = {
        "as recorded: MMLU, 8B": (mmlu, None),
        "as recorded: MedMCQA, 8B": (medmcqa, None),
        "as recorded: MMLU, 1.5B": (options, None),
        "as recorded: GSM8K, 5 samples": (disagreement(5, 0), None),
        "MMLU to GSM8K, 1.5B": (options, steps),
        "GSM8K to MMLU, 1.5B": (steps, options),
        "MMLU to MedMCQA, 8B": (mmlu, medmcqa),
        "8B to 1B, MMLU": (mmlu, small),
    }
    return {name: {n: told(*pair, n, runs) for n in SIZES} for name, pair in cases.items()}


def told(recorded, other, n, runs):
    """Share of random draws in which the shift is told; None where there are too few calls."""
    generator, hits = np.random.default_rng(0), 0
    kept = min(300, recorded.size // 2)
    if n > (recorded.size - kept if other is None else other.size):
        return None
    for _ in range(runs):
        order = generator.permutation(recorded.size)
        fresh = (
            recorded[order[kept : kept + n]] if other is None else generator.choice(other, n, replace=False)
        )
        hits += not like_recorded(holding(recorded[order[:kept]]), fresh.tolist()).like_recorded
    return hits / runs


def verdicts(runs):
    """Outcomes of the test of the promise, by name and number of graded calls."""
    data = {name: nine_models(name)[:3] for name in ("mmlu", "medmcqa")}
    cases = {"as recorded: MMLU": ("mmlu", "mmlu"), "as recorded: MedMCQA": ("medmcqa", "medmcqa")}
    cases["MMLU to MedMCQA"] = ("mmlu", "medmcqa")
    cases["MedMCQA to MMLU"] = ("medmcqa", "mmlu")
    return {
        name: {n: judged(data[one], None if one == other else data[other], n, runs) for n in (100, 300, 700)}
        for name, (one, other) in cases.items()
    }


def judged(recorded, other, n, runs):
    """Shares of each outcome, of thresholds that do break the promise, and of refused calibrations."""
    generator = np.random.default_rng(0)
    found = dict.fromkeys(("held", "broken", "unknown", "breaks", "refused"), 0)
    for _ in range(runs):
        order = generator.permutation(recorded[0].size)
        calibration, rest = order[: order.size // 2], order[order.size // 2 :]
        try:
            threshold = Threshold.certify(*(c[calibration] for c in recorded), alpha=ALPHA, delta=DELTA)
        except CalibrationError:
            found["refused"] += 1
            continue
        u, edge, cloud = recorded if other is None else other
        among = rest if other is None else np.arange(u.size)
        losses = (np.maximum(0.0, cloud - edge) * (u <= threshold.value))[among]
        found["breaks"] += losses.mean() > ALPHA
        fresh = generator.choice(losses, min(n, losses.size), replace=False)
        found[verdict_of(threshold.certificate, fresh).outcome] += 1
    return {name: count / runs for name, count in found.items()}


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    results = {"runs": options.runs, "shift": shifts(options.runs), "verdict": verdicts(options.runs)}
    if options.json:
        print(json.dumps(results))
        return
    print(
        f"{options.runs} runs\n\n| shift told | {' | '.join(f'n = {n}' for n in SIZES)} |\n|---|---|---|---|"
    )
    for name, by_size in results["shift"].items():
        print(f"| {name} | {' | '.join('-' if s is None else f'{s:.1%}' for s in by_size.values())} |")
    print(
        "\n| promise of 0.05 at 90 % | n | held | broken | cannot be told | breaks | refused |\n|---|---|---|---|---|---|---|"
    )
    for name, by_size in results["verdict"].items():
        for n, row in by_size.items():
            print(f"| {name} | {n} | {' | '.join(f'{share:.1%}' for share in row.values())} |")


if __name__ == "__main__":
    main()
