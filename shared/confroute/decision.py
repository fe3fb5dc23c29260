"""The record of one routed call: why it went where, on which evidence, at what cost."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, TypeAlias

from confroute.certificate import Certificate
from confroute.display import Displayable
from confroute.types import JSON, Generation, Usage

Stage: TypeAlias = Literal[
    "rule", "forced", "head", "draft", "prefix", "evidence", "lacking", "no_signal", "fallback", "failed"
]
FORMAT = 1
# The `threshold_source` of thresholds that come with confroute: they were fitted to no one's models.
UNCALIBRATED = "uncalibrated default"


def _number(value: float | None) -> float | None:
    """JSON has no infinities; a decision has no NaN, since no signal may return one."""
    return None if value is None or not math.isfinite(value) else round(value, 6)


def _finite(value: JSON) -> JSON:
    """The same for one of a signal's own particulars, which may be somebody else's signal."""
    if isinstance(value, list):
        return [_finite(one) for one in value]
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One uncertainty and how it came about.

    Attributes
    ----------
    signal : str
        Name of the signal.
    uncertainty : float
        Higher means less reliable; unit and range are the signal's.
    details : mapping
        JSON-safe particulars, such as the statistics beside the one that counts.
    lacking : bool
        True if it is about a draft that gives no answer because the context holds none.
    """

    signal: str
    uncertainty: float
    details: Mapping[str, JSON] = field(default_factory=dict)
    lacking: bool = False

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        told = {name: _finite(value) for name, value in self.details.items()}
        return {"uncertainty": _number(self.uncertainty), **told}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One thing that was done for a call.

    Attributes
    ----------
    kind : {"draft", "sample", "prompt", "final", "score", "hidden", "embed", "entails"}
    tier : str or None
        None for work that is no tier's.
    model : str or None
    n : int
        Answers, texts, pairs, dropout passes or layers.
    usage : Usage or None
        None when the provider reported none.
    latency_s : float
        Seconds until the evidence, or the error, was there.
    attempts : int
    error : str or None
        Kind of the error it ended in.
    group : int or None
        Steps of one call with the same number ran at the same time.
    """

    kind: str
    tier: str | None = None
    model: str | None = None
    n: int = 1
    usage: Usage | None = None
    latency_s: float = 0.0
    attempts: int = 1
    error: str | None = None
    group: int | None = None

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {
            "kind": self.kind,
            "tier": self.tier,
            "model": self.model,
            "n": self.n,
            "usage": self.usage.to_dict() if self.usage else None,
            "latency_s": _number(self.latency_s),
            "attempts": self.attempts,
            "error": self.error,
            "group": self.group,
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Decision(Displayable):
    """Where one call went, why, on which evidence and at what cost.

    Attributes
    ----------
    route : str
        The tier whose answer was returned; of a call that failed, the tier that was asked last.
    stage : str
        What settled it: a "rule", a "forced" route, a "head" before any draft, the "draft" (its log-probabilities),
        its "prefix" (its first tokens'), further "evidence" (samples), "lacking" (the draft says that the context lacks the answer, and that
        was believed or not), "no_signal" (nothing could be measured), a "fallback" after a failure, or "failed": the
        call ended in an error.
    reason : str
        The same in words. Never holds text of the prompt or the answer.
    uncertainty, signal, threshold, threshold_source
        The measurement that settled it and what it was compared with; None where none did.
    certificate : Certificate or None
        What that threshold promises about calls like this one.
    signals : mapping of str to Measurement
        Everything that was measured, by signal.
    skipped : mapping of str to str
        Signals that could not be measured, and why.
    grey : mapping of str to tuple of two floats
        Grey zones that measurements lay in, above the first and up to the second, so that a further signal was asked; by signal.
    steps : tuple of Step
        All that was done, discarded drafts and samples included.
    rule : str or None
        The rule that settled it.
    degraded : bool
        True if this answer was rejected and is returned only because the next tier failed.
    private : bool
        True if a rule kept this call on the first tier.
    sampled : bool
        True if a sample is returned in the draft's place, because most of the samples gave its answer.
    layers : mapping of str to JSON
        What budgets, audits, hedges and draft reuse did around the policy, by layer.
    """

    route: str
    stage: Stage
    reason: str
    uncertainty: float | None = None
    signal: str | None = None
    threshold: float | None = None
    threshold_source: str | None = None
    certificate: Certificate | None = None
    signals: Mapping[str, Measurement] = field(default_factory=dict)
    skipped: Mapping[str, str] = field(default_factory=dict)
    grey: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    steps: tuple[Step, ...] = ()
    rule: str | None = None
    degraded: bool = False
    private: bool = False
    sampled: bool = False
    layers: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def latency_s(self) -> float:
        """Seconds that the steps took, one after the other; of a group the longest."""
        groups: dict[object, float] = {}
        for position, step in enumerate(self.steps):
            key: object = (position,) if step.group is None else step.group
            groups[key] = max(groups.get(key, 0.0), step.latency_s)
        return sum(groups.values())

    @property
    def usage(self) -> dict[str, Usage]:
        """Tokens billed by tier, discarded drafts and samples included."""
        totals: dict[str, Usage] = {}
        for step in self.steps:
            if step.tier is not None and step.usage is not None:
                totals[step.tier] = totals.get(step.tier, Usage()) + step.usage
        return totals

    def to_dict(self) -> dict[str, JSON]:
        """JSON form: strings, finite numbers, booleans, None, lists and objects only."""
        return {
            "v": FORMAT,
            "route": self.route,
            "stage": self.stage,
            "reason": self.reason,
            "uncertainty": _number(self.uncertainty),
            "signal": self.signal,
            "threshold": _number(self.threshold),
            "threshold_source": self.threshold_source,
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
            "signals": {name: m.to_dict() for name, m in self.signals.items()},
            "skipped": dict(self.skipped),
            "grey": {name: [_number(end) for end in zone] for name, zone in self.grey.items()},
            "rule": self.rule,
            "degraded": self.degraded,
            "private": self.private,
            "sampled": self.sampled,
            "layers": dict(self.layers),
            "latency_s": _number(self.latency_s),
            "usage": {tier: usage.to_dict() for tier, usage in self.usage.items()},
            "steps": [step.to_dict() for step in self.steps],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, JSON]) -> Decision:
        """The decision that `to_dict` wrote; keys that this version does not know are left out.

        Raises
        ------
        ValueError
            No decision, or one of another format.

        Examples
        --------
        >>> decision = Decision(
        ...     route="edge", stage="draft", reason="kept", steps=(Step(kind="draft", tier="edge"),)
        ... )
        >>> Decision.from_dict(decision.to_dict()) == decision
        True
        """
        if data.get("v") != FORMAT or not isinstance(data.get("route"), str):
            msg = f"expected a decision of format {FORMAT}, found format {data.get('v')!r}"
            raise ValueError(msg)
        given: dict[str, Any] = _known(cls, data)
        given["signals"] = {name: _measurement(name, found) for name, found in given["signals"].items()}
        given["grey"] = {name: _zone(*ends) for name, ends in given.get("grey", {}).items()}
        given["steps"] = tuple(_step(step) for step in given["steps"])
        promise = given.get("certificate")
        given["certificate"] = None if promise is None else Certificate(**_known(Certificate, promise))
        return cls(**given)


def _known(cls: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    names = {known.name for known in fields(cls)}
    return {name: value for name, value in data.items() if name in names}


def _measurement(name: str, data: Mapping[str, Any]) -> Measurement:
    details = {key: value for key, value in data.items() if key != "uncertainty"}
    value = data["uncertainty"]
    # An infinity cannot stand in JSON.
    return Measurement(signal=name, uncertainty=math.inf if value is None else value, details=details)


def _zone(low: float | None, high: float | None) -> tuple[float, float]:
    return -math.inf if low is None else low, math.inf if high is None else high


def _step(data: Mapping[str, Any]) -> Step:
    usage = data.get("usage")
    return Step(**{**_known(Step, data), "usage": None if usage is None else Usage(**usage)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Routed:
    """What a policy returns: the answer, and the decision that led to it."""

    generation: Generation
    decision: Decision
