"""The replay as text, SVG, HTML and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

import numpy as np

from confroute.bench.methods import BEST, IN_DOMAIN
from confroute.bench.preference import Comparison, Interval, Level
from confroute.bench.protocol import Result, recovered
from confroute.bench.run import Replay
from confroute.display import register
from confroute.views.html import fragment, page, table
from confroute.views.svg import COLOURS, DASHES, GREY, MARGIN, Panel, document, legend

HEAD = (
    "method",
    "AUC",
    "APGR",
    "95 % interval",
    "APGR, ten bins",
    "CPT 20",
    "CPT 50",
    "CPT 80",
    "first crossing 20/50/80",
    "USD a thousand prompts at CPT 20/50/80",
)
COMPARED = (
    "against",
    "gap recovered, difference",
    "relative",
    "win rate",
    "SD of quality",
    "10th percentile",
    "1 or more below the cloud",
    "relative",
)
LEVELS = ("router", "gap recovered", "SD of quality", "10th percentile", "1 or more below the cloud")
_POINTS = 60
_DRAWN = ("random", "oracle", "prompt length", "RouteLLM SW", "RouteLLM MF", BEST, IN_DOMAIN)


def cells(result: Result) -> list[str]:
    """One method's row."""

    def three(values: tuple[float, ...], form: str) -> str:
        return " / ".join(format(value, form) for value in values)

    low, high = result.apgr_ci
    return [
        result.name,
        f"{result.auc:.4g}",
        f"{result.apgr:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{result.apgr_binned:.3f}",
        *(f"{value:.1f}" for value in result.cpt),
        three(result.cpt_first, ".1f"),
        three(result.usd, ".3g"),
    ]


def compared(comparison: Comparison) -> list[str]:
    """One comparison's row."""

    def shown(interval: Interval) -> str:
        return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"

    rate = comparison.win_rate
    return [
        comparison.other,
        shown(comparison.preference),
        shown(comparison.relative),
        f"{rate.value:.3f} ({rate.low:.3f} to {rate.high:.3f})",
        shown(comparison.spread),
        shown(comparison.tenth),
        shown(comparison.below_cloud),
        shown(comparison.relative_below),
    ]


def level_cells(one: Level) -> list[str]:
    """What one router gives, as a row."""
    parts = (one.preference, one.spread, one.tenth, one.below_cloud)
    return [one.name, *(f"{part.value:.3f} ({part.low:.3f} to {part.high:.3f})" for part in parts)]


def plot(found: Replay) -> str:
    """Gap recovered over the share of cloud calls, as SVG."""
    size, entries = 360.0, []
    drawn = [result for result in found.results if result.name in _DRAWN]
    curves = [recovered(result.scores[0], found.bench) for result in drawn]
    panel = Panel(MARGIN, 30, size, high=max(1.0, *(float(curve.max()) for curve in curves)))
    parts = [*panel.axes(found.bench.name, "share of cloud calls", "gap recovered")]
    for at, (result, curve) in enumerate(zip(drawn, curves, strict=True)):
        grey = result.name in ("random", "oracle")
        colour, dash = (GREY, "2 3") if grey else (COLOURS[at % len(COLOURS)], DASHES[at % len(DASHES)])
        share = np.linspace(0, 1, _POINTS)
        heights = np.interp(share, np.linspace(0, 1, curve.size), curve)
        # A curve may dip below the edge alone; the axis starts at 0.
        points = zip(share.tolist(), np.maximum(heights, 0).tolist(), strict=True)
        parts.append(panel.line(points, colour=colour, dash=dash))
        entries.append((f"{result.name} (APGR {result.apgr:.3f})", colour, dash))
    parts += legend(entries, left=MARGIN + size + 20)
    return document(MARGIN + size + 330, size + 80, parts)


def html(found: Mapping[str, Replay]) -> str:
    """One page with the tables and plots of all benchmarks."""
    return page("Replay of RouteLLM's benchmarks", [part for one in found.values() for part in parts(one)])


def parts(one: Replay) -> Iterator[str]:
    """One benchmark's tables and plot."""
    yield f"<h2>{escape(one.bench.name)}, {one.bench.n} prompts</h2>"
    yield f"<p>{escape(trained_on(one))}</p>"
    yield table(HEAD, map(cells, one.results))
    yield plot(one)
    if one.comparisons:
        yield f"<p>{escape(BEST)} against others, half of the calls to the cloud</p>"
        yield table(COMPARED, map(compared, one.comparisons))


def markdown(found: Mapping[str, Replay]) -> str:
    """The same tables for a Markdown page, with links to the plots beside it."""
    lines = (line for name, one in found.items() for line in _section(name, one))
    return "\n".join(("# Replayed benchmarks", "", *lines)) + "\n"


def _section(name: str, one: Replay) -> Iterator[str]:
    yield from (f"## {name}: {one.bench.n} prompts", "", trained_on(one), "", f"![{name}]({name}.svg)", "")
    yield from markdown_table(HEAD, [cells(result) for result in one.results])
    yield from ("", "Half of the calls to the cloud:", "")
    yield from markdown_table(LEVELS, [level_cells(found) for found in one.levels])
    if one.comparisons:
        yield from ("", f"`{BEST}` against others, half of the calls to the cloud:", "")
        yield from markdown_table(COMPARED, [compared(comparison) for comparison in one.comparisons])
    yield ""


def markdown_table(head: tuple[str, ...], body: list[list[str]]) -> Iterator[str]:
    """Lines of a table."""
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in body)


def trained_on(one: Replay) -> str:
    """A sentence on what was trained on."""
    if one.train is None:
        return "Nothing was trained."
    return f"Trained on {len(one.train.prompts)} prompts ({one.train.source}); {one.train.removed} left out as test prompts or near-duplicates of them."


def write(found: Mapping[str, Replay], folder: Path) -> list[Path]:
    """Write replay.html, replay.md and a plot a benchmark into `folder`."""
    plots = {f"{name}.svg": plot(one) for name, one in found.items()}
    return written({"replay.html": html(found), "replay.md": markdown(found), **plots}, folder)


def written(texts: Mapping[str, str], folder: Path) -> list[Path]:
    """Write each text into its file in `folder`, which is made if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


register(Replay, html=lambda replay: fragment(parts(replay), label=f"replay of {replay.bench.name}"))
