"""Reports the replay of RouteLLM's benchmarks as SVG, HTML and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape
from pathlib import Path

import numpy as np

from confroute.bench.methods import BEST, IN_DOMAIN
from confroute.bench.preference import Interval, Level, RouterComparison
from confroute.bench.protocol import Result, recovery_curve
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
    "USD per thousand prompts at CPT 20/50/80",
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
_PLOTTED = ("random", "oracle", "prompt length", "RouteLLM SW", "RouteLLM MF", BEST, IN_DOMAIN)


def cells(result: Result) -> list[str]:
    """The cells of one method's row."""

    def joined(values: tuple[float, ...], form: str) -> str:
        return " / ".join(format(value, form) for value in values)

    low, high = result.apgr_ci
    return [
        result.name,
        f"{result.auc:.4g}",
        f"{result.apgr:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{result.apgr_binned:.3f}",
        *(f"{value:.1f}" for value in result.cpt),
        joined(result.cpt_first, ".1f"),
        joined(result.usd, ".3g"),
    ]


def comparison_cells(comparison: RouterComparison) -> list[str]:
    """The cells of one comparison's row."""

    def with_interval(interval: Interval) -> str:
        return f"{interval.value:+.3f} ({interval.low:+.3f} to {interval.high:+.3f})"

    rate = comparison.win_rate
    return [
        comparison.other,
        with_interval(comparison.preference),
        with_interval(comparison.relative),
        f"{rate.value:.3f} ({rate.low:.3f} to {rate.high:.3f})",
        with_interval(comparison.spread),
        with_interval(comparison.tenth),
        with_interval(comparison.below_cloud),
        with_interval(comparison.relative_below),
    ]


def level_cells(level: Level) -> list[str]:
    """The cells of one router's row at a share of cloud calls."""
    measures = (level.preference, level.spread, level.tenth, level.below_cloud)
    return [level.name, *(f"{one.value:.3f} ({one.low:.3f} to {one.high:.3f})" for one in measures)]


def plot(replay: Replay) -> str:
    """Plot the gap recovered over the share of cloud calls, as SVG."""
    size, entries = 360.0, []
    plotted = [result for result in replay.results if result.name in _PLOTTED]
    curves = [recovery_curve(result.scores[0], replay.bench) for result in plotted]
    panel = Panel(MARGIN, 30, size, high=max(1.0, *(float(curve.max()) for curve in curves)))
    parts = [*panel.axes(replay.bench.name, "share of cloud calls", "gap recovered")]
    for at, (result, curve) in enumerate(zip(plotted, curves, strict=True)):
        grey = result.name in ("random", "oracle")
        colour, dash = (GREY, "2 3") if grey else (COLOURS[at % len(COLOURS)], DASHES[at % len(DASHES)])
        share = np.linspace(0, 1, _POINTS)
        heights = np.interp(share, np.linspace(0, 1, curve.size), curve)
        # A curve may fall below the edge alone, but the axis starts at 0.
        points = zip(share.tolist(), np.maximum(heights, 0).tolist(), strict=True)
        parts.append(panel.line(points, colour=colour, dash=dash))
        entries.append((f"{result.name} (APGR {result.apgr:.3f})", colour, dash))
    parts += legend(entries, left=MARGIN + size + 20)
    return document(MARGIN + size + 330, size + 80, parts)


def html(replays: Mapping[str, Replay]) -> str:
    """Make one page with the tables and plots of all benchmarks."""
    body = [part for replay in replays.values() for part in parts(replay)]
    return page("Replay of RouteLLM's benchmarks", body)


def parts(replay: Replay) -> Iterator[str]:
    """Yield the tables and the plot of one benchmark, as HTML."""
    yield f"<h2>{escape(replay.bench.name)}, {replay.bench.n} prompts</h2>"
    yield f"<p>{escape(training_sentence(replay))}</p>"
    yield table(HEAD, map(cells, replay.results))
    yield plot(replay)
    if replay.comparisons:
        yield f"<p>{escape(BEST)} against others, half of the calls to the cloud</p>"
        yield table(COMPARED, map(comparison_cells, replay.comparisons))


def markdown(replays: Mapping[str, Replay]) -> str:
    """Make a Markdown page of the same tables, with links to the plots beside it."""
    lines = (line for name, replay in replays.items() for line in _section(name, replay))
    return "\n".join(("# Replayed benchmarks", "", *lines)) + "\n"


def _section(name: str, replay: Replay) -> Iterator[str]:
    yield from (
        f"## {name}: {replay.bench.n} prompts",
        "",
        training_sentence(replay),
        "",
        f"![{name}]({name}.svg)",
        "",
    )
    yield from markdown_table(HEAD, [cells(result) for result in replay.results])
    yield from ("", "Half of the calls to the cloud:", "")
    yield from markdown_table(LEVELS, [level_cells(level) for level in replay.levels])
    if replay.comparisons:
        yield from ("", f"`{BEST}` against others, half of the calls to the cloud:", "")
        rows = [comparison_cells(comparison) for comparison in replay.comparisons]
        yield from markdown_table(COMPARED, rows)
    yield ""


def markdown_table(head: tuple[str, ...], body: list[list[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield "| " + " | ".join(head) + " |"
    yield "|---" * len(head) + "|"
    yield from ("| " + " | ".join(row) + " |" for row in body)


def training_sentence(replay: Replay) -> str:
    """Describe the training data in a sentence."""
    if replay.train is None:
        return "Nothing was trained."
    return f"Trained on {len(replay.train.prompts)} prompts ({replay.train.source}); {replay.train.removed} left out as test prompts or near-duplicates of them."


def write(replays: Mapping[str, Replay], folder: Path) -> list[Path]:
    """Write replay.html, replay.md and one plot per benchmark into `folder`."""
    plots = {f"{name}.svg": plot(replay) for name, replay in replays.items()}
    return write_files({"replay.html": html(replays), "replay.md": markdown(replays), **plots}, folder)


def write_files(texts: Mapping[str, str], folder: Path) -> list[Path]:
    """Write each text into its file in `folder`, which is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


register(Replay, html=lambda replay: fragment(parts(replay), label=f"replay of {replay.bench.name}"))
