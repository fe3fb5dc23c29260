"""Kernel language entropy: the von Neumann entropy of a kernel over meanings."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from confroute.errors import PolicyError
from confroute.signals.graph import SampleGraph
from confroute.signals.similarity import Alike, Matrix


def kernel_entropy(matrix: Matrix, distinct: tuple[int, ...], *, time: float = 0.3) -> float:
    """Von Neumann entropy of the heat kernel of a similarity graph, in units of log(n); in [0, 1].

    Parameters
    ----------
    matrix : ndarray, shape (n, n)
        Similarities, symmetric, in [0, 1].
    distinct : tuple of int
        For each answer, which of the distinct ones it is; answers that are one have kernel 1.
    time : float
        How far heat spreads; 0 makes every two distinct answers unrelated.

    Examples
    --------
    >>> import numpy as np
    >>> kernel_entropy(np.ones((3, 3)), (0, 0, 0)), round(kernel_entropy(np.eye(3), (0, 1, 2)), 6)
    (0.0, 1.0)
    """
    n = len(distinct)
    if len(set(distinct)) == 1:
        return 0.0
    places = [distinct.index(one) for one in sorted(set(distinct))]
    weights = matrix[np.ix_(places, places)] * (1.0 - np.eye(len(places)))
    values, vectors = np.linalg.eigh(np.diag(weights.sum(axis=1)) - weights)
    heat = (vectors * np.exp(-time * values)) @ vectors.T
    scale = 1.0 / np.sqrt(np.diag(heat))
    unit = heat * scale[:, None] * scale[None, :]
    of = [sorted(set(distinct)).index(one) for one in distinct]
    kernel = unit[np.ix_(of, of)] / n
    spectrum = np.linalg.eigvalsh(kernel)
    spectrum = spectrum[spectrum > 1e-12]
    return float(min(1.0, max(0.0, -(spectrum * np.log(spectrum)).sum() / math.log(n))))


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelEntropy(SampleGraph):
    """Entropy over meanings that lie near or far from each other, in units of log(n); in [0, 1].

    Parameters
    ----------
    time : float
        Of the heat kernel, 0 or more.

    Raises
    ------
    PolicyError
        A negative time.

    Notes
    -----
    Nikitin et al. (arXiv 2405.20003). Where answers are the same or unrelated, it is the discrete semantic entropy.
    Deviations: the kernel is that of the distinct answers, so identical answers give exactly 0; the weights are one
    similarity a pair, without their half weight for a neutral verdict; and the value is divided by log(n).
    """

    time: float = 0.3

    def __post_init__(self) -> None:
        SampleGraph.__post_init__(self)
        if not 0 <= self.time < math.inf:
            msg = f"time is {self.time}: expected a number of at least 0"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "kernel_entropy"

    def value(self, found: Alike) -> float:
        """See `kernel_entropy`."""
        return kernel_entropy(found.matrix, found.distinct, time=self.time)
