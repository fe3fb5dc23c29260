"""Drawing as SVG text, without a plotting library: a panel with axes, lines, a legend, a document."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeAlias

Point: TypeAlias = "tuple[float, float]"

# Okabe and Ito's palette, which colour-blind readers can tell apart; dashes distinguish lines without any colour.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "currentColor")
DASHES = ("", "8 3", "8 2 2 2", "4 2", "1 2", "12 2 2 2 2 2", "3 6")
GREY = "#999999"
# Visible on white and on black.
BLUE = "#4a90c2"
MARGIN = 48
# The ink is `currentColor`: dark in a drawing of its own, the page's colour inside a page.
_STYLE = "font-family='sans-serif' font-size='11' color='#222222' fill='currentColor'"
_BAR = 160
# The smallest share of a drawing's width, so that its words stay readable; a narrow page scrolls.
_LEAST = 0.75


class Panel:
    """A square of `size` pixels at (`left`, `top`), x from 0 to 1 and y from `low` to `high`."""

    def __init__(self, left: float, top: float, size: float, *, low: float = 0.0, high: float = 1.0) -> None:
        self.left, self.top, self.size, self.low, self.high = left, top, size, low, high

    def place(self, point: Point) -> Point:
        """Convert a point to pixels."""
        x, y = point
        return self.left + x * self.size, self.top + (self.high - y) / (self.high - self.low) * self.size

    def axes(
        self, title: str, x: str, y: str, *, wide: float = 1.0, times: Sequence[str] = ()
    ) -> Iterable[str]:
        """Draw frame, ticks and labels; the ticks of x reach from 0 to `wide`, or are the five `times`."""
        left, top, size = self.left, self.top, self.size
        yield f"<rect x='{left}' y='{top}' width='{size}' height='{size}' fill='none' stroke='currentColor'/>"
        for at, share in enumerate((0.0, 0.25, 0.5, 0.75, 1.0)):
            tick = self.low + share * (self.high - self.low)
            across, up = self.place((share, tick))
            below = escape(times[at]) if times else f"{share * wide:.3g}"
            yield f"<text x='{across:.1f}' y='{top + size + 14}' text-anchor='middle'>{below}</text>"
            yield f"<text x='{left - 5}' y='{up + 4:.1f}' text-anchor='end'>{tick:.{3 if self.low else 2}g}</text>"
        middle = top + size / 2
        yield f"<text x='{left + size / 2}' y='{top + size + 30}' text-anchor='middle'>{escape(x)}</text>"
        yield (
            f"<text x='{left - 34}' y='{middle}' text-anchor='middle' "
            f"transform='rotate(-90 {left - 34} {middle})'>{escape(y)}</text>"
        )
        yield f"<text x='{left}' y='{top - 8}' font-weight='bold'>{escape(title)}</text>"

    def line(self, points: Iterable[Point], *, colour: str, dash: str = "") -> str:
        """Draw a line through points."""
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self.place, points))
        dashes = f" stroke-dasharray='{dash}'" if dash else ""
        return f"<polyline points='{drawn}' fill='none' stroke='{colour}' stroke-width='1.5'{dashes}/>"


def document(width: float, height: float, parts: Iterable[str]) -> str:
    """Write an SVG document on a white background; inside HTML of `confroute.views.html` the page's own shows through."""
    body = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:g}' height='{height:g}' "
        f"viewBox='0 0 {width:g} {height:g}' style='min-width:{_LEAST * width:g}px' {_STYLE}>\n"
        f"<rect class='ground' width='100%' height='100%' fill='#ffffff' stroke='none'/>\n{body}\n</svg>\n"
    )


def legend(entries: Sequence[tuple[str, str, str]], *, left: float, top: float = 40) -> Iterable[str]:
    """Draw a legend: one line per (words, colour, dash)."""
    for at, (words, colour, dash) in enumerate(entries):
        y = top + 18 * at
        dashes = f" stroke-dasharray='{dash}'" if dash else ""
        yield f"<line x1='{left}' y1='{y}' x2='{left + 24}' y2='{y}' stroke='{colour}' stroke-width='2'{dashes}/>"
        yield f"<text x='{left + 30}' y='{y + 4}'>{escape(words)}</text>"


def bar(value: float, limit: float, *, words: str) -> str:
    """Draw `value` as a bar with a dashed mark at `limit`, in the middle, whatever the unit; a full bar is twice the limit or more.

    Parameters
    ----------
    value : float
    limit : float
        The greatest value that is kept.
    words : str
        The same in words, the limit included: for screen readers, and for notebooks that drop drawings because they are not trusted.
    """
    half = _BAR / 2
    if limit > 0 and math.isfinite(value):
        length = half * max(0.0, min(2.0, value / limit))
    else:
        length = 0.0 if value <= limit else _BAR
    return _drawn(length, (half,), words)


def zone(value: float, ends: tuple[float, float], *, words: str) -> str:
    """Draw `value` as a bar with a dashed mark at either end of a zone around the middle; empty where the zone gives no scale.

    Parameters
    ----------
    value : float
    ends : tuple of two floats
    words : str
        As for `bar`.

    Examples
    --------
    >>> zone(0.2, (0.1, float("inf")), words="")
    ''
    """
    whole = sum(ends)
    if ends[0] < 0 or not 0 < whole < math.inf:
        return ""
    length = _BAR * max(0.0, min(1.0, value / whole))
    return _drawn(length, [_BAR * end / whole for end in ends], words)


def _drawn(length: float, marks: Iterable[float], words: str) -> str:
    lines = "".join(
        f"<line x1='{x:.4g}' x2='{x:.4g}' y1='0' y2='16' stroke='currentColor' stroke-width='2' stroke-dasharray='3 2'/>"
        for x in marks
    )
    return (
        f"<svg width='{_BAR}' height='16' style='max-width:none' role='img'><title>{escape(words)}</title>"
        f"<rect x='.5' y='3.5' width='{_BAR - 1}' height='9' fill='none' stroke='currentColor' stroke-opacity='.4'/>"
        f"<rect y='3' width='{length:.1f}' height='10' fill='{BLUE}'/>{lines}</svg>"
    )
