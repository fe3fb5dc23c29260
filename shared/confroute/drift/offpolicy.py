"""Estimates from logged traffic what another threshold or policy would have achieved, without a new call."""

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
class LoggedCall:
    """A logged call with the worth of the answers that were seen.

    Attributes
    ----------
    uncertainty : float
        The draft's uncertainty.
    edge, cloud : float or None
        Worth of each answer (quality, or quality less its price); None if the answer was not seen.
    edge_propensity, cloud_propensity : float in [0, 1]
        Probability, given the uncertainty, that each answer was seen: 1 for drafts; for the cloud's answer 1 if the
        call was escalated, and the audited share if the draft was kept.
    """

    uncertainty: float
    edge: float | None
    cloud: float | None
    edge_propensity: float = 1.0
    cloud_propensity: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OffPolicyEstimate:
    """An estimate of a policy's mean worth.

    Attributes
    ----------
    value, low, high : float
        The estimate and its confidence interval.
    n : int
        Number of logged calls.
    effective_n : float
        Number of equally weighted calls that would be as informative.
    """

    value: float
    low: float
    high: float
    n: int
    effective_n: float


def off_policy(
    logged: Sequence[LoggedCall],
    keep: float | Callable[[float], float],
    *,
    method: Method = "dr",
    confidence: float = 0.95,
) -> OffPolicyEstimate:
    """Estimate the mean worth of a policy that was not run.

    Parameters
    ----------
    logged : sequence of LoggedCall
        At least 50 calls.
    keep : float or callable
        A threshold, or a function from the uncertainty to the probability of keeping the answer.
    method : {"dr", "ips", "snips"}
        Doubly robust, inverse propensity, or self-normalised inverse propensity. "dr" fits the worth of each answer
        to the uncertainty (means in ten bins, cross-fitted over five folds), so that weights only correct its errors.
    confidence : float in (0, 1)

    Raises
    ------
    CalibrationError
        Fewer than 50 calls, or a call for which the policy needs an answer that could never have been seen.

    Notes
    -----
    Dudik, Langford and Li (2011, arXiv 1103.4601). Intervals are by the normal approximation, for "snips" by the delta
    method. They cover the estimate's sampling error, not a change of the traffic.

    Examples
    --------
    >>> rows = [LoggedCall(uncertainty=k / 100, edge=float(k < 70), cloud=1.0) for k in range(100)]
    >>> round(off_policy(rows, 0.495, method="ips").value, 3)
    1.0
    """
    if len(logged) < 50:
        msg = f"{len(logged)} logged calls: expected at least 50"
        raise CalibrationError(msg)
    uncertainty = np.array([row.uncertainty for row in logged])
    keep_probability = _keep_probability(keep, uncertainty)
    terms, weights = np.zeros(len(logged)), np.zeros(len(logged))
    for tier, probability in (("edge", keep_probability), ("cloud", 1 - keep_probability)):
        term, weight = _tier_terms(logged, tier, probability, uncertainty, method)
        terms, weights = terms + term, weights + weight
    return _summary(terms, weights, method, confidence)


def _keep_probability(keep: float | Callable[[float], float], uncertainty: Floats) -> Floats:
    if callable(keep):
        return np.array([float(keep(float(value))) for value in uncertainty])
    return (uncertainty <= keep).astype(np.float64)


def _tier_terms(
    logged: Sequence[LoggedCall], tier: str, probability: Floats, uncertainty: Floats, method: Method
) -> tuple[Floats, Floats]:
    """Each call's contribution to the estimate from one tier's answers, and its weight.

    `probability` is that with which the policy takes this tier's answer.
    """
    answers = [getattr(row, tier) for row in logged]
    seen = np.array([value is not None for value in answers])
    worth = np.array([0.0 if value is None else value for value in answers])
    propensity = np.array([getattr(row, f"{tier}_propensity") for row in logged])
    impossible = int(((probability > 0) & (propensity <= 0)).sum())
    if impossible:
        msg = (
            f"the policy needs the {tier}'s answer in {impossible} of {len(logged)} calls that could never show one "
            "(propensity 0): audit a share of all kept answers, or estimate a policy closer to the logged one"
        )
        raise CalibrationError(msg)
    weight = np.where(seen & (probability > 0), probability / np.where(propensity > 0, propensity, 1.0), 0.0)
    if method != "dr":
        return weight * worth, weight
    model = _cross_fitted_worth(uncertainty, worth, seen)
    return probability * model + weight * (worth - model), weight


def _cross_fitted_worth(uncertainty: Floats, worth: Floats, seen: npt.NDArray[np.bool_]) -> Floats:
    """Mean worth in each call's bin of uncertainties, computed from the other folds."""
    cuts = np.quantile(uncertainty, np.linspace(0, 1, _BINS + 1)[1:-1])
    bins = np.searchsorted(cuts, uncertainty, side="left")
    folds = np.arange(uncertainty.size) % _FOLDS
    model = np.zeros(uncertainty.size)
    for fold in range(_FOLDS):
        train = seen & (folds != fold)
        overall = worth[train].mean() if train.any() else 0.0
        for bin_ in range(_BINS):
            members = train & (bins == bin_)
            model[(folds == fold) & (bins == bin_)] = worth[members].mean() if members.any() else overall
    return model


def _summary(terms: Floats, weights: Floats, method: Method, confidence: float) -> OffPolicyEstimate:
    """Mean and confidence interval of the calls' contributions."""
    n, total = terms.size, float(weights.sum())
    if method == "snips":
        if not total:
            msg = f"none of the answers that the policy needs was seen in {n} calls: log more, or use method 'dr'"
            raise CalibrationError(msg)
        value = float(terms.sum() / total)
        deviations = (terms - value * weights) / (total / n)
    else:
        value = float(terms.mean())
        deviations = terms - value
    half = NormalDist().inv_cdf((1 + confidence) / 2) * float(np.sqrt((deviations**2).mean() / n))
    effective = total**2 / float((weights**2).sum()) if total else 0.0
    return OffPolicyEstimate(value=value, low=value - half, high=value + half, n=n, effective_n=effective)
