"""How many of the rows of a run should choose the signal, where the others calibrate its threshold.

    CONFROUTE_DATA=... python benchmarks/selection_share.py [--draws 30] [--first-seed 0] [--shares .1 .2 .3 .4] [--json]

From each recorded run, n rows are drawn at random. A share of them chooses the signal, or fits the combination, as `confroute fit
--signal auto` does; the others certify a threshold (regret at most alpha, confidence .9); the rows that were not drawn are the test.
`cloud` is the mean cloud share there, where a refusal sends every call to the cloud; `refused` the share of draws without a
promise; `lost` the mean regret. `rule` is what `fit` does: `selection_size` rows, and no signal that is not `promising`. All shares see the same draws.

Signals: the answer token's negative log-probability, whether smaller models (3B, 1B) answer otherwise, the length of the prompt (nine_models);
all signals of samples and log-probabilities (gsm8k_x48, qwen). The rule was read from the draws of the seeds 0 to 29 and 1000 to 1019.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import recorded_rows
from _recorded import lines

from confroute.errors import UnmetPromiseError
from confroute.fitting import GradedCalls, MaxLoss, certified_threshold, table_of
from confroute.fitting.choice import chosen, uncertainty_of
from confroute.fitting.fit import promising, selection_size
from confroute.recording import Row, Side
from confroute.recording.extraction import read_anew

ALPHAS, SIZES = (0.05, 0.10), (100, 200, 400, 800)
SMALL = ("llama3.2-3b", "llama3.2-1b")


def nine_models(dataset):
    """Llama-3.1 8B to 405B, with what smaller models say as further signals."""
    for r in lines("nine_models_mmlu_medmcqa.jsonl.gz"):
        if r["dataset"] == dataset:
            edge, cloud = r["models"]["llama3.1-8b"], r["models"]["llama3.1-405b"]
            yield Row(
                id=r["id"],
                edge=Side(quality=float(edge["correct"])),
                cloud=Side(quality=float(cloud["correct"])),
                signals={"logprob": -edge["conf_logprob"], "length": float(len(r["prompt"]))}
                | {name: float(r["models"][name]["answer"] != edge["answer"]) for name in SMALL},
            )


def runs():
    """Every run by its name."""
    return {
        "nine_models_mmlu": [*nine_models("mmlu")],
        "nine_models_medmcqa": [*nine_models("medmcqa")],
        "gsm8k_x48": [read_anew(row, "auto") for row in recorded_rows.gsm8k(vote=False)],
        "qwen_mmlu": [read_anew(row, "auto") for row in recorded_rows.qwen("mmlu_test")],
    }


def calls_of(table, choice):
    """The columns that a promise is made from."""
    return GradedCalls(
        uncertainty=uncertainty_of(choice, table),
        edge_quality=table.edge_quality,
        cloud_quality=table.cloud_quality,
    )


def tried(table, order, size, seed, rule):
    """Cloud share, refusal and regret on the test, for both alphas, if the first `size` of the drawn rows choose."""
    drawn, test = order
    masks = [np.isin(np.arange(table.n), part) for part in (drawn[:size], drawn[size:], test)]
    selecting, calibrating, testing = (table.part(mask) for mask in masks)
    found = []
    for alpha in ALPHAS:
        goal = MaxLoss(alpha=alpha)
        columns = promising(goal, selecting, table.columns) if rule else table.columns
        choice = chosen(selecting, columns=columns, seed=seed)
        calibration, future = calls_of(calibrating, choice), calls_of(testing, choice)
        regret = np.maximum(0, future.cloud_quality - future.edge_quality)
        try:
            at = certified_threshold(goal, calibration).value
        except UnmetPromiseError:
            at = -np.inf
        kept = future.uncertainty <= at
        found.append((1 - kept.mean(), float(at == -np.inf), regret[kept].sum() / kept.size))
    return found


def measured(name, table, n, shares, seeds):
    """One line for each alpha and share."""
    sizes = {f"{share:.0%}": round(share * n) for share in shares} | {"rule": selection_size(n)}
    results = {label: [] for label in sizes}
    for seed in seeds:
        order = np.random.default_rng(seed).permutation(table.n)
        for label, size in sizes.items():
            results[label].append(tried(table, (order[:n], order[n:]), size, seed, label == "rule"))
    lines_ = []
    for at, alpha in enumerate(ALPHAS):
        for label, of_all in results.items():
            cloud, refused, lost = np.mean([one[at] for one in of_all], axis=0).tolist()
            base = np.array([one[at][0] for one in results[list(results)[-2]]])
            apart = np.array([one[at][0] for one in of_all]) - base
            lines_.append(
                {
                    **{"run": name, "n": n, "alpha": alpha, "share": label, "chosen_on": sizes[label]},
                    **{"cloud": cloud, "refused": refused, "lost": lost},
                    "less_cloud_than_last": -float(apart.mean()),
                    "error": float(apart.std() / len(apart) ** 0.5),
                }
            )
    return lines_


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=30)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if not options.json:
        print(
            f"{'run':20} {'n':>4} alpha share  rows  cloud refused  lost   less cloud than with the last share"
        )
    for name, rows in runs().items():
        table = table_of(rows)
        for n in SIZES:
            if n > 0.75 * table.n or n not in options.sizes:
                continue
            seeds = range(options.first_seed, options.first_seed + options.draws)
            for one in measured(name, table, n, options.shares, seeds):
                if options.json:
                    print(json.dumps(one), flush=True)
                    continue
                print(
                    f"{one['run']:20} {one['n']:4} {one['alpha']:5} {one['share']:>5} {one['chosen_on']:5} {one['cloud']:6.3f} "
                    f"{one['refused']:7.2f} {one['lost']:5.3f}   {one['less_cloud_than_last']:+.3f} +- {one['error']:.3f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
