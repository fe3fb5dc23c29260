"""What a signal is: evidence in, one uncertainty out, without I/O."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, TypeVar, runtime_checkable

from confroute.asks import Ask, Evidence, Sample
from confroute.decision import Measurement
from confroute.errors import SignalUnavailableError
from confroute.registry import register
from confroute.types import Context, Generation, Message, Tier

T = TypeVar("T")
Asking: TypeAlias = Generator[Ask, Evidence, T]
Settled: TypeAlias = Callable[[float, float], bool]


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The values an uncertainty can take.

    Examples
    --------
    >>> 0.3 in Range(high=1.0, unit="share"), -1.0 in Range(unit="nats")
    (True, False)
    """

    low: float = 0.0
    high: float = float("inf")
    unit: str = ""

    def __contains__(self, value: object) -> bool:
        return isinstance(value, (int, float)) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One draft to be judged.

    Attributes
    ----------
    tier : Tier
        The tier that wrote the draft, and that samples are drawn from.
    question : str
        What was asked.
    draft : Generation
    settled : callable
        `settled(low, high)` is True when an uncertainty anywhere in [low, high] leads to the same decision: a
        signal that draws evidence step by step may then stop.
    pools : dict
        Samples drawn so far, by temperature: signals of one call share them.
    context : Context or None
        What was retrieved for the question, if anything was.
    messages : tuple of Message
        The whole conversation; empty where only the question is known.
    """

    tier: Tier
    question: str
    draft: Generation
    settled: Settled = lambda low, high: low == high
    pools: dict[float, list[Generation]] = field(default_factory=dict)
    context: Context | None = None
    messages: tuple[Message, ...] = ()


@runtime_checkable
class Signal(Protocol):
    """One way to measure how unreliable a draft is.

    Attributes
    ----------
    name : str
        Key of its measurement in the decision.
    range : Range
        Values and unit of its uncertainty.
    """

    @property
    def name(self) -> str:
        """Key in the decision."""
        ...

    @property
    def range(self) -> Range:
        """Values and unit."""
        ...

    def measure(self, case: Case) -> Asking[Measurement]:
        """Yield asks for the evidence it needs and return the measurement.

        Raises
        ------
        SignalUnavailableError
            The evidence is not to be had from this tier. Never return a low uncertainty instead.
        """
        ...


def alternatives_wanted(signals: Iterable[Signal]) -> int:
    """How many alternatives a token the draft should be asked for.

    A signal that reads alternatives says how many in a field `top_logprobs`; most signals have none.
    """
    return max((getattr(signal, "top_logprobs", 0) for signal in signals), default=0)


def said_by(drawn: Sequence[Generation], model: str) -> list[str]:
    """What each sample says, as meanings are made of it.

    Raises
    ------
    SignalUnavailableError
        Two samples or more and no word in any: all would be one meaning, and the model certain of nothing at all.
    """
    texts = [sample.answer or sample.text for sample in drawn]
    if len(texts) > 1 and not any(text.strip() for text in texts):
        raise SignalUnavailableError(f"{model} returned {len(texts)} empty samples")
    return texts


def samples(case: Case, count: int, *, temperature: float) -> Asking[list[Generation]]:
    """Return the first `count` samples at `temperature`, drawing only those that are missing.

    Raises
    ------
    SignalUnavailableError
        The tier cannot sample, or returned fewer answers than asked for.
    """
    if not case.tier.can_sample:
        raise SignalUnavailableError(f"{case.tier.model} cannot draw several different answers")
    pool = case.pools.setdefault(temperature, [])
    if len(pool) < count:
        wanted = Sample(tier=case.tier.name, n=count - len(pool), temperature=temperature, drawn=len(pool))
        evidence = yield wanted
        pool.extend(evidence.generations)
    if len(pool) < count:
        raise SignalUnavailableError(f"{case.tier.model} returned {len(pool)} of {count} samples")
    return pool[:count]
