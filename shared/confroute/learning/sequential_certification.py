"""The statistics of learning online: thresholds are certified at a few planned looks that share one error probability."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from confroute.certificate import Certificate
from confroute.errors import CalibrationError, FormatError, PolicyError
from confroute.policy.guarantee.losses import LEAST_KEPT
from confroute.policy.threshold import Threshold
from confroute.reading import number, optional_fields, text, whole
from confroute.stats.tails import rows_needed
from confroute.types import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class LearningState:
    """What has been learned about one signal.

    Attributes
    ----------
    labels : int
        Number of labelled calls so far.
    look : int
        Number of looks so far.
    threshold : Threshold or None
        The learned threshold; None while the policy's own is in force.
    """

    labels: int = 0
    look: int = 0
    threshold: Threshold | None = None

    def to_dict(self) -> dict[str, JSON]:
        """Return the state as JSON."""
        threshold: dict[str, JSON] | None = None
        if self.threshold is not None:
            certificate = self.threshold.certificate
            threshold = {
                "value": self.threshold.value,
                "source": self.threshold.source,
                "certificate": None if certificate is None else certificate.to_dict(),
            }
        return {"labels": self.labels, "look": self.look, "threshold": threshold}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> LearningState:
        """Restore a state from the JSON of `to_dict`.

        Raises
        ------
        FormatError
            It is no such JSON; the message names the field.
        """
        stored = optional_fields(data.get("threshold"), "threshold")
        return cls(
            labels=whole(data.get("labels"), "labels"),
            look=whole(data.get("look"), "look"),
            threshold=None if stored is None else _threshold(stored),
        )


def _threshold(stored: dict[str, Any]) -> Threshold:
    certificate = optional_fields(stored.get("certificate"), "threshold.certificate")
    try:
        return Threshold(
            value=number(stored.get("value"), "threshold.value"),
            source=text(stored.get("source"), "threshold.source"),
            certificate=None if certificate is None else Certificate(**cast("dict[str, Any]", certificate)),
        )
    except (TypeError, PolicyError) as error:
        msg = f"threshold: {error}"
        raise FormatError(msg) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialCertification:
    """Certifies thresholds from growing data, so that all of them together hold with probability 1 - delta.

    Parameters
    ----------
    alpha : float in (0, 1)
        The promised bound on the mean regret over calls.
    delta : float in (0, 1)
        Probability that any threshold that is ever certified exceeds its bound.
    max_labels : int
        Number of labels after which nothing more is learned.

    Raises
    ------
    PolicyError
        `max_labels` is too small for any look to certify a threshold, or a level is out of range.

    Notes
    -----
    A look examines all labels so far. Looks happen at `max_labels` labels, half as many, a quarter and so on, down to
    the smallest number that can prove anything. Each certifies (`Threshold.certify`, long run) at delta divided by the
    number of looks, so that by the union bound *every* threshold that is ever certified keeps its bound with
    probability 1 - delta. A look that certifies nothing revokes nothing. The looks are planned beforehand, as in a
    group-sequential test; they share delta evenly as Pocock's do (Biometrika 64, 1977), without his correction for
    dependence, which would gain little here.

    Examples
    --------
    >>> SequentialCertification(alpha=0.05, delta=0.1, max_labels=2000).looks
    (125, 250, 500, 1000, 2000)
    """

    alpha: float
    delta: float
    max_labels: int

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or not 0 < self.delta < 1:
            msg = f"alpha={self.alpha}, delta={self.delta}: expected both between 0 and 1"
            raise PolicyError(msg)
        needed = self._min_labels(1)
        if self.max_labels < needed:
            msg = (
                f"{self.max_labels} labels cannot prove a regret of {self.alpha:g} with confidence {1 - self.delta:g}, even "
                f"without a loss: at least {needed} are needed"
            )
            raise PolicyError(msg)

    def _min_labels(self, looks: int) -> int:
        """The fewest labels that can prove anything at delta / `looks`."""
        return max(LEAST_KEPT, rows_needed(self.alpha, self.delta / looks, horizon=False))

    @property
    def looks(self) -> tuple[int, ...]:
        """Numbers of labels at which a look happens, ascending."""
        counts = [self.max_labels]
        while math.ceil(self.max_labels / 2 ** len(counts)) >= self._min_labels(len(counts) + 1):
            counts.append(math.ceil(self.max_labels / 2 ** len(counts)))
        return tuple(reversed(counts))

    def update(self, state: LearningState, rows: Sequence[tuple[float, float]], own: float) -> LearningState:
        """Return the state after one more label, which takes the next look if it is due.

        Parameters
        ----------
        state : LearningState
        rows : sequence of (uncertainty, regret in [0, 1])
            All labels, the new one last.
        own : float
            The policy's own threshold.
        """
        looks = self.looks
        if state.look >= len(looks) or len(rows) < looks[state.look]:
            return replace(state, labels=len(rows))
        look = state.look + 1
        threshold = self._certify(rows, look, len(looks))
        if threshold is None:
            certified = state.threshold is not None and state.threshold.certificate is not None
            threshold = state.threshold if certified else self._tighten(rows, own)
        return LearningState(labels=len(rows), look=look, threshold=threshold)

    def _certify(self, rows: Sequence[tuple[float, float]], look: int, looks: int) -> Threshold | None:
        """The largest threshold that this look certifies; None if it certifies none."""
        values = np.asarray(rows, dtype=np.float64)
        try:
            threshold = Threshold.certify(
                values[:, 0].tolist(),
                (1.0 - values[:, 1]).tolist(),
                alpha=self.alpha,
                delta=self.delta / looks,
                horizon=math.inf,
            )
        except CalibrationError:
            # An expected outcome: these labels prove nothing, or this edge is not good enough.
            return None
        assert threshold.certificate is not None
        # The guarantee of this look alone has delta / looks; that of whichever look is the latest has delta.
        certificate = replace(threshold.certificate, delta=self.delta)
        source = f"learned: {certificate.words}, look {look} of {looks}"
        return replace(threshold, source=source, certificate=certificate)

    def _tighten(self, rows: Sequence[tuple[float, float]], own: float) -> Threshold | None:
        """The largest threshold that loses at most alpha on the labels, if it is below `own`; it has no certificate."""
        values = np.asarray(sorted(rows), dtype=np.float64)
        # A threshold keeps all rows at its value, so only the last of equal values gives its loss.
        last = np.append(values[1:, 0] > values[:-1, 0], True)
        fits = np.flatnonzero(last & (np.cumsum(values[:, 1]) / len(rows) <= self.alpha))
        best = float(values[fits[-1] if fits.size else 0, 0])
        if best >= own:
            return None
        lost = float(values[values[:, 0] <= own, 1].sum()) / len(rows)
        source = f"learned: regret {lost:.3g} on {len(rows)} calls at {own:.3g}, tightened, nothing promised"
        return Threshold(value=best, source=source)
