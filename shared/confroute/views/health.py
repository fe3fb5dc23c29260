"""The promise of a policy in use, and its hours, as parts of a page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from confroute.drift import Health
from confroute.views.html import Tile, counted, folded, table, tiles

_HOURS = 48


def health_parts(health: Health) -> Iterable[str]:
    """Write what `confroute.drift.health` found: the promise in words and numbers, and the last 48 hours with calls."""
    yield "<h2>Promise</h2>"
    loss, promise = health.loss, health.promise
    if promise is not None and loss.mean is not None:
        bounds = [f"between {loss.low:.3f} and {loss.high:.3f}", f"of {counted(loss.n, 'audited answer')}"]
        yield tiles(
            [
                Tile(name=f"promise of {promise.level:g}", value=health.verdict),
                Tile(name="audited loss", value=f"{loss.mean:.3f}", beside=bounds),
            ]
        )
    yield f"<p>{escape(health.words)}</p>"
    if not health.hours:
        return
    stages = [stage for stage, count in health.unanswered.items() if count]
    priced = ["USD"] if health.spent_usd is not None else []
    rows: list[tuple[str | int, ...]] = [
        (
            f"{hour.start:%m-%d %H}h",
            hour.calls,
            *(f"{n / hour.calls:.1%}" for n in (hour.cloud, *(hour.unanswered[stage] for stage in stages))),
            *([] if hour.spent_usd is None else [f"{hour.spent_usd:.4g}"]),
        )
        for hour in health.hours[-_HOURS:]
        if hour.calls
    ]
    shown = f"By the hour (the last {len(rows)} with calls)"
    yield folded(shown, [table(("UTC", "calls", "cloud", *stages, *priced), rows)])
