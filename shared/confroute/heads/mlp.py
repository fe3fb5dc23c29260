"""A network of two layers, as a deep ensemble with dropout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from confroute.heads._ensemble import estimated, masks
from confroute.heads._training import dropped, train
from confroute.heads.base import Estimate, Vectors, rows, training_rows
from confroute.types import JSON

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MLP:
    """Linear, ReLU, dropout, linear: the third head of the Confidence-Driven router (arXiv 2502.11021); made by `fit`.

    Attributes
    ----------
    inner : array of float32, shape (dim, members * hidden)
    bias : array of float32, shape (members * hidden,)
    outer : array of float32, shape (members, hidden, draws)
        Output weights under each of the fixed dropout masks.
    offset : array of float32, shape (members,)
    mean, scale : array of float32, shape (dim,)
        Of the training vectors: inputs are standardised.

    Notes
    -----
    The paper's softmax over two classes is the logistic function of one logit; ties are a target of one half. `spread`
    has two parts: the variance between members that started differently (Lakshminarayanan et al., arXiv 1612.01474) and
    the mean variance under dropout (Gal and Ghahramani, arXiv 1506.02142). Inference needs numpy only.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(200, 4))
    >>> head = MLP.fit(x, x[:, 0] > 0, epochs=30, members=2)
    >>> head.estimate([[3, 0, 0, 0], [-3, 0, 0, 0]]).cloud_wins.round().tolist()
    [1.0, 0.0]
    """

    inner: Vectors
    bias: Vectors
    outer: Vectors
    offset: Vectors
    mean: Vectors
    scale: Vectors
    kind = "mlp"

    @classmethod
    def fit(
        cls,
        vectors: npt.ArrayLike,
        cloud_wins: npt.ArrayLike,
        *,
        hidden: int = 64,
        members: int = 5,
        draws: int = 8,
        dropout: float = 0.3,
        epochs: int = 20,
        learning_rate: float = 1e-3,
        decay: float = 0.1,
        batch: int = 256,
        seed: int = 0,
    ) -> MLP:
        """Train on the CPU, which takes minutes for 50,000 prompts.

        Parameters
        ----------
        vectors : array of float, shape (n, dim)
        cloud_wins : array of float in [0, 1], shape (n,)
        hidden, members, draws, epochs, batch, seed : int
            Units, networks, dropout masks each, passes, rows a step, and the seed of all of it.
        dropout, learning_rate, decay : float

        Raises
        ------
        CalibrationError
            Data that cannot be trained on; see `training_rows`.
        MissingExtraError
            torch is not installed.
        """
        x, y = training_rows(vectors, cloud_wins)
        mean, scale = standard(x)
        dim = x.shape[1]

        def start(generator: torch.Generator) -> dict[str, torch.Tensor]:
            import torch

            return {
                "inner": torch.randn(members, dim, hidden, generator=generator) * (2 / dim) ** 0.5,
                "bias": torch.zeros(members, 1, hidden),
                "outer": torch.randn(members, hidden, 1, generator=generator) * hidden**-0.5,
                "offset": torch.zeros(members, 1),
            }

        def forward(
            weights: Mapping[str, torch.Tensor], batch: torch.Tensor, generator: torch.Generator
        ) -> torch.Tensor:
            units = (batch @ weights["inner"] + weights["bias"]).relu()
            kept = dropped(units, dropout, generator)
            return (kept @ weights["outer"]).squeeze(2) + weights["offset"]

        found = train(
            forward,
            start,
            (x - mean) / scale,
            y,
            members=members,
            epochs=epochs,
            rate=learning_rate,
            decay=decay,
            batch=batch,
            seed=seed,
        )
        kept = masks(members, draws, hidden, rate=dropout, seed=seed)
        return cls(
            inner=np.ascontiguousarray(found["inner"].transpose(1, 0, 2).reshape(dim, members * hidden)),
            bias=found["bias"].reshape(members * hidden),
            outer=np.ascontiguousarray(found["outer"] * kept.transpose(0, 2, 1)),
            offset=found["offset"].reshape(members),
            mean=mean,
            scale=scale,
        )

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        return int(self.inner.shape[0])

    def estimate(self, vectors: npt.ArrayLike) -> Estimate:
        """Estimate n prompts; see `Head`."""
        x = (rows(vectors, self.dim) - self.mean) / self.scale
        units = np.maximum(x @ self.inner + self.bias, 0)
        members, hidden, _ = self.outer.shape
        by_member = units.reshape(len(x), members, hidden).transpose(1, 0, 2)
        return estimated(by_member @ self.outer + self.offset[:, None, None])

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What is written as tensors."""
        return {name: getattr(self, name) for name in ("inner", "bias", "outer", "offset", "mean", "scale")}

    def settings(self) -> dict[str, JSON]:
        """What is written as JSON."""
        return {}

    @classmethod
    def restored(cls, arrays: Mapping[str, npt.NDArray[np.generic]], settings: Mapping[str, JSON]) -> MLP:
        """The head that `arrays` and `settings` describe."""
        del settings
        return cls(**{name: array.astype(np.float32) for name, array in arrays.items()})


def standard(x: Vectors) -> tuple[Vectors, Vectors]:
    """Mean and scale of each column; a constant one keeps scale 1."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    return mean, np.where(scale > 1e-6, scale, 1).astype(np.float32)
