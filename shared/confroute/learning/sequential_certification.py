"""When labels are looked at, and what a look makes of them: the statistics of learning online, without any call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from confroute.certificate import Certificate
from confroute.errors import CalibrationError, PolicyError
from confroute.policy.guarantee.losses import LEAST_KEPT
from confroute.policy.threshold import Threshold
from confroute.stats.tails import rows_needed
from confroute.types import JSON


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What has been learned of one signal.

    Attributes
    ----------
    labels : int
        Labelled calls so far.
    look : int
        Looks so far.
    threshold : Threshold or None
        What the last of them led to; None as long as the policy's own stands.
    """

    labels: int = 0
    look: int = 0
    threshold: Threshold | None = None

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        found = self.threshold
        promise = None if found is None or found.certificate is None else found.certificate.to_dict()
        return {
            "labels": self.labels,
            "look": self.look,
            "threshold": None
            if found is None
            else {"value": found.value, "source": found.source, "certificate": promise},
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Learned:
        """What `to_dict` wrote."""
        found = data["threshold"]
        threshold = None
        if found is not None:
            promise = found["certificate"]
            certificate = None if promise is None else Certificate(**promise)
            threshold = Threshold(value=found["value"], source=found["source"], certificate=certificate)
        return cls(labels=data["labels"], look=data["look"], threshold=threshold)


@dataclass(frozen=True, slots=True, kw_only=True)
class Looks:
    """Labels are looked at a few times, planned beforehand, and all looks share one delta.

    Parameters
    ----------
    alpha : float in (0, 1)
        The promised bound on the mean regret over calls.
    delta : float in (0, 1)
        Probability that any threshold that is ever certified breaks its bound.
    most : int
        Labels after which nothing more is learned.

    Raises
    ------
    PolicyError
        So few labels that no look could ever certify, or a level out of range.

    Notes
    -----
    Looks come at `most`, a half of it, a quarter and so on, as long as so few labels can prove anything at all. Each
    certifies (`Threshold.certify`, long run) at delta divided by their number, so that by the union bound *every*
    threshold that is ever certified keeps its bound with probability 1 - delta, whenever one looks. A look that
    certifies nothing takes nothing back. The plan is fixed beforehand, as group-sequential tests fix theirs; spending
    evenly is Pocock's way (Biometrika 64, 1977), without its correction for dependence, which would gain little here.

    Examples
    --------
    >>> Looks(alpha=0.05, delta=0.1, most=2000).at
    (125, 250, 500, 1000, 2000)
    """

    alpha: float
    delta: float
    most: int

    def __post_init__(self) -> None:
        if not 0 < self.alpha < 1 or not 0 < self.delta < 1:
            msg = f"alpha={self.alpha}, delta={self.delta}: expected both between 0 and 1"
            raise PolicyError(msg)
        needed = self._needed(1)
        if self.most < needed:
            msg = (
                f"{self.most} labels cannot promise a regret of {self.alpha:g} with confidence {1 - self.delta:g}, even if "
                f"none fails: at least {needed} are needed"
            )
            raise PolicyError(msg)

    def _needed(self, looks: int) -> int:
        return max(LEAST_KEPT, rows_needed(self.alpha, self.delta / looks, horizon=False))

    @property
    def at(self) -> tuple[int, ...]:
        """Numbers of labels at which one looks, rising."""
        counts = [self.most]
        while math.ceil(self.most / 2 ** len(counts)) >= self._needed(len(counts) + 1):
            counts.append(math.ceil(self.most / 2 ** len(counts)))
        return tuple(reversed(counts))

    def after(self, before: Learned, rows: Sequence[tuple[float, float]], own: float) -> Learned:
        """What is known after one more label.

        Parameters
        ----------
        before : Learned
        rows : sequence of (uncertainty, regret in [0, 1])
            All labels, the new one last.
        own : float
            The policy's own threshold.
        """
        at = self.at
        if before.look >= len(at) or len(rows) < at[before.look]:
            return replace(before, labels=len(rows))
        look = before.look + 1
        threshold = self._certified(rows, f"look {look} of {len(at)}", len(at))
        if threshold is None:
            promised = before.threshold is not None and before.threshold.certificate is not None
            threshold = before.threshold if promised else self._tightened(rows, own)
        return Learned(labels=len(rows), look=look, threshold=threshold)

    def _certified(self, rows: Sequence[tuple[float, float]], which: str, looks: int) -> Threshold | None:
        values = np.asarray(rows, dtype=np.float64)
        try:
            found = Threshold.certify(
                values[:, 0].tolist(),
                (1.0 - values[:, 1]).tolist(),
                alpha=self.alpha,
                delta=self.delta / looks,
                horizon=math.inf,
            )
        except CalibrationError:
            # Not yet, or not with this edge: the labels so far prove nothing, which the next step says in numbers.
            return None
        assert found.certificate is not None
        # Of this look alone it would be delta / looks; of whichever look is the last so far it is delta.
        promise = replace(found.certificate, delta=self.delta)
        return replace(found, source=f"learned: {promise.words}, {which}", certificate=promise)

    def _tightened(self, rows: Sequence[tuple[float, float]], own: float) -> Threshold | None:
        """Without a promise: the boldest threshold that loses at most alpha on the labels, if it is below `own`."""
        values = np.asarray(sorted(rows), dtype=np.float64)
        # A threshold keeps all rows that lie at it: only the last of equal ones says what it loses.
        last = np.append(values[1:, 0] > values[:-1, 0], True)
        fits = np.flatnonzero(last & (np.cumsum(values[:, 1]) / len(rows) <= self.alpha))
        best = float(values[fits[-1] if fits.size else 0, 0])
        if best >= own:
            return None
        lost = float(values[values[:, 0] <= own, 1].sum()) / len(rows)
        words = f"learned: regret {lost:.3g} on {len(rows)} calls at {own:.3g}, tightened, nothing promised"
        return Threshold(value=best, source=words)
