"""A Gaussian process on the prompts' vectors: smooth where prompts are dense, and honest about its doubt where they are not."""

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
    unit_rows,
)
from confroute.types import JSON

# What a standardised feature counts beside a unit vector: with it, 22 features and an embedding lie about equally far apart.
_FEATURE_WEIGHT = 0.3
# Keeps the kernel of repeated prompts invertible in float32; small beside any `noise` that is worth fitting.
_JITTER = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GaussianProcess:
    """Predicts the label by Gaussian process regression, clipped to [0, 1]; made by `fit`.

    Attributes
    ----------
    weights : array of float32, shape (kept,)
    kept : array of float32, shape (kept, dim)
        Scaled vectors of the training prompts that new prompts are compared with.
    known : array of float32, shape (kept, kept)
        With `k` the kernel between a prompt and the kept ones, ``1 - k @ known @ k`` is its posterior variance over the prior one.
    offset, signal : float
        Mean label and prior standard deviation.
    width : float
    mean, scale : array of float32, shape (features,)

    Notes
    -----
    The kernel is squared-exponential. Up to `keep` prompts the regression is exact (Rasmussen and Williams, Gaussian Processes for
    Machine Learning, 2006, eq. 2.25 and 2.26). For more, `keep` random prompts are the inducing points of the "deterministic training
    conditional" approximation (Quinonero-Candela and Rasmussen, JMLR 6, 2005, eq. 20), which still learns from every label. The
    prior variance is estimated by maximum likelihood. `spread` is the posterior standard deviation of the estimated probability, a
    single label's noise left out, at most 0.5.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(300, 3))
    >>> head = GaussianProcess.fit(x, x[:, 0] > 0, features=3)
    >>> near, far = head.estimate([[1, 0, 0], [1, 30, 0]]).spread
    >>> bool(far > near)
    True
    """

    weights: Vectors
    kept: Vectors
    known: Vectors
    offset: float
    signal: float
    width: float
    mean: Vectors
    scale: Vectors
    kind = "gaussian_process"
    __repr__ = short_repr

    @classmethod
    def fit(
        cls,
        vectors: npt.ArrayLike,
        cloud_wins: npt.ArrayLike,
        *,
        features: int = 0,
        width: float = 1.0,
        noise: float = 10.0,
        keep: int = 1000,
        seed: int = 0,
    ) -> GaussianProcess:
        """Solve for the weights of the kept prompts.

        Parameters
        ----------
        vectors : array of float, shape (n, dim)
        cloud_wins : array of float in [0, 1], shape (n,)
        features : int, 0 to dim
            How many of the last columns are features (``len(FEATURES)`` of an encoder with features): they are standardised, and the
            embedding before them is scaled to length 1.
        width : float, above 0
            Length scale of the kernel: prompts further apart than this hardly influence each other. Unit vectors are at most 2 apart.
        noise : float, above 0
            Variance of a single label's noise, in units of the prior variance.
        keep : int, above 0
            Number of inducing points. Fitting takes time proportional to ``n * keep**2``, an estimate to ``keep**2``.
        seed : int
            Chooses the inducing points.

        Raises
        ------
        CalibrationError
            Unusable training data (see `check_training_data`), or a setting outside its range.
        """
        x, y = check_training_data(vectors, cloud_wins)
        _check_settings(x.shape[1], features=features, width=width, noise=noise, keep=keep)
        mean, scale = column_scales(x[:, x.shape[1] - features :])
        z = _scaled(x, mean, scale)
        kept = z[np.sort(np.random.default_rng(seed).permutation(len(z))[:keep])]
        among = _kernel(kept, kept, width) + _JITTER * np.eye(len(kept))
        across = _kernel(kept, z, width)
        offset = float(y.mean())
        evidence = noise * among + across @ across.T
        projected = across @ (y - offset)
        weights = np.linalg.solve(evidence, projected)
        left = float((y - offset) @ (y - offset) - projected @ weights)
        return cls(
            weights=weights.astype(np.float32),
            kept=kept,
            known=(np.linalg.inv(among) - noise * np.linalg.inv(evidence)).astype(np.float32),
            offset=offset,
            signal=float(np.sqrt(left / noise / y.size)),
            width=width,
            mean=mean,
            scale=scale,
        )

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        return int(self.kept.shape[1])

    def estimate(self, vectors: npt.ArrayLike) -> Estimate:
        """Predict for n prompts; see `Head`."""
        near = _kernel(
            _scaled(check_vectors(vectors, self.dim), self.mean, self.scale), self.kept, self.width
        )
        wins = np.clip(near @ self.weights + self.offset, 0, 1)
        left = 1 - ((near @ self.known) * near).sum(axis=1)
        spread = self.signal * np.sqrt(np.maximum(left, 0))
        return Estimate(cloud_wins=wins, spread=np.minimum(spread, 0.5))

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The tensors of its file."""
        return {name: getattr(self, name) for name in ("weights", "kept", "known", "mean", "scale")}

    def settings(self) -> dict[str, JSON]:
        """The JSON settings of its file."""
        return {"offset": self.offset, "signal": self.signal, "width": self.width}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[np.generic]], settings: Mapping[str, JSON]
    ) -> GaussianProcess:
        """Rebuild a head from the tensors and settings of its file."""
        tensors = {name: array.astype(np.float32) for name, array in arrays.items()}
        offset, signal, width = (float(str(settings[name])) for name in ("offset", "signal", "width"))
        return cls(**tensors, offset=offset, signal=signal, width=width)


def _check_settings(dim: int, *, features: int, width: float, noise: float, keep: int) -> None:
    if not 0 <= features <= dim:
        msg = f"features is {features}: expected 0 to {dim}, the number of columns"
        raise CalibrationError(msg)
    for name, value in (("width", width), ("noise", noise), ("keep", keep)):
        if not value > 0:
            msg = f"{name} is {value}: expected a number above 0"
            raise CalibrationError(msg)


def _scaled(x: Vectors, mean: Vectors, scale: Vectors) -> Vectors:
    """The embedding scaled to length 1, followed by the weighted features."""
    dim = x.shape[1] - mean.size
    features = _FEATURE_WEIGHT * (x[:, dim:] - mean) / scale
    return np.concatenate([unit_rows(x[:, :dim]), features], axis=1, dtype=np.float32)


def _kernel(a: Vectors, b: Vectors, width: float) -> Numbers:
    """Squared-exponential kernel of the rows of `a` with those of `b`."""
    a, b = a / np.float32(width), b / np.float32(width)
    squares = (a * a).sum(axis=1)[:, None] + (b * b).sum(axis=1)[None, :] - 2 * (a @ b.T)
    return np.asarray(np.exp(-0.5 * np.maximum(squares, 0)), dtype=np.float64)
