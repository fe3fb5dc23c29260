"""What a head is: prompt vectors in, the probability that the cloud's answer is the better one out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError, PolicyError, RequestError
from confroute.types import JSON

Vectors: TypeAlias = "npt.NDArray[np.float32]"
Numbers: TypeAlias = "npt.NDArray[np.float64]"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """What a head says of n prompts.

    Attributes
    ----------
    cloud_wins : array of float in [0, 1], shape (n,)
        Probability that the cloud's answer is the better one; a tie counts one half.
    spread : array of float, shape (n,)
        Standard deviation of that probability, as far as the head itself does not know it: 0 is sure, 0.5 the most
        a probability can have.
    parts : mapping of str to array, shape (n,)
        What `spread` is made of, as standard deviations, where the head can tell: "ensemble" and "dropout".
    """

    cloud_wins: Numbers
    spread: Numbers
    parts: Mapping[str, Numbers] = field(default_factory=dict)


@runtime_checkable
class Head(Protocol):
    """One way to estimate from vectors. A head is a value: it is made by `fit` or `load_head` and never changes."""

    @property
    def kind(self) -> str:
        """Name in files."""
        ...

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        ...

    def estimate(self, vectors: npt.ArrayLike) -> Estimate:
        """Estimate n prompts, shape (n, dim), or one, shape (dim,)."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What `save_head` writes as tensors."""
        ...

    def settings(self) -> dict[str, JSON]:
        """What `save_head` writes as JSON."""
        ...


@runtime_checkable
class TextHead(Protocol):
    """A head that reads the prompts themselves: it needs no encoder, and has no `dim`, by which the two are told apart."""

    @property
    def kind(self) -> str:
        """Name in files."""
        ...

    def estimate(self, texts: Sequence[str]) -> Estimate:
        """Estimate n prompts."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What `save_head` writes as tensors."""
        ...

    def settings(self) -> dict[str, JSON]:
        """What `save_head` writes as JSON."""
        ...


def check_encoder(head: Head | TextHead, *, given: bool) -> None:
    """Refuse a head that takes vectors where no encoder is given, and one that reads texts where one is.

    Raises
    ------
    PolicyError
        As said.
    """
    if given == hasattr(head, "dim"):
        return
    if given:
        msg = f"a head of kind {head.kind!r} reads the texts itself: leave the encoder out"
    else:
        msg = f"a head of kind {head.kind!r} takes vectors: give the encoder it was trained with"
    raise PolicyError(msg)


def rows(vectors: npt.ArrayLike, dim: int) -> Vectors:
    """Vectors as float32 rows of length `dim`.

    Raises
    ------
    RequestError
        Another length, or values that are not finite.
    """
    found = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
    if found.ndim != 2 or found.shape[1] != dim:
        msg = f"vectors of shape {found.shape}: expected (n, {dim}), from the encoder that the head was trained with"
        raise RequestError(msg)
    # One pass over the data: a sum is not finite if any value is not.
    if not math.isfinite(found.sum(dtype=np.float64)):
        msg = "vectors hold values that are not finite: check the embedding model"
        raise RequestError(msg)
    return found


def training_rows(vectors: npt.ArrayLike, cloud_wins: npt.ArrayLike) -> tuple[Vectors, Numbers]:
    """Training data, checked.

    Parameters
    ----------
    vectors : array of float, shape (n, dim)
    cloud_wins : array of float in [0, 1], shape (n,)
        1 where the cloud's answer is better, 0 where the edge's is, 0.5 for a tie; anything between for soft labels.

    Raises
    ------
    CalibrationError
        Fewer than 8 rows, shapes that do not fit, values that are not finite or outside [0, 1], or labels that are
        all equal.
    """
    x = np.ascontiguousarray(vectors, dtype=np.float32)
    y = np.asarray(cloud_wins, dtype=np.float64)
    if x.ndim != 2 or y.shape != x.shape[:1] or y.size < 8:
        msg = f"vectors of shape {x.shape} and labels of shape {y.shape}: expected (n, dim) and (n,) with n of 8 or more"
        raise CalibrationError(msg)
    if not np.isfinite(x).all() or not (np.isfinite(y) & (y >= 0) & (y <= 1)).all():
        msg = "vectors have to be finite, and cloud_wins has to lie in [0, 1] (1 cloud, 0.5 tie, 0 edge)"
        raise CalibrationError(msg)
    if y.min() == y.max():
        msg = f"all {y.size} labels are {y[0]:g}: a head needs prompts of both kinds to learn from"
        raise CalibrationError(msg)
    return x, y


def unit(vectors: Vectors) -> Vectors:
    """Rows of Euclidean length 1; a row of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return np.asarray(vectors / lengths, dtype=np.float32)


def sigmoid(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """1 / (1 + exp(-logits)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


# A prompt at similarity s counts exp((s - 1) / NEARNESS) of an observation: 1 for the same prompt, .02 at .6.
NEARNESS = 0.1
# A product of matrices is the faster the more rows it has; what is done to its result is, while that lies in the cache.
_PRODUCT = 512
_CACHED = 32


def similarities(queries: Vectors, vectors: Vectors) -> Iterator[tuple[slice, Vectors]]:
    """Cosines with all `vectors`, of a few queries at a time, and which these are; both hold unit vectors."""
    for start in range(0, len(queries), _PRODUCT):
        product = queries[start : start + _PRODUCT] @ vectors.T
        for row in range(0, len(product), _CACHED):
            some = product[row : row + _CACHED]
            yield slice(start + row, start + row + len(some)), some


def evidence(similarity: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """How much of an observation a labelled prompt at this cosine similarity is, in (0, 1]."""
    found = np.minimum(similarity, 1)
    found -= 1
    found *= 1 / NEARNESS
    return np.asarray(np.exp(found, out=found))
