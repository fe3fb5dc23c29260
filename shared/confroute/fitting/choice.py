"""Choose the signal that a policy decides by: the best single one, or a combination if that is better."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError
from confroute.fitting.combine import crossfit_combined, fit_combined, predicted
from confroute.fitting.table import Array, Table
from confroute.signals import Combined, Recorded, Signal
from confroute.stats.isotonic import crossfit_probability
from confroute.stats.metrics import apgr, ece

Order: TypeAlias = "npt.NDArray[np.intp]"
LEAST_TO_COMBINE = 100
_MOST_MEMBERS = 4
# With fewer, a fold could hold no measured row at all.
_LEAST_MEASURED = 20
# A smaller gain is within the noise of the rows, and a single signal is easier to understand.
_WORTH_IT = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalChoice:
    """The chosen signal and its competitors.

    Attributes
    ----------
    column : str
        Its column in recorded runs, or "combined".
    signal : Signal
    scores : mapping of str to float
        APGR of every candidate on the rows used to choose; that of the combination is out of fold.
    ece : mapping of str to float
        Expected calibration error of P(edge wrong) on these rows, out of fold: of the best single signal with isotonic
        regression, and of the combination.
    """

    column: str
    signal: Signal
    scores: dict[str, float]
    ece: dict[str, float]


def uncertainty_of(choice: SignalChoice, table: Table) -> Array:
    """Compute the chosen signal's value on each row; NaN where it was not measured."""
    if not isinstance(choice.signal, Combined):
        return table.signal(choice.column)
    names = [member.name for member in choice.signal.members]
    wrong, gain = predicted(choice.signal, table.matrix(names))
    return wrong if gain is None or choice.signal.decides == "wrong" else gain


def named(table: Table, column: str) -> SignalChoice:
    """Choose a signal by the name of its column.

    Raises
    ------
    CalibrationError
        The rows do not hold it; the message lists the columns that they hold.
    """
    if column not in table.columns:
        rejected = int(table.rejected.sum())
        unfinished = (
            f"; {rejected} of {table.n} drafts are incomplete or empty, and no threshold keeps those: record longer answers, or fit "
            "with on_unfinished='judge' (--on-unfinished judge)"
        )
        msg = (
            f"no draft that can be kept has the signal {column!r}: expected one of {', '.join(table.columns) or 'none'}"
            f"{unfinished if rejected else ''}"
        )
        raise CalibrationError(msg)
    return SignalChoice(column=column, signal=table.signal_of(column), scores={}, ece={})


def live_columns(table: Table) -> tuple[str, ...]:
    """The recorded columns that some signal can measure on new calls too."""
    return tuple(name for name in table.columns if not isinstance(table.signal_of(name), Recorded))


def samples_of(signal: Signal) -> int:
    """The most samples that a signal draws for a call; members of a combination share theirs."""
    if isinstance(signal, Combined):
        return max(samples_of(member.signal) for member in signal.members)
    return int(getattr(signal, "n", 0))


def replay_only_notes(signal: Signal, table: Table) -> list[str]:
    """What is to be said of a signal, or members of it, that nothing measures on new calls."""
    members = [member.signal for member in signal.members] if isinstance(signal, Combined) else []
    return [
        f"{one.column} can only be replayed, since {table.live[one.column]}: replace it by a signal that can measure it before you deploy the policy"
        for one in (signal, *members)
        if isinstance(one, Recorded)
    ]


def distinct_orders(table: Table, columns: Sequence[str]) -> tuple[str, ...]:
    """The first column of each order that some of these give the calls; a column of one value gives none, unless all do."""
    first: dict[str, Order] = {}
    for name in columns:
        order = _order(table.signal(name))
        varies = order[~np.isnan(table.signal(name))].any()
        if varies and not any(np.array_equal(order, other) for other in first.values()):
            first[name] = order
    return tuple(first or columns[:1])


def chosen(
    table: Table, *, combine: bool | None = None, columns: Collection[str] | None = None, seed: int = 0
) -> SignalChoice:
    """Choose the best signal on these rows, or the combination if that is better out of fold.

    Parameters
    ----------
    table : Table
        Rows that are used for nothing else in the calibration.
    combine : bool, optional
        True always takes the combination, False never does.
    columns : collection of str, optional
        The candidates; by default every column.
    seed : int
        Seed of the folds.

    Raises
    ------
    CalibrationError
        No candidate was measured, or `combine` is True with fewer than 100 rows.
    """
    cloud = table.cloud_quality if table.cloud_graded else np.ones(table.n)
    allowed = [name for name in table.columns if columns is None or name in columns]
    scores = {column: _score(table.signal(column), table, cloud) for column in allowed}
    if not scores:
        msg = (
            f"no signal was recorded on any of {table.n} rows: record log-probabilities, samples or `signals`"
        )
        raise CalibrationError(msg)
    best = max(scores, key=lambda name: scores[name])
    errors = _single_ece(table, best, seed)
    single = SignalChoice(column=best, signal=table.signal_of(best), scores=scores, ece=errors)
    if combine is False or (combine is None and table.n < LEAST_TO_COMBINE):
        return single
    if table.n < LEAST_TO_COMBINE:
        msg = f"{table.n} rows are too few to combine signals: at least {LEAST_TO_COMBINE} are needed"
        raise CalibrationError(msg)
    return _combined(table, single, cloud, force=combine is True, seed=seed)


def _combined(table: Table, single: SignalChoice, cloud: Array, *, force: bool, seed: int) -> SignalChoice:
    names = _members(table, single.scores) or [single.column]
    signals = {name: table.signal_of(name) for name in names}
    matrix, graded = table.matrix(names), table.cloud_quality if table.cloud_graded else None
    wrong, gain = crossfit_combined(signals, matrix, table.edge_quality, graded, seed=seed)
    score = _score(wrong if gain is None else gain, table, cloud)
    scores = {**single.scores, "combined": score}
    known = ~np.isnan(wrong)
    errors = dict(single.ece)
    found = ece(np.clip(wrong[known], 0, 1), 1 - table.edge_quality[known])
    if found is not None:
        errors["combined"] = found
    if force or score > single.scores[single.column] + _WORTH_IT:
        fitted = fit_combined(signals, matrix, table.edge_quality, graded)
        return SignalChoice(column="combined", signal=fitted, scores=scores, ece=errors)
    return SignalChoice(column=single.column, signal=single.signal, scores=scores, ece=errors)


def _members(table: Table, scores: dict[str, float]) -> list[str]:
    """The best column of each family that was measured on enough rows: four at most, those without samples first.

    Of families that order the calls alike, as entropies of short answers do, one is enough.
    """
    families: dict[str, str] = {}
    orders: dict[str, Order] = {}
    for name in sorted(scores, key=lambda name: -scores[name]):
        values, family = table.signal(name), name.split(".")[0]
        if family in families or np.count_nonzero(~np.isnan(values)) < _LEAST_MEASURED:
            continue
        order = _order(values)
        if not any(np.array_equal(order, other) for other in orders.values()):
            families[family], orders[family] = name, order
    best = list(families.values())[:_MOST_MEMBERS]
    return sorted(best, key=lambda name: getattr(table.signal_of(name), "n", 0))


def _order(values: Array) -> Order:
    """The rank of each value among the distinct ones, from 0; all NaN have one rank, the highest."""
    return np.unique(values, return_inverse=True)[1]


def _score(uncertainty: Array, table: Table, cloud: Array) -> float:
    """APGR where calls that were not measured go to the cloud first, as in a policy; 0.5 if the cloud is not better."""
    measured: npt.NDArray[np.float64] = np.where(np.isnan(uncertainty), np.inf, uncertainty)
    found = apgr(measured, table.edge_quality, cloud)
    return 0.5 if found is None else found


def _single_ece(table: Table, column: str, seed: int) -> dict[str, float]:
    uncertainty = table.signal(column)
    known = ~np.isnan(uncertainty)
    wrong = 1 - table.edge_quality[known]
    probability = crossfit_probability(uncertainty[known], wrong, seed=seed)
    found = None if probability is None else ece(probability, wrong)
    return {} if found is None else {column: found}
