"""The sequence of tests from the lowest threshold up, and where it has to stop."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from confroute.certificate import Loss, Method
from confroute.errors import CalibrationError, UnmetPromiseError
from confroute.policy.guarantee.losses import LEAST_KEPT, Slice
from confroute.stats.tails import (
    betting,
    binomial_cdf,
    first_failure,
    most_failures,
    rows_needed,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TestedThreshold:
    """The threshold at which a sequence of tests ended.

    Attributes
    ----------
    threshold : float
    method : str
    observed : float
        Mean loss on the calibration rows at the threshold.
    horizon : int or None
    """

    threshold: float
    method: Method
    observed: float
    horizon: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The guarantee that is wanted: a mean loss of at most alpha, except with probability delta."""

    loss: Loss
    alpha: float
    delta: float


@lru_cache(maxsize=64)
def least_kept(loss: Loss, alpha: float, delta: float | None, *, graded: bool) -> int:
    """Fewest rows that the first threshold must keep: for "selective", fewer prove nothing even if none of them loses."""
    if loss != "selective" or delta is None:
        return LEAST_KEPT
    needed = rows_needed(alpha, delta, horizon=False)
    while graded and betting(np.zeros(needed), alpha, delta) > delta:
        needed += 1
    return max(LEAST_KEPT, needed)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Test:
    method: Method
    proves: Callable[[int], bool]
    allows: str


def fixed_sequence(rows: Slice, target: Target, *, horizon: float | None, seed: int) -> TestedThreshold:
    """Find a threshold by Learn-then-Test with fixed-sequence testing (Angelopoulos et al., arXiv 2110.01052).

    Thresholds are tested from the lowest up, each at the full level delta, until one is not proved: the probability that the one
    before it breaks its bound is at most delta. This also holds for losses that are not monotone in the threshold.

    Raises
    ------
    UnmetPromiseError
        Too few rows for these levels, or the first threshold is not proved; the message holds the numbers.
    CalibrationError
        A horizon that is not a number of calls.
    """
    ahead = _horizon(rows, target.loss, horizon)
    if not rows.binary or target.loss == "net":
        test = _betting_test(rows, target, seed)
    elif target.loss in {"selective", "shortfall"}:
        test = _binomial_test(rows, target)
    else:
        test = _monotone_test(rows, target, ahead)
    passed = first_failure(test.proves, rows.grid.size)
    if passed == 0:
        msg = (
            f"a {target.loss} of {target.alpha:g} with confidence {1 - target.delta:g} cannot be guaranteed: with the {rows.kept[0]} most certain "
            f"answers kept, as the most cautious threshold does, {rows.n} rows lose {rows.lost[0]:g}, and {test.method} allows {test.allows}; "
            "use a better edge or signal, record more rows, or allow more loss or less confidence"
        )
        raise UnmetPromiseError(msg)
    return TestedThreshold(
        threshold=float(rows.grid[passed - 1]),
        method=test.method,
        observed=_mean(rows, target.loss, passed - 1),
        horizon=ahead,
    )


def expected_control(rows: Slice, loss: Loss, *, alpha: float) -> TestedThreshold:
    """Find a threshold by conformal risk control (Angelopoulos et al., arXiv 2208.02814): it bounds the expected loss of the next call.

    Raises
    ------
    CalibrationError
        A loss that may fall as the threshold rises.
    UnmetPromiseError
        No threshold meets the bound.
    """
    if loss not in {"regret", "error"}:
        msg = f"conformal risk control needs a loss that never falls as more is kept: 'regret' or 'error', not {loss!r}"
        raise CalibrationError(msg)
    fits = np.flatnonzero((rows.lost + 1) / (rows.n + 1) <= alpha)
    if fits.size == 0:
        msg = (
            f"an expected {loss} of {alpha:g} cannot be met: the {rows.kept[0]} most certain of {rows.n} rows lose "
            f"{rows.lost[0]:g}, which bounds it at {(rows.lost[0] + 1) / (rows.n + 1):.4f}; allow more or record more rows"
        )
        raise UnmetPromiseError(msg)
    at = int(fits[-1])
    return TestedThreshold(threshold=float(rows.grid[at]), method="crc", observed=_mean(rows, loss, at))


def _mean(rows: Slice, loss: Loss, at: int) -> float:
    return float(rows.lost[at] / (rows.kept[at] if loss == "selective" else rows.n))


def _horizon(rows: Slice, loss: Loss, horizon: float | None) -> int | None:
    """Future calls that the bound covers as well; only for monotone losses of 0 and 1 is there an exact argument."""
    if not rows.binary or loss not in {"regret", "error"} or horizon == math.inf:
        return None
    if horizon is None:
        return rows.n
    if not horizon >= 1 or horizon != int(horizon):
        msg = f"horizon is {horizon}: expected a whole number of calls, or math.inf for the long run only"
        raise CalibrationError(msg)
    return int(horizon)


def _betting_test(rows: Slice, target: Target, seed: int) -> _Test:
    # Rows may be sorted by topic, and the bets need an order that does not depend on the losses.
    place = np.random.default_rng(seed).permutation(rows.n)
    kept, sent = rows.loss[place], rows.forwarded[place]
    low = -1.0 if target.loss == "net" else 0.0

    def proves(at: int) -> bool:
        below = place < rows.kept[at]
        values = kept[below] if target.loss == "selective" else np.where(below, kept, sent)
        return betting(values, target.alpha, target.delta, low=low) <= target.delta

    return _Test(method="ltt-betting", proves=proves, allows=f"a p-value of {target.delta:g}")


def _binomial_test(rows: Slice, target: Target) -> _Test:
    def of(at: int) -> int:
        return int(rows.kept[at]) if target.loss == "selective" else rows.n

    def proves(at: int) -> bool:
        return binomial_cdf(round(rows.lost[at]), of(at), target.alpha) <= target.delta

    most = most_failures(of(0), target.alpha, target.delta)
    return _Test(method="ltt-binomial", proves=proves, allows=f"at most {most} there")


def _monotone_test(rows: Slice, target: Target, horizon: int | None) -> _Test:
    most = most_failures(rows.n, target.alpha, target.delta, horizon=horizon)
    if most < 0:
        needed = rows_needed(target.alpha, target.delta, horizon=horizon is not None)
        msg = (
            f"{rows.n} calibration rows cannot guarantee a {target.loss} of {target.alpha:g} with confidence {1 - target.delta:g}, "
            f"even if none of them fails: at least {needed} rows are needed; record more, or allow more loss or less confidence"
        )
        raise UnmetPromiseError(msg)
    return _Test(
        method="ltt-binomial" if horizon is None else "ltt-hypergeometric",
        proves=lambda at: bool(rows.lost[at] <= most),
        allows=f"at most {most}",
    )
