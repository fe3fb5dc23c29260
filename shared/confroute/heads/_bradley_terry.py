"""Bradley-Terry ratings from how much of the battles' weight each model of a pair won."""

from __future__ import annotations

import math

import numpy as np

from confroute.heads.base import Numbers, sigmoid

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
