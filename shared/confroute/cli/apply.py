"""``confroute apply``: replay a fitted policy on a recorded run."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from confroute.certificate import Certificate
from confroute.cli.fit import show_expected
from confroute.cli.progress import replay_progress
from confroute.cli.runs import add_run_arguments, rates_of, rows_of
from confroute.cli.terminal import say


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "apply",
        help="replay a policy on a recorded run",
        description="Route every graded call of a recorded run by a policy file, through the same flow as new calls, answered from the "
        "run, and print what came of it.",
    )
    parser.add_argument("policy", type=Path, metavar="POLICY", help="a policy file")
    add_run_arguments(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay the policy on the run and print what came of it.

    Raises
    ------
    RecordError
        The run cannot be read.
    PolicyError
        The policy cannot be read, or no row is graded.
    """
    from confroute.fitting import early_stops, expected, replay, table_of
    from confroute.policy import load_policy
    from confroute.registry import parts_of

    policy = load_policy(args.policy)
    rates = rates_of(args)
    table = table_of(rows_of(args.data, args.dataset), rates=rates)
    with replay_progress() as progress:
        replayed = replay(policy, table.rows, rates=rates, progress=progress)
        stops = early_stops(policy, table.rows, replayed, rates=rates, progress=progress)
    result = expected(replayed, seed=args.seed)
    certificate = next((part.to_dict() for part in parts_of(policy) if isinstance(part, Certificate)), None)
    if args.json:
        say(
            json.dumps(
                {
                    "policy": str(args.policy),
                    "certificate": certificate,
                    "expected": result.to_dict(),
                    **({} if stops is None else {"early_stops": stops.to_dict()}),
                },
                indent=2,
                allow_nan=False,
            )
        )
        return 0
    say(f"{result.n} recorded calls, {table.left_out} not graded")
    show_expected(result)
    if stops is not None:
        say(
            stops.warning
            or f"draws that stopped early changed the route of {stops.changed} of {stops.n} calls"
        )
    return 0
