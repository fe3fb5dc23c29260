"""What the counts of a model's meanings say: their entropy, and where it can end when more answers come."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def normalised_entropy(weights: Sequence[float], n: int) -> float:
    """Entropy of clusters in units of log(n): exactly 0 for one cluster, exactly 1 for n equal ones.

    Parameters
    ----------
    weights : sequence of float
        One positive weight per cluster; they need not sum to 1.
    n : int
        Answers that were clustered, 2 or more.

    Examples
    --------
    >>> normalised_entropy([20], 20), normalised_entropy([1, 1, 1], 3)
    (0.0, 1.0)
    """
    if len(weights) == 1:
        return 0.0
    if len(weights) == n and len(set(weights)) == 1:
        return 1.0
    p = np.asarray(weights, dtype=np.float64) / math.fsum(weights)
    return float(min(1.0, max(0.0, -(p * np.log(p)).sum() / math.log(n))))


def bounds(counts: Sequence[int], n: int) -> tuple[float, float]:
    """Least and greatest normalised entropy that `n` answers can end in, given clusters of the first ones.

    The entropy is least if all further answers join the largest cluster (that completion majorises every other)
    and greatest if each is a meaning of its own (every other completion merges clusters of that one).

    Examples
    --------
    >>> low, high = bounds([3], 5)
    >>> low, round(high, 3)
    (0.0, 0.59)
    """
    rest = n - sum(counts)
    largest = max(counts)
    low = [*counts]
    low[low.index(largest)] += rest
    return normalised_entropy(low, n), normalised_entropy([*counts, *[1] * rest], n)
