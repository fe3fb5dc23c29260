"""Progress of a long command, on standard error: a bar on a terminal, else a line a minute."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERY_S = 60.0


@contextmanager
def progress(total: int, *, unit: str) -> Iterator[Callable[[bool], None]]:
    """Give a function that is told, after each piece of work, whether it succeeded."""
    from rich.console import Console

    console = Console(stderr=True)
    with _bar(console, total, unit) if console.is_terminal else _lines(total, unit) as tick:
        yield tick


@contextmanager
def _bar(console: object, total: int, unit: str) -> Iterator[Callable[[bool], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    assert isinstance(console, Console)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    failed = 0
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(unit, total=total)

        def tick(ok: bool) -> None:
            nonlocal failed
            failed += not ok
            bar.update(task, advance=1, description=f"{unit}, {failed} failed" if failed else unit)

        yield tick


@contextmanager
def _lines(total: int, unit: str) -> Iterator[Callable[[bool], None]]:
    start = said = time.monotonic()
    done = failed = 0

    def tick(ok: bool) -> None:
        nonlocal done, failed, said
        done, failed, now = done + 1, failed + (not ok), time.monotonic()
        if now - said >= _EVERY_S:
            left_s = (now - start) / done * (total - done)
            told = f"{done} of {total} {unit}, {failed} failed, about {left_s / 60:.0f} minutes left"
            print(told, file=sys.stderr, flush=True)
            said = now

    yield tick
