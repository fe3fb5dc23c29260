"""The ``confroute`` command: each module with `add_parser` and `run` is one subcommand."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from confroute.cli import (
    apply,
    bench,
    demo,
    doctor,
    fit,
    judge,
    label,
    models,
    plan,
    probe,
    pull,
    record,
    report,
    reset,
    serve,
    signals,
    watch,
)
from confroute.cli.terminal import Parser, plain_log, say
from confroute.errors import ConfrouteError

COMMANDS = (
    *(demo, doctor, pull, label, judge, models, plan, record, signals, probe, fit, apply, bench, report),
    *(serve, watch),
    reset,
)

FAILED = 1
INTERRUPTED = 128 + signal.SIGINT
READER_GONE = 128 + 13  # SIGPIPE, which not every system has
TERMINATED = 128 + signal.SIGTERM


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name; those of this process by default.

    Returns
    -------
    int
        0, or 1 after an error of confroute's own or of a file, 2 after wrong usage, 130 after Ctrl-C, 141 when the reader of
        the output has gone, 143 after SIGTERM.
    """
    # Beside other busy processes torch's threads would spin while they wait for a core. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = _parser()
    try:
        args = parser.parse_args(argv)
        with _sigterm_as_exit(), plain_log():
            _import(args.modules)
            code: int = args.run(args)
    except BrokenPipeError:
        # The interpreter flushes standard output once more at exit, and would complain there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return READER_GONE
    except (ConfrouteError, OSError) as error:
        say(f"confroute: {error}", err=True)
        return FAILED
    except KeyboardInterrupt:
        say("confroute: interrupted", err=True)
        return INTERRUPTED
    except SystemExit as stop:
        # Raised by argparse and by the handler of SIGTERM.
        return stop.code if isinstance(stop.code, int) else FAILED
    return code


def _import(modules: Sequence[str]) -> None:
    if modules:
        from confroute.models.resolution import import_module_here

        for module in modules:
            import_module_here(module)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="confroute",
        description="Route LLM calls between an edge and a cloud model by measured uncertainty.",
        epilog="`confroute COMMAND --help` says more. Start with `doctor` (your own two models) or `demo` (local models). "
        "`plan`, `record`, `signals`, `fit` and `apply` take you from your own prompts to a policy.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(subparsers)
    for subparser in subparsers.choices.values():
        subparser.add_argument(
            "--import",
            dest="modules",
            action="append",
            default=[],
            metavar="MODULE",
            help="import this module first, so that the signals, rules and models it registers can be used by name; it may be in the current folder",
        )
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> NoReturn:
        # Reading the metadata takes longer than everything else here.
        from importlib.metadata import version

        say(f"confroute {version('confroute')}")
        parser.exit()


@contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    # SIGTERM ends Python without `finally`: half-written files and pip's processes would stay.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(_number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
