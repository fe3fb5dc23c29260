"""One method on one benchmark: RouteLLM's numbers as its code computes them, and the exact ones with intervals."""

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
    """What one method reaches on one benchmark.

    Attributes
    ----------
    name : str
    scores : array of float, shape (runs, n)
        Higher goes to the cloud first; several rows for a method that draws.
    auc : float
        Mean quality over all shares of cloud calls.
    apgr : float
        By the exact curve; 0.5 is random.
    apgr_ci : tuple of two floats
        95 % bootstrap interval over questions.
    apgr_binned : float
        By RouteLLM's ten bins.
    cpt : tuple of three floats
        Percent of cloud calls that recover 20, 50 and 80 % of the gap, as RouteLLM's code interpolates.
    cpt_first : tuple of three floats
        The least percent at which the exact curve crosses those.
    usd : tuple of three floats
        USD a thousand prompts at `cpt_first`.
    in_domain : bool
        Trained on other questions of the same benchmark.
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


def recovered(scores: Array, bench: Benchmark) -> Array:
    """Share of the gap recovered with 0, 1, ..., n cloud calls, shape (n + 1,)."""
    gain = bench.strong - bench.weak
    return np.asarray(sums_in_order(-scores, gain) / gain.sum())


def cpt_binned(scores: Array, bench: Benchmark) -> tuple[float, ...]:
    """RouteLLM's call-performance thresholds, in percent: `numpy.interp` of the share over the quality of ten bins.

    The quality need not rise with the share, for which `numpy.interp` is not defined: that is how published numbers
    were made; see `cpt_crossing`.
    """
    edges = np.quantile(scores, np.linspace(0, 1, _BINS + 1))
    chosen = [scores >= edge for edge in edges[:-1]] + [scores > edges[-1]]
    share = np.array([rows.mean() for rows in chosen])
    gain = bench.strong - bench.weak
    part = np.array([gain[rows].sum() for rows in chosen]) / gain.sum()
    order = np.argsort(share, kind="stable")
    return tuple(float(100 * np.interp(target, part[order], share[order])) for target in TARGETS)


def cpt_crossing(scores: Array, bench: Benchmark) -> tuple[float, ...]:
    """Least percent of cloud calls at which the exact curve reaches each target."""
    curve = recovered(scores, bench)
    return tuple(float(100 * np.argmax(curve >= target - 1e-12) / bench.n) for target in TARGETS)


def usd_at(scores: Array, bench: Benchmark, percents: Sequence[float]) -> tuple[float, ...]:
    """USD a thousand prompts at these percents of cloud calls."""
    extra = sums_in_order(-scores, bench.strong_usd - bench.weak_usd)
    at = [round(percent / 100 * bench.n) for percent in percents]
    return tuple(float(1000 * (bench.weak_usd.sum() + extra[k]) / bench.n) for k in at)


def resampled_apgr(scores: Array, bench: Benchmark, *, resamples: int, seed: int = 0) -> Array:
    """APGR of bootstrap resamples of questions; equal seeds draw equal questions, so differences are paired.

    Returns
    -------
    array of float, shape (resamples,)
        The mean over the rows of `scores`.
    """
    generator = np.random.default_rng(seed)
    found = np.empty(resamples)
    for at in range(resamples):
        drawn = generator.integers(0, bench.n, bench.n)
        values = [apgr(run[drawn], bench.weak[drawn], bench.strong[drawn]) for run in scores]
        found[at] = np.mean([np.nan if value is None else value for value in values])
    return found


def measure(name: str, scores: Array, bench: Benchmark, *, resamples: int, in_domain: bool = False) -> Result:
    """Measure one method.

    Parameters
    ----------
    name : str
    scores : array of float, shape (n,) or (runs, n)
    bench : Benchmark
    resamples : int
        Of the bootstrap.
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
