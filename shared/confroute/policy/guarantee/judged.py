"""From calls that a judge graded, and people some of them, to a threshold with a certificate about people's grades."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from confroute.certificate import Certificate, Loss
from confroute.errors import CalibrationError, UnmetPromiseError
from confroute.policy.guarantee.losses import LEAST_KEPT, Array, Slice, digest, severity, sliced
from confroute.stats.prediction_powered import labels_needed, prediction_powered_betting, upper_mean
from confroute.stats.tails import check_levels, first_failure

# The share of delta for the judge's mean loss: less than half, since its rows are the many.
_JUDGED_SHARE = 0.3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Grades:
    """The qualities of both answers to each call by one grader; NaN where there is no grade.

    Attributes
    ----------
    edge, cloud : array of float in [0, 1], shape (n,)
    """

    edge: Array
    cloud: Array


def certified_judged(
    uncertainty: npt.ArrayLike,
    *,
    judged: Grades,
    human: Grades,
    alpha: float,
    delta: float | None,
    loss: Loss = "regret",
    grid: npt.ArrayLike | None = None,
    seed: int = 0,
    date: str | None = None,
) -> tuple[float, Certificate]:
    """Find the highest threshold whose mean loss, as people grade, is proved to be at most `alpha`.

    Parameters
    ----------
    uncertainty : array of float, shape (n,)
        As for `certified`.
    judged : Grades
        By the judge, of every row.
    human : Grades
        By people or a reference: of rows that were drawn at random from all, and NaN on the others.
    alpha : float in (0, 1)
    delta : float in (0, 1)
    loss : {"regret", "error", "selective"}
        See `severity`. "net" and "shortfall" are not offered.
    grid, seed, date
        As for `certified`; `seed` is of the order in which the betting takes the graded rows.

    Raises
    ------
    UnmetPromiseError
        Too few rows that people graded, or a target that cannot be proved; with the numbers.
    CalibrationError
        Rows that the judge did not grade, or a loss that is not offered.

    Notes
    -----
    Learn-then-Test with fixed-sequence testing (arXiv 2110.01052). A threshold is proved where two bounds hold: `upper_mean` of the
    judge's loss over all rows, at three tenths of delta, and `prediction_powered_betting` on the rows that people graded, at the
    rest. Both can be wrong with probability delta together (Bonferroni), whatever errors the judge makes. The promise is about the
    long run.
    """
    check_levels(alpha, delta)
    if delta is None or loss in {"net", "shortfall"}:
        msg = f"loss is {loss!r} and delta {delta}: with a judge's grades, only regret, error and selective can be promised, and delta has to be a number"
        raise CalibrationError(msg)
    u = np.asarray(uncertainty, dtype=np.float64)
    _check(u, judged, human)
    by_judge, by_people = (severity(loss, grades.edge, grades.cloud) for grades in (judged, human))
    graded = u[~np.isnan(by_people)]
    least = _check_labels(graded.size, u.size, loss, alpha, delta)
    rows = sliced(u, by_judge, np.zeros(u.size), least=_first_kept(u, graded, loss, least), grid=grid)
    walk = _Walk(
        rows=rows, human=by_people[np.argsort(u, kind="stable")], loss=loss, alpha=alpha, delta=delta
    )
    passed = first_failure(lambda at: walk.p_value(at, seed) <= walk.level, rows.grid.size)
    if passed == 0:
        raise UnmetPromiseError(walk.refusal(seed))
    at = passed - 1
    return float(rows.grid[at]), Certificate(
        loss=loss,
        alpha=alpha,
        delta=delta,
        n=rows.n,
        labelled=graded.size,
        method="ltt-prediction-powered",
        observed=float(walk.losses(at)[0].mean()),
        date=date or datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        data_hash=digest(u, judged.edge, judged.cloud, human.edge, human.cloud),
    )


def _check_labels(labelled: int, n: int, loss: Loss, alpha: float, delta: float) -> int:
    """The fewest rows that people have to grade, where they graded as many."""
    least = max(LEAST_KEPT, labels_needed(alpha, (1 - _JUDGED_SHARE) * delta))
    if labelled < least:
        msg = (
            f"{labelled} of {n} judged rows have a grade by a person or a reference as well, so the judge's error is not known well enough; for a "
            f"{loss} of {alpha:g} with confidence {1 - delta:g} at least {least} are needed, drawn at random: `confroute judge sheet` "
            "draws them"
        )
        raise UnmetPromiseError(msg)
    return least


def _first_kept(u: Array, graded: Array, loss: Loss, least: int) -> int:
    """Fewest rows that the first threshold must keep: for "selective", as many as hold `least` rows that people graded.

    Fewer prove nothing even if none of them loses, and the sequence of tests would end there.
    """
    if loss != "selective":
        return LEAST_KEPT
    return int(np.searchsorted(np.sort(u), np.sort(graded)[least - 1], side="right"))


def _check(u: Array, judged: Grades, human: Grades) -> None:
    columns = {"judged edge": judged.edge, "judged cloud": judged.cloud}
    people = {"human edge": human.edge, "human cloud": human.cloud}
    for name, values in {**columns, **people}.items():
        missing = np.isnan(values) if name in people else np.zeros(values.shape, dtype=bool)
        if values.shape != u.shape or not ((missing) | ((values >= 0) & (values <= 1))).all():
            msg = f"the {name} qualities have shape {values.shape}, or some lie outside [0, 1]: expected {u.size}, one of each row"
            raise CalibrationError(msg)
    if u.ndim != 1 or not np.isfinite(u).all():
        msg = f"{int((~np.isfinite(u)).sum())} of {u.size} uncertainties are not finite numbers: expected one of each row"
        raise CalibrationError(msg)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Walk:
    """The tests of thresholds from the lowest up; `human` is the loss by rising uncertainty, NaN where nobody graded."""

    rows: Slice
    human: Array
    loss: Loss
    alpha: float
    delta: float

    @property
    def level(self) -> float:
        """The part of delta for the rows that people graded."""
        return (1 - _JUDGED_SHARE) * self.delta

    def losses(self, at: int) -> tuple[Array, Array, Array]:
        """At a threshold: people's losses of the rows they graded, the judge's of these, and the judge's of all rows."""
        kept = np.arange(self.rows.n) < self.rows.kept[at]
        counts = kept if self.loss == "selective" else np.ones(self.rows.n, dtype=bool)
        judged = np.where(kept, self.rows.loss, 0.0)
        graded = counts & ~np.isnan(self.human)
        return np.where(kept, self.human, 0.0)[graded], judged[graded], judged[counts]

    def p_value(self, at: int, seed: int) -> float:
        """P-value of "the mean loss by people's grades exceeds alpha", but for the share of delta of the judge's mean loss."""
        human, judged, every = self.losses(at)
        if not human.size:
            return 1.0
        # The rows are sorted by uncertainty, and the bets need an order that does not depend on the losses.
        order = np.random.default_rng(seed).permutation(human.size)
        return prediction_powered_betting(
            human[order],
            judged[order],
            judged_mean=upper_mean(every, _JUDGED_SHARE * self.delta),
            alpha=self.alpha,
            delta=self.level,
        )

    def refusal(self, seed: int) -> str:
        """Why not even the lowest threshold is proved."""
        human, judged, every = self.losses(0)
        seen = "nobody graded one of them"
        if human.size:
            seen = f"people graded {human.size} rows, which lose {human.mean():.4g} by their grades and {judged.mean():.4g} by the judge's"
        return (
            f"a {self.loss} of {self.alpha:g} with confidence {1 - self.delta:g} cannot be guaranteed: with the {self.rows.kept[0]} most "
            f"certain of {self.rows.n} rows kept, the judge's loss is {every.mean():.4g}, and {seen} (p-value {self.p_value(0, seed):.3g}, "
            f"{self.level:.3g} is needed); grade more rows by hand, use a better judge, edge or signal, or allow more loss"
        )
