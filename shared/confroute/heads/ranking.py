"""Similarity-weighted ranking: for each prompt a Bradley-Terry model in which similar battles count more."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from confroute.errors import CalibrationError
from confroute.heads.base import (
    Estimate,
    Numbers,
    Vectors,
    evidence,
    rows,
    sigmoid,
    similarities,
    training_rows,
    unit,
)
from confroute.types import JSON

_STEPS = 50
_SMALL = 1e-10
# Of a step, in logits: Newton's steps square, so that what follows one of this size is below rounding.
_DONE = 1e-6


def fit_ratings(
    won: Numbers, lost: Numbers, design: Numbers, *, prior_precision: Numbers
) -> tuple[Numbers, Numbers]:
    """Ratings in logits that maximise each query's weighted likelihood, and the negative Hessian there.

    Parameters
    ----------
    won, lost : array, shape (queries, pairs)
    design : array, shape (pairs, models)
    prior_precision : array, shape (queries,)

    Returns
    -------
    array, shape (queries, models), and array, shape (queries, models, models)
    """
    queries, size = len(won), design.shape[1]
    squares = (design[:, :, None] * design[:, None, :]).reshape(-1, size * size)
    # Without a prior only differences of ratings are determined: a trifle keeps the system solvable.
    ridge = np.maximum(prior_precision, _SMALL * (won + lost).sum(axis=1))[:, None]
    prior = ridge[:, :, None] * np.eye(size)
    total, found, precision = won + lost, np.zeros((queries, size)), prior
    for _ in range(_STEPS):
        chance = sigmoid(found @ design.T)
        expected = total * chance
        slope = (won - expected) @ design - ridge * found
        curved = (expected * (1 - chance)) @ squares
        precision = curved.reshape(queries, size, size) + prior
        step = np.linalg.solve(precision, slope[:, :, None])[:, :, 0]
        # Log-odds of a pair that was won every time have no end; ten a step and fifty steps are far enough.
        largest = np.abs(step).max(axis=1, keepdims=True)
        found = found + step * np.minimum(1.0, 10.0 / np.maximum(largest, _SMALL))
        if largest.max() < _DONE:
            break
    return found, precision


def gap_deviation(won: float, lost: float, *, prior_precision: float) -> float:
    """Standard deviation of the difference of two models' ratings, where only these two fought.

    Notes
    -----
    By symmetry the ratings are u and -u, so that `fit_ratings` comes down to the root of
    (won - lost) / 2 - (won + lost) / 2 * tanh(u) - prior_precision * u. From 0 Newton's steps approach it from one side.
    In numbers of Python, as numpy's calls took longer than all else that is left to do for one prompt.
    """
    excess, half = (won - lost) / 2, (won + lost) / 2
    u, tanh, precision = 0.0, 0.0, half + prior_precision
    for _ in range(_STEPS):
        step = (excess - half * tanh - prior_precision * u) / precision
        u += step
        tanh = math.tanh(u)
        precision = half * (1 - tanh * tanh) + prior_precision
        if abs(step) < _DONE:
            break
    return math.sqrt(2 / precision)


# Of the posterior's prior on each rating, in logits.
_PRIOR_SD = 2.0
_LEAST = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimilarityRanking:
    """RouteLLM's SW ranking (Ong et al., arXiv 2406.18665, section 4.2) from sufficient statistics; made by `fit`.

    Attributes
    ----------
    vectors : array of float32, shape (battles, dim)
        Unit vectors of the battles' prompts, sorted by `pair`; column by column in memory, which one prompt's product with
        them reads at twice the speed.
    outcomes : array of float32, shape (battles,)
        1 if the first model won, 0.5 for a tie, 0 if it lost.
    pair : array of int, shape (battles,)
        first * models + second.
    models, edge, cloud : int
        How many models (or tiers of models), and which two are routed between.
    same_tier_bug : bool
        Count a battle within one tier as RouteLLM's code does.

    Notes
    -----
    A battle at similarity s weighs 10 * 10^(s / largest s). The weighted likelihood depends on the battles only
    through the weight of each pair of models and the part of it that was won, so one product of matrices and two sums
    a pair replace RouteLLM's logistic regression over all battles; Newton's method solves what is left.

    RouteLLM writes both models of a battle into one row of its design matrix; where both are of one tier the second
    entry overwrites the first, so such a battle counts as one lost by that tier against a fixed opponent. Here a
    battle within a tier says nothing about tiers and counts nothing; `same_tier_bug=True` replicates the original.

    `spread` is the standard deviation of the posterior (Laplace, prior N(0, 2) a rating, in logits) in which a battle at
    similarity s counts exp((s - 1) / 0.1) of an observation.
    """

    vectors: Vectors
    outcomes: Vectors
    pair: npt.NDArray[np.int64]
    models: int
    edge: int
    cloud: int
    same_tier_bug: bool = False
    kind = "similarity_ranking"

    @classmethod
    def fit(cls, vectors: npt.ArrayLike, cloud_wins: npt.ArrayLike) -> SimilarityRanking:
        """Keep battles between the edge and the cloud.

        Parameters
        ----------
        vectors : array of float, shape (n, dim)
        cloud_wins : array of float in [0, 1], shape (n,)

        Raises
        ------
        CalibrationError
            Data that cannot be trained on (see `training_rows`).

        Examples
        --------
        >>> head = SimilarityRanking.fit(np.eye(8), [1, 1, 1, 1, 0, 0, 0, 0])
        >>> bool(head.estimate(np.eye(8)[0]).cloud_wins[0] > 0.5)
        True
        """
        x, y = training_rows(vectors, cloud_wins)
        first, second = np.ones(y.size, dtype=np.int64), np.zeros(y.size, dtype=np.int64)
        return cls.of_battles(x, first, second, y, models=2, edge=0, cloud=1)

    @classmethod
    def of_battles(
        cls,
        vectors: npt.ArrayLike,
        first: npt.ArrayLike,
        second: npt.ArrayLike,
        first_wins: npt.ArrayLike,
        *,
        models: int,
        edge: int,
        cloud: int,
        same_tier_bug: bool = False,
    ) -> SimilarityRanking:
        """Keep battles between any of `models` models, or tiers of models.

        Parameters
        ----------
        vectors : array of float, shape (n, dim)
        first, second : array of int in [0, models), shape (n,)
        first_wins : array of float in [0, 1], shape (n,)
        models, edge, cloud : int
        same_tier_bug : bool

        Raises
        ------
        CalibrationError
            Data that cannot be trained on, models outside the range, or an edge that is the cloud.
        """
        x, y = training_rows(vectors, first_wins)
        a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
        named = np.concatenate([a, b, [edge, cloud]])
        if a.shape != y.shape or b.shape != y.shape or named.min() < 0 or named.max() >= models:
            msg = f"{a.size} and {b.size} models from {named.min()} to {named.max()} for {y.size} battles: expected one of each a battle, from 0 to {models - 1}"
            raise CalibrationError(msg)
        if edge == cloud:
            msg = f"edge and cloud are both model {edge}: expected two models to route between"
            raise CalibrationError(msg)
        pair = a * models + b
        order = np.argsort(pair, kind="stable")
        return cls(
            vectors=np.asfortranarray(unit(x)[order]),
            outcomes=y[order].astype(np.float32),
            pair=pair[order],
            models=models,
            edge=edge,
            cloud=cloud,
            same_tier_bug=same_tier_bug,
        )

    @property
    def dim(self) -> int:
        """Length of the vectors it takes."""
        return int(self.vectors.shape[1])

    def estimate(self, vectors: npt.ArrayLike) -> Estimate:
        """Estimate n prompts; see `Head`."""
        queries = unit(rows(vectors, self.dim))
        wins, spread = np.empty(len(queries)), np.empty(len(queries))
        # Battles are sorted by pair. What `fit` keeps is of this one, which has a short way to the same numbers.
        cloud_first = self.cloud * self.models + self.edge
        one_pair = self.pair[0] == cloud_first == self.pair[-1]
        for part, similarity in similarities(queries, self.vectors):
            weight, count = _weight(similarity), evidence(similarity)
            chance, deviation = self._of_one(weight, count) if one_pair else self._of_many(weight, count)
            wins[part], spread[part] = chance, np.minimum(0.5, deviation * chance * (1 - chance))
        return Estimate(cloud_wins=wins, spread=spread)

    def _of_one(self, weight: Vectors, count: Vectors) -> tuple[Numbers, Numbers]:
        """Chance that the cloud wins and the deviation of its logit, where each battle is of the cloud with the edge."""
        won, lost = self.outcomes, 1 - self.outcomes
        ranked = (weight @ won).astype(np.float64)
        sums = zip((count @ won).tolist(), (count @ lost).tolist(), strict=True)
        deviation = [gap_deviation(*both, prior_precision=_PRIOR_SD**-2) for both in sums]
        return ranked / (ranked + weight @ lost), np.array(deviation)

    def _of_many(self, weight: Vectors, count: Vectors) -> tuple[Numbers, Numbers]:
        """The same among any models."""
        ends = np.searchsorted(self.pair, np.arange(self.models**2 + 1))
        used = np.flatnonzero(ends[1:] > ends[:-1])
        battles = [slice(ends[at], ends[at + 1]) for at in used]
        # Ranking and posterior are solved as one batch: of a single prompt's time most is spent between numpy's calls.
        sums = self._sums(np.concatenate([weight, count]), battles)
        prior = np.repeat([0.0, _PRIOR_SD**-2], len(weight))
        found, precision = fit_ratings(*sums, self._design()[used], prior_precision=prior)
        gap = np.zeros(self.models)
        gap[self.cloud], gap[self.edge] = 1.0, -1.0
        variance = np.linalg.solve(precision[len(weight) :], gap[:, None])[:, :, 0] @ gap
        chance = sigmoid(found[: len(weight)] @ gap)
        return np.asarray(chance, dtype=np.float64), np.sqrt(variance)

    def _sums(self, weight: npt.NDArray[np.floating], battles: Sequence[slice]) -> tuple[Numbers, Numbers]:
        """Weight won and lost by the first model, each of shape (queries, pairs of models)."""
        both = np.stack([self.outcomes, 1 - self.outcomes])
        # Battles are sorted by pair, so that each pair is one product of contiguous memory.
        sums = np.stack([weight[:, part] @ both[:, part].T for part in battles], axis=2).astype(np.float64)
        return sums[:, 0], sums[:, 1]

    def _design(self) -> Numbers:
        """One row a pair of models: +1 for the first, -1 for the second."""
        n = self.models
        first, second = np.divmod(np.arange(n * n), n)
        design = np.zeros((n * n, n))
        design[np.arange(n * n), first] += 1
        design[np.arange(n * n), second] -= 1
        if self.same_tier_bug:
            design[first == second, first[first == second]] = -1
        return design

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """What is written as tensors."""
        return {"vectors": self.vectors, "outcomes": self.outcomes, "pair": self.pair}

    def settings(self) -> dict[str, JSON]:
        """What is written as JSON."""
        names = ("models", "edge", "cloud", "same_tier_bug")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def restored(
        cls, arrays: Mapping[str, npt.NDArray[np.generic]], settings: Mapping[str, JSON]
    ) -> SimilarityRanking:
        """The head that `arrays` and `settings` describe."""
        models, edge, cloud = (int(str(settings[name])) for name in ("models", "edge", "cloud"))
        return cls(
            vectors=np.asfortranarray(arrays["vectors"], dtype=np.float32),
            outcomes=arrays["outcomes"].astype(np.float32),
            pair=arrays["pair"].astype(np.int64),
            models=models,
            edge=edge,
            cloud=cloud,
            same_tier_bug=bool(settings["same_tier_bug"]),
        )


def _weight(similarity: Vectors) -> Vectors:
    """What each battle weighs; the factor 10 of the original cancels."""
    # Where no battle is similar at all, none counts more than another.
    largest = similarity.max(axis=1, keepdims=True)
    power = (largest > _LEAST) * (math.log(10) / np.maximum(largest, _LEAST))
    weight = similarity * power
    return np.asarray(np.exp(weight, out=weight))


def tiers_of(ratings: Sequence[float], tiers: int) -> list[int]:
    """Which of `tiers` tiers each rating belongs to, by the partition with the least sum of variances.

    Parameters
    ----------
    ratings : sequence of float
        In any order; more than `tiers`.
    tiers : int

    Raises
    ------
    CalibrationError
        Not more ratings than tiers.

    Notes
    -----
    As RouteLLM's section 4.2: dynamic programming over the sorted ratings.

    Examples
    --------
    >>> tiers_of([1000.0, 1005.0, 1200.0, 1210.0], 2)
    [0, 0, 1, 1]
    """
    values, n = np.sort(np.asarray(ratings, dtype=np.float64)), len(ratings)
    if not 1 <= tiers < n:
        msg = f"{tiers} tiers of {n} models: expected more models than tiers"
        raise CalibrationError(msg)
    cost = np.array([[values[i : j + 1].var() if i <= j else np.inf for j in range(n)] for i in range(n)])
    best, cut = cost[0].copy(), np.zeros((tiers, n), dtype=int)
    for tier in range(1, tiers):
        choices = best[:, None] + np.vstack([cost[1:], np.full(n, np.inf)])
        cut[tier], best = choices.argmin(axis=0), choices.min(axis=0)
    found, end = np.zeros(n, dtype=int), n - 1
    for tier in range(tiers - 1, -1, -1):
        start = int(cut[tier][end]) + 1 if tier else 0
        found[start : end + 1] = tier
        end = start - 1
    return [int(found[rank]) for rank in np.argsort(np.argsort(np.asarray(ratings), kind="stable"))]
