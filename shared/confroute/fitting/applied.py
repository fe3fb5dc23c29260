"""What a policy does on recorded calls that it was not fitted on: beside both models alone, against its promise, and whether they are alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from confroute.drift.shift import Shift, like_recorded, measured_by
from confroute.fitting.early_stops import EarlyStops, early_stops
from confroute.fitting.front import baselines
from confroute.fitting.point import Interval, Point
from confroute.fitting.rates import Rates
from confroute.fitting.recorded import recorded_tiers
from confroute.fitting.replay import Expected, Progress, ReplayedCall, expected, replay
from confroute.fitting.table import Array, Table, table_of
from confroute.fitting.verdict import Verdict, verdicts_of
from confroute.flow import Policy
from confroute.policy import Gate, Provenance
from confroute.recording import Row
from confroute.recording.packed import hash_of, outlines_of, picked
from confroute.registry import parts_of
from confroute.stats.bootstrap import bootstrap_ci
from confroute.types import JSON, TIERS


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What a policy does on recorded calls.

    Attributes
    ----------
    expected : Expected
        Every metric of the policy.
    edge, cloud : Point
        Always the edge, without evidence; always the cloud, without a draft.
    against_edge, against_cloud : tuple or None
        Mean difference of the policy's quality to each, with its paired 95 % bootstrap interval (difference, low, high); None where
        grades are missing.
    verdicts : tuple of Verdict
        One per promise of the policy.
    shift : Shift or None
        Whether the calls are like the recorded ones; None where the policy holds nothing to compare with.
    early_stops : EarlyStops or None
        See `confroute.fitting.early_stops`.
    notes : tuple of str
        What the reader has to know, in sentences.
    n, left_out : int
        Calls replayed, and those left out since they are not graded, though others are.
    graded : bool
        Whether any call is graded.
    """

    expected: Expected
    edge: Point
    cloud: Point
    against_edge: tuple[float, float, float] | None
    against_cloud: tuple[float, float, float] | None
    verdicts: tuple[Verdict, ...]
    shift: Shift | None
    early_stops: EarlyStops | None
    notes: tuple[str, ...]
    n: int
    left_out: int
    graded: bool

    @property
    def broken(self) -> bool:
        """Whether any promise is proved to be broken on these calls."""
        return any(verdict.outcome == "broken" for verdict in self.verdicts)

    @property
    def shifted(self) -> bool:
        """Whether the calls are told apart from the recorded ones."""
        return self.shift is not None and not self.shift.like_recorded

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "expected": self.expected.to_dict(),
            "baselines": {
                "always_edge": _baseline(self.edge, self.against_edge),
                "always_cloud": _baseline(self.cloud, self.against_cloud),
            },
            "verdicts": [verdict.to_dict() for verdict in self.verdicts],
            "shift": None if self.shift is None else self.shift.to_dict(),
            **({} if self.early_stops is None else {"early_stops": self.early_stops.to_dict()}),
            "n": self.n,
            "left_out": self.left_out,
            "graded": self.graded,
            "notes": [*self.notes],
        }


def _baseline(point: Point, gained: tuple[float, float, float] | None) -> dict[str, JSON]:
    return {
        "quality": _rounded(point.quality),
        "quality_ci": _ends(point.quality_ci),
        "cost_per_1k": _rounded(point.usd_per_1k),
        "policy_minus_it": None if gained is None else _rounded(gained[0]),
        "policy_minus_it_ci": None if gained is None else _ends(gained[1:]),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _ends(interval: Interval | None) -> list[JSON] | None:
    return None if interval is None else [_rounded(end) for end in interval]


def apply(
    policy: Policy,
    rows: Iterable[Row],
    *,
    rates: Rates | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> Applied:
    """Replay a policy on a recorded run, and judge what came of it.

    Parameters
    ----------
    policy : Policy
        Of tiers that the rows hold; see `replay`.
    rows : iterable of Row
        If some are graded, only those count; if none is, quality and promises are not known, and all else is.
    rates : Rates, optional
        Prices and power, for costs and energy that the run did not record.
    seed : int
        Seed of the intervals.
    progress : callable, optional
        Called with (done, of) while the policy is replayed.

    Raises
    ------
    CalibrationError
        No rows, tiers that they do not hold, or answers that were read otherwise than the policy reads them.

    Examples
    --------
    >>> from confroute import Cascade, TokenLogprob
    >>> from confroute.recording import Row, Side
    >>> rows = [
    ...     Row(
    ...         id=str(i),
    ...         edge=Side(text="7", logprobs=(-i / 500,), quality=float(i < 300)),
    ...         cloud=Side(quality=1.0),
    ...     )
    ...     for i in range(500)
    ... ]
    >>> applied = apply(Cascade.of(TokenLogprob(), 0.65), rows)
    >>> applied.edge.quality, applied.expected.quality, applied.cloud.quality, applied.verdicts
    (0.6, 0.948, 1.0, ())
    """
    given = rows if isinstance(rows, Sequence) else tuple(rows)
    outlines = outlines_of(given)
    graded = any(one.edge_graded for one in outlines)
    told = _judged(policy, given) if graded and any(one.tiers for one in outlines) else given
    table = table_of(told, rates=rates, graded_only=graded)
    replayed = replay(policy, table.rows, rates=rates, progress=progress)
    found = expected(replayed, seed=seed)
    edge, cloud = baselines(table, seed=seed)
    quality = np.array([one.quality for one in replayed])
    decisions = [one.decision for one in replayed if one.decision is not None]
    verdicts = verdicts_of(policy, table, replayed, seed=seed)
    if (seen := _seen(policy, given)) is not None:
        verdicts = tuple(verdict.untold(seen) for verdict in verdicts)
    return Applied(
        expected=found,
        edge=edge,
        cloud=cloud,
        against_edge=_gained(quality - np.where(table.failed, table.cloud_quality, table.edge_quality), seed),
        against_cloud=_gained(quality - table.cloud_quality, seed),
        verdicts=verdicts,
        shift=like_recorded(policy, measured_by(policy, decisions)),
        early_stops=early_stops(policy, table.rows, replayed, rates=rates, progress=progress),
        notes=(
            *filter(None, [seen]),
            *_unmeasured(policy, replayed),
            *_dearer(found, cloud),
            *_ungraded(table, graded),
        ),
        n=table.n,
        left_out=table.left_out + len(given) - len(told),
        graded=graded,
    )


def _judged(policy: Policy, rows: Sequence[Row]) -> Sequence[Row]:
    """The rows whose drafts of the policy's tiers between edge and cloud are graded, or failed; of the others a table takes care."""
    tiers: tuple[str, ...] = getattr(policy, "tiers", TIERS)

    def is_graded(row: Row) -> bool:
        between = (row.tiers[name].side for name in recorded_tiers(tiers, row).values() if name in row.tiers)
        return all(side.quality is not None or side.error is not None for side in between)

    return picked(rows, np.flatnonzero([is_graded(row) for row in rows]))


def _gained(difference: Array, seed: int) -> tuple[float, float, float] | None:
    if np.isnan(difference).any():
        return None
    ends = bootstrap_ci(np.mean, difference, seed=seed)
    assert ends is not None, "every difference is finite"
    return float(difference.mean()), *ends


def _seen(policy: Policy, rows: Sequence[Row]) -> str | None:
    """Why these rows cannot judge the policy, if it was fitted on them or on some of them."""
    known = [part for part in parts_of(policy) if isinstance(part, Provenance)]
    if not known:
        return None
    if hash_of(rows) in {one.data_hash for one in known}:
        found = "these are the rows"
    else:
        fingerprints = [one.fingerprint for one in outlines_of(rows)]
        share = max(0.0 if one.rows is None else one.rows.share_of(fingerprints) for one in known)
        if not share:
            return None
        about = f"about {share:.0%}" if share >= 0.01 else "some"
        found = f"{about} of these rows are among those"
    return f"{found} that the policy was fitted on, which cannot judge it: apply it to others"


def _unmeasured(policy: Policy, replayed: Sequence[ReplayedCall]) -> Iterator[str]:
    """Signals that should have decided, and could be measured on no draft."""
    decisions = [one.decision for one in replayed if one.decision is not None]
    measured = {name for decision in decisions for name in decision.signals}
    skipped = {name: why for decision in decisions for name, why in decision.skipped.items()}
    gates = {part.signal.name for part in parts_of(policy) if isinstance(part, Gate)}
    for name in sorted(gates & skipped.keys() - measured):
        cloud = sum(one.cloud for one in replayed) / len(replayed)
        yield (
            f"{name} was measured on none of {len(replayed)} calls ({skipped[name]}), so the policy cannot decide by it: {cloud:.0%} of "
            "the calls went to the cloud; record the evidence that it needs, or fit a policy to what these calls hold"
        )


def _dearer(found: Expected, cloud: Point) -> Iterator[str]:
    if (
        found.cost_per_1k is not None
        and cloud.usd_per_1k is not None
        and found.cost_per_1k > cloud.usd_per_1k
    ):
        yield (
            f"1000 calls cost {found.cost_per_1k:.4g} USD by this policy and {cloud.usd_per_1k:.4g} by always asking the cloud: it does "
            "not pay"
        )


def _ungraded(table: Table, graded: bool) -> Iterator[str]:
    if not graded:
        yield f"none of {table.n} calls is graded: quality is not known, and no promise can be judged"
