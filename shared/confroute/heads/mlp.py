"""A network of two layers, as a deep ensemble with dropout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from confroute.heads._ensemble import Ensemble, by_member, estimated, masked, side_by_side
from confroute.heads._training import dropped, train
from confroute.heads.base import Estimate, Vectors, rows, training_rows

if TYPE_CHECKING:
    import torch

    from confroute.heads._training import Forward, Start


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MLP(Ensemble):
    """Linear, ReLU, dropout, linear: the third head of the Confidence-Driven router (arXiv 2502.11021); made by `fit`.

    Attributes
    ----------
    inner : array of float32, shape (dim, members * hidden)
    bias : array of float32, shape (members * hidden,)
        Of the first layer, which standardises its input by the training vectors' mean and scale.
    outer : array of float32, shape (members, hidden, draws)
        Output weights under each of the fixed dropout masks.
    offset : array of float32, shape (members,)

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

        start, forward = _network(members, x.shape[1], hidden, dropout)
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
        # Standardisation is part of the first layer's weights: inference has no step for it.
        inner = side_by_side(found["inner"]) / scale[:, None]
        return cls(
            inner=inner,
            bias=(found["bias"].reshape(-1) - mean @ inner).astype(np.float32),
            outer=masked(found["outer"], draws, rate=dropout, seed=seed),
            offset=found["offset"].reshape(members),
        )

    def estimate(self, vectors: npt.ArrayLike) -> Estimate:
        """Estimate n prompts; see `Head`."""
        units = np.maximum(rows(vectors, self.dim) @ self.inner + self.bias, 0)
        hidden = by_member(units, len(self.outer))
        return estimated(hidden @ self.outer + self.offset[:, None, None])


def standard(x: Vectors) -> tuple[Vectors, Vectors]:
    """Mean and scale of each column; a constant one keeps scale 1."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    return mean, np.where(scale > 1e-6, scale, 1).astype(np.float32)


def _network(members: int, dim: int, hidden: int, dropout: float) -> tuple[Start, Forward]:
    """How the weights start, and the logits that they give."""

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

    return start, forward
