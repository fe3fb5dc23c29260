"""Running a policy on recorded calls: the same flow as on new ones, answered from the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from confroute.decision import Decision
from confroute.errors import AllTiersFailedError, CalibrationError, TierError
from confroute.fitting.rates import Bill, Rates
from confroute.fitting.recorded import RecordedCalls, replayed, request_of
from confroute.flow import drive
from confroute.policy import Cascade
from confroute.recording import Row
from confroute.recording.extraction import check_extraction
from confroute.recording.grade import graded
from confroute.stats.metrics import bootstrap_ci
from confroute.types import JSON, Generation

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One recorded call as the policy would have routed it.

    Attributes
    ----------
    id : str
    decision : Decision or None
        Of a call that ended in an error, what the policy reported of it.
    failed : bool
        Whether it ended in an error: no tier that might answer had done so when the run was recorded.
    quality : float in [0, 1]
        Of the answer that was returned; 0 for no answer, NaN where that answer is not graded.
    bill : Bill
    """

    id: str
    decision: Decision | None
    quality: float
    bill: Bill
    failed: bool = False

    @property
    def cloud(self) -> bool:
        """Whether the cloud was needed."""
        return self.failed or self.decision is None or self.decision.route != "edge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a policy does on recorded calls. None marks what the run does not tell.

    Attributes
    ----------
    n : int
        Calls.
    cloud_share : float in [0, 1]
    quality : float in [0, 1] or None
    quality_ci : tuple of float or None
        95 % bootstrap interval.
    cost_per_1k : float or None
        USD for a thousand calls, discarded drafts and samples included.
    latency_s, p95_latency_s : float or None
        Mean and 95th percentile.
    sent_tokens : float or None
        Mean prompt tokens that left for the cloud.
    energy_j : float or None
        Mean.
    samples : float
        Mean further answers drawn.
    """

    n: int
    cloud_share: float
    quality: float | None
    quality_ci: tuple[float, float] | None
    cost_per_1k: float | None
    latency_s: float | None
    p95_latency_s: float | None
    sent_tokens: float | None
    energy_j: float | None
    samples: float

    def to_dict(self) -> dict[str, JSON]:
        """JSON form: the four numbers of ``confroute fit`` and ``confroute apply``."""
        return {
            "cloud_share": round(self.cloud_share, 6),
            "quality": _rounded(self.quality),
            "quality_ci": None if self.quality_ci is None else [*map(_rounded, self.quality_ci)],
            "cost_per_1k": _rounded(self.cost_per_1k),
        }


def replay(
    policy: Cascade, rows: Sequence[Row], *, rates: Rates | None = None, progress: Progress | None = None
) -> list[Outcome]:
    """Route every recorded call by `policy`.

    Parameters
    ----------
    policy : Cascade
        Of two tiers.
    rows : sequence of Row
    rates : Rates, optional
        Prices and power, for what the run did not record.
    progress : callable, optional
        Called with (done, of) after each row.

    Returns
    -------
    list of Outcome
        One a row, in order.

    Raises
    ------
    CalibrationError
        A policy of more than two tiers: a row holds two. Rows whose answers were read otherwise than the policy reads them.
    """
    check_extraction([gate.signal for gate in policy.gates], rows)
    if len(policy.tiers) != 2:
        msg = f"the policy has tiers {policy.tiers}: a recorded run holds two, an edge and a cloud"
        raise CalibrationError(msg)
    outcomes = []
    for at, row in enumerate(rows):
        outcomes.append(_routed(policy, row, rates or Rates()))
        if progress is not None:
            progress(at + 1, len(rows))
    return outcomes


def _routed(policy: Cascade, row: Row, rates: Rates) -> Outcome:
    edge = policy.tiers[0]
    gates = tuple(replace(gate, signal=replayed(gate.signal, row)) for gate in policy.gates)
    calls = RecordedCalls(row=row, rates=rates, edge=edge)
    request = request_of(row)
    try:
        routed = drive(replace(policy, gates=gates).flow(request), calls)
    except (TierError, AllTiersFailedError):
        return Outcome(id=row.id, decision=calls.failure, failed=True, quality=0.0, bill=calls.bill)
    decision = replace(routed.decision, route="edge" if routed.decision.route == edge else "cloud")
    return Outcome(
        id=row.id, decision=decision, quality=_quality(row, decision, routed.generation), bill=calls.bill
    )


def _quality(row: Row, decision: Decision, answer: Generation) -> float:
    if decision.route == "cloud":
        grade = None if row.cloud is None else row.cloud.quality
        return math.nan if grade is None else grade
    draft = row.edge.generation()
    if draft is None or answer == draft or (answer.answer is not None and answer.answer == draft.answer):
        return math.nan if row.edge.quality is None else row.edge.quality
    # A sample took the draft's place.
    grade = graded(answer.answer, answer.text, row.question, row.reference)
    return math.nan if grade is None else grade


def expected(outcomes: Iterable[Outcome], *, seed: int = 0) -> Expected:
    """Means over replayed calls, with an interval of the quality.

    Raises
    ------
    CalibrationError
        No call.
    """
    done = list(outcomes)
    if not done:
        msg = "no recorded call to replay: expected one graded row at least"
        raise CalibrationError(msg)
    quality = np.array([o.quality for o in done])
    seconds = np.array([o.bill.latency_s for o in done])
    known = bool(np.isfinite(quality).all())
    usd = _mean([o.bill.usd for o in done])
    drawn = [s.n for o in done if o.decision for s in o.decision.steps if s.kind == "sample"]
    return Expected(
        n=len(done),
        cloud_share=float(np.mean([o.cloud for o in done])),
        quality=float(quality.mean()) if known else None,
        quality_ci=bootstrap_ci(np.mean, quality, seed=seed) if known else None,
        cost_per_1k=None if usd is None else 1000 * usd,
        latency_s=_mean(seconds.tolist()),
        p95_latency_s=float(np.quantile(seconds, 0.95)) if np.isfinite(seconds).all() else None,
        sent_tokens=_mean([o.bill.sent_tokens for o in done]),
        energy_j=_mean([o.bill.energy_j for o in done]),
        samples=sum(drawn) / len(done),
    )


def _mean(values: list[float]) -> float | None:
    found = float(np.mean(values))
    return found if math.isfinite(found) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
