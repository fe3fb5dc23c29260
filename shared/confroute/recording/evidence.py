"""What is recorded of one call of an edge: its draft, its samples, its signals, and what the same takes of a cloud's answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from confroute.asks import Ask, AskGenerator, Draft, Evidence, Hidden, Sample
from confroute.errors import MissingExtraError, ModelError, PolicyError, SignalUnavailableError
from confroute.flow import intercept
from confroute.prices import Price
from confroute.recording.grade import graded
from confroute.recording.rows import KIND, TOP_LOGPROBS, RecordedSample, Row, Side
from confroute.recording.signals import SIGNALS, Build, adding_signals
from confroute.remediation import describe
from confroute.signals.answers import Kind, answer_of
from confroute.signals.base import Case, max_top_logprobs
from confroute.types import JSON, Context, Generation, Message, Tier

# These errors hold for every row: kept per row, they would fill a run of a thousand rows with one error.
SET_UP = (MissingExtraError, ModelError, PolicyError)
States: TypeAlias = Callable[[str, npt.NDArray[np.float32]], str]
Grade: TypeAlias = Callable[[str, str, JSON], float]
Options: TypeAlias = Callable[[Generation], Mapping[str, float] | None]


def _no_options(_draft: Generation) -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is to be recorded.

    Attributes
    ----------
    samples : int
        Further answers of the edge, at `temperature`.
    temperature : float
    signals : mapping of str to callable
        By column, the function that makes the signal for n samples; the edge answers its asks.
    top_logprobs : int or None
        Alternatives per token to request with the draft and to keep in the row; None for as many as `signals` read.
    hidden : tuple of int
        Layers whose hidden states at the end of the prompt are kept by `states`.
    states : callable or None
        Stores the hidden states of one id and returns where.
    kind : {"auto", "number", "date", "option", "text"}
        By what answers are compared, as in the signals of a policy; the reference does not decide it, since a new call has none.
    grade : callable or None
        ``grade(question, answer, reference)`` returns the quality of an answer in [0, 1], higher is better; None grades by the
        reference (`confroute.recording.grade.graded`).
    edge_price, cloud_price : Price or None
    """

    samples: int = 0
    temperature: float = 1.0
    signals: Mapping[str, Build] = field(default_factory=lambda: SIGNALS)
    top_logprobs: int | None = None
    hidden: tuple[int, ...] = ()
    states: States | None = None
    kind: Kind = "auto"
    grade: Grade | None = None
    edge_price: Price | None = None
    cloud_price: Price | None = None

    def gather(
        self,
        given: Row,
        tier: Tier,
        messages: tuple[Message, ...],
        *,
        question: str,
        context: Context | None,
        options: Options = _no_options,
        asked: Mapping[str, JSON] = MappingProxyType({}),
    ) -> AskGenerator[Gathered]:
        """Ask for all evidence of one call of the edge; what fails is kept in the row.

        Parameters
        ----------
        given : Row
            Holds the prompt; its edge is replaced.
        tier : Tier
        messages : tuple of Message
            The conversation as it is sent.
        question, context
            As signals see them.
        options : callable
            The log-probability of each option letter as the first token of a draft, where it is known.
        asked : mapping
            What is kept of how the model was asked.

        Raises
        ------
        MissingExtraError, ModelError, PolicyError
            A model that was never set up.
        """
        asks = _RowAsks()
        gathered = yield from self._edge(given, tier, asks, options, asked)
        row = replace(given, edge=gathered.row.edge, extra={**given.extra, KIND: self.kind})
        if gathered.draft is not None and gathered.error is None:
            case = Case(
                tier=tier, question=question, draft=gathered.draft, context=context, messages=messages
            )
            row = yield from intercept(adding_signals(row, case, signals=self.signals), asks.evidence)
            row = yield from self._with_states(row, tier, asks)
        extra: dict[str, JSON] = {**row.extra, "latency_s": dict(asks.latency_s)}
        row = replace(row, extra={**extra, **({"unmeasured": dict(asks.errors)} if asks.errors else {})})
        return replace(gathered, row=row)

    def _edge(
        self, given: Row, tier: Tier, asks: _RowAsks, options: Options, asked: Mapping[str, JSON]
    ) -> AskGenerator[Gathered]:
        side, draft = Side(model=tier.model, extra=asked), None
        try:
            (draft, *_) = yield from asks.answers(
                Draft(tier=tier.name, top_logprobs=self.wanted_alternatives())
            )
            side = self.answered(given, draft, tier.model, self.edge_price, asked)
            letters = options(draft)
            drawn: list[Generation] = []
            if self.samples:
                ask = Sample(tier=tier.name, n=self.samples, temperature=self.temperature)
                drawn = yield from asks.answers(ask)
        except SET_UP:
            raise
        except Exception as error:  # noqa: BLE001  kept in the row, so that one bad prompt does not end a run
            return Gathered(
                row=replace(given, edge=replace(side, error=describe(error))), draft=draft, error=error
            )
        extra: dict[str, JSON] = dict(side.extra)
        if letters is not None:
            extra["options"] = {name: round(value, 6) for name, value in letters.items()}
        if drawn:
            extra["temperature"] = self.temperature
        samples = tuple(_sample(given, one, self.kind) for one in drawn)
        return Gathered(row=replace(given, edge=replace(side, samples=samples, extra=extra)), draft=draft)

    def wanted_alternatives(self) -> int:
        """How many alternatives per token a draft is asked for."""
        if self.top_logprobs is not None:
            return self.top_logprobs
        return max_top_logprobs(build(max(2, self.samples)) for build in self.signals.values())

    def _with_states(self, row: Row, tier: Tier, asks: _RowAsks) -> AskGenerator[Row]:
        if not self.hidden or self.states is None:
            return row
        try:
            found = (yield from asks.evidence(Hidden(tier=tier.name, layers=self.hidden))).numbers
        except SignalUnavailableError:
            return row
        assert found is not None, "a Hidden ask brings numbers"
        kept: JSON = {"file": self.states(row.id, found), "layers": [*self.hidden]}
        return replace(row, extra={**row.extra, "hidden": kept})

    def answered(
        self,
        given: Row,
        answer: Generation,
        model: str,
        price: Price | None,
        asked: Mapping[str, JSON] = MappingProxyType({}),
    ) -> Side:
        """What is kept of an answer of either model, without its grade."""
        usage: dict[str, JSON] | None = None if answer.usage is None else answer.usage.to_dict()
        return Side(
            model=answer.model or model,
            text=answer.text,
            logprobs=_numbers(answer.logprobs),
            tokens=answer.tokens,
            answer=answer_of(answer, given.question, kind=self.kind),
            usage=usage,
            latency_s=round(answer.latency_s, 4),
            cost_usd=None if price is None or answer.usage is None else price.of(answer.usage),
            extra={
                "finish": answer.finish,
                **asked,
                **_alternatives(answer),
                **({} if answer.flaw is None else {"flaw": answer.flaw}),
            },
        )

    def quality(self, given: Row, answer: str | None, text: str) -> float | None:
        """Grade an answer to the question of a row.

        Raises
        ------
        PolicyError
            The user's function returned no number in [0, 1].
        """
        if self.grade is None:
            return graded(answer, text, given.question, given.reference)
        found: object = self.grade(given.question, text, given.reference)
        if isinstance(found, (bool, int, float)) and 0 <= found <= 1:
            return float(found)
        msg = f"the grade of row {given.id!r} is {found!r}: expected a number from 0 to 1 of grade(question, answer, reference)"
        raise PolicyError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """The row of one call of an edge, its draft if one came, and the error that the evidence ended in, if it did."""

    row: Row
    draft: Generation | None = None
    error: Exception | None = None


@dataclass(slots=True, kw_only=True)
class _RowAsks:
    """The asks of one row: each distinct one is done once, and timed."""

    latency_s: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    done: dict[Ask, Evidence] = field(default_factory=dict)

    def answers(self, ask: Draft | Sample) -> AskGenerator[list[Generation]]:
        """Get at least one answer."""
        found = (yield from self._timed(ask)).generations
        if not found:
            msg = f"{type(ask).__name__.lower()}: the model returned no answer"
            raise ValueError(msg)
        return list(found)

    def evidence(self, ask: Ask) -> AskGenerator[Evidence]:
        """Get the evidence that a signal asks for; a failure makes the signal unavailable and keeps the reason."""
        try:
            return (yield from self._timed(ask))
        except SET_UP:
            raise
        except Exception as error:
            self.errors[type(ask).__name__.lower()] = f"{type(error).__name__}: {error}"
            raise SignalUnavailableError(str(error)) from error

    def _timed(self, ask: Ask) -> AskGenerator[Evidence]:
        if ask not in self.done:
            evidence = self.done[ask] = yield ask
            kind = type(ask).__name__.lower()
            self.latency_s[kind] = round(self.latency_s.get(kind, 0.0) + evidence.latency_s, 4)
        return self.done[ask]


def _numbers(logprobs: tuple[float, ...] | None) -> tuple[float, ...] | None:
    """The log-probabilities, or None if one is not finite: JSON cannot hold it, and signals would refuse the rest."""
    return None if logprobs is None or not all(map(math.isfinite, logprobs)) else logprobs


def _alternatives(answer: Generation) -> dict[str, JSON]:
    if not answer.top_logprobs:
        return {}
    # Some servers send minus infinity for a probability of 0, which JSON cannot hold.
    return {
        TOP_LOGPROBS: [
            [[token, round(nats, 6)] for token, nats in top if nats > -math.inf]
            for top in answer.top_logprobs
        ]
    }


def _sample(given: Row, drawn: Generation, kind: Kind = "auto") -> RecordedSample:
    return RecordedSample(
        text=drawn.text,
        logprobs=_numbers(drawn.logprobs),
        answer=answer_of(drawn, given.question, kind=kind),
        extra={"finish": drawn.finish},
    )
