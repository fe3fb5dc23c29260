"""Win rates corrected for what the judge gets wrong, with intervals."""

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
        Ends of the interval at `level`.
    se : float
        Standard error, before anything is clipped to [0, 1].
    level : float
    """

    value: float
    low: float
    high: float
    se: float
    level: float = 0.95

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
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
    """True rate behind a judge's yes-or-no verdicts, from its sensitivity and specificity on gold items.

    Parameters
    ----------
    judged : array of 0 and 1, shape (n,)
        The judge's verdicts ("a wins") on items without a human label.
    gold : array of 0 and 1, shape (m,)
        Human labels of other items, of both kinds.
    judged_gold : array of 0 and 1, shape (m,)
        The judge's verdicts on those.
    level : float in (0, 1)

    Returns
    -------
    Rate
        theta = (p + q0 - 1) / (q0 + q1 - 1) with sensitivity q1 and specificity q0 (Rogan and Gladen, American Journal of
        Epidemiology 107, 1978); variance [p(1-p)/n + (1-theta)^2 q0(1-q0)/m0 + theta^2 q1(1-q1)/m1] / (q0+q1-1)^2.

    Raises
    ------
    CalibrationError
        The judge is no better than chance on the gold items, or they are all of one kind: nothing can be corrected.
    PolicyError
        Values other than 0 and 1, or arrays of different length.

    Examples
    --------
    >>> gold, said = [1] * 50 + [0] * 50, [1] * 45 + [0] * 5 + [1] * 10 + [0] * 40
    >>> round(rogan_gladen([1] * 60 + [0] * 40, gold=gold, judged_gold=said).value, 3)
    0.571
    """
    verdicts, truth, seen = _binary(judged=judged, gold=gold, judged_gold=judged_gold)
    if truth.size != seen.size:
        msg = f"{truth.size} gold labels and {seen.size} verdicts on them: expected one each"
        raise PolicyError(msg)
    positives = int(truth.sum())
    negatives = truth.size - positives
    if not positives or not negatives or not verdicts.size:
        msg = f"{positives} gold wins, {negatives} gold losses, {verdicts.size} judged items: expected some of each"
        raise CalibrationError(msg)
    q1, q0 = float(seen[truth == 1].mean()), float(1 - seen[truth == 0].mean())
    informed = q0 + q1 - 1
    if informed <= 0:
        msg = (
            f"sensitivity {q1:.3f} and specificity {q0:.3f} of the judge sum to {q0 + q1:.3f}: it is no better than "
            "chance on the gold items, so that its verdicts tell nothing about the rate"
        )
        raise CalibrationError(msg)
    p = float(verdicts.mean())
    theta = (p + q0 - 1) / informed
    weight = min(1.0, max(0.0, theta))
    variance = (
        p * (1 - p) / verdicts.size
        + (1 - weight) ** 2 * q0 * (1 - q0) / negatives
        + weight**2 * q1 * (1 - q1) / positives
    ) / informed**2
    return _rate(theta, variance, level)


def prediction_powered(
    judged: npt.ArrayLike, *, gold: npt.ArrayLike, judged_gold: npt.ArrayLike, level: float = 0.95
) -> Rate:
    """Mean of human labels from few of them and many judgements (Angelopoulos et al., arXiv 2301.09633).

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
        mean(judged) + mean(gold - judged_gold), variance s^2(judged)/n + s^2(gold - judged_gold)/m. Right whatever the
        judge is worth: a bad one only makes the interval wide.

    Raises
    ------
    PolicyError
        Fewer than 2 items of either kind, arrays of different length, values outside [0, 1].

    Examples
    --------
    >>> round(prediction_powered([1, 1, 0, 1], gold=[1, 0, 0], judged_gold=[1, 1, 0]).value, 3)
    0.417
    """
    many, truth, seen = (
        _shares(name, given) for name, given in zip(_NAMES, (judged, gold, judged_gold), strict=True)
    )
    if truth.size != seen.size or truth.size < 2 or many.size < 2:
        msg = (
            f"{many.size} judged items, {truth.size} gold labels, {seen.size} verdicts on them: expected 2 or more of each, "
            "and as many verdicts as gold labels"
        )
        raise PolicyError(msg)
    rectifier = truth - seen
    variance = many.var(ddof=1) / many.size + rectifier.var(ddof=1) / truth.size
    return _rate(float(many.mean() + rectifier.mean()), float(variance), level)


_NAMES = ("judged", "gold", "judged_gold")


def _shares(name: str, given: npt.ArrayLike) -> npt.NDArray[np.float64]:
    values = np.asarray(given, dtype=np.float64)
    if values.ndim != 1 or not ((values >= 0) & (values <= 1)).all():
        msg = (
            f"{name} has shape {values.shape} or values outside [0, 1]: expected one number in [0, 1] an item"
        )
        raise PolicyError(msg)
    return values


def _binary(**named: npt.ArrayLike) -> list[npt.NDArray[np.float64]]:
    found = {name: _shares(name, values) for name, values in named.items()}
    for name, values in found.items():
        if not np.isin(values, (0.0, 1.0)).all():
            msg = f"{name} holds values other than 0 and 1: leave ties out, or use prediction_powered, which takes 0.5"
            raise PolicyError(msg)
    return [*found.values()]
