"""The losses of kept answers that a guarantee can bound."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from confroute.certificate import Loss
from confroute.errors import CalibrationError, UnmetPromiseError

Array = npt.NDArray[np.float64]
LEAST_KEPT = 30
_GRID = 200


def severity(loss: Loss, edge: Array, cloud: Array) -> Array:
    """Compute the loss of keeping each answer; `forwarded` is that of sending the call on.

    Parameters
    ----------
    loss : {"regret", "error", "net", "selective", "shortfall"}
        "regret": max(0, cloud - edge), the loss compared with always asking the cloud. "error": 1 - edge, whatever the cloud answers.
        "net": cloud - edge, where kept answers that are better than the cloud's compensate for worse ones. "selective": 1 - edge, averaged
        over the kept answers instead of over all calls. "shortfall": 1 - quality of the answer that is returned, whichever model gave it.
    edge, cloud : array of float in [0, 1], shape (n,)

    Returns
    -------
    array of float, shape (n,)
        In [0, 1]; in [-1, 1] for "net".

    Raises
    ------
    CalibrationError
        An unknown loss.

    Examples
    --------
    >>> severity("regret", np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])).tolist()
    [0.0, 1.0, 0.0]
    """
    if loss == "regret":
        return np.maximum(0.0, cloud - edge)
    if loss == "net":
        return cloud - edge
    if loss in {"error", "selective", "shortfall"}:
        return 1.0 - edge
    msg = f"loss is {loss!r}: expected 'regret', 'error', 'net', 'selective' or 'shortfall'"
    raise CalibrationError(msg)


def forwarded(loss: Loss, cloud: Array) -> Array:
    """Compute the loss of sending each call to the cloud: 1 - cloud for "shortfall", else 0.

    Examples
    --------
    >>> forwarded("shortfall", np.array([1.0, 0.25])).tolist(), forwarded("net", np.array([0.25])).tolist()
    ([0.0, 0.75], [0.0])
    """
    return 1.0 - cloud if loss == "shortfall" else np.zeros(cloud.shape)


def is_binary(loss: Array) -> bool:
    """Whether every loss is 0 or 1."""
    return bool(np.isin(loss, (0.0, 1.0)).all())


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice:
    """Calibration rows by rising uncertainty, and the candidate thresholds.

    Attributes
    ----------
    uncertainty, loss, forwarded : array of float, shape (n,)
        `loss` is that of keeping the answer, `forwarded` that of sending the call on.
    grid : array of float, shape (m,)
        Thresholds, rising; chosen without the losses.
    kept : array of int, shape (m,)
        Rows that each threshold keeps.
    lost : array of float, shape (m,)
        Sum of all rows' losses at each threshold.
    """

    uncertainty: Array
    loss: Array
    forwarded: Array
    grid: Array
    kept: npt.NDArray[np.int64]
    lost: Array

    @property
    def n(self) -> int:
        """Rows."""
        return self.uncertainty.size

    @property
    def binary(self) -> bool:
        """Whether every loss is 0 or 1, so that exact tests apply."""
        return is_binary(self.loss) and is_binary(self.forwarded)


def sliced(
    uncertainty: Array, loss: Array, sent: Array, *, least: int, grid: npt.ArrayLike | None = None
) -> Slice:
    """Sort the rows and choose the candidate thresholds.

    Parameters
    ----------
    uncertainty, loss, sent : array of float, shape (n,)
        `loss` and `sent` are the losses of keeping each answer and of sending each call on.
    least : int
        Fewest rows that a threshold may keep: one that keeps hardly any row proves nothing, and the sequence of tests would end at it.
    grid : array of float, optional
        Thresholds fixed in advance; those that keep fewer than `least` rows are left out. By default every n // 200-th of the
        uncertainties themselves, and the last.

    Raises
    ------
    UnmetPromiseError
        Fewer than `least` rows, or a grid that leaves no threshold.
    """
    order = np.argsort(uncertainty, kind="stable")
    u, row, base = uncertainty[order], loss[order], sent[order]
    if u.size < least:
        msg = f"{u.size} calibration rows are too few: at least {least} are needed, since the most cautious threshold keeps that many answers; record more calls"
        raise UnmetPromiseError(msg)
    if grid is None:
        places = np.append(np.arange(least - 1, u.size, max(1, u.size // _GRID)), u.size - 1)
        tried = np.unique(u[places])
    else:
        tried = np.unique(np.asarray(grid, dtype=np.float64))
    kept = np.searchsorted(u, tried, side="right")
    tried, kept = tried[kept >= least], kept[kept >= least]
    if tried.size == 0:
        measured = int(np.isfinite(u).sum())
        mend = "extend the grid upwards"
        if grid is None:
            mend = (
                f"the uncertainty is known for {measured} of them; the others go to the cloud, because it was not measured or the draft is "
                "incomplete. Record more calls or longer answers (--max-tokens), or fit with --on-unfinished judge"
            )
        of = "" if grid is None else "of the grid "
        msg = f"no threshold {of}keeps {least} of {u.size} calibration rows: {mend}"
        raise UnmetPromiseError(msg)
    lost = np.concatenate(([0.0], np.cumsum(row - base)))[kept] + base.sum()
    return Slice(uncertainty=u, loss=row, forwarded=base, grid=tried, kept=kept, lost=lost)


def digest(*columns: Array) -> str:
    """Compute the SHA-256 of columns of numbers, as little-endian doubles in the order given."""
    whole = hashlib.sha256()
    for column in columns:
        whole.update(np.ascontiguousarray(column, dtype="<f8").tobytes())
    return whole.hexdigest()
