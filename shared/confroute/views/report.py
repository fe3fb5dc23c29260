"""A decision log as one page: shares, failures, savings, latency, uncertainty over time, drift, and the calls worth a look."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from html import escape

import numpy as np

from confroute.decision import UNANSWERED, Decision
from confroute.drift import Health
from confroute.observe.log import Entry
from confroute.types import Usage
from confroute.views.decision import decision_html, outcome
from confroute.views.health import health_parts
from confroute.views.html import page, table
from confroute.views.svg import COLOURS, DASHES, GREY, MARGIN, Panel, document, legend


@dataclass(frozen=True, slots=True, kw_only=True)
class Highlight:
    """A call worth a look, and why."""

    why: str
    entry: Entry


def highlights(entries: Sequence[Entry], *, count: int = 20) -> list[Highlight]:
    """Choose at most `count` calls: failures first, then those closest to a threshold, the least certain ones kept, the slowest.

    Examples
    --------
    >>> from datetime import datetime, timezone
    >>> decision = Decision(route="edge", stage="fallback", reason="cloud failed", degraded=True)
    >>> [note.why for note in highlights([Entry(at=datetime.now(timezone.utc), decision=decision)])]
    ['degraded answer']
    """
    quarter = max(1, count // 4)
    taken: dict[int, Highlight] = {}
    for why, key, most in (
        ("degraded answer", lambda d: 1.0 if d.degraded else None, 2 * quarter),
        ("failed", lambda d: 1.0 if d.stage == "failed" else None, quarter),
        ("cancelled", lambda d: 1.0 if d.stage == "cancelled" else None, max(1, quarter // 2)),
        ("abandoned", lambda d: 1.0 if d.stage == "abandoned" else None, max(1, quarter // 2)),
        ("after a failure", lambda d: 1.0 if d.stage == "fallback" else None, quarter),
        ("close to the threshold", _closeness, quarter),
        ("kept though doubtful", _doubt, quarter),
        ("slow", lambda d: d.latency_s or None, count),
    ):
        for at in _best(entries, key, most):
            if len(taken) < count:
                taken.setdefault(at, Highlight(why=why, entry=entries[at]))
    return list(taken.values())


def _best(entries: Sequence[Entry], key: Callable[[Decision], float | None], most: int) -> list[int]:
    keyed = [(value, at) for at, entry in enumerate(entries) if (value := key(entry.decision)) is not None]
    return [at for _, at in sorted(keyed, key=lambda pair: (-pair[0], -pair[1]))[:most]]


def _closeness(decision: Decision) -> float | None:
    if decision.uncertainty is None or decision.threshold is None:
        return None
    return -abs(decision.uncertainty - decision.threshold) / max(abs(decision.threshold), 1e-9)


def _doubt(decision: Decision) -> float | None:
    if decision.uncertainty is None or not decision.threshold or decision.uncertainty > decision.threshold:
        return None
    return decision.uncertainty / decision.threshold


_BUCKETS = 24
_LEAST_FOR_DRIFT = 40


def log_page(
    entries: Sequence[Entry],
    *,
    prices_usd: dict[str, tuple[float, float]] | None = None,
    health: Health | None = None,
) -> str:
    """Write the HTML report of a log.

    Parameters
    ----------
    entries : sequence of Entry, oldest first
    prices_usd : dict, optional
        By tier, USD per million input and output tokens; without them no costs are shown.
    health : Health, optional
        Whether the policy that made the log keeps its promise; see `confroute.drift.health`.

    Returns
    -------
    str
        One self-contained document.
    """
    return page(f"{len(entries)} routed calls", _parts(entries, prices_usd or {}, health))


def _parts(
    entries: Sequence[Entry], prices: dict[str, tuple[float, float]], health: Health | None
) -> Iterable[str]:
    if not entries:
        yield "<p>The log is empty.</p>"
        return
    yield f"<p>{entries[0].at:%Y-%m-%d %H:%M} to {entries[-1].at:%Y-%m-%d %H:%M} UTC</p>"
    yield _totals(entries, prices)
    if health is not None:
        yield from health_parts(health)
    yield "<h2>Over time</h2>"
    yield over_time_svg(entries)
    yield from _drift(entries)
    yield "<h2>Worth a look</h2>"
    for note in highlights(entries):
        yield (
            f"<details><summary>{escape(note.why)}, {note.entry.at:%m-%d %H:%M:%S}</summary>"
            f"{decision_html(note.entry.decision)}</details>"
        )


def _totals(entries: Sequence[Entry], prices: dict[str, tuple[float, float]]) -> str:
    answered = [entry for entry in entries if entry.decision.stage not in UNANSWERED]
    ended = {stage: [e for e in entries if e.decision.stage == stage] for stage in UNANSWERED}
    routes = Counter(entry.decision.route for entry in answered)
    stages = Counter(entry.decision.stage for entry in entries)
    degraded = sum(entry.decision.degraded for entry in entries)
    rows: list[tuple[str, str]] = [
        (
            "answered by",
            ", ".join(f"{name} {_share(n, entries)}" for name, n in routes.most_common()) or "none",
        ),
        *((stage, _share(len(of), entries)) for stage, of in ended.items() if of or stage == "failed"),
        ("settled by", ", ".join(f"{name} {count}" for name, count in stages.most_common())),
        *_seconds("seconds per answered call", answered),
        *(row for stage, of in ended.items() for row in _seconds(f"seconds until a call {_was(stage)}", of)),
        ("degraded", _share(degraded, entries)),
        ("private", str(sum(entry.decision.private for entry in entries))),
    ]
    used = _used(entries)
    rows += [(f"tokens of {tier}", f"{u.input_tokens} in, {u.output_tokens} out") for tier, u in used.items()]
    if prices:
        rows.append(("cost at the given prices", _money(_spent(entries, prices))))
        rows += [
            (f"of it for calls that {_was(stage, many=True)}", _money(_spent(of, prices)))
            for stage, of in ended.items()
            if of
        ]
        rows += _saved([entry for entry in answered if not entry.decision.degraded], prices, len(entries))
    return table(("", ""), rows)


def _was(stage: str, *, many: bool = False) -> str:
    return stage if stage == "failed" else f"{'were' if many else 'was'} {stage}"


def _share(count: int, entries: Sequence[Entry]) -> str:
    return f"{count / len(entries):.1%} ({count})"


def _seconds(name: str, entries: Sequence[Entry]) -> Iterable[tuple[str, str]]:
    if entries:
        seconds = np.array([entry.decision.latency_s for entry in entries])
        yield name, f"median {np.median(seconds):.2f}, 95th percentile {np.quantile(seconds, 0.95):.2f}"


def _used(entries: Iterable[Entry]) -> dict[str, Usage]:
    used: dict[str, Usage] = {}
    for entry in entries:
        for tier, usage in entry.decision.usage.items():
            used[tier] = used.get(tier, Usage()) + usage
    return used


def _usd(usage: Usage, price: tuple[float, float]) -> float:
    return (usage.input_tokens * price[0] + usage.output_tokens * price[1]) / 1e6


def _spent(entries: Iterable[Entry], prices: dict[str, tuple[float, float]]) -> float:
    used = _used(entries)
    return sum(_usd(used.get(tier, Usage()), price) for tier, price in prices.items())


def _money(usd: float) -> str:
    """A sum with four decimals, or as many more as three digits of a small one need."""
    decimals = 4 if usd == 0 else max(4, 2 - math.floor(math.log10(abs(usd))))
    return f"{usd:.{decimals}f} USD"


def _saved(
    entries: Sequence[Entry], prices: dict[str, tuple[float, float]], calls: int
) -> list[tuple[str, str]]:
    """What routing saves, estimated: a kept answer would have cost its own tokens at the dearest tier's price.

    `entries` are the calls that were answered as the policy wanted: what an outage keeps from being spent is no saving.
    """
    if not entries:
        return []
    dearest = max(prices, key=lambda tier: sum(prices[tier]))
    answers = Usage()
    for entry in entries:
        steps = [
            s for s in entry.decision.steps if s.kind in ("draft", "final") and s.usage and s.error is None
        ]
        answers += steps[-1].usage if steps and steps[-1].usage else Usage()
    always = _usd(answers, prices[dearest])
    saved = always - _spent(entries, prices)
    where = (
        ""
        if len(entries) == calls
        else f", in the {len(entries)} of {calls} calls that were answered and did not degrade"
    )
    return [
        (
            f"{dearest} alone, estimated from the answers' tokens{where}",
            f"{_money(always)}; routing {'saves' if saved >= 0 else 'costs'} {_money(abs(saved))}{' more' if saved < 0 else ''}",
        )
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Clock:
    """The time axis of a log."""

    start: datetime
    seconds: float

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> _Clock:
        start = entries[0].at.astimezone(timezone.utc)
        return cls(start=start, seconds=(entries[-1].at - start).total_seconds())

    def place(self, at: datetime) -> float:
        """From 0 to 1; calls of one and the same moment stand in the middle."""
        return (at - self.start).total_seconds() / self.seconds if self.seconds else 0.5

    @property
    def name(self) -> str:
        return f"UTC, from {self.start:%Y-%m-%d %H:%M}"

    @property
    def ticks(self) -> list[str]:
        """Five times in equal distances, as fine as the log is long."""
        form = "%H:%M:%S" if self.seconds < 1200 else "%H:%M" if self.seconds < 86_400 else "%m-%d %Hh"
        times = [self.start + timedelta(seconds=share * self.seconds) for share in (0, 0.25, 0.5, 0.75, 1)]
        return [f"{time:{form}}" for time in times]


def over_time_svg(entries: Sequence[Entry]) -> str:
    """Draw the shares of calls per tier and of failed ones, and the median uncertainty of the main signal, by the clock.

    Every point stands for as many calls, at the time in their middle.
    """
    entries = sorted(entries, key=lambda entry: entry.at)
    slices = np.array_split(np.arange(len(entries)), min(_BUCKETS, len(entries)))
    clock = _Clock.of(entries)
    middles = [clock.place(entries[part[len(part) // 2]].at) for part in slices]
    size = 260.0
    shares = Panel(MARGIN, 30, size)
    parts = [*shares.axes("Not answered by the edge", clock.name, "share of calls", times=clock.ticks)]
    drawn, ends = [], {outcome(entry.decision) for entry in entries}
    for at, route in enumerate(sorted(ends - {"edge", *UNANSWERED}) + [s for s in UNANSWERED if s in ends]):
        line = [float(np.mean([outcome(entries[i].decision) == route for i in part])) for part in slices]
        colour, dash = COLOURS[at % len(COLOURS)], DASHES[at % len(DASHES)]
        parts.append(shares.line(zip(middles, line, strict=True), colour=colour, dash=dash))
        drawn.append((route, colour, dash))
    below = size + 82
    parts += legend(drawn, left=MARGIN, top=below)
    signal = Counter(e.decision.signal for e in entries if e.decision.signal).most_common(1)
    if signal and signal[0][0]:
        parts += _uncertainty(entries, slices, middles, signal[0][0], clock, left=2 * MARGIN + size + 20)
    return document(2 * (MARGIN + size) + 60, below + 18 * max(2, len(drawn)), parts)


def _uncertainty(
    entries: Sequence[Entry],
    slices: Sequence[np.ndarray[tuple[int], np.dtype[np.intp]]],
    middles: Sequence[float],
    signal: str,
    clock: _Clock,
    *,
    left: float,
) -> Iterable[str]:
    values = [entry.decision.signals.get(signal) for entry in entries]
    medians = [
        (x, float(np.median(measured)))
        for x, part in zip(middles, slices, strict=True)
        if (measured := [m.uncertainty for i in part if (m := values[i]) is not None])
    ]
    thresholds = [
        e.decision.threshold
        for e in entries
        if e.decision.signal == signal and e.decision.threshold is not None
    ]
    high = max([*(value for _, value in medians), *thresholds[-1:], 1e-9]) * 1.2
    panel = Panel(left, 30, 260.0, high=high)
    yield from panel.axes(signal, clock.name, "uncertainty", times=clock.ticks)
    yield panel.line(medians, colour=COLOURS[0])
    words = [("median", COLOURS[0], "")]
    if thresholds:
        yield panel.line([(0, thresholds[-1]), (1, thresholds[-1])], colour=GREY, dash="4 3")
        words.append(("threshold", GREY, "4 3"))
    yield from legend(words, left=left, top=panel.top + panel.size + 52)


def _drift(entries: Sequence[Entry]) -> Iterable[str]:
    """Compare the first and the second half of the log: the largest gap of their distributions, signal by signal."""
    names = sorted({name for entry in entries for name in entry.decision.signals})
    rows: list[tuple[str, int, float, float, str]] = []
    for name in names:
        values = np.array([m.uncertainty for e in entries if (m := e.decision.signals.get(name)) is not None])
        if values.size < _LEAST_FOR_DRIFT:
            continue
        first, second = np.array_split(values, 2)
        gap = largest_gap(first, second)
        # Smirnov's 5 % point for two samples.
        limit = 1.358 * ((first.size + second.size) / (first.size * second.size)) ** 0.5
        rows.append((name, values.size, gap, limit, "changed" if gap > limit else "no sign of change"))
    if rows:
        yield "<h2>First half against second half</h2>"
        yield table(("signal", "n", "largest gap", "5 % limit", ""), rows)


def largest_gap(
    first: np.ndarray[tuple[int], np.dtype[np.float64]],
    second: np.ndarray[tuple[int], np.dtype[np.float64]],
) -> float:
    """Compute the Kolmogorov-Smirnov statistic: the largest distance of two empirical distributions, in [0, 1].

    Examples
    --------
    >>> largest_gap(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    1.0
    """
    every = np.concatenate([first, second])
    below = [np.searchsorted(np.sort(part), every, side="right") / part.size for part in (first, second)]
    return float(np.abs(below[0] - below[1]).max())
