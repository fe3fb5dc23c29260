"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from confroute.errors import PolicyError

if TYPE_CHECKING:
    from confroute.prices import Price


def price(text: str) -> Price:
    """Read "IN,OUT", USD for a million tokens.

    Raises
    ------
    ArgumentTypeError
        Not two numbers of at least 0.
    """
    from confroute.prices import Price

    try:
        return Price.parse(text)
    except PolicyError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
