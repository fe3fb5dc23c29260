"""From the logits of an ensemble under fixed dropout masks to an estimate with its parts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from confroute.heads.base import Estimate, sigmoid


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
    by_member = chances.mean(axis=2)
    between, within = by_member.var(axis=0), chances.var(axis=2).mean(axis=0)
    return Estimate(
        cloud_wins=by_member.mean(axis=0),
        spread=np.sqrt(between + within),
        parts={"ensemble": np.sqrt(between), "dropout": np.sqrt(within)},
    )
