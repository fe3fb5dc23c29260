"""``confroute bench replay``: compare all routers on RouteLLM's benchmarks, or on a recorded run."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.cli import terminal
from confroute.cli.options import count, new_folder
from confroute.cli.runs import add_prices
from confroute.cli.terminal import say
from confroute.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from confroute.bench.protocol import Result
    from confroute.bench.recorded import RecordedReplay


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "bench",
        help="compare routers on recorded answers",
        description="Compare routers on recorded answers. Nothing is generated.",
    )
    _add_replay(parser.add_subparsers(metavar="WHAT", required=True))


def _add_replay(inner: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    replay = inner.add_parser(
        "replay",
        help="replay RouteLLM's benchmarks or a recorded run",
        description="Replay recorded answers of an edge and a cloud model under every router, and compare quality with the share and the cost "
        "of cloud calls. Nothing is generated.",
    )
    replay.add_argument("--data", type=Path, metavar="FOLDER", help="a clone of lm-sys/RouteLLM")
    replay.add_argument(
        "--recorded",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="instead of --data: JSON lines of `confroute record`, plain or .gz",
    )
    replay.add_argument("--dataset", metavar="NAME", help="with --recorded: only rows of this dataset")
    replay.add_argument(
        "--train",
        type=Path,
        metavar="FOLDER",
        help="recorded training data (default: CONFROUTE_DATA/recorded)",
    )
    replay.add_argument(
        "--encoder",
        default="all-minilm-l6-v2",
        metavar="MODEL",
        help="local embedding model (default: %(default)s)",
    )
    replay.add_argument(
        "--no-heads", action="store_true", help="with --recorded: train no heads on its prompts"
    )
    _add_settings(replay)
    replay.set_defaults(run=run)


def _add_settings(replay: argparse.ArgumentParser) -> None:
    add_prices(replay)
    replay.add_argument(
        "--cache", type=new_folder, metavar="FOLDER", help="keep embeddings and tuned encoders here"
    )
    replay.add_argument(
        "--resamples",
        type=count,
        default=1000,
        metavar="N",
        help="resamples of the bootstrap (default: %(default)s)",
    )
    replay.add_argument("--json", action="store_true", help="print JSON")
    replay.add_argument(
        "--out", type=new_folder, metavar="FOLDER", help="write tables, plots and a page here"
    )


def run(args: argparse.Namespace) -> int:
    """Replay the recorded answers under every router and print a table of them.

    Raises
    ------
    PolicyError
        Neither or both of --data and --recorded, or data that cannot be used.
    """
    if (args.data is None) == (args.recorded is None):
        msg = "expected either --data FOLDER or --recorded FILE"
        raise PolicyError(msg)
    return _replay_recorded(args) if args.recorded is not None else _replay_benchmarks(args)


def _report(text: str) -> None:
    # Standard output may be JSON for a program.
    say(text, err=True)


def _replay_benchmarks(args: argparse.Namespace) -> int:
    from confroute.bench.candidates import LARGER
    from confroute.bench.report import write
    from confroute.bench.run import replay
    from confroute.bench.training import local_encoder, tuned_encoder
    from confroute.heads.encoder import encoder
    from confroute.models.catalog import cache_dir

    cache = args.cache or cache_dir() / "embeddings"
    replays = replay(
        args.data,
        train=_training_data(args.train),
        encoder=lambda: encoder(args.encoder, features=True),
        tune=lambda train: tuned_encoder(train, cache=cache, base=args.encoder, say=_report),
        larger=lambda: local_encoder(LARGER),
        cache=cache,
        resamples=args.resamples,
        say=_report,
    )
    if args.out is not None:
        _report(f"written: {', '.join(map(str, write(replays, args.out)))}")
    if args.json:
        say(
            json.dumps(
                {"benchmarks": {name: one.to_dict() for name, one in replays.items()}}, allow_nan=False
            )
        )
        return 0
    for name, one in replays.items():
        _show(f"{name}, {one.bench.n} prompts", one.results)
    return 0


def _training_data(folder: Path | None) -> Path | None:
    if folder is not None:
        if not folder.is_dir():
            msg = f"--train {folder}: no such folder"
            raise PolicyError(msg)
        return folder
    data = os.environ.get("CONFROUTE_DATA")
    if data and (recorded := Path(data) / "recorded").is_dir():
        return recorded
    return None


def _replay_recorded(args: argparse.Namespace) -> int:
    from confroute.bench.recorded import replay_recorded
    from confroute.bench.recorded_report import write
    from confroute.cli.runs import rates_of
    from confroute.heads.encoder import encoder
    from confroute.models.catalog import cache_dir
    from confroute.recording import read_rows

    embed = None if args.no_heads else encoder(args.encoder, features=True)
    replays = {}
    for path in args.recorded:
        name = args.dataset if args.dataset and len(args.recorded) == 1 else path.name.partition(".")[0]
        replays[name] = replay_recorded(
            [row for row in read_rows(path) if args.dataset in (None, row.dataset)],
            name=name,
            folder=path.parent,
            rates=rates_of(args),
            encoder=embed,
            cache=args.cache or cache_dir() / "embeddings",
            resamples=args.resamples,
            say=_report,
        )
    if args.out is not None:
        _report(f"written: {', '.join(map(str, write(replays, args.out)))}")
    if args.json:
        say(
            json.dumps(
                {"benchmarks": {name: one.to_dict() for name, one in replays.items()}}, allow_nan=False
            )
        )
        return 0
    for name, one in replays.items():
        _show(f"{name}, {one.bench.n} calls, by share of cloud calls", one.results)
        _show_costs(name, one)
    return 0


def _show_costs(name: str, replay: RecordedReplay) -> None:
    from confroute.bench.recorded_report import COST_HEAD, cost_cells, verdict

    best = sorted(replay.costs, key=lambda one: -one.area.value)
    _print_table(f"{name}, at equal total cost", COST_HEAD, map(cost_cells, best))
    say(verdict(replay), *replay.notes)


def _show(title: str, results: Iterable[Result]) -> None:
    from confroute.bench.report import HEAD, cells

    _print_table(title, HEAD, (cells(result) for result in sorted(results, key=lambda one: -one.apgr)))


def _print_table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.markup import escape
    from rich.table import Table

    console = terminal.console(width=170)
    table = Table(title=title, pad_edge=False)
    for column, name in enumerate(head):
        table.add_column(name, justify="right" if column else "left")
    for row in rows:
        table.add_row(*map(escape, row))
    console.print(table)
