"""Draw the pictures of the README and the documentation: what `make pictures` runs.

    python benchmarks/pictures.py [--ask]

`--ask` first asks two local models the questions of the front picture again and keeps their decisions in
docs/pictures/decisions.jsonl, seconds of this machine included; without it the kept ones are drawn. The figures of docs/results
are drawn from the tables of docs/results/replay.md. Each picture on the front pages comes in light and dark.
"""

from __future__ import annotations

import argparse
import json
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from _published import AIMS

from confroute import Decision, Router
from confroute.bench.methods import BEST
from confroute.views.decision import spans
from confroute.views.scales import ranking, timeline, zones
from confroute.views.svg import GREY, code_of, document, width_of, words_at

DOCS = Path(__file__).parents[1] / "docs"
KEPT = DOCS / "pictures" / "decisions.jsonl"
EDGE, CLOUD = "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"
QUESTIONS = ("What is the capital of France?", "What is 17 * 23? Answer with the number only.")
INK, PAPER = {"light": "#1f2328", "dark": "#e6e8eb"}, {"light": "#ffffff", "dark": "#15181c"}
WIDTH = 760
# Where the kept decisions were made; seconds are worth as much as this says.
MADE = f"{EDGE} as edge, {CLOUD} as cloud, on two CPU cores that had other work too"
PACKAGES = ("shared/confroute", "langchain_confroute", "llamaindex_confroute")


class Asked(NamedTuple):
    """A question, the answer and how it was decided."""

    question: str
    answer: str
    decision: Decision


def ask() -> None:
    """Ask both models and keep what was decided."""
    router = Router(edge=f"local:{EDGE}", cloud=f"local:{CLOUD}")
    for route in ("edge", "cloud"):  # both models are loaded before anything is timed
        router.ask("Name a colour.", route=route)
    lines = []
    for question in QUESTIONS:
        answer = router.ask(question)
        lines.append({"question": question, "answer": answer.text, "decision": answer.decision.to_dict()})
        print(f"{answer.text}\n    {answer.decision.route}: {answer.decision.reason}")
    KEPT.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def kept() -> list[Asked]:
    """The decisions of the front picture."""
    lines = map(json.loads, KEPT.read_text(encoding="utf-8").splitlines())
    return [Asked(line["question"], line["answer"], Decision.from_dict(line["decision"])) for line in lines]


def front(asked: Sequence[Asked], theme: str) -> str:
    """Two routed calls: what was asked, who answered, how sure the edge was, what it took."""
    parts, top = [], 16.0
    for one in asked:
        drawn, high = _call(one, top)
        parts += drawn
        top += high
    parts.append(words_at(16, top, MADE, quiet=True))
    return _themed(document(WIDTH, top + 12, parts, label=_in_words(asked)), theme)


def _call(one: Asked, top: float) -> tuple[list[str], float]:
    decision, code = one.decision, code_of(one.decision.route)
    limit, value = decision.threshold, decision.uncertainty
    assert limit is not None
    scale, steps = zones(limit, limit, value=value, words=decision.reason), timeline([*spans(decision)])
    said = one.answer if len(one.answer) < 84 else f"{one.answer[:80]} ..."
    parts = [
        f"<text x='16' y='{top + 14:g}' font-size='16' font-weight='650'>{_escaped(one.question)}</text>",
        code.drawn(24, top + 36),
        words_at(38, top + 40, f"{decision.route} answered: {said}", bold=True),
        words_at(38, top + 60, decision.reason, quiet=True),
        words_at(38, top + 88, "uncertainty of the draft, nats per token", quiet=True),
        _placed(scale, 30, top + 94),
        _placed(steps, 30, top + 176),
    ]
    rule = f"<line x1='16' x2='{WIDTH - 16}' y1='{{0:g}}' y2='{{0:g}}' stroke='currentColor' stroke-opacity='.2'/>"
    high = 176 + _height(steps) + 30
    return [*parts, rule.format(top + high - 18)], high


def _in_words(asked: Iterable[Asked]) -> str:
    return "; ".join(f"{one.question} {one.decision.route}: {one.decision.reason}" for one in asked)


STEPS = (
    ("try", "Router(edge, cloud)", "routes at once,", "uncalibrated"),
    ("record", "confroute record", "a few hundred", "prompts of yours"),
    ("fit", "confroute fit", "a threshold, with a", "promise or a price"),
    ("deploy", "load_policy(...)", "the same file", "in every host"),
    ("watch", "confroute watch", "is the promise", "still kept?"),
)


def journey(theme: str) -> str:
    """The way from a first try to a watched policy, and back."""
    wide, gap = 140.0, 12.0
    width = len(STEPS) * (wide + gap) - gap + 8
    parts = []
    for at, (name, typed, *words) in enumerate(STEPS):
        x = 4 + at * (wide + gap)
        tip = f"L{x + wide + 10:g} 60L{x + wide:g} 116" if at + 1 < len(STEPS) else f"L{x + wide:g} 116"
        parts.append(
            f"<path d='M{x:g} 4L{x + wide:g} 4{tip}L{x:g} 116Z' fill='currentColor' fill-opacity='.06' stroke='{GREY}' "
            "stroke-linejoin='round'/>"
        )
        parts.append(f"<text x='{x + 12:g}' y='29' font-size='17' font-weight='650'>{at + 1} {name}</text>")
        parts.append(f"<text x='{x + 12:g}' y='53' font-family='monospace' font-size='11.5'>{typed}</text>")
        parts += [words_at(x + 12, 78 + 17 * line, text, quiet=True) for line, text in enumerate(words)]
    first, last = 4 + 1.5 * wide + gap, width - 4 - wide / 2
    parts.append(
        f"<path d='M{last:g} 120V134H{first:g}V124M{first - 5:g} 129L{first:g} 121L{first + 5:g} 129' fill='none' stroke='{GREY}' "
        "stroke-width='1.6'/>"
    )
    parts.append(
        words_at((first + last) / 2, 150, "when calls or models change", anchor="middle", quiet=True)
    )
    label = "; ".join(f"{name}: {typed}" for name, typed, *_ in STEPS)
    return _themed(document(width, 160, parts, label=label), theme)


def badge(name: str, value: str) -> str:
    """A badge that no service has to serve."""
    left, right = width_of(name) * 1.05 + 14, width_of(value) * 1.05 + 14
    parts = [
        f"<rect width='{left + right:.0f}' height='22' rx='4' fill='#2f5f9e'/><rect width='{left:.0f}' height='22' rx='4' fill='#4a4f57'/>",
        f"<g fill='#fefefe'>{words_at(7, 15, name)}{words_at(left + 7, 15, value)}</g>",
    ]
    return document(round(left + right), 22, parts, label=f"{name} {value}").replace("#ffffff", "none")


def badges() -> dict[str, str]:
    """What pyproject.toml says of Python and the licence, and that the packages have types."""
    root = DOCS.parent
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = "Programming Language :: Python :: 3."
    minors = sorted(
        int(line.removeprefix(named)) for line in project["classifiers"] if line.startswith(named)
    )
    assert all((root / folder / "py.typed").is_file() for folder in PACKAGES)
    return {
        "python": badge("python", f"3.{minors[0]} to 3.{minors[-1]}"),
        "licence": badge("licence", project["license"]),
        "typed": badge("types", "included"),
    }


ROW = re.compile(
    r"^\| (?P<name>[^|]+) \| [\d.]+ \| (?P<apgr>[\d.]+) \| (?P<low>[\d.]+) to (?P<high>[\d.]+) \|", re.M
)


def tables(docs: Path = DOCS) -> dict[str, list[tuple[str, float, tuple[float, float]]]]:
    """Each benchmark's routers with APGR and interval, best first, by the tables of results/replay.md."""
    text = (docs / "results" / "replay.md").read_text(encoding="utf-8")
    found = {}
    for section in text.split("\n## ")[1:]:
        rows = [
            (row["name"], float(row["apgr"]), (float(row["low"]), float(row["high"])))
            for row in ROW.finditer(section)
        ]
        found[section.partition(":")[0]] = sorted(rows, key=lambda row: -row[1])
    return found


OVERVIEW = (BEST, "prompt length", "RouteLLM SW", "RouteLLM MF", "random")


def overview(docs: Path = DOCS) -> str:
    """Our best router beside the best published one, RouteLLM's code, the length of the prompt and chance."""
    parts, top, width = [], 0.0, 0.0
    for bench, rows in tables(docs).items():
        best = next(value for name, _, which, value in AIMS if name == bench and "published best" in _)
        chosen = [row for row in rows if row[0] in OVERVIEW]
        shown = sorted([*chosen, ("best published", best, None)], key=lambda row: -row[1])
        drawn = ranking(f"{bench}: APGR, 95% interval", shown, main=BEST, chance=0.5)
        parts.append(_placed(drawn, 0, top))
        top += _height(drawn) + 12
        width = max(width, _size(drawn, "width"))
    return document(width, top, parts, label="APGR of our best router beside others, by benchmark")


def _placed(drawn: str, x: float, y: float) -> str:
    return f"<g transform='translate({x:g} {y:g})'>{drawn.replace('#ffffff', 'none')}</g>"


def _size(drawn: str, which: str) -> float:
    found = re.search(rf"{which}='([\d.]+)'", drawn)
    assert found is not None
    return float(found[1])


def _height(drawn: str) -> float:
    return _size(drawn, "height")


def _escaped(words: str) -> str:
    return words.replace("&", "&amp;").replace("<", "&lt;")


def _themed(drawn: str, theme: str) -> str:
    """The same on a dark ground; nested drawings inherit the ink."""
    return drawn.replace(INK["light"], INK[theme]).replace(PAPER["light"], PAPER[theme])


def pictures() -> dict[str, str]:
    """Every picture by its path in docs/."""
    asked, drawn = kept(), {"results/overview.svg": overview()}
    drawn |= {f"pictures/badge-{name}.svg": badge for name, badge in badges().items()}
    for theme in INK:
        drawn[f"pictures/decision-{theme}.svg"] = front(asked, theme)
        drawn[f"pictures/journey-{theme}.svg"] = journey(theme)
    return drawn


def main() -> None:
    """Draw all of them, of newly asked decisions on request."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ask", action="store_true")
    if parser.parse_args().ask:
        ask()
    for name, drawn in pictures().items():
        (DOCS / name).write_text(drawn, encoding="utf-8")
        print(f"docs/{name}")


if __name__ == "__main__":
    main()
