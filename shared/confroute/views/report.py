"""A decision log as one page: shares, failures, savings, latency, uncertainty over time, drift, and the calls worth a look."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC

import numpy as np

from confroute.decision import UNANSWERED, Decision
from confroute.drift import Health
from confroute.observe.log import Entry
from confroute.prices import Price
from confroute.types import Usage
from confroute.views.decision import CALL_HEAD, call_cells, decision_html, in_and_out, marks_of, outcome
from confroute.views.health import health_parts
from confroute.views.html import Sifted, Tile, counted, folded, page, sifted, table, tiles, wide
from confroute.views.svg import GREY, MARGIN, TOP, Line, Panel, document, time_ticks, width_of


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
    >>> [note.why for note in highlights([Entry(at=datetime.now(UTC), decision=decision)])]
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
# Calls in the table that can be filtered and sorted.
_LISTED = 2000
_LEAST_FOR_DRIFT = 40


def log_page(
    entries: Sequence[Entry],
    *,
    prices: Mapping[str, Price] | None = None,
    health: Health | None = None,
) -> str:
    """Write the HTML report of a log.

    Parameters
    ----------
    entries : sequence of Entry, oldest first
    prices : mapping of str to Price, optional
        By tier; without them no costs are shown.
    health : Health, optional
        Whether the policy that made the log keeps its promise; see `confroute.drift.health`.

    Returns
    -------
    str
        One self-contained document.
    """
    return page(f"{len(entries)} routed calls", _parts(entries, prices or {}, health))


def _parts(entries: Sequence[Entry], prices: Mapping[str, Price], health: Health | None) -> Iterable[str]:
    if not entries:
        yield "<p>The log is empty.</p>"
        return
    yield f"<p>{entries[0].at:%Y-%m-%d %H:%M} to {entries[-1].at:%Y-%m-%d %H:%M} UTC</p>"
    yield tiles(_tiles(entries, prices)) + tiles(_further_tiles(entries))
    yield folded("All totals", [_totals(entries, prices)])
    if health is not None:
        yield from health_parts(health)
    yield f"<h2>Over time</h2>{wide(over_time_svg(entries))}"
    yield from _drift(entries)
    yield "<h2>Worth a look</h2>"
    for note in highlights(entries):
        yield folded(
            f"{note.why}, {note.entry.at:%m-%d %H:%M:%S}, {outcome(note.entry.decision)}",
            [decision_html(note.entry.decision)],
        )
    yield "<h2>Calls</h2>"
    shown = entries[-_LISTED:]
    if len(shown) < len(entries):
        yield f"<p class='q'>The last {len(shown)} of {len(entries)}.</p>"
    yield sifted(("time, UTC", *CALL_HEAD), [*_rows(shown, first=len(entries) - len(shown) + 1)])


def _rows(entries: Sequence[Entry], *, first: int) -> Iterable[Sifted]:
    for number, entry in enumerate(entries, start=first):
        moment = entry.at.astimezone(UTC)
        time = f"<td data-key='{moment.timestamp():.3f}'>{moment:%m-%d %H:%M:%S}</td>"
        kinds = [outcome(entry.decision), *marks_of(entry.decision)]
        yield Sifted(cells=[time, *call_cells(number, entry.decision)], kinds=kinds)


def _tiles(entries: Sequence[Entry], prices: Mapping[str, Price]) -> Iterable[Tile]:
    counts = Counter(outcome(entry.decision) for entry in entries)
    yield from (_share_tile(name, counts[name], len(entries)) for name in ("edge", "cloud"))
    answered = [entry.decision.latency_s for entry in entries if entry.decision.stage not in UNANSWERED]
    if answered:
        median, slow = np.quantile(answered, [0.5, 0.95])
        beside = ["median of answered calls", f"95th percentile {slow:.2f}"]
        yield Tile(name="seconds", value=f"{median:.2f}", beside=beside)
    saving = _saving(entries, prices)
    if saving is not None:
        name = "USD saved" if saving.usd >= 0 else "USD more than without routing"
        beside = [f"{saving.tier} alone {_money(saving.alone_usd)}", f"routing {_money(saving.spent_usd)}"]
        value = _money(abs(saving.usd)).removesuffix(" USD")
        yield Tile(name=name, value=value, beside=[*beside, "estimated from tokens"])


def _further_tiles(entries: Sequence[Entry]) -> Iterable[Tile]:
    """What not every log has: other tiers, failures, degraded and private answers."""
    counts = Counter(outcome(entry.decision) for entry in entries)
    counts.update(mark for entry in entries for mark in marks_of(entry.decision))
    yield from (
        _share_tile(name, count, len(entries))
        for name, count in sorted(counts.items())
        if name not in {"edge", "cloud"}
    )


def _share_tile(name: str, count: int, n: int) -> Tile:
    low, high = wilson(count, n)
    beside = [f"{count} of {counted(n, 'call')}", f"95% interval {low:.1%} to {high:.1%}"]
    return Tile(name=name, value=f"{count / n:.1%}", outcome=name, beside=beside)


def wilson(count: int, n: int) -> tuple[float, float]:
    """Compute the 95 % interval of a share (Wilson 1927), for `n` of 1 or more.

    Examples
    --------
    >>> low, high = wilson(5, 10)
    >>> round(low, 3), round(high, 3)
    (0.237, 0.763)
    """
    z = 1.959964
    share, scale = count / n, 1 + z * z / n
    middle = (share + z * z / (2 * n)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def _totals(entries: Sequence[Entry], prices: Mapping[str, Price]) -> str:
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
    rows += [(f"tokens of {tier}", in_and_out(usage)) for tier, usage in used.items()]
    if prices:
        rows.append(("cost at the given prices", _money(_spent(entries, prices))))
        rows += [
            (f"of it for calls that {_was(stage, many=True)}", _money(_spent(of, prices)))
            for stage, of in ended.items()
            if of
        ]
    saving = _saving(entries, prices)
    if saving is not None:
        rows.append(_saved(saving, len(entries)))
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


def _spent(entries: Iterable[Entry], prices: Mapping[str, Price]) -> float:
    used = _used(entries)
    return sum(price.of(used.get(tier, Usage())) for tier, price in prices.items())


def _money(usd: float) -> str:
    """A sum with four decimals, or as many more as three digits of a small one need."""
    decimals = 4 if usd == 0 else max(4, 2 - math.floor(math.log10(abs(usd))))
    return f"{usd:.{decimals}f} USD"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Saving:
    """What the `calls` that were answered as the policy wanted cost, and what the dearest tier alone would have cost."""

    tier: str
    alone_usd: float
    spent_usd: float
    calls: int

    @property
    def usd(self) -> float:
        return self.alone_usd - self.spent_usd


def _saving(entries: Sequence[Entry], prices: Mapping[str, Price]) -> _Saving | None:
    """Estimate what routing saves: a kept answer would have cost its own tokens at the dearest tier's price.

    What an outage keeps from being spent is no saving.
    """
    kept = [e for e in entries if e.decision.stage not in UNANSWERED and not e.decision.degraded]
    if not kept or not prices:
        return None
    dearest = max(prices, key=lambda tier: prices[tier].input_usd + prices[tier].output_usd)
    answers = Usage()
    for entry in kept:
        steps = [
            s for s in entry.decision.steps if s.kind in ("draft", "final") and s.usage and s.error is None
        ]
        answers += steps[-1].usage if steps and steps[-1].usage else Usage()
    alone = prices[dearest].of(answers)
    return _Saving(tier=dearest, alone_usd=alone, spent_usd=_spent(kept, prices), calls=len(kept))


def _saved(saving: _Saving, calls: int) -> tuple[str, str]:
    where = (
        ""
        if saving.calls == calls
        else f", in the {saving.calls} of {calls} calls that were answered and did not degrade"
    )
    told = f"saves {_money(saving.usd)}" if saving.usd >= 0 else f"costs {_money(-saving.usd)} more"
    words = f"{saving.tier} alone, estimated from the answers' tokens{where}"
    return words, f"{_money(saving.alone_usd)}; routing {told}"


_WIDE, _HIGH = 640.0, 150.0


def over_time_svg(entries: Sequence[Entry]) -> str:
    """Draw the shares of calls per tier and of failed ones, and the median uncertainty of the main signal, by the clock.

    Every point stands for as many calls, at the time in their middle.
    """
    entries = sorted(entries, key=lambda entry: entry.at)
    start, end = entries[0].at, entries[-1].at
    seconds = (end - start).total_seconds()
    # Calls of one and the same moment stand in the middle.
    across = (0.0, seconds) if seconds else (-1.0, 1.0)
    slices = np.array_split(np.arange(len(entries)), min(_BUCKETS, len(entries)))
    middles = [(entries[part[len(part) // 2]].at - start).total_seconds() for part in slices]
    outcomes = [outcome(entry.decision) for entry in entries]
    ends = {*outcomes}
    names = sorted(ends - {"edge", *UNANSWERED}) + [stage for stage in UNANSWERED if stage in ends]
    shares = [[float(np.mean([outcomes[i] == name for i in part])) for part in slices] for name in names]
    lines = [
        Line.of(name, [*zip(middles, line, strict=True)]) for name, line in zip(names, shares, strict=True)
    ]
    high = min(1.0, 1.15 * max([0.1, *(value for line in shares for value in line)]))
    times = time_ticks(start, end, most=round(_WIDE / 80))
    words = f"UTC, from {start.astimezone(UTC):%Y-%m-%d %H:%M}"
    panel = Panel(MARGIN, TOP, _HIGH, high=high, width=_WIDE, across=across)
    parts = [*panel.axes("Not answered by the edge", words, "share of calls", percent="y", times=times)]
    parts += panel.lines(lines)
    bottom = TOP + _HIGH + 46
    main = Counter(e.decision.signal for e in entries if e.decision.signal).most_common(1)
    if main and main[0][0]:
        found = _uncertainty(entries, slices, middles, main[0][0])
        lines += found
        high = 1.2 * max([1e-9, *(value for line in found for _, value in line.points)])
        panel = Panel(MARGIN, bottom + TOP, _HIGH, high=high, width=_WIDE, across=across)
        parts += panel.axes(main[0][0], words, "uncertainty", times=times)
        parts += panel.lines(found)
        bottom += TOP + _HIGH + 46
    room = max([0.0, *(width_of(line.words) for line in lines)])
    return document(MARGIN + _WIDE + 50 + room, bottom, parts, label="routes and uncertainty over time")


def _uncertainty(
    entries: Sequence[Entry],
    slices: Sequence[np.ndarray[tuple[int], np.dtype[np.intp]]],
    middles: Sequence[float],
    signal: str,
) -> list[Line]:
    values = [entry.decision.signals.get(signal) for entry in entries]
    medians = [
        (x, float(np.median(measured)))
        for x, part in zip(middles, slices, strict=True)
        if (measured := [m.uncertainty for i in part if (m := values[i]) is not None])
    ]
    lines = [Line(words="median", points=medians)] if medians else []
    thresholds = [
        e.decision.threshold
        for e in entries
        if e.decision.signal == signal and e.decision.threshold is not None
    ]
    if thresholds:
        last = thresholds[-1]
        seconds = (entries[-1].at - entries[0].at).total_seconds()
        points = [(0.0, last), (seconds, last)]
        lines.append(Line(words=f"threshold {last:.4g}", points=points, colour=GREY, dash="4 3"))
    return lines


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
