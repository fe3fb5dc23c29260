"""From a recorded run to a policy: its signal and threshold, what it promises, and what it would have done."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from confroute.certificate import Certificate
from confroute.display import Displayable
from confroute.drift.shift import measured_by
from confroute.errors import CalibrationError, UnmetPromiseError
from confroute.fitting.adverse import AdverseSelection, adverse_selection
from confroute.fitting.calibrated import Calibration, calibration_of
from confroute.fitting.chain_choice import ChainResult
from confroute.fitting.chain_fit import ChainFit, fit_chain
from confroute.fitting.choice import (
    LEAST_TO_COMBINE,
    SignalChoice,
    chosen,
    distinct_orders,
    live_columns,
    named,
    replay_only_notes,
    samples_of,
    uncertainty_of,
)
from confroute.fitting.front import ParetoFront, front_of
from confroute.fitting.goal import CloudShare, Goal
from confroute.fitting.judged import JudgedRows, judged_rows
from confroute.fitting.promise import (
    GradedCalls,
    MaxLoss,
    PromisePoint,
    certified_threshold,
    curve_json,
    lowest_loss,
    outlook,
    promise_curve,
)
from confroute.fitting.provenance import provenance_of
from confroute.fitting.rates import Rates
from confroute.fitting.replay import Expected, Progress, ReplayedCall, expected, replaying
from confroute.fitting.table import Array, Table, table_of
from confroute.policy import Cascade, Gate, Threshold
from confroute.policy.guarantee import Grades, certified_judged
from confroute.policy.threshold import SHARE_TOLERANCE
from confroute.recording import Row
from confroute.recording.extraction import check_extraction
from confroute.recording.packed import outlines_of
from confroute.signals import Signal
from confroute.types import JSON


def left_out(table: Table, columns: tuple[str, ...]) -> list[str]:
    """Notes on columns that were not candidates, and why."""
    reasons: dict[str, list[str]] = {}
    for name in table.columns:
        if name not in columns:
            reasons.setdefault(str(table.live[name]), []).append(name)
    return [
        f"{', '.join(names)} left out: {why}; replay_only (--replay-only) lets it in"
        for why, names in reasons.items()
    ]


def about(choice: SignalChoice, table: Table, uncertainty: Array) -> list[str]:
    """Notes on the chosen signal: where it is missing, whether new calls have it, and what it was compared with."""
    notes = []
    if rejected := int(table.rejected.sum()):
        notes.append(f"{rejected} of {table.n} drafts are incomplete or empty: they go to the cloud")
    missing = int(np.isnan(uncertainty[~table.rejected]).sum())
    if missing:
        notes.append(
            f"{choice.column} was not measured on {missing} of {table.n} calls: they go to the cloud"
        )
    notes += replay_only_notes(choice.signal, table)
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
            "the cloud's answers are not graded: the policy's quality is not known, and the loss counts every wrong answer"
        )
    return notes


def about_samples(choice: SignalChoice, found: Expected) -> list[str]:
    """A note on how many answers a call of the chosen signal draws."""
    n = samples_of(choice.signal)
    if not n:
        return []
    return [
        f"{choice.column} draws up to {n} samples per call besides the draft, {found.samples:.2f} on average here; each costs about as much as a draft"
    ]


# Fewer rows often choose a signal that is not the best: benchmarks/few_rows.py.
LEAST_TO_CHOOSE = 30


def about_selection(selected: int) -> list[str]:
    """A note where so few rows chose the signal that it may be the best by chance."""
    if not 0 < selected < LEAST_TO_CHOOSE:
        return []
    return [
        f"{selected} rows chose the signal, and fewer than {LEAST_TO_CHOOSE} often choose one that is not the best: name one that you trust "
        "beforehand (--signal NAME or signal=), which also leaves every row for the threshold"
    ]


def about_replay(choice: SignalChoice, found: Expected, front: ParetoFront) -> list[str]:
    """Notes on what the policy drew and cost."""
    return [*about_samples(choice, found), *about_cost(found, front)]


def about_cost(found: Expected, front: ParetoFront) -> list[str]:
    """Notes on whether routing pays, or why that is unknown."""
    if found.cost_per_1k is None:
        return [
            "the cost of some calls is not known: give the prices of both models (`rates=` in Python, `--edge-price` and `--cloud-price` on the command line) and record usage, or record cost_usd"
        ]
    cloud = front.cloud.usd_per_1k
    if cloud is None or found.cost_per_1k < cloud:
        return []
    return [
        f"routing costs {found.cost_per_1k:.4g} USD for 1000 calls and always asking the cloud {cloud:.4g}: it does not pay"
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit(Displayable):
    """A fitted policy, and what is known about it.

    Attributes
    ----------
    policy : Cascade
    expected : Expected
        From a replay on the rows that were not used to choose the signal.
    front : ParetoFront
        What other thresholds would have done on these rows.
    choice : SignalChoice
    calibration : Calibration
        Reliability of P(edge wrong) on the rows that gave the threshold.
    selected_on, n : int
        Number of rows used to choose the signal (0 if it was given), and of rows used for the threshold.
    left_out : int
        Number of rows that were not graded.
    notes : tuple of str
        What the reader should know, in sentences.
    promise_curve : tuple of PromisePoint
        For a promised loss: what else these rows can promise, at which cloud share. Empty for other goals.
    adverse_selection : tuple of AdverseSelection
        For each tier that drafts: how the cloud does on the calls that it is most uncertain of. Empty where the cloud is not graded.
    chains : tuple of ChainResult
        For a run of several models: each alone, each pair, and so on to the whole, at the total cost of the deployed one, on calls that
        gave none of them its thresholds. Empty for two.
    """

    policy: Cascade
    expected: Expected
    front: ParetoFront = field(repr=False)
    choice: SignalChoice = field(repr=False)
    calibration: Calibration = field(repr=False)
    selected_on: int
    n: int
    left_out: int
    notes: tuple[str, ...]
    promise_curve: tuple[PromisePoint, ...] = field(default=(), repr=False)
    adverse_selection: tuple[AdverseSelection, ...] = ()
    chains: tuple[ChainResult, ...] = ()

    @property
    def certificate(self) -> Certificate | None:
        """The certificate of the threshold, if it has one."""
        return self.policy.gates[0].threshold.certificate

    def save(self, path: str | Path) -> None:
        """Write the policy file; see `confroute.policy.save_policy`."""
        self.policy.save(path)

    def to_dict(self, path: str | Path) -> dict[str, JSON]:
        """JSON form, as ``confroute fit --json`` prints it, for a policy written to `path`."""
        promise = None if self.certificate is None else self.certificate.to_dict()
        names: tuple[str, ...] = ("loss", "alpha", "delta", "n", "method")
        if self.certificate is not None and self.certificate.labelled is not None:
            names = (*names, "labelled")
        shown: JSON = promise and {name: promise[name] for name in names}
        return {
            "policy": str(path),
            "certificate": shown,
            "expected": self.expected.to_dict(),
            "promise_curve": curve_json(self.promise_curve),
            "adverse_selection": [one.to_dict() for one in self.adverse_selection],
            **({"chains": [one.to_dict() for one in self.chains]} if self.chains else {}),
            "notes": list(self.notes),
        }


def fit(
    rows: Iterable[Row],
    goal: Goal,
    *,
    signal: str = "auto",
    replay_only: bool = False,
    rates: Rates | None = None,
    on_unfinished: Literal["reject", "judge"] = "reject",
    seed: int = 0,
    progress: Progress | None = None,
) -> Fit:
    """Fit a policy to recorded calls.

    Parameters
    ----------
    rows : iterable of Row
        Graded; see `confroute.recording`. Many of them take a small part of the memory in `confroute.recording.packed.PackedRows`.
        Of more than two models, if they hold them: see `confroute.fitting.chain_fit.fit_chain`.
    goal : MaxLoss, CloudShare or Objective
    signal : str
        A column of the rows, "combined", or "auto": the best column, or the combination if it is better out of fold.
    replay_only : bool
        Let "auto" and "combined" use columns that no signal measures on new calls. Such a policy can be replayed but not
        deployed: on new calls it would measure nothing, and its promise would not hold. If the rows hold no other columns,
        these are used anyway, with a note.
    rates : Rates, optional
        Prices and power, for costs and energy that the run did not record.
    on_unfinished : {"reject", "judge"}
        The policy's: whether a draft that is not whole goes to the cloud, or is left to the gate.
    seed : int
        Seed of the split, the folds and the intervals.
    progress : callable, optional
        Called with (done, of) while the policy is replayed.

    Returns
    -------
    Fit

    Raises
    ------
    UnmetPromiseError
        The rows cannot promise this loss; the message says what they can, and about how many rows it takes.
    CalibrationError
        The rows cannot meet the goal, or do not hold what it needs; the message holds the numbers.

    Notes
    -----
    If a signal is chosen or fitted, some rows, drawn at random, are used for that and nothing else: a promise made on the
    rows that chose the signal would be void. How many, `selection_size` says; none if all candidates order the calls alike.

    Examples
    --------
    >>> from confroute.recording import Row, Side
    >>> rows = [
    ...     Row(
    ...         id=str(i),
    ...         edge=Side(text="7", logprobs=(-i / 500,), quality=float(i < 300)),
    ...         cloud=Side(quality=1.0),
    ...     )
    ...     for i in range(500)
    ... ]
    >>> found = fit(rows, MaxLoss(alpha=0.05), signal="token_logprob.mean")
    >>> found.certificate.method, found.expected.cloud_share < 0.4, found.expected.quality > 0.95
    ('ltt-hypergeometric', True, True)
    """
    rows = rows if isinstance(rows, Sequence) else tuple(rows)
    if any(one.tiers for one in outlines_of(rows)):
        chain = fit_chain(
            rows,
            goal,
            signal=signal,
            replay_only=replay_only,
            rates=rates,
            on_unfinished=on_unfinished,
            seed=seed,
        )
        return _of_chain(chain, rows, rates=rates, seed=seed, progress=progress)
    return _of_pair(
        rows,
        goal,
        signal=signal,
        replay_only=replay_only,
        rates=rates,
        on_unfinished=on_unfinished,
        seed=seed,
        progress=progress,
    )


def _of_pair(
    rows: Sequence[Row],
    goal: Goal,
    *,
    signal: str,
    replay_only: bool,
    rates: Rates | None,
    on_unfinished: Literal["reject", "judge"],
    seed: int,
    progress: Progress | None,
) -> Fit:
    """Fit two models: see `fit`."""
    judged = judged_rows(rows) if isinstance(goal, MaxLoss) and goal.judged else None
    table = table_of(judged.rows if judged else rows, rates=rates, on_unfinished=on_unfinished)
    columns, told = _candidates(table, signal, goal, replay_only=replay_only)
    choice, rest, selected = _choice(table, columns, signal, goal=goal, seed=seed, judged=judged)
    check_extraction([choice.signal], rest.rows)
    uncertainty = uncertainty_of(choice, rest)
    front = front_of(rest, uncertainty, sampled=samples_of(choice.signal) > 0, seed=seed)
    threshold, notes = _threshold(
        goal, rest, uncertainty, front, judged, chosen_freely=signal == "auto", selected=selected, seed=seed
    )
    policy = _policy(choice.signal, threshold, on_unfinished)
    uncertainties: list[float | None] = []
    replayed = _noting(policy, replaying(policy, rest.rows, rates=rates, progress=progress), uncertainties)
    found = expected(replayed, seed=seed)
    return Fit(
        policy=replace(policy, provenance=provenance_of(policy, rows, uncertainties)),
        expected=found,
        front=front,
        choice=choice,
        calibration=calibration_of(choice, rest, uncertainty, seed=seed),
        selected_on=selected,
        n=rest.n,
        left_out=table.left_out,
        notes=(
            *told,
            *about_selection(selected),
            *about(choice, rest, uncertainty),
            *notes,
            *about_replay(choice, found, front),
        ),
        promise_curve=_curve(goal, _graded(rest, uncertainty)),
        adverse_selection=_adverse(rest, uncertainty, seed),
    )


def _adverse(table: Table, uncertainty: Array, seed: int) -> tuple[AdverseSelection, ...]:
    found = adverse_selection(uncertainty, table.cloud_quality, seed=seed)
    return () if found is None else (found,)


def _of_chain(
    chain: ChainFit, rows: Sequence[Row], *, rates: Rates | None, seed: int, progress: Progress | None
) -> Fit:
    """A chain's policy with what a replay says of it."""
    policy, uncertainties = chain.policy, list[float | None]()
    replayed = _noting(policy, replaying(policy, chain.rows, rates=rates, progress=progress), uncertainties)
    found = expected(replayed, seed=seed)
    return Fit(
        policy=replace(policy, provenance=provenance_of(policy, rows, uncertainties)),
        expected=found,
        front=chain.front,
        choice=chain.choice,
        calibration=calibration_of(chain.choice, chain.table, chain.uncertainty, seed=seed),
        selected_on=chain.selected_on,
        n=chain.table.n,
        left_out=chain.left_out,
        notes=(*chain.notes, *about_replay(chain.choice, found, chain.front)),
        promise_curve=chain.promise_curve,
        adverse_selection=chain.adverse_selection,
        chains=chain.chains,
    )


def _noting(
    policy: Cascade, replayed: Iterable[ReplayedCall], into: list[float | None]
) -> Iterator[ReplayedCall]:
    """Note the uncertainty that a policy decides each call by."""
    for one in replayed:
        into += measured_by(policy, filter(None, [one.decision]))
        yield one


def _policy(signal: Signal, threshold: Threshold, on_unfinished: Literal["reject", "judge"]) -> Cascade:
    gate = Gate(signal=signal, threshold=threshold)
    # The threshold is fitted to all drafts, abstentions among them: a gate of their own would decide some calls past it.
    return Cascade(gates=(gate,), on_no_signal="cloud", on_unfinished=on_unfinished, lacking=None)


def _candidates(
    table: Table, signal: str, goal: Goal, *, replay_only: bool
) -> tuple[tuple[str, ...], list[str]]:
    """The columns that a signal may be chosen from, and what is to be said of that."""
    if _is_column(signal):
        return table.columns, _about_name(signal, goal, table)
    candidates = table.columns if replay_only else live_columns(table) or table.columns
    columns, coarse = _fine_enough(goal, table, candidates) if signal == "auto" else (candidates, [])
    return columns, [*left_out(table, candidates), *coarse]


def _about_name(signal: str, goal: Goal, table: Table) -> list[str]:
    """What a promise about a signal that the caller named takes for granted."""
    if not isinstance(goal, MaxLoss) or len(distinct_orders(table, table.columns)) == 1:
        return []
    return [
        f"the promise holds only if you chose {signal} before you looked at these rows; otherwise let 'auto' choose, which holds rows back for that"
    ]


def _is_column(signal: str) -> bool:
    return signal not in {"auto", "combined"}


def _choice(
    table: Table, columns: Sequence[str], signal: str, *, goal: Goal, seed: int, judged: JudgedRows | None
) -> tuple[SignalChoice, Table, int]:
    """The signal, the rows that did not choose it, and how many did: 0 where there was nothing to choose."""
    if _is_column(signal):
        return named(table, signal), table, 0
    if signal == "auto" and len(orders := distinct_orders(table, columns)) == 1:
        return named(table, orders[0]), table, 0
    selection = np.zeros(table.n, dtype=bool)
    selection[np.random.default_rng(seed).permutation(table.n)[: selection_size(table.n)]] = True
    if judged is not None:
        # People's grades are dear, and a signal is chosen by the judge's.
        selection &= ~judged.graded(table.rows)
        if not selection.any():
            graded = int(judged.graded(table.rows).sum())
            msg = (
                f"of {table.n} judged rows, {graded} have a grade by people or a reference, which leaves too few to choose a signal: name a "
                "signal (--signal NAME or signal=) that was chosen before these rows were looked at, or fit without the judge's grades"
            )
            raise CalibrationError(msg)
    choosing = table.part(selection)
    if signal == "auto" and isinstance(goal, MaxLoss):
        columns = promising(goal, choosing, columns)
    choice = chosen(choosing, combine=True if signal == "combined" else None, columns=columns, seed=seed)
    return choice, table.part(~selection), int(selection.sum())


def selection_size(n: int) -> int:
    """How many of n rows choose the signal: 3 of 10, or the 100 that a combination takes where these are at most 4 of 10.

    The numbers are measured: see "How many rows choose the signal" in docs/results.md.

    Examples
    --------
    >>> selection_size(100), selection_size(249), selection_size(250), selection_size(1000)
    (30, 75, 100, 300)
    """
    size = round(0.3 * n)
    return LEAST_TO_COMBINE if size < LEAST_TO_COMBINE <= 0.4 * n else size


def promising(goal: MaxLoss, table: Table, columns: Sequence[str]) -> Sequence[str]:
    """The columns by which a loss can be promised, judged by the rows that choose the signal; all if there is none.

    Calls of equal uncertainty are kept together. Where those that a signal is most certain of lose more than half of the
    promise as it is, as with a signal of two values, not enough is left for chance on the rows that calibrate.
    """
    left = [
        name for name in columns if lowest_loss(goal, _graded(table, table.signal(name))) <= goal.alpha / 2
    ]
    return left or columns


def _graded(table: Table, uncertainty: Array) -> GradedCalls:
    return GradedCalls(
        uncertainty=uncertainty,
        edge_quality=table.edge_quality,
        cloud_quality=table.cloud_quality if table.cloud_graded else None,
    )


def _threshold(
    goal: Goal,
    table: Table,
    uncertainty: Array,
    front: ParetoFront,
    judged: JudgedRows | None,
    *,
    chosen_freely: bool,
    selected: int,
    seed: int,
) -> tuple[Threshold, list[str]]:
    calls = _graded(table, uncertainty)
    if isinstance(goal, MaxLoss) and judged is not None:
        return _promised_by_people(goal, table, calls, judged), [*judged.notes]
    if isinstance(goal, MaxLoss):
        return _promised(goal, calls, selected=selected, seed=seed), []
    if isinstance(goal, CloudShare):
        # A signal that was named is taken as it is; one that is chosen has to do what was asked.
        threshold = _for_share(goal.share, calls.uncertainty, SHARE_TOLERANCE if chosen_freely else None)
        got = calls.cloud_share(threshold.value)
        told = (
            f"a cloud share of {got:.1%} instead of {goal.share:.1%}: calls of equal uncertainty go the same way, and the signal has only "
            f"{np.unique(calls.uncertainty[~np.isnan(calls.uncertainty)]).size} values"
        )
        return threshold, [told] if abs(got - goal.share) > max(0.01, 0.5 / calls.n) + 1e-9 else []
    point = goal.choose(front.points)
    assert point.threshold is not None
    ends = [end for end in (front.edge, front.cloud) if all(limit.met(end) for limit in goal.limits)]
    better = [end.name for end in ends if goal.weights and goal.worth(end) > goal.worth(point) + 1e-12]
    notes = [f"by this objective, always asking the {name} does better" for name in better]
    if any(limit.metric == "quality" for limit in goal.limits):
        notes.append(
            "the quality is an expectation, not a promise: on future calls, chance alone will put it below the bound about every other "
            "time; MaxLoss(alpha=1 - quality, loss='shortfall') (--min-quality with --confidence) promises it"
        )
    source = f"best of {len(front.points)} thresholds by the objective, on {calls.n} recorded calls"
    return Threshold(value=point.threshold, source=source), notes


def _curve(goal: Goal, calls: GradedCalls) -> tuple[PromisePoint, ...]:
    """Other promises of these rows; none where the goal is no promise, or one by people's grades of some rows."""
    return promise_curve(goal, calls) if isinstance(goal, MaxLoss) and not goal.judged else ()


def _promised(goal: MaxLoss, calls: GradedCalls, *, selected: int, seed: int) -> Threshold:
    try:
        return certified_threshold(goal, calls)
    except UnmetPromiseError as error:
        instead = outlook(goal, calls, seed=seed)
        held_back = (
            f"\n{selected} more rows were held back to choose the signal; none are with --signal NAME (signal=), for a signal that you chose "
            "before you looked at these rows"
            if selected
            else ""
        )
        msg = f"{error}{held_back}\n{instead.words}"
        raise UnmetPromiseError(msg, instead=instead.to_dict()) from error


def _promised_by_people(goal: MaxLoss, table: Table, calls: GradedCalls, judged: JudgedRows) -> Threshold:
    filled, grid = calls.grid()
    cloud = np.ones(calls.n) if calls.cloud_quality is None else calls.cloud_quality
    value, promise = certified_judged(
        filled,
        judged=Grades(edge=calls.edge_quality, cloud=cloud),
        human=judged.grades_of(table.rows),
        alpha=goal.alpha,
        delta=goal.delta,
        loss=goal.loss_on(calls),
        grid=grid,
    )
    return Threshold(value=value, source=promise.words, certificate=promise)


def _fine_enough(goal: Goal, table: Table, columns: tuple[str, ...]) -> tuple[tuple[str, ...], list[str]]:
    """The columns whose values are fine enough for a cloud share, and a note on the others; all columns if none is."""
    if not isinstance(goal, CloudShare):
        return columns, []

    def reaches(name: str) -> bool:
        try:
            # Half the tolerance, since the share is met on other rows than these.
            _for_share(goal.share, table.signal(name), SHARE_TOLERANCE / 2)
        except CalibrationError:
            return False
        return True

    fine = tuple(name for name in columns if reaches(name))
    coarse = [name for name in columns if name not in fine]
    if not fine or not coarse:
        return columns, []
    return fine, [
        f"{', '.join(coarse)} left out: too few different values to send {goal.share:.0%} of calls to the cloud"
    ]


def _for_share(share: float, uncertainty: Array, tolerance: float | None) -> Threshold:
    known = uncertainty[~np.isnan(uncertainty)]
    missing = uncertainty.size - known.size
    return Threshold.for_cloud_share(known.tolist(), share=share, always=missing, tolerance=tolerance)
