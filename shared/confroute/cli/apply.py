"""``confroute apply``: replay a fitted policy on a recorded run, and judge its promise there."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.certificate import Certificate
from confroute.cli.fit import show_expected
from confroute.cli.progress import replay_progress
from confroute.cli.runs import add_run_arguments, rates_of, rows_of
from confroute.cli.terminal import say

if TYPE_CHECKING:
    from confroute.fitting import Applied, Point

# Apart from 1 and 2, by which commands fail and refuse their arguments.
NOT_KEPT = 3


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "apply",
        help="replay a policy on a recorded run and check its promise",
        description="Route every call of a recorded run by a policy file, exactly as new calls are routed, with answers taken from the run. "
        "Prints the result compared with each model alone, whether the policy's promise was kept, and whether the calls are like those "
        "it was fitted on. Without grades it still prints the cloud share, the cost and the shift.",
    )
    parser.add_argument("policy", type=Path, metavar="POLICY", help="a policy file")
    add_run_arguments(parser)
    parser.add_argument(
        "--fail-on-broken",
        action="store_true",
        help=f"exit with code {NOT_KEPT} if a promise is broken (not if that cannot be told)",
    )
    parser.add_argument(
        "--fail-on-shift",
        action="store_true",
        help=f"exit with code {NOT_KEPT} if the calls are not like those the policy was fitted on",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay the policy on the run and print what came of it.

    Raises
    ------
    RecordError
        The run cannot be read.
    PolicyError
        The policy cannot be read, or the run holds no row.
    """
    from confroute.fitting import apply
    from confroute.policy import load_policy
    from confroute.policy.provenance import Provenance
    from confroute.recording.packed import PackedRows
    from confroute.registry import parts_of

    policy = load_policy(args.policy)
    rows = PackedRows(rows_of(args.data, args.dataset))
    with replay_progress() as progress:
        applied = apply(policy, rows, rates=rates_of(args), seed=args.seed, progress=progress)
    recorded = next((part for part in parts_of(policy) if isinstance(part, Provenance)), None)
    if args.json:
        certificate = next(
            (part.to_dict() for part in parts_of(policy) if isinstance(part, Certificate)), None
        )
        told = {
            "policy": str(args.policy),
            "certificate": certificate,
            "provenance": None if recorded is None else recorded.to_dict(),
            **applied.to_dict(),
        }
        # Standard output is JSON for a program.
        say(*applied.notes, err=True)
        say(json.dumps(told, indent=2, allow_nan=False))
    else:
        _show(applied)
        say(
            "the policy does not say what it was fitted on"
            if recorded is None
            else f"policy: {recorded.words}"
        )
    failed = (args.fail_on_broken and applied.broken) or (args.fail_on_shift and applied.shifted)
    return NOT_KEPT if failed else 0


def _show(applied: Applied) -> None:
    # Before the figures, which they say how to read.
    for note in applied.notes:
        say(f"WARNING: {note}")
    say(f"{applied.n} recorded calls, {applied.left_out} not graded")
    show_expected(applied.expected)
    _show_baseline("always edge", applied.edge, applied.against_edge)
    _show_baseline("always cloud", applied.cloud, applied.against_cloud)
    for verdict in applied.verdicts:
        say(verdict.words)
    if applied.shift is not None:
        say(applied.shift.words)
    stops = applied.early_stops
    if stops is not None:
        say(
            stops.warning
            or f"draws that stopped early changed the route of {stops.changed} of {stops.n} calls"
        )


def _show_baseline(name: str, point: Point, gained: tuple[float, float, float] | None) -> None:
    low, high = point.quality_ci or (None, None)
    interval = "" if low is None else f" [{low:.4f}, {high:.4f}]"
    quality = "not known" if point.quality is None else f"{point.quality:.4f}{interval}"
    cost = "not known" if point.usd_per_1k is None else f"{point.usd_per_1k:.4g} USD"
    difference = "" if gained is None else "; policy {:+.4f} [{:+.4f}, {:+.4f}]".format(*gained)
    say(f"{name}: quality {quality}, 1000 calls cost {cost}{difference}")
