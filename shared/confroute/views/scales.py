"""Drawings of one kind each: an uncertainty on its scale, the steps of a call, values ranked with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from confroute.views.svg import (
    GREY,
    Interval,
    Panel,
    code_of,
    document,
    spread,
    tick_labels,
    ticks,
    width_of,
    words_at,
)

_BAR = 160


def bar(value: float, limit: float, *, words: str) -> str:
    """Draw `value` as a bar with a mark at `limit`, in the middle, whatever the unit; a full bar is twice the limit or more.

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
    return (
        f"<svg class='bar' width='{_BAR}' height='16' role='img'><title>{escape(words)}</title>"
        f"<rect y='3' width='{_BAR}' height='10' rx='2' fill='currentColor' fill-opacity='.1'/>"
        f"<rect y='3' width='{length:.1f}' height='10' rx='2' fill='{code_of('edge' if value <= limit else 'cloud').colour}'/>"
        f"<line x1='{half:g}' x2='{half:g}' y1='0' y2='16' stroke='currentColor' stroke-width='2'/></svg>"
    )


_ZONES = ("keep", "ask further", "escalate")
_ZONE_WIDTH, _ZONE_HEIGHT = 480, 20


def zones(
    keeps_to: float,
    escalates_from: float,
    *,
    words: str,
    value: float | None = None,
    alone: float | None = None,
) -> str:
    """Draw an uncertainty's scale as zones: kept at the left, a further signal asked between two limits, escalated at the right.

    Parameters
    ----------
    keeps_to, escalates_from : float
        The limits; where they are equal, no further signal is asked. An infinite one leaves its outer zone away.
    words : str
        The same in words, for screen readers.
    value : float, optional
        The measured uncertainty, which is marked.
    alone : float, optional
        The threshold that decides where nothing further can be measured, which is marked.
    """
    ends = [end for end in (keeps_to, escalates_from) if math.isfinite(end)]
    low, high = _reach(ends, math.nan if value is None else value)
    top = 6.0 if value is None else 26.0
    panel = Panel(8, top, _ZONE_HEIGHT, width=_ZONE_WIDTH - 16, across=(low, high))
    stops = [low, *(min(max(end, low), high) for end in (keeps_to, escalates_from)), high]
    parts = [*_zone_parts(panel, stops)]
    limits = {end: f"{end:.4g}" for end in ends}
    if alone is not None and alone not in limits:
        limits[alone] = f"({alone:.4g})"
    at = [panel.place((end, 0))[0] for end in limits]
    room = max([0.0, *map(width_of, limits.values())])
    places = spread(at, gap=room + 4, low=room / 2, high=_ZONE_WIDTH - room / 2)
    bottom = top + _ZONE_HEIGHT
    for x, place, name in zip(at, places, limits.values(), strict=True):
        dash = " stroke-dasharray='3 2'" if name.startswith("(") else ""
        path = f"M{x:.1f} {top - 3:g}V{bottom + 3:g}L{place:.1f} {bottom + 9:g}"
        parts.append(f"<path d='{path}' fill='none' stroke='currentColor' stroke-width='1.5'{dash}/>")
        parts.append(words_at(place, bottom + 21, name, anchor="middle"))
    if value is not None:
        x, _ = panel.place((min(max(value, low), high), 0))
        name = f"{value:.4g}"
        place = min(max(x, width_of(name) / 2), _ZONE_WIDTH - width_of(name) / 2)
        parts.append(
            f"<path d='M{x - 6:.1f} 15H{x + 6:.1f}L{x:.1f} 25V{bottom:g}V25Z' stroke='currentColor'/>"
        )
        parts.append(words_at(place, 11, name, anchor="middle", bold=True))
    return document(_ZONE_WIDTH, bottom + 26, parts, label=words, least=0.6)


def _reach(ends: Sequence[float], value: float) -> Interval:
    """From 0 to half as much again as the last limit, or to the value; one that lies far beyond stands at the end of the scale."""
    low = min(0.0, *ends, value if math.isfinite(value) else 0.0)
    last = max([*ends, low]) - low or (value - low if 0 < value < math.inf else 1.0)
    times = 1.5 if math.isnan(value) else min(3.0, max(1.5, 1.15 * (value - low) / last))
    return low, low + times * last


def _zone_parts(panel: Panel, stops: Sequence[float]) -> Iterable[str]:
    colours = (code_of("edge").colour, GREY, code_of("cloud").colour)
    for name, colour, start, end in zip(_ZONES, colours, stops[:-1], stops[1:], strict=True):
        (x, _), (u, _) = panel.place((start, 0)), panel.place((end, 0))
        if u - x <= 0:
            continue
        yield f"<rect x='{x:.1f}' y='{panel.top:g}' width='{u - x:.1f}' height='{panel.size:g}' fill='{colour}' fill-opacity='.3'/>"
        if u - x > width_of(name) + 14:
            yield words_at((x + u) / 2, panel.top + 14, name, anchor="middle")


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One row of a timeline: what was done, when, for whom, and the tokens read and written."""

    words: str
    outcome: str
    start_s: float
    seconds: float
    tokens: tuple[int, int] | None = None
    failed: bool = False


def timeline(spans: Sequence[Span]) -> str:
    """Draw steps along the seconds that they took, and beside each its tokens: those read pale, those written full."""
    left, wide, room, most = max([60, *(width_of(s.words) for s in spans)]) + 24, 320.0, 70.0, 120.0
    end = max(s.start_s + s.seconds for s in spans) or 1.0
    panel = Panel(left, 24, 30.0 * len(spans), width=wide, across=(0.0, end))
    tokens_at = left + wide + room
    scale = most / max([sum(s.tokens) for s in spans if s.tokens] + [1])
    parts = [
        words_at(left, 12, "seconds", quiet=True),
        words_at(tokens_at, 12, "tokens, in + out", quiet=True),
    ]
    bottom = panel.top + panel.size
    values = ticks(0.0, end, most=5)
    for value, words in zip(values, tick_labels(values), strict=True):
        x, _ = panel.place((value, 0))
        parts.append(
            f"<line x1='{x:.1f}' x2='{x:.1f}' y1='20' y2='{bottom:g}' stroke='currentColor' stroke-opacity='.15'/>"
        )
        parts.append(words_at(x, bottom + 16, words, anchor="middle", quiet=True))
    for at, span in enumerate(spans):
        parts += _span(span, panel, panel.top + 30 * at, tokens_at, scale)
    return document(tokens_at + most + 96, bottom + 24, parts, label="steps: seconds and tokens to scale")


def _span(span: Span, panel: Panel, top: float, tokens_at: float, scale: float) -> Iterable[str]:
    code = code_of("failed" if span.failed else span.outcome)
    (x, _), (u, _) = panel.place((span.start_s, 0)), panel.place((span.start_s + span.seconds, 0))
    yield code.drawn(8, top + 12) + words_at(20, top + 16, span.words)
    pattern = f" stroke='{code.colour}' stroke-dasharray='3 2' fill-opacity='.25'" if span.failed else ""
    yield f"<rect x='{x:.1f}' y='{top + 3:g}' width='{max(2.0, u - x):.1f}' height='18' rx='2' fill='{code.colour}'{pattern}/>"
    yield words_at(max(x + 2, u) + 5, top + 16, f"{span.seconds:.2f} s")
    if span.tokens is not None:
        read, written = (scale * count for count in span.tokens)
        yield f"<rect x='{tokens_at:g}' y='{top + 6:g}' width='{read:.1f}' height='12' fill='{code.colour}' fill-opacity='.35'/>"
        yield f"<rect x='{tokens_at + read:.1f}' y='{top + 6:g}' width='{written:.1f}' height='12' fill='{code.colour}'/>"
        yield words_at(tokens_at + read + written + 6, top + 16, f"{span.tokens[0]} + {span.tokens[1]}")


def ranking(
    words: str,
    rows: Sequence[tuple[str, float, Interval | None]],
    *,
    main: str = "",
    chance: float | None = None,
) -> str:
    """Draw values as points on one scale, each with its 95 % interval, and in numbers beside it.

    Parameters
    ----------
    words : str
        What is measured.
    rows : sequence of (name, value, interval or None)
        In the order in which they are drawn.
    main : str
        The name of the row that stands out.
    chance : float, optional
        What guessing gives, which is marked.
    """
    left, wide, high = max([40, *(width_of(name) * 1.05 for name, *_ in rows)]) + 14, 400.0, 24.0
    ends = [end for _, value, interval in rows for end in (value, *(interval or ()))]
    ends += [] if chance is None else [chance]
    low, most = min(ends), max(ends)
    room = 0.04 * (most - low) or 0.05
    panel = Panel(left, 30, high * len(rows), width=wide, across=(low - room, most + room))
    bottom = panel.top + panel.size
    parts = [words_at(left, 14, words, quiet=True)]
    values = ticks(*panel.across, most=5)
    for value, told in zip(values, tick_labels(values), strict=True):
        x, _ = panel.place((value, 0))
        parts.append(_upright(x, 22, bottom, opacity=0.15))
        parts.append(words_at(x, bottom + 16, told, anchor="middle", quiet=True))
    if chance is not None:
        x, _ = panel.place((chance, 0))
        parts.append(_upright(x, 22, bottom, opacity=0.7, dash="3 3"))
        parts.append(words_at(x, bottom + 31, "chance", anchor="middle", quiet=True))
    for at, (name, value, interval) in enumerate(rows):
        parts += _ranked(panel, panel.top + high * (at + 0.5), name, value, interval, main=name == main)
    room = max(width_of(_told(value, interval)) for _, value, interval in rows) * 1.08
    return document(left + wide + 16 + room, bottom + (24 if chance is None else 38), parts, label=words)


def _ranked(
    panel: Panel, y: float, name: str, value: float, interval: Interval | None, *, main: bool
) -> Iterable[str]:
    (x, _), ends = panel.place((value, 0)), [panel.place((end, 0))[0] for end in interval or ()]
    yield words_at(panel.left - 12, y + 4, name, anchor="end", bold=main)
    if ends:
        yield f"<line x1='{ends[0]:.1f}' x2='{ends[1]:.1f}' y1='{y:g}' y2='{y:g}' stroke='currentColor' stroke-opacity='.6'/>"
    yield f"<circle cx='{x:.1f}' cy='{y:g}' r='{6 if main else 4}' fill='{'currentColor' if main else GREY}'/>"
    yield words_at(panel.left + panel.width + 12, y + 4, _told(value, interval), bold=main)


def _told(value: float, interval: Interval | None) -> str:
    return f"{value:.3f}" + ("" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})")


def _upright(x: float, top: float, bottom: float, *, opacity: float, dash: str = "") -> str:
    dashes = f" stroke-dasharray='{dash}'" if dash else ""
    return f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{top:g}' y2='{bottom:g}' stroke='currentColor' stroke-opacity='{opacity:g}'{dashes}/>"
