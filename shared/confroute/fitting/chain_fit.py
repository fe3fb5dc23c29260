"""A policy for a run of several models: its tiers, one signal, and thresholds for every step under one goal and one promise."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from confroute.certificate import Certificate, Loss
from confroute.errors import CalibrationError, UnmetPromiseError
from confroute.fitting.adverse import AdverseSelection, adverse_selection
from confroute.fitting.chain import Chain, Thresholds, chain_of, comparable, tables_of
from confroute.fitting.chain_choice import (
    ChainResult,
    Worth,
    chosen_chain,
    compared,
    half,
    least_cost,
    least_loss,
)
from confroute.fitting.choice import (
    SignalChoice,
    chosen,
    live_columns,
    named,
    replay_only_notes,
    samples_of,
)
from confroute.fitting.front import ParetoFront
from confroute.fitting.goal import CloudShare, Goal
from confroute.fitting.objective import Objective
from confroute.fitting.point import Point, fields_of, metrics, values_of
from confroute.fitting.promise import MaxLoss, PromisePoint, curve_json
from confroute.fitting.rates import Rates
from confroute.fitting.table import Table
from confroute.policy import Cascade, Gate, Threshold
from confroute.policy.gate import TierThreshold
from confroute.policy.guarantee import certified_policies
from confroute.policy.threshold import SHARE_TOLERANCE
from confroute.recording import Row
from confroute.recording.extraction import check_extraction
from confroute.recording.packed import picked
from confroute.stats.arrays import Array, Flags
from confroute.stats.bootstrap import bootstrap_ci
from confroute.types import JSON, TIERS

# Promises are sought in steps of a thousandth, as they are given on the command line.
_STEPS = 1000
_CURVE = 100
Fronts: TypeAlias = Sequence[tuple[Chain, Sequence[Thresholds]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainFit:
    """What `fit_chain` finds; the attributes are those of `confroute.fitting.Fit`, but for these.

    Attributes
    ----------
    table, uncertainty : Table and array of float, shape (n,)
        Of the first tier's drafts, on the calls that gave the thresholds.
    rows : sequence of Row
        These calls.
    """

    policy: Cascade
    choice: SignalChoice
    table: Table
    uncertainty: Array
    rows: Sequence[Row]
    left_out: int
    front: ParetoFront
    chains: tuple[ChainResult, ...]
    adverse_selection: tuple[AdverseSelection, ...]
    promise_curve: tuple[PromisePoint, ...]
    selected_on: int
    notes: tuple[str, ...]


def fit_chain(
    rows: Sequence[Row],
    goal: Goal,
    *,
    signal: str = "auto",
    replay_only: bool = False,
    rates: Rates | None = None,
    on_unfinished: Literal["reject", "judge"] = "reject",
    seed: int = 0,
) -> ChainFit:
    """Fit a policy of two or more tiers to a run of several models; the parameters are those of `confroute.fitting.fit`.

    Raises
    ------
    UnmetPromiseError
        The rows cannot promise this loss; the message says what they can.
    CalibrationError
        The rows cannot meet the goal, or do not hold what it needs.

    Notes
    -----
    Half of the rows, drawn at random, choose the signal, the tiers and, for every chain, one sequence of thresholds along the front of
    loss and total cost. The other half takes its place in that sequence and nothing else: a promise is tested policy by policy from the
    most cautious on, by the loss of the whole chain, so that it holds however many steps there are.
    """
    loss = _checked_loss(goal, signal)
    graded = comparable(rows)
    tables, choosing = tables_of(graded, rates=rates, on_unfinished=on_unfinished), half(len(graded), seed)
    choice = _signal(tables, choosing, signal, replay_only=replay_only, seed=seed)
    whole = chain_of(tables, choice.column, sampled=samples_of(choice.signal) > 0)
    mine = whole.part(choosing)
    worth = _worth(goal, mine, loss, n=whole.n - mine.n)
    tiers = chosen_chain(mine, loss, worth, to_cloud=isinstance(goal, CloudShare), seed=seed)
    fronts = [(one.part(~choosing), one.part(choosing).front(loss)) for one in whole.subsets()]
    place = [one.tiers for one, _ in fronts].index(tiers)
    at, thresholds = _thresholds(goal, *fronts[place], seed=seed)
    rest, results = _parts(tables, ~choosing), compared(fronts, deployed=place, at=at, seed=seed)
    return ChainFit(
        policy=_policy(choice, tiers, thresholds, on_unfinished),
        choice=choice,
        table=rest[tiers[0]],
        uncertainty=rest[tiers[0]].signal(choice.column),
        rows=picked(graded, np.flatnonzero(~choosing)),
        left_out=len(rows) - len(graded),
        front=_front(fronts, place, seed),
        chains=results,
        adverse_selection=tuple(_adverse(rest, choice.column, seed)),
        promise_curve=promise_curve_of(goal, *fronts[place], seed=seed),
        selected_on=mine.n,
        notes=(
            *_about_drafts(rest, choice, tiers[0]),
            *_about_chains(results, whole.tiers),
            *_about_alone(goal, fronts, place, at),
        ),
    )


def _parts(tables: Mapping[str, Table], keep: Flags) -> dict[str, Table]:
    return {tier: table.part(keep) for tier, table in tables.items()}


def _checked_loss(goal: Goal, signal: str) -> Loss:
    """By what a threshold's harm counts; what is for two models only is refused."""
    if signal == "combined":
        msg = "combined signals work only with runs of two models, since uncertainties of different models are not comparable; name one signal, or use auto"
        raise CalibrationError(msg)
    if not isinstance(goal, MaxLoss):
        return "shortfall"
    refused = {
        "judged": goal.judged,
        "delta=None": goal.delta is None,
        "a horizon": goal.horizon not in (None, np.inf),
    }
    if given := [name for name, is_given in refused.items() if is_given]:
        msg = (
            f"{given[0]} is for runs of two models: the loss of several steps may fall as a threshold rises; for these a promise is about the "
            "long-run mean, with a confidence, by the grades as they are"
        )
        raise CalibrationError(msg)
    return goal.loss


def _signal(
    tables: Mapping[str, Table], choosing: Flags, signal: str, *, replay_only: bool, seed: int
) -> SignalChoice:
    """One signal for all steps: the one that was named, or the best on average over them; measured as live calls measure it."""
    found = _signal_of(_parts(tables, choosing), signal, replay_only=replay_only, seed=seed)
    for table in tables.values():
        check_extraction([found.signal], table.rows)
    return found


def _signal_of(tables: Mapping[str, Table], signal: str, *, replay_only: bool, seed: int) -> SignalChoice:
    first, *others = tables.values()
    if signal != "auto":
        found = named(first, signal)
        if any(named(table, signal).signal != found.signal for table in others):
            msg = f"{signal} was measured differently on other tiers' drafts: expected the same signal for all of them, with the same number of samples"
            raise CalibrationError(msg)
        return found
    lives = [
        table.columns if replay_only else live_columns(table) or table.columns for table in tables.values()
    ]
    shared = [
        name
        for name in lives[0]
        if all(
            name in live and table.signal_of(name) == first.signal_of(name)
            for table, live in zip(tables.values(), lives, strict=True)
        )
    ]
    if not shared:
        held = "; ".join(
            f"{tier}: {', '.join(live) or 'none'}" for tier, live in zip(tables, lives, strict=True)
        )
        msg = f"no signal was measured in the same way on the drafts of every tier ({held}): record the same signals, with the same number of samples, for each"
        raise CalibrationError(msg)
    scored = [chosen(table, combine=False, columns=shared, seed=seed).scores for table in tables.values()]
    scores = {name: float(np.mean([one[name] for one in scored])) for name in shared}
    best = max(scores, key=lambda name: scores[name])
    return SignalChoice(column=best, signal=first.signal_of(best), scores=scores, ece={})


def _worth(goal: Goal, whole: Chain, loss: Loss, *, n: int) -> Worth:
    """By what chains are compared: the cost of a promise, or what is lost at the total cost that the goal takes of the whole chain."""
    if isinstance(goal, MaxLoss):
        assert goal.delta is not None, "checked before"
        unit = 1000 * float(whole.answers["usd"][-1].mean())
        return least_cost(loss, alpha=goal.alpha, delta=goal.delta, n=n, unit=unit or 1.0)
    front = whole.front(loss)
    calls = whole.calls([whole.routes(front[_place(goal, whole, front)])])
    return least_loss(loss, 1000 * float(calls.usd.mean()))


def _place(goal: CloudShare | Objective, chain: Chain, front: Sequence[Thresholds]) -> int:
    """Where a goal without a promise stands on a front."""
    routes = [chain.routes(thresholds) for thresholds in front]
    if isinstance(goal, CloudShare):
        shares = chain.calls(routes).cloud.mean(axis=1)
        return int(np.abs(shares - goal.share).argmin())
    points = _points(chain, front)
    best = goal.choose(points)
    return next(at for at, point in enumerate(points) if point is best)


def _thresholds(
    goal: Goal, chain: Chain, front: Sequence[Thresholds], *, seed: int
) -> tuple[int, list[Threshold]]:
    """The place of the goal's thresholds on a front, and they, with where they come from and what is promised."""
    promise = None
    if isinstance(goal, MaxLoss):
        at, promise = _promised(goal, chain, front, seed=seed)
        source = promise.words
    else:
        at = _place(goal, chain, front)
        source = f"best of {len(front)} by the objective, on {chain.n} recorded calls"
    if isinstance(goal, CloudShare):
        source = _share_words(goal, chain, front[at])
    source = f"{source} of {chain.words}"
    return at, [Threshold(value=value, source=source, certificate=promise) for value in front[at]]


def _share_words(goal: CloudShare, chain: Chain, thresholds: Thresholds) -> str:
    """Where the thresholds of a cloud share come from; one that is too far from the goal is refused."""
    got = float(chain.calls([chain.routes(thresholds)]).cloud.mean())
    if abs(got - goal.share) > SHARE_TOLERANCE:
        msg = (
            f"a cloud share of {goal.share:g} cannot be met to {SHARE_TOLERANCE:g} by {chain.words}: the nearest is {got:.3f}; calls of equal "
            "uncertainty go the same way, and those without any to the next tier"
        )
        raise CalibrationError(msg)
    return f"{got:.0%} cloud share on {chain.n} recorded calls"


def _promised(
    goal: MaxLoss, chain: Chain, front: Sequence[Thresholds], *, seed: int
) -> tuple[int, Certificate]:
    losses = [chain.losses(goal.loss, chain.routes(thresholds)) for thresholds in front]
    columns = [*chain.uncertainty, *chain.quality, chain.cloud_quality]
    try:
        return _certified(goal, losses, columns, seed=seed)
    except UnmetPromiseError as error:
        curve = promise_curve_of(goal, chain, front, seed=seed)
        can = "nothing can be promised on them"
        if curve:
            can = f"the smallest loss that can be promised on them is {curve[0].alpha:g}, at a cloud share of {curve[0].cloud_share:.0%}"
        instead: dict[str, JSON] = {
            "loss": goal.loss,
            "alpha": goal.alpha,
            "delta": goal.delta,
            "n": chain.n,
            "promise_curve": curve_json(curve),
            "needed": None,
        }
        msg = f"{chain.words}, with {chain.n} calibration rows: {error}\n{can}"
        raise UnmetPromiseError(msg, instead=instead) from error


def _certified(
    goal: MaxLoss, losses: Sequence[Array], columns: Sequence[Array], *, seed: int
) -> tuple[int, Certificate]:
    assert goal.delta is not None, "checked before"
    return certified_policies(losses, columns, alpha=goal.alpha, delta=goal.delta, loss=goal.loss, seed=seed)


def promise_curve_of(
    goal: Goal, chain: Chain, front: Sequence[Thresholds], *, seed: int = 0
) -> tuple[PromisePoint, ...]:
    """What else these calls can promise, if a promise is the goal; as `confroute.fitting.promise_curve`, with the first tier's threshold."""
    if not isinstance(goal, MaxLoss):
        return ()
    routes = [chain.routes(thresholds) for thresholds in front]
    losses = [chain.losses(goal.loss, one) for one in routes]
    shares = chain.calls(routes).cloud.mean(axis=1)
    lowest = -_STEPS if goal.loss == "net" else 0

    def at(step: int) -> int | None:
        try:
            return _certified(replace(goal, alpha=step / _STEPS), losses, [chain.cloud_quality], seed=seed)[0]
        except UnmetPromiseError:
            # What is asked here is whether it can be met.
            return None

    if at(_STEPS - 1) is None:
        return ()
    low, high = lowest + 1, _STEPS - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if at(middle) is not None else (middle + 1, high)
    points: list[PromisePoint] = []
    last = -1
    for step in range(low, min(low + _CURVE, _STEPS)):
        found = at(step)
        if found is not None and found > last:
            share = float(shares[found])
            points.append(PromisePoint(alpha=step / _STEPS, threshold=front[found][0], cloud_share=share))
            last = found
    return tuple(points)


def _policy(
    choice: SignalChoice,
    tiers: Sequence[str],
    thresholds: Sequence[Threshold],
    on_unfinished: Literal["reject", "judge"],
) -> Cascade:
    own = tuple(
        TierThreshold(tier=tier, threshold=threshold)
        for tier, threshold in zip(tiers[1:-1], thresholds[1:], strict=True)
    )
    gate = Gate(signal=choice.signal, threshold=thresholds[0], by_tier=own)
    # Abstentions are among the drafts that the thresholds are fitted to, as in a fit of two models.
    return Cascade(
        tiers=tuple(tiers),
        gates=(gate,),
        on_no_signal="cloud",
        on_unfinished=on_unfinished,
        lacking=None,
    )


def _points(chain: Chain, front: Sequence[Thresholds], *, name: str = "threshold") -> list[Point]:
    """Every point of a front, without intervals."""
    calls = chain.calls([chain.routes(thresholds) for thresholds in front])
    return [
        Point(name=name, threshold=thresholds[0] if thresholds else None, **fields_of(values))
        for thresholds, values in zip(front, values_of(calls), strict=True)
    ]


def _front(fronts: Fronts, place: int, seed: int) -> ParetoFront:
    """The deployed chain's front with both ends of the whole chain."""
    chain, front = fronts[place]
    whole = fronts[-1][0]
    edge, cloud = (
        _alone(whole.of([tier]), name, seed)
        for tier, name in zip((whole.tiers[0], whole.tiers[-1]), TIERS, strict=True)
    )
    return ParetoFront(points=tuple(_points(chain, front)), edge=edge, cloud=cloud, oracle=(), n=chain.n)


def _alone(model: Chain, name: str, seed: int) -> Point:
    (point,) = _points(model, [()], name=name)
    calls = model.calls([model.routes(())])
    spreads = {
        key: bootstrap_ci(np.mean, one.per_call(calls)[0], seed=seed)
        for key, one in metrics().items()
        if one.interval and point.known(key) is not None
    }
    return replace(point, intervals={key: ends for key, ends in spreads.items() if ends is not None})


def _adverse(tables: Mapping[str, Table], column: str, seed: int) -> Iterator[AdverseSelection]:
    for tier, table in tables.items():
        found = adverse_selection(table.signal(column), table.cloud_quality, tier=tier, seed=seed)
        if found is not None:
            yield found


def _about_drafts(tables: Mapping[str, Table], choice: SignalChoice, first: str) -> Iterator[str]:
    """Which drafts no threshold keeps, and what of the signal a live call does not have."""
    for tier, table in tables.items():
        if lost := int(np.isnan(table.signal(choice.column)).sum()):
            yield f"{lost} of {table.n} drafts of {tier} failed, are not whole, or were not measured by {choice.column}: they go to the next tier"
    yield from replay_only_notes(choice.signal, tables[first])


def _about_chains(results: Sequence[ChainResult], tiers: Sequence[str]) -> Iterator[str]:
    """Which models the deployed chain leaves out, and what it has beyond the best pair."""
    deployed = next(one for one in results if one.deployed)
    if left := [tier for tier in tiers if tier not in deployed.tiers]:
        whole = results[-1]
        yield (
            f"{', '.join(left)} left out: on the calls that chose the chain, {whole.name} was not better than {deployed.name} at equal total "
            f"cost{_by(whole, deployed.name)}"
        )
        return
    pairs = [one for one in results if len(one.tiers) == 2 and one.quality is not None]
    if len(tiers) > 2 and pairs:
        best = max(pairs, key=lambda one: one.quality or 0.0)
        yield f"the best pair at this cost is {best.name}{_by(best, deployed.name)}"


def _about_alone(goal: Goal, fronts: Fronts, place: int, at: int) -> Iterator[str]:
    """Which model alone does better by an objective."""
    if not isinstance(goal, Objective) or not goal.weights:
        return
    worth = goal.worth(_points(*fronts[place])[at])
    for model, front in fronts:
        if len(model.tiers) == 1:
            (alone,) = _points(model, front)
            if all(limit.met(alone) for limit in goal.limits) and goal.worth(alone) > worth + 1e-12:
                yield f"by this objective, always asking the {model.tiers[0]} does better"


def _by(other: ChainResult, name: str) -> str:
    if other.gain is None:
        return ""
    ends = "" if other.gain_ci is None else f" [{other.gain_ci[0]:+.3f}, {other.gain_ci[1]:+.3f}]"
    return f"; on the other calls {name} has {other.gain:+.3f}{ends} of quality on it"
