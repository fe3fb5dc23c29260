"""``confroute signals``: measure how well each signal of a recorded run detects the edge's errors, with intervals and plots."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.cli import terminal
from confroute.cli.options import new_folder
from confroute.cli.terminal import say
from confroute.errors import PolicyError
from confroute.views.html import counted

if TYPE_CHECKING:
    from rich.table import Table

    from confroute.recording.evaluation import RunReport, SignalReport


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "signals",
        help="measure how well signals detect errors on a recorded run",
        description="Measure, offline, every signal for which a recorded run has evidence: its AUROC for 'the edge is wrong' (quality below "
        "0.5), its prediction rejection ratio, the calibration error of its cross-fitted probability, and how much of the gap to the cloud "
        "routing by it recovers.",
    )
    parser.add_argument(
        "data", type=Path, nargs="?", metavar="DATA", help="JSON lines of `confroute record`, plain or .gz"
    )
    parser.add_argument(
        "--list", action="store_true", help="instead of measuring, list every signal and how it is recorded"
    )
    parser.add_argument(
        "--dataset", metavar="NAME", help="only rows of this dataset (default: all rows, pooled)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--plot",
        type=new_folder,
        metavar="FOLDER",
        help="draw reliability.svg and risk-coverage.svg into FOLDER",
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure every signal of the run and print a table.

    Raises
    ------
    RecordError
        DATA cannot be read, a line is not a row, or no row is graded.
    PolicyError
        No row is of the dataset, or the plots cannot be written.
    """
    from confroute.cli.progress import replay_progress
    from confroute.cli.runs import rows_of
    from confroute.recording.evaluation import evaluate

    if args.list:
        _list_signals(as_json=args.json)
        return 0
    if args.data is None:
        msg = "DATA is missing: give a run of `confroute record`, or --list to list all signals"
        raise PolicyError(msg)
    with replay_progress("measuring", "signals") as progress:
        report = evaluate(rows_of(args.data, args.dataset), progress=progress)
    if args.plot is not None:
        _draw(report, args.plot)
    if args.json:
        say(json.dumps(report.to_dict(), indent=2, allow_nan=False))
        return 0
    _show(report)
    return 0


def _list_signals(*, as_json: bool) -> None:
    from confroute.recording.signals import known_signals

    known = known_signals()
    if as_json:
        say(json.dumps([asdict(one) for one in known], indent=2))
        return
    for one in known:
        say(f"{one.name}: {one.values}\n  needs     {one.needs}\n  recorded  {one.recorded}")


def _draw(report: RunReport, folder: Path) -> None:
    from confroute.views.calibration import reliability_svg, risk_coverage_svg

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, draw in (("reliability", reliability_svg), ("risk-coverage", risk_coverage_svg)):
            (folder / f"{name}.svg").write_text(draw(report), encoding="utf-8")
    except OSError as error:
        msg = f"plots cannot be written to {folder}: {error}; give --plot a folder that can be written to"
        raise PolicyError(msg) from error
    # Standard output may be JSON for a program.
    say(f"plots: {folder / 'reliability.svg'}, {folder / 'risk-coverage.svg'}", err=True)


def _show(report: RunReport) -> None:
    console = terminal.console(width=110)
    cloud = "not recorded" if report.cloud_quality is None else f"{report.cloud_quality:.1%}"
    console.print(
        f"{counted(report.n, 'graded row')}, edge quality {report.edge_quality:.1%}, cloud quality {cloud}"
    )
    if report.ungraded:
        console.print(f"left out: {counted(report.ungraded, 'row')} without a graded edge answer")
    if report.cut_off:
        console.print(
            f"cut off at the length limit: {counted(report.cut_off, 'draft')}, which a policy sends to the cloud whatever "
            "the signals say"
        )
    if len(report.datasets) > 1:
        names = ", ".join(report.datasets)
        console.print(
            f"{len(report.datasets)} datasets pooled ({names}): --dataset NAME measures one", markup=False
        )
    if not report.signals:
        console.print("no signal could be measured: the rows hold no log-probabilities, options or samples")
        return
    console.print(_table(report))
    console.print(
        "AUROC: 0.5 is chance, in brackets the 95 % bootstrap interval; PRR: 0 is chance, 1 the oracle; "
        "ECE: 0 is calibrated; APGR: 0.5 is chance"
    )


def _table(report: RunReport) -> Table:
    from rich.markup import escape
    from rich.table import Table

    table = Table(pad_edge=False)
    table.add_column("signal", no_wrap=True)
    for name in ("n", "AUROC", "PRR", "ECE", "APGR"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, signal in report.signals.items():
        table.add_row(
            escape(name),
            str(signal.n),
            escape(_area(signal)),
            *map(_rounded, (signal.prr, signal.ece, signal.apgr)),
        )
    return table


def _rounded(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _area(signal: SignalReport) -> str:
    if signal.auroc_ci is None:
        return _rounded(signal.auroc)
    low, high = signal.auroc_ci
    return f"{_rounded(signal.auroc)} [{low:.3f}, {high:.3f}]"
