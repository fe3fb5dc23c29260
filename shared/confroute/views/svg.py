"""Drawing as SVG text, without a plotting library: panels with round ticks, lines named beside them, and the code of outcomes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from html import escape
from itertools import pairwise
from typing import TypeAlias

Point: TypeAlias = "tuple[float, float]"
Interval: TypeAlias = "tuple[float, float]"
Box: TypeAlias = "tuple[float, float, float, float]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    """How one outcome is drawn on every page: a colour, a shape in a square of 12 pixels, and a dash.

    Red- and green-blind readers can tell the colours apart; the shape and the word beside it say the same without any.
    """

    colour: str
    shape: str
    dash: str = ""

    def drawn(self, x: float, y: float) -> str:
        """Draw the shape around a point."""
        return (
            f"<path transform='translate({x - 6:.1f} {y - 6:.1f})' d='{self.shape}' fill='{self.colour}' "
            f"stroke='{self.colour}' stroke-width='1.6' fill-rule='evenodd'/>"
        )


_RING = "M6 1.5a4.5 4.5 0 1 0 0 9a4.5 4.5 0 1 0 0 -9Z"
# A tier of another name than edge and cloud.
_OTHER = Code(colour="#7d7d7d", shape="M2 2H10V10H2Z", dash="8 2 2 2")
CODES: Mapping[str, Code] = {
    "edge": Code(colour="#2a9d6f", shape=_RING),
    "cloud": Code(colour="#1f6fc2", shape="M6 1.5L11 10.5H1Z", dash="8 3"),
    "degraded": Code(colour="#a68a00", shape=f"{_RING}M6 3a3 3 0 0 1 0 6Z", dash="2 2"),
    "private": Code(colour="#c4699e", shape="M6 1L11 6L6 11L1 6Z", dash="4 2"),
    "failed": Code(colour="#c8402f", shape="M2 2L10 10M10 2L2 10", dash="2 3"),
    # The caller's own doing: neither an answer nor a failure.
    "cancelled": Code(colour=_OTHER.colour, shape="M1.5 6H10.5", dash="12 3"),
    "abandoned": Code(colour=_OTHER.colour, shape="M2 3L10 6L2 9", dash="1 3"),
}
# Lines of one kind, such as routers that are compared: legible on white and on black, and told apart by their dashes alone.
COLOURS = ("currentColor", "#3d8ec9", "#c8642b", "#2f9e7a", "#b5679c", "#a98307", "#7a7fd0")
DASHES = ("", "8 3", "8 2 2 2", "4 2", "1 2", "12 2 2 2 2 2", "3 6")
GREY = "#8a8a8a"
# The room of a panel's tick labels on its left, and of its two headings above.
MARGIN = 56
TOP = 46
_FONT = 12
_STYLE = f"font-family='system-ui,sans-serif' font-size='{_FONT}' color='#1f2328' fill='currentColor'"
# The smallest share of a drawing's width, so that its words stay readable; a narrow page scrolls it.
_LEAST = 0.8


def code_of(name: str) -> Code:
    """The code of an outcome; of a tier of any other name, a grey square."""
    return CODES.get(name, _OTHER)


def width_of(words: str) -> float:
    """Estimate the width of words in a drawing, in pixels; wide enough for common fonts.

    Examples
    --------
    >>> width_of("edge") < width_of("always edge")
    True
    """
    return 0.6 * _FONT * len(words)


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Find round numbers (1, 2 or 5 times a power of ten apart) from `low` to `high`.

    Parameters
    ----------
    low, high : float
        Finite.
    most : int
        The greatest number of steps.

    Returns
    -------
    list of float
        Empty where `high` is not above `low`.

    Examples
    --------
    >>> ticks(0.0, 0.0147, most=4)
    [0.0, 0.005, 0.01]
    """
    span = high - low
    if not 0 < span < math.inf:
        return []
    size = 10.0 ** math.floor(math.log10(span / most))
    step = next(size * times for times in (1, 2, 5, 10) if span <= size * times * most * (1 + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{at * step:.12g}") for at in range(first, last + 1)]


def tick_labels(values: Sequence[float], *, percent: bool = False) -> list[str]:
    """Write ticks with as many decimals as they need to differ.

    Examples
    --------
    >>> tick_labels([0.0, 0.005, 0.01]), tick_labels([0.0, 0.5, 1.0], percent=True)
    (['0', '0.005', '0.010'], ['0%', '50%', '100%'])
    """
    scale, end = (100, "%") if percent else (1, "")
    step = min((b - a for a, b in pairwise(values)), default=1.0) * scale
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    plain = decimals < 6 and max(map(abs, values), default=0.0) < 1e6
    form = f".{decimals}f" if plain else ".3g"
    return [(f"{v * scale:{form}}" if v else "0") + end for v in values]


_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_DAY_S = 86_400


def time_ticks(start: datetime, end: datetime, *, most: int = 6) -> list[tuple[float, str]]:
    """Find round times of the clock, in UTC, as seconds after `start` with their words.

    Examples
    --------
    >>> start = datetime(2026, 1, 1, 9, 50, tzinfo=timezone.utc)
    >>> time_ticks(start, start + timedelta(hours=1), most=3)
    [(600.0, '10:00'), (2400.0, '10:30')]
    """
    from_s, to_s = start.timestamp(), end.timestamp()
    days = (_DAY_S * 2**power for power in range(20))
    step = next(size for size in (*_STEPS_S, *days) if to_s - from_s <= size * most)
    first = math.ceil(from_s / step)
    found = [at * step - from_s for at in range(first, math.floor(to_s / step) + 1)] or [0.0]
    form = "%H:%M:%S" if step < 60 else "%H:%M"
    return [(after, _told(start + timedelta(seconds=after), form)) for after in found]


def _told(moment: datetime, form: str) -> str:
    utc = moment.astimezone(UTC)
    return f"{utc:%m-%d}" if f"{utc:%H%M%S}" == "000000" else f"{utc:{form}}"


def spread(wanted: Sequence[float], *, gap: float, low: float, high: float) -> list[float]:
    """Move positions at least `gap` apart, within `low` and `high` where they have room, in the order in which they stand.

    Examples
    --------
    >>> spread([10, 12, 50], gap=16, low=0, high=60)
    [5.0, 21.0, 50.0]
    """
    order = sorted(range(len(wanted)), key=lambda at: wanted[at])
    up = _pushed([wanted[at] for at in order], gap, low, high)
    down = _pushed([-wanted[at] for at in reversed(order)], gap, -high, -low)
    placed = {at: (a - b) / 2 for at, a, b in zip(order, up, reversed(down), strict=True)}
    return [placed[at] for at in range(len(wanted))]


def _pushed(rising: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Each pushed up by the one before it, and then back where there is no more room."""
    placed: list[float] = []
    for wanted in rising:
        placed.append(max(wanted, placed[-1] + gap if placed else low))
    for at in reversed(range(len(placed))):
        high = placed[at] = min(placed[at], high)
        high -= gap
    return placed


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of a panel and its name."""

    words: str
    points: Sequence[Point]
    colour: str = "currentColor"
    dash: str = ""
    width: float = 1.8

    @classmethod
    def of(cls, outcome: str, points: Sequence[Point]) -> Line:
        """The line of an outcome, in its code."""
        code = code_of(outcome)
        return cls(words=outcome, points=points, colour=code.colour, dash=code.dash)


class Panel:
    """A plane at (`left`, `top`), `size` pixels high, x from 0 to 1 or as in `across`, and y from `low` to `high`.

    Ticks are round. What is drawn is remembered, so that names are put where nothing else stands.
    """

    def __init__(
        self,
        left: float,
        top: float,
        size: float,
        *,
        low: float = 0.0,
        high: float = 1.0,
        width: float | None = None,
        across: Interval = (0.0, 1.0),
    ) -> None:
        self.left, self.top, self.size, self.low, self.high = left, top, size, low, high
        self.width, self.across = size if width is None else width, across
        self._names: list[Box] = []
        self._drawn: list[Point] = []

    def place(self, point: Point) -> Point:
        """Convert a point to pixels."""
        x, y = point
        low, high = self.across
        across = (x - low) / (high - low)
        return self.left + across * self.width, self.top + (self.high - y) / (
            self.high - self.low
        ) * self.size

    def axes(
        self,
        title: str,
        x: str,
        y: str,
        *,
        percent: str = "",
        times: Sequence[tuple[float, str]] = (),
    ) -> Iterable[str]:
        """Draw headings, ticks and a grid; `percent` names the axes ("x", "y" or "xy") whose shares are written as percentages.

        `times` are ticks of x in place of round numbers.
        """
        left, bottom, right = self.left, self.top + self.size, self.left + self.width
        values = ticks(self.low, self.high, most=max(4, round(self.size / 60)))
        for value, words in zip(values, tick_labels(values, percent="y" in percent), strict=True):
            _, up = self.place((self.across[0], value))
            yield f"<line x1='{left:g}' x2='{right:g}' y1='{up:.1f}' y2='{up:.1f}' stroke='currentColor' stroke-opacity='.15'/>"
            yield words_at(left - 8, up + 4, words, anchor="end", quiet=True)
        yield f"<line x1='{left:g}' x2='{right:g}' y1='{bottom:g}' y2='{bottom:g}' stroke='currentColor' stroke-opacity='.5'/>"
        numbers = ticks(*self.across, most=max(2, round(self.width / 62)))
        shown = times or [*zip(numbers, tick_labels(numbers, percent="x" in percent), strict=True)]
        for value, words in shown:
            along, _ = self.place((value, self.low))
            yield f"<line x1='{along:.1f}' x2='{along:.1f}' y1='{bottom:g}' y2='{bottom + 4:g}' stroke='currentColor' stroke-opacity='.5'/>"
            yield words_at(along, bottom + 18, words, anchor="middle", quiet=True)
        yield words_at(left + self.width / 2, bottom + 36, x, anchor="middle", quiet=True)
        yield f"<text x='{left:g}' y='{self.top - 28:g}' font-weight='600'>{escape(title)}</text>"
        yield words_at(left, self.top - 12, y, quiet=True)

    def line(self, points: Iterable[Point], *, colour: str, dash: str = "", width: float = 1.8) -> str:
        """Draw a line through points."""
        drawn = [*map(self.place, points)]
        for (x, y), (u, v) in pairwise(drawn):
            steps = max(1, round(math.hypot(u - x, v - y) / 4))
            self._drawn += [(x + (u - x) * k / steps, y + (v - y) * k / steps) for k in range(steps + 1)]
        words = " ".join(f"{x:.1f},{y:.1f}" for x, y in drawn)
        dashes = f" stroke-dasharray='{dash}'" if dash else ""
        return f"<polyline points='{words}' fill='none' stroke='{colour}' stroke-width='{width:g}' stroke-linejoin='round'{dashes}/>"

    def lines(self, lines: Sequence[Line]) -> Iterable[str]:
        """Draw lines, and beside the panel the name of each at the height where it ends."""
        ends = []
        for line in lines:
            yield self.line(line.points, colour=line.colour, dash=line.dash, width=line.width)
            ends.append(self.place(max(line.points)))
        right = self.left + self.width
        heights = spread([y for _, y in ends], gap=17, low=self.top, high=self.top + self.size)
        for line, (x, y), height in zip(lines, ends, heights, strict=True):
            dashes = f" stroke-dasharray='{line.dash}'" if line.dash else ""
            yield (
                f"<path d='M{x:.1f} {y:.1f}L{right + 14:.1f} {height:.1f}' fill='none' stroke='{line.colour}' stroke-opacity='.35'/>"
                f"<line x1='{right + 14:.1f}' x2='{right + 36:.1f}' y1='{height:.1f}' y2='{height:.1f}' stroke='{line.colour}' "
                f"stroke-width='{line.width + 0.4:g}'{dashes}/>"
            )
            yield words_at(right + 42, height + 4, line.words)

    def marks(self, marks: Sequence[tuple[str, Point, str]]) -> Iterable[str]:
        """Draw points as (name, place, outcome), each with its name where the least else is drawn; "" for an outcome draws a ring."""
        places = [self.place(point) for _, point, _ in marks]
        self._names += [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
        for (name, _, outcome), (x, y) in zip(marks, places, strict=True):
            ring = f"<circle cx='{x:.1f}' cy='{y:.1f}' r='5.5' fill='none' stroke='currentColor' stroke-width='2.4'/>"
            yield code_of(outcome).drawn(x, y) if outcome else ring
            yield self._named(name, x, y)

    def _named(self, name: str, x: float, y: float) -> str:
        wide = width_of(name)
        boxes = [
            (
                x + across * (10 + away) - wide * (across < 0) - wide / 2 * (across == 0),
                y + up * (13 + away) - 7,
            )
            for away in (0, 8, 20, 34, 50)
            for up in (-1, 1, 0)
            for across in (1, -1, 0)
            if across or up
        ]
        inside = [
            (u, v, u + wide, v + 14)
            for u, v in boxes
            if self.left <= u <= self.left + self.width - wide and self.top <= v <= self.top + self.size - 14
        ]
        box = min(inside, key=self._crowded)
        self._names.append(box)
        # A thin line leads to a name that had to stand apart.
        near = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
        lead = (
            f"<line x1='{x:.1f}' y1='{y:.1f}' x2='{near[0]:.1f}' y2='{near[1]:.1f}' stroke='currentColor' stroke-opacity='.4'/>"
            if math.dist(near, (x, y)) > 14
            else ""
        )
        return lead + words_at(box[0], box[1] + 11, name, bold=True)

    def _crowded(self, box: Box) -> int:
        left, top, right, bottom = box
        names = sum(left < u and x < right and top < v and y < bottom for x, y, u, v in self._names)
        return 1000 * names + sum(left <= x <= right and top <= y <= bottom for x, y in self._drawn)


def words_at(
    x: float, y: float, words: str, *, anchor: str = "start", quiet: bool = False, bold: bool = False
) -> str:
    """Write words at a point; quiet ones are paler."""
    side = "" if anchor == "start" else f" text-anchor='{anchor}'"
    look = (" fill-opacity='.75'" if quiet else "") + (" font-weight='600'" if bold else "")
    return f"<text x='{x:.1f}' y='{y:.1f}'{side}{look}>{escape(words)}</text>"


def document(
    width: float, height: float, parts: Iterable[str], *, label: str = "", least: float = _LEAST
) -> str:
    """Write an SVG document on a white ground; inside HTML of `confroute.views.html` the page's own shows through.

    `label` is the drawing in words, for screen readers; `least` the share of its width below which a narrow page scrolls it.
    """
    body = "\n".join(parts)
    title = f"<title>{escape(label)}</title>" if label else ""
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:g}' height='{height:g}' role='img' "
        f"viewBox='0 0 {width:g} {height:g}' style='min-width:{least * width:g}px' {_STYLE}>{title}\n"
        f"<rect class='ground' width='100%' height='100%' fill='#ffffff' stroke='none'/>\n{body}\n</svg>\n"
    )


def sign(outcome: str) -> str:
    """Draw the shape of an outcome within a line of text."""
    return f"<svg class='sign' width='12' height='12' aria-hidden='true'>{code_of(outcome).drawn(6, 6)}</svg>"
