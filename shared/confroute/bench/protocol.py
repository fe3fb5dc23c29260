"""Measures one method on one benchmark: RouteLLM's numbers as its code computes them, and exact ones with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from confroute.bench.data import Benchmark
from confroute.stats.arrays import Array, sums_in_order
from confroute.stats.metrics import apgr, apgr_binned
from confroute.types import JSON

TARGETS = (0.2, 0.5, 0.8)
_BINS = 10


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Result:
    """Result of one method on one benchmark.

    Attributes
    ----------
    name : str
    scores : array of float, shape (runs, n)
        The prompts with the highest scores go to the cloud first; several runs for a random method.
    auc : float
        Mean quality over all shares of cloud calls.
    apgr : float
        APGR of the exact curve; 0.5 is random.
    apgr_ci : tuple of two floats
        95 % bootstrap interval over questions.
    apgr_binned : float
        APGR by RouteLLM's ten bins.
    cpt : tuple of three floats
        Percentages of cloud calls that recover 20, 50 and 80 % of the gap, as RouteLLM's code interpolates them.
    cpt_first : tuple of three floats
        The smallest percentages at which the exact curve reaches those.
    usd : tuple of three floats
        USD per thousand prompts at `cpt_first`.
    in_domain : bool
        Whether it was trained on other questions of the same benchmark.
    """

    name: str
    scores: Array = field(repr=False)
    auc: float
    apgr: float
    apgr_ci: tuple[float, float]
    apgr_binned: float
    cpt: tuple[float, ...]
    cpt_first: tuple[float, ...]
    usd: tuple[float, ...]
    in_domain: bool = False

    def to_dict(self) -> dict[str, JSON]:
        """The four numbers of ``--json``."""
        return {
            "apgr": round(self.apgr, 6),
            "apgr_ci": [round(end, 6) for end in self.apgr_ci],
            "cpt50": round(self.cpt[1], 4),
            "cpt80": round(self.cpt[2], 4),
        }


def recovery_curve(scores: Array, bench: Benchmark) -> Array:
    """Shares of the gap recovered with 0, 1, ..., n cloud calls, shape (n + 1,)."""
    gain = bench.strong - bench.weak
    return np.asarray(sums_in_order(-scores, gain) / gain.sum())


def cpt_binned(scores: Array, bench: Benchmark) -> tuple[float, ...]:
    """RouteLLM's call-performance thresholds, in percent: `numpy.interp` of the share over the quality of ten bins.

    `numpy.interp` needs a quality that rises with the share, which it need not do; published numbers were computed this
    way nevertheless. See `cpt_crossing` for exact ones.
    """
    edges = np.quantile(scores, np.linspace(0, 1, _BINS + 1))
    sent = [scores >= edge for edge in edges[:-1]] + [scores > edges[-1]]
    share = np.array([rows.mean() for rows in sent])
    gain = bench.strong - bench.weak
    gap_share = np.array([gain[rows].sum() for rows in sent]) / gain.sum()
    order = np.argsort(share, kind="stable")
    return tuple(float(100 * np.interp(target, gap_share[order], share[order])) for target in TARGETS)


def cpt_crossing(scores: Array, bench: Benchmark) -> tuple[float, ...]:
    """The smallest percentage of cloud calls at which the exact curve reaches each target."""
    curve = recovery_curve(scores, bench)
    return tuple(float(100 * np.argmax(curve >= target - 1e-12) / bench.n) for target in TARGETS)


def usd_at(scores: Array, bench: Benchmark, percents: Sequence[float]) -> tuple[float, ...]:
    """USD per thousand prompts at these percentages of cloud calls."""
    extra = sums_in_order(-scores, bench.strong_usd - bench.weak_usd)
    counts = [round(percent / 100 * bench.n) for percent in percents]
    return tuple(float(1000 * (bench.weak_usd.sum() + extra[count]) / bench.n) for count in counts)


def resampled_apgr(scores: Array, bench: Benchmark, *, resamples: int, seed: int = 0) -> Array:
    """APGR of bootstrap resamples of questions; equal seeds draw equal questions, so that differences are paired.

    Returns
    -------
    array of float, shape (resamples,)
        The mean over the runs in `scores`.
    """
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    for at in range(resamples):
        rows = generator.integers(0, bench.n, bench.n)
        values = [apgr(run[rows], bench.weak[rows], bench.strong[rows]) for run in scores]
        means[at] = np.mean([np.nan if value is None else value for value in values])
    return means


def measure(name: str, scores: Array, bench: Benchmark, *, resamples: int, in_domain: bool = False) -> Result:
    """Measure one method.

    Parameters
    ----------
    name : str
    scores : array of float, shape (n,) or (runs, n)
    bench : Benchmark
    resamples : int
        Number of bootstrap resamples.
    in_domain : bool
    """
    runs = np.atleast_2d(np.asarray(scores, dtype=np.float64))

    def mean(values: list[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(float(value) for value in np.mean(values, axis=0))

    exact = [apgr(run, bench.weak, bench.strong) or 0.0 for run in runs]
    binned = [apgr_binned(run, bench.weak, bench.strong) or float("nan") for run in runs]
    low, high = np.nanquantile(resampled_apgr(runs, bench, resamples=resamples), [0.025, 0.975])
    area = float(np.mean(exact))
    crossings = [cpt_crossing(run, bench) for run in runs]
    return Result(
        name=name,
        scores=runs,
        auc=float(bench.weak.mean() + area * (bench.strong.mean() - bench.weak.mean())),
        apgr=area,
        apgr_ci=(float(low), float(high)),
        apgr_binned=float(np.mean(binned)),
        cpt=mean([cpt_binned(run, bench) for run in runs]),
        cpt_first=mean(crossings),
        usd=mean([usd_at(run, bench, at) for run, at in zip(runs, crossings, strict=True)]),
        in_domain=in_domain,
    )
