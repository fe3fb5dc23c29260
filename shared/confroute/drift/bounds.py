"""Bounds on the mean of audited losses that hold after every audit, all audits together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from confroute.drift.eprocess import BETS, unspent
from confroute.errors import PolicyError
from confroute.stats.arrays import Array

# Shares of the largest stake that cannot lose everything, against a mean that is high.
_STAKES = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95)
_LEVELS = 101
# Losses, for a matrix of a few megabytes.
_AT_ONCE = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class LossBounds:
    """A lower and an upper bound on a mean loss.

    Attributes
    ----------
    n : int
        Losses.
    mean : float in [0, 1] or None
        None without any loss.
    low, high : float in [0, 1]
        Each holds with probability `confidence` at all times together, however often it is looked at.
    confidence : float in (0, 1)
    """

    n: int
    mean: float | None
    low: float
    high: float
    confidence: float


def loss_bounds(losses: Sequence[float], *, confidence: float = 0.95) -> LossBounds:
    """Compute anytime-valid bounds on the mean of losses.

    Parameters
    ----------
    losses : sequence of float in [0, 1]
        In the order in which they came.
    confidence : float in (0, 1)
        Of each bound; both hold together with probability 2 * confidence - 1 at least.

    Raises
    ------
    PolicyError
        A confidence outside (0, 1).
    ValueError
        A loss outside [0, 1].

    Notes
    -----
    A mean is refuted once a gambler who bets against it has turned 1 into 1 / (1 - confidence); by Ville's inequality this ever happens
    to the true mean with probability 1 - confidence at most. The lower bound is the highest level at which `DriftTest` raises its
    alarm, so it sees a loss that has risen lately. The upper bound is the lowest level m that the mean of the wealths
    prod (1 + (b / (1 - m)) (m - L)) over seven stakes b refutes, as in Waudby-Smith and Ramdas (JRSS B 2024, arXiv 2010.09686), with fixed
    stakes in place of predictable ones. Where the mean loss changes, the lower bound is one on the highest that it has been, and the
    upper one on the lowest. Both are rounded away from the mean, to 1e-4.

    Examples
    --------
    >>> bounds = loss_bounds([0.0] * 300)
    >>> bounds.mean, bounds.low, round(bounds.high, 4)
    (0.0, 0.0, 0.0151)
    """
    if not 0 < confidence < 1:
        msg = f"confidence is {confidence}: expected a number between 0 and 1"
        raise PolicyError(msg)
    wrong = next((loss for loss in losses if not 0 <= loss <= 1), None)
    if wrong is not None:
        msg = f"the audited loss is {wrong}: expected a number in [0, 1]"
        raise ValueError(msg)
    values = np.asarray(losses, dtype=np.float64)
    low, high, wide = 0.0, 1.0, 1.0
    grid: Array = np.arange(_LEVELS, dtype=np.float64)
    # The first grid finds the hundredth, the second one what lies in it.
    for _ in range(2):
        step = wide / (_LEVELS - 1)
        low = max(low, _highest(low + step * grid, values, 1 - confidence))
        high = min(high, _lowest(high - step * grid, values, 1 - confidence))
        wide = step
    mean = float(values.mean()) if values.size else None
    return LossBounds(n=values.size, mean=mean, low=low, high=high, confidence=confidence)


def _highest(levels: Array, losses: Array, delta: float) -> float:
    """The highest of these levels at which the drift test of `confroute.drift.eprocess` ever raised its alarm; 0 if at none."""
    levels = levels[(levels > 0) & (levels < 1)]
    bets = np.asarray(BETS)[:, None]
    wealth = np.zeros((len(BETS), levels.size))
    raised = np.zeros(levels.size, dtype=bool)
    with np.errstate(over="ignore"):
        for at, loss in enumerate(losses.tolist()):
            wealth = (wealth + (unspent(at) - unspent(at + 1))) * (1 + bets / levels * (loss - levels))
            raised |= wealth.mean(axis=0) + unspent(at + 1) >= 1 / delta
    return float(levels[raised].max(initial=0.0))


def _lowest(levels: Array, losses: Array, delta: float) -> float:
    """The lowest of these levels that the losses ever proved to be above their mean; 1 if none."""
    levels = levels[(levels > 0) & (levels < 1)]
    stakes = np.asarray(_STAKES)[:, None] / (1 - levels)
    logs = np.zeros((len(_STAKES), levels.size, 1))
    most = np.full(levels.size, -math.inf)
    for start in range(0, losses.size, _AT_ONCE):
        gains = np.log1p(stakes[..., None] * (levels[:, None] - losses[start : start + _AT_ONCE]))
        logs = logs[..., -1:] + np.cumsum(gains, axis=-1)
        most = np.maximum(most, np.logaddexp.reduce(logs, axis=0).max(axis=-1))
    return float(levels[most >= math.log(len(_STAKES) / delta)].min(initial=1.0))
