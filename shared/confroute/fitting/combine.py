"""Fit a combination of signals on recorded calls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError
from confroute.signals.base import Signal
from confroute.signals.combined import Combined, Decides, LogisticCalibrator, Member
from confroute.stats.isotonic import MonotoneInterpolator, fit_isotonic
from confroute.stats.logistic import ridge_logistic

Array = npt.NDArray[np.float64]
LEAST_ROWS = 50
_KNOTS = 41
_PENALTY = 1.0


def fit_combined(
    signals: Mapping[str, Signal],
    uncertainty: npt.ArrayLike,
    edge_quality: npt.ArrayLike,
    cloud_quality: npt.ArrayLike | None = None,
    *,
    decides: Decides | None = None,
) -> Combined:
    """Fit a combination that outputs P(edge wrong) and, with graded clouds, the expected gain.

    Parameters
    ----------
    signals : mapping of str to Signal
        By column, cheapest first.
    uncertainty : array of float, shape (n, signals)
        NaN where a signal could not be measured.
    edge_quality, cloud_quality : array of float in [0, 1], shape (n,)
    decides : {"gain", "wrong"}, optional
        "gain" by default if the cloud is graded.

    Returns
    -------
    Combined

    Raises
    ------
    CalibrationError
        Fewer than 50 rows, columns of different lengths, or a signal that was never measured.

    Notes
    -----
    Each signal enters by its rank among the recorded values or, if it is missing, by a constant of its own. A logistic
    regression with an L2 penalty of 1 weighs the ranks, and an isotonic regression on top calibrates the result (Zadrozny
    and Elkan, KDD 2002). The gain is fitted as (1 + cloud - edge) / 2. `mean_rank`, the average of the ranks, is a
    baseline.
    """
    u = np.asarray(uncertainty, dtype=np.float64)
    edge = np.asarray(edge_quality, dtype=np.float64)
    cloud = None if cloud_quality is None else np.asarray(cloud_quality, dtype=np.float64)
    if u.ndim != 2 or u.shape != (edge.size, len(signals)) or (cloud is not None and cloud.size != edge.size):
        msg = f"uncertainties of shape {u.shape} for {len(signals)} signals and {edge.size} graded rows: expected one per signal and row"
        raise CalibrationError(msg)
    if edge.size < LEAST_ROWS:
        msg = f"{edge.size} rows are too few to combine signals: expected at least {LEAST_ROWS}"
        raise CalibrationError(msg)
    ranks = [_rank(name, u[:, at]) for at, name in enumerate(signals)]
    features, absent = _features(u, ranks)
    return Combined(
        members=tuple(
            Member(name=name, signal=signal, rank=rank)
            for (name, signal), rank in zip(signals.items(), ranks, strict=True)
        ),
        wrong=_calibrator(features, absent, 1.0 - edge, low=0.0),
        gain=None if cloud is None else _calibrator(features, absent, cloud - edge, low=-1.0),
        decides=decides or ("wrong" if cloud is None else "gain"),
    )


def predicted(combined: Combined, uncertainty: npt.ArrayLike) -> tuple[Array, Array | None]:
    """Predict P(edge wrong) and the expected gain of rows; NaN in both where no signal was measured."""
    u = np.asarray(uncertainty, dtype=np.float64)
    wrong, gain = np.full(len(u), np.nan), np.full(len(u), np.nan)
    # Number by number, as the policy computes it of one call: a threshold is one of these values.
    for at, row in enumerate(u.tolist()):
        if all(map(math.isnan, row)):
            continue
        ranks = _ranks(combined, row)
        wrong[at] = combined.wrong.value(combined.wrong.logit(ranks))
        if combined.gain is not None:
            gain[at] = combined.gain.value(combined.gain.logit(ranks))
    return wrong, None if combined.gain is None else gain


def uncalibrated(combined: Combined, uncertainty: npt.ArrayLike) -> Array:
    """Predict P(edge wrong) by the logistic regression alone, without the isotonic one; NaN as in `predicted`."""
    rows = np.asarray(uncertainty, dtype=np.float64)
    return np.array(
        [
            float("nan")
            if all(map(math.isnan, row))
            else combined.wrong.logistic(combined.wrong.logit(_ranks(combined, row)))
            for row in rows.tolist()
        ]
    )


def _ranks(combined: Combined, row: Sequence[float]) -> list[float | None]:
    return [
        None if math.isnan(value) else member.rank(value)
        for value, member in zip(row, combined.members, strict=True)
    ]


def crossfit_combined(
    signals: Mapping[str, Signal],
    uncertainty: npt.ArrayLike,
    edge_quality: npt.ArrayLike,
    cloud_quality: npt.ArrayLike | None = None,
    *,
    folds: int = 5,
    seed: int = 0,
) -> tuple[Array, Array | None]:
    """Predict P(edge wrong) and the expected gain of each row by a combination fitted on the other folds.

    Raises
    ------
    CalibrationError
        The other folds hold too few rows, or no value of a signal; see `fit_combined`.
    """
    u = np.asarray(uncertainty, dtype=np.float64)
    edge = np.asarray(edge_quality, dtype=np.float64)
    cloud = None if cloud_quality is None else np.asarray(cloud_quality, dtype=np.float64)
    fold = np.random.default_rng(seed).permutation(edge.size) % folds
    wrong = np.full(edge.size, np.nan)
    gain = None if cloud is None else np.full(edge.size, np.nan)
    for held_out in range(folds):
        apart = fold == held_out
        others = None if cloud is None else cloud[~apart]
        combined = fit_combined(signals, u[~apart], edge[~apart], others)
        wrong[apart], gains = predicted(combined, u[apart])
        if gain is not None and gains is not None:
            gain[apart] = gains
    return wrong, gain


def mean_rank(uncertainty: npt.ArrayLike) -> Array:
    """Average each row's ranks, as a baseline (mean fusion); NaN where no signal was measured.

    Examples
    --------
    >>> mean_rank([[0.1, 5.0], [0.2, 9.0]]).tolist()
    [0.25, 0.75]
    """
    u = np.asarray(uncertainty, dtype=np.float64)
    features, absent = _features(u, [_rank(str(at), u[:, at]) for at in range(u.shape[1])])
    measured = (~absent).sum(axis=1)
    total = np.where(absent, 0.0, features + 0.5).sum(axis=1)
    return np.where(measured > 0, total / np.maximum(measured, 1), np.nan)


def _rank(name: str, column: Array) -> MonotoneInterpolator:
    """Mid-ranks of the distinct values, reduced to a few knots."""
    known = np.sort(column[~np.isnan(column)])
    if known.size == 0 or not np.isfinite(known).all():
        msg = f"signal {name!r} was measured on {known.size} rows, not all of them finite: leave it out"
        raise CalibrationError(msg)
    at = np.unique(known)
    ranks = (np.searchsorted(known, at, "left") + np.searchsorted(known, at, "right")) / (2 * known.size)
    if at.size > _KNOTS:
        places = np.unique(np.searchsorted(ranks, np.linspace(ranks[0], ranks[-1], _KNOTS)))
        at, ranks = at[places], ranks[places]
    return MonotoneInterpolator(at=tuple(at.tolist()), values=tuple(ranks.tolist()))


def _features(u: Array, ranks: list[MonotoneInterpolator]) -> tuple[Array, npt.NDArray[np.bool_]]:
    absent = np.isnan(u)
    columns = [np.interp(u[:, at], curve.at, curve.values) - 0.5 for at, curve in enumerate(ranks)]
    return np.where(absent, 0.0, np.stack(columns, axis=1)), absent


def _calibrator(
    features: Array, absent: npt.NDArray[np.bool_], target: Array, *, low: float
) -> LogisticCalibrator:
    """Fit one calibrator; `target` lies in [low, 1]."""
    scaled = (target - low) / (1.0 - low)
    ever = absent.any(axis=0)
    design = np.column_stack([features, absent[:, ever].astype(np.float64)])
    intercept, weights = ridge_logistic(design, scaled, penalty=_PENALTY)
    logits = intercept + design @ weights
    width = features.shape[1]
    missing = np.zeros(width)
    missing[ever] = weights[width:]
    return LogisticCalibrator(
        intercept=intercept,
        weights=tuple(weights[:width].tolist()),
        absent=tuple(missing.tolist()),
        calibrated=_isotonic(logits, target),
        low=low,
    )


def _isotonic(logits: Array, target: Array) -> MonotoneInterpolator:
    """Isotonic regression with a knot in the middle of every block and linear in between, so that few rows tie."""
    fitted = fit_isotonic(logits, target)
    values, first = np.unique(fitted.values, return_index=True)
    ends = np.append(first[1:], fitted.at.size)
    middles = [float(fitted.at[a:b].mean()) for a, b in zip(first.tolist(), ends.tolist(), strict=True)]
    return MonotoneInterpolator(at=tuple(middles), values=tuple(values.tolist()))
