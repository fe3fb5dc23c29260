"""How reliable the predicted probability that the edge is wrong is, before calibration and after it on other calls."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from confroute.fitting.choice import SignalChoice
from confroute.fitting.combine import predicted, uncalibrated
from confroute.fitting.table import Array, Table
from confroute.recording.evaluation import Bin, reliability
from confroute.signals import Combined
from confroute.signals.base import Range
from confroute.stats.isotonic import crossfit_probability
from confroute.stats.metrics import ece


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How often answers are wrong, compared with the predicted probability that they are.

    Attributes
    ----------
    words : str
        How the probability was obtained.
    n : int
        Number of rows.
    ece : float in [0, 1] or None
        Expected calibration error; see `confroute.stats.metrics.ece`. None without rows.
    reliability : tuple of Bin
        By ascending probability.
    """

    words: str
    n: int
    ece: float | None
    reliability: tuple[Bin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Reliability of P(edge wrong) from the chosen signal, on rows that were not used to choose it.

    Attributes
    ----------
    before : Reliability or None
        With the uncertainty itself taken as a probability; None if its unit does not allow that.
    after : Reliability or None
        With the calibrated probability, on rows that were not used to calibrate; None if there are too few rows.
    """

    before: Reliability | None
    after: Reliability | None


def calibration_of(choice: SignalChoice, table: Table, uncertainty: Array, *, seed: int = 0) -> Calibration:
    """Measure the reliability before and after calibration.

    Parameters
    ----------
    choice : SignalChoice
    table : Table
        Rows that were not used to choose the signal.
    uncertainty : array of float, shape (n,)
        Of the chosen signal; rows with NaN, where it was not measured, are left out.
    seed : int
        Seed of the folds.

    Notes
    -----
    A single signal is calibrated by isotonic regression, cross-fitted on these rows. A combination is taken as the policy
    holds it: it was fitted on other rows.
    """
    known = ~np.isnan(uncertainty)
    wrong = 1.0 - table.edge_quality[known]
    raw: Array | None
    calibrated: Array | None
    if isinstance(choice.signal, Combined):
        rows = table.matrix([member.name for member in choice.signal.members])[known]
        raw, words = uncalibrated(choice.signal, rows), "logistic regression alone"
        calibrated, how = np.clip(predicted(choice.signal, rows)[0], 0.0, 1.0), "isotonic regression on top"
    else:
        raw, words = as_probability(uncertainty[known], choice.signal.range)
        calibrated = crossfit_probability(uncertainty[known], wrong, seed=seed)
        how = "isotonic regression, cross-fitted"
    return Calibration(before=_reliability(raw, wrong, words), after=_reliability(calibrated, wrong, how))


def as_probability(uncertainty: Array, span: Range) -> tuple[Array | None, str]:
    """Read an uncertainty as a probability of being wrong, and say how; None if its values cannot be one.

    Nats are negative log-probabilities, so the probability of being wrong is 1 - exp(-u). Values in [0, 1] are taken as they
    are.

    Examples
    --------
    >>> as_probability(np.array([0.0, 100.0]), Range(unit="nats"))
    (array([0., 1.]), '1 - exp(-uncertainty)')
    >>> as_probability(np.array([0.0, 100.0]), Range(unit="perplexity"))
    (None, '')
    """
    if span.unit == "nats":
        return 1.0 - np.exp(-uncertainty), "1 - exp(-uncertainty)"
    if uncertainty.size and uncertainty.min() >= 0 and uncertainty.max() <= 1:
        return uncertainty, "the uncertainty as it is"
    return None, ""


def _reliability(probability: Array | None, wrong: Array, words: str) -> Reliability | None:
    if probability is None or not wrong.size:
        return None
    return Reliability(
        words=words, n=wrong.size, ece=ece(probability, wrong), reliability=reliability(probability, wrong)
    )
