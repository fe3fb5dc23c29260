"""How values show themselves in a console and in a notebook, without knowing the views that draw them.

A value derives from `Displayable`; the module of its view calls `register`. Views stand above all that they show, so they are
imported here by name, when something is shown for the first time.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from importlib import import_module
from numbers import Real
from typing import Any, TypeAlias

Show: TypeAlias = Callable[[Any], str]
# Characters that a terminal obeys, or that turn the direction of a line; and halves of surrogate pairs, which cannot be written.
_OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

# Which module registers the view of a class; also that of its subclasses.
_MODULES = {
    "confroute.bench.run.Replay": "confroute.bench.report",
    "confroute.decision.Decision": "confroute.views.decision",
    "confroute.decision.Routed": "confroute.views.decision",
    "confroute.fitting.fit.Fit": "confroute.views.fit",
    "confroute.fitting.front.ParetoFront": "confroute.views.front",
    "confroute.observe.trace.Trace": "confroute.views.decision",
    "confroute.policy.cascade.Cascade": "confroute.views.policy",
    "confroute.policy.head_first.HeadFirst": "confroute.views.policy",
    "confroute.policy.wrapper.Wrapper": "confroute.views.policy",
    "confroute.recording.evaluation.RunReport": "confroute.views.calibration",
    "confroute.recording.evaluation.SignalReport": "confroute.views.calibration",
}
_lines: dict[type, Show] = {}
_pages: dict[type, Show] = {}


def register(kind: type, *, text: Show | None = None, html: Show | None = None) -> None:
    """Show values of a class by these functions.

    Parameters
    ----------
    kind : type
        Derived from `Displayable`.
    text : callable, optional
        One line; none where the class prints itself.
    html : callable, optional
        What a notebook shows.
    """
    if text is not None:
        _lines[kind] = text
    if html is not None:
        _pages[kind] = html


def plain(text: str) -> str:
    r"""A text whose control characters print as their escapes, all but tabs and line breaks.

    Examples
    --------
    >>> plain("edge\x1b[2J\tand\r\x9bmore")
    'edge\\u001b[2J\tand\\u000d\\u009bmore'
    """
    return _OBEYED.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    # In four digits, as JSON writes it: what is printed may be JSON.
    return f"\\u{ord(match[0]):04x}"


class _OneLine(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(one if isinstance(one, Real) else _one_line(str(one)) for one in record.args)
        return True


def _one_line(text: str) -> str:
    return plain(text).replace("\n", "\\u000a")


_ONE_LINE = _OneLine()


def logger() -> logging.Logger:
    """The logger of all of confroute's messages, whose names and errors of others reach every handler as `plain` text of one line.

    Examples
    --------
    >>> logger().name
    'confroute'
    """
    found = logging.getLogger("confroute")
    found.addFilter(_ONE_LINE)
    return found


_CREDENTIALS = re.compile(
    r"(?<=:)//.*@|(?<=[?&])(user\w*|pass\w*|\w*key|\w*token)=[^&#]*", re.IGNORECASE | re.DOTALL
)


class Address(str):
    """The address of a server, whose credentials stand in it and not in what is printed of it.

    Examples
    --------
    >>> Address("redis://app:s3cret@localhost/0?password=s3cret")
    'redis://***@localhost/0?password=***'
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(_CREDENTIALS.sub(lambda found: f"{found[1]}=***" if found[1] else "//***@", str(self)))


class Displayable:
    """A value that prints as one line and that a notebook draws.

    A dataclass that derives from it writes `repr=False` where its view has a line for it.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        """One line."""
        return plain(_shown(self, _lines))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return _shown(self, _pages)


def _shown(value: object, views: dict[type, Show]) -> str:
    for kind in type(value).__mro__:
        module = _MODULES.get(f"{kind.__module__}.{kind.__qualname__}")
        if module is not None:
            import_module(module)
        if kind in views:
            return views[kind](value)
    msg = f"{type(value).__name__} has no view: call confroute.display.register for it"
    raise LookupError(msg)
