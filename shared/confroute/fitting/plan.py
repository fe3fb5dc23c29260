"""How many rows to write and grade before a promise can be made, from a guess of the edge's quality and the signal's sharpness."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from confroute.errors import CalibrationError, UnmetPromiseError
from confroute.fitting.fit import selection_size
from confroute.fitting.promise import GradedCalls, MaxLoss, certified_threshold
from confroute.types import JSON

_RUNS = 100
_LONG = 20_000
_MOST_ROWS = 20_000
_PRECISION = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What is believed of two models and a signal before anything is recorded.

    Parameters
    ----------
    edge_quality : float in (0, 1)
        Share of calls that the edge answers right.
    auroc : float in [0.5, 1)
        Probability that a wrong answer of the edge is more uncertain than a right one.
    cloud_quality : float in (0, 1]
        Share of calls that the cloud answers right, whether the edge does or not.

    Raises
    ------
    CalibrationError
        A number outside its range.

    Notes
    -----
    Answers are right or wrong. Uncertainties are normal with variance 1, those of wrong answers about a mean that is higher
    by sqrt(2) times the normal quantile of `auroc` (the binormal model of a ROC curve). A real signal of few values, or one
    that is least certain of itself where it matters, needs more rows.
    """

    edge_quality: float
    auroc: float = 0.75
    cloud_quality: float = 0.9

    def __post_init__(self) -> None:
        if not (0 < self.edge_quality < 1 and 0.5 <= self.auroc < 1 and 0 < self.cloud_quality <= 1):
            msg = (
                f"edge_quality {self.edge_quality:g}, auroc {self.auroc:g}, cloud_quality {self.cloud_quality:g}: expected numbers "
                "in (0, 1), [0.5, 1) and (0, 1]"
            )
            raise CalibrationError(msg)

    def drawn(self, n: int, generator: np.random.Generator) -> GradedCalls:
        """Draw `n` calls."""
        right = generator.random(n) < self.edge_quality
        apart = math.sqrt(2) * NormalDist().inv_cdf(self.auroc)
        return GradedCalls(
            uncertainty=generator.normal(np.where(right, 0.0, apart)),
            edge_quality=right.astype(float),
            cloud_quality=(generator.random(n) < self.cloud_quality).astype(float),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The rows that a promise takes.

    Attributes
    ----------
    guess : Guess
    goal : MaxLoss
    power : float
        The share of simulated runs for which the numbers of rows suffice.
    rows : int or None
        Rows to calibrate on, so that the promise can be made at all; None if 20,000 are not enough.
    cloud_share : float or None
        Mean share of calls that go to the cloud then.
    rows_close : int or None
        Rows to calibrate on, so that the cloud share is at most `within` above `best_share`.
    within : float
    best_share : float or None
        The cloud share that 20,000 rows lead to; None if they cannot promise it.
    """

    guess: Guess
    goal: MaxLoss
    power: float
    rows: int | None
    cloud_share: float | None
    rows_close: int | None
    within: float
    best_share: float | None

    @property
    def rows_to_record(self) -> int | None:
        """Rows to record where `fit` is to choose the signal too, for `rows_close`."""
        if self.rows_close is None:
            return None
        return next(
            n for n in range(self.rows_close, 3 * self.rows_close) if n - selection_size(n) >= self.rows_close
        )

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "edge_quality": self.guess.edge_quality,
            "auroc": self.guess.auroc,
            "cloud_quality": self.guess.cloud_quality,
            "loss": self.goal.loss,
            "alpha": self.goal.alpha,
            "delta": self.goal.delta,
            "power": self.power,
            "rows": self.rows,
            "cloud_share": None if self.cloud_share is None else round(self.cloud_share, 4),
            "rows_close": self.rows_close,
            "within": self.within,
            "best_share": None if self.best_share is None else round(self.best_share, 4),
            "rows_to_record": self.rows_to_record,
        }


def plan(
    goal: MaxLoss,
    guesses: Sequence[Guess],
    *,
    power: float = 0.8,
    within: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Planned]:
    """Find how many rows a promise takes, by simulated runs that are certified as `fit` certifies recorded ones.

    Parameters
    ----------
    goal : MaxLoss
    guesses : sequence of Guess
    power : float in (0, 1]
        The share of runs for which the rows are to suffice.
    within : float
        How far above the share that unlimited rows lead to the cloud share may lie.
    seed : int
        Of the simulation: 100 runs for each number of rows that is tried, numbers of rows to 5 %.
    progress : callable, optional
        Called with (done, of) after each guess.

    Examples
    --------
    >>> (found,) = plan(MaxLoss(alpha=0.1), [Guess(edge_quality=0.8, auroc=0.8)])
    >>> 30 <= found.rows <= found.rows_close <= 1000
    True
    """
    if not 0 < power <= 1 or not 0 < within < 1:
        msg = f"power is {power:g} and within {within:g}: expected numbers in (0, 1] and (0, 1)"
        raise CalibrationError(msg)
    found = []
    for at, guess in enumerate(guesses):
        found.append(_planned(goal, guess, power=power, within=within, seed=seed))
        if progress is not None:
            progress(at + 1, len(guesses))
    return found


def _planned(goal: MaxLoss, guess: Guess, *, power: float, within: float, seed: int) -> Planned:
    known = Planned(
        guess=guess,
        goal=goal,
        power=power,
        within=within,
        rows=None,
        cloud_share=None,
        rows_close=None,
        best_share=None,
    )
    best = next(_shares(goal, guess, _LONG, seed, first_only=False))
    if best is None:
        return known

    def met(n: int) -> bool:
        shares = _shares(goal, guess, n, seed, first_only=True)
        return _at_least(power, (share is not None for share in shares))

    def close(n: int) -> bool:
        shares = _shares(goal, guess, n, seed, first_only=False)
        return _at_least(power, (share is not None and share <= best + within for share in shares))

    rows = _fewest(met, 30)
    if rows is None:
        return known
    made = [1.0 if share is None else share for share in _shares(goal, guess, rows, seed, first_only=False)]
    return replace(
        known, rows=rows, cloud_share=float(np.mean(made)), rows_close=_fewest(close, rows), best_share=best
    )


def _shares(goal: MaxLoss, guess: Guess, n: int, seed: int, *, first_only: bool) -> Iterator[float | None]:
    """The cloud share of each simulated run of n rows; None where nothing can be promised."""
    generator = np.random.default_rng(seed)
    for _ in range(_RUNS):
        calls = guess.drawn(n, generator)
        try:
            yield calls.cloud_share(certified_threshold(goal, calls, first_only=first_only).value)
        except UnmetPromiseError:
            # How often that happens is what is counted.
            yield None


def _at_least(power: float, held: Iterator[bool]) -> bool:
    """Whether so great a share of all runs held, without more runs than it takes to know."""
    spare = _RUNS - math.ceil(power * _RUNS - 1e-9)
    for one in held:
        spare -= not one
        if spare < 0:
            return False
    return True


def _fewest(holds: Callable[[int], bool], low: int) -> int | None:
    """The fewest rows, to 5 %, from `low` on; None where the most that are tried are not enough."""
    high = low
    while not holds(high):
        if high >= _MOST_ROWS:
            return None
        low, high = high, min(2 * high, _MOST_ROWS)
    while high > low * _PRECISION and high - low > 1:
        middle = round(math.sqrt(low * high))
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
