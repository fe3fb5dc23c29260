"""Similarity-weighted ranking: a Bradley-Terry model per prompt, in which battles over similar prompts count more."""

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
    check_training_data,
    check_vectors,
    cosine_batches,
    observation_weight,
    short_repr,
    sigmoid,
    unit_rows,
)
from confroute.types import JSON

_MAX_STEPS = 50
_TINY = 1e-10
# A Newton step, in logits, that ends the iteration: the error squares with each step, so the next would be below rounding.
_CONVERGED = 1e-6
# Standard deviation of the posterior's prior on each rating, in logits.
_PRIOR_SD = 2.0
# Below this largest similarity, no battle counts more than another.
_MIN_SIMILARITY = 1e-3


def fit_ratings(
    won: Numbers, lost: Numbers, design: Numbers, *, prior_precision: Numbers
) -> tuple[Numbers, Numbers]:
    """Fit the ratings, in logits, that maximise each query's weighted likelihood; return them and the negative Hessian.

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
    # Without a prior only differences of ratings are determined: a tiny ridge keeps the system solvable.
    ridge = np.maximum(prior_precision, _TINY * (won + lost).sum(axis=1))[:, None]
    prior = ridge[:, :, None] * np.eye(size)
    total, ratings, precision = won + lost, np.zeros((queries, size)), prior
    for _ in range(_MAX_STEPS):
        chance = sigmoid(ratings @ design.T)
        expected = total * chance
        gradient = (won - expected) @ design - ridge * ratings
        curvature = (expected * (1 - chance)) @ squares
        precision = curvature.reshape(queries, size, size) + prior
        step = np.linalg.solve(precision, gradient[:, :, None])[:, :, 0]
        # The log-odds of a pair that one side always won are infinite: steps of at most ten, fifty times, go far enough.
        largest = np.abs(step).max(axis=1, keepdims=True)
        ratings = ratings + step * np.minimum(1.0, 10.0 / np.maximum(largest, _TINY))
        if largest.max() < _CONVERGED:
            break
    return ratings, precision


def rating_gap_deviation(won: float, lost: float, *, prior_precision: float) -> float:
    """Standard deviation of the difference of two models' ratings, if all battles are between these two.

    Notes
    -----
    By symmetry the ratings are u and -u, so that `fit_ratings` reduces to the root of
    (won - lost) / 2 - (won + lost) / 2 * tanh(u) - prior_precision * u. Newton's method from 0 approaches it from one
    side. Computed with Python's floats: numpy's calls took longer than the rest of the work for one prompt.
    """
    excess, half = (won - lost) / 2, (won + lost) / 2
    u, tanh, precision = 0.0, 0.0, half + prior_precision
    for _ in range(_MAX_STEPS):
        step = (excess - half * tanh - prior_precision * u) / precision
        u += step
        tanh = math.tanh(u)
        precision = half * (1 - tanh * tanh) + prior_precision
        if abs(step) < _CONVERGED:
            break
    return math.sqrt(2 / precision)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SimilarityRanking:
    """Ranks models by battles over similar prompts: RouteLLM's SW ranking (Ong et al., arXiv 2406.18665, section 4.2).

    Made by `fit`.

    Attributes
    ----------
    vectors : array of float32, shape (battles, dim)
        Unit vectors of the battles' prompts, sorted by `pair`; in column-major order, in which the product with a single
        prompt is twice as fast.
    outcomes : array of float32, shape (battles,)
        1 if the first model won, 0.5 for a tie, 0 if it lost.
    pair : array of int, shape (battles,)
        first * models + second.
    models, edge, cloud : int
        Number of models (or tiers of models), and the two to route between.
    same_tier_bug : bool
        Count a battle within one tier as RouteLLM's code does.

    Notes
    -----
    A battle at similarity s weighs 10 * 10^(s / largest s). The weighted likelihood depends on the battles only
    through the weight of each pair of models and the part of it that was won, so one matrix product and two sums per
    pair replace RouteLLM's logistic regression over all battles; Newton's method solves the rest.

    RouteLLM writes both models of a battle into one row of its design matrix. If both are of one tier, the second
    entry overwrites the first, so that such a battle counts as lost by that tier against a fixed opponent. Here a
    battle within a tier says nothing about tiers and is not counted; `same_tier_bug=True` replicates the original.

    `spread` is the standard deviation of the posterior (Laplace approximation, prior N(0, 2) on each rating, in logits) in
    which a battle at similarity s counts exp((s - 1) / 0.1) of an observation.
    """

    vectors: Vectors
    outcomes: Vectors
    pair: npt.NDArray[np.int64]
    models: int
    edge: int
    cloud: int
    same_tier_bug: bool = False
    kind = "similarity_ranking"
    __repr__ = short_repr

    @classmethod
    def fit(cls, vectors: npt.ArrayLike, cloud_wins: npt.ArrayLike) -> SimilarityRanking:
        """Store battles between the edge and the cloud.

        Parameters
        ----------
        vectors : array of float, shape (n, dim)
        cloud_wins : array of float in [0, 1], shape (n,)

        Raises
        ------
        CalibrationError
            Unusable training data (see `check_training_data`).

        Examples
        --------
        >>> head = SimilarityRanking.fit(np.eye(8), [1, 1, 1, 1, 0, 0, 0, 0])
        >>> bool(head.estimate(np.eye(8)[0]).cloud_wins[0] > 0.5)
        True
        """
        x, y = check_training_data(vectors, cloud_wins)
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
        """Store battles between any two of `models` models, or tiers of models.

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
            Unusable training data, a model outside [0, models), or the same model as edge and cloud.
        """
        x, y = check_training_data(vectors, first_wins)
        a, b = np.asarray(first, dtype=np.int64), np.asarray(second, dtype=np.int64)
        indices = np.concatenate([a, b, [edge, cloud]])
        if a.shape != y.shape or b.shape != y.shape or indices.min() < 0 or indices.max() >= models:
            msg = f"{a.size} first and {b.size} second models from {indices.min()} to {indices.max()} for {y.size} battles: expected one of each per battle, from 0 to {models - 1}"
            raise CalibrationError(msg)
        if edge == cloud:
            msg = f"edge and cloud are both model {edge}: expected two models to route between"
            raise CalibrationError(msg)
        pair = a * models + b
        order = np.argsort(pair, kind="stable")
        return cls(
            vectors=np.asfortranarray(unit_rows(x)[order]),
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
        """Predict for n prompts; see `Head`."""
        queries = unit_rows(check_vectors(vectors, self.dim))
        wins, spread = np.empty(len(queries)), np.empty(len(queries))
        # `fit` stores battles of this pair only, which have a closed form. Battles are sorted by pair.
        cloud_first = self.cloud * self.models + self.edge
        rank = self._rank_pair if self.pair[0] == cloud_first == self.pair[-1] else self._rank_models
        for part, similarity in cosine_batches(queries, self.vectors):
            chance, deviation = rank(_battle_weight(similarity), observation_weight(similarity))
            wins[part], spread[part] = chance, np.minimum(0.5, deviation * chance * (1 - chance))
        return Estimate(cloud_wins=wins, spread=spread)

    def _rank_pair(self, weight: Vectors, count: Vectors) -> tuple[Numbers, Numbers]:
        """Chance that the cloud wins and the deviation of its logit, if all battles are between cloud and edge."""
        won, lost = self.outcomes, 1 - self.outcomes
        cloud_weight = (weight @ won).astype(np.float64)
        sums = zip((count @ won).tolist(), (count @ lost).tolist(), strict=True)
        deviation = [rating_gap_deviation(*both, prior_precision=_PRIOR_SD**-2) for both in sums]
        return cloud_weight / (cloud_weight + weight @ lost), np.array(deviation)

    def _rank_models(self, weight: Vectors, count: Vectors) -> tuple[Numbers, Numbers]:
        """Chance that the cloud wins and the deviation of its logit, from battles between any models."""
        ends = np.searchsorted(self.pair, np.arange(self.models**2 + 1))
        used = np.flatnonzero(ends[1:] > ends[:-1])
        battles = [slice(ends[at], ends[at + 1]) for at in used]
        # Ranking and posterior are solved as one batch: a single prompt's time is mostly the overhead of numpy's calls.
        sums = self._sums(np.concatenate([weight, count]), battles)
        prior = np.repeat([0.0, _PRIOR_SD**-2], len(weight))
        ratings, precision = fit_ratings(*sums, self._design()[used], prior_precision=prior)
        gap = np.zeros(self.models)
        gap[self.cloud], gap[self.edge] = 1.0, -1.0
        variance = np.linalg.solve(precision[len(weight) :], gap[:, None])[:, :, 0] @ gap
        chance = sigmoid(ratings[: len(weight)] @ gap)
        return np.asarray(chance, dtype=np.float64), np.sqrt(variance)

    def _sums(self, weight: npt.NDArray[np.floating], battles: Sequence[slice]) -> tuple[Numbers, Numbers]:
        """Weight won and weight lost by the first model, each of shape (queries, pairs of models)."""
        won_lost = np.stack([self.outcomes, 1 - self.outcomes])
        # Battles are sorted by pair, so that each pair is one product over contiguous memory.
        sums = np.stack([weight[:, part] @ won_lost[:, part].T for part in battles], axis=2).astype(
            np.float64
        )
        return sums[:, 0], sums[:, 1]

    def _design(self) -> Numbers:
        """Design matrix, one row per pair of models: +1 for the first, -1 for the second."""
        n = self.models
        first, second = np.divmod(np.arange(n * n), n)
        design = np.zeros((n * n, n))
        design[np.arange(n * n), first] += 1
        design[np.arange(n * n), second] -= 1
        if self.same_tier_bug:
            design[first == second, first[first == second]] = -1
        return design

    def arrays(self) -> dict[str, npt.NDArray[np.generic]]:
        """The tensors of its file."""
        return {"vectors": self.vectors, "outcomes": self.outcomes, "pair": self.pair}

    def settings(self) -> dict[str, JSON]:
        """The JSON settings of its file."""
        names = ("models", "edge", "cloud", "same_tier_bug")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[np.generic]], settings: Mapping[str, JSON]
    ) -> SimilarityRanking:
        """Rebuild a head from the tensors and settings of its file."""
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


def _battle_weight(similarity: Vectors) -> Vectors:
    """Weight of each battle in the ranking; RouteLLM's factor of 10 cancels."""
    largest = similarity.max(axis=1, keepdims=True)
    power = (largest > _MIN_SIMILARITY) * (math.log(10) / np.maximum(largest, _MIN_SIMILARITY))
    weight = similarity * power
    return np.asarray(np.exp(weight, out=weight))


def tiers_of(ratings: Sequence[float], tiers: int) -> list[int]:
    """Assign each rating to one of `tiers` tiers, by the partition with the smallest sum of variances.

    Parameters
    ----------
    ratings : sequence of float
        In any order; more than `tiers`.
    tiers : int

    Raises
    ------
    CalibrationError
        There are no more ratings than tiers.

    Notes
    -----
    Dynamic programming over the sorted ratings, as in section 4.2 of RouteLLM.

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
    tier_of_rank, end = np.zeros(n, dtype=int), n - 1
    for tier in range(tiers - 1, -1, -1):
        start = int(cut[tier][end]) + 1 if tier else 0
        tier_of_rank[start : end + 1] = tier
        end = start - 1
    ranks = np.argsort(np.argsort(np.asarray(ratings), kind="stable"))
    return [int(tier_of_rank[rank]) for rank in ranks]
