"""A network of two layers, as a deep ensemble with dropout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError, MissingExtraError
from confroute.heads.base import Estimate, Numbers, Vectors, rows, sigmoid, training_rows
from confroute.types import JSON

if TYPE_CHECKING:
    import torch
    from typing_extensions import Self


if TYPE_CHECKING:
    import torch

    Tensors: TypeAlias = "dict[str, torch.Tensor]"
    Start: TypeAlias = "Callable[[torch.Generator], Tensors]"
    # (weights, vectors of shape (members, batch, dim), generator) -> logits of shape (members, batch)
    Forward: TypeAlias = "Callable[[Mapping[str, torch.Tensor], torch.Tensor, torch.Generator], torch.Tensor]"


def dropped(hidden: torch.Tensor, rate: float, generator: torch.Generator) -> torch.Tensor:
    """Inverted dropout with a generator of its own: torch's draws from global state."""
    import torch

    kept = torch.rand(hidden.shape, generator=generator) >= rate
    return hidden * kept / (1 - rate)


def train(
    forward: Forward,
    start: Start,
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
    """Minimise the cross-entropy of every member by AdamW, each with an order and a start of its own.

    Parameters
    ----------
    forward, start : callable
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
        Fewer than one member, epoch or row a batch.
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
    weights = {name: value.requires_grad_() for name, value in start(generator).items()}
    optimiser = torch.optim.AdamW(weights.values(), lr=rate, weight_decay=decay)
    steps = epochs * -(-len(x) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    loss_of = torch.nn.functional.binary_cross_entropy_with_logits
    for _ in range(epochs):
        orders = torch.stack([torch.randperm(len(x), generator=generator) for _ in range(members)])
        for chosen in torch.split(orders, batch, dim=1):
            logits = forward(weights, x[chosen], generator)
            # Summed over members: each gets the gradient that it would get alone.
            loss = loss_of(logits, y[chosen], reduction="none").mean(dim=1).sum()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch does not annotate it
            optimiser.step()
            schedule.step()
    return {name: value.detach().numpy() for name, value in weights.items()}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """A head whose attributes are float32 arrays, the first of shape (dim, members * width)."""

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        first: Vectors = getattr(self, fields(self)[0].name)
        return int(first.shape[0])

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What is written as tensors."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def settings(self) -> dict[str, JSON]:
        """What is written as JSON."""
        return {}

    @classmethod
    def restored(cls, arrays: Mapping[str, npt.NDArray[np.generic]], settings: Mapping[str, JSON]) -> Self:
        """The head that `arrays` and `settings` describe."""
        del settings
        return cls(**{name: array.astype(np.float32) for name, array in arrays.items()})


def side_by_side(weights: Vectors) -> Vectors:
    """Weights of shape (members, dim, width) as one matrix, shape (dim, members * width)."""
    members, dim, width = weights.shape
    return np.ascontiguousarray(weights.transpose(1, 0, 2).reshape(dim, members * width))


def by_member(units: Vectors, members: int) -> Vectors:
    """What `side_by_side` made of n prompts, shape (members, n, width)."""
    return np.asarray(units.reshape(len(units), members, -1).transpose(1, 0, 2))


def masked(outer: Vectors, draws: int, *, rate: float, seed: int) -> Vectors:
    """Output weights, shape (members, width, 1), under each dropout mask, shape (members, width, draws)."""
    members, width, _ = outer.shape
    kept = masks(members, draws, width, rate=rate, seed=seed)
    return np.ascontiguousarray(outer * kept.transpose(0, 2, 1), dtype=np.float32)


def masks(members: int, draws: int, width: int, *, rate: float, seed: int) -> npt.NDArray[np.float32]:
    """Inverted dropout masks, shape (members, draws, width).

    They are drawn once and kept: the same prompt then always gets the same answer, and the layer behind the dropout
    becomes one matrix a member.
    """
    kept = np.random.default_rng(seed).random((members, draws, width)) >= rate
    return (kept / (1 - rate)).astype(np.float32)


def estimated(logits: npt.NDArray[np.floating]) -> Estimate:
    """Mean and standard deviation over members and masks, split by the law of total variance.

    Parameters
    ----------
    logits : array, shape (members, n, draws)

    Examples
    --------
    >>> found = estimated(np.array([[[0.0, 0.0]], [[100.0, 100.0]]]))
    >>> found.cloud_wins.tolist(), found.parts["ensemble"].tolist(), found.parts["dropout"].tolist()
    ([0.75], [0.25], [0.0])
    """
    chances = sigmoid(logits.astype(np.float64, copy=False))
    members, _, draws = chances.shape
    # numpy's mean and var take several times as long on so few numbers, and one prompt is the common call.
    by_member = chances.sum(axis=2) / draws
    wins = by_member.sum(axis=0) / members
    between = ((by_member - wins) ** 2).sum(axis=0) / members
    within = ((chances - by_member[:, :, None]) ** 2).sum(axis=(0, 2)) / (members * draws)
    return Estimate(
        cloud_wins=wins,
        spread=np.sqrt(between + within),
        parts={"ensemble": np.sqrt(between), "dropout": np.sqrt(within)},
    )


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
