"""Eccentricity: how far the samples lie from their centre in the graph's spectral embedding."""

from __future__ import annotations

import math
from dataclasses import dataclass

from confroute.signals.graph import SampleGraph, laplacian_spectrum
from confroute.signals.similarity import Alike, Matrix

# Lin et al. keep the eigenvectors below it: those of the clusters.
_KEPT = 0.9


def eccentricity(matrix: Matrix) -> float:
    """Norm of the centred spectral embedding over the greatest it can have; in [0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> round(eccentricity(np.ones((3, 3))), 6), round(eccentricity(np.eye(3)), 6)
    (0.0, 1.0)
    """
    values, vectors = laplacian_spectrum(matrix)
    kept = vectors[:, values < _KEPT]
    centred = kept - kept.mean(axis=0)
    return float(math.sqrt((centred**2).sum()) / math.sqrt(len(matrix) - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Eccentricity(SampleGraph):
    """Spread of the samples in the spectral embedding of their similarities; in [0, 1].

    Notes
    -----
    U_Ecc of Lin et al. (arXiv 2305.19187), divided by its greatest value, the root of m - 1. It jumps where an
    eigenvalue crosses their cut of 0.9, so more disagreement may lower it a little.
    """

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "eccentricity"

    def value(self, found: Alike) -> float:
        """See `eccentricity`."""
        return eccentricity(found.matrix)
