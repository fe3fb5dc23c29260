"""What each signal is worth for "the edge is wrong", on recorded answers of others and on a recorded local edge.

    python benchmarks/useful.py [--data FOLDER] [--run OUT.jsonl]

AUROC with 95 % bootstrap intervals: nine models' token log-probability on MMLU, entropy of 48 and of 5 answers on GSM8K,
and every signal of a run that `benchmarks/real_edge.py` recorded, with probes of its hidden states and a combination, both
out of fold, and the seconds that each kind of evidence took.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _recorded import lines

from confroute.errors import CalibrationError
from confroute.recording import read_rows, with_signals
from confroute.recording.evaluation import evaluate
from confroute.recording.probes import fit_probe
from confroute.signals import TokenLogprob
from confroute.stats.metrics import auroc, bootstrap_ci


def shown(name: str, uncertainty: Sequence[float], wrong: Sequence[float]) -> None:
    """One row of a table."""
    area, ends = auroc(uncertainty, wrong), bootstrap_ci(auroc, uncertainty, wrong)
    interval = "" if ends is None else f" [{ends[0]:.3f}, {ends[1]:.3f}]"
    print(f"  {name:<40} n {len(wrong):>5}  AUROC {'-' if area is None else f'{area:.3f}'}{interval}")


def entropy(answers: Sequence[object]) -> float:
    """Of the shares of equal answers, in nats."""
    return -math.fsum(
        c / len(answers) * math.log(c / len(answers)) for c in Counter(map(str, answers)).values()
    )


def others(data: Path) -> None:
    """The two recorded data sets of other models."""
    rows = [row for row in lines("nine_models_mmlu_medmcqa.jsonl.gz", data) if row["dataset"] == "mmlu"]
    print("token log-probability of the answer, MMLU")
    for model in rows[0]["models"]:
        one = [
            row["models"][model]
            for row in rows
            if row["models"].get(model, {}).get("conf_logprob") is not None
        ]
        if one:
            shown(model, [-row["conf_logprob"] for row in one], [float(not row["correct"]) for row in one])
    rows = lines("gsm8k_llama2_13b_x48.jsonl.gz", data)
    wrong = [float(not row["weak_correct"]) for row in rows]
    print("entropy of sampled answers, GSM8K, Llama-2-13B")
    shown("of 48", [entropy(row["weak_sample_answers"]) for row in rows], wrong)
    draws = [np.random.default_rng([0, at]).permutation(48)[:5] for at in range(len(rows))]
    five = [[row["weak_sample_answers"][i] for i in at] for row, at in zip(rows, draws, strict=True)]
    shown("of 5, drawn at random", [entropy(answers) for answers in five], wrong)


def local(path: Path) -> None:
    """A run of `confroute record`."""
    rows = list(read_rows(path))
    report = evaluate(rows)
    print(f"{path.name}: n {report.n}, edge {report.edge_quality:.3f}, cloud {report.cloud_quality}")
    for name, one in sorted(report.signals.items(), key=lambda item: -(item[1].auroc or 0)):
        ends = one.auroc_ci or (math.nan, math.nan)
        apgr = "-" if one.apgr is None else f"{one.apgr:.3f}"
        print(
            f"  {name:<40} n {one.n:>5}  AUROC {one.auroc or math.nan:.3f} [{ends[0]:.3f}, {ends[1]:.3f}]  APGR {apgr}"
        )
    probes = {target: probed(rows, path.parent, target) for target in ("wrong", "semantic_entropy")}
    combined(rows, probes["wrong"])
    print("median seconds a prompt, the prompt's own reading in the draft's")
    for kind in ("draft", "sample", "score", "hidden"):
        took = [seconds.get(kind) for row in rows if isinstance(seconds := row.extra.get("latency_s"), dict)]
        known = [float(str(value)) for value in took if value is not None]
        print(f"  {kind:<8} {statistics.median(known):.2f}" if known else f"  {kind:<8} -")


def probed(rows: Sequence[Any], folder: Path, target: Any) -> dict[str, float]:
    """What a probe of the hidden states says of each row out of fold, by id; nothing where none can be fitted."""
    try:
        fitted = fit_probe(rows, folder, target=target)
    except CalibrationError as error:
        print(f"  probe of {target}: {error}")
        return {}
    said = dict(zip(fitted.ids, fitted.out_of_fold.tolist(), strict=True))
    by_id = {row.id: row for row in rows}
    wrong = [float((by_id[name].edge.quality or 0) < 0.5) for name in said]
    shown(f"probe of {target}, out of fold, layer {fitted.weights.layers[0]}", [*said.values()], wrong)
    return said


def combined(rows: Sequence[Any], probe: dict[str, float]) -> None:
    """The fitted combination, without and with the probe, out of fold; and what each gains over the best single signal."""
    from confroute.fitting import crossfit_combined

    names = ("option_probability", "token_logprob.mean", "self_consistency", "mc_dropout@0.01.expected")
    known = [row for row in map(with_signals, rows) if row.edge.quality is not None]
    columns = {
        name: [math.nan if row.signals.get(name) is None else float(row.signals[name]) for row in known]
        for name in names
    }
    if all(row.id in probe for row in known):
        columns["probe"] = [probe[row.id] for row in known]
    quality = [row.edge.quality for row in known]
    wrong = np.array([float(q < 0.5) for q in quality])
    # Signals of the letter do not see the drafts that are none: over all rows only what sees each of them compares.
    whole = [name for name in columns if not np.isnan(columns[name]).any()]
    best = max(whole, key=lambda name: auroc(columns[name], wrong) or 0.0)
    for members in (names, (*names, "probe")):
        if set(members) <= set(columns):
            told(members, columns, quality, wrong, best, crossfit_combined)


def told(
    members: Sequence[str],
    columns: dict[str, list[float]],
    quality: Sequence[float],
    wrong: Any,
    best: str,
    crossfit: Any,
) -> None:
    """One combination, and the paired difference of its AUROC and the best single signal's."""
    # Only the columns are used here: no signal is measured again.
    signals = {name: TokenLogprob() for name in members}
    try:
        found, _ = crossfit(signals, np.column_stack([columns[name] for name in members]).tolist(), quality)
    except CalibrationError as error:
        print(f"  combination: {error}")
        return
    shown(f"combination of {len(members)}, out of fold", found.tolist(), wrong.tolist())
    single = np.array(columns[best])

    def gap(one: Any, other: Any, y: Any) -> float | None:
        first, second = auroc(one, y), auroc(other, y)
        return None if first is None or second is None else first - second

    difference, ends = gap(found, single, wrong), bootstrap_ci(gap, found, single, wrong)
    if difference is None or ends is None:
        raise SystemExit("all answers are right, or all wrong: nothing to rank")
    verdict = (
        "beats it" if ends[0] > 0 else "is beaten by it" if ends[1] < 0 else "does not beat it significantly"
    )
    print(f"    less {best}: {difference:+.3f} [{ends[0]:+.3f}, {ends[1]:+.3f}], paired: {verdict}")


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("CONFROUTE_DATA"))
    parser.add_argument("--run", type=Path)
    asked = parser.parse_args()
    if asked.data is None and asked.run is None:
        parser.error(
            "give --data FOLDER (or set CONFROUTE_DATA), --run OUT.jsonl of benchmarks/real_edge.py, or both"
        )
    if asked.run is not None and not asked.run.is_file():
        parser.error(f"--run {asked.run}: no such file; benchmarks/real_edge.py records one")
    if asked.data is not None:
        others(Path(asked.data))
    if asked.run is not None:
        local(asked.run)


if __name__ == "__main__":
    main()
