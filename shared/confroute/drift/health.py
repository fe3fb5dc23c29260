"""Whether a running policy keeps its promise, and what its calls came to, from a decision log alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

from confroute.certificate import Certificate
from confroute.decision import UNANSWERED, Decision
from confroute.drift.audit import Audited
from confroute.drift.bounds import LossBounds, loss_bounds
from confroute.drift.eprocess import DriftTest
from confroute.drift.shift import Shift, like_recorded, measuring
from confroute.errors import PolicyError
from confroute.observe.log import Entry, GrowingLog, LoggedLoss, read_all
from confroute.observe.trace import AuditedLoss
from confroute.prices import Price
from confroute.registry import parts_of
from confroute.types import JSON, TIERS

Verdict: TypeAlias = Literal["held", "broken", "not told", "not audited", "no promise"]
Line: TypeAlias = Entry | LoggedLoss | Decision | AuditedLoss
Log: TypeAlias = "str | Path | Iterable[Line]"
# Losses of the same sign as a certificate's: an audit cannot see answers of the edge that are better than the cloud's.
_BOUNDED = ("regret", "error", "selective")


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What a policy promises.

    Attributes
    ----------
    level : float in (0, 1)
        The highest mean loss.
    of : {"kept answers", "calls"}
        What the mean is over; a call that the cloud answered loses nothing.
    """

    level: float
    of: Literal["kept answers", "calls"]


def promise_of(policy: object) -> Promise | None:
    """Read the promise of a policy: its certificate's for all calls, else the level of its audits; None where it has neither."""
    for part in parts_of(policy):
        if (
            isinstance(part, Certificate)
            and part.group is None
            and part.loss in _BOUNDED
            and 0 < part.alpha < 1
        ):
            return Promise(level=part.alpha, of="kept answers" if part.loss == "selective" else "calls")
    audits = next((part for part in parts_of(policy) if isinstance(part, Audited)), None)
    return None if audits is None else Promise(level=audits.test.level, of="kept answers")


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """The calls of one hour.

    Attributes
    ----------
    start : datetime
        UTC.
    calls, cloud : int
        All calls, and those that the policy's last tier answered.
    unanswered : mapping of str to int
        Calls by the stage in which they ended without a whole answer: "failed", "cancelled", "abandoned".
    spent_usd : float or None
        Audits included; None without prices.
    """

    start: datetime
    calls: int
    cloud: int
    unanswered: Mapping[str, int]
    spent_usd: float | None

    @property
    def words(self) -> str:
        """The hour in one line."""
        return f"{self.start:%Y-%m-%d %H}h  {_called(self)}"

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "start": self.start.isoformat(),
            "calls": self.calls,
            "cloud": self.cloud,
            "unanswered": dict(self.unanswered),
            "spent_usd": self.spent_usd,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What a decision log says of the policy that made it.

    Attributes
    ----------
    verdict : {"held", "broken", "not told", "not audited", "no promise"}
        "held" and "broken" are proved; "not told" needs more audits. For "held" each missing audit counts as a loss of 1.
    promise : Promise or None
    loss : LossBounds
        Of what the promise is about.
    missing : int
        Kept calls that were drawn for an audit whose loss is not known: it was skipped, failed, or has not ended yet.
    broken_at : int or None
        The number of losses after which the promise was proved broken.
    calls, cloud : int
        All calls, and those that the last tier answered.
    unanswered : mapping of str to int
        As in `Hour`.
    spent_usd : float or None
        Audits included; None without prices.
    shift : Shift or None
        Whether the calls are like the recorded ones; None where the policy does not hold what they were like.
    hours : tuple of Hour
        Those with a call, oldest first; empty where decisions have no time.
    """

    verdict: Verdict
    promise: Promise | None
    loss: LossBounds
    missing: int
    broken_at: int | None
    calls: int
    cloud: int
    unanswered: Mapping[str, int]
    spent_usd: float | None
    shift: Shift | None
    hours: tuple[Hour, ...]

    @property
    def ok(self) -> bool:
        """Whether the promise is not proved broken."""
        return self.verdict != "broken"

    @property
    def words(self) -> str:
        """All of it in one line."""
        told = [self._promised, _called(self)]
        if self.shift is not None and not self.shift.like_recorded:
            told.append(self.shift.words)
        return "; ".join(told)

    @property
    def _promised(self) -> str:
        if self.promise is None:
            return "the policy promises nothing"
        promised = f"promised at most {self.promise.level:g} over all {self.promise.of}"
        if self.loss.mean is None:
            return f"not audited yet: {promised}; audits come from a policy inside confroute.drift.Audited"
        level = f"each bound holds at {self.loss.confidence:.0%} at all times"
        since = "" if self.broken_at is None else f", proved by loss {self.broken_at}"
        since += f"; {self.missing} audits are missing" if self.missing else ""
        return (
            f"{self.verdict}: audited loss {self.loss.mean:.3f} (n = {self.loss.n} calls drawn for an audit, between {self.loss.low:.3f} and {self.loss.high:.3f}; "
            f"{level}), {promised}{since}"
        )

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "words": self.words,
            "promised": None if self.promise is None else self.promise.level,
            "promised_of": None if self.promise is None else self.promise.of,
            "audits": self.loss.n,
            "missing": self.missing,
            "loss": self.loss.mean,
            "loss_low": self.loss.low,
            "loss_high": self.loss.high,
            "confidence": self.loss.confidence,
            "broken_at": self.broken_at,
            "calls": self.calls,
            "cloud": self.cloud,
            "unanswered": dict(self.unanswered),
            "spent_usd": self.spent_usd,
            "shift": None if self.shift is None else self.shift.to_dict(),
            "hours": [hour.to_dict() for hour in self.hours],
        }


def health(
    log: Log,
    policy: object,
    *,
    prices: Mapping[str, Price] | None = None,
    since: datetime | None = None,
    confidence: float = 0.95,
) -> Health:
    """Say whether a policy keeps its promise in use, and what its calls came to.

    Parameters
    ----------
    log : str or Path, or iterable
        A log that `confroute.observe.log.DecisionLog` wrote; or its lines, as `read_all` gives them; or decisions and audited losses.
    policy : Policy
        The one that made the log.
    prices : mapping of str to Price, optional
        By tier.
    since : datetime, optional
        Leave out what is older, such as calls before the policy was fitted again.
    confidence : float in (0, 1)
        Of each bound on the audited loss, at all times together: where that is the promised loss, a promise that is kept is called
        broken with probability 1 - confidence at most, however often this is asked while the log grows.

    Returns
    -------
    Health
        Put `to_dict()` behind a health check: it holds no text of prompts or answers.

    Raises
    ------
    LogError
        The log cannot be read.
    PolicyError
        A confidence outside (0, 1), or a `since` without its offset from UTC.

    Notes
    -----
    The audited losses are those of kept answers, drawn without looking at them. Where the promise is about all calls, calls that were drawn
    for an audit and that the cloud answered anyway are among the losses with 0. The loss is what `Audited(loss=...)` computes: by default
    whether both answers disagree, which is no less than the regret. So by default "held" is proved of a regret alone, since both models may
    give one wrong answer; and "broken" may be said of a promise that is kept, where answers that disagree are both right or both wrong.
    Both are proved where the `loss` is the promised one, by a grader. `ok` is about the promise alone: a shift, which the words tell, says
    that it may not hold, not that it is broken.

    Examples
    --------
    >>> from confroute import Cascade, TokenLogprob
    >>> from confroute.drift import DriftTest
    >>> policy = Audited(policy=Cascade.of(TokenLogprob(), 0.3), test=DriftTest(level=0.05))
    >>> found = health([AuditedLoss(name="edge", loss=0.0)] * 100, policy)
    >>> found.ok, found.verdict, found.loss.n
    (True, 'held', 100)
    """
    tally = HealthTally(policy, prices=prices, since=since, confidence=confidence)
    for line in read_all(log) if isinstance(log, (str, Path)) else log:
        tally.add(line)
    return tally.health()


class HealthTally:
    """What a log says, line by line: of a log that grows, only what is new need be read.

    Parameters
    ----------
    policy, prices, since, confidence
        As of `health`.

    Raises
    ------
    PolicyError
        A `since` without its offset from UTC.
    """

    def __init__(
        self,
        policy: object,
        *,
        prices: Mapping[str, Price] | None = None,
        since: datetime | None = None,
        confidence: float = 0.95,
    ) -> None:
        if since is not None and since.tzinfo is None:
            msg = f"since is {since}: expected a time with its offset from UTC"
            raise PolicyError(msg)
        self._policy, self._prices, self._since, self._confidence = policy, prices, since, confidence
        self._promise = promise_of(policy)
        self._audits = {part.name for part in parts_of(policy) if isinstance(part, Audited)}
        self._last, self._measured = _tiers(policy)[-1], measuring(policy)
        self._total = _Total()
        self._hours: dict[datetime, _Total] = {}
        self._losses: list[float] = []
        self._uncertainties: list[float | None] = []
        self._known = self._begun = self._skipped = 0

    def add(self, line: Line) -> None:
        """Take one more line."""
        at = line.at if isinstance(line, (Entry, LoggedLoss)) else None
        if self._since is not None and (at is None or at < self._since):
            return
        one = _content(line)
        self._total.add(one, self._last, self._prices)
        if at is not None:
            self._hours.setdefault(_hour_of(at), _Total()).add(one, self._last, self._prices)
        if isinstance(one, AuditedLoss):
            self._known += 1
            self._losses += [one.loss] if not self._audits or one.name in self._audits else []
            return
        self._uncertainties += self._measured(one)
        note = one.layers.get("audit")
        if isinstance(note, dict):
            self._begun += note.get("audited") is True
            self._skipped += "skipped" in note
            # A call that was drawn for an audit and that the cloud answered lost nothing.
            if note.get("drawn") is True and self._promise is not None and self._promise.of == "calls":
                self._losses.append(0.0)

    def health(self) -> Health:
        """See the function of this name.

        Raises
        ------
        PolicyError
            A confidence outside (0, 1).
        """
        promise, losses, confidence = self._promise, self._losses, self._confidence
        bounds = loss_bounds(losses, confidence=confidence)
        # The kept calls that were drawn for an audit and have no loss.
        missing = self._skipped + max(0, self._begun - self._known)
        # Which audits fail may depend on the answer, so the worst is assumed of them; first, since the upper bound never rises again.
        worst = loss_bounds([*[1.0] * missing, *losses], confidence=confidence)
        broken_at = None
        if promise is not None:
            broken_at = DriftTest(level=promise.level, false_alarm=1 - confidence).first_alarm(losses)
        return Health(
            verdict=_verdict(promise, worst if losses else bounds, broken_at),
            promise=promise,
            loss=bounds,
            missing=missing,
            broken_at=broken_at,
            **self._total.told(self._prices),
            shift=like_recorded(self._policy, self._uncertainties),
            hours=_hours_of(self._hours, self._prices),
        )


class GrowingHealth:
    """The health of a log that grows: called again, it reads what was appended, and all of it once a file was renamed.

    Parameters
    ----------
    log : str or Path
    policy, prices, since, confidence
        As of `health`.

    Raises
    ------
    LogError, PolicyError
        As of `health`.
    """

    def __init__(
        self,
        log: str | Path,
        policy: object,
        *,
        prices: Mapping[str, Price] | None = None,
        since: datetime | None = None,
        confidence: float = 0.95,
    ) -> None:
        self._log = GrowingLog(log)
        self._new = partial(HealthTally, policy, prices=prices, since=since, confidence=confidence)
        self._tally = self._new()

    def __call__(self) -> Health:
        """The health now."""
        goes_on, lines = self._log.read()
        if not goes_on:
            self._tally = self._new()
        for line in lines:
            self._tally.add(line)
        return self._tally.health()


@dataclass(slots=True)
class _Total:
    """Calls that are added up."""

    calls: int = 0
    cloud: int = 0
    ended: Counter[str] = field(default_factory=Counter)
    spent_usd: float = 0

    def add(self, one: Decision | AuditedLoss, last: str, prices: Mapping[str, Price] | None) -> None:
        """Take a call or an audit; `last` is the tier whose answers count as the cloud's."""
        if prices is not None:
            self.spent_usd += _spent(one, prices)
        if isinstance(one, Decision):
            self.calls += 1
            self.cloud += one.route == last and one.stage not in UNANSWERED
            self.ended[one.stage] += 1

    def told(self, prices: Mapping[str, Price] | None) -> dict[str, Any]:
        """The fields of a `Health` or an `Hour`."""
        return {
            "calls": self.calls,
            "cloud": self.cloud,
            "unanswered": {stage: self.ended[stage] for stage in UNANSWERED},
            "spent_usd": None if prices is None else self.spent_usd,
        }


def _verdict(promise: Promise | None, bounds: LossBounds, broken_at: int | None) -> Verdict:
    if promise is None:
        return "no promise"
    if not bounds.n:
        return "not audited"
    if broken_at is not None:
        return "broken"
    return "held" if bounds.high <= promise.level else "not told"


def _tiers(policy: object) -> tuple[str, ...]:
    tiers: tuple[str, ...] = getattr(policy, "tiers", TIERS)
    return tiers


def hourly(
    lines: Iterable[Line], *, last: str = TIERS[-1], prices: Mapping[str, Price] | None = None
) -> tuple[Hour, ...]:
    """Add up calls by the hour; what has no time is left out.

    Parameters
    ----------
    lines : iterable
        As `confroute.observe.log.read_all` gives them.
    last : str
        The tier whose answers count as the cloud's.
    prices : mapping of str to Price, optional
        By tier.

    Examples
    --------
    >>> at = datetime(2026, 1, 1, 10, 30, tzinfo=UTC)
    >>> (hour,) = hourly([Entry(at=at, decision=Decision(route="cloud", stage="draft", reason=""))])
    >>> hour.start.hour, hour.calls, hour.cloud
    (10, 1, 1)
    """
    by_hour: dict[datetime, _Total] = {}
    for line in lines:
        if isinstance(line, (Entry, LoggedLoss)):
            by_hour.setdefault(_hour_of(line.at), _Total()).add(_content(line), last, prices)
    return _hours_of(by_hour, prices)


def _hour_of(time: datetime) -> datetime:
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def _hours_of(totals: Mapping[datetime, _Total], prices: Mapping[str, Price] | None) -> tuple[Hour, ...]:
    return tuple(Hour(start=start, **one.told(prices)) for start, one in sorted(totals.items()))


def _content(line: Line) -> Decision | AuditedLoss:
    if isinstance(line, Entry):
        return line.decision
    return line.loss if isinstance(line, LoggedLoss) else line


def _spent(one: Decision | AuditedLoss, prices: Mapping[str, Price]) -> float:
    """USD of a call or an audit."""
    if isinstance(one, Decision):
        return sum(prices[tier].of(usage) for tier, usage in one.usage.items() if tier in prices)
    price = prices.get(one.tier or "")
    return 0.0 if price is None or one.usage is None else price.of(one.usage)


def _called(those: Health | Hour) -> str:
    """Calls, shares and costs in words."""
    calls = those.calls
    if not calls:
        return "no calls"
    told = ["1 call" if calls == 1 else f"{calls} calls", f"{those.cloud / calls:.1%} by the cloud"]
    told += [f"{n / calls:.1%} {stage}" for stage, n in those.unanswered.items() if n]
    return ", ".join(told if those.spent_usd is None else [*told, f"{those.spent_usd:.4g} USD"])
