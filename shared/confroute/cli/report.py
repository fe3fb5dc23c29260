"""``confroute report``: turn a decision log into one HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from confroute.cli.terminal import say
from confroute.errors import LogError, PolicyError
from confroute.views.html import counted


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "report",
        help="turn a decision log into an HTML page",
        description="Read a log that confroute.observe.log.DecisionLog wrote, its renamed files included, and write one "
        "self-contained page: shares, savings, latency, uncertainty over time, drift, decisions worth a look.",
    )
    parser.add_argument("log", type=Path, metavar="LOG", help="the newest file of the log")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="where to write (default: LOG with .html behind it)"
    )
    parser.add_argument(
        "--price",
        action="append",
        default=[],
        type=_price,
        metavar="TIER=IN,OUT",
        help="USD for a million input and output tokens of a tier, such as cloud=0.15,0.60; give it again for another",
    )
    parser.set_defaults(run=run)


def _price(text: str) -> tuple[str, tuple[float, float]]:
    from confroute.prices import Price

    tier, _, pair = text.partition("=")
    try:
        price = Price.parse(pair)
    except PolicyError as error:
        msg = f"{text!r}: expected TIER=IN,OUT such as cloud=0.15,0.60 ({error})"
        raise argparse.ArgumentTypeError(msg) from None
    return tier, (price.input_usd, price.output_usd)


def run(args: argparse.Namespace) -> int:
    """Read the log, write the page and print its path.

    Raises
    ------
    LogError
        LOG cannot be read, or the page cannot be written.
    PolicyError
        A price of a tier that the log does not name.
    """
    from confroute.observe.log import read_log
    from confroute.views.report import log_page

    torn: list[str] = []
    entries = list(read_log(args.log, torn=torn.append))
    tiers = {tier for entry in entries for tier in entry.decision.usage}
    if unknown := sorted({tier for tier, _ in args.price} - tiers - {"edge", "cloud"}):
        msg = f"--price for {', '.join(unknown)}: {args.log} has calls of {', '.join(sorted(tiers)) or 'no tier'}"
        raise PolicyError(msg)
    out: Path = args.out or args.log.with_name(args.log.name + ".html")
    try:
        out.write_text(log_page(entries, prices_usd=dict(args.price)), encoding="utf-8")
    except OSError as error:
        msg = f"the page cannot be written to {out}: {error}; give --out a file in a folder that exists"
        raise LogError(msg) from error
    say(out)
    skipped = (
        f"; skipped {counted(len(torn), 'line')} cut off in the middle: {', '.join(torn)}" if torn else ""
    )
    say(f"{counted(len(entries), 'call')}{skipped}", err=True)
    return 0
