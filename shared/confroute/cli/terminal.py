"""The one way to a terminal: names and errors of others' files print as text, never as commands to the terminal."""

from __future__ import annotations

import argparse
import functools
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from confroute.display import plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text


def say(*values: object, sep: str = "\n", err: bool = False) -> None:
    """Print values, a line for each unless `sep` says otherwise, on standard error if asked for."""
    print(plain(sep.join(map(str, values))), file=sys.stderr if err else sys.stdout, flush=err)


# Of fewer labels all may well be the same.
_ENOUGH = 10


def one_sided(counts: Mapping[str, int], what: str) -> str | None:
    """What to say of labels or grades that are all the same, with what to do; None where they are not, or are few.

    Examples
    --------
    >>> one_sided({"edge wins": 3, "cloud wins": 9}, "labels") is None
    True
    >>> print(one_sided({"edge wins": 0, "cloud wins": 40}, "labels"))
    warning: all 40 labels are "cloud wins": nothing can be learned or chosen from them; look at some answers (is an answer cut off, a
    reference in another notation, a model not the one that was meant?), and take other prompts, models or settings
    """
    found = [name for name, count in counts.items() if count]
    total = sum(counts.values())
    if len(found) != 1 or total < _ENOUGH:
        return None
    return (
        f'warning: all {total} {what} are "{found[0]}": nothing can be learned or chosen from them; look at some answers (is an answer '
        "cut off, a\nreference in another notation, a model not the one that was meant?), and take other prompts, models or settings"
    )


def console(*, stderr: bool = False, width: int | None = None) -> Console:
    """A console for tables and bars, which takes every text as `say` does.

    Parameters
    ----------
    stderr : bool
    width : int, optional
        Where nobody looks at it; a terminal has its own.
    """
    made = _kind()(stderr=stderr, soft_wrap=False)
    if width is not None and not made.is_terminal:
        made.width = width
    return made


@functools.cache
def _kind() -> type[Console]:
    # Imported where it is needed: that takes longer than most commands.
    from rich.console import Console

    class PlainConsole(Console):
        def render_str(self, text: str, **settings: Any) -> Text:
            return super().render_str(plain(text), **settings)

    return PlainConsole


class Parser(argparse.ArgumentParser):
    """A parser that repeats wrong arguments as `say` does."""

    def _print_message(self, message: str, file: Any = None) -> None:
        super()._print_message(plain(message), file)


class _PlainLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


@contextmanager
def plain_log() -> Iterator[None]:
    """While a command runs, take what the log prints on standard error as `say` does."""
    handler = logging.lastResort
    if handler is None:
        yield
        return
    before = handler.formatter
    handler.setFormatter(_PlainLines())
    try:
        yield
    finally:
        handler.setFormatter(before)
