"""``confroute doctor``: find out what an edge and a cloud can do, and which policy to start with."""

from __future__ import annotations

import argparse
import json
import sys
import textwrap
from typing import TYPE_CHECKING

from confroute.cli import terminal
from confroute.cli.options import add_dtype, add_model, model_of
from confroute.cli.terminal import say
from confroute.display import plain

if TYPE_CHECKING:
    from confroute.doctor import Check, Diagnosis


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "doctor",
        help="find out what an edge and a cloud can do",
        description="Ask both models a few short questions: do they answer, return log-probabilities, give different samples, stream, "
        "call tools, fill in schemas? Prints which signals are possible and what to start with. "
        "The exit code is 0 if both answer and the edge can be measured, otherwise 1.",
    )
    add_model(parser, "edge", "default: %(default)s", default="local:qwen2.5-coder-0.5b")
    add_model(parser, "cloud", "default: %(default)s", default="local:qwen2.5-coder-1.5b")
    add_dtype(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Examine both models and print what works.

    Raises
    ------
    MissingExtraError, ModelError, PolicyError
        A name that is not a model's, or a missing package that the model needs.
    """
    from confroute.doctor import diagnose

    def seen(owner: str, check: Check) -> None:
        # Standard output is JSON for a program.
        _show_check(check.row(owner), err=args.json)

    diagnosis = diagnose(edge=model_of(args, "edge"), cloud=model_of(args, "cloud"), seen=seen)
    for check in diagnosis.possible:
        seen("signal", check)
    if args.json:
        say(json.dumps(diagnosis.to_dict(), indent=2, allow_nan=False))
    else:
        _show(diagnosis)
    return 0 if diagnosis.ok else 1


def _show_check(row: tuple[str, str, str, str], *, err: bool) -> None:
    """One row as soon as it is known; a table would hold all of them back."""
    owner, name, works, detail = row
    head = f"{owner:<7}{name:<18}{works:<8}"
    width = max(terminal.console(stderr=err, width=110).width - len(head), 20)
    lines = textwrap.wrap(plain(detail), width, break_on_hyphens=False) or [""]
    say(f"\n{' ' * len(head)}".join([f"{head}{lines[0]}", *lines[1:]]).rstrip(), err=err)
    sys.stdout.flush()


def _show(diagnosis: Diagnosis) -> None:
    console = terminal.console(width=110)
    console.print()
    for tier, model in diagnosis.models.items():
        console.print(f"{tier}: {model}", markup=False)
    if not diagnosis.works("edge", "answers"):
        console.print("the edge does not answer: nothing was measured, and there is nothing to route by yet")
        return
    if diagnosis.policy is None:
        console.print("no signal can be measured on this edge: there is nothing to route by")
        return
    names = " then ".join(gate.signal.name for gate in diagnosis.policy.gates)
    console.print(
        f"start with: {names}, uncalibrated thresholds; then `confroute record` your own prompts and `confroute fit`"
    )
