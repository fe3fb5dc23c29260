"""What the reader of a fit should know, in words."""

from __future__ import annotations

import numpy as np

from confroute.fitting.choice import Choice
from confroute.fitting.front import ParetoFront
from confroute.fitting.replay import Expected
from confroute.fitting.table import Array, Table
from confroute.signals import Combined, Recorded


def left_out(table: Table, columns: tuple[str, ...]) -> list[str]:
    """Columns that were no candidates."""
    out = [name for name in table.columns if name not in columns]
    if not out:
        return []
    return [
        f"{', '.join(out)} left out: no signal measures it on new calls; replay_only (--replay-only) lets it in"
    ]


def about(choice: Choice, table: Table, uncertainty: Array) -> list[str]:
    """Of the chosen signal: where it is missing, whether it works live, what it was compared with."""
    notes = []
    missing = int(np.isnan(uncertainty).sum())
    if missing:
        notes.append(
            f"{choice.column} was not measured on {missing} of {table.n} calls: they go to the cloud"
        )
    members = [m.signal for m in choice.signal.members] if isinstance(choice.signal, Combined) else []
    offline = [s.column for s in (choice.signal, *members) if isinstance(s, Recorded)]
    if offline:
        notes.append(
            f"{', '.join(offline)} can be replayed only: put a signal that measures it in its place before the policy is deployed"
        )
    if "combined" in choice.scores:
        single = {name: score for name, score in choice.scores.items() if name != "combined"}
        best = max(single, key=lambda name: single[name])
        verb = "beats" if choice.scores["combined"] > single[best] else "does not beat"
        notes.append(
            f"out of fold, the combination (APGR {choice.scores['combined']:.3f}) {verb} the best single signal, {best} "
            f"({single[best]:.3f})"
        )
    if not table.cloud_graded:
        notes.append(
            "the cloud is not graded: quality of the policy is not known, and loss counts every wrong answer"
        )
    return notes


def about_cost(found: Expected, front: ParetoFront) -> list[str]:
    """Whether routing pays, or why that is not known."""
    if found.cost_per_1k is None:
        return ["cost is not known of every call: record cost_usd or usage, and give prices"]
    cloud = front.cloud.usd_per_1k
    if cloud is None or found.cost_per_1k < cloud:
        return []
    return [
        f"routing costs {found.cost_per_1k:.4g} USD for 1000 calls and always asking the cloud {cloud:.4g}: it does not pay"
    ]
