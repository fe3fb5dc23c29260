"""The head in which the nearest labelled prompts vote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError
from confroute.heads.base import (
    Estimate,
    Numbers,
    Vectors,
    check_training_data,
    check_vectors,
    cosine_batches,
    observation_weight,
    short_repr,
    unit_rows,
)
from confroute.types import JSON


def _largest(values: Vectors, k: int) -> npt.NDArray[np.intp]:
    """Indices of the `k` largest values, unordered."""
    # `k` groups hold a value of at least the k-th largest group maximum, so nothing below that is among the k largest.
    groups = min(2 * k, values.size)
    maxima = values[: values.size // groups * groups].reshape(-1, groups).max(axis=0)
    maxima.partition(groups - k)
    near = np.flatnonzero(values >= maxima[groups - k])
    return near[values[near].argpartition(near.size - k)[near.size - k :]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NearestNeighbours:
    """Predicts the mean label of the `k` most similar prompts by cosine; made by `fit`.

    Notes
    -----
    The fourth head of the Confidence-Driven router (Zhang et al., arXiv 2502.11021). `spread` is the standard deviation
    of a Beta posterior with a uniform prior, in which a neighbour at similarity s counts exp((s - 1) / 0.1) of an
    observation: far from all training prompts it is the prior's own, 0.29. The search is exact. `vectors` is stored in
    column-major order, in which the product with a single prompt is twice as fast.

    Examples
    --------
    >>> x = np.eye(8, dtype=np.float32)
    >>> head = NearestNeighbours.fit(x, [1, 1, 1, 1, 0, 0, 0, 0], k=1)
    >>> head.estimate(x[0]).cloud_wins.tolist()
    [1.0]
    """

    vectors: Vectors
    labels: Numbers
    k: int
    kind = "knn"
    __repr__ = short_repr

    @classmethod
    def fit(cls, vectors: npt.ArrayLike, cloud_wins: npt.ArrayLike, *, k: int = 100) -> NearestNeighbours:
        """Store the training prompts and their labels.

        Parameters
        ----------
        vectors : array of float, shape (n, dim)
        cloud_wins : array of float in [0, 1], shape (n,)
        k : int
            Number of neighbours that vote, at most n.

        Raises
        ------
        CalibrationError
            Unusable training data (see `check_training_data`), or k outside 1 to n.
        """
        x, y = check_training_data(vectors, cloud_wins)
        if not 1 <= k <= y.size:
            msg = f"k is {k} for {y.size} prompts: expected 1 to {y.size}"
            raise CalibrationError(msg)
        return cls(vectors=np.asfortranarray(unit_rows(x)), labels=y, k=k)

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        return int(self.vectors.shape[1])

    def estimate(self, vectors: npt.ArrayLike) -> Estimate:
        """Predict for n prompts; see `Head`."""
        queries = unit_rows(check_vectors(vectors, self.dim))
        wins, spread = np.empty(len(queries)), np.empty(len(queries))
        for part, similarity in cosine_batches(queries, self.vectors):
            nearest = np.array([_largest(row, self.k) for row in similarity])
            labels = self.labels[nearest]
            wins[part] = labels.sum(axis=1) / self.k
            counts = observation_weight(similarity[np.arange(len(similarity))[:, None], nearest])
            total = 2 + counts.sum(axis=1, dtype=np.float64)
            mean = (1 + (counts * labels).sum(axis=1)) / total
            spread[part] = np.sqrt(mean * (1 - mean) / (total + 1))
        return Estimate(cloud_wins=wins, spread=spread)

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The tensors of its file."""
        return {"vectors": self.vectors, "labels": self.labels}

    def settings(self) -> dict[str, JSON]:
        """The JSON settings of its file."""
        return {"k": self.k}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[np.generic]], settings: Mapping[str, JSON]
    ) -> NearestNeighbours:
        """Rebuild a head from the tensors and settings of its file."""
        return cls(
            vectors=np.asfortranarray(arrays["vectors"], dtype=np.float32),
            labels=arrays["labels"].astype(np.float64),
            k=int(str(settings["k"])),
        )
