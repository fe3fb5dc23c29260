"""Bayesian linear regression on standardised vectors: the cheapest head, and a strong one with few labels."""

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
    column_scales,
    short_repr,
)
from confroute.types import JSON


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ridge:
    """Predicts the label by ridge regression, clipped to [0, 1]; made by `fit`.

    Attributes
    ----------
    weights : array of float32, shape (dim,)
    offset, noise : float
        Mean label and standard deviation of the residuals.
    root : array of float32, shape (dim, dim)
        Square root of the posterior covariance of the weights, in units of the noise.
    mean, scale : array of float32, shape (dim,)

    Notes
    -----
    `spread` is the standard deviation of the posterior mean under a Gaussian prior (Bishop, Pattern Recognition and Machine
    Learning, 3.3): it grows with the distance from the training prompts, at most 0.5.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(300, 3))
    >>> head = Ridge.fit(x, x[:, 0] > 0, penalty=1.0)
    >>> near, far = head.estimate([[1, 0, 0], [1, 30, 0]]).spread
    >>> bool(far > near)
    True
    """

    weights: Vectors
    offset: float
    noise: float
    root: Vectors
    mean: Vectors
    scale: Vectors
    kind = "ridge"
    __repr__ = short_repr

    @classmethod
    def fit(cls, vectors: npt.ArrayLike, cloud_wins: npt.ArrayLike, *, penalty: float = 1000.0) -> Ridge:
        """Solve for the weights.

        Parameters
        ----------
        vectors : array of float, shape (n, dim)
        cloud_wins : array of float in [0, 1], shape (n,)
        penalty : float, above 0
            Factor of the squared weights of the standardised columns.

        Raises
        ------
        CalibrationError
            Unusable training data (see `check_training_data`), or a penalty of 0 or less.
        """
        x, y = check_training_data(vectors, cloud_wins)
        if penalty <= 0:
            msg = f"penalty is {penalty}: expected a number above 0"
            raise CalibrationError(msg)
        mean, scale = column_scales(x)
        z: Numbers = ((x - mean) / scale).astype(np.float64)
        offset = float(y.mean())
        precision = z.T @ z + penalty * np.eye(z.shape[1])
        weights = np.linalg.solve(precision, z.T @ (y - offset))
        root = np.linalg.inv(np.linalg.cholesky(precision)).T
        return cls(
            weights=weights.astype(np.float32),
            offset=offset,
            noise=float(np.std(y - offset - z @ weights)),
            root=np.ascontiguousarray(root, dtype=np.float32),
            mean=mean,
            scale=scale,
        )

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        return int(self.weights.size)

    def estimate(self, vectors: npt.ArrayLike) -> Estimate:
        """Predict for n prompts; see `Head`."""
        z = (check_vectors(vectors, self.dim) - self.mean) / self.scale
        wins = np.clip(z @ self.weights + self.offset, 0, 1).astype(np.float64)
        spread = self.noise * np.linalg.norm(z @ self.root, axis=1).astype(np.float64)
        return Estimate(cloud_wins=wins, spread=np.minimum(spread, 0.5))

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The tensors of its file."""
        return {name: getattr(self, name) for name in ("weights", "root", "mean", "scale")}

    def settings(self) -> dict[str, JSON]:
        """The JSON settings of its file."""
        return {"offset": self.offset, "noise": self.noise}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[np.generic]], settings: Mapping[str, JSON]
    ) -> Ridge:
        """Rebuild a head from the tensors and settings of its file."""
        tensors = {name: array.astype(np.float32) for name, array in arrays.items()}
        return cls(**tensors, offset=float(str(settings["offset"])), noise=float(str(settings["noise"])))
