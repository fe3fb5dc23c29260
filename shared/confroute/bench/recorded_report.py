"""Reports replays of recorded runs as SVG, HTML and Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from confroute.bench.costs import BUDGETS, RATIOS, CostResult
from confroute.bench.preference import Interval
from confroute.bench.recorded import (
    AGREEMENT,
    DRAFT_ONLY,
    GREY_ZONE,
    LOGPROB,
    PROBE,
    SAMPLES_TOO,
    SELF_CONSISTENCY,
    WITH_PROMPT,
    RecordedReplay,
    by_kind,
)
from confroute.bench.report import (
    HEAD,
    REFERENCES,
    cells,
    compared,
    markdown_table,
    recovery_svg,
    write_files,
)
from confroute.views.html import Tile, folded, page, table, tiles, wide
from confroute.views.scales import ranking

COST_HEAD = (
    "router",
    "reads",
    "area over cost",
    "95 % interval",
    *(f"recovered at {budget:.0%}" for budget in BUDGETS),
    "minus the best head",
)
RATIO_HEAD = ("router", *(f"edge costs {ratio:.0%} of the cloud" for ratio in RATIOS))
_READS = {"reference": "the grades", "query": "prompt", "answer": "the edge's answer"}
_POINTS = 60
_RANKED = 12
# Number of routers of each kind in the plot and in the table by price.
_PLOTTED = {"reference": 1, "query": 3, "answer": 5}


def with_interval(interval: Interval) -> str:
    """Format a signed number and its interval."""
    return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"


def cost_cells(cost: CostResult) -> list[str]:
    """The cells of one router's row."""
    return [
        cost.name,
        _READS[cost.kind],
        f"{cost.area.value:.3f}",
        f"{cost.area.low:.3f} to {cost.area.high:.3f}",
        *(f"{share:.3f}" for share in cost.recovered),
        "-" if cost.over_best_head is None else with_interval(cost.over_best_head),
    ]


def verdict(replay: RecordedReplay) -> str:
    """Say in a sentence whether routers that read the answer beat those that read the prompt on this run."""
    best = by_kind(replay.costs)
    answer, head = best.get("answer"), best.get("query")
    if answer is None or head is None or answer.over_best_head is None:
        return "No router that reads the answer could be measured."
    over = answer.over_best_head
    word = "beats" if over.low > 0 else "is worse than" if over.high < 0 else "cannot be distinguished from"
    sentence = (
        f"At equal total cost the best router that reads the answer ({answer.name}, {answer.area.value:.3f}) {word} the best that reads "
        f"the prompt ({head.name}, {head.area.value:.3f}): {with_interval(over)}."
    )
    if answer.by_ratio is None:
        return sentence
    leads = [
        max(
            (cost.by_ratio[at] for cost in replay.costs if cost.kind == "answer" and cost.by_ratio),
            key=_value,
        )
        for at in range(len(RATIOS))
    ]
    wins = [ratio for ratio, lead in zip(RATIOS, leads, strict=True) if lead.low > 0]
    loses = [ratio for ratio, lead in zip(RATIOS, leads, strict=True) if lead.value <= 0]
    until = (
        f"the lead is clear up to an edge that costs {max(wins):.0%} of the cloud"
        if wins
        else "the lead is clear at no price of the edge"
    )
    after = f"; from {min(loses):.0%} on there is none." if loses else "."
    return f"{sentence} By price, {until}{after}"


# What the table by price compares, from what costs nothing beside the draft to what costs most.
_BY_PRICE = (
    LOGPROB,
    "option_probability",
    PROBE,
    DRAFT_ONLY,
    WITH_PROMPT,
    "vote_disagreement",
    AGREEMENT,
    GREY_ZONE,
    SELF_CONSISTENCY,
    "semantic_entropy",
    SAMPLES_TOO,
)


def by_price(replays: Mapping[str, RecordedReplay]) -> Iterator[str]:
    """Yield a Markdown table of what reading the answer gains at each price of the edge, run by run.

    Cells are the area over cost minus that of the best router that reads the prompt; bold where the interval is above 0.
    """
    rows = []
    for run, replay in replays.items():
        costs = [cost for cost in replay.costs if cost.kind == "answer" and cost.by_ratio is not None]
        for wanted in _BY_PRICE:
            # How many samples a run has differs.
            shown = [cost for cost in costs if re.sub(r"\d+", "{}", cost.name) == wanted]
            rows += [[run, cost.name, *map(_lead, cost.by_ratio or ())] for cost in shown]
    yield from markdown_table(("run", "router", *(f"{ratio:.0%}" for ratio in RATIOS)), rows)


def _lead(interval: Interval) -> str:
    mark = "**" if interval.low > 0 else ""
    return f"{mark}{interval.value:+.3f}{mark}"


def _value(interval: Interval) -> float:
    return interval.value


def routers_to_plot(replay: RecordedReplay) -> list[CostResult]:
    """The best routers of each kind, those that read the answer first."""
    ranked = sorted(replay.costs, key=lambda cost: -cost.area.value)
    return [
        cost
        for kind in ("answer", "query", "reference")
        for cost in [cost for cost in ranked if cost.kind == kind][: _PLOTTED[kind]]
    ]


def plot(replay: RecordedReplay) -> str:
    """Plot the gap recovered over total cost, as SVG."""
    share = np.linspace(0, 1, _POINTS)
    ranked = routers_to_plot(replay)
    lines = []
    if "random" not in {cost.name for cost in ranked}:
        lines.append(compared(0, "random", [(0, 0), (1, 1)], kind="random"))
    for at, cost in enumerate(ranked):
        heights = np.maximum(np.interp(share, cost.curve[0], cost.curve[1], left=0.0), 0)
        points = [*zip(share.tolist(), heights.tolist(), strict=True)]
        kind = cost.name if cost.name in REFERENCES else "oracle" if cost.kind == "reference" else ""
        lines.append(compared(at, f"{cost.name} {cost.area.value:.3f}", points, kind=kind, main=at == 0))
    return recovery_svg(replay.bench.name, "total cost, from always-edge to always-cloud", lines)


def _ratio_rows(replay: RecordedReplay) -> list[list[str]]:
    ranked = sorted(replay.costs, key=lambda cost: -cost.area.value)
    priced = [cost for cost in ranked if cost.kind == "answer" and cost.by_ratio is not None]
    return [[cost.name, *map(with_interval, cost.by_ratio or ())] for cost in priced]


def _cost_rows(costs: Sequence[CostResult]) -> list[list[str]]:
    return [cost_cells(cost) for cost in sorted(costs, key=lambda cost: -cost.area.value)]


def _tiles(replay: RecordedReplay, best: CostResult) -> Iterator[Tile]:
    interval = f"95% interval {best.area.low:.3f} to {best.area.high:.3f}"
    head = by_kind(replay.costs).get("query")
    beside = [] if head is None or head.name == best.name else [f"{head.name} {head.area.value:.3f}"]
    shown = [f"{best.name}, reads {_READS[best.kind]}", interval, *beside]
    yield Tile(name="area over cost of the best router", value=f"{best.area.value:.3f}", beside=shown)
    for budget, recovered in zip(BUDGETS, best.recovered, strict=True):
        name = f"gap recovered at {budget:.0%} of the cost"
        yield Tile(name=name, value=f"{recovered:.0%}", beside=[f"at random {budget:.0%}"])


def html(replays: Mapping[str, RecordedReplay]) -> str:
    """Make one page with the tables and plots of all runs."""
    parts: list[str] = []
    for name, replay in replays.items():
        parts += [f"<h2>{escape(name)}, {replay.bench.n} calls</h2>", f"<p>{escape(verdict(replay))}</p>"]
        parts += [f"<p>{escape(note)}</p>" for note in replay.notes]
        ranked = sorted(replay.costs, key=lambda cost: -cost.area.value)
        drawn = [(cost.name, cost.area.value, (cost.area.low, cost.area.high)) for cost in ranked]
        best = next((cost for cost in ranked if cost.kind != "reference"), ranked[0])
        parts += [
            tiles(_tiles(replay, best)),
            wide(ranking("area over cost, 95% interval", drawn[:_RANKED], main=best.name, chance=0.5)),
            wide(plot(replay)),
            folded("All routers in numbers", [table(COST_HEAD, _cost_rows(replay.costs), main=best.name)]),
        ]
        if rows := _ratio_rows(replay):
            parts += ["<p>minus the best head, by the edge's price</p>", table(RATIO_HEAD, rows)]
        parts.append(folded("By share of cloud calls", [table(HEAD, map(cells, replay.results))]))
    return page("Replay of recorded runs", parts)


def markdown(replays: Mapping[str, RecordedReplay]) -> str:
    """Make a Markdown page of the same tables, with links to the plots beside it."""
    lines = (line for name, replay in replays.items() for line in _section(name, replay))
    return "\n".join(("# Recorded runs", "", *lines)) + "\n"


def _section(name: str, replay: RecordedReplay) -> Iterator[str]:
    yield from (
        f"## {name}: {replay.bench.n} calls",
        "",
        verdict(replay),
        "",
        *replay.notes,
        "",
        f"![{name}]({name}.svg)",
        "",
    )
    yield from markdown_table(COST_HEAD, _cost_rows(replay.costs))
    if rows := _ratio_rows(replay):
        yield from ("", "Minus the best head, by the edge's price:", "")
        yield from markdown_table(RATIO_HEAD, rows)
    yield from ("", "By share of cloud calls:", "")
    yield from markdown_table(HEAD, [cells(result) for result in replay.results])
    yield ""


def write(replays: Mapping[str, RecordedReplay], folder: Path) -> list[Path]:
    """Write recorded.html, recorded.md and one plot per run into `folder`."""
    plots = {f"{name}.svg": plot(replay) for name, replay in replays.items()}
    return write_files({"recorded.html": html(replays), "recorded.md": markdown(replays), **plots}, folder)
