"""Replays of recorded runs as SVG, HTML and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from confroute.bench.costs import BUDGETS, RATIOS, AtCost
from confroute.bench.preference import Interval
from confroute.bench.recorded import RecordedReplay, by_kind
from confroute.bench.report import HEAD, cells, markdown_table, written
from confroute.views.html import page, table
from confroute.views.svg import COLOURS, GREY, MARGIN, Panel, document, legend

COST_HEAD = (
    "router",
    "reads",
    "area over cost",
    "95 % interval",
    *(f"recovered at {budget:.0%}" for budget in BUDGETS),
    "minus the best head",
)
RATIO_HEAD = ("router", *(f"edge costs {ratio:.0%} of the cloud" for ratio in RATIOS))
_READS = {"reference": "what none can know", "query": "prompt", "answer": "the edge's answer"}
_POINTS = 60
# Of each kind, so many lines are drawn and so many rows stand in the table by price.
_DRAWN = {"reference": 1, "query": 3, "answer": 5}


def shown(interval: Interval) -> str:
    """A signed number and its interval."""
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def cost_cells(one: AtCost) -> list[str]:
    """One router's row."""
    return [
        one.name,
        _READS[one.kind],
        f"{one.area.value:.3f}",
        f"{one.area.low:.3f} to {one.area.high:.3f}",
        *(f"{part:.3f}" for part in one.recovered),
        "-" if one.over_best_head is None else shown(one.over_best_head),
    ]


def verdict(found: RecordedReplay) -> str:
    """Whether looking at the answer beats looking at the prompt here, in a sentence."""
    best = by_kind(found.costs)
    answer, head = best.get("answer"), best.get("query")
    if answer is None or head is None or answer.over_best_head is None:
        return "No router that reads the answer could be measured."
    over = answer.over_best_head
    word = "beats" if over.low > 0 else "is worse than" if over.high < 0 else "cannot be told from"
    told = (
        f"At equal total cost the best router that reads the answer ({answer.name}, {answer.area.value:.3f}) {word} the best that reads "
        f"the prompt ({head.name}, {head.area.value:.3f}): {shown(over)}."
    )
    if answer.by_ratio is None:
        return told
    tops = [
        max((one.by_ratio[at] for one in found.costs if one.kind == "answer" and one.by_ratio), key=_value)
        for at in range(len(RATIOS))
    ]
    wins = [ratio for ratio, top in zip(RATIOS, tops, strict=True) if top.low > 0]
    loses = [ratio for ratio, top in zip(RATIOS, tops, strict=True) if top.value <= 0]
    until = (
        f"the lead is clear up to an edge that costs {max(wins):.0%} of the cloud"
        if wins
        else "the lead is clear at no price of the edge"
    )
    after = f"; from {min(loses):.0%} on there is none." if loses else "."
    return f"{told} By price, {until}{after}"


def _value(interval: Interval) -> float:
    return interval.value


def drawn(found: RecordedReplay) -> list[AtCost]:
    """The best routers of each kind, those that read the answer first."""
    ranked = sorted(found.costs, key=lambda one: -one.area.value)
    return [
        one
        for kind in ("answer", "query", "reference")
        for one in [r for r in ranked if r.kind == kind][: _DRAWN[kind]]
    ]


def plot(found: RecordedReplay) -> str:
    """Gap recovered over total cost, as SVG."""
    size, entries = 360.0, []
    share = np.linspace(0, 1, _POINTS)
    lines = [(one, np.interp(share, one.curve[0], one.curve[1], left=0.0)) for one in drawn(found)]
    panel = Panel(MARGIN, 30, size, high=max(1.0, *(float(heights.max()) for _, heights in lines)))
    parts = [*panel.axes(found.bench.name, "total cost, from always-edge to always-cloud", "gap recovered")]
    parts.append(panel.line([(0, 0), (1, 1)], colour=GREY, dash="2 3"))
    for at, (one, heights) in enumerate(lines):
        grey = one.kind == "reference"
        colour = GREY if grey else COLOURS[at % len(COLOURS)]
        dash = "2 3" if grey else "" if one.kind == "answer" else "6 3"
        points = zip(share.tolist(), np.maximum(heights, 0).tolist(), strict=True)
        parts.append(panel.line(points, colour=colour, dash=dash))
        entries.append((f"{one.name} ({one.area.value:.3f})", colour, dash))
    parts += legend(entries, left=MARGIN + size + 20)
    return document(MARGIN + size + 360, size + 80, parts)


def _ratio_rows(found: RecordedReplay) -> list[list[str]]:
    priced = [one for one in drawn(found) if one.kind != "reference" and one.by_ratio is not None]
    return [[one.name, *map(shown, one.by_ratio or ())] for one in priced]


def _sorted(costs: Sequence[AtCost]) -> list[list[str]]:
    return [cost_cells(one) for one in sorted(costs, key=lambda one: -one.area.value)]


def html(found: Mapping[str, RecordedReplay]) -> str:
    """One page with the tables and plots of all runs."""
    parts: list[str] = []
    for name, one in found.items():
        parts += [f"<h2>{escape(name)}, {one.bench.n} calls</h2>", f"<p>{escape(verdict(one))}</p>"]
        parts += [f"<p>{escape(note)}</p>" for note in one.notes]
        parts += [plot(one), table(COST_HEAD, _sorted(one.costs))]
        if rows := _ratio_rows(one):
            parts += ["<p>minus the best head, by the edge's price</p>", table(RATIO_HEAD, rows)]
        parts += ["<p>by share of cloud calls</p>", table(HEAD, map(cells, one.results))]
    return page("Replay of recorded runs", parts)


def markdown(found: Mapping[str, RecordedReplay]) -> str:
    """The same tables for a Markdown page, with links to the plots beside it."""
    lines = (line for name, one in found.items() for line in _section(name, one))
    return "\n".join(("# Recorded runs", "", *lines)) + "\n"


def _section(name: str, one: RecordedReplay) -> Iterator[str]:
    yield from (
        f"## {name}: {one.bench.n} calls",
        "",
        verdict(one),
        "",
        *one.notes,
        "",
        f"![{name}]({name}.svg)",
        "",
    )
    yield from markdown_table(COST_HEAD, _sorted(one.costs))
    if rows := _ratio_rows(one):
        yield from ("", "Minus the best head, by the edge's price:", "")
        yield from markdown_table(RATIO_HEAD, rows)
    yield from ("", "By share of cloud calls:", "")
    yield from markdown_table(HEAD, [cells(result) for result in one.results])
    yield ""


def write(found: Mapping[str, RecordedReplay], folder: Path) -> list[Path]:
    """Write recorded.html, recorded.md and a plot a run into `folder`."""
    plots = {f"{name}.svg": plot(one) for name, one in found.items()}
    return written({"recorded.html": html(found), "recorded.md": markdown(found), **plots}, folder)
