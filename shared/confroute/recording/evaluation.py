"""How well each signal of a recorded run predicts the edge's errors: the numbers of ``confroute signals``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from confroute.display import Displayable
from confroute.recording import RecordError, Row, with_signals
from confroute.stats.arrays import Array
from confroute.stats.isotonic import crossfit_probability
from confroute.stats.metrics import (
    RiskCoverage,
    apgr,
    auroc,
    bin_of,
    bootstrap_ci,
    ece,
    prr,
    risk_coverage,
)
from confroute.types import JSON

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
    given = list(rows)
    graded = [with_signals(row) for row in given if row.edge.quality is not None]
    if not graded:
        msg = f"none of {len(given)} rows has an edge.quality: grade the answers before measuring signals"
        raise RecordError(msg)
    cloud = [other for row in graded if (other := _cloud_quality(row)) is not None]
    quality = _edge_quality(graded)
    names = dict.fromkeys(name for row in graded for name in row.signals)
    reports = []
    for done, name in enumerate(names, start=1):
        if (report := _report(name, graded, resamples, seed)) is not None:
            reports.append((name, report))
        if progress is not None:
            progress(done, len(names))
    return RunReport(
        n=len(graded),
        ungraded=len(given) - len(graded),
        cut_off=sum(row.edge.finish == "length" for row in graded),
        datasets=tuple(dict.fromkeys(row.dataset for row in graded)),
        edge_quality=float(quality.mean()),
        cloud_quality=float(np.mean(cloud)) if cloud else None,
        signals=dict(
            sorted(reports, key=lambda one: -1.0 if one[1].auroc is None else one[1].auroc, reverse=True)
        ),
        quality=quality,
    )


def _cloud_quality(row: Row) -> float | None:
    return None if row.cloud is None else row.cloud.quality


def _edge_quality(rows: Sequence[Row]) -> Array:
    return np.array([row.edge.quality for row in rows], dtype=np.float64)


def _report(name: str, graded: Sequence[Row], resamples: int, seed: int) -> SignalReport | None:
    rows = [row for row in graded if row.signals.get(name) is not None]
    if not rows:
        return None
    uncertainty = np.array([row.signals[name] for row in rows], dtype=np.float64)
    quality = _edge_quality(rows)
    wrong = (quality < WRONG_BELOW).astype(np.float64)
    area = auroc(uncertainty, wrong)
    probability = crossfit_probability(uncertainty, wrong, seed=seed)
    return SignalReport(
        n=len(rows),
        auroc=area,
        # Where the statistic is undefined on all rows, resamples are too.
        auroc_ci=None if area is None else bootstrap_ci(auroc, uncertainty, wrong, n=resamples, seed=seed),
        prr=prr(uncertainty, quality),
        ece=None if probability is None else ece(probability, wrong),
        apgr=_apgr(name, rows),
        curve=risk_coverage(uncertainty, quality),
        reliability=() if probability is None else reliability(probability, wrong),
    )


def _apgr(name: str, rows: Sequence[Row]) -> float | None:
    paired = [(row, quality) for row in rows if (quality := _cloud_quality(row)) is not None]
    if not paired:
        return None
    uncertainty = np.array([row.signals[name] for row, _ in paired], dtype=np.float64)
    return apgr(uncertainty, _edge_quality([row for row, _ in paired]), [quality for _, quality in paired])


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
