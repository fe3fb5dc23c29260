"""Training of the two heads that have weights: all members of an ensemble at once, on the CPU, by torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from confroute.errors import CalibrationError, MissingExtraError
from confroute.heads.base import Numbers, Vectors

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
