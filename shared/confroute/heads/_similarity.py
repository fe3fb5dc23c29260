"""How similar prompts are to labelled ones, and what that counts for."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from confroute.heads.base import Vectors

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
