"""Corrects win rates for the judge's errors, with confidence intervals."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError, PolicyError
from confroute.types import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """An estimated rate with a normal interval.

    Attributes
    ----------
    value : float in [0, 1]
    low, high : float in [0, 1]
        Ends of the confidence interval at `level`.
    se : float
        Standard error, before the values are clipped to [0, 1].
    level : float
    """

    value: float
    low: float
    high: float
    se: float
    level: float = 0.95

    def to_dict(self) -> dict[str, JSON]:
        """Return the rate as JSON."""
        return {
            "value": round(self.value, 6),
            "ci": [round(self.low, 6), round(self.high, 6)],
            "se": round(self.se, 6),
            "level": self.level,
        }


def _rate(value: float, variance: float, level: float) -> Rate:
    if not 0 < level < 1:
        msg = f"level is {level}: expected a number between 0 and 1"
        raise PolicyError(msg)
    se = float(np.sqrt(variance))
    half = NormalDist().inv_cdf((1 + level) / 2) * se
    low, middle, high = (min(1.0, max(0.0, end)) for end in (value - half, value, value + half))
    return Rate(value=middle, low=low, high=high, se=se, level=level)


def rogan_gladen(
    judged: npt.ArrayLike, *, gold: npt.ArrayLike, judged_gold: npt.ArrayLike, level: float = 0.95
) -> Rate:
    """Estimate the true rate behind a judge's yes-or-no verdicts, from its sensitivity and specificity on gold items.

    Parameters
    ----------
    judged : array of 0 and 1, shape (n,)
        The judge's verdicts ("a wins") on items without a human label.
    gold : array of 0 and 1, shape (m,)
        Human labels of other items, some 0 and some 1.
    judged_gold : array of 0 and 1, shape (m,)
        The judge's verdicts on those items.
    level : float in (0, 1)

    Returns
    -------
    Rate
        theta = (p + q0 - 1) / (q0 + q1 - 1) with sensitivity q1 and specificity q0 (Rogan and Gladen, American Journal of
        Epidemiology 107, 1978); variance [p(1-p)/n + (1-theta)^2 q0(1-q0)/m0 + theta^2 q1(1-q1)/m1] / (q0+q1-1)^2.

    Raises
    ------
    CalibrationError
        The judge is not better than chance on the gold items, or these all have the same label, so that nothing can be
        corrected.
    PolicyError
        Values other than 0 and 1, or arrays of different length.

    Examples
    --------
    >>> gold, verdicts = [1] * 50 + [0] * 50, [1] * 45 + [0] * 5 + [1] * 10 + [0] * 40
    >>> round(rogan_gladen([1] * 60 + [0] * 40, gold=gold, judged_gold=verdicts).value, 3)
    0.571
    """
    verdicts, truth, gold_verdicts = _binary(judged=judged, gold=gold, judged_gold=judged_gold)
    if truth.size != gold_verdicts.size:
        msg = f"{truth.size} gold labels and {gold_verdicts.size} verdicts on them: expected one verdict per label"
        raise PolicyError(msg)
    positives = int(truth.sum())
    negatives = truth.size - positives
    if not positives or not negatives or not verdicts.size:
        msg = f"{positives} gold wins, {negatives} gold losses, {verdicts.size} judged items: expected at least one of each"
        raise CalibrationError(msg)
    q1, q0 = float(gold_verdicts[truth == 1].mean()), float(1 - gold_verdicts[truth == 0].mean())
    informedness = q0 + q1 - 1
    if informedness <= 0:
        msg = (
            f"sensitivity {q1:.3f} and specificity {q0:.3f} of the judge sum to {q0 + q1:.3f}, which is not better than "
            "chance: its verdicts say nothing about the rate; take another judge, or more gold items"
        )
        raise CalibrationError(msg)
    p = float(verdicts.mean())
    theta = (p + q0 - 1) / informedness
    weight = min(1.0, max(0.0, theta))
    variance = (
        p * (1 - p) / verdicts.size
        + (1 - weight) ** 2 * q0 * (1 - q0) / negatives
        + weight**2 * q1 * (1 - q1) / positives
    ) / informedness**2
    return _rate(theta, variance, level)


def prediction_powered(
    judged: npt.ArrayLike, *, gold: npt.ArrayLike, judged_gold: npt.ArrayLike, level: float = 0.95
) -> Rate:
    """Estimate the mean human label from few labels and many judgements (Angelopoulos et al., arXiv 2301.09633).

    Parameters
    ----------
    judged : array of float in [0, 1], shape (n,)
        Judgements of items without a human label; a tie may be 0.5.
    gold, judged_gold : array of float in [0, 1], shape (m,)
        Human labels, and judgements of the same items, drawn from the same population.
    level : float in (0, 1)

    Returns
    -------
    Rate
        mean(judged) + mean(gold - judged_gold), variance s^2(judged)/n + s^2(gold - judged_gold)/m. Unbiased whatever
        the judge: a bad one only makes the interval wide.

    Raises
    ------
    PolicyError
        Fewer than 2 items with or without a label, arrays of different length, or values outside [0, 1].

    Examples
    --------
    >>> round(prediction_powered([1, 1, 0, 1], gold=[1, 0, 0], judged_gold=[1, 1, 0]).value, 3)
    0.417
    """
    judgements = _unit_interval("judged", judged)
    truth, gold_judgements = _unit_interval("gold", gold), _unit_interval("judged_gold", judged_gold)
    if truth.size != gold_judgements.size or truth.size < 2 or judgements.size < 2:
        msg = (
            f"{judgements.size} judged items, {truth.size} gold labels, {gold_judgements.size} verdicts on them: expected "
            "2 or more of each, and as many verdicts as gold labels"
        )
        raise PolicyError(msg)
    rectifier = truth - gold_judgements
    variance = judgements.var(ddof=1) / judgements.size + rectifier.var(ddof=1) / truth.size
    return _rate(float(judgements.mean() + rectifier.mean()), float(variance), level)


def _unit_interval(name: str, data: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(data, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        msg = f"{name} has shape {values.shape} or values outside [0, 1]: expected one number in [0, 1] per item"
        raise PolicyError(msg)
    return values


def _binary(**arrays: npt.ArrayLike) -> list[npt.NDArray[np.float64]]:
    checked = {name: _unit_interval(name, data) for name, data in arrays.items()}
    for name, values in checked.items():
        if not np.isin(values, (0.0, 1.0)).all():
            msg = f"{name} holds values other than 0 and 1: leave ties out, or use prediction_powered, which takes 0.5"
            raise PolicyError(msg)
    return [*checked.values()]
