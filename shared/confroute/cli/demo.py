"""``confroute demo``: calibrate on two models, then route real calls through LangChain and LlamaIndex."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from confroute.cli import terminal
from confroute.cli.options import add_dtype, add_model, add_price, price_of
from confroute.cli.terminal import say
from confroute.display import plain
from confroute.errors import PolicyError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

    from confroute.demo.backends import Backend
    from confroute.demo.calibrate import GradedAnswer
    from confroute.demo.routes import DemoResult, Session

EDGE, CLOUD = "local:qwen2.5-coder-0.5b", "local:qwen2.5-coder-1.5b"


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "demo",
        help="calibrate two models and route a dozen real requests",
        description="Fetch the local models, calibrate a threshold on a few questions, route real requests through LangChain and "
        "LlamaIndex, and print where each went, why, and what that saved.",
    )
    names = "local:NAME, openai:MODEL, ollama:MODEL or any name for LangChain's init_chat_model"
    add_model(parser, "edge", "default: %(default)s", names=names, default=EDGE)
    add_model(parser, "cloud", "default: %(default)s, in place of a real cloud", names=names, default=CLOUD)
    add_dtype(parser)
    add_price(parser, "edge", "default 0,0")
    add_price(parser, "cloud", "to show costs")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("examples/ferry"),
        help="text files for the query engine (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Calibrate, route the requests and print where each went.

    Raises
    ------
    MissingExtraError
        One of the hosts or torch is missing.
    PolicyError
        Edge and cloud are one model, or the folder holds no text.
    """
    from confroute.demo import calibrate, report
    from confroute.demo.backends import Backend
    from confroute.demo.questions import CALIBRATION, REQUESTS
    from confroute.demo.routes import Session

    edge = Backend(spec=args.edge, base_url=args.edge_base_url, dtype=args.dtype)
    cloud = Backend(spec=args.cloud, base_url=args.cloud_base_url, dtype=args.dtype)
    if edge == cloud:
        msg = f"edge and cloud are both {edge.spec}: routing needs two different models"
        raise PolicyError(msg)
    if not args.folder.is_dir():
        msg = f"{args.folder} is not a folder: run the demo in the folder that contains examples/ferry, or give --folder"
        raise PolicyError(msg)
    edge_price, cloud_price = price_of(args.edge_price), price_of(args.cloud_price)
    with _progress(5 + len(CALIBRATION) + len(REQUESTS)) as progress:
        for backend in (edge, cloud, Backend(spec="local:all-minilm-l6-v2")):
            with progress.step(f"fetching {backend.spec}, unless it is here"):
                backend.pull()
        for backend in (edge, cloud):
            with progress.step(f"loading {backend.spec}"):
                backend.load()
        rows = _calibrated(edge, cloud, progress)
        fit = calibrate.fit_policy(rows)
        results = _routed(Session(edge=edge, cloud=cloud, policy=fit.policy, folder=args.folder), progress)
    summary = report.totals(results, edge_price=edge_price, cloud_price=cloud_price)
    if args.json:
        result = report.as_json(results, summary, fit, edge=edge.spec, cloud=cloud.spec)
        say(json.dumps(result, allow_nan=False))
    else:
        report.show(_show_models(edge, cloud, rows), results, summary, fit)
    return 0


def _calibrated(edge: Backend, cloud: Backend, progress: _Progress) -> list[GradedAnswer]:
    from confroute.demo.calibrate import measure, measuring_router
    from confroute.demo.questions import CALIBRATION

    router = measuring_router(edge.plain(), cloud.plain())
    words = {True: "right", False: "wrong"}
    rows = []
    for number, item in enumerate(CALIBRATION, start=1):
        question = item.question.partition("\n")[0]
        with progress.step(f"calibrating, {number} of {len(CALIBRATION)}: {question}") as done:
            row = measure(router, item)
            done(f"  edge {words[row.edge_right]}, cloud {words[row.cloud_right]}")
        rows.append(row)
    return rows


def _routed(session: Session, progress: _Progress) -> list[DemoResult]:
    from confroute.demo.questions import REQUESTS
    from confroute.demo.report import outcome

    results = []
    for number, request in enumerate(REQUESTS, start=1):
        question = request.turns[-1].text.partition("\n")[0]
        with progress.step(f"{number} of {len(REQUESTS)}, {request.host}: {question}") as done:
            result = session.send(request)
            done(f"  -> {outcome(result)}")
        results.append(result)
    return results


def _show_models(edge: Backend, cloud: Backend, rows: Sequence[GradedAnswer]) -> Console:
    """Print which models are compared and return the console for the rest."""
    console = terminal.console(width=110)
    stand_in = f" (a local STAND-IN for a cloud model: {cloud.model})" if cloud.provider == "local" else ""
    console.print(f"edge: {edge.spec}    cloud: {cloud.spec}{stand_in}")
    edge_right, cloud_right = sum(row.edge_right for row in rows), sum(row.cloud_right for row in rows)
    console.print(
        f"calibrated on {len(rows)} questions that are not asked below: edge right {edge_right}, cloud right {cloud_right}\n"
    )
    return console


@dataclass(slots=True, kw_only=True)
class _Progress:
    """Says what is being done and, line by line, what came of it; on a terminal the first in the line of a bar."""

    bar: Progress | None = None
    task: TaskID | None = None

    @contextmanager
    def step(self, text: str) -> Iterator[Callable[[str], None]]:
        """One step; yields what takes the line that says what came of it."""
        if self.bar is None or self.task is None:
            say(text, err=True)
            yield lambda line: say(line, err=True)
            return
        bar = self.bar
        bar.update(self.task, description=plain(text))

        def done(line: str) -> None:
            bar.console.print(f"{text}\n{line}", markup=False, highlight=False)

        yield done
        bar.advance(self.task)


@contextmanager
def _progress(steps: int) -> Iterator[_Progress]:
    console = terminal.console(stderr=True)
    if not console.is_terminal:
        yield _Progress()
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        yield _Progress(bar=bar, task=bar.add_task("", total=steps))
