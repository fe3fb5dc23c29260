"""Degree: how far the samples are from each other on average."""

from __future__ import annotations

from dataclasses import dataclass

from confroute.signals.graph import SampleGraph
from confroute.signals.similarity import Alike, Matrix


def degree(matrix: Matrix) -> float:
    """Mean of 1 - similarity over each two different answers; in [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> degree(np.array([[1.0, 0.5], [0.5, 1.0]]))
    0.5
    """
    m = len(matrix)
    return float((m * m - matrix.sum()) / (m * (m - 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Degree(SampleGraph):
    """Mean dissimilarity of each two samples; in [0, 1], 0 where all say the same.

    Notes
    -----
    U_Deg of Lin et al. (arXiv 2305.19187), divided by its greatest value (m - 1)/m so that it reaches 1.
    """

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "degree"

    def value(self, found: Alike) -> float:
        """See `degree`."""
        return degree(found.matrix)
