"""The record of one routed call: why it went where, on which evidence, at what cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from dataclasses import fields as dataclass_fields
from functools import cache
from typing import Any, Literal, TypeAlias, TypeVar, cast, get_type_hints

from confroute.certificate import Certificate
from confroute.display import Displayable
from confroute.errors import FormatError, PolicyError
from confroute.reading import fields, fitting, is_version, items, optional_fields, optional_number, refused
from confroute.types import JSON, Generation, Usage, total_usage

Stage: TypeAlias = Literal[
    "rule",
    "forced",
    "head",
    "draft",
    "prefix",
    "asked",
    "evidence",
    "lacking",
    "no_signal",
    "fallback",
    "failed",
    "cancelled",
    "abandoned",
]
UNANSWERED = ("failed", "cancelled", "abandoned")
"""The stages of calls whose caller got no whole answer."""
ENDED = {
    "cancelled": "the call was cancelled",
    "abandoned": "its stream was left before the end; tokens are counted by its chunks",
}
"""The reasons of calls that their caller ended."""
FORMAT = 1
T = TypeVar("T")
_COUNTS = frozenset(
    {
        "latency_s",
        "n",
        "attempts",
        "cache_hits",
        "input_tokens",
        "output_tokens",
        "cached_tokens",
        "reasoning_tokens",
        "cache_write_tokens",
    }
)
# The `threshold_source` of the thresholds that ship with confroute; they were not fitted to any of the user's models.
UNCALIBRATED = "uncalibrated default"


def _rounded(value: float | None) -> float | None:
    """A number as JSON holds it: it has no infinities. A decision has no NaN, since no signal may return one."""
    return None if value is None or not math.isfinite(value) else round(value, 6)


def without_noise(value: float) -> float:
    """A number without the noise of floating-point arithmetic, which would part equal values: rounded to 12 places.

    Examples
    --------
    >>> without_noise(0.1 + 0.2) == without_noise(0.3)
    True
    """
    return round(value, 12)


def _finite(details: Mapping[str, JSON]) -> dict[str, JSON]:
    """A signal's own details as JSON holds them; the signal may be the user's."""
    return {
        name: _finite_value(value)
        if isinstance(value, (list, dict)) or (isinstance(value, float) and not math.isfinite(value))
        else value
        for name, value in details.items()
    }


def _finite_value(value: JSON) -> JSON:
    if isinstance(value, list):
        return [_finite_value(one) for one in value]
    if isinstance(value, dict):
        return _finite(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One uncertainty and what it was computed from.

    Attributes
    ----------
    signal : str
        Name of the signal.
    uncertainty : float
        Higher means less reliable; unit and range are the signal's. Kept without floating-point noise.
    details : mapping
        Further results as JSON, such as the statistics beside the one that is compared.
    abstention : bool
        True if the draft says that the context does not hold the answer.
    """

    signal: str
    uncertainty: float
    details: Mapping[str, JSON] = field(default_factory=dict)
    abstention: bool = False

    def __post_init__(self) -> None:
        # A signal of the user's own may return anything; policies refuse what is no number of its range.
        if isinstance(self.uncertainty, float):
            object.__setattr__(self, "uncertainty", without_noise(self.uncertainty))

    def to_dict(self) -> dict[str, JSON]:
        """JSON form."""
        return {"uncertainty": _rounded(self.uncertainty), **_finite(self.details)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One ask of a call: what was asked, of which model, and what it took.

    Attributes
    ----------
    kind : {"draft", "sample", "prompt", "final", "score", "hidden", "embed", "entails"}
    tier : str or None
        None for work that no tier does.
    model : str or None
    n : int
        Answers, texts, pairs, dropout passes or layers.
    usage : Usage or None
        None when the provider reported none.
    latency_s : float
        Seconds until the evidence, or the error, came.
    attempts : int
    error : str or None
        Class of the error that it ended in; "cancelled" or "abandoned" where its caller ended it.
    group : int or None
        Steps of one call with the same number ran at the same time.
    cache_hits : int
        Answers that came from the host's own cache of answers, and cost nothing.
    unfinished : bool
        Whether its answer is a stream that ended without a reason, and may be cut off.
    inner : tuple of Decision
        What was decided inside, where the model is a router itself; their tokens are part of `usage`.
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
    cache_hits: int = 0
    unfinished: bool = False
    inner: tuple[Decision, ...] = ()

    def to_dict(self) -> dict[str, JSON]:
        """JSON form; the last three attributes stand in it where they say something."""
        return {
            "kind": self.kind,
            "tier": self.tier,
            "model": self.model,
            "n": self.n,
            "usage": self.usage.to_dict() if self.usage else None,
            "latency_s": round(self.latency_s, 6) if math.isfinite(self.latency_s) else None,
            "attempts": self.attempts,
            "error": self.error,
            "group": self.group,
            **({"cache_hits": self.cache_hits} if self.cache_hits else {}),
            **({"unfinished": True} if self.unfinished else {}),
            **({"inner": [decision.to_dict() for decision in self.inner]} if self.inner else {}),
        }


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Decision(Displayable):
    """Where one call went, why, on which evidence and at what cost.

    Attributes
    ----------
    route : str
        The tier whose answer was returned; of a call that was not answered, the tier that was asked last.
    stage : str
        What settled it: a "rule"; a "forced" route; a "head" before any draft; the "draft" itself (its log-probabilities); its "prefix"
        (those of its first tokens); "asked": the model asked for a larger one; further "evidence" (samples); "lacking": the draft says that the context lacks the answer, and was
        believed or not; "no_signal": nothing could be measured; a "fallback" after a failure; "failed": the call ended in an error;
        "cancelled": its caller gave it up; or "abandoned": the reader left its stream before the end.
    reason : str
        The same in words. Never holds text of the prompt or the answer.
    uncertainty, signal, threshold, threshold_source
        The measurement that settled it and the threshold that it was compared with; None where no measurement did.
    certificate : Certificate or None
        The guarantee of that threshold.
    signals : mapping of str to Measurement
        All measurements, by signal; those of an earlier tier's draft, once a later one was judged, by "TIER/SIGNAL", here and in the two
        that follow.
    skipped : mapping of str to str
        Signals that could not be measured, and why.
    grey : mapping of str to tuple of two floats
        By signal, the grey zone that its measurement lay in, above the first number and up to the second, so that a further signal was
        asked.
    steps : tuple of Step
        All asks, those of discarded drafts and samples included.
    rule : str or None
        The rule that settled it.
    degraded : bool
        True if this answer had been rejected and is returned only because the next tier failed.
    private : bool
        True if a rule kept this call on the first tier.
    sampled : bool
        True if a sample is returned in the draft's place, because most of the samples gave its answer.
    layers : mapping of str to JSON
        What the wrappers of the policy did (budgets, audits, hedges, draft reuse, learning), by wrapper.
    run_id : str or None
        Of this call alone; the host's own where it has one. The decision on an answer and the one in `record()` have the same.
    question_id : str or None
        The caller's own name of the question that the call is for, as the call's option of that name gave it. All calls that a query
        engine or an agent makes for a question may have the same.
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
    run_id: str | None = field(default=None, compare=False)
    question_id: str | None = field(default=None, compare=False)

    @property
    def latency_s(self) -> float:
        """Seconds that the steps took one after the other; of a group, the longest one's."""
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
                known = totals.get(step.tier)
                totals[step.tier] = step.usage if known is None else known + step.usage
        return totals

    def to_dict(self) -> dict[str, JSON]:
        """JSON form: strings, finite numbers, booleans, None, lists and objects only."""
        return {
            "v": FORMAT,
            "route": self.route,
            "stage": self.stage,
            "reason": self.reason,
            "uncertainty": _rounded(self.uncertainty),
            "signal": self.signal,
            "threshold": _rounded(self.threshold),
            "threshold_source": self.threshold_source,
            "certificate": None if self.certificate is None else self.certificate.to_dict(),
            "signals": {name: m.to_dict() for name, m in self.signals.items()},
            "skipped": dict(self.skipped),
            "grey": {name: [_rounded(end) for end in zone] for name, zone in self.grey.items()},
            "rule": self.rule,
            "degraded": self.degraded,
            "private": self.private,
            "sampled": self.sampled,
            "layers": dict(self.layers),
            "latency_s": _rounded(self.latency_s),
            "usage": {tier: usage.to_dict() for tier, usage in self.usage.items()},
            "steps": [step.to_dict() for step in self.steps],
            **({} if self.run_id is None else {"run_id": self.run_id}),
            **({} if self.question_id is None else {"question_id": self.question_id}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, JSON]) -> Decision:
        """Read what `to_dict` wrote; keys that this version does not know are left out.

        Raises
        ------
        ValueError
            Not a decision, or one of another format.

        Examples
        --------
        >>> decision = Decision(
        ...     route="edge", stage="draft", reason="kept", steps=(Step(kind="draft", tier="edge"),)
        ... )
        >>> Decision.from_dict(decision.to_dict()) == decision
        True
        """
        return read_decision(data)


def read_decision(data: JSON | Mapping[str, JSON], where: str = "") -> Decision:
    """As `Decision.from_dict`, with every field checked.

    Raises
    ------
    FormatError
        A field that is missing, or is not what the format says; the message names it.
    """
    given = fields(cast("JSON", data), where or "the decision")
    if not is_version(given.get("v"), FORMAT):
        msg = f"expected a decision of format {FORMAT}, found format {given.get('v')!r}"
        raise FormatError(msg)
    known: dict[str, Any] = _known(Decision, given)
    measured = _objects(given.get("signals"), f"{where}signals")
    zones = optional_fields(given.get("grey"), f"{where}grey") or {}
    steps = items(given.get("steps"), f"{where}steps")
    known["signals"] = {name: _measurement(name, one, where) for name, one in measured.items()}
    known["grey"] = {name: _zone(ends, f"{where}grey.{name}") for name, ends in zones.items()}
    known["steps"] = tuple(_step(step, f"{where}steps[{at}]") for at, step in enumerate(steps))
    known["certificate"] = _certificate(given.get("certificate"), f"{where}certificate")
    return _checked(Decision, known, where)


def total_of(decisions: Iterable[Decision]) -> Usage | None:
    """Tokens that several calls were billed; None where no provider reported any."""
    usages = [usage for decision in decisions for usage in decision.usage.values()]
    return sum(usages, Usage()) if usages else None


def untold(decisions: Iterable[Decision], answers: Iterable[Generation]) -> Usage | None:
    """What routers inside a call were billed beyond what its answers report; None where that is nothing."""
    billed, told = total_of(decisions), total_usage(answers)
    if billed is None or told is None:
        return billed
    rest = {
        one.name: max(0, getattr(billed, one.name) - getattr(told, one.name))
        for one in dataclass_fields(Usage)
    }
    return Usage(**rest) if any(rest.values()) else None


def recorded_usage(record: Mapping[str, Any]) -> Usage | None:
    """Tokens billed by all tiers of a decision's JSON form; None where it holds none."""
    usages = [Usage(**_known(Usage, usage)) for usage in record.get("usage", {}).values()]
    return sum(usages, Usage()) if usages else None


def _known(cls: Callable[..., object], data: Mapping[str, Any]) -> dict[str, Any]:
    names = _hints(cls)
    return {name: value for name, value in data.items() if name in names}


def _checked(cls: Callable[..., T], known: Mapping[str, Any], where: str) -> T:
    """An object of these fields, each of its type and none of them a number below 0 where it counts or measures something."""
    hints = _hints(cls)
    for name, value in known.items():
        hint, fits = hints[name]
        if not fits(value):
            raise refused(f"{where}{name}", value, f"a value of type {_words(hint)}")
        if name in _COUNTS:
            optional_number(value, f"{where}{name}", low=0)
    try:
        return cls(**known)
    except (TypeError, PolicyError) as error:  # TypeError: a field is missing
        msg = f"{where.rstrip('.') or 'the decision'}: {error}"
        raise FormatError(msg) from error


@cache
def _hints(cls: Callable[..., object]) -> Mapping[str, tuple[Any, Callable[[object], bool]]]:
    """The type of each field, and what tells whether a value is of it."""
    hints = get_type_hints(cls)
    # A later version may know more stages; nothing here depends on which they are.
    known = {**hints, "stage": str} if "stage" in hints else hints
    return {name: (hint, fitting(hint)) for name, hint in known.items()}


def _words(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")


def _objects(value: JSON, where: str) -> dict[str, dict[str, JSON]]:
    given = optional_fields(value, where) or {}
    return {name: fields(one, f"{where}.{name}") for name, one in given.items()}


def _measurement(name: str, data: dict[str, JSON], where: str) -> Measurement:
    details = {key: value for key, value in data.items() if key != "uncertainty"}
    value = optional_number(data.get("uncertainty"), f"{where}signals.{name}.uncertainty")
    # JSON has no infinities.
    return Measurement(signal=name, uncertainty=math.inf if value is None else value, details=details)


def _zone(ends: JSON, where: str) -> tuple[float, float]:
    if len(items(ends, where)) != 2:
        raise refused(where, ends, "two numbers, or null for an open end")
    low, high = (optional_number(end, where) for end in items(ends, where))
    return -math.inf if low is None else low, math.inf if high is None else high


def _certificate(value: JSON, where: str) -> Certificate | None:
    given = optional_fields(value, where)
    return None if given is None else _checked(Certificate, _known(Certificate, given), f"{where}.")


def read_billed(value: JSON, where: str) -> Usage | None:
    """Read the tokens that `Usage.to_dict` wrote; None where there are none.

    Raises
    ------
    FormatError
        The message names the field.
    """
    given = optional_fields(value, where)
    return None if given is None else _checked(Usage, _known(Usage, given), f"{where}.")


def _step(value: JSON, where: str) -> Step:
    given = fields(value, where)
    inner = items(given.get("inner"), f"{where}.inner")
    known: dict[str, Any] = {
        **_known(Step, given),
        "usage": read_billed(given.get("usage"), f"{where}.usage"),
        "inner": tuple(read_decision(one, f"{where}.inner[{at}].") for at, one in enumerate(inner)),
    }
    # Written as null where it was not finite.
    known["latency_s"] = known.get("latency_s") or 0.0
    return _checked(Step, known, f"{where}.")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Routed(Displayable):
    """What a policy returns: the answer and the decision that led to it.

    It displays its decision; the answer, which may be private, is shown by `text` alone.

    Examples
    --------
    >>> decision = Decision(route="edge", stage="forced", reason="forced to edge by the caller")
    >>> answer = Routed(generation=Generation(text="Paris"), decision=decision)
    >>> answer
    <Routed edge (forced): forced to edge by the caller; 0.00 s>
    >>> answer.text
    'Paris'
    """

    generation: Generation
    decision: Decision

    @property
    def text(self) -> str:
        """The answer as the user reads it."""
        return self.generation.text
