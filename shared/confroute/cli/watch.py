"""``confroute watch``: whether a running policy keeps its promise, from its decision log."""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.cli.apply import NOT_KEPT
from confroute.cli.options import add_tier_prices, count, tier_prices_of
from confroute.cli.terminal import say

if TYPE_CHECKING:
    from confroute.drift import Health


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "watch",
        help="check whether a running policy keeps its promise",
        description="Read a log that confroute.observe.log.DecisionLog writes and print one line: the audited loss compared with the promise, "
        "with bounds that stay valid however often you look; the shares of calls; their cost; and whether they are like the recorded calls. "
        "The losses come from audits, so the policy has to run inside confroute.drift.Audited.",
    )
    parser.add_argument("log", type=Path, metavar="LOG", help="the newest file of the log")
    parser.add_argument(
        "--policy",
        type=Path,
        required=True,
        metavar="POLICY",
        help="the file of the policy that makes the log",
    )
    parser.add_argument(
        "--since",
        type=_time,
        metavar="TIME",
        help="leave out calls before this time, such as 2026-11-30T08:00:00+00:00",
    )
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.95,
        metavar="P",
        help="confidence of each bound, over all times together (default: %(default)s)",
    )
    add_tier_prices(parser)
    _add_printing(parser)
    parser.set_defaults(run=run)


def _add_printing(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--hours", type=count, default=0, metavar="N", help="also print the last N hours that have calls"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--fail-on-broken",
        action="store_true",
        help=f"exit with code {NOT_KEPT} once the promise is proved to be broken",
    )
    parser.add_argument(
        "--follow",
        type=count,
        nargs="?",
        const=10,
        metavar="SECONDS",
        help="keep running, and print what has changed every SECONDS seconds (default: %(const)s)",
    )


def _time(text: str) -> datetime:
    try:
        made = datetime.fromisoformat(text)
    except ValueError:
        made = None
    if made is None:
        msg = f"{text!r}: expected a date and time such as 2026-11-30T08:00:00+00:00"
        raise argparse.ArgumentTypeError(msg)
    # A time without its offset is the reader's own.
    return made.astimezone(UTC)


def run(args: argparse.Namespace) -> int:
    """Print what the log says, again and again if asked for.

    Raises
    ------
    LogError
        The log cannot be read.
    PolicyError
        The policy cannot be read, or a confidence outside (0, 1).
    """
    from confroute.drift import GrowingHealth
    from confroute.policy import load_policy

    policy, prices = load_policy(args.policy), tier_prices_of(args)
    watched = GrowingHealth(args.log, policy, prices=prices, since=args.since, confidence=args.confidence)
    shown = ""
    while True:
        found = watched()
        now = _shown(found, args)
        if now != shown:
            say(now)
        shown = now
        if args.fail_on_broken and not found.ok:
            return NOT_KEPT
        if args.follow is None:
            return 0
        time.sleep(args.follow)


def _shown(found: Health, args: argparse.Namespace) -> str:
    if args.json:
        return json.dumps(found.to_dict(), indent=None if args.follow else 2, allow_nan=False)
    return "\n".join([found.words, *(hour.words for hour in found.hours[len(found.hours) - args.hours :])])
