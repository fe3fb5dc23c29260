"""What graded calls can promise: a threshold for a goal, every other promise beside it, and how many rows a goal takes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from confroute.certificate import Loss
from confroute.errors import CalibrationError, UnmetPromiseError
from confroute.policy import Threshold
from confroute.policy.guarantee import LEAST_KEPT, forwarded, is_binary, least_kept, severity
from confroute.stats.arrays import Array
from confroute.types import JSON

_GRID = 200
# Promises are sought in steps of a thousandth, as they are given on the command line.
_STEPS = 1000
_CURVE = 25
_RESAMPLES = 25
_MOST_TIMES = 64
# A number of rows is known no better than that.
_PRECISION = 1.05


@dataclass(frozen=True, slots=True, kw_only=True)
class MaxLoss:
    """The goal of as few calls to the cloud as a promised loss allows; see `Threshold.certify`.

    With `judged` the rows hold a judge's grades (`judged`), and people's or a reference's (`quality`) of some that were drawn at
    random: the promise is about these people's grades, in the long run; see `confroute.policy.guarantee.certified_judged`.
    """

    alpha: float
    delta: float | None = 0.1
    loss: Loss = "regret"
    horizon: float | None = None
    judged: bool = False

    @property
    def level(self) -> str:
        """The confidence in words."""
        return "on average" if self.delta is None else f"with confidence {1 - self.delta:g}"

    def loss_on(self, calls: GradedCalls) -> Loss:
        """The loss that these calls tell: without a graded cloud, every wrong answer counts as "regret".

        Raises
        ------
        CalibrationError
            A loss that needs the cloud's grades.
        """
        if calls.cloud_quality is None and self.loss in {"net", "shortfall"}:
            msg = f"a {self.loss} loss needs the cloud's grades on every row (cloud.quality): grade them, or use loss 'error'"
            raise CalibrationError(msg)
        return "error" if self.loss == "regret" and calls.cloud_quality is None else self.loss


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GradedCalls:
    """What a promise is made from.

    Attributes
    ----------
    uncertainty : array of float, shape (n,)
        NaN for calls that go to the cloud whatever the threshold.
    edge_quality : array of float in [0, 1], shape (n,)
    cloud_quality : array of float in [0, 1], shape (n,), or None
        None if the cloud is not graded.
    """

    uncertainty: Array
    edge_quality: Array
    cloud_quality: Array | None

    @property
    def n(self) -> int:
        """Number of calls."""
        return self.uncertainty.size

    def drawn(self, n: int, generator: np.random.Generator) -> GradedCalls:
        """Draw `n` calls with replacement."""
        at = generator.integers(0, self.n, n)
        cloud = None if self.cloud_quality is None else self.cloud_quality[at]
        return GradedCalls(
            uncertainty=self.uncertainty[at], edge_quality=self.edge_quality[at], cloud_quality=cloud
        )

    def grid(self) -> tuple[Array, Array]:
        """The uncertainties, with those that are unknown above all others, and 200 thresholds between them.

        Raises
        ------
        UnmetPromiseError
            None is known.
        """
        u = self.uncertainty
        known = np.sort(u[~np.isnan(u)])
        if known.size == 0:
            msg = f"the uncertainty is not known for any of {u.size} calibration rows: record another signal"
            raise UnmetPromiseError(msg)
        places = np.unique(np.linspace(0, known.size - 1, _GRID).round().astype(int))
        return np.where(np.isnan(u), known[-1] + 1.0, u), known[places]

    def cloud_share(self, threshold: float) -> float:
        """Share of the calls that a threshold sends to the cloud."""
        return float(1.0 - (self.uncertainty <= threshold).mean())


def certified_threshold(goal: MaxLoss, calls: GradedCalls, *, first_only: bool = False) -> Threshold:
    """Find the highest of 200 thresholds that can be certified; see `Threshold.certify`.

    Parameters
    ----------
    goal : MaxLoss
        Without a graded cloud, "regret" counts every wrong answer.
    calls : GradedCalls
    first_only : bool
        Try the most cautious threshold alone, to learn whether anything can be promised.

    Raises
    ------
    UnmetPromiseError
        Nothing can be certified; the message holds the numbers.
    CalibrationError
        A loss that needs the cloud's grades, or levels that mean nothing.
    """
    loss = goal.loss_on(calls)
    filled, grid = calls.grid()
    if first_only:
        graded = not is_binary(calls.edge_quality)
        least = least_kept(goal.loss, goal.alpha, goal.delta, graded=graded)
        tried = grid[np.searchsorted(np.sort(filled), grid, side="right") >= least]
        grid = tried[:1] if tried.size else grid
    return Threshold.certify(
        filled,
        calls.edge_quality,
        calls.cloud_quality,
        alpha=goal.alpha,
        delta=goal.delta,
        loss=loss,
        horizon=goal.horizon,
        grid=grid,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PromisePoint:
    """A loss that can be promised, and what it costs.

    Attributes
    ----------
    alpha : float
        The promised bound on the mean loss.
    threshold : float
        In the signal's unit.
    cloud_share : float in [0, 1]
        Of the calls that it was certified on.
    """

    alpha: float
    threshold: float
    cloud_share: float


def promise_curve(goal: MaxLoss, calls: GradedCalls) -> tuple[PromisePoint, ...]:
    """Find the least loss that can be promised, and up to 25 greater ones with ever fewer calls to the cloud.

    Parameters
    ----------
    goal : MaxLoss
        For its loss, delta and horizon.
    calls : GradedCalls

    Returns
    -------
    tuple of PromisePoint
        By rising alpha, in steps of .001; empty if nothing can be promised.

    Notes
    -----
    Every point is what `certified_threshold` finds for its alpha. Its confidence is that of a goal that was fixed before
    anyone looked at the curve: to promise what was picked from it, certify it on further rows.
    """

    def at(step: int) -> Threshold | None:
        return _or_none(replace(goal, alpha=step / _STEPS), calls)

    low = 1 - _STEPS if goal.loss == "net" else 1
    boldest = at(_STEPS - 1)
    if boldest is None:
        return ()
    least = _first(lambda step: at(step) is not None, low, _STEPS - 1)
    most = _first(
        lambda step: (one := at(step)) is not None and one.value == boldest.value, least, _STEPS - 1
    )
    points: list[PromisePoint] = []
    for step in np.unique(np.linspace(least, most, _CURVE).round().astype(int)).tolist():
        found = at(step)
        if found is not None and (not points or found.value > points[-1].threshold):
            share = calls.cloud_share(found.value)
            points.append(PromisePoint(alpha=step / _STEPS, threshold=found.value, cloud_share=share))
    return tuple(points)


def _or_none(goal: MaxLoss, calls: GradedCalls, *, first_only: bool = False) -> Threshold | None:
    try:
        return certified_threshold(goal, calls, first_only=first_only)
    except UnmetPromiseError:
        # What is asked here is whether it can be met.
        return None


def _first(holds: Callable[[int], bool], low: int, high: int) -> int:
    """The least whole number in [low, high] from which on something holds; it holds at `high`."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsEstimate:
    """How many rows like the recorded ones a promise takes.

    Attributes
    ----------
    n : int
        Rows to calibrate on.
    cloud_share : float in [0, 1]
        Median share of calls that would go to the cloud then.
    """

    n: int
    cloud_share: float


def estimate_rows(
    goal: MaxLoss, calls: GradedCalls, *, least: int | None = None, power: float = 0.8, seed: int = 0
) -> RowsEstimate | None:
    """Estimate how many rows a promise takes, where calls to come are like these.

    Parameters
    ----------
    goal : MaxLoss
    calls : GradedCalls
    least : int, optional
        The fewest that are tried; as many as there are by default.
    power : float in (0, 1]
        The share of runs of that many rows on which the promise can be made.
    seed : int
        Of the resamples.

    Returns
    -------
    RowsEstimate or None
        From 25 resamples of each number of rows, to 5 %; None where 64 times as many rows are not enough.
    """

    def met(n: int) -> bool:
        generator = np.random.default_rng(seed)
        tried = (calls.drawn(n, generator) for _ in range(_RESAMPLES))
        return sum(_or_none(goal, one, first_only=True) is not None for one in tried) >= power * _RESAMPLES

    most = _MOST_TIMES * calls.n
    low = high = least or calls.n
    while not met(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high > low * _PRECISION and high - low > 1:
        middle = round((low * high) ** 0.5)
        low, high = (low, middle) if met(middle) else (middle, high)
    generator = np.random.default_rng(seed)
    shares = []
    for _ in range(_RESAMPLES // 5):
        drawn = calls.drawn(high, generator)
        found = _or_none(goal, drawn)
        shares.append(1.0 if found is None else drawn.cloud_share(found.value))
    return RowsEstimate(n=high, cloud_share=float(np.median(shares)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What can be promised where a goal cannot.

    Attributes
    ----------
    goal : MaxLoss
    n : int
        Calls that were there to calibrate on.
    curve : tuple of PromisePoint
        See `promise_curve`.
    needed : RowsEstimate or None
        Rows that the goal takes; None if more rows like these do not meet it.
    lowest : float
        The least mean loss of any threshold on these calls.
    """

    goal: MaxLoss
    n: int
    curve: tuple[PromisePoint, ...]
    needed: RowsEstimate | None
    lowest: float

    @property
    def words(self) -> str:
        """What to know before the next try, in sentences."""
        goal = f"{self.goal.alpha:g} {self.goal.level}"
        if self.curve:
            least = self.curve[0]
            first = (
                f"the smallest loss that can be promised on these {self.n} rows is {least.alpha:g}, at a cloud share of "
                f"{least.cloud_share:.0%} ({self._further()})"
            )
        else:
            first = f"no loss can be promised on these {self.n} rows"
        if self.needed is not None:
            return (
                f"{first}; for {goal} you need about {self.needed.n} calibration rows like these, at a cloud share of about "
                f"{self.needed.cloud_share:.0%} (an estimate from resamples of these rows)"
            )
        why = (
            f"even the most cautious threshold loses {self.lowest:.3g}"
            if self.lowest >= self.goal.alpha
            else f"an estimate from resamples of these says that {_MOST_TIMES} times as many are not enough"
        )
        return f"{first}; {goal} cannot be met by more rows like these: {why}"

    def _further(self) -> str:
        rest = self.curve[1:]
        picked = rest[:: max(1, len(rest) // 4)]
        return (
            "; ".join(f"{one.alpha:g}: {one.cloud_share:.0%}" for one in picked)
            or "no larger loss sends fewer calls there"
        )

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        needed: JSON = None
        if self.needed is not None:
            needed = {"rows": self.needed.n, "cloud_share": round(self.needed.cloud_share, 6)}
        return {
            "loss": self.goal.loss,
            "alpha": self.goal.alpha,
            "delta": self.goal.delta,
            "n": self.n,
            "promise_curve": curve_json(self.curve),
            "needed": needed,
        }


def curve_json(curve: tuple[PromisePoint, ...]) -> list[JSON]:
    """JSON form of a curve."""
    return [
        {"alpha": one.alpha, "cloud_share": round(one.cloud_share, 6), "threshold": one.threshold}
        for one in curve
    ]


def outlook(goal: MaxLoss, calls: GradedCalls, *, seed: int = 0) -> Outlook:
    """Find what can be promised in place of a goal that was refused, and what it would take to meet it."""
    lowest = lowest_loss(goal, calls)
    return Outlook(
        goal=goal,
        n=calls.n,
        curve=promise_curve(goal, calls),
        needed=None if lowest >= goal.alpha else estimate_rows(goal, calls, seed=seed),
        lowest=lowest,
    )


def lowest_loss(goal: MaxLoss, calls: GradedCalls) -> float:
    """The mean loss at the most cautious threshold, which keeps the calls tied at the lowest uncertainty.

    For "selective" the least over any 30 calls or more, since of a few kept calls the mean says nothing.
    """
    u = np.where(np.isnan(calls.uncertainty), np.inf, calls.uncertainty)
    cloud = np.ones(u.size) if calls.cloud_quality is None else calls.cloud_quality
    kept, sent = severity(goal.loss, calls.edge_quality, cloud), forwarded(goal.loss, cloud)
    if goal.loss != "selective":
        return float(np.where(u == u.min(), kept, sent).mean())
    means = np.cumsum(kept[np.argsort(u, kind="stable")]) / np.arange(1, u.size + 1)
    return float(means[LEAST_KEPT - 1 :].min(initial=1.0))
