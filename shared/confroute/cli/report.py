"""``confroute report``: turn a decision log or a recorded run into one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confroute.cli.options import add_tier_prices, new_file
from confroute.cli.runs import rows_of
from confroute.cli.terminal import say
from confroute.errors import LogError, PolicyError
from confroute.reading import json_lines
from confroute.views.html import counted

if TYPE_CHECKING:
    from confroute.flow import Policy


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "report",
        help="turn a decision log or a recorded run into an HTML page",
        description="Write one self-contained page. For a log that confroute.observe.log.DecisionLog wrote (including its renamed files), it "
        "shows shares, savings, latency, uncertainty over time, drift and decisions worth a look; with --policy, also whether the promise "
        "is kept. For a run that `confroute record` wrote, it shows every question with both answers and their grades, what the policy decides, and what was "
        "right; private rows without their texts.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the newest file of a log, or a recorded run")
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="POLICY",
        help="a policy file: the one that made the log, or one to try on the run",
    )
    parser.add_argument(
        "--out",
        type=new_file,
        metavar="PAGE",
        help="where to write the page (default: FILE with .html appended)",
    )
    add_tier_prices(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Read the file, write the page and print its path.

    Raises
    ------
    LogError
        FILE cannot be read or is neither a log nor a run, or the page cannot be written.
    RecordError
        A line of a run that is not a row.
    PolicyError
        The policy cannot be read, or a price of a tier that the log does not name, or a price for a run.
    """
    from confroute.policy import load_policy

    policy = None if args.policy is None else load_policy(args.policy)
    page, told = _run_page(args, policy) if _is_run(args.file) else _log_page(args, policy)
    out: Path = args.out or args.file.with_name(args.file.name + ".html")
    try:
        out.write_text(page, encoding="utf-8")
    except OSError as error:
        msg = f"the page cannot be written to {out}: {error}; give --out a file in a folder that exists"
        raise LogError(msg) from error
    say(out)
    say(told, err=True)
    return 0


def _is_run(path: Path) -> bool:
    """Whether a file holds rows of a run, by its first line; an empty one is a log without a call."""
    for _, line in json_lines(path, LogError, torn=lambda _: None):
        keys: Any = line if isinstance(line, dict) else {}
        if "at" in keys or "id" in keys:
            return "at" not in keys
        msg = (
            f"{path} begins with neither a decision (an object with 'at') nor a recorded row (an object with 'id' and 'edge'): expected a "
            "file of confroute.observe.log.DecisionLog or of `confroute record`"
        )
        raise LogError(msg)
    return False


def _run_page(args: argparse.Namespace, policy: Policy | None) -> tuple[str, str]:
    from confroute.views.run import run_page

    if args.price:
        msg = f"--price does not work with a recorded run, which has its own costs ({args.file}): leave it out, or give a decision log"
        raise PolicyError(msg)
    rows = [*rows_of(args.file, None)]
    return run_page(rows, policy), counted(len(rows), "row")


def _log_page(args: argparse.Namespace, policy: Policy | None) -> tuple[str, str]:
    from confroute.drift import health
    from confroute.observe.log import Entry, read_all
    from confroute.views.report import log_page

    torn: list[str] = []
    lines = [*read_all(args.file, torn=torn.append)]
    entries = [line for line in lines if isinstance(line, Entry)]
    tiers = {tier for entry in entries for tier in entry.decision.usage}
    if unknown := sorted({tier for tier, _ in args.price} - tiers - {"edge", "cloud"}):
        msg = f"--price for {', '.join(unknown)}: {args.file} has calls of {', '.join(sorted(tiers)) or 'no tier'}"
        raise PolicyError(msg)
    prices = dict(args.price)
    page = log_page(
        entries,
        prices=prices,
        health=None if policy is None else health(lines, policy, prices=prices or None),
    )
    skipped = (
        f"; skipped {counted(len(torn), 'line')} cut off in the middle: {', '.join(torn)}" if torn else ""
    )
    return page, f"{counted(len(entries), 'call')}{skipped}"
