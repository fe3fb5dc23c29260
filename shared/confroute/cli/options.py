"""Arguments that several commands take: each `add_*` declares some, and the function named in its docstring reads them."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from confroute.errors import PolicyError
from confroute.models.resolution import NAMES
from confroute.types import TIERS

if TYPE_CHECKING:
    from confroute.models.text_model import TextModel
    from confroute.prices import Price


def count(text: str) -> int:
    """Read a whole number of 1 or more.

    Raises
    ------
    ArgumentTypeError
        Anything else; a negative limit, for example, would drop rows at the end.
    """
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        msg = f"{text!r}: expected a whole number of 1 or more"
        raise argparse.ArgumentTypeError(msg)
    return number


def new_file(text: str) -> Path:
    """Read the name of a file that is to be written: a command of many minutes should not end in what could be seen before.

    Raises
    ------
    ArgumentTypeError
        It is a folder, its folder does not exist, or it cannot be written to.
    """
    path = file_to_make(text)
    if not path.parent.is_dir():
        msg = f"{path.parent} is not a folder: make it first, or give a file in a folder that exists"
        raise argparse.ArgumentTypeError(msg)
    return path


def file_to_make(text: str) -> Path:
    """Read the name of a file as `new_file` does, for commands that make its folder too.

    Raises
    ------
    ArgumentTypeError
        It is a folder, there is a file in the way of its folder, or it cannot be written to.
    """
    path = Path(text)
    if path.is_dir():
        msg = f"{text} is a folder: expected a file"
        raise argparse.ArgumentTypeError(msg)
    if path.exists():
        return _writable(path, path)
    new_folder(str(path.parent))
    return path


def new_folder(text: str) -> Path:
    """Read the name of a folder that is to be made or filled, as `new_file` does.

    Raises
    ------
    ArgumentTypeError
        There is a file in its way, or it cannot be written to.
    """
    path = Path(text)
    there = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not there.is_dir():
        msg = f"{there} is not a folder: expected the name of one, or of none yet"
        raise argparse.ArgumentTypeError(msg)
    return _writable(path, there)


def _writable(path: Path, there: Path) -> Path:
    if not os.access(there, os.W_OK):
        msg = f"{there} cannot be written to: give a place where you may write"
        raise argparse.ArgumentTypeError(msg)
    return path


def add_model(
    parser: argparse._ActionsContainer,
    tier: str,
    about: str = "",
    *,
    names: str = NAMES,
    default: str | None = None,
    required: bool = False,
) -> None:
    """Add `--TIER` and `--TIER-base-url`, a tier's model and its server; `model_of` reads them.

    Parameters
    ----------
    parser : argparse container
    tier : str
    about : str
        What else the help says of the model.
    names : str
        The names that a model may have here.
    default : str, optional
    required : bool
    """
    parser.add_argument(
        f"--{tier}",
        default=default,
        required=required,
        metavar="MODEL",
        help=f"{names}{about and '; '}{about}",
    )
    _add_url(parser, tier)


def add_dtype(parser: argparse._ActionsContainer) -> None:
    """Add `--dtype`, the type of local models' weights; `resolve_model` reads it."""
    parser.add_argument(
        "--dtype",
        metavar="TYPE",
        help="type of local models' weights: float32, bfloat16, float16 or auto (default: auto above 300 MB on disk, else float32)",
    )


def add_judge(parser: argparse._ActionsContainer, about: str = "", *, required: bool = False) -> None:
    """Add `--judge`, `--judge-base-url` and `--judge-cache`; `panel_of` reads the first two."""
    again = f"{NAMES}; give it again for a panel{about and '; '}{about}"
    parser.add_argument("--judge", action="append", metavar="MODEL", required=required, help=again)
    # The second name is older, from when the judges were the only models of `confroute judge`.
    _add_url(parser, "judge", "--base-url")
    add_renamed(
        parser,
        "--judge-cache",
        "--cache",
        type=Path,
        metavar="FILE",
        help="keep the judges' replies in this file, so that none is paid for twice",
    )


def _add_url(parser: argparse._ActionsContainer, owner: str, *older: str) -> None:
    add_renamed(
        parser,
        f"--{owner}-base-url",
        *(f"--{owner}-url", *older),
        metavar="URL",
        help=f"base URL of the {owner}'s server, if it runs behind one",
    )


def add_renamed(parser: argparse._ActionsContainer, name: str, *older: str, **settings: Any) -> None:
    """Add an option, and its older names, which no help shows."""
    option = parser.add_argument(name, **settings)
    if older:
        parser.add_argument(*older, dest=option.dest, **{**settings, "help": argparse.SUPPRESS})


def model_of(args: argparse.Namespace, tier: str) -> TextModel | None:
    """Resolve the model of a tier; None if none was given."""
    name: str | None = getattr(args, tier)
    return None if name is None else resolve_model(args, name, getattr(args, f"{tier}_base_url"))


def resolve_model(args: argparse.Namespace, name: str, base_url: str | None) -> TextModel:
    """Resolve a model by name, with the settings that all models of a command share."""
    from confroute.models.resolution import resolve

    return resolve(name, base_url=base_url, dtype=args.dtype, max_tokens=getattr(args, "max_tokens", None))


def panel_of(args: argparse.Namespace) -> list[TextModel]:
    """Resolve the models of all judges."""
    from confroute.models.resolution import resolve

    return [resolve(name, base_url=args.judge_base_url, dtype=args.dtype) for name in args.judge]


def add_price(parser: argparse._ActionsContainer, tier: str, about: str, *older: str) -> None:
    """Add `--TIER-price`; `price_of` reads it.

    Parameters
    ----------
    parser : argparse container
    tier : str
    about : str
        What it is for.
    *older : str
        Names that the option had before.
    """
    words = f"price of the {tier}, {about}: USD per million tokens, or the name of a model in the price list"
    add_renamed(parser, f"--{tier}-price", *older, metavar="IN,OUT[,CACHED[,WRITTEN]]|MODEL", help=words)


def add_judging(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Add the arguments of every command that asks judges."""
    add_judge(parser, required=required)
    add_dtype(parser)
    parser.add_argument(
        "--max-tokens", type=int, default=1024, metavar="N", help="longest reply (default: %(default)s)"
    )
    parser.add_argument(
        "--concurrency", type=int, default=8, metavar="N", help="requests at a time (default: %(default)s)"
    )
    add_price(parser, "judge", "to print what they cost", "--price")
    add_private(parser)
    parser.add_argument("--limit", type=count, metavar="N", help="judge only N of them")
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_private(parser: argparse._ActionsContainer) -> None:
    """Add `--private`, whose patterns name what no remote model may see."""
    parser.add_argument(
        "--private", action="append", metavar="REGEX", help="text that matches never leaves this machine"
    )


def price_of(text: str | None) -> Price | None:
    """Read "IN,OUT" in USD per million tokens, or look a model up in the price list.

    Raises
    ------
    PolicyError
        Neither two numbers of 0 or more nor a listed model.
    MissingExtraError
        A model's name, and `genai-prices` is not installed.
    """
    from confroute.prices import Price

    if text is None:
        return None
    if "," in text or text.replace(".", "", 1).isdigit():
        return Price.parse(text)
    try:
        return Price.listed(text)
    except PolicyError as error:
        msg = f"{error}; on the command line, write IN,OUT"
        raise PolicyError(msg) from error


def add_tiers(parser: argparse._ActionsContainer, about: str) -> None:
    """Add `--tier` and `--tier-base-url`, models between edge and cloud and their servers; `tiers_of` reads them."""
    parser.add_argument(
        "--tier",
        action="append",
        default=[],
        metavar="NAME=MODEL",
        help=f"a model between edge and cloud, with the name of its tier, {about}; repeat for more, cheapest first",
    )
    parser.add_argument(
        "--tier-base-url",
        action="append",
        default=[],
        metavar="NAME=URL",
        help="base URL of such a model's server, if it runs behind one",
    )


def tiers_of(args: argparse.Namespace) -> dict[str, TextModel]:
    """Resolve the models between edge and cloud, by the names of their tiers."""
    return named_models(args, "--tier", args.tier, args.tier_base_url)


def named_models(
    args: argparse.Namespace, flag: str, models: Sequence[str], urls: Sequence[str]
) -> dict[str, TextModel]:
    """Resolve models given as NAME=MODEL, with their servers as NAME=URL.

    Raises
    ------
    PolicyError
        A name twice, one that is a tier's, or a server of a name that was not given.
    """
    named, servers = pairs_of(flag, models), pairs_of(f"{flag}-base-url", urls)
    if unknown := sorted({*servers} - {*named}):
        msg = f"{flag}-base-url {', '.join(unknown)}: expected a name that {flag} gives"
        raise PolicyError(msg)
    return {name: resolve_model(args, model, servers.get(name)) for name, model in named.items()}


def pairs_of(flag: str, arguments: Sequence[str]) -> dict[str, str]:
    """Read NAME=VALUE arguments.

    Raises
    ------
    PolicyError
        Anything else, a name twice, or one of edge and cloud.
    """
    pairs: dict[str, str] = {}
    for text in arguments:
        name, _, value = text.partition("=")
        if not name or not value or name in {*TIERS, *pairs}:
            msg = f"{flag} {text}: expected NAME=VALUE, each NAME once and none of them edge or cloud"
            raise PolicyError(msg)
        pairs[name] = value
    return pairs


def add_tier_prices(parser: argparse._ActionsContainer) -> None:
    """Add `--price`, prices by tier; `tier_prices_of` reads them."""
    parser.add_argument(
        "--price",
        action="append",
        default=[],
        type=_tier_price,
        metavar="TIER=IN,OUT[,CACHED[,WRITTEN]]",
        help="price of a tier in USD per million input and output tokens, such as cloud=0.15,0.60, optionally followed by the prices of tokens "
        "read from and written to its prompt cache; repeat for other tiers",
    )


def _tier_price(text: str) -> tuple[str, Price]:
    from confroute.prices import Price

    tier, _, pair = text.partition("=")
    try:
        return tier, Price.parse(pair)
    except PolicyError as error:
        msg = f"{text!r}: expected TIER=IN,OUT such as cloud=0.15,0.60 ({error})"
        raise argparse.ArgumentTypeError(msg) from None


def all_prices_of(args: argparse.Namespace) -> tuple[Price | None, Price | None, dict[str, Price]]:
    """Read the prices of the edge, the cloud and the tiers between, from `--edge-price`, `--cloud-price` and `--price`."""
    by_tier: dict[str, Price] = dict(args.price)
    edge, cloud = (price_of(getattr(args, f"{tier}_price")) or by_tier.pop(tier, None) for tier in TIERS)
    return edge, cloud, by_tier


def tier_prices_of(args: argparse.Namespace) -> dict[str, Price] | None:
    """Read the prices by tier; None where none was given."""
    return dict(args.price) or None
