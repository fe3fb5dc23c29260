"""What a budget allows and what it has spent: pure changes of its record, for any store."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from confroute.budget.pacing import Pace, begun, turned
from confroute.errors import BudgetSpentError, PolicyError
from confroute.registry import register
from confroute.types import Request

# Of sums of amounts, against the limit.
_ROUNDING = 1e-9
Unit: TypeAlias = Literal["usd", "tokens", "calls"]


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What calls to the cloud may take in a window.

    Parameters
    ----------
    limit : float
        In `unit`, above 0.
    unit : {"usd", "tokens", "calls"}
        "calls" with a short window is a rate limit.
    window_s : float
        Windows follow each other from midnight UTC (plus `offset_s`); 86400 is a day.
    name : str
        Key in the store and in the decision: budgets of one name share their money.
    per : str or None
        A label, such as "tenant": calls with the tag "tenant=acme" have a budget of their own, and so have all calls
        without one together.
    hard : bool
        True: a call whose worst case does not fit is not made. False: nothing is refused, the pace alone holds it.
    pace : Pace or None
        Moves a threshold so that the budget lasts the window.

    Raises
    ------
    PolicyError
        A limit or window that is not positive, or an unknown unit.
    """

    limit: float
    unit: Unit = "usd"
    window_s: float = 86_400.0
    offset_s: float = 0.0
    name: str = "cloud"
    per: str | None = None
    hard: bool = True
    pace: Pace | None = None

    def __post_init__(self) -> None:
        if not self.limit > 0 or not self.window_s > 0:
            msg = f"limit={self.limit}, window_s={self.window_s}: expected both above 0"
            raise PolicyError(msg)
        if self.unit not in {"usd", "tokens", "calls"}:
            msg = f"unit is {self.unit!r}: expected 'usd', 'tokens' or 'calls'"
            raise PolicyError(msg)

    def key(self, request: Request) -> str:
        """Where in the store this request's share of the budget stands."""
        if self.per is None:
            return f"budget/{self.name}"
        label = f"{self.per}="
        whose = next((tag for tag in sorted(request.tags) if tag.startswith(label)), label)
        return f"budget/{self.name}/{whose}"

    def current(self, found: dict[str, Any] | None, now: float) -> dict[str, Any]:
        """The record as it stands now: a new window begun, leases that ran out charged in full."""
        window = int((now - self.offset_s) // self.window_s)
        record = found or _fresh(window, self.pace.start if self.pace else 0.0)
        # A clock that was set back must not bring money back.
        if window > record["window"]:
            if self.pace is not None:
                record["level"] = self.pace.opening(record)
            turned(record)
            # What is on its way stays; the next window's money is whole.
            record |= {"window": window, "spent": 0.0, "sent": 0, "spent_by_sent": 0.0}
        for lease, (amount, until) in [*record["held"].items()]:
            if until <= now:
                del record["held"][lease]
                record["spent"] += amount
        return record

    def left(self, record: dict[str, Any]) -> float:
        """What is neither spent nor reserved."""
        return float(self.limit - record["spent"] - sum(amount for amount, _ in record["held"].values()))

    def part(self, now: float) -> float:
        """How much of the window has passed, in [0, 1)."""
        return ((now - self.offset_s) % self.window_s) / self.window_s


def _fresh(window: int, level: float) -> dict[str, Any]:
    money = {"window": window, "spent": 0.0, "held": {}, "sent": 0, "spent_by_sent": 0.0}
    return {**money, **begun(), "level": level, "trim": 0.0}


def reserve(
    budgets: Sequence[Budget],
    records: Sequence[dict[str, Any]],
    amounts: Sequence[float],
    *,
    now: float,
    lease_s: float,
    keeps_draft: bool,
) -> str:
    """Set the worst case of one call aside in every budget, or in none; return the lease.

    Raises
    ------
    BudgetSpentError
        It does not fit into one of the hard ones.
    """
    for budget, record, amount in zip(budgets, records, amounts, strict=True):
        left = budget.left(record)
        if budget.hard and amount - left > _ROUNDING * budget.limit:
            raise BudgetSpentError(
                budget=budget.name,
                wanted=amount,
                left=max(0.0, left),
                unit=budget.unit,
                renewed_in_s=budget.window_s * (1 - budget.part(now)),
                keeps_draft=keeps_draft,
            )
    lease = uuid.uuid4().hex
    for record, amount in zip(records, amounts, strict=True):
        record["held"][lease] = [amount, now + lease_s]
    return lease


def settle(records: Sequence[dict[str, Any]], lease: str, amounts: Sequence[float]) -> list[float]:
    """Put what a call really took in the place of its lease; return by how much it was more than reserved."""
    over = []
    for record, amount in zip(records, amounts, strict=True):
        held = record["held"].pop(lease, None)
        # A lease that ran out was charged in full already.
        record["spent"] += amount if held else 0.0
        record["sent"] += 1 if amount > 0 else 0
        record["spent_by_sent"] += amount
        over.append(max(0.0, amount - held[0]) if held else 0.0)
    return over
