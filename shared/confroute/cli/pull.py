"""``confroute pull NAME``: get a model onto this machine."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from confroute.cli import terminal
from confroute.cli.terminal import say

if TYPE_CHECKING:
    from confroute.models.download import Progress


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "pull",
        help="download a local model",
        description="Download a known local model and print its path. `confroute models` lists the names.",
    )
    parser.add_argument("name", metavar="NAME", help="a name that `confroute models` lists")
    parser.add_argument(
        "--verify", action="store_true", help="check the hashes of a model that is already on this machine"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Pull one model and print its path; everything else goes to standard error."""
    from confroute.models.catalog import is_pulled
    from confroute.models.download import pull

    start, here = time.monotonic(), is_pulled(args.name)
    with _progress(args.name) as progress:
        path = pull(args.name, verify=args.verify, progress=progress)
    done = ("verified" if args.verify else "here already") if here else "pulled"
    say(f"{args.name}: {done} in {time.monotonic() - start:.1f} s", err=True)
    say(path)
    return 0


@contextmanager
def _progress(name: str) -> Iterator[Progress | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bars(*columns, console=terminal.console(stderr=True), transient=True) as bars:
        # No bar until there is something to show: a model that is here already needs none.
        task = bars.add_task(name, total=None, visible=False)
        yield lambda done, total: bars.update(task, completed=done, total=total, visible=True)
