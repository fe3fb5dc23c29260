"""A fitted policy as SVG and HTML: what every threshold would have done on the recorded calls."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from confroute.display import register
from confroute.fitting.calibrated import Calibration
from confroute.fitting.fit import Fit
from confroute.fitting.front import ParetoFront
from confroute.fitting.point import Interval, Metric, Point, metrics
from confroute.views.calibration import reliability_panels
from confroute.views.html import Tile, folded, fragment, page, table, tiles, wide
from confroute.views.policy import promise_tile
from confroute.views.scales import ranking
from confroute.views.svg import COLOURS, GREY, MARGIN, TOP, Line, Panel, document

_WIDE, _HIGH = 560.0, 380.0
# Signals that are drawn, best first; the table holds all.
_RANKED = 10


def front_svg(front: ParetoFront, *, chosen: Point | None = None) -> str:
    """Draw quality over cost of every threshold, with a 95 % band, the hull, both ends, the oracle and random routing.

    Parameters
    ----------
    front : ParetoFront
        Of calls whose cloud answers are graded.
    chosen : Point, optional
        The point to mark.

    Returns
    -------
    str
        An SVG document.

    Raises
    ------
    CalibrationError
        The cloud is not graded.
    """
    every = [front.edge, *front.points, front.cloud, *front.oracle]
    most = max(map(front.cost, every)) or 1.0
    low, high = _heights(front, every)
    panel = Panel(MARGIN, TOP, _HIGH, low=low, high=high, width=_WIDE, across=(0.0, 1.03 * most))

    def at(points: Iterable[Point]) -> list[tuple[float, float]]:
        return [(front.cost(point), front.worth(point)) for point in points]

    metric = metrics()[front.metric]
    share = "x" if front.metric == "cloud_share" else ""
    parts = [
        *panel.axes(f"{front.n} recorded calls", metric.words, "quality", percent=share),
        _band(panel, front),
    ]
    lines = [
        Line(words="random", points=at([front.edge, front.cloud]), colour=GREY, dash="2 3"),
        Line(words="hull", points=at(front.hull), colour=GREY, dash="6 2", width=1.2),
        Line(words="thresholds", points=at(front.points), width=2.6),
    ]
    if front.oracle:
        lines.append(
            Line(words="oracle", points=at(front.oracle), colour=COLOURS[4], dash="10 3 2 3", width=2.2)
        )
    parts += panel.lines([line for line in lines if line.points])
    marks = [("edge", front.edge, "edge"), ("cloud", front.cloud, "cloud")]
    marks += (
        [("knee", front.knee, "")] if chosen is None else [("chosen", chosen, ""), ("knee", front.knee, "")]
    )
    parts += panel.marks([(name, at([point])[0], outcome) for name, point, outcome in marks])
    return document(MARGIN + _WIDE + 130, TOP + _HIGH + 46, parts, label=f"quality over {metric.words}")


def _heights(front: ParetoFront, every: Iterable[Point]) -> Interval:
    """The range of quality in which something is drawn, in tenths."""
    ends = [end for point in front.points for end in point.quality_ci or ()]
    values = [*map(front.worth, every), *ends]
    low = math.floor(10 * min(values) + 1e-9) / 10
    return low, max(low + 0.1, math.ceil(10 * max(values) - 1e-9) / 10)


def _band(panel: Panel, front: ParetoFront) -> str:
    known = [(front.cost(p), p.quality_ci) for p in front.points if p.quality_ci is not None]
    upper = [panel.place((x, ci[1])) for x, ci in known]
    lower = [panel.place((x, ci[0])) for x, ci in reversed(known)]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *lower])
    return f"<polygon points='{drawn}' fill='currentColor' fill-opacity='0.12' stroke='none'/>"


def report_html(fit: Fit) -> str:
    """Write a page about a fit: what it would have done, beside both models alone and the oracle."""
    return page("Fitted policy", fit_parts(fit))


def fit_html(fit: Fit) -> str:
    """Draw the same in a notebook."""
    return fragment(fit_parts(fit), label="fitted policy")


def fit_parts(fit: Fit) -> list[str]:
    """The parts of `report_html`."""
    gate = fit.policy.gates[0]
    named = [("always edge", fit.front.edge), ("always cloud", fit.front.cloud)]
    promised = [] if fit.certificate is None else [promise_tile(fit.certificate)]
    parts = [
        tiles([*promised, *point_tiles(fit.expected, named)]),
        f"<p>Fitted on {fit.n} recorded calls: signal <b>{escape(fit.choice.column)}</b>, "
        f"{' and '.join(_thresholds(fit))} {escape(gate.signal.range.unit)}.</p>",
        *_certificate(fit),
        *(f"<p>Note: {escape(note)}.</p>" for note in fit.notes),
        *_chains(fit),
        "<h2>What it would have done</h2>",
    ]
    if fit.front.cloud.quality is not None:
        parts.append(wide(front_svg(fit.front, chosen=_chosen(fit))))
    parts.append(folded("In numbers", [table(("route", *labels()), _rows(fit), main="this policy")]))
    parts += _calibration(fit.calibration)
    if fit.choice.scores:
        ranked = sorted(fit.choice.scores.items(), key=lambda item: -item[1])
        drawn = [(name, score, None) for name, score in ranked]
        parts += [
            "<h2>Which signal?</h2>",
            f"<p>Compared on {fit.selected_on} other calls. APGR: 0.5 is chance; the combination's is out of fold.</p>",
            wide(ranking("APGR", drawn[:_RANKED], main=fit.choice.column, chance=0.5)),
            folded(
                "All signals in numbers",
                [
                    "<p>ECE: calibration error of the probability that the edge is wrong, out of fold.</p>",
                    table(
                        ["signal", "APGR", "ECE"],
                        [[name, score, fit.choice.ece.get(name)] for name, score in ranked],
                        main=fit.choice.column,
                    ),
                ],
            ),
        ]
    return parts


def _thresholds(fit: Fit) -> Iterable[str]:
    gate, (*drafting, _) = fit.policy.gates[0], fit.policy.tiers
    for tier in drafting:
        value = gate.for_call(tier, frozenset()).threshold.value
        yield f"threshold{'' if len(drafting) == 1 else f' of {escape(tier)}'} <b>{value:.6g}</b>"


def _chains(fit: Fit) -> Iterable[str]:
    """Which chain to deploy, and adverse selection."""
    if fit.chains:
        yield "<h2>Which models?</h2>"
        yield (
            "<p>At the total cost of the deployed chain, a model alone at its own, on calls that gave no chain its thresholds. Gain: quality "
            "of the deployed chain at that cost minus the other's, with its paired interval.</p>"
        )
        rows = [
            [
                one.name,
                one.quality,
                _interval(one.quality_ci),
                one.usd_per_1k,
                one.gain,
                _interval(one.gain_ci),
            ]
            for one in fit.chains
        ]
        deployed = next(one.name for one in fit.chains if one.deployed)
        heads = ["models", "quality", "95 %", "USD for 1000", "gain", "95 %"]
        yield table(heads, rows, main=deployed)
    yield from (f"<p>{escape(one.words[0].upper() + one.words[1:])}.</p>" for one in fit.adverse_selection)


def point_tiles(point: Point, others: Sequence[tuple[str, Point]]) -> Iterable[Tile]:
    """Quality, cloud share, cost and seconds of a point, each with its interval and beside the same of other points."""
    for name, form in (
        ("quality", ".3f"),
        ("cloud_share", ".1%"),
        ("usd_per_1k", ".3g"),
        ("latency_s", ".2f"),
    ):
        value = point.known(name)
        if value is None:
            continue
        ends = point.intervals.get(name)
        beside = [] if ends is None else [f"95% interval {ends[0]:{form}} to {ends[1]:{form}}"]
        if name != "cloud_share":
            beside += [f"{who} {told:{form}}" for who, one in others if (told := one.known(name)) is not None]
        yield Tile(name=metrics()[name].words, value=f"{value:{form}}", beside=beside)


def _calibration(calibration: Calibration) -> Iterable[str]:
    shown = {
        name: one
        for name, one in (("before", calibration.before), ("after", calibration.after))
        if one is not None
    }
    if not shown:
        return
    yield "<h2>Can its probability be believed?</h2>"
    yield (
        "<p>How often the edge is wrong where a probability of it was predicted; on the diagonal it can be believed. After calibration, on "
        "calls that the calibration has not seen. ECE: mean distance to the diagonal; of few calls it is never quite 0.</p>"
    )
    if calibration.before is None:
        yield "<p>Before calibration this uncertainty is not a probability.</p>"
    yield wide(reliability_panels(shown))
    rows = [[name, one.words, one.n, one.ece] for name, one in shown.items()]
    yield table(["calibration", "P(edge wrong)", "n", "ECE"], rows)


def labels(*, brief: bool = False) -> list[str]:
    """Headings of the metrics' columns in a table, those of short tables alone where it is `brief`."""
    return [label for one in _shown(brief) for label in (one.label, *(("95 %",) if one.interval else ()))]


def cells(point: Point, *, brief: bool = False) -> list[str | float | None]:
    """A point's metrics in the order of `labels`."""
    row: list[str | float | None] = []
    for one in _shown(brief):
        value = point.known(one.name)
        row.append(value if value is None or not one.whole else round(value))
        if one.interval:
            row.append(_interval(point.intervals.get(one.name)))
    return row


def _shown(brief: bool) -> list[Metric]:
    return [one for one in metrics().values() if one.brief or not brief]


def _rows(fit: Fit) -> Iterable[list[str | float | None]]:
    front = fit.front
    named: list[tuple[str, Point]] = [("this policy", fit.expected)]
    named += [("always edge", front.edge), ("always cloud", front.cloud)]
    named += [("oracle", front.oracle[-1])] if front.oracle else []
    yield from ([name, *cells(point)] for name, point in named)


def _certificate(fit: Fit) -> Iterable[str]:
    promise = fit.certificate
    if promise is None:
        yield "<p>No guarantee: this is the best threshold on the recorded calls.</p>"
        return
    ahead = "" if promise.horizon is None else f", also as measured over the next {promise.horizon} calls"
    yield (
        f"<p><b>Promised</b>: {escape(promise.words)}{ahead}; {promise.observed:.4f} on these calls. Calls to come must be like the "
        f"recorded ones. {promise.date}, calibration columns {promise.data_hash[:12]}.</p>"
    )


def _chosen(fit: Fit) -> Point | None:
    if fit.chains:
        # Thresholds of one step do not order those of all.
        return fit.expected
    value = fit.policy.gates[0].threshold.value
    below = [p for p in fit.front.points if p.threshold is not None and p.threshold <= value]
    return below[-1] if below else None


def _interval(ends: Interval | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


register(Fit, html=fit_html)
