"""A measured run in a notebook: how well each signal detects errors, and whether its probabilities are calibrated."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

import numpy as np

from confroute.display import register
from confroute.recording.evaluation import Bin, RunReport, SignalReport
from confroute.stats.arrays import Array
from confroute.stats.metrics import risk_coverage
from confroute.views.html import fragment, table
from confroute.views.svg import BLUE, COLOURS, DASHES, GREY, MARGIN, Panel, Point, document
from confroute.views.svg import legend as legend_lines

_LINE_POINTS = 200


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
    size = 380.0
    drawn = [(name, signal.curve) for name, signal in report.signals.items() if signal.curve is not None]
    high = max([0.05, *(float(curve.risk.max()) for _, curve in drawn)])
    panel = Panel(MARGIN, 30, size, high=min(1.0, high))
    base = 1.0 - report.edge_quality
    parts = [
        *panel.axes("Risk of what is kept", "coverage: share kept, least uncertain first", "mean 1 - quality")
    ]
    legend = [("random order", GREY, "2 3"), ("oracle", GREY, "6 3")]
    parts.append(panel.line([(0.0, base), (1.0, base)], colour=GREY, dash="2 3"))
    oracle = risk_coverage(-report.quality, report.quality)
    if oracle is not None:
        parts.append(panel.line(_thinned(oracle.coverage, oracle.risk), colour=GREY, dash="6 3"))
    for at, (name, curve) in enumerate(drawn):
        colour, dash = COLOURS[at % len(COLOURS)], DASHES[at % len(DASHES)]
        parts.append(panel.line(_thinned(curve.coverage, curve.risk), colour=colour, dash=dash))
        legend.append((f"{name} (AURC {curve.aurc:.3f}, n = {report.signals[name].n})", colour, dash))
    parts += legend_lines(legend, left=MARGIN + size + 20)
    return document(MARGIN + size + 380, max(size + 80, 40 + 18 * len(legend)), parts)


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
    size, cell_x, cell_y = 190.0, 265.0, 275.0
    drawn = [(name, signal) for name, signal in signals.items() if signal.reliability]
    columns = max(1, min(columns, len(drawn)))
    parts: list[str] = []
    for at, (name, signal) in enumerate(drawn):
        panel = Panel(MARGIN + cell_x * (at % columns), 30 + cell_y * (at // columns), size)
        parts += panel.axes(name, _caption(signal), "share wrong")
        parts.append(panel.line([(0, 0), (1, 1)], colour=GREY, dash="2 3"))
        parts += [_dot(panel, point, signal.n) for point in signal.reliability]
    if not drawn:
        parts.append(f"<text x='{MARGIN}' y='40'>too few rows for a cross-fitted probability</text>")
    rows = max(1, -(-len(drawn) // columns))
    return document(MARGIN + cell_x * columns, 20 + cell_y * rows, parts)


def _caption(signal: Judged) -> str:
    error = "" if signal.ece is None else f" (ECE {signal.ece:.3f}, n = {signal.n})"
    return f"predicted{error}"


def _dot(panel: Panel, point: Bin, n: int) -> str:
    x, y = panel.place((point.predicted, point.wrong))
    radius = max(1.5, 16 * (point.n / n) ** 0.5)
    return f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{radius:.1f}' fill='{BLUE}' fill-opacity='0.7' stroke='currentColor' stroke-width='0.5'/>"


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


def _run_parts(report: RunReport) -> Iterable[str]:
    left_out = f"; {report.ungraded} ungraded are left out" if report.ungraded else ""
    yield f"<p>{_qualities(report)}{left_out}</p>"
    yield table(_HEAD, [_row(name, signal) for name, signal in report.signals.items()])
    yield "<p>How often answers that are wrong with a predicted probability are wrong; on the diagonal it can be believed:</p>"
    yield reliability_svg(report)
    yield "<p>What is kept and how bad it is; lower is better:</p>"
    yield risk_coverage_svg(report)


def _row(name: str, report: SignalReport) -> list[str | float | int | None]:
    ends = report.auroc_ci
    interval = "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
    return [name, report.n, report.auroc, interval, report.prr, report.ece, report.apgr]


def signal_html(report: SignalReport) -> str:
    """Draw one signal: its numbers and its reliability, each bin as a point and in a table."""
    return fragment(_signal_parts(report), label=f"one signal on {report.n} calls")


def _signal_parts(report: SignalReport) -> Iterable[str]:
    yield table(_HEAD[1:], [_row("", report)[1:]])
    if not report.reliability:
        yield "<p class='q'>too few rows for a cross-fitted probability</p>"
        return
    yield reliability_panels({"reliability": report})
    rows = [(at.predicted, at.wrong, at.n) for at in report.reliability]
    yield table(("predicted", "share wrong", "n"), rows)


register(RunReport, text=run_text, html=run_html)
register(SignalReport, html=signal_html)
