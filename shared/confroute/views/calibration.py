"""What a notebook shows of a measured run: which signal tells errors, and whether its probabilities can be believed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from confroute.bench.plots import reliability_panels, reliability_svg, risk_coverage_svg
from confroute.views.html import fragment, table

if TYPE_CHECKING:
    from confroute.bench.evaluation import RunReport, SignalReport

_HEAD = ("signal", "n", "AUROC", "95 %", "PRR", "ECE", "APGR")


def run_text(report: RunReport) -> str:
    """One line: calls, both qualities, the signal that tells errors best."""
    name, best = next(iter(report.signals.items()), ("", None))
    told = (
        f"; best of {len(report.signals)} signals: {name}, AUROC {best.auroc:.3f}"
        if best and best.auroc is not None
        else ""
    )
    return f"<RunReport {_qualities(report)}{told}>"


def run_html(report: RunReport) -> str:
    """Numbers of every signal, its reliability diagram, and the risk of what it keeps.

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
    yield table(_HEAD, [_row(name, found) for name, found in report.signals.items()])
    yield "<p>How often answers that are wrong with a predicted probability are wrong; on the diagonal it can be believed:</p>"
    yield reliability_svg(report)
    yield "<p>What is kept and how bad it is; lower is better:</p>"
    yield risk_coverage_svg(report)


def _row(name: str, found: SignalReport) -> list[str | float | int | None]:
    ends = found.auroc_ci
    interval = "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
    return [name, found.n, found.auroc, interval, found.prr, found.ece, found.apgr]


def signal_html(found: SignalReport) -> str:
    """One signal's numbers and reliability: each bin as a point and in a table."""
    return fragment(_signal_parts(found), label=f"one signal on {found.n} calls")


def _signal_parts(found: SignalReport) -> Iterable[str]:
    yield table(_HEAD[1:], [_row("", found)[1:]])
    if not found.reliability:
        yield "<p class='q'>too few rows for a cross-fitted probability</p>"
        return
    yield reliability_panels({"reliability": found})
    rows = [(at.predicted, at.wrong, at.n) for at in found.reliability]
    yield table(("predicted", "share wrong", "n"), rows)
