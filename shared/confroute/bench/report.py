"""Reports the replay of RouteLLM's benchmarks as SVG, HTML and Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

import numpy as np

from confroute.bench.methods import BEST, IN_DOMAIN
from confroute.bench.preference import Interval, Level, RouterComparison
from confroute.bench.protocol import Result, recovery_curve
from confroute.bench.run import Replay
from confroute.display import register
from confroute.views.html import Tile, folded, fragment, page, table, tiles, wide
from confroute.views.scales import ranking
from confroute.views.svg import COLOURS, DASHES, GREY, MARGIN, TOP, Line, Panel, document, width_of

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
    share = np.linspace(0, 1, _POINTS)
    lines = []
    for result in (result for result in replay.results if result.name in _PLOTTED):
        curve = recovery_curve(result.scores[0], replay.bench)
        # A curve may fall below the edge alone, but the axis starts at 0.
        heights = np.maximum(np.interp(share, np.linspace(0, 1, curve.size), curve), 0)
        lines.append(
            (
                result.name,
                f"{result.name} {result.apgr:.3f}",
                [*zip(share.tolist(), heights.tolist(), strict=True)],
            )
        )
    drawn = [
        compared(at, words, points, kind=name if name in REFERENCES else "", main=name == BEST)
        for at, (name, words, points) in enumerate(lines)
    ]
    return recovery_svg(replay.bench.name, "share of cloud calls", drawn)


REFERENCES = {"random": ("2 3", 1.4), "oracle": ("10 3 2 3", 2.2)}


def compared(
    at: int, words: str, points: list[tuple[float, float]], *, kind: str, main: bool = False
) -> Line:
    """The line of the router at place `at`; random and oracle are grey, each with a dash of its own."""
    if kind:
        dash, width = REFERENCES[kind]
        return Line(words=words, points=points, colour=GREY, dash=dash, width=width)
    colour, dash = COLOURS[at % len(COLOURS)], DASHES[at % len(DASHES)]
    return Line(
        words=words, points=points, colour=colour, dash="" if main else dash, width=2.8 if main else 1.6
    )


def recovery_svg(title: str, words: str, lines: Sequence[Line]) -> str:
    """Draw the share of the quality gap that routers recover over what that takes, each named with its area."""
    high = max([1.0, *(value for line in lines for _, value in line.points)])
    panel = Panel(MARGIN, TOP, 360, high=high, width=520)
    parts = [*panel.axes(title, words, "gap recovered", percent="xy"), *panel.lines(lines)]
    room = max([0.0, *(width_of(line.words) for line in lines)])
    return document(MARGIN + 520 + 50 + room, TOP + 360 + 46, parts, label=f"gap recovered on {title}")


def ranked_svg(rows: Sequence[tuple[str, float, tuple[float, float]]]) -> str:
    """Draw every router's APGR with its interval; the best one that does not know the answers stands out."""
    main = next((name for name, *_ in rows if name not in REFERENCES), "")
    return ranking("APGR, 95% interval", rows, main=main, chance=0.5)


def html(replays: Mapping[str, Replay]) -> str:
    """Make one page with the tables and plots of all benchmarks."""
    body = [part for replay in replays.values() for part in parts(replay)]
    return page("Replay of RouteLLM's benchmarks", body)


def parts(replay: Replay) -> Iterator[str]:
    """Yield the tables and the plot of one benchmark, as HTML."""
    yield f"<h2>{escape(replay.bench.name)}, {replay.bench.n} prompts</h2>"
    yield f"<p>{escape(training_sentence(replay))}</p>"
    ranked = sorted(replay.results, key=lambda result: -result.apgr)
    own = [result for result in ranked if result.name not in REFERENCES]
    if own:
        best = own[0]
        low, high = best.apgr_ci
        yield tiles(
            [
                Tile(
                    name="APGR of the best router",
                    value=f"{best.apgr:.3f}",
                    beside=[
                        f"{best.name}, of {len(own)}",
                        f"95% interval {low:.3f} to {high:.3f}",
                        "chance 0.5",
                    ],
                ),
                Tile(
                    name="cloud calls for half of the gap",
                    value=f"{best.cpt[1]:.1f}%",
                    beside=["at random 50%"],
                ),
            ]
        )
    yield wide(ranked_svg([(one.name, one.apgr, one.apgr_ci) for one in ranked]))
    yield wide(plot(replay))
    yield folded("All routers in numbers", [table(HEAD, map(cells, replay.results))])
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
        f"![gap recovered on {name}]({name}.svg)",
        "",
        f"![every router on {name}]({name}-routers.svg)",
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
    """Write replay.html, replay.md and two plots per benchmark, its curves and its routers, into `folder`."""
    plots = {f"{name}.svg": plot(replay) for name, replay in replays.items()}
    for name, replay in replays.items():
        ranked = sorted(replay.results, key=lambda result: -result.apgr)
        plots[f"{name}-routers.svg"] = ranked_svg([(one.name, one.apgr, one.apgr_ci) for one in ranked])
    return write_files({"replay.html": html(replays), "replay.md": markdown(replays), **plots}, folder)


def write_files(texts: Mapping[str, str], folder: Path) -> list[Path]:
    """Write each text into its file in `folder`, which is created if needed."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


register(Replay, html=lambda replay: fragment(parts(replay), label=f"replay of {replay.bench.name}"))
