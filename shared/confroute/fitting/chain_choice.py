"""Which chain of several models to deploy: each model alone, each pair, and so on to the whole, at equal total cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from confroute.certificate import Loss
from confroute.fitting.chain import Chain, Thresholds, words_of
from confroute.fitting.point import Interval
from confroute.stats.arrays import Array, Flags
from confroute.types import JSON

_RESAMPLES = 1000
# As in the choice of a signal: a smaller gain is within the noise of the rows, and fewer models are easier to run.
_WORTH_IT = 0.002
# With fewer, the resamples where both can be had at one cost are a biased selection.
_LEAST_DEFINED = 0.9

Worth = Callable[[Chain, Sequence[Thresholds]], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainResult:
    """What one chain gives at the total cost of the deployed one; a model alone at its own cost.

    Attributes
    ----------
    tiers : tuple of str
    deployed : bool
    usd_per_1k : float
        USD for a thousand calls, discarded drafts and samples included.
    quality : float in [0, 1] or None
        None where the chain cannot be had at this cost, since its drafts alone cost more.
    quality_ci : tuple of float or None
        95 % bootstrap interval.
    gain, gain_ci : float and tuple of float, or None
        Quality of the deployed chain at the same total cost minus this one's, with its paired 95 % bootstrap interval. None for the
        deployed one, and where one of both cannot be had at that cost.
    """

    tiers: tuple[str, ...]
    deployed: bool
    usd_per_1k: float
    quality: float | None
    quality_ci: Interval | None
    gain: float | None
    gain_ci: Interval | None

    @property
    def name(self) -> str:
        """Its tiers in order."""
        return words_of(self.tiers)

    @property
    def words(self) -> str:
        """The result in one line."""
        cost = f"1000 calls cost {self.usd_per_1k:.4g} USD"
        if self.quality is None:
            return f"{self.name}: cannot be had where {cost}"
        found = f"{self.name}: quality {self.quality:.4f}{_ends(self.quality_ci, '.4f')}, {cost}"
        if self.deployed:
            return f"{found}: deployed"
        if self.gain is None:
            return f"{found}: cheaper than the deployed chain can be"
        return f"{found}; the deployed chain at that cost: {self.gain:+.4f}{_ends(self.gain_ci, '+.4f')}"

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "tiers": [*self.tiers],
            "deployed": self.deployed,
            "usd_per_1k": round(self.usd_per_1k, 6),
            "quality": None if self.quality is None else round(self.quality, 6),
            "quality_ci": None if self.quality_ci is None else [round(end, 6) for end in self.quality_ci],
            "gain": None if self.gain is None else round(self.gain, 6),
            "gain_ci": None if self.gain_ci is None else [round(end, 6) for end in self.gain_ci],
        }


def _ends(interval: Interval | None, form: str) -> str:
    return "" if interval is None else f" [{interval[0]:{form}}, {interval[1]:{form}}]"


def half(n: int, seed: int) -> Flags:
    """Half of n calls, drawn at random."""
    drawn = np.zeros(n, dtype=bool)
    drawn[np.random.default_rng(seed).permutation(n)[: n // 2]] = True
    return drawn


def chosen_chain(
    chain: Chain, loss: Loss, worth: Worth, *, to_cloud: bool = False, seed: int = 0
) -> tuple[str, ...]:
    """Choose the tiers that are worth most, judged on calls that gave no thresholds.

    Parameters
    ----------
    chain : Chain
        Calls that are used for nothing else.
    loss : str
        Of the fronts; see `confroute.policy.guarantee.severity`.
    worth : callable
        From a chain and a front that was found on other calls to a number, higher is better; minus infinity where it cannot do what is
        wanted. See `least_loss` and `least_cost`.
    to_cloud : bool
        Whether only chains that end at the cloud are candidates.
    seed : int
        Of the two folds: each is judged by thresholds of the other.

    Returns
    -------
    tuple of str
        All tiers where no chain can do it. A longer chain is taken only where each further model is worth .002.
    """
    fold = half(chain.n, seed)
    best, tiers = -math.inf, chain.tiers
    for option in chain.subsets():
        if len(option.tiers) < 2 or (to_cloud and option.tiers[-1] != chain.tiers[-1]):
            continue
        found = [worth(option.part(~mine), option.part(mine).front(loss)) for mine in (fold, ~fold)]
        score = sum(found) / 2 - _WORTH_IT * len(option.tiers)
        if score > best:
            best, tiers = score, option.tiers
    return tiers


def least_loss(loss: Loss, usd_per_1k: float) -> Worth:
    """What a chain is worth where it loses least at a given total cost."""

    def worth(chain: Chain, front: Sequence[Thresholds]) -> float:
        found = _at(*_curve(chain, front, loss), usd_per_1k)
        return -math.inf if math.isnan(found) else -found

    return worth


def least_cost(loss: Loss, *, alpha: float, delta: float, n: int, unit: float) -> Worth:
    """What a chain is worth where it costs least, in units of `unit` USD for a thousand calls, at a loss that may be proved on n calls.

    Whether it may is told by the normal approximation: the proof itself takes other calls.
    """
    z = NormalDist().inv_cdf(1 - delta)

    def worth(chain: Chain, front: Sequence[Thresholds]) -> float:
        costs = []
        for thresholds in front:
            routes = chain.routes(thresholds)
            lost = chain.losses(loss, routes)
            if lost.size and lost.mean() + z * lost.std() / math.sqrt(n * lost.size / chain.n) <= alpha:
                costs.append(1000 * chain.calls([routes]).usd.mean() / unit)
        return -float(min(costs, default=math.inf))

    return worth


def compared(
    options: Sequence[tuple[Chain, Sequence[Thresholds]]], *, deployed: int, at: int, seed: int = 0
) -> tuple[ChainResult, ...]:
    """Compare chains, at equal total cost, on calls that gave them no thresholds.

    Parameters
    ----------
    options : sequence of Chain and its front
        The fronts were found on other calls; a model alone has one of no thresholds.
    deployed : int
        The place of the deployed one.
    at : int
        The place of its thresholds in its front.
    seed : int
        Of the resamples of calls, the same for all.

    Notes
    -----
    Between two neighbours of a front, calls are divided at random so that the cost is met, in each resample anew.
    """
    curves = curves_of(options, seed=seed)
    own = curves[deployed]
    cost = own[0][:, at]
    results = []
    for place, ((chain, _), (usd, quality)) in enumerate(zip(options, curves, strict=True)):
        mine = usd[:, 0] if len(chain.tiers) == 1 else cost
        of_option = quality_at(usd, quality, mine)
        gain = quality_at(*own, mine) - of_option
        results.append(
            ChainResult(
                tiers=chain.tiers,
                deployed=place == deployed,
                usd_per_1k=float(mine[0]),
                quality=_known(of_option[0]),
                quality_ci=interval_of(of_option),
                gain=None if place == deployed else _known(gain[0]),
                gain_ci=None if place == deployed else interval_of(gain),
            )
        )
    return tuple(results)


def _curve(chain: Chain, front: Sequence[Thresholds], loss: Loss) -> tuple[Array, Array]:
    """Cost of a thousand calls and mean loss at each point of a front."""
    routes = [chain.routes(thresholds) for thresholds in front]
    lost = [float(values.mean()) if (values := chain.losses(loss, one)).size else 0.0 for one in routes]
    return 1000 * chain.calls(routes).usd.mean(axis=1), np.array(lost)


def curves_of(
    options: Sequence[tuple[Chain, Sequence[Thresholds]]], *, resamples: int = _RESAMPLES, seed: int = 0
) -> list[tuple[Array, Array]]:
    """Cost of a thousand calls and quality of each chain along its front, on the calls themselves and in resamples of them.

    Returns
    -------
    list of two arrays of float, shape (1 + resamples, points)
        The first row is that of the calls themselves. All chains see the same resamples.
    """
    n = options[0][0].n
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=resamples) / n
    weights = np.concatenate([np.full((1, n), 1 / n), drawn])
    of_all = (chain.calls([chain.routes(thresholds) for thresholds in front]) for chain, front in options)
    return [(1000 * weights @ calls.usd.T, weights @ calls.quality.T) for calls in of_all]


def quality_at(usd: Array, quality: Array, costs: Array) -> Array:
    """Quality at one cost in each row of a curve: calls are divided between two neighbours of a front so that the cost is met.

    Beyond the dearest point it is that point's, and below the cheapest NaN.
    """
    return np.array([_at(*one) for one in zip(usd, quality, costs, strict=True)])


def _at(usd: Array, values: Array, cost: float) -> float:
    order = np.argsort(usd, kind="stable")
    # As products of weights and prices, equal costs may differ in their last digit.
    if cost < usd[order[0]] * (1 - 1e-9):
        return math.nan
    return float(np.interp(cost, usd[order], values[order]))


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def interval_of(values: Array) -> Interval | None:
    """The 95 % interval of resamples; the first value is that of the calls themselves. None where too many are not known."""
    known = values[1:][~np.isnan(values[1:])]
    if np.isnan(values[0]) or known.size < _LEAST_DEFINED * (values.size - 1):
        return None
    low, high = np.quantile(known, [0.025, 0.975])
    return float(low), float(high)
