"""``confroute probe``: fit a probe of an edge's hidden states on a recorded run, and measure how well it predicts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.cli.options import new_file
from confroute.cli.runs import rows_of
from confroute.cli.terminal import say
from confroute.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from confroute.recording import Row
    from confroute.recording.probes import FittedProbe
    from confroute.types import JSON


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "probe",
        help="fit a probe of the edge's hidden states on a recorded run",
        description="Fit a linear probe on the hidden states that `confroute record --hidden` kept, evaluate it out of fold, and write it to "
        "FILE (safetensors), with its facts next to it as .json. A policy reads it as Probe(path=FILE).",
    )
    parser.add_argument(
        "data",
        type=Path,
        metavar="RECORDED",
        help="a run with hidden states, in the folder where it was recorded",
    )
    parser.add_argument(
        "--out", type=new_file, required=True, metavar="FILE", help="the probe, a .safetensors file"
    )
    parser.add_argument(
        "--target",
        choices=("wrong", "semantic_entropy"),
        default="wrong",
        help="what it predicts: a wrong answer, or samples that differ (default: %(default)s)",
    )
    parser.add_argument("--dataset", metavar="NAME", help="only rows of this dataset (default: all, pooled)")
    parser.add_argument(
        "--folds",
        type=int,
        default=5,
        metavar="K",
        help="folds that it is judged out of (default: %(default)s)",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of folds and intervals (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Fit the probe, write it, and print how well it predicts out of fold.

    Raises
    ------
    RecordError
        The run or its states cannot be read.
    CalibrationError
        Too few rows with states and target.
    PolicyError
        FILE has another name.
    """
    from confroute.recording.probes import fit_probe

    if args.out.suffix != ".safetensors":
        msg = f"--out {args.out}: expected a name that ends in .safetensors"
        raise PolicyError(msg)
    rows = list(rows_of(args.data, args.dataset))
    fitted = fit_probe(rows, args.data.parent, target=args.target, folds=args.folds, seed=args.seed)
    fitted.weights.save(args.out)
    summary = {"probe": str(args.out), **_quality(fitted, rows, args.seed)}
    if args.json:
        say(json.dumps(summary, indent=2, allow_nan=False))
        return 0
    for name, value in summary.items():
        say(f"{name}: {value}")
    return 0


def _quality(fitted: FittedProbe, rows: Sequence[Row], seed: int) -> dict[str, JSON]:
    """Measure how well the values out of fold rank the target, and wrong answers."""
    by_id = {row.id: row for row in rows}
    graded = [(index, by_id[name].edge.quality) for index, name in enumerate(fitted.ids)]
    known = [(index, float(quality < 0.5)) for index, quality in graded if quality is not None]
    summary: dict[str, JSON] = {
        "target": fitted.weights.target,
        "rows": len(fitted.ids),
        "layers": [*fitted.weights.layers],
        **_auroc("auroc", fitted.out_of_fold.tolist(), fitted.target.tolist(), seed),
    }
    if fitted.weights.target != "wrong" and known:
        scores = [float(fitted.out_of_fold[index]) for index, _ in known]
        summary |= _auroc("auroc_of_wrong", scores, [wrong for _, wrong in known], seed)
    return summary


def _auroc(name: str, scores: list[float], labels: list[float], seed: int) -> dict[str, JSON]:
    from confroute.stats.metrics import auroc, bootstrap_ci

    area, ends = auroc(scores, labels), bootstrap_ci(auroc, scores, labels, seed=seed)
    return {
        name: None if area is None else round(area, 4),
        f"{name}_ci": None if ends is None else [round(end, 4) for end in ends],
    }
