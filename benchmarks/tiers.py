"""Whether a third model pays: three tiers against the best pair at equal total cost, on calls that gave no thresholds.

    CONFROUTE_DATA=... python benchmarks/tiers.py [--data FOLDER] [--models llama3.2-1b llama3.1-8b llama3.1-405b]
        [--local-edge] [--splits 20] [--json]
    OMP_NUM_THREADS=1 python benchmarks/tiers.py --call

From the recorded nine models on MMLU and MedMCQA: half of the rows, drawn at random, give each chain its front of thresholds (the answer
token's negative log-probability on every tier); on the other half each chain is mixed along its front to one total cost, discarded drafts
included. Costs are the recorded ones. `gain` is the quality of all three tiers minus that of the best pair at this cost, which the first half
names; its interval is that of 1000 paired resamples of the held-out rows of the first split. `splits` is the mean gain over random halves,
with the standard deviation between them; `--local-edge` lets the first model cost nothing. `confroute fit` does the same for one goal and says which chain to deploy. `--call` measures
instead what one call of a policy takes, scripted models aside, with three tiers and with two.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _recorded import DATA, lines

from confroute import Cascade, Gate, Router, Threshold, TokenLogprob
from confroute.fitting import adverse_selection
from confroute.fitting.chain import chain_of, comparable, tables_of
from confroute.fitting.chain_choice import curves_of, half, interval_of, quality_at
from confroute.recording import Middle, Row, Side
from confroute.testing import Reply, ScriptedModel

NAMES = ("llama3.2-1b", "llama3.1-8b", "llama3.1-405b")
# Total cost as a share of always asking the last model.
COSTS = (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
SIGNAL = "token_logprob.mean"
NAMES_OF_TIERS = ("edge", "mid")


def side(answer):
    """One model's recorded answer."""
    return Side(
        text=answer["answer"],
        logprobs=(answer["conf_logprob"],),
        quality=float(answer["correct"]),
        cost_usd=answer["cost_usd"],
    )


def rows_of(dataset, options):
    """The rows of a run of three models."""
    for row in lines("nine_models_mmlu_medmcqa.jsonl.gz", options.data):
        if row["dataset"] == dataset:
            edge, mid, cloud = (side(row["models"][name]) for name in options.models)
            if options.local_edge:
                edge = replace(edge, cost_usd=0.0)
            yield Row(id=row["id"], edge=edge, tiers={"mid": Middle(side=mid)}, cloud=cloud)


def at_costs(whole, seed, resamples):
    """At each cost: the best pair by the half that gives the thresholds, and the qualities of all chains on the other."""
    choosing = half(whole.n, seed)
    chains = list(whole.subsets())
    fronts = [one.part(choosing).front("shortfall") for one in chains]

    def curves(keep, drawn):
        options = [(one.part(keep), front) for one, front in zip(chains, fronts, strict=True)]
        return dict(zip((one.words for one in chains), curves_of(options, resamples=drawn), strict=True))

    own, held_out = curves(choosing, 0), curves(~choosing, resamples)
    pairs = [one.words for one in chains if len(one.tiers) == 2]
    for share in COSTS:
        known = {name: quality_at(*own[name], share * own["cloud alone"][0][:, 0])[0] for name in pairs}
        best = max((name for name in pairs if not np.isnan(known[name])), key=lambda name: known[name])
        costs = share * held_out["cloud alone"][0][:, 0]
        found = {name: quality_at(*held_out[name], costs) for name in (*pairs, whole.words)}
        yield share, float(costs[0]), best, found, found[whole.words] - found[best]


def adverse(whole):
    """How the last model does on the calls that the others are most uncertain of, on the held-out half of the first split."""
    part = whole.part(~half(whole.n, 0))
    for tier, doubt in zip(whole.tiers, part.uncertainty, strict=False):
        yield adverse_selection(doubt, part.cloud_quality, tier=tier)


def measured(dataset, whole, options):
    """One line for each cost."""
    splits = [[float(one[-1][0]) for one in at_costs(whole, seed, 0)] for seed in range(options.splits)]
    for at, (share, usd, best, found, gain) in enumerate(at_costs(whole, 0, 1000)):
        of_splits = [one[at] for one in splits]
        yield {
            **{"dataset": dataset, "n": whole.n - whole.n // 2, "share": share, "usd_per_1k": usd},
            **{name: float(values[0]) for name, values in found.items()},
            **{"best_pair": best, "gain": float(gain[0]), "interval": interval_of(gain)},
            **{"splits": float(np.nanmean(of_splits)), "sd": float(np.nanstd(of_splits))},
        }


def call_us(replies, calls=300):
    """Microseconds of one call, the median of many; the last of the replies is the last tier's."""
    tiers = (*NAMES_OF_TIERS[: len(replies) - 1], "cloud")
    gate = Gate(signal=TokenLogprob(), threshold=Threshold(value=0.1))
    models = {name: ScriptedModel([reply], name=name) for name, reply in zip(tiers, replies, strict=True)}
    router = Router(tiers=models, policy=Cascade(tiers=tiers, gates=(gate,)))
    took = []
    for _ in range(calls):
        start = time.perf_counter()
        router.ask("What is 2 + 2?")
        took.append(time.perf_counter() - start)
    return 1e6 * statistics.median(took)


def print_calls(as_json):
    """Two tiers and three in turn, so that whatever else the machine does is in both."""
    sure, unsure = Reply(text="4", logprob=-0.05), Reply(text="5", logprob=-0.5)
    for what, first, second in (
        ("kept on the first", sure, unsure),
        ("answered by the last", unsure, unsure),
    ):
        pairs = [(call_us([first, "4"]), call_us([first, second, "4"])) for _ in range(15)]
        two, three = (statistics.median(values) for values in zip(*pairs, strict=True))
        ratio = statistics.median(three / two for two, three in pairs)
        found = {"call": what, "two_us": two, "three_us": three, "ratio": ratio}
        words = f"{what}: {two:.0f} us with two tiers, {three:.0f} us with three, ratio {ratio:.2f}"
        print(json.dumps(found) if as_json else words, flush=True)


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--models", nargs=3, default=NAMES, metavar="NAME")
    parser.add_argument("--local-edge", action="store_true", help="the first model costs nothing")
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--call", action="store_true", help="measure what one call takes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.call:
        print_calls(options.json)
        return
    for dataset in ("mmlu", "medmcqa"):
        whole = chain_of(tables_of(comparable(list(rows_of(dataset, options)))), SIGNAL, sampled=False)
        for found in adverse(whole):
            told = {"dataset": dataset, **found.to_dict()}
            print(json.dumps(told) if options.json else f"{dataset:8} {found.words}", flush=True)
        for one in measured(dataset, whole, options):
            if options.json:
                print(json.dumps(one), flush=True)
                continue
            low, high = one["interval"] or (float("nan"), float("nan"))
            print(
                f"{dataset:8} {one['share']:4.0%} {one['usd_per_1k']:6.3f} USD  three {one['edge > mid > cloud']:.3f}  best pair "
                f"{one[one['best_pair']]:.3f} ({one['best_pair']})  gain {one['gain']:+.3f} [{low:+.3f}, {high:+.3f}]  "
                f"splits {one['splits']:+.3f} sd {one['sd']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
