"""Confidence intervals of any statistic, by resampling rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from confroute.stats.arrays import MetricError

LEVEL = 0.95
# With fewer, the resamples where the statistic is defined are a biased selection.
_LEAST_DEFINED = 0.9


def bootstrap_ci(
    statistic: Callable[..., float | None],
    *arrays: npt.ArrayLike,
    n: int = 2000,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[float, float] | None:
    """Compute the percentile bootstrap interval of a statistic over rows (Efron, Annals of Statistics 7, 1979).

    Parameters
    ----------
    statistic : callable
        `statistic(*arrays)`, a float, or None where undefined.
    *arrays : array, shape (rows, ...)
        Resampled together: row i of each belongs to the same prompt.
    n : int
        Resamples, 1 or more.
    seed : int
        Equal seeds draw equal rows, so that intervals of several statistics on equal rows can be compared.
    level : float in (0, 1)

    Returns
    -------
    tuple of float or None
        Lower and upper end. None for no rows, or where the statistic is undefined on more than one in ten resamples: the others are
        a biased selection.

    Raises
    ------
    MetricError
        Arrays of different length, n below 1, or a level outside (0, 1).

    Examples
    --------
    >>> low, high = bootstrap_ci(lambda x: float(x.mean()), np.arange(100.0))
    >>> low < 49.5 < high
    True
    """
    columns = [np.asarray(array) for array in arrays]
    if n < 1 or not 0 < level < 1 or not columns or len({column.shape[:1] for column in columns}) != 1:
        msg = (
            f"n is {n}, level {level} and the arrays hold {[column.shape for column in columns]}: "
            "expected n of at least 1, a level between 0 and 1, and arrays of one length"
        )
        raise MetricError(msg)
    rows = columns[0].shape[0]
    if rows == 0:
        return None
    generator = np.random.default_rng(seed)
    values: list[float] = []
    for _ in range(n):
        drawn = generator.integers(0, rows, rows)
        value = statistic(*(column[drawn] for column in columns))
        if value is not None and not math.isnan(value):
            values.append(value)
    return percentiles(values, n=n, level=level)


def resample_counts(rows: int, *, n: int, seed: int) -> Iterator[npt.NDArray[np.intp]]:
    """How often each row is drawn in each of the n resamples that `bootstrap_ci` takes with this seed.

    For statistics that a sort of all rows and these counts give, without a sort of every resample.

    Examples
    --------
    >>> [int(counts.sum()) for counts in resample_counts(3, n=2, seed=0)]
    [3, 3]
    """
    generator = np.random.default_rng(seed)
    for _ in range(n):
        yield np.bincount(generator.integers(0, rows, rows), minlength=rows)


def percentiles(values: Sequence[float], *, n: int, level: float = LEVEL) -> tuple[float, float] | None:
    """The middle `level` of a statistic's values, of those of n resamples where it is defined; None for too few."""
    if len(values) < _LEAST_DEFINED * n:
        return None
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
