"""The number an uncertainty is compared with, and where it came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from confroute.errors import CalibrationError, PolicyError
from confroute.signals.base import Signal

LEAST_ROWS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Keep an answer if its uncertainty is at most `value`.

    Attributes
    ----------
    value : float
        In the signal's unit.
    source : str
        Where the number came from; stands in every decision.

    Raises
    ------
    PolicyError
        `value` is not a finite number.
    """

    value: float
    source: str = "given"

    def __post_init__(self) -> None:
        if not isinstance(self.value, (int, float)) or not math.isfinite(self.value):
            msg = f"threshold is {self.value!r}: expected a finite number in the signal's unit"
            raise PolicyError(msg)

    @classmethod
    def for_cloud_share(cls, uncertainty: Sequence[float], *, share: float) -> Threshold:
        """The threshold that sends about `share` of calls like the recorded ones to the next tier.

        Parameters
        ----------
        uncertainty : sequence of float
            One per recorded call.
        share : float in [0, 1]

        Raises
        ------
        CalibrationError
            Fewer than 8 rows, values that are no numbers, a share outside [0, 1], or one that keeps no call.

        Examples
        --------
        >>> Threshold.for_cloud_share([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], share=0.25).value
        0.6
        """
        if not 0 <= share <= 1:
            msg = f"share is {share}: expected a number in [0, 1]"
            raise CalibrationError(msg)
        values = _recorded(uncertainty)
        kept = round((1 - share) * values.size)
        if kept == 0:
            msg = f"a cloud share of {share:g} on {values.size} calls keeps none: call the cloud model itself"
            raise CalibrationError(msg)
        value = float(values[kept - 1])
        got = float((values > value).mean())
        return cls(value=value, source=f"{got:.0%} cloud share on {values.size} recorded calls")

    @classmethod
    def fit(
        cls,
        uncertainty: Sequence[float],
        edge_quality: Sequence[float],
        cloud_quality: Sequence[float] | None = None,
        *,
        price: float = 0.1,
    ) -> Threshold:
        """The threshold with the best mean of quality minus `price` a call to the cloud, on recorded calls.

        Parameters
        ----------
        uncertainty : sequence of float
        edge_quality : sequence of float in [0, 1]
            Quality of the edge's answer to each call.
        cloud_quality : sequence of float in [0, 1], optional
            Quality of the cloud's; 1 everywhere if not given.
        price : float
            What one call to the cloud costs, in units of quality: 0.1 means that ten calls are worth one answer
            turned from wrong to right.

        Raises
        ------
        CalibrationError
            Fewer than 8 rows, columns of different lengths, values that are no numbers, or recorded calls on
            which every threshold is worse than the cloud alone.

        Notes
        -----
        This is an optimum on the recorded calls, not a promise about new ones. Candidates are the midpoints between
        neighbouring values and both ends; the lowest (most calls to the cloud) wins ties.

        Examples
        --------
        >>> Threshold.fit([0.1, 0.2, 0.3, 0.4, 0.6, 0.7, 0.8, 0.9], [1, 1, 1, 1, 0, 0, 0, 0]).value
        0.5
        """
        values = _recorded(uncertainty)
        order = np.argsort(np.asarray(uncertainty, dtype=np.float64), kind="stable")
        cloud = np.ones(values.size) if cloud_quality is None else np.asarray(cloud_quality, dtype=np.float64)
        edge = np.asarray(edge_quality, dtype=np.float64)
        if not edge.size == cloud.size == values.size:
            msg = f"{values.size} uncertainties, {edge.size} edge and {cloud.size} cloud qualities: expected one of each a call"
            raise CalibrationError(msg)
        loss = (cloud - price - edge)[order]
        # worth[k]: what is gained over all-cloud by keeping the k least uncertain answers
        worth = np.concatenate([[0.0], np.cumsum(-loss)])
        ends = np.concatenate([[True], values[1:] > values[:-1], [True]])
        kept = int(np.argmax(np.where(ends, worth, -np.inf)))
        if kept == 0:
            msg = (
                f"no threshold beats the cloud alone on {values.size} calls (mean quality: edge {edge.mean():.2f}, "
                f"cloud {cloud.mean():.2f}, price {price:g} a call): use a better edge, signal or price"
            )
            raise CalibrationError(msg)
        return cls(
            value=_between(values, kept),
            source=f"best of quality - {price:g} a cloud call on {values.size} recorded calls",
        )


def _recorded(uncertainty: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = np.sort(np.asarray(uncertainty, dtype=np.float64))
    if values.size < LEAST_ROWS or not np.isfinite(values).all():
        msg = f"{values.size} recorded uncertainties, {np.isfinite(values).sum()} of them finite: expected at least {LEAST_ROWS}, all finite"
        raise CalibrationError(msg)
    return values


def _between(values: np.ndarray[tuple[int], np.dtype[np.float64]], kept: int) -> float:
    if kept == values.size:
        return float(values[-1])
    return float(round((values[kept - 1] + values[kept]) / 2, 12))


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """A signal, its threshold and the zone around it in which a further signal is asked.

    Attributes
    ----------
    signal : Signal
    threshold : Threshold
    grey : tuple of two floats or None
        Uncertainties above the first and up to the second are not decided here if the policy has a further gate that
        can be measured. None: always decided here.

    Raises
    ------
    PolicyError
        The threshold or the grey zone lies outside the signal's range, or the threshold outside the grey zone.
    """

    signal: Signal
    threshold: Threshold
    grey: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.signal, type) or not isinstance(self.signal, Signal):
            msg = (
                f"signal is {self.signal!r}: expected an object with a measure method, such as TokenLogprob()"
            )
            raise PolicyError(msg)
        if not isinstance(self.threshold, Threshold):
            msg = f"threshold is {self.threshold!r}: expected Threshold(value=...)"
            raise PolicyError(msg)
        check_threshold(self.signal, self.threshold.value)
        if self.grey is not None and not self.grey[0] <= self.threshold.value <= self.grey[1]:
            msg = f"grey zone {self.grey} of {self.signal.name}: expected (low, high) with the threshold {self.threshold.value} inside"
            raise PolicyError(msg)


def check_threshold(signal: Signal, value: float) -> None:
    """Refuse a threshold outside the signal's range.

    Raises
    ------
    PolicyError
    """
    spread = signal.range
    if not isinstance(value, (int, float)) or value not in spread:
        msg = (
            f"threshold {value!r} of {signal.name} is outside its range [{spread.low:g}, {spread.high:g}] ({spread.unit}): "
            "the lower end keeps only answers without any doubt"
        )
        raise PolicyError(msg)
