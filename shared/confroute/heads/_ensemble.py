"""From the logits of an ensemble under fixed dropout masks to an estimate with its parts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from confroute.heads.base import Estimate, Vectors, sigmoid
from confroute.types import JSON

if TYPE_CHECKING:
    from typing_extensions import Self


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
