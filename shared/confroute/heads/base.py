"""The two interfaces of a head, the checks of its input, and the vector arithmetic that heads share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError, PolicyError, RequestError
from confroute.types import JSON

Vectors: TypeAlias = "npt.NDArray[np.float32]"
Numbers: TypeAlias = "npt.NDArray[np.float64]"

_NO_VECTORS = "these are texts or rows of unequal length: expected an encoder's vectors of shape (n, dim), as `embed(texts)` of encoder(...) gives"
NO_LABELS = "the labels are not numbers: expected cloud_wins in [0, 1] (1 cloud, 0.5 tie, 0 edge)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Estimate:
    """A head's prediction for n prompts.

    Attributes
    ----------
    cloud_wins : array of float in [0, 1], shape (n,)
        Probability that the cloud's answer is the better one; a tie counts one half.
    spread : array of float, shape (n,)
        The head's own uncertainty about that probability, as a standard deviation: 0 is certain, 0.5 the largest
        possible.
    parts : mapping of str to array, shape (n,)
        The components of `spread` as standard deviations ("ensemble" and "dropout"), from heads that separate them.
    """

    cloud_wins: Numbers
    spread: Numbers
    parts: Mapping[str, Numbers] = field(default_factory=dict)


@runtime_checkable
class Head(Protocol):
    """Predicts from prompt vectors. A head is an immutable value, made by `fit` or `load_head`."""

    @property
    def kind(self) -> str:
        """The kind's name in files."""
        ...

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        ...

    def estimate(self, vectors: npt.ArrayLike) -> Estimate:
        """Predict for n prompts, shape (n, dim), or for one, shape (dim,)."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The tensors that `save_head` writes."""
        ...

    def settings(self) -> dict[str, JSON]:
        """The settings that `save_head` writes as JSON."""
        ...


@runtime_checkable
class TextHead(Protocol):
    """Predicts from the prompts' texts, without an encoder. It has no `dim`, which is how it differs from a `Head`."""

    @property
    def kind(self) -> str:
        """The kind's name in files."""
        ...

    def estimate(self, texts: Sequence[str]) -> Estimate:
        """Predict for n prompts."""
        ...

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The tensors that `save_head` writes."""
        ...

    def settings(self) -> dict[str, JSON]:
        """The settings that `save_head` writes as JSON."""
        ...


def check_head_input(head: Head | TextHead, *, has_encoder: bool) -> None:
    """Refuse a head on vectors that comes without an encoder, and a head on texts that comes with one.

    Raises
    ------
    PolicyError
        The encoder is missing or superfluous.
    """
    if has_encoder == hasattr(head, "dim"):
        return
    if has_encoder:
        msg = f"a head of kind {head.kind!r} reads the texts itself: leave the encoder out"
    else:
        msg = f"a head of kind {head.kind!r} takes vectors: give the encoder it was trained with"
    raise PolicyError(msg)


def short_repr(self: Head | TextHead) -> str:
    """Write a head as its class and its size, as its `__repr__`: its arrays are long, and its words are those of prompts."""
    if isinstance(self, Head):
        return f"{type(self).__name__}(dim={self.dim})"
    vocabulary = getattr(self, "vocabulary", None)
    size = "" if vocabulary is None else f"terms={len(vocabulary)}"
    return f"{type(self).__name__}({size})"


def numbers_of(given: npt.ArrayLike, dtype: npt.DTypeLike) -> npt.NDArray[Any] | None:
    """Return `given` as an array, or None where it is not one of numbers; numpy's own error would quote a text."""
    try:
        return np.asarray(given, dtype=dtype)
    except (TypeError, ValueError):
        return None


def check_vectors(vectors: npt.ArrayLike, dim: int) -> Vectors:
    """Return the vectors as float32 rows of length `dim`.

    Raises
    ------
    RequestError
        The vectors are texts or have another length, or hold values that are not finite.
    """
    numbers = numbers_of(vectors, np.float32)
    if numbers is None:
        raise RequestError(_NO_VECTORS)
    x = np.atleast_2d(numbers)
    if x.ndim != 2 or x.shape[1] != dim:
        msg = f"vectors of shape {x.shape}: expected (n, {dim}), from the encoder that the head was trained with"
        raise RequestError(msg)
    # One pass over the data: a sum is not finite if any value is not.
    if not math.isfinite(x.sum(dtype=np.float64)):
        msg = "vectors hold values that are not finite: check the embedding model"
        raise RequestError(msg)
    return x


def check_training_data(vectors: npt.ArrayLike, cloud_wins: npt.ArrayLike) -> tuple[Vectors, Numbers]:
    """Return the training data as arrays of the right type, once they are fit to learn from.

    Parameters
    ----------
    vectors : array of float, shape (n, dim)
    cloud_wins : array of float in [0, 1], shape (n,)
        1 where the cloud's answer is better, 0 where the edge's is, 0.5 for a tie; any value between is a soft label.

    Raises
    ------
    CalibrationError
        Texts in place of vectors, fewer than 8 rows, mismatched shapes, values that are not finite or outside [0, 1], or
        labels that are not numbers or all equal.
    """
    numbers, y = numbers_of(vectors, np.float32), numbers_of(cloud_wins, np.float64)
    if numbers is None:
        raise CalibrationError(_NO_VECTORS)
    if y is None:
        raise CalibrationError(NO_LABELS)
    x = np.ascontiguousarray(numbers)
    if x.ndim != 2 or y.shape != x.shape[:1] or y.size < 8:
        msg = f"vectors of shape {x.shape} and labels of shape {y.shape}: expected (n, dim) and (n,) with n of 8 or more"
        raise CalibrationError(msg)
    if not np.isfinite(x).all() or not (np.isfinite(y) & (y >= 0) & (y <= 1)).all():
        msg = "expected finite vectors, and cloud_wins in [0, 1] (1 cloud, 0.5 tie, 0 edge)"
        raise CalibrationError(msg)
    if y.min() == y.max():
        msg = f"all {y.size} labels are {y[0]:g}: a head learns from prompts of both kinds, so add prompts with other labels"
        raise CalibrationError(msg)
    return x, y


def unit_rows(vectors: Vectors) -> Vectors:
    """Scale each row to Euclidean length 1; a row of zeros stays as it is."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return np.asarray(vectors / lengths, dtype=np.float32)


def column_scales(x: Vectors) -> tuple[Vectors, Vectors]:
    """Mean and standard deviation of each column, to standardise by; a constant column keeps scale 1."""
    mean, scale = x.mean(axis=0), x.std(axis=0)
    return mean, np.where(scale > 1e-6, scale, 1).astype(np.float32)


def sigmoid(logits: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """1 / (1 + exp(-logits)), without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * logits)))


# A prompt at similarity s counts exp((s - 1) / NEARNESS) of an observation: 1 for the same prompt, .02 at .6.
NEARNESS = 0.1
# A matrix product is faster the more rows it has; work on its result is faster while the rows fit into the cache.
_PRODUCT_ROWS = 512
_CACHE_ROWS = 32


def cosine_batches(queries: Vectors, vectors: Vectors) -> Iterator[tuple[slice, Vectors]]:
    """Yield the cosines of a few queries at a time with all `vectors`, and the slice of those queries.

    Both arrays hold unit vectors.
    """
    for start in range(0, len(queries), _PRODUCT_ROWS):
        product = queries[start : start + _PRODUCT_ROWS] @ vectors.T
        for row in range(0, len(product), _CACHE_ROWS):
            cosines = product[row : row + _CACHE_ROWS]
            yield slice(start + row, start + row + len(cosines)), cosines


def observation_weight(similarity: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Fraction of an observation, in (0, 1], that a labelled prompt at this cosine similarity counts as."""
    weight = np.minimum(similarity, 1)
    weight -= 1
    weight *= 1 / NEARNESS
    return np.asarray(np.exp(weight, out=weight))
