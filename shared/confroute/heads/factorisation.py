"""Matrix factorisation: prompt and models in one space, whose product is the model's score."""

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
class MatrixFactorisation(Ensemble):
    """RouteLLM's MF head (Ong et al., arXiv 2406.18665, section 4.2), as a deep ensemble with dropout; made by `fit`.

    Attributes
    ----------
    projection : array of float32, shape (dim, members * rank)
    models : array of float32, shape (members, rank, draws)
        Output weight times the difference of the two unit model vectors, under each of the fixed dropout masks.

    Notes
    -----
    The score of a model is ``w . (p / |p| * V q)``: p a vector of the model, q the prompt's. The cloud wins with the logistic
    function of the difference of scores, without a bias, as in RouteLLM's code; Gaussian noise is added to q in training,
    as there. Deviations: ties are targets of one half instead of dropped, dropout on V q, several members. `spread` is
    made as `MLP`'s.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(200, 4))
    >>> head = MatrixFactorisation.fit(x, x[:, 0] > 0, members=2, rank=16, epochs=200)
    >>> head.estimate([[3, 0, 0, 0], [-3, 0, 0, 0]]).cloud_wins.round().tolist()
    [1.0, 0.0]
    """

    projection: Vectors
    models: Vectors
    kind = "matrix_factorisation"

    @classmethod
    def fit(
        cls,
        vectors: npt.ArrayLike,
        cloud_wins: npt.ArrayLike,
        *,
        rank: int = 128,
        members: int = 5,
        draws: int = 8,
        dropout: float = 0.2,
        noise: float = 0.1,
        epochs: int = 30,
        learning_rate: float = 3e-3,
        decay: float = 0.01,
        batch: int = 256,
        seed: int = 0,
    ) -> MatrixFactorisation:
        """Train on the CPU, which takes minutes for 50,000 prompts.

        Parameters
        ----------
        vectors : array of float, shape (n, dim)
        cloud_wins : array of float in [0, 1], shape (n,)
        rank, members, draws, epochs, batch, seed : int
        dropout, learning_rate, decay : float
        noise : float
            Length of the noise added to a prompt's vector in training, in parts of that vector's length.

        Raises
        ------
        CalibrationError
            Data that cannot be trained on; see `training_rows`.
        MissingExtraError
            torch is not installed.
        """
        x, y = training_rows(vectors, cloud_wins)
        noise_sd = noise * float(np.sqrt((x**2).mean()))

        start, forward = _scores(members, x.shape[1], rank, dropout, noise_sd)
        found = train(
            forward,
            start,
            x,
            y,
            members=members,
            epochs=epochs,
            rate=learning_rate,
            decay=decay,
            batch=batch,
            seed=seed,
        )
        directions = found["models"] / np.linalg.norm(found["models"], axis=2, keepdims=True)
        score = (found["out"] * (directions[:, 1] - directions[:, 0]))[:, :, None]
        return cls(
            projection=side_by_side(found["projection"]),
            models=masked(score, draws, rate=dropout, seed=seed),
        )

    def estimate(self, vectors: npt.ArrayLike) -> Estimate:
        """Estimate n prompts; see `Head`."""
        projected = rows(vectors, self.dim) @ self.projection
        return estimated(by_member(projected, len(self.models)) @ self.models)


def _scores(members: int, dim: int, rank: int, dropout: float, noise_sd: float) -> tuple[Start, Forward]:
    """How the weights start, and the difference of scores that they give."""

    def start(generator: torch.Generator) -> dict[str, torch.Tensor]:
        import torch

        return {
            "projection": torch.randn(members, dim, rank, generator=generator) * dim**-0.5,
            "models": torch.randn(members, 2, rank, generator=generator),
            "out": torch.randn(members, rank, generator=generator),
        }

    def forward(
        weights: Mapping[str, torch.Tensor], batch: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        import torch

        noisy = batch + noise_sd * torch.randn(batch.shape, generator=generator)
        kept = dropped(noisy @ weights["projection"], dropout, generator)
        edge, cloud = torch.nn.functional.normalize(weights["models"], dim=2).unbind(1)
        return (kept @ (weights["out"] * (cloud - edge))[:, :, None]).squeeze(2)

    return start, forward
