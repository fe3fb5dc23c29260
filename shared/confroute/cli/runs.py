"""Arguments of commands that read a recorded run, and the rows and rates they name."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.cli.options import add_price, add_tier_prices, all_prices_of
from confroute.cli.terminal import say
from confroute.errors import PolicyError

if TYPE_CHECKING:
    from confroute.fitting import Rates
    from confroute.recording import Row


def rows_of(path: Path, dataset: str | None) -> Iterator[Row]:
    """Read the rows of a recorded run, all or those of one dataset.

    Raises
    ------
    RecordError
        The file cannot be read, or a line is not a row.
    PolicyError
        No row is of the dataset.
    """
    from confroute.recording import read_rows

    def torn(at: int) -> None:
        say(f"{path}, line {at} is cut off in the middle: left out", err=True)

    others: set[str] = set()
    matched = False
    for row in read_rows(path, torn=torn):
        if dataset is None or row.dataset == dataset:
            matched = True
            yield row
        else:
            others.add(row.dataset)
    if dataset is not None and not matched:
        msg = f"{path} holds no row of dataset {dataset!r}: expected one of {sorted(others)}"
        raise PolicyError(msg)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recorded run to read, its prices and the seed; `rows_of` and `rates_of` read them."""
    parser.add_argument(
        "data", type=Path, metavar="RECORDED", help="JSON lines of `confroute record`, plain or .gz"
    )
    parser.add_argument("--dataset", metavar="NAME", help="only rows of this dataset (default: all, pooled)")
    add_prices(parser)
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of splits, folds and intervals (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")


def add_prices(parser: argparse.ArgumentParser) -> None:
    """Add what each tier's tokens and seconds cost; `rates_of` reads it."""
    for tier in ("edge", "cloud"):
        add_price(parser, tier, "where the run records no cost_usd")
        parser.add_argument(
            f"--{tier}-watts", type=float, metavar="W", help=f"watts that the {tier} uses while it works"
        )
    add_tier_prices(parser)


def rates_of(args: argparse.Namespace) -> Rates:
    """Read the prices of all tiers and the power of edge and cloud.

    Raises
    ------
    PolicyError
        A price that is neither two numbers nor a listed model.
    MissingExtraError
        A model's name as a price, and `genai-prices` is not installed.
    """
    from confroute.fitting import Rates

    edge, cloud, between = all_prices_of(args)
    return Rates(
        edge=edge,
        cloud=cloud,
        tiers=between,
        edge_watts=args.edge_watts,
        cloud_watts=args.cloud_watts,
    )
