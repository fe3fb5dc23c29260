"""How well each signal of a recorded run predicts the edge's errors: the numbers of ``confroute signals``."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.display import Displayable
from confroute.recording import RecordError, Row
from confroute.recording.signals import rows_with_signals
from confroute.stats.arrays import Array
from confroute.stats.isotonic import crossfit_probability
from confroute.stats.metrics import (
    RiskCoverage,
    apgr,
    auroc,
    auroc_cis,
    bin_of,
    ece,
    prr,
    risk_coverage,
)
from confroute.types import JSON

Indices: TypeAlias = "npt.NDArray[np.intp]"
WRONG_BELOW = 0.5
_BINS = 10


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """One bin of a reliability diagram.

    Attributes
    ----------
    predicted : float in [0, 1]
        Mean probability of being wrong.
    wrong : float in [0, 1]
        Share that is wrong.
    n : int
        Rows, 1 or more.
    """

    predicted: float
    wrong: float
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalReport(Displayable):
    """One signal on the rows on which it could be measured. None marks what is undefined on them.

    Attributes
    ----------
    n : int
        Rows measured.
    auroc : float in [0, 1] or None
        Of the uncertainty for "the edge is wrong"; see `confroute.stats.metrics`, as for all of these.
    auroc_ci : tuple of float or None
        95 % bootstrap interval.
    prr : float or None
    ece : float in [0, 1] or None
        Of the cross-fitted isotonic probability of being wrong.
    apgr : float or None
        Over the rows where the cloud is graded too.
    curve : RiskCoverage or None
    reliability : tuple of Bin
        By ascending probability; empty bins are left out.
    """

    n: int
    auroc: float | None
    auroc_ci: tuple[float, float] | None
    prr: float | None
    ece: float | None
    apgr: float | None
    curve: RiskCoverage | None = field(repr=False, compare=False)
    reliability: tuple[Bin, ...] = field(repr=False)

    def to_dict(self) -> dict[str, JSON]:
        """JSON form: the numbers, without the curves."""
        interval: JSON = None if self.auroc_ci is None else [_rounded(end) for end in self.auroc_ci]
        return {
            "auroc": _rounded(self.auroc),
            "auroc_ci": interval,
            "prr": _rounded(self.prr),
            "ece": _rounded(self.ece),
            "apgr": _rounded(self.apgr),
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class RunReport(Displayable):
    """A recorded run and how well its signals predict the edge's errors.

    Attributes
    ----------
    n : int
        Rows whose edge answer is graded; all other rows are left out.
    ungraded : int
        Rows without a graded edge answer, which are left out.
    cut_off : int
        Of the n, drafts that are cut off at their length limit.
    datasets : tuple of str
        In order of appearance.
    edge_quality : float in [0, 1]
        Mean over the n rows.
    cloud_quality : float in [0, 1] or None
        Mean over those of the n rows whose cloud answer is graded.
    signals : mapping of str to SignalReport
        Signals measured on at least one row, the highest AUROC first and those without an AUROC last; ties keep the
        order of the rows' columns.
    quality : array of float, shape (n,)
        Quality of the edge's answer, by row.
    """

    n: int
    ungraded: int
    cut_off: int
    datasets: tuple[str, ...]
    edge_quality: float
    cloud_quality: float | None
    signals: Mapping[str, SignalReport]
    quality: Array = field(compare=False)

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "n": self.n,
            "cut_off": self.cut_off,
            "edge_quality": _rounded(self.edge_quality),
            "cloud_quality": _rounded(self.cloud_quality),
            "signals": {name: report.to_dict() for name, report in self.signals.items()},
        }


def evaluate(
    rows: Iterable[Row],
    *,
    resamples: int = 2000,
    seed: int = 0,
    progress: Callable[[int, int], object] | None = None,
) -> RunReport:
    """Measure every signal for which the rows hold evidence, and how well it ranks the edge's errors.

    Parameters
    ----------
    rows : iterable of Row
        An edge answer is wrong if its quality is below 0.5.
    resamples : int
        Of the bootstrap.
    seed : int
        Of the bootstrap and the folds: equal seeds give equal reports.
    progress : callable, optional
        Called after each signal with the number of signals done and the number of all.

    Raises
    ------
    RecordError
        No row is graded.

    Examples
    --------
    >>> from confroute.recording import Side
    >>> graded = [Row(id=str(i), edge=Side(text="7", logprobs=(-i,), quality=i < 2)) for i in range(4)]
    >>> report = evaluate(graded, resamples=10)
    >>> report.edge_quality, report.signals["token_logprob.mean"].auroc
    (0.5, 1.0)
    """
    run = _columns_of(rows)
    reports: list[tuple[str, SignalReport]] = []
    intervals = _intervals(run, resamples, seed)
    for done, (name, column) in enumerate(run.signals.items(), start=1):
        if column.n:
            reports.append((name, _report(run, column, intervals(name), seed)))
        if progress is not None:
            progress(done, len(run.signals))
    cloud = run.cloud_quality[~np.isnan(run.cloud_quality)]
    return RunReport(
        n=run.quality.size,
        ungraded=run.ungraded,
        cut_off=run.cut_off,
        datasets=run.datasets,
        edge_quality=float(run.quality.mean()),
        cloud_quality=float(cloud.mean()) if cloud.size else None,
        signals=dict(
            sorted(reports, key=lambda one: -1.0 if one[1].auroc is None else one[1].auroc, reverse=True)
        ),
        quality=run.quality,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Column:
    """One signal: the rows on which it was measured, and its values there."""

    rows: Indices
    uncertainty: Array

    @property
    def n(self) -> int:
        return self.rows.size


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Run:
    """The graded rows of a run, without their texts; a cloud's quality is NaN where it is not graded."""

    quality: Array
    cloud_quality: Array
    signals: Mapping[str, _Column]
    datasets: tuple[str, ...]
    ungraded: int
    cut_off: int


def _columns_of(rows: Iterable[Row]) -> _Run:
    """Measure the rows one by one, so that no more than one of them need be held.

    Raises
    ------
    RecordError
        No row is graded.
    """
    given = cut_off = 0
    datasets: dict[str, None] = {}
    quality, cloud = array("d"), array("d")
    signals: dict[str, tuple[array[int], array[float]]] = {}

    def graded() -> Iterator[Row]:
        nonlocal given
        for row in rows:
            given += 1
            if row.edge.quality is not None:
                yield row

    for at, row in enumerate(rows_with_signals(graded())):
        quality.append(math.nan if row.edge.quality is None else row.edge.quality)
        cloud.append(math.nan if row.cloud is None or row.cloud.quality is None else row.cloud.quality)
        cut_off += row.edge.finish == "length"
        datasets.setdefault(row.dataset)
        for name, value in row.signals.items():
            measured = signals.setdefault(name, (array("q"), array("d")))
            if value is not None:
                measured[0].append(at)
                measured[1].append(value)
    if not quality:
        msg = f"none of {given} rows has an edge.quality: grade the answers before measuring signals"
        raise RecordError(msg)
    return _Run(
        quality=np.array(quality),
        cloud_quality=np.array(cloud),
        signals={
            name: _Column(rows=np.array(at, dtype=np.intp), uncertainty=np.array(values))
            for name, (at, values) in signals.items()
        },
        datasets=tuple(datasets),
        ungraded=given - len(quality),
        cut_off=cut_off,
    )


def _intervals(run: _Run, resamples: int, seed: int) -> Callable[[str], tuple[float, float] | None]:
    """Find the interval of a signal's AUROC: at once for all that are measured on equally many rows, which share their resamples."""
    found: dict[str, tuple[float, float] | None] = {}

    def of(name: str) -> tuple[float, float] | None:
        if name not in found:
            alike = {other: one for other, one in run.signals.items() if one.n == run.signals[name].n}
            wrong = [run.quality[one.rows] < WRONG_BELOW for one in alike.values()]
            ends = auroc_cis([one.uncertainty for one in alike.values()], wrong, n=resamples, seed=seed)
            found.update(zip(alike, ends, strict=True))
        return found[name]

    return of


def _report(run: _Run, column: _Column, interval: tuple[float, float] | None, seed: int) -> SignalReport:
    uncertainty, quality = column.uncertainty, run.quality[column.rows]
    wrong = (quality < WRONG_BELOW).astype(np.float64)
    probability = crossfit_probability(uncertainty, wrong, seed=seed)
    cloud = run.cloud_quality[column.rows]
    paired = ~np.isnan(cloud)
    return SignalReport(
        n=column.n,
        auroc=auroc(uncertainty, wrong),
        auroc_ci=interval,
        prr=prr(uncertainty, quality),
        ece=None if probability is None else ece(probability, wrong),
        apgr=apgr(uncertainty[paired], quality[paired], cloud[paired]),
        curve=risk_coverage(uncertainty, quality),
        reliability=() if probability is None else reliability(probability, wrong),
    )


def reliability(probability: Array, wrong: Array, *, bins: int = _BINS) -> tuple[Bin, ...]:
    """Compute the points of a reliability diagram from bins of equal width.

    Parameters
    ----------
    probability : array of float in [0, 1], shape (n,)
    wrong : array of float in [0, 1], shape (n,)
    bins : int

    Returns
    -------
    tuple of Bin
        The n-weighted mean of ``|predicted - wrong|`` is the expected calibration error.

    Examples
    --------
    >>> reliability(np.array([0.1, 0.9, 0.9]), np.array([0.0, 1.0, 0.0]))
    (Bin(predicted=0.1, wrong=0.0, n=1), Bin(predicted=0.9, wrong=0.5, n=2))
    """
    at = bin_of(probability, bins)
    return tuple(
        Bin(
            predicted=float(probability[at == b].mean()),
            wrong=float(wrong[at == b].mean()),
            n=int((at == b).sum()),
        )
        for b in np.unique(at)
    )
