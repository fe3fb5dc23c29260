"""A Pareto front in a notebook: every threshold between always-edge and always-cloud."""

from __future__ import annotations

from collections.abc import Iterable

from confroute.display import register
from confroute.fitting.front import ParetoFront
from confroute.fitting.point import Point
from confroute.views.fit import cells, front_svg, labels, point_tiles
from confroute.views.html import fragment, table, tiles, wide


def front_text(front: ParetoFront) -> str:
    """Write a front as one line: both ends and the knee."""
    named = ", ".join(f"{name} {_brief(point)}" for name, point in _named(front))
    return f"<ParetoFront of {front.n} calls, {len(front.points)} thresholds: {named}>"


def front_html(front: ParetoFront) -> str:
    """Draw a front, with its ends, its knee and the oracle in numbers.

    Parameters
    ----------
    front : ParetoFront

    Returns
    -------
    str
        Self-contained HTML; see `confroute.views.decision.decision_html`.
    """
    return fragment(front_parts(front), label=f"trade-offs on {front.n} calls")


def front_parts(front: ParetoFront, *, chosen: Point | None = None) -> Iterable[str]:
    """The parts of `front_html`, with a chosen point marked and added to the table."""
    graded = front.cloud.quality is not None
    named = _named(front) + ([] if chosen is None else [("chosen", chosen)])
    name, shown = ("chosen", chosen) if chosen is not None else ("knee", front.knee if graded else None)
    if shown is not None:
        yield tiles(point_tiles(shown, [("always edge", front.edge), ("always cloud", front.cloud)]))
    if graded:
        yield wide(front_svg(front, chosen=chosen))
    yield table(("", "threshold", *labels(brief=True)), [_row(*one) for one in named], main=name)
    if not graded:
        yield "<p class='q'>the cloud is not graded: no quality to draw</p>"
    elif front.break_even is not None:
        yield f"<p>Drafting first pays up to a cloud share of {max(0.0, front.break_even):.0%}.</p>"


def _named(front: ParetoFront) -> list[tuple[str, Point]]:
    named = [("always edge", front.edge)]
    named += [] if front.cloud.quality is None else [("knee", front.knee)]
    named.append(("always cloud", front.cloud))
    return named + ([("oracle", front.oracle[-1])] if front.oracle else [])


def _brief(point: Point) -> str:
    quality = "ungraded" if point.quality is None else f"quality {point.quality:.3f}"
    return f"{quality} at {point.cloud_share:.0%} cloud"


def _row(name: str, point: Point) -> list[str | float | None]:
    threshold = "-" if point.threshold is None else f"{point.threshold:.4g}"
    return [name, threshold, *cells(point, brief=True)]


register(ParetoFront, text=front_text, html=front_html)
