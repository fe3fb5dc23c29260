"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from confroute.errors import PolicyError

if TYPE_CHECKING:
    from confroute.prices import Price


def add_price(parser: argparse.ArgumentParser, flag: str, whose: str) -> None:
    """Add a price, which `price_of` reads."""
    parser.add_argument(
        flag, metavar="IN,OUT|MODEL", help=f"{whose}: USD for a million tokens, or a listed model"
    )


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
