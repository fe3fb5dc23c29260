"""A measured run in a notebook: how well each signal detects errors, and whether its probabilities are calibrated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from confroute.display import register
from confroute.recording.evaluation import Bin, RunReport, SignalReport
from confroute.stats.arrays import Array
from confroute.stats.metrics import risk_coverage
from confroute.views.html import Tile, folded, fragment, table, tiles, wide
from confroute.views.scales import ranking
from confroute.views.svg import (
    COLOURS,
    DASHES,
    GREY,
    MARGIN,
    TOP,
    Line,
    Panel,
    Point,
    document,
    width_of,
)

_LINE_POINTS = 200
# Signals that have a colour and a name in the drawing, best first, and rows of the ranking; the table holds all.
_NAMED = 5
_RANKED = 10


class Judged(Protocol):
    """The data of a reliability diagram; see `confroute.recording.evaluation.SignalReport`."""

    @property
    def n(self) -> int:
        """Rows."""
        ...

    @property
    def ece(self) -> float | None:
        """Expected calibration error."""
        ...

    @property
    def reliability(self) -> tuple[Bin, ...]:
        """Points."""
        ...


def _thinned(coverage: Array, risk: Array) -> list[Point]:
    """A curve with no more points than can be seen."""
    at = np.unique(np.linspace(0, coverage.size - 1, min(coverage.size, _LINE_POINTS)).astype(int))
    return list(zip(coverage[at].tolist(), risk[at].tolist(), strict=True))


def risk_coverage_svg(report: RunReport) -> str:
    """Draw the risk-coverage curves of all signals in one diagram, beside random order and the oracle.

    Parameters
    ----------
    report : RunReport

    Returns
    -------
    str
        An SVG document. Lower is better; the area under a curve is the signal's AURC. A signal's curve covers the rows on which it was
        measured, the grey ones all rows.
    """
    drawn = [(name, signal.curve) for name, signal in report.signals.items() if signal.curve is not None]
    high = max([0.05, *(float(curve.risk.max()) for _, curve in drawn)])
    panel = Panel(MARGIN, TOP, 340, width=520, high=min(1.0, high))
    base = 1.0 - report.edge_quality
    parts = [
        *panel.axes(
            "Risk of what is kept",
            "coverage: share kept, least uncertain first",
            "mean 1 - quality",
            percent="x",
        )
    ]
    lines = [
        Line(words=f"random order {base:.3f}", points=[(0.0, base), (1.0, base)], colour=GREY, dash="2 3")
    ]
    oracle = risk_coverage(-report.quality, report.quality)
    if oracle is not None:
        points = _thinned(oracle.coverage, oracle.risk)
        lines.append(Line(words="oracle", points=points, colour=GREY, dash="8 3", width=2.6))
    others = [_thinned(curve.coverage, curve.risk) for _, curve in drawn[_NAMED:]]
    parts += [panel.line(points, colour=GREY, width=0.7) for points in others[1:]]
    lines += [Line(words=f"{len(others)} more", points=one, colour=GREY, width=0.7) for one in others[:1]]
    for at, (name, curve) in enumerate(drawn[:_NAMED]):
        words = f"{name}, AURC {curve.aurc:.3f}"
        points = _thinned(curve.coverage, curve.risk)
        lines.append(
            Line(
                words=words, points=points, colour=COLOURS[at], dash=DASHES[at], width=2.6 if at == 0 else 1.6
            )
        )
    parts += panel.lines(lines)
    right = panel.left + panel.width + 50 + max(width_of(line.words) for line in lines)
    return document(right, TOP + 340 + 46, parts, label="risk of what is kept, by signal")


def reliability_svg(report: RunReport, *, columns: int = 3) -> str:
    """Draw a reliability diagram per signal: how often answers with a predicted probability of being wrong are wrong.

    Parameters
    ----------
    report : RunReport
    columns : int
        Diagrams per row.

    Returns
    -------
    str
        An SVG document. The area of a point is the share of rows in its bin; a calibrated signal lies on the diagonal.
    """
    return reliability_panels(report.signals, columns=columns)


def reliability_panels(signals: Mapping[str, Judged], *, columns: int = 3) -> str:
    """Draw the reliability diagrams of some signals."""
    size, cell_x, cell_y = 180.0, 270.0, 290.0
    drawn = [(name, signal) for name, signal in signals.items() if signal.reliability]
    columns = max(1, min(columns, len(drawn)))
    parts: list[str] = []
    for at, (name, signal) in enumerate(drawn):
        panel = Panel(MARGIN + cell_x * (at % columns), TOP + cell_y * (at // columns), size)
        parts += panel.axes(name, _caption(signal), "share wrong", percent="xy")
        parts.append(panel.line([(0, 0), (1, 1)], colour=GREY, dash="2 3"))
        parts += [_dot(panel, point, signal.n) for point in signal.reliability]
    if not drawn:
        parts.append(f"<text x='{MARGIN}' y='40'>too few rows for a cross-fitted probability</text>")
    rows = max(1, -(-len(drawn) // columns))
    return document(
        MARGIN + cell_x * columns, cell_y * rows + 10, parts, label="reliability of predicted probabilities"
    )


def _caption(signal: Judged) -> str:
    error = "" if signal.ece is None else f" (ECE {signal.ece:.3f}, n = {signal.n})"
    return f"predicted{error}"


def _dot(panel: Panel, point: Bin, n: int) -> str:
    x, y = panel.place((point.predicted, point.wrong))
    radius = max(1.5, 16 * (point.n / n) ** 0.5)
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius:.1f}' fill='{COLOURS[1]}' fill-opacity='0.7' stroke='currentColor' stroke-width='0.5'/>"


_HEAD = ("signal", "n", "AUROC", "95 %", "PRR", "ECE", "APGR")


def run_text(report: RunReport) -> str:
    """Write a report as one line: calls, both qualities, the signal that detects errors best."""
    name, best = next(iter(report.signals.items()), ("", None))
    ranking = (
        f"; best of {len(report.signals)} signals: {name}, AUROC {best.auroc:.3f}"
        if best and best.auroc is not None
        else ""
    )
    return f"<RunReport {_qualities(report)}{ranking}>"


def run_html(report: RunReport) -> str:
    """Draw a report: numbers of every signal, its reliability diagram, and the risk of the answers that it keeps.

    Parameters
    ----------
    report : RunReport

    Returns
    -------
    str
        Self-contained HTML; see `confroute.views.decision.decision_html`.
    """
    return fragment(_run_parts(report), label=f"signals on {report.n} calls")


def _qualities(report: RunReport) -> str:
    cloud = "" if report.cloud_quality is None else f", cloud {report.cloud_quality:.3f}"
    return f"{report.n} graded calls, quality: edge {report.edge_quality:.3f}{cloud}"


def _tiles(report: RunReport) -> Iterable[Tile]:
    left_out = [f"{report.ungraded} ungraded are left out"] if report.ungraded else []
    yield Tile(name="graded calls", value=f"{report.n:,}", beside=left_out)
    yield Tile(name="quality of the edge", value=f"{report.edge_quality:.3f}", outcome="edge")
    if report.cloud_quality is not None:
        yield Tile(name="quality of the cloud", value=f"{report.cloud_quality:.3f}", outcome="cloud")
    name, best = next(iter(report.signals.items()), ("", None))
    if best is not None and best.auroc is not None:
        beside = [
            f"95% interval {_interval(best)}",
            f"{name}, the best of {len(report.signals)}",
            "chance 0.5",
        ]
        yield Tile(name="AUROC", value=f"{best.auroc:.3f}", beside=beside)


def _run_parts(report: RunReport) -> Iterable[str]:
    yield tiles(_tiles(report))
    known = [(name, s.auroc, s.auroc_ci) for name, s in report.signals.items() if s.auroc is not None]
    if known:
        yield "<h2>Which signal tells wrong answers from right ones?</h2>"
        yield wide(ranking("AUROC, 95% interval", known[:_RANKED], main=known[0][0], chance=0.5))
    yield folded(
        "All signals in numbers", [table(_HEAD, [_row(name, s) for name, s in report.signals.items()])]
    )
    yield "<h2>What is kept, and how bad it is</h2><p>Lower is better.</p>"
    yield wide(risk_coverage_svg(report))
    yield "<h2>Can its probability be believed?</h2>"
    yield "<p>How often answers that are wrong with a predicted probability are wrong; on the diagonal it can be believed.</p>"
    drawn = [*report.signals.items()]
    yield wide(reliability_panels(dict(drawn[:3])))
    if drawn[3:]:
        yield folded("The other signals", [wide(reliability_panels(dict(drawn[3:])))])


def _row(name: str, report: SignalReport) -> list[str | float | int | None]:
    return [name, report.n, report.auroc, _interval(report), report.prr, report.ece, report.apgr]


def _interval(report: SignalReport) -> str:
    ends = report.auroc_ci
    return "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def signal_html(report: SignalReport) -> str:
    """Draw one signal: its numbers and its reliability, each bin as a point and in a table."""
    return fragment(_signal_parts(report), label=f"one signal on {report.n} calls")


def _signal_parts(report: SignalReport) -> Iterable[str]:
    yield table(_HEAD[1:], [_row("", report)[1:]])
    if not report.reliability:
        yield "<p class='q'>too few rows for a cross-fitted probability</p>"
        return
    yield wide(reliability_panels({"reliability": report}))
    rows = [(at.predicted, at.wrong, at.n) for at in report.reliability]
    yield folded("The same in numbers", [table(("predicted", "share wrong", "n"), rows)])


register(RunReport, text=run_text, html=run_html)
register(SignalReport, html=signal_html)
