"""``confroute plan``: how many questions to write before a promise can be made."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, get_args

from confroute.certificate import Loss
from confroute.cli.progress import progress
from confroute.cli.terminal import console, say

if TYPE_CHECKING:
    from confroute.fitting.plan import Planned


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "plan",
        help="say how many questions to write and grade for a promise",
        description="Estimate how many graded rows `confroute fit --max-loss` needs, before you record any. Runs are simulated and certified "
        "just like recorded ones. You guess the edge's share of right answers, and how well the signal tells wrong answers from right "
        "ones (AUROC; uncertainties are taken to be normally distributed, higher for wrong answers).",
    )
    parser.add_argument("--max-loss", type=float, required=True, metavar="A", help="the mean loss to promise")
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.9,
        metavar="C",
        help="confidence of the promise (default: %(default)s)",
    )
    parser.add_argument(
        "--loss",
        choices=get_args(Loss),
        default="regret",
        help="which loss, as in `confroute fit` (default: %(default)s)",
    )
    _add_guesses(parser)
    parser.add_argument(
        "--power",
        type=float,
        default=0.8,
        metavar="P",
        help="the share of runs in which the rows should suffice (default: %(default)s)",
    )
    parser.add_argument(
        "--within",
        type=float,
        default=0.1,
        metavar="S",
        help="how far the cloud share may be above the one that unlimited rows would give (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the simulation (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def _add_guesses(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--edge-quality",
        type=float,
        nargs="+",
        default=[0.6, 0.7, 0.8, 0.9],
        metavar="Q",
        help="guesses of the share of calls that the edge answers correctly (default: .6 .7 .8 .9)",
    )
    parser.add_argument(
        "--auroc",
        type=float,
        nargs="+",
        default=[0.75],
        metavar="R",
        help="guesses of how good the signal is: the probability that a wrong answer is more uncertain than a right one; log-probabilities "
        "reach .6 to .8, samples up to .9 (default: .75)",
    )
    parser.add_argument(
        "--cloud-quality",
        type=float,
        default=0.9,
        metavar="Q",
        help="share of calls that the cloud answers correctly (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Simulate, and print a line for each guess.

    Raises
    ------
    CalibrationError
        A number outside its range.
    """
    from confroute.fitting import MaxLoss
    from confroute.fitting.plan import Guess, plan

    goal = MaxLoss(alpha=args.max_loss, delta=round(1 - args.confidence, 12), loss=args.loss)
    guesses = [
        Guess(edge_quality=quality, auroc=auroc, cloud_quality=args.cloud_quality)
        for quality in args.edge_quality
        for auroc in args.auroc
    ]
    with progress(len(guesses), unit="guesses") as tick:
        planned = plan(
            goal,
            guesses,
            power=args.power,
            within=args.within,
            seed=args.seed,
            progress=lambda _done, _of: tick(True),
        )
    if args.json:
        say(json.dumps([one.to_dict() for one in planned], indent=2, allow_nan=False))
        return 0
    _show(planned)
    return 0


def _show(planned: list[Planned]) -> None:
    from rich.table import Table

    first = planned[0]
    table = Table(box=None, pad_edge=False)
    for heading in (
        *("edge right", "AUROC", "rows for a promise", "cloud share then"),
        *(f"rows for {first.within:.0%} of the best", "best cloud share", "to record, signal chosen too"),
    ):
        table.add_column(heading, justify="right", overflow="fold")
    for one in planned:
        shares = ["-" if share is None else f"{share:.0%}" for share in (one.cloud_share, one.best_share)]
        counts = ["-" if n is None else str(n) for n in (one.rows, one.rows_close, one.rows_to_record)]
        table.add_row(
            *(f"{one.guess.edge_quality:g}", f"{one.guess.auroc:g}", counts[0], shares[0]),
            *(counts[1], shares[1], counts[2]),
        )
    console(width=120).print(table)
    say(
        f"for a {first.goal.loss} of at most {first.goal.alpha:g} {first.goal.level}, cloud right on {first.guess.cloud_quality:g}; enough "
        f"in {first.power:.0%} of simulated runs; '-': not with 20,000 rows",
        "rows are graded rows that calibrate, as with fit --signal NAME; where fit chooses the signal, record the last column's",
    )
