"""Which decisions of a log are worth a person's look."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confroute.decision import Decision
from confroute.log import Entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Notable:
    """An entry and why it was chosen."""

    why: str
    entry: Entry


def notable(entries: Sequence[Entry], *, count: int = 20) -> list[Notable]:
    """At most `count` entries: failures first, then the closest to a threshold, the most doubtful kept, the slowest.

    Examples
    --------
    >>> from datetime import datetime, timezone
    >>> decision = Decision(route="edge", stage="fallback", reason="cloud failed", degraded=True)
    >>> [note.why for note in notable([Entry(at=datetime.now(timezone.utc), decision=decision)])]
    ['degraded answer']
    """
    quarter = max(1, count // 4)
    taken: dict[int, Notable] = {}
    for why, key, most in (
        ("degraded answer", lambda d: 1.0 if d.degraded else None, 2 * quarter),
        ("failed", lambda d: 1.0 if d.stage == "failed" else None, quarter),
        ("after a failure", lambda d: 1.0 if d.stage == "fallback" else None, quarter),
        ("close to the threshold", _closeness, quarter),
        ("kept though doubtful", _doubt, quarter),
        ("slow", lambda d: d.latency_s or None, count),
    ):
        for at in _best(entries, key, most):
            if len(taken) < count:
                taken.setdefault(at, Notable(why=why, entry=entries[at]))
    return list(taken.values())


def _best(entries: Sequence[Entry], key: Callable[[Decision], float | None], most: int) -> list[int]:
    found = [(value, at) for at, entry in enumerate(entries) if (value := key(entry.decision)) is not None]
    return [at for _, at in sorted(found, key=lambda pair: (-pair[0], -pair[1]))[:most]]


def _closeness(decision: Decision) -> float | None:
    if decision.uncertainty is None or decision.threshold is None:
        return None
    return -abs(decision.uncertainty - decision.threshold) / max(abs(decision.threshold), 1e-9)


def _doubt(decision: Decision) -> float | None:
    if decision.uncertainty is None or not decision.threshold or decision.uncertainty > decision.threshold:
        return None
    return decision.uncertainty / decision.threshold
