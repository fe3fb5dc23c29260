"""The number that an uncertainty is compared with, and where it comes from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from confroute.certificate import Certificate, Loss
from confroute.errors import CalibrationError, PolicyError
from confroute.policy.guarantee import certified, certified_groups
from confroute.registry import register

LEAST_ROWS = 8
# How far the share of calls that a threshold sends on may be from the one asked for.
SHARE_TOLERANCE = 0.05


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Threshold:
    """Keep an answer if its uncertainty is at most `value`.

    Attributes
    ----------
    value : float
        In the signal's unit.
    source : str
        Where the number comes from; every decision names it.
    certificate : Certificate or None
        Its guarantee for future calls, also in every decision that it settles.

    Raises
    ------
    PolicyError
        `value` is not a finite number.
    """

    value: float
    source: str = "given"
    certificate: Certificate | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.value, (int, float)) or not math.isfinite(self.value):
            msg = f"threshold is {self.value!r}: expected a finite number in the signal's unit"
            raise PolicyError(msg)

    @classmethod
    def for_cloud_share(
        cls,
        uncertainty: Sequence[float],
        *,
        share: float,
        always: int = 0,
        tolerance: float | None = None,
    ) -> Threshold:
        """Find the threshold that sends about `share` of calls like the recorded ones to the next tier.

        Parameters
        ----------
        uncertainty : sequence of float
            One per recorded call.
        share : float in [0, 1]
        always : int
            Number of further recorded calls that go to the next tier whatever the threshold.
        tolerance : float, optional
            How far the share may be from the one asked for: this and half of it at most, half a call at least. By default the
            nearest share that can be met is taken, however far; `source` names it.

        Raises
        ------
        CalibrationError
            Fewer than 8 rows, values that are not finite, a share outside [0, 1], one that keeps no call, or one that the signal
            cannot meet to `tolerance`, since it takes few values: the message lists the shares that it can.

        Examples
        --------
        >>> Threshold.for_cloud_share([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8], share=0.25).value
        0.6
        """
        if not 0 <= share <= 1:
            msg = f"share is {share}: expected a number in [0, 1]"
            raise CalibrationError(msg)
        values = _recorded(uncertainty)
        n = values.size + always
        # Not below the exact product by rounding: 0.29 * 100 must count as 29.
        if share * n < always - 1e-9:
            msg = (
                f"a cloud share of {share:g} is not possible: {always} of {n} calls go to the cloud whatever the threshold, since the "
                "signal was not measured on them or their draft is incomplete"
            )
            raise CalibrationError(msg)
        kept = round((1 - share) * n)
        if kept == 0:
            msg = f"a cloud share of {share:g} on {n} calls keeps none: call the cloud model directly"
            raise CalibrationError(msg)
        # Equal values are kept together or not at all.
        ends = np.append(np.flatnonzero(values[1:] > values[:-1]) + 1, values.size)
        at = int(ends[np.argmin(np.abs(ends - kept))])
        got = 1 - at / n
        if tolerance is not None:
            allowed = max(min(tolerance, share / 2), 0.5 / n)
            if abs(got - share) > allowed + 1e-9:
                raise CalibrationError(_unreachable(share, 1 - ends / n, allowed))
        return cls(value=float(values[at - 1]), source=f"{got:.0%} cloud share on {n} recorded calls")

    @classmethod
    def fit(
        cls,
        uncertainty: Sequence[float],
        edge_quality: Sequence[float],
        cloud_quality: Sequence[float] | None = None,
        *,
        price: float = 0.1,
    ) -> Threshold:
        """Find the threshold with the best mean quality, less `price` per call to the cloud, on recorded calls.

        Parameters
        ----------
        uncertainty : sequence of float
        edge_quality : sequence of float in [0, 1]
            Quality of the edge's answer to each call.
        cloud_quality : sequence of float in [0, 1], optional
            Quality of the cloud's; 1 everywhere by default.
        price : float
            What a call to the cloud costs, in units of quality: 0.1 means that ten calls are worth one answer turned from wrong to
            right.

        Raises
        ------
        CalibrationError
            Fewer than 8 rows, columns of different lengths, values that are not finite, or recorded calls on which every threshold is
            worse than the cloud alone.

        Notes
        -----
        This is an optimum on the recorded calls, not a guarantee for new ones. Candidates are the midpoints between neighbouring values
        and both ends; of equal ones the lowest (most calls to the cloud) is taken.

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
            msg = f"{values.size} uncertainties, {edge.size} edge and {cloud.size} cloud qualities: expected one of each per call"
            raise CalibrationError(msg)
        if not np.isfinite(edge).all() or not np.isfinite(cloud).all() or not math.isfinite(price):
            msg = (
                f"price is {price}, or a quality is not a finite number: leave out rows that were not graded"
            )
            raise CalibrationError(msg)
        loss = (cloud - price - edge)[order]
        # worth[k]: the gain over all-cloud by keeping the k least uncertain answers
        worth = np.concatenate([[0.0], np.cumsum(-loss)])
        ends = np.concatenate([[True], values[1:] > values[:-1], [True]])
        kept = int(np.argmax(np.where(ends, worth, -np.inf)))
        if kept == 0:
            msg = (
                f"no threshold beats the cloud alone on {values.size} calls (mean quality: edge {edge.mean():.2f}, "
                f"cloud {cloud.mean():.2f}, price {price:g} per call): use a better edge, signal or price"
            )
            raise CalibrationError(msg)
        return cls(
            value=_between(values, kept),
            source=f"best of quality - {price:g} per cloud call on {values.size} recorded calls",
        )

    @classmethod
    def certify(
        cls,
        uncertainty: npt.ArrayLike,
        edge_quality: npt.ArrayLike,
        cloud_quality: npt.ArrayLike | None = None,
        *,
        alpha: float,
        delta: float | None = 0.1,
        loss: Loss = "regret",
        horizon: float | None = None,
        grid: npt.ArrayLike | None = None,
        seed: int = 0,
        date: str | None = None,
    ) -> Threshold:
        """Find the threshold that keeps most answers among those whose mean loss is proved to be at most `alpha`.

        Parameters
        ----------
        uncertainty : sequence of float
            One per recorded call that was not used to choose or fit the signal.
        edge_quality, cloud_quality : sequence of float in [0, 1]
            The graded qualities. Without `cloud_quality` the cloud counts as always right. For a guarantee without grading, give as
            `edge_quality` whether both answers agree.
        alpha : float in (0, 1)
            The bound on the mean loss over calls; for "net" in (-1, 1).
        delta : float in (0, 1), or None
            Probability that the bound does not hold. None bounds the expected loss of the next call instead, by conformal risk control.
        loss : {"regret", "error", "net", "selective", "shortfall"}
            See `confroute.policy.guarantee.severity`. "regret" is the loss compared with always asking the cloud, "shortfall" what the
            answers' quality lacks to 1.
        horizon : float, optional
            The bound also holds for the loss measured over so many future calls, which scatters around its mean; by default as many as
            there are rows, `math.inf` for the long run only. Exact for losses of 0 and 1 that never fall as more is kept ("regret",
            "error"); other losses are bounded for the long run only.
        grid : sequence of float, optional
            Candidate thresholds, fixed in advance. By default quantiles of the uncertainties, chosen without the qualities.
        seed : int
            Of the order in which the betting bound takes the rows (graded losses, and "net").
        date : str, optional
            Today by default.

        Returns
        -------
        Threshold
            With its `certificate`.

        Raises
        ------
        UnmetPromiseError
            Too few rows for these levels, or a target that the edge cannot meet; the message holds the numbers.
        CalibrationError
            Levels, a horizon or columns that mean nothing.

        Notes
        -----
        Learn-then-Test with fixed-sequence testing (arXiv 2110.01052): exact binomial or hypergeometric tests for losses of
        0 and 1, a betting bound (Waudby-Smith and Ramdas, JRSS-B 86, 2024) for graded ones. It assumes that future calls are exchangeable with the recorded
        ones, and it is about the quality as graded: mistakes of a judge are not covered.

        Examples
        --------
        >>> import numpy as np
        >>> doubt = np.linspace(0, 1, 500)
        >>> threshold = Threshold.certify(doubt, (doubt < 0.5).astype(float), alpha=0.05, delta=0.1)
        >>> threshold.certificate.method, threshold.certificate.n, 0.5 < threshold.value < 0.55
        ('ltt-hypergeometric', 500, True)
        """
        value, certificate = certified(
            uncertainty,
            edge_quality,
            cloud_quality,
            alpha=alpha,
            delta=delta,
            loss=loss,
            horizon=horizon,
            grid=grid,
            seed=seed,
            date=date,
        )
        return cls(value=value, source=certificate.words, certificate=certificate)

    @classmethod
    def certify_groups(
        cls,
        group: Sequence[str],
        uncertainty: Sequence[float],
        edge_quality: Sequence[float],
        cloud_quality: Sequence[float] | None = None,
        *,
        alpha: float,
        delta: float = 0.1,
        loss: Loss = "regret",
        horizon: float | None = None,
    ) -> dict[str, Threshold]:
        """Find a certified threshold per group, so that all bounds hold together with probability 1 - `delta`.

        Parameters
        ----------
        group : sequence of str
            A tag of each recorded call, as `Request.tags` will hold it; see `Gate.by_tag`. The other parameters are those of `certify`.

        Returns
        -------
        dict of str to Threshold
            Each certified at `delta` divided by the number of groups (Bonferroni).

        Raises
        ------
        CalibrationError
            A group whose rows are too few or cannot meet the target; the message names it.
        """
        groups = certified_groups(
            group,
            uncertainty,
            edge_quality,
            cloud_quality,
            alpha=alpha,
            delta=delta,
            loss=loss,
            horizon=horizon,
        )
        return {
            name: cls(value=value, source=promise.words, certificate=promise)
            for name, (value, promise) in groups.items()
        }


def _recorded(uncertainty: Sequence[float]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    values = np.sort(np.asarray(uncertainty, dtype=np.float64))
    if values.size < LEAST_ROWS or not np.isfinite(values).all():
        msg = f"{values.size} recorded uncertainties, {np.isfinite(values).sum()} of them finite: expected at least {LEAST_ROWS}, all finite; record more calls"
        raise CalibrationError(msg)
    return values


def _unreachable(
    share: float, reached: np.ndarray[tuple[int], np.dtype[np.float64]], tolerance: float
) -> str:
    near = sorted(sorted(reached.tolist(), key=lambda one: abs(one - share))[:6])
    return (
        f"a cloud share of {share:g} cannot be met to {tolerance:g}: the signal takes {reached.size} values, and calls of equal "
        f"uncertainty go the same way; the nearest shares that it can meet: {', '.join(f'{one:.3f}' for one in near)}; take one of "
        "them, or a signal of more values"
    )


def _between(values: np.ndarray[tuple[int], np.dtype[np.float64]], kept: int) -> float:
    if kept == values.size:
        return float(values[-1])
    low, high = float(values[kept - 1]), float(values[kept])
    middle = round((low + high) / 2, 12)
    # Between values that are closer than that, rounding could keep one more or one less.
    return middle if low <= middle < high else low
