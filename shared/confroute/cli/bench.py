"""``confroute bench replay``: every router on RouteLLM's benchmarks, or on a recorded run."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from confroute.bench.replay.protocol import Result


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser("bench", help="compare routers on recorded answers")
    inner = parser.add_subparsers(metavar="WHAT", required=True)
    replay = inner.add_parser(
        "replay",
        help="RouteLLM's benchmarks, or a recorded run",
        description="Replay recorded answers of an edge and a cloud model under every router: share and cost of cloud "
        "calls against quality. Nothing is generated.",
    )
    replay.add_argument("--data", type=Path, metavar="FOLDER", help="a clone of lm-sys/RouteLLM")
    replay.add_argument("--recorded", type=Path, metavar="FILE", help="JSON lines of `confroute record`")
    replay.add_argument("--dataset", metavar="NAME", help="with --recorded: only rows of this dataset")
    replay.add_argument(
        "--train",
        type=Path,
        metavar="FOLDER",
        help="recorded training data (default: CONFROUTE_DATA/recorded)",
    )
    replay.add_argument(
        "--encoder", default="all-minilm-l6-v2", metavar="MODEL", help="local embedding model"
    )
    replay.add_argument("--cache", type=Path, metavar="FOLDER", help="keep embeddings here")
    replay.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap")
    replay.add_argument("--json", action="store_true", help="print JSON")
    replay.add_argument("--out", type=Path, metavar="FOLDER", help="write replay.html, replay.md and plots")
    replay.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Replay and print.

    Raises
    ------
    PolicyError
        Neither or both of --data and --recorded, or data that cannot be used.
    """
    if (args.data is None) == (args.recorded is None):
        msg = "expected either --data FOLDER or --recorded FILE"
        raise PolicyError(msg)
    return _recorded(args) if args.recorded is not None else _benchmarks(args)


def _say(text: str) -> None:
    # Standard output may be JSON for a program.
    print(text, file=sys.stderr, flush=True)


def _benchmarks(args: argparse.Namespace) -> int:
    from confroute.bench.replay.report import write
    from confroute.bench.replay.run import replay
    from confroute.heads.encoder import encoder
    from confroute.models.catalog import cache_dir

    found = replay(
        args.data,
        train=_training(args.train),
        encoder=lambda: encoder(args.encoder, features=True),
        cache=args.cache or cache_dir() / "embeddings",
        resamples=args.resamples,
        say=_say,
    )
    if args.out is not None:
        _say(f"written: {', '.join(map(str, write(found, args.out)))}")
    if args.json:
        print(
            json.dumps({"benchmarks": {name: one.to_dict() for name, one in found.items()}}, allow_nan=False)
        )
        return 0
    for name, one in found.items():
        _show(f"{name}, {one.bench.n} prompts", one.results)
    return 0


def _training(given: Path | None) -> Path | None:
    if given is not None:
        if not given.is_dir():
            msg = f"--train {given}: no such folder"
            raise PolicyError(msg)
        return given
    data = os.environ.get("CONFROUTE_DATA")
    if data and (found := Path(data) / "recorded").is_dir():
        return found
    return None


def _recorded(args: argparse.Namespace) -> int:
    from confroute.bench.replay.recorded import replay_recorded
    from confroute.recording import read_rows

    rows = [row for row in read_rows(args.recorded) if args.dataset in (None, row.dataset)]
    bench, results = replay_recorded(rows, name=args.dataset or args.recorded.name, resamples=args.resamples)
    if args.json:
        methods = {result.name: result.to_dict() for result in results}
        print(json.dumps({"benchmarks": {bench.name: {"n": bench.n, "methods": methods}}}, allow_nan=False))
        return 0
    _show(f"{bench.name}, {bench.n} prompts", results)
    return 0


def _show(title: str, results: Iterable[Result]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from confroute.bench.replay.report import HEAD, cells

    console = Console()
    if not console.is_terminal:
        console.width = 170
    table = Table(title=title, pad_edge=False)
    for at, name in enumerate(HEAD):
        table.add_column(name, justify="right" if at else "left")
    for result in sorted(results, key=lambda one: -one.apgr):
        table.add_row(*map(escape, cells(result)))
    console.print(table)
