"""From recorded calls to a threshold with a certificate."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from confroute.certificate import Certificate, Loss
from confroute.errors import CalibrationError
from confroute.policy.guarantee.losses import (
    LEAST_KEPT,
    Array,
    digest,
    forwarded,
    is_binary,
    severity,
    sliced,
)
from confroute.policy.guarantee.sequence import (
    Target,
    expected_control,
    fixed_sequence,
    least_kept,
)
from confroute.stats.tails import check_levels


def columns(
    uncertainty: npt.ArrayLike, edge_quality: npt.ArrayLike, cloud_quality: npt.ArrayLike | None
) -> tuple[Array, Array, Array]:
    """Return the three columns as floats; without `cloud_quality` the cloud counts as always right.

    Raises
    ------
    CalibrationError
        Different lengths, NaN, or qualities outside [0, 1].
    """
    u = np.asarray(uncertainty, dtype=np.float64)
    edge = np.asarray(edge_quality, dtype=np.float64)
    cloud = np.ones(edge.shape) if cloud_quality is None else np.asarray(cloud_quality, dtype=np.float64)
    if u.ndim != 1 or not u.shape == edge.shape == cloud.shape:
        msg = f"columns of shapes {u.shape}, {edge.shape}, {cloud.shape}: expected one uncertainty and one quality per row"
        raise CalibrationError(msg)
    quality = np.concatenate([edge, cloud])
    if not np.isfinite(u).all() or not ((quality >= 0) & (quality <= 1)).all():
        msg = (
            f"{int((~np.isfinite(u)).sum())} of {u.size} uncertainties are not finite numbers, or a quality lies outside "
            "[0, 1]: leave out rows that were not measured or graded"
        )
        raise CalibrationError(msg)
    return u, edge, cloud


def certified(
    uncertainty: npt.ArrayLike,
    edge_quality: npt.ArrayLike,
    cloud_quality: npt.ArrayLike | None = None,
    *,
    alpha: float,
    delta: float | None = 0.1,
    loss: Loss = "regret",
    horizon: float | None = None,
    grid: npt.ArrayLike | None = None,
    seed: int = 0,
    date: str | None = None,
) -> tuple[float, Certificate]:
    """Find the highest threshold that can be certified, and its certificate; see `Threshold.certify`."""
    check_levels(alpha, delta, low=-1.0 if loss == "net" else 0.0)
    u, edge, cloud = columns(uncertainty, edge_quality, cloud_quality)
    lost, sent = severity(loss, edge, cloud), forwarded(loss, cloud)
    if delta is None:
        rows = sliced(u, lost, sent, least=LEAST_KEPT, grid=grid)
        control = expected_control(rows, loss, alpha=alpha)
    else:
        target = Target(loss=loss, alpha=alpha, delta=delta)
        least = least_kept(loss, alpha, delta, graded=not is_binary(lost))
        rows = sliced(u, lost, sent, least=least, grid=grid)
        control = fixed_sequence(rows, target, horizon=horizon, seed=seed)
    return control.threshold, Certificate(
        loss=loss,
        alpha=alpha,
        delta=delta,
        n=rows.n,
        method=control.method,
        observed=control.observed,
        horizon=control.horizon,
        date=date or datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        data_hash=digest(u, edge, cloud),
    )


def certified_groups(
    group: Sequence[str],
    uncertainty: npt.ArrayLike,
    edge_quality: npt.ArrayLike,
    cloud_quality: npt.ArrayLike | None = None,
    *,
    alpha: float,
    delta: float,
    loss: Loss = "regret",
    horizon: float | None = None,
) -> dict[str, tuple[float, Certificate]]:
    """Certify a threshold per group, each at delta divided by their number; see `Threshold.certify_groups`."""
    u, edge, cloud = columns(uncertainty, edge_quality, cloud_quality)
    names = np.asarray(group, dtype=str)
    if names.shape != u.shape or u.size == 0:
        msg = f"{names.size} groups for {u.size} rows: expected one name per row, and at least one row"
        raise CalibrationError(msg)
    distinct = list(dict.fromkeys(group))
    thresholds: dict[str, tuple[float, Certificate]] = {}
    for name in distinct:
        mine = names == name
        try:
            value, promise = certified(
                u[mine],
                edge[mine],
                cloud[mine],
                alpha=alpha,
                delta=delta / len(distinct),
                loss=loss,
                horizon=horizon,
            )
        except CalibrationError as error:
            msg = f"group {name!r}, one of {len(distinct)} that share delta {delta:g}: {error}"
            raise type(error)(msg) from error
        thresholds[name] = value, replace(promise, group=name)
    return thresholds
