"""The promise of a policy in use, and its hours, as parts of a page."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from confroute.drift import Health
from confroute.views.html import table

_HOURS = 48


def health_parts(health: Health) -> Iterable[str]:
    """Write what `confroute.drift.health` found: the promise in words and numbers, and the last 48 hours with calls."""
    yield "<h2>Promise</h2>"
    yield f"<p>{escape(health.words)}</p>"
    if not health.hours:
        return
    stages = [stage for stage, count in health.unanswered.items() if count]
    priced = ["USD"] if health.spent_usd is not None else []
    rows = [
        (
            f"{hour.start:%m-%d %H}h",
            hour.calls,
            hour.cloud / hour.calls,
            *(hour.unanswered[stage] / hour.calls for stage in stages),
            *([hour.spent_usd] if priced else []),
        )
        for hour in health.hours[-_HOURS:]
    ]
    yield "<h2>By the hour</h2>"
    yield table(("UTC", "calls", "cloud", *stages, *priced), rows)
    if len(health.hours) > _HOURS:
        yield f"<p class='q'>the last {_HOURS} of {len(health.hours)} hours with calls</p>"
