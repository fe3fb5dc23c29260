"""Reliability and risk-coverage diagrams as SVG text, which needs no plotting library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TypeAlias

import numpy as np

from confroute.bench._arrays import Array
from confroute.bench.evaluation import Bin, RunReport, SignalReport
from confroute.bench.metrics import risk_coverage

Point: TypeAlias = "tuple[float, float]"

# Okabe and Ito's palette, which colour-blind readers can tell apart; dashes distinguish the second round.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
_GREY = "#999999"
_STYLE = "font-family='sans-serif' font-size='11' fill='#222222'"
_MARGIN = 48
_LINE_POINTS = 200


class _Panel:
    """A square of `size` pixels at (`left`, `top`), with both axes from 0 to 1 or to `high`."""

    def __init__(self, left: float, top: float, size: float, *, high: float = 1.0) -> None:
        self.left, self.top, self.size, self.high = left, top, size, high

    def place(self, point: Point) -> Point:
        """Pixels of a point."""
        x, y = point
        return self.left + x * self.size, self.top + (1 - y / self.high) * self.size

    def axes(self, title: str, x: str, y: str) -> Iterable[str]:
        """Frame, ticks and words."""
        left, top, size = self.left, self.top, self.size
        yield f"<rect x='{left}' y='{top}' width='{size}' height='{size}' fill='none' stroke='#222222'/>"
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            across, up = self.place((share, share * self.high))
            yield f"<text x='{across:.1f}' y='{top + size + 14}' text-anchor='middle'>{share:g}</text>"
            yield f"<text x='{left - 5}' y='{up + 4:.1f}' text-anchor='end'>{share * self.high:.2g}</text>"
        middle = top + size / 2
        yield f"<text x='{left + size / 2}' y='{top + size + 30}' text-anchor='middle'>{escape(x)}</text>"
        yield (
            f"<text x='{left - 34}' y='{middle}' text-anchor='middle' "
            f"transform='rotate(-90 {left - 34} {middle})'>{escape(y)}</text>"
        )
        yield f"<text x='{left}' y='{top - 8}' font-weight='bold'>{escape(title)}</text>"

    def line(self, points: Iterable[Point], *, colour: str, dash: str = "") -> str:
        """A line through points."""
        drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(self.place, points))
        dashes = f" stroke-dasharray='{dash}'" if dash else ""
        return f"<polyline points='{drawn}' fill='none' stroke='{colour}' stroke-width='1.5'{dashes}/>"


def _document(width: float, height: float, parts: Iterable[str]) -> str:
    body = "\n".join(parts)
    return (
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width:g}' height='{height:g}' "
        f"viewBox='0 0 {width:g} {height:g}' {_STYLE}>\n"
        f"<rect width='100%' height='100%' fill='#ffffff' stroke='none'/>\n{body}\n</svg>\n"
    )


def _thinned(coverage: Array, risk: Array) -> list[Point]:
    """At most so many points of a curve as can be seen."""
    at = np.unique(np.linspace(0, coverage.size - 1, min(coverage.size, _LINE_POINTS)).astype(int))
    return list(zip(coverage[at].tolist(), risk[at].tolist(), strict=True))


def risk_coverage_svg(report: RunReport) -> str:
    """Risk-coverage curves of all signals in one diagram, beside random order and the oracle's.

    Parameters
    ----------
    report : RunReport

    Returns
    -------
    str
        An SVG document. Lower is better; the area under a curve is the signal's AURC. A signal's curve is over the rows
        that it was measured on, the grey ones over all rows.
    """
    size = 380.0
    drawn = [(name, signal.curve) for name, signal in report.signals.items() if signal.curve is not None]
    high = max([0.05, *(float(curve.risk.max()) for _, curve in drawn)])
    panel = _Panel(_MARGIN, 30, size, high=min(1.0, high))
    base = 1.0 - report.edge_quality
    parts = [
        *panel.axes("Risk of what is kept", "coverage: share kept, least uncertain first", "mean 1 - quality")
    ]
    legend = [("random order", _GREY, "2 3"), ("oracle", _GREY, "6 3")]
    parts.append(panel.line([(0.0, base), (1.0, base)], colour=_GREY, dash="2 3"))
    oracle = risk_coverage(-report.quality, report.quality)
    if oracle is not None:
        parts.append(panel.line(_thinned(oracle.coverage, oracle.risk), colour=_GREY, dash="6 3"))
    for at, (name, curve) in enumerate(drawn):
        colour, dash = _COLOURS[at % len(_COLOURS)], "" if at < len(_COLOURS) else "4 2"
        parts.append(panel.line(_thinned(curve.coverage, curve.risk), colour=colour, dash=dash))
        legend.append((f"{name} (AURC {curve.aurc:.3f}, n = {report.signals[name].n})", colour, dash))
    parts += _legend(legend, left=_MARGIN + size + 20)
    return _document(_MARGIN + size + 380, max(size + 80, 40 + 18 * len(legend)), parts)


def _legend(entries: Sequence[tuple[str, str, str]], *, left: float) -> Iterable[str]:
    for at, (words, colour, dash) in enumerate(entries):
        y = 40 + 18 * at
        dashes = f" stroke-dasharray='{dash}'" if dash else ""
        yield f"<line x1='{left}' y1='{y}' x2='{left + 24}' y2='{y}' stroke='{colour}' stroke-width='2'{dashes}/>"
        yield f"<text x='{left + 30}' y='{y + 4}'>{escape(words)}</text>"


def reliability_svg(report: RunReport, *, columns: int = 3) -> str:
    """Reliability diagrams, one a signal: how often answers of a predicted probability of being wrong are wrong.

    Parameters
    ----------
    report : RunReport
    columns : int
        Diagrams side by side.

    Returns
    -------
    str
        An SVG document. The area of a point is the share of rows in its bin; a calibrated signal lies on the diagonal.
    """
    size, cell_x, cell_y = 190.0, 265.0, 275.0
    drawn = [(name, signal) for name, signal in report.signals.items() if signal.reliability]
    parts: list[str] = []
    for at, (name, signal) in enumerate(drawn):
        panel = _Panel(_MARGIN + cell_x * (at % columns), 30 + cell_y * (at // columns), size)
        parts += panel.axes(name, _caption(signal), "share wrong")
        parts.append(panel.line([(0, 0), (1, 1)], colour=_GREY, dash="2 3"))
        parts += [_dot(panel, point, signal.n) for point in signal.reliability]
    if not drawn:
        parts.append(f"<text x='{_MARGIN}' y='40'>too few rows for a cross-fitted probability</text>")
    rows = max(1, -(-len(drawn) // columns))
    return _document(_MARGIN + cell_x * columns, 20 + cell_y * rows, parts)


def _caption(signal: SignalReport) -> str:
    error = "" if signal.ece is None else f" (ECE {signal.ece:.3f}, n = {signal.n})"
    return f"predicted{error}"


def _dot(panel: _Panel, point: Bin, n: int) -> str:
    x, y = panel.place((point.predicted, point.wrong))
    radius = max(1.5, 16 * (point.n / n) ** 0.5)
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius:.1f}' fill='{_COLOURS[0]}' fill-opacity='0.6'/>"
