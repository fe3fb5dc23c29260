"""Sum of eigenvalues: how many meanings the samples hold, counted softly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from confroute.signals.graph import SampleGraph, laplacian_spectrum
from confroute.signals.similarity import Alike, Matrix


def soft_count(matrix: Matrix) -> float:
    """Sum of max(0, 1 - eigenvalue) of the normalised Laplacian: the number of clusters if they are clear-cut.

    Examples
    --------
    >>> import numpy as np
    >>> round(soft_count(np.ones((4, 4))), 6), round(soft_count(np.eye(4)), 6)
    (1.0, 4.0)
    """
    values, _ = laplacian_spectrum(matrix)
    return float(np.maximum(0.0, 1.0 - values).sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class EigenvalueSum(SampleGraph):
    """Number of meanings among the samples, counted softly and put on [0, 1]: 0 for one, 1 for n.

    Notes
    -----
    U_EigV of Lin et al. (arXiv 2305.19187), less 1, over n - 1.
    """

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "eigenvalues"

    def value(self, found: Alike) -> float:
        """See `soft_count`."""
        return (soft_count(found.matrix) - 1.0) / (len(found.matrix) - 1)
