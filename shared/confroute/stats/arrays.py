"""Checked input, and sums that do not depend on the order of tied rows."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.errors import ConfrouteError

Array: TypeAlias = "npt.NDArray[np.float64]"
Flags: TypeAlias = "npt.NDArray[np.bool_]"


class MetricError(ConfrouteError, ValueError):
    """Arrays from which no statistic can be computed."""


def checked(**named: npt.ArrayLike) -> list[Array]:
    """Return each array as floats.

    Raises
    ------
    MetricError
        More than one dimension, different lengths, or NaN; the message names the array.
    """
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in named.items()}
    sizes = {name: values.shape for name, values in arrays.items()}
    if any(len(shape) != 1 for shape in sizes.values()) or len(set(sizes.values())) != 1:
        msg = f"shapes are {sizes}: expected arrays of one dimension and one length"
        raise MetricError(msg)
    for name, values in arrays.items():
        if np.isnan(values).any():
            msg = f"{name} holds NaN in {int(np.isnan(values).sum())} of {values.size} rows: leave out rows that were not measured"
            raise MetricError(msg)
    return [*arrays.values()]


def sums_in_order(keys: Array, values: Array) -> Array:
    """Sum the first 0, 1, ..., n rows by ascending key; of tied rows, the mean over all their orders."""
    order = np.argsort(keys, kind="stable")
    sums = np.concatenate(([0.0], np.cumsum(values[order])))
    sorted_keys = keys[order]
    ends = np.flatnonzero(np.append(sorted_keys[1:] != sorted_keys[:-1], True)) + 1
    knots = np.concatenate(([0], ends))
    return np.interp(np.arange(keys.size + 1), knots, sums[knots])
