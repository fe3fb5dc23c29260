"""Show the progress of long commands on standard error."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from confroute.cli import terminal
from confroute.cli.terminal import say

_EVERY_S = 60.0
_REPLAY_EVERY_S = 10.0
# Below it a time is told in seconds, above it in minutes.
_IN_SECONDS_S = 120.0


@contextmanager
def progress(total: int, *, unit: str) -> Iterator[Callable[[bool], None]]:
    """Show a bar on a terminal, else a line for each tenth of the work, and one per minute where a tenth takes longer.

    Yields
    ------
    callable
        To call after each piece of work with whether it succeeded.
    """
    console = terminal.console(stderr=True)
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
    start = last = time.monotonic()
    done = failed = 0
    tenth = max(1, -(-total // 10))

    def tick(ok: bool) -> None:
        nonlocal done, failed, last
        done, failed, now = done + 1, failed + (not ok), time.monotonic()
        if done < total and (done % tenth == 0 or now - last >= _EVERY_S):
            left_s = (now - start) / done * (total - done)
            line = f"{done} of {total} {unit}, {failed} failed, about {_duration(left_s)} left"
            say(line, err=True)
            last = now

    yield tick


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < _IN_SECONDS_S else f"{seconds / 60:.0f} minutes"


@contextmanager
def replay_progress(doing: str = "replaying", unit: str = "rows") -> Iterator[Callable[[int, int], None]]:
    """Show how far a replay, or other work without failures, is: a bar on a terminal, else a line every ten seconds.

    Yields
    ------
    callable
        To call with the number of units done and the number of all.
    """
    console = terminal.console(stderr=True)
    if not console.is_terminal:
        yield _replay_lines(doing, unit)
        return
    from rich.progress import Progress

    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(doing, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _replay_lines(doing: str, unit: str) -> Callable[[int, int], None]:
    last = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _REPLAY_EVERY_S:
            say(f"{doing}: {done} of {total} {unit}", err=True)
            last = now

    return line
