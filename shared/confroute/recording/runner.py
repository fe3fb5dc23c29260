"""Recording: from one prompt to one row, with the answers of edge and cloud and the chosen signals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from confroute.alignment import is_numbered
from confroute.asks import Ask, Draft, Evidence, Final, Hidden, Sample
from confroute.errors import MissingExtraError, ModelError, PolicyError, SignalUnavailableError
from confroute.executor import Executor
from confroute.hosts.chat import ChatCall
from confroute.hosts.dispatch import Dispatcher
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.text_host import TextHost, facts_of
from confroute.models.inside import option_alternatives
from confroute.models.prompt_cache import prompt_caching
from confroute.models.text_model import TextModel
from confroute.prices import Price
from confroute.recording.grade import graded
from confroute.recording.prompts import messages_of
from confroute.recording.rows import ASKED, KIND, TOP_LOGPROBS, RecordedSample, Row, Side
from confroute.recording.signals import SIGNALS, Build, with_signals
from confroute.remediation import describe
from confroute.signals.answers import Kind, answer_of, options_in
from confroute.signals.base import max_top_logprobs
from confroute.signals.option_probability import letter_logprobs
from confroute.types import JSON, Generation, Message

# These errors hold for every row: kept per row, they would fill a run of a thousand rows with one error.
_SET_UP = (MissingExtraError, ModelError, PolicyError)
States = Callable[[str, npt.NDArray[np.float32]], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder:
    """Turns prompts into recorded rows.

    Attributes
    ----------
    edge : TextModel
    cloud : TextModel or None
        None keeps the cloud's answers that the input rows hold.
    samples : int
        Further answers of the edge, at `temperature`.
    temperature : float
    signals : mapping of str to callable
        By column, the function that makes the signal for n samples; the edge answers its asks.
    members : mapping of str to TextModel
        Further models, by the names under which an `Ensemble` among the signals asks them.
    top_logprobs : int or None
        Alternatives per token to request with the draft and to keep in the row; None for as many as `signals` read.
    hidden : tuple of int
        Layers whose hidden states at the end of the prompt are kept by `states`.
    states : callable or None
        Stores the hidden states of one id and returns where.
    kind : {"auto", "number", "date", "option", "text"}
        By what answers are compared, as in the signals of a policy; the reference does not decide it, since a new call has none.
    system : str or None
        A system message before every prompt.
    edge_price, cloud_price : Price or None
    """

    edge: TextModel
    cloud: TextModel | None = None
    samples: int = 0
    temperature: float = 1.0
    signals: Mapping[str, Build] = field(default_factory=lambda: SIGNALS)
    members: Mapping[str, TextModel] = field(default_factory=dict)
    top_logprobs: int | None = None
    hidden: tuple[int, ...] = ()
    states: States | None = None
    kind: Kind = "auto"
    system: str | None = None
    edge_price: Price | None = None
    cloud_price: Price | None = None
    # What a model refuses once it is not asked for again.
    _fallback: LogprobFallback = field(default_factory=LogprobFallback, init=False, repr=False, compare=False)

    def row(self, given: Row) -> Row:
        """Record one prompt; a model that fails leaves its error in the row.

        Raises
        ------
        RecordError
            Messages that cannot be sent.
        MissingExtraError, ModelError, PolicyError
            A model that was never set up.
        """
        messages = messages_of(given, self.system)
        with prompt_caching():
            asks = _RowAsks(ask=self._ask({"edge": self.edge, **self.members}, messages))
            edge = self._edge(given, messages, asks)
            kind: dict[str, JSON] = {**given.extra, KIND: self.kind}
            row = replace(given, edge=edge, cloud=self._cloud(given, messages), extra=kind)
            if edge.error is None:
                row = with_signals(row, signals=self.signals, work=asks.evidence, messages=messages)
                row = self._with_states(row, asks)
        extra: dict[str, JSON] = {**row.extra, "latency_s": dict(asks.latency_s)}
        return replace(row, extra={**extra, **({"unmeasured": dict(asks.errors)} if asks.errors else {})})

    def _ask(self, models: Mapping[str, TextModel], messages: tuple[Message, ...]) -> Executor:
        hosts = {
            name: TextHost(model, ChatCall(messages=messages), facts_of(model))
            for name, model in models.items()
        }
        return Executor(call=Dispatcher(models=hosts, fallback=self._fallback).call, limits={})

    def _edge(self, given: Row, messages: tuple[Message, ...], asks: _RowAsks) -> Side:
        side = Side(model=self.edge.name, extra=_asked(self.edge))
        try:
            draft = asks.answers(Draft(tier="edge", top_logprobs=self._wanted()))[0]
            side = _answered(given, draft, self.edge, self.edge_price, self.kind)
            options = _options(self.edge, messages, draft)
            drawn: list[Generation] = []
            if self.samples:
                drawn = asks.answers(Sample(tier="edge", n=self.samples, temperature=self.temperature))
        except _SET_UP:
            raise
        except Exception as error:  # noqa: BLE001  kept in the row, so that one bad prompt does not end a run
            return replace(side, error=describe(error))
        extra: dict[str, JSON] = dict(side.extra)
        if options is not None:
            extra["options"] = {name: round(value, 6) for name, value in options.items()}
        if drawn:
            extra["temperature"] = self.temperature
        return replace(side, samples=tuple(_sample(given, one, self.kind) for one in drawn), extra=extra)

    def _wanted(self) -> int:
        if self.top_logprobs is not None:
            return self.top_logprobs
        return max_top_logprobs(build(max(2, self.samples)) for build in self.signals.values())

    def _cloud(self, given: Row, messages: tuple[Message, ...]) -> Side | None:
        if self.cloud is None:
            return given.cloud
        ask = self._ask({"cloud": self.cloud}, messages)
        try:
            answer = ask(Final(tier="cloud")).generations[0]
        except _SET_UP:
            raise
        except Exception as error:  # noqa: BLE001  as above
            return Side(model=self.cloud.name, error=describe(error), extra=_asked(self.cloud))
        return _answered(given, answer, self.cloud, self.cloud_price, self.kind)

    def _with_states(self, row: Row, asks: _RowAsks) -> Row:
        if not self.hidden or self.states is None:
            return row
        try:
            found = asks.evidence(Hidden(tier="edge", layers=self.hidden)).numbers
        except SignalUnavailableError:
            return row
        assert found is not None, "a Hidden ask brings numbers"
        kept: JSON = {"file": self.states(row.id, found), "layers": [*self.hidden]}
        return replace(row, extra={**row.extra, "hidden": kept})


@dataclass(slots=True, kw_only=True)
class _RowAsks:
    """The asks of one row: each distinct one is done once, and timed."""

    ask: Callable[[Ask], Evidence]
    latency_s: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    done: dict[Ask, Evidence] = field(default_factory=dict)

    def answers(self, ask: Draft | Sample) -> list[Generation]:
        """Get at least one answer."""
        found = self._timed(ask).generations
        if not found:
            msg = f"{type(ask).__name__.lower()}: the model returned no answer"
            raise ValueError(msg)
        return list(found)

    def evidence(self, ask: Ask) -> Evidence:
        """Get the evidence that a signal asks for; a failure makes the signal unavailable and keeps the reason."""
        try:
            return self._timed(ask)
        except _SET_UP:
            raise
        except Exception as error:
            self.errors[type(ask).__name__.lower()] = f"{type(error).__name__}: {error}"
            raise SignalUnavailableError(str(error)) from error

    def _timed(self, ask: Ask) -> Evidence:
        if ask not in self.done:
            kind, start = type(ask).__name__.lower(), time.perf_counter()
            self.done[ask] = self.ask(ask)
            took = time.perf_counter() - start
            self.latency_s[kind] = round(self.latency_s.get(kind, 0.0) + took, 4)
        return self.done[ask]


def _options(
    model: TextModel, messages: tuple[Message, ...], draft: Generation
) -> Mapping[str, float] | None:
    """Log-probability, in nats, of each option letter that the last user message lists, as the answer's first token."""
    question = next((message.text for message in reversed(messages) if message.role == "user"), "")
    letters = options_in(question)
    if not letters:
        return None
    loaded = getattr(model, "loaded", None)
    if loaded is not None:
        return letter_logprobs(option_alternatives(loaded(), messages, letters), letters)
    first = draft.top_logprobs[0] if draft.top_logprobs else ()
    # Letters among alternatives without names would count as impossible.
    return None if any(is_numbered(text) for text, _ in first) else letter_logprobs(first, letters) or None


def _asked(model: TextModel) -> dict[str, JSON]:
    """How the model was asked, which its answers do not say: a server answers by the name of a snapshot or of a file."""
    facts = facts_of(model)
    return {ASKED: {"model": facts.model if facts.named else None, "max_tokens": facts.answer_limit}}


def _answered(given: Row, answer: Generation, model: TextModel, price: Price | None, kind: Kind) -> Side:
    usage: dict[str, JSON] | None = None if answer.usage is None else answer.usage.to_dict()
    return Side(
        model=answer.model or model.name,
        text=answer.text,
        logprobs=_numbers(answer.logprobs),
        tokens=answer.tokens,
        answer=answer_of(answer, given.question, kind=kind),
        quality=graded(answer.answer, answer.text, given.question, given.reference),
        usage=usage,
        latency_s=round(answer.latency_s, 4),
        cost_usd=None if price is None or answer.usage is None else price.of(answer.usage),
        extra={"finish": answer.finish, **_asked(model), **_alternatives(answer)},
    )


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


def recorded(rows: Iterable[Row], recorder: Recorder, *, concurrency: int = 1) -> Iterator[Row]:
    """Record rows, `concurrency` at a time, and yield each as soon as it is done.

    Rows in progress are finished before an error is raised. Rows are started one by one as others end, so a caller that
    stops iterating stops the calls.
    """
    if concurrency == 1:
        yield from map(recorder.row, rows)
        return
    with ThreadPoolExecutor(concurrency, thread_name_prefix="confroute-record") as pool:
        waiting = iter(rows)
        running: set[Future[Row]] = set()
        while True:
            while len(running) < concurrency and (row := next(waiting, None)) is not None:
                running.add(pool.submit(recorder.row, row))
            if not running:
                return
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
