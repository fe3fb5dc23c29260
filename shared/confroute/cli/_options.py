"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.errors import PolicyError

if TYPE_CHECKING:
    from confroute.prices import Price


def count(text: str) -> int:
    """Read a whole number of 1 or more.

    Raises
    ------
    ArgumentTypeError
        Anything else: a negative limit, say, would leave out rows at the end.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        msg = f"{text!r}: expected a whole number of 1 or more"
        raise argparse.ArgumentTypeError(msg)
    return number


def add_url(parser: argparse._ActionsContainer, whose: str, told: str) -> None:
    """Add the server of one model, under its short name too."""
    parser.add_argument(f"--{whose}-base-url", f"--{whose}-url", metavar="URL", help=told)


def add_price(parser: argparse.ArgumentParser, flag: str, whose: str) -> None:
    """Add a price, which `price_of` reads."""
    parser.add_argument(
        flag, metavar="IN,OUT|MODEL", help=f"{whose}: USD for a million tokens, or a listed model"
    )


def add_judging(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add what all commands of judges take."""
    parser.add_argument(
        "--judge",
        action="append",
        metavar="MODEL",
        required=required,
        help="local:NAME, openai:MODEL, ollama:MODEL or MODULE:OBJECT; give it again for a panel",
    )
    parser.add_argument("--base-url", metavar="URL", help="OpenAI-compatible server of the judges")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="keep replies here and ask nothing twice")
    parser.add_argument(
        "--max-tokens", type=int, default=1024, metavar="N", help="longest reply (default: %(default)s)"
    )
    parser.add_argument(
        "--concurrency", type=int, default=8, metavar="N", help="requests at a time (default: %(default)s)"
    )
    add_price(parser, "--price", "price of the judges")
    parser.add_argument(
        "--private", action="append", metavar="REGEX", help="matching text stays on this machine"
    )
    parser.add_argument("--limit", type=count, metavar="N", help="judge only N of them")
    parser.add_argument("--json", action="store_true", help="print JSON")


def price_of(text: str | None) -> Price | None:
    """Read "IN,OUT", USD for a million tokens, or look a model up in the price list.

    Raises
    ------
    PolicyError
        Neither two numbers of at least 0 nor a listed model.
    MissingExtraError
        The name of a model, without `genai-prices`.
    """
    from confroute.prices import Price

    if text is None:
        return None
    if "," in text or text.replace(".", "", 1).isdigit():
        return Price.parse(text)
    try:
        return Price.listed(text)
    except PolicyError as error:
        msg = f"{error}, on the command line IN,OUT"
        raise PolicyError(msg) from error
