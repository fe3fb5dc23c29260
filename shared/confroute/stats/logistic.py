"""Logistic regression with a ridge penalty, for few columns and for more columns than rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
_STEPS = 50
# Keeps the intercept's equation solvable without moving it.
_FREE = 1e-6


def ridge_logistic(x: Floats, y: Floats, *, penalty: float) -> tuple[float, Floats]:
    """Minimise the log-loss plus `penalty` / 2 times the squared weights, without the intercept's, by Newton's method.

    Parameters
    ----------
    x : array, shape (n, columns)
    y : array in [0, 1], shape (n,)
    penalty : float
        Above 0.

    Returns
    -------
    tuple
        The intercept and the weights, shape (columns,).

    Notes
    -----
    With more columns than rows, the weights lie in the row space of x: x is rotated into it by its singular vectors, which changes no
    penalty, and the weights are rotated back.

    Examples
    --------
    >>> intercept, weights = ridge_logistic(np.array([[-1.0], [1.0]]), np.array([0.0, 1.0]), penalty=1.0)
    >>> abs(round(intercept, 6)), weights.round(3).tolist()
    (0.0, [0.675])
    """
    if x.shape[1] > x.shape[0]:
        left, sizes, rotation = np.linalg.svd(x, full_matrices=False)
        intercept, weights = ridge_logistic(left * sizes, y, penalty=penalty)
        return intercept, weights @ rotation
    design = np.column_stack([np.ones(len(x)), x])
    ridge = np.full(design.shape[1], penalty)
    ridge[0] = _FREE
    solution = np.zeros(design.shape[1])
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(design @ solution, -30, 30)))
        gradient = design.T @ (p - y) + ridge * solution
        hessian = (design * (p * (1 - p))[:, None]).T @ design + np.diag(ridge)
        step = np.linalg.solve(hessian, gradient)
        solution = solution - step
        if np.abs(step).max() < 1e-9:
            break
    return float(solution[0]), solution[1:]
