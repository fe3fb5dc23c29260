"""What another threshold or policy would have given on logged traffic, without a new call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError

Floats: TypeAlias = npt.NDArray[np.float64]
Method: TypeAlias = Literal["dr", "ips", "snips"]
_BINS = 10
_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Logged:
    """One logged call.

    Attributes
    ----------
    uncertainty : float
        Of the draft.
    edge, cloud : float or None
        What each answer was worth (quality, or quality less its price); None where it was not seen.
    edge_propensity, cloud_propensity : float in [0, 1]
        Probability, given the uncertainty, with which each was seen: 1 for drafts, and for the cloud's answer 1 where
        the call was escalated and the audited share where it was kept.
    """

    uncertainty: float
    edge: float | None
    cloud: float | None
    edge_propensity: float = 1.0
    cloud_propensity: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OffPolicy:
    """An estimate of a policy's mean worth.

    Attributes
    ----------
    value, low, high : float
        The estimate and its confidence interval.
    n : int
        Logged calls.
    effective_n : float
        Calls without weights that would say as much.
    """

    value: float
    low: float
    high: float
    n: int
    effective_n: float


def off_policy(
    logged: Sequence[Logged],
    keep: float | Callable[[float], float],
    *,
    method: Method = "dr",
    confidence: float = 0.95,
) -> OffPolicy:
    """Estimate the mean worth of a policy that was not run.

    Parameters
    ----------
    logged : sequence of Logged
        At least 50 calls.
    keep : float or callable
        A threshold, or the probability of keeping an answer of that uncertainty.
    method : {"dr", "ips", "snips"}
        Doubly robust, inverse propensity, or self-normalised inverse propensity. "dr" fits the worth of each answer
        to the uncertainty (means in ten bins, cross-fitted over five folds), so that weights only correct its errors.
    confidence : float in (0, 1)

    Raises
    ------
    CalibrationError
        Fewer than 50 calls, or a call for which the policy wants an answer that could never have been seen.

    Notes
    -----
    Dudik, Langford and Li (2011, arXiv 1103.4601); intervals by the normal approximation, for "snips" by the delta
    method. They cover the estimate's own chance, not traffic that has changed since.

    Examples
    --------
    >>> rows = [Logged(uncertainty=k / 100, edge=float(k < 70), cloud=1.0) for k in range(100)]
    >>> round(off_policy(rows, 0.495, method="ips").value, 3)
    1.0
    """
    if len(logged) < 50:
        msg = f"{len(logged)} logged calls: expected at least 50"
        raise CalibrationError(msg)
    uncertainty = np.array([row.uncertainty for row in logged])
    kept = _kept(keep, uncertainty)
    terms, weights = np.zeros(len(logged)), np.zeros(len(logged))
    for name, wanted in (("edge", kept), ("cloud", 1 - kept)):
        term, weight = _arm(logged, name, wanted, uncertainty, method)
        terms, weights = terms + term, weights + weight
    return _summary(terms, weights, method, confidence)


def _kept(keep: float | Callable[[float], float], uncertainty: Floats) -> Floats:
    if callable(keep):
        return np.array([float(keep(float(value))) for value in uncertainty])
    return (uncertainty <= keep).astype(np.float64)


def _arm(
    logged: Sequence[Logged], name: str, wanted: Floats, uncertainty: Floats, method: Method
) -> tuple[Floats, Floats]:
    """Each call's share of the estimate from one tier's answers, and its weight."""
    found = [getattr(row, name) for row in logged]
    seen = np.array([value is not None for value in found])
    worth = np.array([0.0 if value is None else value for value in found])
    propensity = np.array([getattr(row, f"{name}_propensity") for row in logged])
    impossible = int(((wanted > 0) & (propensity <= 0)).sum())
    if impossible:
        msg = (
            f"the policy wants the {name}'s answer in {impossible} of {len(logged)} calls that could never show one "
            "(propensity 0): audit a share of all kept answers, or estimate a policy closer to the logged one"
        )
        raise CalibrationError(msg)
    weight = np.where(seen & (wanted > 0), wanted / np.where(propensity > 0, propensity, 1.0), 0.0)
    if method != "dr":
        return weight * worth, weight
    model = _cross_fitted(uncertainty, worth, seen)
    return wanted * model + weight * (worth - model), weight


def _cross_fitted(uncertainty: Floats, worth: Floats, seen: npt.NDArray[np.bool_]) -> Floats:
    """The mean worth of a bin of uncertainties, from the other folds."""
    cuts = np.quantile(uncertainty, np.linspace(0, 1, _BINS + 1)[1:-1])
    bins = np.searchsorted(cuts, uncertainty, side="left")
    folds = np.arange(uncertainty.size) % _FOLDS
    model = np.zeros(uncertainty.size)
    for fold in range(_FOLDS):
        train = seen & (folds != fold)
        overall = worth[train].mean() if train.any() else 0.0
        for each in range(_BINS):
            here = train & (bins == each)
            model[(folds == fold) & (bins == each)] = worth[here].mean() if here.any() else overall
    return model


def _summary(terms: Floats, weights: Floats, method: Method, confidence: float) -> OffPolicy:
    n, total = terms.size, float(weights.sum())
    if method == "snips":
        if not total:
            msg = f"none of the answers that the policy wants was seen in {n} calls: log more, or take method 'dr'"
            raise CalibrationError(msg)
        value = float(terms.sum() / total)
        deviations = (terms - value * weights) / (total / n)
    else:
        value = float(terms.mean())
        deviations = terms - value
    half = NormalDist().inv_cdf((1 + confidence) / 2) * float(np.sqrt((deviations**2).mean() / n))
    effective = total**2 / float((weights**2).sum()) if total else 0.0
    return OffPolicy(value=value, low=value - half, high=value + half, n=n, effective_n=effective)
