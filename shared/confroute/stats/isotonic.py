"""From an uncertainty in any unit to a probability of being wrong: isotonic regression, fitted out of fold."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from confroute.errors import PolicyError
from confroute.registry import register
from confroute.stats.arrays import Array, MetricError

_FOLDS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Isotonic:
    """A function that never falls, linear between its knots and constant outside, over arrays.

    Attributes
    ----------
    at : array of float, shape (k,)
        Distinct, ascending.
    values : array of float, shape (k,)
        Never falling.
    """

    at: Array
    values: Array

    def predict(self, x: npt.ArrayLike) -> Array:
        """Evaluate the function at `x`, in any order; shape of `x`."""
        return np.interp(np.asarray(x, dtype=np.float64), self.at, self.values)


def fit_isotonic(x: npt.ArrayLike, y: npt.ArrayLike) -> Isotonic:
    """Fit the function that never falls with the least squared error, by pooling adjacent violators.

    Parameters
    ----------
    x, y : array of float, shape (n,), n at least 1
        Rows of equal `x` share one value. `x` is finite.

    Returns
    -------
    Isotonic
        After Ayer et al. (Annals of Mathematical Statistics 26, 1955); as a calibrator Zadrozny and Elkan (KDD 2002).

    Raises
    ------
    MetricError
        No rows, different lengths, or values that are not finite.

    Examples
    --------
    >>> fit_isotonic([1, 2, 3, 4], [0, 1, 0, 1]).values.tolist()
    [0.0, 0.5, 0.5, 1.0]
    """
    xs, ys = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if xs.shape != ys.shape or xs.ndim != 1 or xs.size == 0 or not np.isfinite([xs, ys]).all():
        msg = f"x and y have shapes {xs.shape} and {ys.shape}: expected finite values, one of each per row, and at least one row"
        raise MetricError(msg)
    at, row, counts = np.unique(xs, return_inverse=True, return_counts=True)
    blocks: list[tuple[float, int, int]] = []  # sum of y, rows, distinct x
    for total, count in zip(np.bincount(row, weights=ys).tolist(), counts.tolist(), strict=True):
        block = (total, count, 1)
        # Cross-multiplied: two equal means must pool whatever a division rounds to.
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2] + block[2])
        blocks.append(block)
    means = [total / count for total, count, _ in blocks]
    return Isotonic(at=at, values=np.repeat(means, [width for _, _, width in blocks]))


def crossfit_probability(
    uncertainty: npt.ArrayLike, wrong: npt.ArrayLike, *, folds: int = _FOLDS, seed: int = 0
) -> Array | None:
    """Predict the probability of being wrong for each row, from an isotonic fit on the other folds.

    Parameters
    ----------
    uncertainty : array of float, shape (n,)
        Any unit, finite.
    wrong : array of float in [0, 1], shape (n,)
    folds : int
        2 or more.
    seed : int
        Of the assignment to folds, which are of equal size up to one row.

    Returns
    -------
    array of float in [0, 1], shape (n,), or None
        None for fewer than two rows per fold. Fitted and evaluated on the same rows, isotonic regression is perfectly calibrated
        whatever the signal: a calibration error is meaningful out of fold only.

    Raises
    ------
    MetricError
        Fewer than 2 folds, different lengths, or values that are not finite.

    Examples
    --------
    >>> crossfit_probability([0, 0, 0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1, 1, 1], folds=2).tolist()
    [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0]
    """
    u, w = np.asarray(uncertainty, dtype=np.float64), np.asarray(wrong, dtype=np.float64)
    if folds < 2:
        msg = f"folds is {folds}: expected 2 or more"
        raise MetricError(msg)
    if u.size < 2 * folds:
        return None
    fold = np.random.default_rng(seed).permutation(u.size) % folds
    probability = np.empty(u.size)
    for held_out in range(folds):
        apart = fold == held_out
        probability[apart] = fit_isotonic(u[~apart], w[~apart]).predict(u[apart])
    return probability


@register(kind="part", aliases=("Curve",))
@dataclass(frozen=True, slots=True, kw_only=True)
class MonotoneInterpolator:
    """A function that never falls, linear between its knots and constant outside, for single numbers and policy files.

    Attributes
    ----------
    at : tuple of float
        Distinct, rising; one or more.
    values : tuple of float
        Never falling, one per knot.

    Raises
    ------
    PolicyError
        No knot, different lengths, or an order that is not rising.

    Examples
    --------
    >>> curve = MonotoneInterpolator(at=(0.0, 1.0), values=(0.0, 10.0))
    >>> curve(0.25), curve(-1), curve(7)
    (2.5, 0.0, 10.0)
    """

    at: tuple[float, ...]
    values: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.at, self.at[1:], strict=False))
        falls = any(a > b for a, b in zip(self.values, self.values[1:], strict=False))
        if not self.at or len(self.at) != len(self.values) or not rising or falls:
            msg = (
                f"a curve of {len(self.at)} knots and {len(self.values)} values: expected one of each, rising"
            )
            raise PolicyError(msg)

    def __call__(self, x: float) -> float:
        """Evaluate the function at `x`."""
        # Plain Python: numpy takes longer for a single number.
        at, values = self.at, self.values
        if x <= at[0]:
            return values[0]
        if x >= at[-1]:
            return values[-1]
        right = bisect_left(at, x)
        share = (x - at[right - 1]) / (at[right] - at[right - 1])
        return values[right - 1] + share * (values[right] - values[right - 1])
