"""What commands over recorded runs share: their rows, prices and progress."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.cli._options import add_price, price_of
from confroute.errors import PolicyError

if TYPE_CHECKING:
    from confroute.fitting import Rates
    from confroute.recording import Row


def rows_of(path: Path, dataset: str | None) -> Iterator[Row]:
    """Rows of a recorded run, of one dataset if it is named.

    Raises
    ------
    RecordError
        The file cannot be read, or a line is no row.
    PolicyError
        No row is of the dataset.
    """
    from confroute.recording import read_rows

    others: set[str] = set()
    found = False
    for row in read_rows(path):
        if dataset is None or row.dataset == dataset:
            found = True
            yield row
        else:
            others.add(row.dataset)
    if dataset is not None and not found:
        msg = f"{path} holds no row of dataset {dataset!r}: expected one of {sorted(others)}"
        raise PolicyError(msg)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what says which recorded run is read, and at which prices."""
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
    """Add what a tier's tokens and seconds cost."""
    for tier in ("edge", "cloud"):
        add_price(parser, f"--{tier}-price", f"price of the {tier}, where the run records no cost_usd")
        parser.add_argument(
            f"--{tier}-watts", type=float, metavar="W", help=f"watts that the {tier} draws while it works"
        )


def rates_of(args: argparse.Namespace) -> Rates:
    """Prices and power as given.

    Raises
    ------
    PolicyError
        A price that is neither two numbers nor a listed model.
    MissingExtraError
        The name of a model, without `genai-prices`.
    """
    from confroute.fitting import Rates

    return Rates(
        edge=price_of(args.edge_price),
        cloud=price_of(args.cloud_price),
        edge_watts=args.edge_watts,
        cloud_watts=args.cloud_watts,
    )


@contextmanager
def progress(words: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while a run is replayed; nothing where that is no terminal."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(words, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
