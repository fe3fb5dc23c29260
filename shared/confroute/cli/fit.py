"""``confroute fit``: fit a policy to a recorded run, and report what it would have done."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from confroute.certificate import Loss
from confroute.cli.options import new_file
from confroute.cli.progress import replay_progress
from confroute.cli.runs import add_run_arguments, rates_of, rows_of
from confroute.cli.terminal import say
from confroute.errors import PolicyError, UnmetPromiseError
from confroute.signals.answers import Kind

if TYPE_CHECKING:
    from confroute.fitting import Expected, Fit, MaxLoss, Objective
    from confroute.fitting.goal import Goal


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "fit",
        help="fit a policy to a recorded run",
        description="Choose a signal and a threshold on recorded, graded calls, and print what the policy would have done on them. "
        "If the signal has to be chosen or combined from several, 3 of 10 rows (or the 100 that a combination takes) are used only for that. "
        "`confroute plan` says how many rows a promise takes.",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--out",
        type=new_file,
        required=True,
        metavar="FILE",
        help="the policy file to write; its report goes next to it as .html",
    )
    _add_goal(parser)
    _add_promise(parser)
    _add_signal(parser)
    parser.add_argument(
        "--kind",
        choices=get_args(Kind),
        help="read the answers in the recorded texts again, as this kind, if they were recorded as another",
    )
    parser.add_argument(
        "--on-unfinished",
        choices=("reject", "judge"),
        default="reject",
        help="what to do with incomplete drafts, such as those cut off at their length limit: always send them to the cloud (reject, the "
        "default), or leave them to the signal (judge)",
    )
    parser.set_defaults(run=run)


def _add_signal(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--signal",
        default="auto",
        metavar="NAME",
        help="the name of a recorded signal, combined (a combination of several), or auto (the best of all; default: %(default)s)",
    )
    parser.add_argument(
        "--replay-only",
        action="store_true",
        help="let auto and combined use recorded columns that no signal can measure on new calls; the policy can then be replayed but not deployed",
    )


def _add_goal(parser: argparse.ArgumentParser) -> None:
    goal = parser.add_mutually_exclusive_group(required=True)
    goal.add_argument(
        "--max-loss", type=float, metavar="A", help="promise a mean loss of at most A (see --loss)"
    )
    goal.add_argument(
        "--cloud-share",
        type=float,
        metavar="S",
        help="send this share of calls to the cloud, to within .05; refused if no signal can meet it; with --signal, the nearest share it can meet",
    )
    goal.add_argument(
        "--max-cost-per-1k", type=float, metavar="USD", help="the best quality within this cost"
    )
    goal.add_argument(
        "--min-quality",
        type=float,
        metavar="Q",
        help="the lowest cost with at least this quality on the recorded calls (needs prices; on other calls, chance puts the quality below it "
        "about every other time); with --confidence: promise this quality with the fewest cloud calls",
    )
    goal.add_argument(
        "--weights",
        metavar="NAME=W,...",
        help="the best weighted sum of metrics, such as quality=1,cost=0.05,latency=0.01; an unknown NAME lists all metrics",
    )
    parser.add_argument(
        "--max-p95-latency",
        type=float,
        metavar="S",
        help="with a cost, quality or weight goal: also limit the 95th percentile of seconds per call",
    )


def _add_promise(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--confidence",
        type=float,
        metavar="C",
        help="the confidence of the promise made by --max-loss (default: 0.9) or --min-quality (default: no promise)",
    )
    parser.add_argument(
        "--loss",
        choices=get_args(Loss),
        default="regret",
        help="what --max-loss bounds: quality lost compared with always asking the cloud (regret, the default), wrong answers kept (error), "
        "regret with better answers counted in favour (net), wrong answers among those kept (selective), or how far the returned answers "
        "fall short of a quality of 1 (shortfall)",
    )
    parser.add_argument(
        "--judged",
        action="store_true",
        help="with --max-loss: promise the loss as people grade it, from the grades of `confroute judge grade --into judged` and, for some rows "
        "drawn at random, grades by people or a reference",
    )
    parser.add_argument(
        "--horizon",
        type=float,
        metavar="N",
        help="the number of future calls over which the measured loss is promised too (default: as many as the calibration rows; inf: only the "
        "long-run mean)",
    )


def run(args: argparse.Namespace) -> int:
    """Fit a policy, write it and its report, and print what to expect of it.

    Raises
    ------
    RecordError
        The run cannot be read.
    PolicyError
        A goal that no threshold meets, or files that cannot be written.
    """
    from confroute.views.fit import report_html

    if args.out.suffix == ".html":
        msg = f"--out {args.out}: expected the policy's file, such as policy.json; the name with .html is taken by its report"
        raise PolicyError(msg)
    try:
        fitted = _fitted(args)
    except UnmetPromiseError as error:
        if args.json:
            say(json.dumps({"policy": None, "refused": error.instead}, indent=2, allow_nan=False))
        raise
    report = args.out.with_suffix(".html")
    try:
        fitted.save(args.out)
        report.write_text(report_html(fitted), encoding="utf-8")
    except OSError as error:
        msg = f"the policy cannot be written to {args.out}: {error}; give --out a file in a folder that can be written to"
        raise PolicyError(msg) from error
    if args.json:
        say(json.dumps(fitted.to_dict(args.out), indent=2, allow_nan=False))
        # Standard output is JSON for a program.
        say(f"report: {report}", *fitted.notes, err=True)
        return 0
    _show(fitted, args.out, report)
    return 0


def _fitted(args: argparse.Namespace) -> Fit:
    from confroute.fitting import fit
    from confroute.recording.extraction import read_anew
    from confroute.recording.packed import PackedRows

    rows = rows_of(args.data, args.dataset)
    with replay_progress() as progress:
        return fit(
            PackedRows(row if args.kind is None else read_anew(row, args.kind) for row in rows),
            _goal(args),
            signal=args.signal,
            replay_only=args.replay_only,
            on_unfinished=args.on_unfinished,
            rates=rates_of(args),
            seed=args.seed,
            progress=progress,
        )


def _goal(args: argparse.Namespace) -> Goal:
    from confroute.fitting import CloudShare, Objective

    limited = args.max_p95_latency is not None
    if limited and (args.max_loss is not None or args.cloud_share is not None):
        msg = "--max-p95-latency works only with --max-cost-per-1k, --min-quality or --weights"
        raise PolicyError(msg)
    if (promise := _promise(args)) is not None:
        return promise
    if args.cloud_share is not None:
        return CloudShare(share=args.cloud_share)
    if args.max_cost_per_1k is not None:
        objective = Objective.best_quality(usd_per_1k=args.max_cost_per_1k)
    elif args.min_quality is not None:
        objective = Objective.least_cost(quality=args.min_quality)
    else:
        objective = _weights(args.weights)
    return objective.within(p95_latency_s=args.max_p95_latency) if limited else objective


def _promise(args: argparse.Namespace) -> MaxLoss | None:
    """The loss to promise; None where none is asked for."""
    from confroute.fitting import MaxLoss

    if args.judged and args.max_loss is None:
        msg = "--judged works only with --max-loss: it says by whose grades the loss is promised"
        raise PolicyError(msg)
    delta = round(1 - (0.9 if args.confidence is None else args.confidence), 12)
    if args.max_loss is not None:
        return MaxLoss(
            alpha=args.max_loss, delta=delta, loss=args.loss, horizon=args.horizon, judged=args.judged
        )
    if args.confidence is None:
        return None
    if args.min_quality is None or args.max_p95_latency is not None:
        msg = "--confidence works only with --max-loss, or with --min-quality without --max-p95-latency"
        raise PolicyError(msg)
    return MaxLoss(alpha=round(1 - args.min_quality, 12), delta=delta, loss="shortfall")


def _weights(text: str) -> Objective:
    from confroute.fitting import Objective
    from confroute.fitting.point import metric_named

    weights: list[tuple[str, float]] = []
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            weights.append((metric_named(name.strip()).name, float(number)))
        except ValueError as error:
            msg = f"--weights {part!r}: expected NAME=NUMBER: {error}"
            raise PolicyError(msg) from error
    return Objective(weights=tuple(weights))


def _show(fitted: Fit, out: Path, report: Path) -> None:
    gate = fitted.policy.gates[0]
    chosen = (
        "the signal on" if not fitted.chains else "the signal, the tiers and their order of thresholds on"
    )
    say(
        f"{fitted.n} recorded calls, {fitted.selected_on} more to choose {chosen}, {fitted.left_out} not graded"
    )
    for tier in fitted.policy.tiers[:-1]:
        threshold = gate.for_call(tier, frozenset()).threshold
        whose = "" if not fitted.chains else f" for drafts of {tier}"
        say(
            f"signal {fitted.choice.column}, threshold{whose} {threshold.value:.6g} {gate.signal.range.unit}: {threshold.source}"
        )
    if fitted.choice.scores and fitted.choice.column != "combined":
        say(
            f"chosen by APGR (how much of the gap to the cloud it recovers) on those {fitted.selected_on} calls; `confroute signals` sorts "
            "by AUROC on all calls, so the two can disagree"
        )
    show_expected(fitted.expected)
    for name, point in (("always edge", fitted.front.edge), ("always cloud", fitted.front.cloud)):
        cost = "not known" if point.usd_per_1k is None else f"{point.usd_per_1k:.4g} USD"
        quality = "not known" if point.quality is None else f"{point.quality:.4f}"
        say(f"{name}: quality {quality}, 1000 calls cost {cost}")
    if fitted.chains:
        say("chains at equal total cost, on calls that gave them no thresholds:")
        say(*(f"  {one.words}" for one in fitted.chains))
    for adverse in fitted.adverse_selection:
        say(adverse.words)
    for note in fitted.notes:
        say(f"note: {note}")
    say(f"policy: {out}\nreport: {report}")


def show_expected(expected: Expected) -> None:
    """Print what a policy does on recorded calls."""
    interval = (
        ""
        if expected.quality_ci is None
        else f" [{expected.quality_ci[0]:.4f}, {expected.quality_ci[1]:.4f}]"
    )
    quality = "not known" if expected.quality is None else f"{expected.quality:.4f}{interval}"
    cost = "not known" if expected.cost_per_1k is None else f"{expected.cost_per_1k:.4g} USD"
    say(f"cloud share {expected.cloud_share:.1%}, quality {quality}, 1000 calls cost {cost}")
    if expected.samples:
        say(f"{expected.samples:.2f} samples per call")
