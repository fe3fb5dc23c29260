"""Run a policy on recorded calls: the same flow as on new calls, answered from the rows."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from confroute.budget import Budget
from confroute.decision import Decision
from confroute.errors import AllTiersFailedError, CalibrationError, TierError
from confroute.fitting.point import Calls, Interval, Point, fields_of, metrics, values_of
from confroute.fitting.rates import Bill, Rates
from confroute.fitting.recorded import RecordedCalls, recorded_tiers, replayed_by_tier, request_of
from confroute.flow import Policy, drive
from confroute.policy import Cascade, Gate
from confroute.policy.wrapper import inner_of
from confroute.recording import Row
from confroute.recording.extraction import check_extraction
from confroute.recording.grade import graded
from confroute.registry import parts_of
from confroute.state import MemoryStore, Store
from confroute.stats.arrays import Array
from confroute.stats.metrics import bootstrap_ci
from confroute.types import JSON, TIERS, Generation

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedCall:
    """One recorded call as the policy would have routed it.

    Attributes
    ----------
    id : str
    decision : Decision or None
        For a call that ended in an error, the decision that the policy reported before it.
    failed : bool
        Whether it ended in an error: no tier that could answer did so when the run was recorded.
    quality : float in [0, 1]
        Of the returned answer; 0 without an answer, NaN if the answer is not graded.
    bill : Bill
    """

    id: str
    decision: Decision | None
    quality: float
    bill: Bill
    failed: bool = False

    @property
    def route(self) -> str | None:
        """The tier of the row that answered; None where none did."""
        return None if self.failed or self.decision is None else self.decision.route

    @property
    def cloud(self) -> bool:
        """Whether the cloud was needed, the last model of the row."""
        return self.route in (None, TIERS[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected(Point):
    """Every metric of a policy on recorded calls; None marks what the run does not tell.

    Attributes
    ----------
    n : int
        Number of calls.
    samples : float
        Mean number of further answers drawn.
    """

    name: str = "policy"
    threshold: float | None = None
    n: int
    samples: float

    @property
    def cost_per_1k(self) -> float | None:
        """USD for a thousand calls, with discarded drafts and samples."""
        return self.usd_per_1k

    def to_dict(self) -> dict[str, JSON]:
        """JSON form: the four numbers of ``confroute fit`` and ``confroute apply``."""
        return {
            "cloud_share": round(self.cloud_share, 6),
            "quality": _rounded(self.quality),
            "quality_ci": None if self.quality_ci is None else [*map(_rounded, self.quality_ci)],
            "cost_per_1k": _rounded(self.cost_per_1k),
        }


def replay(
    policy: Policy, rows: Sequence[Row], *, rates: Rates | None = None, progress: Progress | None = None
) -> list[ReplayedCall]:
    """Route every recorded call by `policy`.

    Parameters
    ----------
    policy : Policy
        Its tiers are models of the rows, by their names or in their order (`confroute.fitting.recorded.recorded_tiers`). Wrappers are replayed
        as well. What they remember (budgets, audits, labels) starts empty and is
        dropped afterwards: their own stores are not touched.
    rows : sequence of Row
    rates : Rates, optional
        Prices and power, for costs and energy that the run did not record.
    progress : callable, optional
        Called with (done, of) after each row.

    Returns
    -------
    list of ReplayedCall
        One per row, in order. Routes have the names of the rows' tiers.

    Raises
    ------
    CalibrationError
        The rows do not hold the policy's tiers, or their answers were read otherwise than the policy reads them.

    Notes
    -----
    Runs do not record when their calls were made. For budgets, they are spread evenly over the longest window. Which calls
    are audited or labelled is drawn at random in each replay.
    """
    check_extraction((part.signal for part in parts_of(policy) if isinstance(part, Gate)), rows)
    return [*replaying(policy, rows, rates=rates, progress=progress)]


def replaying(
    policy: Policy, rows: Sequence[Row], *, rates: Rates | None = None, progress: Progress | None = None
) -> Iterator[ReplayedCall]:
    """Route every recorded call by `policy`, as `replay` does, one by one, so that none need be held.

    How the rows' answers were read is the caller's to check; see `confroute.recording.extraction.check_extraction`.
    """
    tiers: tuple[str, ...] = getattr(policy, "tiers", TIERS)
    window_s = max((part.window_s for part in parts_of(policy) if isinstance(part, Budget)), default=0.0)
    now = 0.0
    store = MemoryStore(clock=lambda: now)
    for at, row in enumerate(rows):
        now = window_s * at / len(rows)
        models = recorded_tiers(tiers, row)
        yield _routed(on_row(policy, row, store, models), row, rates or Rates(), models)
        if progress is not None:
            progress(at + 1, len(rows))


def on_row(policy: Any, row: Row, store: Store, models: Mapping[str, str]) -> Any:
    """Make the policy that routes one recorded row: its signals read the row, and its wrappers remember in `store`."""
    changes: dict[str, Any] = {
        name: on_row(inner, row, store, models) for name, inner in inner_of(policy).items()
    }
    if isinstance(policy, Cascade):
        changes["gates"] = tuple(
            replace(gate, signal=replayed_by_tier(gate.signal, row, models)) for gate in policy.gates
        )
    if hasattr(policy, "store"):
        changes["store"] = store
    # A policy of your own need not be a dataclass.
    return replace(policy, **changes) if changes else policy


def _routed(policy: Policy, row: Row, rates: Rates, models: Mapping[str, str]) -> ReplayedCall:
    calls = RecordedCalls(row=row, rates=rates, tiers=models)
    request = request_of(row, models)
    try:
        routed = drive(policy.flow(request), calls)
    except (TierError, AllTiersFailedError):
        return ReplayedCall(id=row.id, decision=calls.failure, failed=True, quality=0.0, bill=calls.bill)
    decision = replace(routed.decision, route=models.get(routed.decision.route, "cloud"))
    return ReplayedCall(
        id=row.id, decision=decision, quality=_quality(row, decision, routed.generation), bill=calls.bill
    )


def _quality(row: Row, decision: Decision, answer: Generation) -> float:
    side = row.side(decision.route)
    recorded = None if side is None else side.quality
    draft = None if side is None or decision.route == "cloud" else side.generation()
    if draft is None or answer == draft or (answer.answer is not None and answer.answer == draft.answer):
        return math.nan if recorded is None else recorded
    # A sample replaced the draft.
    grade = graded(answer.answer, answer.text, row.question, row.reference)
    return math.nan if grade is None else grade


def expected(outcomes: Iterable[ReplayedCall], *, seed: int = 0) -> Expected:
    """Compute every metric over replayed calls, with 95 % intervals.

    Raises
    ------
    CalibrationError
        There are no calls.
    """
    columns = {name: array("d") for name in ("cloud", "quality", *(one.name for one in fields(Bill)))}
    drawn = 0
    for one in outcomes:
        columns["cloud"].append(one.cloud)
        columns["quality"].append(one.quality)
        for spent in fields(Bill):
            columns[spent.name].append(getattr(one.bill, spent.name))
        drawn += sum(step.n for step in one.decision.steps if step.kind == "sample") if one.decision else 0
    n = len(columns["cloud"])
    if not n:
        msg = "no recorded call to replay: expected at least one graded row"
        raise CalibrationError(msg)
    calls = Calls(**{name: np.array([values]) for name, values in columns.items()})
    (values,) = values_of(calls)
    known = [name for name, one in metrics().items() if one.interval and values[name] is not None]
    return Expected(
        n=n,
        samples=drawn / n,
        intervals={name: _interval(metrics()[name].per_call(calls)[0], seed) for name in known},
        **fields_of(values),
    )


def _interval(values: Array, seed: int) -> Interval:
    found = bootstrap_ci(np.mean, values, seed=seed)
    assert found is not None, "every value is finite"
    return found


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
