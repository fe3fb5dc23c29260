"""A budget and its record: windows, reservations and settlements, as pure changes that any store can apply."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from confroute.budget.pacing import PARTS, Pace, end_window, new_traffic
from confroute.errors import BudgetSpentError, PolicyError
from confroute.reading import refused
from confroute.registry import register
from confroute.types import Request

# Rounding errors of sums of amounts, as a share of the limit.
_ROUNDING = 1e-9
Unit: TypeAlias = Literal["usd", "tokens", "calls"]


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Limits what calls to the cloud may cost in a window of time.

    Parameters
    ----------
    limit : float
        In `unit`, above 0.
    unit : {"usd", "tokens", "calls"}
        "calls" with a short window is a rate limit.
    window_s : float
        Length of a window; windows follow each other from midnight UTC (plus `offset_s`). 86400 is a day.
    name : str
        Key in the store and in the decision: budgets of the same name share their money.
    per : str or None
        A label, such as "tenant": calls tagged "tenant=acme" have a budget of their own, and all calls without such a
        tag share one.
    hard : bool
        True: refuse a call whose worst case does not fit. False: refuse nothing, and leave it to the pace.
    pace : Pace or None
        Moves a threshold so that the budget lasts the window.

    Raises
    ------
    PolicyError
        The limit or window is not positive, or the unit is unknown.
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
        """The store's key for this request's budget."""
        if self.per is None:
            return f"budget/{self.name}"
        return f"budget/{self.name}/{request.label(self.per) or f'{self.per}='}"

    def current(self, record: dict[str, Any] | None, now: float) -> dict[str, Any]:
        """Bring the record up to date: start a new window if it is time, and charge expired leases in full."""
        window = int((now - self.offset_s) // self.window_s)
        record = record or _new_record(window, self.pace.start if self.pace else 0.0)
        # Only forwards: a clock that is set back must not bring money back.
        if window > record["window"]:
            if self.pace is not None:
                record["level"] = self.pace.opening_level(record)
            end_window(record)
            # Reservations of calls that are under way stay; apart from them the new window's money is untouched.
            record |= {"window": window, "spent": 0.0, "sent": 0, "spent_by_sent": 0.0}
        for lease, (amount, until) in [*record["held"].items()]:
            if until <= now:
                del record["held"][lease]
                record["spent"] += amount
        return record

    def kept_until(self, record: dict[str, Any], now: float) -> float | None:
        """When the record of a label is dropped; None for never.

        A window after its own, so that a clock that is set back brings no money back, and a label that calls once a window keeps its
        usual traffic.
        """
        if self.per is None:
            return None
        latest = max([now, *(until for _, until in record["held"].values())])
        window = max(record["window"], int((latest - self.offset_s) // self.window_s))
        return float(self.offset_s + (window + 2) * self.window_s)

    def left(self, record: dict[str, Any]) -> float:
        """The amount that is neither spent nor reserved."""
        return float(self.limit - record["spent"] - sum(amount for amount, _ in record["held"].values()))

    def elapsed(self, now: float) -> float:
        """Fraction of the window that has passed, in [0, 1)."""
        return ((now - self.offset_s) % self.window_s) / self.window_s


_NUMBERS = frozenset({int, float})
_TYPES = {
    **dict.fromkeys(("window", "sent", "calls"), frozenset({int})),
    **dict.fromkeys(("spent", "spent_by_sent", "level", "trim"), _NUMBERS),
    **dict.fromkeys(("arrivals", "usual", "shape"), frozenset({list})),
    "held": frozenset({dict}),
}


def check_record(record: dict[str, Any]) -> None:
    """Refuse a stored record that no budget wrote: the next call would fail on it in the middle.

    Raises
    ------
    FormatError
        The message names the field.
    """
    for name, types in _TYPES.items():
        if type(record.get(name)) not in types:
            raise refused(name, record.get(name), " or ".join(sorted(one.__name__ for one in types)))
    for name, lengths in {"arrivals": (PARTS,), "usual": (0, PARTS), "shape": (0, PARTS)}.items():
        _check_numbers(name, record[name], lengths)
    for lease, held in record["held"].items():
        _check_numbers(f"held.{lease}", held, (2,))


def _check_numbers(where: str, value: Any, lengths: tuple[int, ...]) -> None:
    # By their types at once: every call reads every record.
    if type(value) is not list or len(value) not in lengths or not set(map(type, value)) <= _NUMBERS:
        raise refused(where, value, f"{lengths[-1]} numbers")


def _new_record(window: int, level: float) -> dict[str, Any]:
    money = {"window": window, "spent": 0.0, "held": {}, "sent": 0, "spent_by_sent": 0.0}
    return {**money, **new_traffic(), "level": level, "trim": 0.0}


def reserve(
    budgets: Sequence[Budget],
    records: Sequence[dict[str, Any]],
    amounts: Sequence[float],
    *,
    now: float,
    lease_s: float,
    keeps_draft: bool,
) -> str:
    """Reserve the worst case of one call in every budget, or in none; return the lease.

    Raises
    ------
    BudgetSpentError
        It does not fit into one of the hard budgets.
    """
    for budget, record, amount in zip(budgets, records, amounts, strict=True):
        left = budget.left(record)
        if budget.hard and amount - left > _ROUNDING * budget.limit:
            raise BudgetSpentError(
                budget=budget.name,
                wanted=amount,
                left=max(0.0, left),
                unit=budget.unit,
                renewed_in_s=budget.window_s * (1 - budget.elapsed(now)),
                keeps_draft=keeps_draft,
            )
    lease = uuid.uuid4().hex
    for record, amount in zip(records, amounts, strict=True):
        record["held"][lease] = [amount, now + lease_s]
    return lease


def settle(records: Sequence[dict[str, Any]], lease: str, amounts: Sequence[float]) -> list[float]:
    """Replace a call's reservations by what it really cost; return by how much each was exceeded."""
    excess = []
    for record, amount in zip(records, amounts, strict=True):
        reservation = record["held"].pop(lease, None)
        # An expired lease was charged in full already.
        record["spent"] += amount if reservation else 0.0
        record["sent"] += 1 if amount > 0 else 0
        record["spent_by_sent"] += amount
        excess.append(max(0.0, amount - reservation[0]) if reservation else 0.0)
    return excess
