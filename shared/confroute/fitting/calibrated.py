"""Whether the probability that the edge is wrong can be believed: before calibration, and after it on other calls."""

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
    """How often answers of a predicted probability of being wrong are wrong.

    Attributes
    ----------
    words : str
        How the probability came about.
    n : int
        Rows.
    ece : float in [0, 1] or None
        Expected calibration error; see `confroute.stats.metrics.ece`. None for no rows.
    reliability : tuple of Bin
        By ascending probability.
    """

    words: str
    n: int
    ece: float | None
    reliability: tuple[Bin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """P(edge wrong) by the chosen signal on rows that it was not chosen on.

    Attributes
    ----------
    before : Reliability or None
        Of the uncertainty read as a probability as it is; None where its unit is no probability's.
    after : Reliability or None
        Of the calibrated probability, on rows that the calibration has not seen; None where there are too few.
    """

    before: Reliability | None
    after: Reliability | None


def calibration_of(choice: SignalChoice, table: Table, uncertainty: Array, *, seed: int = 0) -> Calibration:
    """Reliability before and after calibration.

    Parameters
    ----------
    choice : SignalChoice
    table : Table
        Rows that had no part in the choice.
    uncertainty : array of float, shape (n,)
        The chosen signal's; NaN where it was not measured: these rows are left out.
    seed : int
        Of the folds.

    Notes
    -----
    A single signal is calibrated by isotonic regression fitted on the other folds of these rows; a combination is the one that the
    policy holds, which was fitted on none of them.
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
    """An uncertainty read as a probability of being wrong, and how; None where its values are no probabilities.

    Nats are negative log-probabilities, which leave 1 - exp(-u) for everything else; what lies in [0, 1] is taken as it is.

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
