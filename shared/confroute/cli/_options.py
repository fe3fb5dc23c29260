"""Arguments that several commands take."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.errors import PolicyError
from confroute.models.resolution import NAMES

if TYPE_CHECKING:
    from confroute.models.text_model import TextModel
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


def add_model(
    parser: argparse._ActionsContainer,
    tier: str,
    about: str,
    *,
    default: str | None = None,
    required: bool = False,
) -> None:
    """Add the model of a tier and its server, which `model_of` reads."""
    parser.add_argument(f"--{tier}", default=default, required=required, metavar="MODEL", help=about)
    _add_url(parser, tier, f"server of the {tier}, where it is behind one")


def add_dtype(parser: argparse._ActionsContainer) -> None:
    """Add the type of local models' weights."""
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        help="type of local models' weights: float32, bfloat16, float16 or auto (default: by the model's size)",
    )


def add_judge(parser: argparse._ActionsContainer, about: str, *, required: bool = False) -> None:
    """Add the models of judges and their server, which `panel_of` reads."""
    parser.add_argument("--judge", action="append", metavar="MODEL", required=required, help=about)
    _add_url(parser, "judge", "server of the judges, where they are behind one")


def _add_url(parser: argparse._ActionsContainer, whose: str, about: str) -> None:
    # `confroute judge` had no other models, and so no other name for it.
    short = f"--{whose}-url", *(("--base-url",) if whose == "judge" else ())
    parser.add_argument(f"--{whose}-base-url", *short, metavar="URL", help=about)


def model_of(args: argparse.Namespace, tier: str) -> TextModel | None:
    """Resolve the model of a tier; None where none was named."""
    name: str | None = getattr(args, tier)
    return None if name is None else model_named(args, name, getattr(args, f"{tier}_base_url"))


def model_named(args: argparse.Namespace, name: str, base_url: str | None) -> TextModel:
    """Resolve a model by its name, with the settings that all models of a command share."""
    from confroute.models.resolution import resolve

    return resolve(name, base_url=base_url, dtype=args.dtype, max_tokens=getattr(args, "max_tokens", None))


def panel_of(args: argparse.Namespace) -> list[TextModel]:
    """Resolve the models of all judges."""
    from confroute.models.resolution import resolve

    return [resolve(name, base_url=args.judge_base_url, dtype=args.dtype) for name in args.judge]


def add_price(parser: argparse.ArgumentParser, flag: str, whose: str) -> None:
    """Add a price, which `price_of` reads."""
    parser.add_argument(
        flag, metavar="IN,OUT|MODEL", help=f"{whose}: USD for a million tokens, or a listed model"
    )


def add_judging(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add what all commands of judges take."""
    add_judge(parser, f"{NAMES}; give it again for a panel", required=required)
    add_dtype(parser)
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
