"""Whether a promise was kept on calls that it was not made on: an exact test, or a bound where losses are graded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.certificate import Certificate
from confroute.fitting.recorded import request_of
from confroute.fitting.replay import ReplayedCall
from confroute.fitting.table import Array, Table
from confroute.policy import Gate
from confroute.policy.guarantee import forwarded, severity
from confroute.recording.rows import Row
from confroute.registry import parts_of
from confroute.stats.arrays import Flags
from confroute.stats.tails import betting, binomial_cdf
from confroute.types import JSON, TIERS

Outcome: TypeAlias = Literal["held", "broken", "unknown"]
# One promise in a hundred that holds is called broken.
FALSE_ALARM = 0.01
# For "held" where a promise has no confidence of its own.
_ON_AVERAGE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the measured losses of calls say about a promise.

    Attributes
    ----------
    certificate : Certificate
        The promise.
    outcome : {"held", "broken", "unknown"}
        "broken": a mean loss above the promised bound is proved, at the level `false_alarm`. "held": one of at most the bound is
        proved, at the promise's own confidence. "unknown": these calls prove neither, or the promise cannot be measured on them.
    loss : float or None
        Mean loss as measured; None if it cannot be.
    n : int
        Calls that it was measured on; for the loss "selective", those that were kept.
    p_broken : float or None
        Probability of losses as high as these, or a bound on it, if the promise holds.
    p_held : float or None
        Probability of losses as low as these, or a bound on it, if it does not.
    false_alarm : float in (0, 1)
        Highest probability of "broken" for a promise that holds.
    why : str
        Why nothing could be measured; empty if it was.
    """

    certificate: Certificate
    outcome: Outcome
    loss: float | None
    n: int
    p_broken: float | None
    p_held: float | None
    false_alarm: float = FALSE_ALARM
    why: str = ""

    @property
    def words(self) -> str:
        """The verdict in one sentence."""
        promise = self.certificate
        level = "on average" if promise.delta is None else f"at {round(100 * (1 - promise.delta), 6):g}%"
        group = "" if promise.group is None else f" of calls tagged {promise.group}"
        promised = f"promised {promise.alpha:g} {level}"
        if self.loss is None or self.p_broken is None or self.p_held is None:
            return f"{promise.loss}{group}, {promised}: cannot be told: {self.why}"
        measured = f"{promise.loss}{group} {self.loss:.3f}, {promised}"
        if self.outcome == "broken":
            return (
                f"{measured}: broken (n = {self.n}, p = {self.p_broken:.2g}; at most {self.false_alarm:.1%} of promises that hold are "
                "called broken)"
            )
        if self.outcome == "held":
            return f"{measured}: held (n = {self.n}, p = {self.p_held:.2g})"
        return f"{measured}: cannot be told from n = {self.n} ({self._between(self.loss)})"

    def _between(self, loss: float) -> str:
        alpha, delta = self.certificate.alpha, self.certificate.delta
        if delta is None and self.p_broken is not None and self.p_broken <= self.false_alarm:
            return f"above it, p = {self.p_broken:.2g}, but it was promised as a mean over many calibrations"
        if loss >= alpha:
            return f"not below it, within chance, p = {self.p_broken:.2g}"
        # By the normal approximation: what it rests on, this loss, is an estimate too.
        spread = (alpha + 1) * (1 - alpha) if self.certificate.loss == "net" else alpha * (1 - alpha)
        z = NormalDist().inv_cdf(1 - (_ON_AVERAGE if delta is None else delta))
        needed = z * z * spread / (alpha - loss) ** 2
        more = f"about {needed:.0f}" if needed > self.n else "a few more"
        return (
            f"below it as measured, p = {self.p_held:.2g}; {more} calls would prove it, if the loss stays so"
        )

    def untold(self, why: str) -> Verdict:
        """The same promise, about which these calls say nothing."""
        return replace(self, outcome="unknown", p_broken=None, p_held=None, why=why)

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "outcome": self.outcome,
            "loss": None if self.loss is None else round(self.loss, 6),
            "n": self.n,
            "p_broken": self.p_broken,
            "p_held": self.p_held,
            "false_alarm": self.false_alarm,
            "certificate": self.certificate.to_dict(),
            "words": self.words,
        }


def verdict_of(
    certificate: Certificate, losses: npt.ArrayLike, *, false_alarm: float = FALSE_ALARM, seed: int = 0
) -> Verdict:
    """Judge a promise by the losses of calls that it was not made on.

    Parameters
    ----------
    certificate : Certificate
    losses : array of float, shape (n,)
        One per call, as `confroute.policy.guarantee.severity` defines them, `forwarded` where the cloud answered; in [-1, 1] for the loss
        "net", else in [0, 1]; for "selective", of the kept calls only.
    false_alarm : float in (0, 1)
    seed : int
        Of the order in which graded losses are taken.

    Notes
    -----
    Losses of 0 and 1: the exact binomial tests of "at most alpha" and of "more than alpha". Graded ones: the betting bounds of
    `confroute.stats.tails.betting`, valid for every distribution on their range. Both are about the long-run mean of calls like
    these. A promise by conformal risk control is one about the mean over calibrations, which those of one cannot break.

    Examples
    --------
    >>> import numpy as np
    >>> from confroute import Threshold
    >>> doubt = np.linspace(0, 1, 500)
    >>> promise = Threshold.certify(
    ...     doubt, (doubt < 0.9).astype(float), alpha=0.05, date="2026-01-01"
    ... ).certificate
    >>> verdict_of(promise, [1] * 12 + [0] * 388).words
    'regret 0.030, promised 0.05 at 90%: held (n = 400, p = 0.036)'
    >>> verdict_of(promise, [1] * 46 + [0] * 54).outcome, verdict_of(promise, [1] * 3 + [0] * 47).outcome
    ('broken', 'unknown')
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.size == 0:
        return _untold(certificate, "no call was kept on the edge", false_alarm)
    level = _ON_AVERAGE if certificate.delta is None else certificate.delta
    p_broken, p_held = _p_values(values, certificate, false_alarm, level, seed)
    outcome: Outcome = "held" if p_held <= level else "unknown"
    if p_broken <= false_alarm and certificate.delta is not None:
        outcome = "broken"
    return Verdict(
        certificate=certificate,
        outcome=outcome,
        loss=float(values.mean()),
        n=values.size,
        p_broken=p_broken,
        p_held=p_held,
        false_alarm=false_alarm,
    )


def _untold(certificate: Certificate, why: str, false_alarm: float) -> Verdict:
    return Verdict(
        certificate=certificate,
        outcome="unknown",
        loss=None,
        n=0,
        p_broken=None,
        p_held=None,
        false_alarm=false_alarm,
        why=why,
    )


def _p_values(
    losses: Array, certificate: Certificate, false_alarm: float, level: float, seed: int
) -> tuple[float, float]:
    """Of losses as high as these if the promise holds, and of losses as low if it does not."""
    n, alpha = losses.size, certificate.alpha
    if certificate.loss != "net" and np.isin(losses, (0.0, 1.0)).all():
        lost = int(losses.sum())
        return binomial_cdf(n - lost, n, 1 - alpha), binomial_cdf(lost, n, alpha)
    low = -1.0 if certificate.loss == "net" else 0.0
    # The bound takes values in an order that does not depend on them.
    drawn = np.random.default_rng(seed).permutation(losses)
    turned, bound = 1 + low - drawn, 1 + low - alpha
    return betting(turned, bound, false_alarm, low=low), betting(drawn, alpha, level, low=low)


def verdicts_of(
    policy: object,
    table: Table,
    replayed: Sequence[ReplayedCall],
    *,
    false_alarm: float = FALSE_ALARM,
    seed: int = 0,
) -> tuple[Verdict, ...]:
    """Judge every promise in a policy by what it did on recorded calls.

    Parameters
    ----------
    policy : Policy
    table : Table
    replayed : sequence of ReplayedCall
        Of `replay`, one for each row of the table.
    false_alarm : float in (0, 1)
        Highest probability of calling any promise broken if all hold: shared between them.
    seed : int

    Returns
    -------
    tuple of Verdict
        One per certificate: of the thresholds of all calls, and of those of tagged ones.
    """
    asked = list(_promises(policy, table.rows))
    quality = np.array([one.quality for one in replayed])
    kept = np.array([not one.cloud for one in replayed], dtype=bool)
    verdicts = []
    for certificate, among in asked:
        losses = _losses(certificate, table, quality, kept=kept & among, among=among)
        level = false_alarm / len(asked)
        if isinstance(losses, str):
            verdicts.append(_untold(certificate, losses, level))
        else:
            verdicts.append(verdict_of(certificate, losses, false_alarm=level, seed=seed))
    return tuple(verdicts)


def _promises(policy: object, rows: Sequence[Row]) -> Iterator[tuple[Certificate, Flags]]:
    """Each certificate with the rows that it is about."""
    tags = [request_of(row).tags for row in rows]
    first: str = getattr(policy, "tiers", TIERS)[0]
    for gate in (part for part in parts_of(policy) if isinstance(part, Gate)):
        mine = [gate.for_call(first, one).threshold.certificate for one in tags]
        # A promise of the whole chain stands at every step.
        promised = dict.fromkeys(one.certificate for _, one in gate.thresholds())
        for certificate in filter(None, promised):
            yield certificate, np.array([own == certificate for own in mine], dtype=bool)


def _losses(
    certificate: Certificate, table: Table, quality: Array, *, kept: Flags, among: Flags
) -> Array | str:
    """The losses that a promise is about, or why they are not known."""
    if not among.any():
        return f"none of {table.n} calls is one that it is about"
    if certificate.loss in {"regret", "net"} and np.isnan(table.cloud_quality[kept]).any():
        return "the cloud's answers, against which it is measured, are not graded"
    if np.isnan(quality[kept]).any():
        return f"{int(np.isnan(quality[kept]).sum())} of {int(kept.sum())} kept answers are not graded"
    if certificate.loss == "shortfall" and np.isnan(table.cloud_quality[among & ~kept]).any():
        return "the cloud's answers, which are part of it, are not graded"
    cloud = table.cloud_quality
    lost = np.where(kept, severity(certificate.loss, quality, cloud), forwarded(certificate.loss, cloud))
    return lost[kept if certificate.loss == "selective" else among]
