"""A fitted policy as SVG and HTML: what every threshold would have done on the recorded calls."""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from confroute.display import register
from confroute.fitting.calibrated import Calibration
from confroute.fitting.fit import Fit
from confroute.fitting.front import ParetoFront
from confroute.fitting.point import Interval, Metric, Point, metrics
from confroute.views.calibration import reliability_panels
from confroute.views.html import fragment, page, table
from confroute.views.svg import COLOURS, GREY, MARGIN, Panel, document, legend

_SIZE = 380.0


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
    panel = Panel(MARGIN, 30, _SIZE, low=low, high=high)

    def at(point: Point, value: float | None = None) -> tuple[float, float]:
        return front.cost(point) / most, front.worth(point) if value is None else value

    words = metrics()[front.metric].words
    parts = [*panel.axes(f"{front.n} recorded calls", words, "quality", wide=most)]
    parts.append(_band(panel, front, most))
    lines = [
        ("always edge to always cloud, at random", [front.edge, front.cloud], GREY, "2 3"),
        ("oracle: the better model, known beforehand", front.oracle, GREY, "6 3"),
        ("thresholds", front.points, COLOURS[0], ""),
        ("hull", front.hull, COLOURS[2], "4 2"),
    ]
    shown = [(name, points, colour, dash) for name, points, colour, dash in lines if points]
    parts += [panel.line(map(at, points), colour=colour, dash=dash) for _, points, colour, dash in shown]
    marks = [("edge", front.edge), ("cloud", front.cloud), ("knee", front.knee)]
    marks += [] if chosen is None else [("chosen", chosen)]
    parts += [_mark(panel, at(point), name) for name, point in marks]
    parts += legend([(name, colour, dash) for name, _, colour, dash in shown], left=MARGIN + _SIZE + 20)
    return document(MARGIN + _SIZE + 320, _SIZE + 80, parts)


def _heights(front: ParetoFront, every: Iterable[Point]) -> Interval:
    """The range of quality in which something is drawn, in tenths."""
    ends = [end for point in front.points for end in point.quality_ci or ()]
    values = [*map(front.worth, every), *ends]
    low = math.floor(10 * min(values) + 1e-9) / 10
    return low, max(low + 0.1, math.ceil(10 * max(values) - 1e-9) / 10)


def _band(panel: Panel, front: ParetoFront, most: float) -> str:
    known = [(front.cost(p) / most, p.quality_ci) for p in front.points if p.quality_ci is not None]
    upper = [panel.place((x, ci[1])) for x, ci in known]
    lower = [panel.place((x, ci[0])) for x, ci in reversed(known)]
    drawn = " ".join(f"{x:.1f},{y:.1f}" for x, y in [*upper, *lower])
    return f"<polygon points='{drawn}' fill='{COLOURS[0]}' fill-opacity='0.25' stroke='none'/>"


def _mark(panel: Panel, place: tuple[float, float], name: str) -> str:
    """A point and its name; the chosen one's where no other name is."""
    x, y = panel.place(place)
    chosen = name == "chosen"
    left = place[0] > 0.2 if chosen else place[0] > 0.7
    below = {"edge": 20, "knee": 20, "cloud": -12}.get(name, -24 if place[0] > 0.8 else -6)
    return (
        f"<circle cx='{x:.1f}' cy='{y:.1f}' r='{5 if chosen else 3}' fill='{COLOURS[1] if chosen else 'currentColor'}'/>"
        f"<text x='{x - 8 if left else x + 8:.1f}' y='{y + below:.1f}' "
        f"text-anchor='{'end' if left else 'start'}'>{name}</text>"
    )


def report_html(fit: Fit) -> str:
    """Write a page about a fit: what it would have done, beside both models alone and the oracle."""
    return page("Fitted policy", fit_parts(fit))


def fit_html(fit: Fit) -> str:
    """Draw the same in a notebook."""
    return fragment(fit_parts(fit), label="fitted policy")


def fit_parts(fit: Fit) -> list[str]:
    """The parts of `report_html`."""
    gate = fit.policy.gates[0]
    parts = [
        f"<p>{fit.n} recorded calls, signal <b>{escape(fit.choice.column)}</b>, threshold "
        f"<b>{gate.threshold.value:.6g}</b> {escape(gate.signal.range.unit)}: {escape(gate.threshold.source)}.</p>",
        *_certificate(fit),
        "<h2>What it would have done</h2>",
        table(("route", *labels()), _rows(fit)),
    ]
    if fit.front.cloud.quality is not None:
        parts.append(front_svg(fit.front, chosen=_chosen(fit)))
    parts += [f"<p>Note: {escape(note)}.</p>" for note in fit.notes]
    parts += _calibration(fit.calibration)
    if fit.choice.scores:
        parts += [
            "<h2>Signals</h2>",
            f"<p>Compared on {fit.selected_on} other calls. APGR: 0.5 is chance; the combination's is out of fold. ECE: calibration "
            "error of the probability that the edge is wrong, out of fold.</p>",
            table(
                ["signal", "APGR", "ECE"],
                [
                    [name, score, fit.choice.ece.get(name)]
                    for name, score in sorted(fit.choice.scores.items(), key=lambda item: -item[1])
                ],
            ),
        ]
    return parts


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
    yield table(
        ["calibration", "P(edge wrong)", "n", "ECE"],
        [[name, one.words, one.n, one.ece] for name, one in shown.items()],
    )
    yield reliability_panels(shown)


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
        f"recorded ones. {promise.date}, data {promise.data_hash[:12]}.</p>"
    )


def _chosen(fit: Fit) -> Point | None:
    value = fit.policy.gates[0].threshold.value
    below = [p for p in fit.front.points if p.threshold is not None and p.threshold <= value]
    return below[-1] if below else None


def _interval(ends: Interval | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


register(Fit, html=fit_html)
