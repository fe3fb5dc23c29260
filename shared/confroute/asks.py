"""What a policy can ask for, and what it is given back.

A policy never calls a model. It yields an `Ask`; whoever drives it (see `confroute.flow`) does the work and
sends `Evidence` back, or throws the error that the work ended in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.types import Generation


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """One answer of `tier` that may still be thrown away: never shown before the policy keeps it."""

    tier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`n` independent answers of `tier` at `temperature`; `drawn` were drawn before them."""

    tier: str
    n: int = 1
    temperature: float = 0.7
    drawn: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Final:
    """The answer of `tier` that the caller gets whatever it is: the only ask that may be streamed."""

    tier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Embed:
    """Unit vectors of `texts` by the embedding model named `model`."""

    texts: tuple[str, ...]
    model: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Entails:
    """For each pair, the probability that the first text entails the second, by the NLI model `model`."""

    pairs: tuple[tuple[str, str], ...]
    model: str


ModelAsk: TypeAlias = Draft | Sample | Final
WorkAsk: TypeAlias = Embed | Entails
Ask: TypeAlias = ModelAsk | WorkAsk


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What one ask brought.

    Attributes
    ----------
    generations : tuple of Generation
        For Draft and Final one answer, for Sample up to `n`, else empty.
    numbers : ndarray or None
        For Embed shape (texts, dimensions), for Entails shape (pairs,), else None.
    latency_s : float
        Wall time of the ask, retries included.
    attempts : int
        Calls it took.
    """

    generations: tuple[Generation, ...] = ()
    numbers: npt.NDArray[np.float32] | None = field(default=None, compare=False)
    latency_s: float = 0.0
    attempts: int = 1
