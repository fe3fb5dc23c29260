"""The interface of a signal: evidence in, one uncertainty out, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Protocol, TypeAlias, runtime_checkable

from confroute.asks import AskGenerator, Sample
from confroute.decision import Measurement, without_noise
from confroute.errors import SignalUnavailableError
from confroute.registry import register
from confroute.types import Context, Generation, Message, Tier

Settled: TypeAlias = Callable[[float, float], bool]


@register(kind="part")
@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """The values that an uncertainty can take, and their unit.

    Examples
    --------
    >>> 0.3 in Range(high=1.0, unit="share"), -1.0 in Range(unit="nats")
    (True, False)
    """

    low: float = 0.0
    high: float = float("inf")
    unit: str = ""

    def __contains__(self, value: object) -> bool:
        if not isinstance(value, (int, float)):
            return False
        # Measurements are rounded; so are the bounds that they may equal, such as log(n).
        low, rounded, high = map(without_noise, (self.low, value, self.high))
        return low <= rounded <= high


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A draft to judge, and what is known about its call.

    Attributes
    ----------
    tier : Tier
        The tier that wrote the draft, and that samples are drawn from.
    question : str
        The question that the draft answers.
    draft : Generation
    settled : callable
        `settled(low, high)` is True when an uncertainty anywhere in [low, high] leads to the same decision: a
        signal that draws evidence step by step may then stop.
    pools : dict
        Samples drawn so far, by temperature; the signals of one call share them.
    context : Context or None
        The passages retrieved for the question, if any.
    messages : tuple of Message
        The whole conversation; empty where only the question is known.
    """

    tier: Tier
    question: str = field(repr=False)
    draft: Generation
    settled: Settled = lambda low, high: low == high
    pools: dict[float, list[Generation]] = field(default_factory=dict)
    context: Context | None = field(default=None, repr=False)
    messages: tuple[Message, ...] = field(default=(), repr=False)


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

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Yield asks for the evidence that the signal needs, and return its measurement.

        Raises
        ------
        SignalUnavailableError
            This tier cannot provide the evidence. Never return a low uncertainty instead.
        """
        ...


def max_top_logprobs(signals: Iterable[Signal]) -> int:
    """The most alternatives per token that any of these signals reads; the draft is asked for as many.

    A signal that reads alternatives states how many in an attribute `top_logprobs`; most signals have none.
    """
    return max((getattr(signal, "top_logprobs", 0) for signal in signals), default=0)


def shown_name(signal: Signal) -> str:
    """The name of a signal for people, with its `statistic` where that is not the usual one: a sum has other thresholds than a mean.

    Examples
    --------
    >>> from confroute.signals import TokenLogprob
    >>> shown_name(TokenLogprob()), shown_name(TokenLogprob(statistic="sum"))
    ('token_logprob', 'token_logprob sum')
    """
    usual: list[object] = []
    if is_dataclass(signal):
        usual = [one.default for one in fields(signal) if one.name == "statistic"]
    statistic = getattr(signal, "statistic", None)
    return f"{signal.name} {statistic}" if usual and statistic not in usual else signal.name


def compared_text(generation: Generation) -> str:
    """What of an answer is compared with others: its canonical form where it came in one, else its text."""
    return generation.answer or generation.text


def answer_texts(case: Case, samples: Sequence[Generation]) -> list[str]:
    """The texts to compare of a draft and its samples, the draft's first: it is an answer of the same model, and costs nothing more.

    Raises
    ------
    SignalUnavailableError
        See `sample_texts`.
    """
    return [compared_text(case.draft), *sample_texts(samples, case.tier.model)]


def given_answers(generations: Iterable[Generation]) -> set[str]:
    """Those of the texts to compare that came in canonical form (`Generation.answer`)."""
    return {generation.answer for generation in generations if generation.answer}


def sample_texts(generations: Sequence[Generation], model: str) -> list[str]:
    """The texts to compare of several samples: the host's canonical answer where there is one, else the text.

    Raises
    ------
    SignalUnavailableError
        Two samples or more, all of them empty: equal texts would look like certainty.
    """
    texts = [compared_text(sample) for sample in generations]
    if len(texts) > 1 and not any(text.strip() for text in texts):
        raise SignalUnavailableError(f"{model} returned {len(texts)} empty samples")
    return texts


def draw_samples(case: Case, count: int, *, temperature: float) -> AskGenerator[list[Generation]]:
    """Return the first `count` samples of a call at `temperature`; ask only for those not drawn yet.

    Raises
    ------
    SignalUnavailableError
        The tier cannot sample, or returned fewer answers than asked for.
    """
    if not case.tier.can_sample:
        raise SignalUnavailableError(f"{case.tier.model} cannot draw several different answers")
    pool = case.pools.setdefault(temperature, [])
    if len(pool) < count:
        evidence = yield Sample(
            tier=case.tier.name, n=count - len(pool), temperature=temperature, drawn=len(pool)
        )
        pool.extend(evidence.generations)
    if len(pool) < count:
        raise SignalUnavailableError(f"{case.tier.model} returned {len(pool)} of {count} samples")
    return pool[:count]
