"""Heads with trained weights, each a deep ensemble with Monte Carlo dropout: an MLP and RouteLLM's matrix factorisation.

Training needs torch. Estimates need numpy only: the members of an ensemble are stored as one matrix, and the dropout masks are
drawn once and become part of the output weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError, MissingExtraError
from confroute.heads.base import (
    Estimate,
    Numbers,
    Vectors,
    check_training_data,
    check_vectors,
    column_scales,
    short_repr,
    sigmoid,
)
from confroute.types import JSON

if TYPE_CHECKING:
    from typing import Self

    import torch

    Tensors: TypeAlias = "dict[str, torch.Tensor]"
    # Draws the initial weights.
    Initialise: TypeAlias = "Callable[[torch.Generator], Tensors]"
    # (weights, vectors of shape (members, batch, dim), generator) -> logits of shape (members, batch)
    Forward: TypeAlias = "Callable[[Mapping[str, torch.Tensor], torch.Tensor, torch.Generator], torch.Tensor]"


def train(
    forward: Forward,
    initialise: Initialise,
    vectors: Vectors,
    cloud_wins: Numbers,
    *,
    members: int,
    epochs: int,
    rate: float,
    decay: float,
    batch: int,
    seed: int,
) -> dict[str, Vectors]:
    """Minimise the cross-entropy of every member by AdamW; members differ in their initial weights and order of rows.

    Parameters
    ----------
    forward, initialise : callable
    vectors : array, shape (n, dim)
    cloud_wins : array in [0, 1], shape (n,)
    members, epochs, batch, seed : int
    rate, decay : float
        Learning rate, falling to 0 along a cosine, and weight decay.

    Raises
    ------
    MissingExtraError
        torch is not installed.
    CalibrationError
        `members`, `epochs` or `batch` is below 1.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError(extra="local", needed_for="training a head") from error
    if min(members, epochs, batch) < 1:
        msg = f"members {members}, epochs {epochs}, batch {batch}: expected 1 or more of each"
        raise CalibrationError(msg)
    generator = torch.Generator().manual_seed(seed)
    x, y = torch.from_numpy(vectors), torch.from_numpy(cloud_wins.astype(np.float32))
    weights = {name: value.requires_grad_() for name, value in initialise(generator).items()}
    optimiser = torch.optim.AdamW(weights.values(), lr=rate, weight_decay=decay)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    for _ in range(epochs):
        orders = torch.stack([torch.randperm(len(x), generator=generator) for _ in range(members)])
        for rows in torch.split(orders, batch, dim=1):
            logits = forward(weights, x[rows], generator)
            # Summed over members, so that each gets the gradient that it would get alone.
            loss = loss_of(logits, y[rows], reduction="none").mean(dim=1).sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimiser.step()
            schedule.step()
    return {name: value.detach().numpy() for name, value in weights.items()}


def apply_dropout(hidden: torch.Tensor, rate: float, generator: torch.Generator) -> torch.Tensor:
    """Apply inverted dropout, drawn from `generator`: torch's own draws from global state."""
    import torch

    kept = torch.rand(hidden.shape, generator=generator) >= rate
    return hidden * kept / (1 - rate)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class NetworkHead:
    """Base class of the trained heads: every field is a float32 array, the first of shape (dim, members * width)."""

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        first: Vectors = getattr(self, fields(self)[0].name)
        return int(first.shape[0])

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The tensors of its file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def settings(self) -> dict[str, JSON]:
        """The JSON settings of its file."""
        return {}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[np.generic]], settings: Mapping[str, JSON]) -> Self:
        """Rebuild a head from the tensors and settings of its file."""
        del settings
        return cls(**{name: array.astype(np.float32) for name, array in arrays.items()})


def join_members(weights: Vectors) -> Vectors:
    """Join the members' weights, shape (members, dim, width), to one matrix of shape (dim, members * width)."""
    members, dim, width = weights.shape
    return np.ascontiguousarray(weights.transpose(1, 0, 2).reshape(dim, members * width))


def split_members(units: Vectors, members: int) -> Vectors:
    """Split n prompts' products with a joined matrix into shape (members, n, width)."""
    return np.asarray(units.reshape(len(units), members, -1).transpose(1, 0, 2))


def apply_masks(outer: Vectors, draws: int, *, rate: float, seed: int) -> Vectors:
    """Apply `draws` dropout masks to output weights of shape (members, width, 1): shape (members, width, draws)."""
    members, width, _ = outer.shape
    kept = dropout_masks(members, draws, width, rate=rate, seed=seed)
    return np.ascontiguousarray(outer * kept.transpose(0, 2, 1), dtype=np.float32)


def dropout_masks(members: int, draws: int, width: int, *, rate: float, seed: int) -> npt.NDArray[np.float32]:
    """Draw inverted dropout masks, shape (members, draws, width).

    They are drawn once and kept, so that a prompt always gets the same estimate, and so that the layer after the
    dropout becomes one matrix per member.
    """
    kept = np.random.default_rng(seed).random((members, draws, width)) >= rate
    return (kept / (1 - rate)).astype(np.float32)


def ensemble_estimate(logits: npt.NDArray[np.floating]) -> Estimate:
    """Average over members and masks, and split the variance by the law of total variance.

    Parameters
    ----------
    logits : array, shape (members, n, draws)

    Examples
    --------
    >>> estimate = ensemble_estimate(np.array([[[0.0, 0.0]], [[100.0, 100.0]]]))
    >>> estimate.cloud_wins.tolist(), estimate.parts["ensemble"].tolist(), estimate.parts["dropout"].tolist()
    ([0.75], [0.25], [0.0])
    """
    chances = sigmoid(logits.astype(np.float64, copy=False))
    members, _, draws = chances.shape
    # One prompt is the common call, and numpy's mean and var take several times as long on so few numbers.
    member_means = chances.sum(axis=2) / draws
    wins = member_means.sum(axis=0) / members
    between = ((member_means - wins) ** 2).sum(axis=0) / members
    within = ((chances - member_means[:, :, None]) ** 2).sum(axis=(0, 2)) / (members * draws)
    return Estimate(
        cloud_wins=wins,
        spread=np.sqrt(between + within),
        parts={"ensemble": np.sqrt(between), "dropout": np.sqrt(within)},
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MLP(NetworkHead):
    """Linear, ReLU, dropout, linear: the third head of the Confidence-Driven router (arXiv 2502.11021); made by `fit`.

    Attributes
    ----------
    inner : array of float32, shape (dim, members * hidden)
    bias : array of float32, shape (members * hidden,)
        Bias of the first layer; layer and bias include the standardisation by the training vectors' mean and scale.
    outer : array of float32, shape (members, hidden, draws)
        Output weights under each of the fixed dropout masks.
    offset : array of float32, shape (members,)

    Notes
    -----
    The paper's softmax over two classes is the logistic function of one logit; the target of a tie is one half. `spread`
    has two parts: the variance between members with different initial weights (Lakshminarayanan et al., arXiv
    1612.01474) and the mean variance under dropout (Gal and Ghahramani, arXiv 1506.02142).

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
    __repr__ = short_repr

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
            Hidden units, networks, dropout masks per network, passes over the data, rows per step, and the random seed.
        dropout, learning_rate, decay : float

        Raises
        ------
        CalibrationError
            Unusable training data; see `check_training_data`.
        MissingExtraError
            torch is not installed.
        """
        x, y = check_training_data(vectors, cloud_wins)
        mean, scale = column_scales(x)
        initialise, forward = _mlp_network(members, x.shape[1], hidden, dropout)
        weights = train(
            forward,
            initialise,
            (x - mean) / scale,
            y,
            members=members,
            epochs=epochs,
            rate=learning_rate,
            decay=decay,
            batch=batch,
            seed=seed,
        )
        # Standardisation becomes part of the first layer's weights: inference then has no step for it.
        inner = join_members(weights["inner"]) / scale[:, None]
        return cls(
            inner=inner,
            bias=(weights["bias"].reshape(-1) - mean @ inner).astype(np.float32),
            outer=apply_masks(weights["outer"], draws, rate=dropout, seed=seed),
            offset=weights["offset"].reshape(members),
        )

    def estimate(self, vectors: npt.ArrayLike) -> Estimate:
        """Predict for n prompts; see `Head`."""
        units = np.maximum(check_vectors(vectors, self.dim) @ self.inner + self.bias, 0)
        hidden = split_members(units, len(self.outer))
        return ensemble_estimate(hidden @ self.outer + self.offset[:, None, None])


def _mlp_network(members: int, dim: int, hidden: int, dropout: float) -> tuple[Initialise, Forward]:
    """Initial weights and forward pass of the MLPs."""

    def initialise(generator: torch.Generator) -> dict[str, torch.Tensor]:
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
        kept = apply_dropout(units, dropout, generator)
        return (kept @ weights["outer"]).squeeze(2) + weights["offset"]

    return initialise, forward


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class MatrixFactorisation(NetworkHead):
    """RouteLLM's MF head (Ong et al., arXiv 2406.18665, section 4.2), as a deep ensemble with dropout; made by `fit`.

    Attributes
    ----------
    projection : array of float32, shape (dim, members * rank)
    models : array of float32, shape (members, rank, draws)
        Output weight times the difference of the two unit model vectors, under each of the fixed dropout masks.

    Notes
    -----
    The score of a model is ``w . (p / |p| * V q)``: p a vector of the model, q the prompt's. The cloud wins with the logistic
    function of the difference of scores, without a bias, as in RouteLLM's code, which also adds Gaussian noise to q in
    training. Three things differ from RouteLLM: the target of a tie is one half (theirs drops ties), there is dropout
    on V q, and there are several members. `spread` has the same two parts as that of `MLP`.

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
    __repr__ = short_repr

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
            Length of the noise added to a prompt's vector in training, as a fraction of that vector's length.

        Raises
        ------
        CalibrationError
            Unusable training data; see `check_training_data`.
        MissingExtraError
            torch is not installed.
        """
        x, y = check_training_data(vectors, cloud_wins)
        noise_sd = noise * float(np.sqrt((x**2).mean()))
        initialise, forward = _factorisation_network(members, x.shape[1], rank, dropout, noise_sd)
        weights = train(
            forward,
            initialise,
            x,
            y,
            members=members,
            epochs=epochs,
            rate=learning_rate,
            decay=decay,
            batch=batch,
            seed=seed,
        )
        directions = weights["models"] / np.linalg.norm(weights["models"], axis=2, keepdims=True)
        score = (weights["out"] * (directions[:, 1] - directions[:, 0]))[:, :, None]
        return cls(
            projection=join_members(weights["projection"]),
            models=apply_masks(score, draws, rate=dropout, seed=seed),
        )

    def estimate(self, vectors: npt.ArrayLike) -> Estimate:
        """Predict for n prompts; see `Head`."""
        projected = check_vectors(vectors, self.dim) @ self.projection
        return ensemble_estimate(split_members(projected, len(self.models)) @ self.models)


def _factorisation_network(
    members: int, dim: int, rank: int, dropout: float, noise_sd: float
) -> tuple[Initialise, Forward]:
    """Initial weights and forward pass (the difference of scores) of the factorisations."""

    def initialise(generator: torch.Generator) -> dict[str, torch.Tensor]:
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
        kept = apply_dropout(noisy @ weights["projection"], dropout, generator)
        edge, cloud = torch.nn.functional.normalize(weights["models"], dim=2).unbind(1)
        return (kept @ (weights["out"] * (cloud - edge))[:, :, None]).squeeze(2)

    return initialise, forward
