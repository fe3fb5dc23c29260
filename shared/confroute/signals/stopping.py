"""Stop sampling once the decision is probably settled: P(flip) <= eps under a prior fitted to recorded samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.decision import without_noise
from confroute.errors import CalibrationError, PolicyError
from confroute.registry import register
from confroute.signals.base import Settled
from confroute.signals.clusters import normalised_entropy

MIN_CALLS = 20
UNNAMED = "data without a name"
# Their partitions are counted one by one: 6,842 of 31 answers take half a second, and each further answer a fifth more.
MOST_ANSWERS = 31
Floats: TypeAlias = "npt.NDArray[np.float64]"
# Grid of shape parameters, evenly spaced in logarithms.
_SHAPES = tuple(10 ** (step / 8) for step in range(-12, 13))


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class BetaBinomial:
    """Stops `SelfConsistency` once the decision would change with a probability of at most `eps`.

    Parameters
    ----------
    a, b : float
        Shape of the prior of a call's rate of disagreement, Beta(a, b); above 0.
    eps : float in [0, 1)
        0 stops only where no completion at all can change the decision.
    source : str
        The data that the prior was fitted to, for the decision's details.

    Raises
    ------
    PolicyError
        A shape that is not positive, or an eps outside [0, 1).

    Notes
    -----
    After d of k samples disagree, the number of disagreeing samples among the m remaining ones follows a beta-binomial
    distribution of shape (a + d, b + k - d). The final shares that lead to the same decision form ranges; once one of them
    has a probability of at least 1 - eps, it is taken as the result. `eps` holds on calls like those that the prior was fitted to, and
    on no others.

    Examples
    --------
    >>> prior = BetaBinomial(a=0.3, b=0.7, eps=0.05)
    >>> prior.probable_range(0, 3, 10, lambda low, high: not low <= 0.45 < high)
    (0.0, 0.4)
    """

    a: float
    b: float
    eps: float = 0.05
    source: str = UNNAMED

    def __post_init__(self) -> None:
        if not (self.a > 0 and self.b > 0 and 0 <= self.eps < 1):
            msg = f"a is {self.a}, b {self.b} and eps {self.eps}: expected shapes above 0 and eps in [0, 1)"
            raise PolicyError(msg)

    @classmethod
    def fit(
        cls, disagreeing: Sequence[int], drawn: Sequence[int], *, eps: float = 0.05, source: str = UNNAMED
    ) -> BetaBinomial:
        """Fit the prior to recorded calls by maximum likelihood, on a grid of shapes.

        Parameters
        ----------
        disagreeing, drawn : sequence of int
            For each call, how many samples disagreed with its draft, and how many were drawn.
        source : str
            What these calls are: the run's file, the benchmark, the weeks of traffic.

        Raises
        ------
        CalibrationError
            Fewer than 20 calls, or more disagreeing samples than were drawn.
        """
        pairs = list(zip(disagreeing, drawn, strict=True))
        if len(pairs) < MIN_CALLS or not all(0 <= d <= n for d, n in pairs):
            msg = f"{len(pairs)} calls to fit a prior to: expected at least {MIN_CALLS}, each with 0 to n of n samples disagreeing"
            raise CalibrationError(msg)
        counts: dict[tuple[int, int], int] = {}
        for pair in pairs:
            counts[pair] = counts.get(pair, 0) + 1

        def likelihood(shape: tuple[float, float]) -> float:
            return math.fsum(times * _log_mass(d, n, *shape) for (d, n), times in counts.items())

        a, b = max(((a, b) for a in _SHAPES for b in _SHAPES), key=likelihood)
        return cls(a=round(a, 6), b=round(b, 6), eps=eps, source=source)

    def probable_range(
        self, disagreeing: int, drawn: int, total: int, settled: Settled
    ) -> tuple[float, float] | None:
        """The range of final shares that is probable enough to stop at; None to go on.

        Parameters
        ----------
        disagreeing, drawn, total : int
            Disagreeing samples so far, samples so far, samples when all are drawn.
        settled : callable
            Whether all shares between two bounds lead to the same decision.
        """
        remaining = total - drawn
        shares = [without_noise(d / total) for d in range(total + 1)]
        start, mass = disagreeing, 0.0
        for more in range(remaining + 1):
            mass += math.exp(_log_mass(more, remaining, self.a + disagreeing, self.b + drawn - disagreeing))
            final = disagreeing + more
            if more < remaining and settled(shares[final], shares[final + 1]):
                continue
            # A rounding error must not make the last range uncertain.
            if mass >= 1 - self.eps - 1e-12:
                return shares[start], shares[final]
            start, mass = final + 1, 0.0
        return None


def _log_mass(k: int, n: int, a: float, b: float) -> float:
    """Logarithm of the beta-binomial probability of k of n."""
    choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return choose + _log_beta(k + a, n - k + b) - _log_beta(a, b)


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


# From a model that always repeats its answer to one that never does, evenly spaced in logarithms.
_CONCENTRATIONS = tuple(round(10 ** (step / 2), 6) for step in range(-6, 5))
_EM_ROUNDS = 200


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class EwensMixture:
    """Stops `SemanticEntropy` once the decision would change with a probability of at most `eps`.

    Parameters
    ----------
    concentrations : tuple of float
        Above 0. With concentration c, the next answer after m others has a new meaning with probability c / (c + m), else
        an old one in proportion to its number of answers (Ewens 1972; the Chinese restaurant process).
    weights : tuple of float
        Prior weight of each concentration; 0 or more, not all 0.
    eps : float in [0, 1)
        0 stops only where no completion at all can change the decision.
    source : str
        The data that the prior was fitted to, for the decision's details.

    Raises
    ------
    PolicyError
        Not exactly one weight per concentration, numbers out of range, or an eps outside [0, 1).

    Notes
    -----
    A call's answers so far give the posterior of its concentration; under it the distribution of the final counts is
    computed exactly. Final entropies that lead to the same decision form ranges; once one of them has a probability of at
    least 1 - eps, it is taken as the result. The prior is a mixture because a single concentration for all calls could not
    be updated by a call's answers.

    `eps` holds on calls like those that the prior was fitted to, and on no others: a prior of one benchmark changed 30 % of the
    decisions of another at an eps of 0.1. Fit it to your own calls, and again when they change.

    Examples
    --------
    >>> prior = EwensMixture(concentrations=(0.01, 3.0), weights=(0.7, 0.3), eps=0.05)
    >>> low, high = prior.probable_range([3], 10, lambda low, high: not low <= 0.5 < high)
    >>> low, high < 0.5
    (0.0, True)
    """

    concentrations: tuple[float, ...]
    weights: tuple[float, ...]
    eps: float = 0.05
    source: str = UNNAMED

    def __post_init__(self) -> None:
        same_length = len(self.concentrations) == len(self.weights) > 0
        in_range = all(c > 0 for c in self.concentrations) and all(w >= 0 for w in self.weights)
        if not (same_length and in_range and sum(self.weights) > 0 and 0 <= self.eps < 1):
            msg = (
                f"concentrations are {self.concentrations}, weights {self.weights} and eps {self.eps}: expected concentrations "
                "above 0, a weight of 0 or more for each, and eps in [0, 1)"
            )
            raise PolicyError(msg)

    @classmethod
    def fit(
        cls, meanings: Sequence[int], drawn: Sequence[int], *, eps: float = 0.05, source: str = UNNAMED
    ) -> EwensMixture:
        """Fit the mixture to recorded calls by maximum likelihood, over eleven concentrations from 0.001 to 100.

        Parameters
        ----------
        meanings, drawn : sequence of int
            For each call, the number of distinct meanings and the number of answers, the draft included: a sufficient
            statistic of the concentration.
        source : str
            What these calls are: the run's file, the benchmark, the weeks of traffic.

        Raises
        ------
        CalibrationError
            Fewer than 20 calls, or more meanings than samples.
        """
        pairs = list(zip(meanings, drawn, strict=True))
        if len(pairs) < MIN_CALLS or not all(1 <= k <= n for k, n in pairs):
            msg = f"{len(pairs)} calls to fit a prior to: expected at least {MIN_CALLS}, each with 1 to n meanings among n samples"
            raise CalibrationError(msg)
        logs = np.array([_log_likelihoods(k, n, _CONCENTRATIONS) for k, n in pairs])
        likelihood = np.exp(logs - logs.max(axis=1, keepdims=True))
        weights = np.full(len(_CONCENTRATIONS), 1 / len(_CONCENTRATIONS))
        for _ in range(_EM_ROUNDS):
            share = likelihood * weights
            weights = (share / share.sum(axis=1, keepdims=True)).mean(axis=0)
        shares = tuple(round(float(w), 6) for w in weights)
        return cls(concentrations=_CONCENTRATIONS, weights=shares, eps=eps, source=source)

    def probable_range(
        self, counts: Sequence[int], total: int, settled: Settled
    ) -> tuple[float, float] | None:
        """The range of final entropies that is probable enough to stop at; None to go on.

        Parameters
        ----------
        counts : sequence of int
            Answers of each meaning so far, one or more.
        total : int
            Answers when all are drawn, at most 31.
        settled : callable
            Whether all entropies between two bounds lead to the same decision.

        Raises
        ------
        PolicyError
            More answers than that.
        """
        if total > MOST_ANSWERS:
            msg = f"{total} answers: expected at most {MOST_ANSWERS}, since the ways to draw more take too long to count"
            raise PolicyError(msg)
        finals = final_entropies(self.concentrations, self.weights, tuple(sorted(counts)), total)
        start, mass = finals[0][0], 0.0
        for (value, probability), (following, _) in pairwise([*finals, (math.inf, 0.0)]):
            mass += probability
            if following < math.inf and settled(value, following):
                continue
            # A rounding error must not make the last range uncertain.
            if mass >= 1 - self.eps - 1e-12:
                return start, value
            start, mass = following, 0.0
        return None


@lru_cache(maxsize=4096)  # calls go through the same few counts again and again
def final_entropies(
    concentrations: tuple[float, ...], weights: tuple[float, ...], counts: tuple[int, ...], total: int
) -> tuple[tuple[float, float], ...]:
    """Each entropy that `total` samples can end in, lowest first, with its probability; `counts` must be sorted."""
    drawn = sum(counts)
    ways: dict[tuple[int, ...], float] = {counts: 1.0}
    for _ in range(drawn, total):
        successors: dict[tuple[int, ...], float] = {}
        for state, before in ways.items():
            for successor, more in _successors(state):
                successors[successor] = successors.get(successor, 0.0) + before * more
        ways = successors
    chances = _chances(concentrations, weights, len(counts), drawn, total)
    finals: dict[float, float] = {}
    for state, number in ways.items():
        value = normalised_entropy(state, total)
        finals[value] = finals.get(value, 0.0) + number * chances[len(state) - len(counts)]
    return tuple(sorted(finals.items()))


def _chances(
    concentrations: tuple[float, ...], weights: tuple[float, ...], meanings: int, drawn: int, total: int
) -> list[float]:
    """Probability of one way to go on, by the number of new meanings on it: the concentration matters through nothing else."""
    logs = np.array(_log_likelihoods(meanings, drawn, concentrations))
    shares = np.exp(logs - logs.max()) * np.array(weights)
    concentration = np.array(concentrations)
    denominators = np.prod([concentration + m for m in range(drawn, total)], axis=0)
    scaled = shares / shares.sum() / denominators
    return [float((scaled * concentration**new).sum()) for new in range(total - drawn + 1)]


def _successors(state: tuple[int, ...]) -> Iterator[tuple[tuple[int, ...], int]]:
    """Sorted counts after one more answer, each with the number of ways to get there; a new meaning is one."""
    yield (1, *state), 1
    for count in dict.fromkeys(state):
        last = len(state) - 1 - state[::-1].index(count)
        yield (*state[:last], count + 1, *state[last + 1 :]), count * state.count(count)


def _log_likelihoods(meanings: int, drawn: int, concentrations: Sequence[float]) -> list[float]:
    """Log-likelihood of each concentration, up to a constant (Ewens' sampling formula)."""
    return [meanings * math.log(c) + math.lgamma(c) - math.lgamma(c + drawn) for c in concentrations]
