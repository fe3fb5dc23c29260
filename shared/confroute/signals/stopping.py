"""Stopping when the decision is probably settled: P(flip) <= eps under a prior fitted to recorded samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from confroute.errors import CalibrationError, PolicyError
from confroute.signals.base import Settled

LEAST_ROWS = 20
# Shape parameters are looked for on a grid, evenly in logarithms.
_SHAPES = tuple(10 ** (step / 8) for step in range(-12, 13))


@dataclass(frozen=True, slots=True, kw_only=True)
class BetaBinomial:
    """Stop drawing samples when the decision would change with a probability of at most `eps`.

    Parameters
    ----------
    a, b : float
        Shape of the prior of a call's rate of disagreement, above 0: Beta(a, b).
    eps : float in [0, 1)
        0 stops only where no completion at all can change the decision.

    Raises
    ------
    PolicyError
        A shape that is not positive, or an eps outside [0, 1).

    Notes
    -----
    After d of k samples disagree, how many of the m to come will has a beta-binomial distribution of shape
    (a + d, b + k - d). The final shares that lead to the same decision form ranges; if one of them has a probability of at
    least 1 - eps, it is taken as the result.

    Examples
    --------
    >>> prior = BetaBinomial(a=0.3, b=0.7, eps=0.05)
    >>> prior.range_of(0, 3, 10, lambda low, high: not low <= 0.45 < high)
    (0.0, 0.4)
    """

    a: float
    b: float
    eps: float = 0.05

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.b > 0 and 0 <= self.eps < 1):
            msg = f"a is {self.a}, b {self.b}, eps {self.eps}: expected shapes above 0 and eps in [0, 1)"
            raise PolicyError(msg)

    @classmethod
    def fit(cls, disagreeing: Sequence[int], drawn: Sequence[int], *, eps: float = 0.05) -> BetaBinomial:
        """The prior of greatest likelihood for recorded calls.

        Parameters
        ----------
        disagreeing, drawn : sequence of int
            Samples of each call, and how many of them disagreed with its draft.

        Raises
        ------
        CalibrationError
            Fewer than 20 calls, or counts that do not fit each other.
        """
        pairs = list(zip(disagreeing, drawn, strict=True))
        if len(pairs) < LEAST_ROWS or not all(0 <= d <= n for d, n in pairs):
            msg = f"{len(pairs)} calls to fit a prior to: expected at least {LEAST_ROWS}, each with 0 to n of n samples disagreeing"
            raise CalibrationError(msg)
        counts: dict[tuple[int, int], int] = {}
        for pair in pairs:
            counts[pair] = counts.get(pair, 0) + 1

        def likelihood(shape: tuple[float, float]) -> float:
            return math.fsum(times * _log_mass(d, n, *shape) for (d, n), times in counts.items())

        a, b = max(((a, b) for a in _SHAPES for b in _SHAPES), key=likelihood)
        return cls(a=round(a, 6), b=round(b, 6), eps=eps)

    def range_of(self, apart: int, drawn: int, of: int, settled: Settled) -> tuple[float, float] | None:
        """The range of final shares that is probable enough to stop; None to go on.

        Parameters
        ----------
        apart, drawn, of : int
            Disagreeing samples so far, samples so far, samples in all.
        settled : callable
            Whether all shares between two bounds lead to the same decision.
        """
        left = of - drawn
        start, mass = apart, 0.0
        for more in range(left + 1):
            mass += math.exp(_log_mass(more, left, self.a + apart, self.b + drawn - apart))
            here = apart + more
            if more < left and settled(here / of, (here + 1) / of):
                continue
            # Rounding must not keep the last range from being certain.
            if mass >= 1 - self.eps - 1e-12:
                return start / of, here / of
            start, mass = here + 1, 0.0
        return None


def _log_mass(k: int, n: int, a: float, b: float) -> float:
    """Logarithm of the beta-binomial probability of k of n."""
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + _log_beta(k + a, n - k + b) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)
