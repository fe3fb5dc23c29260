"""Recording: from one prompt to one row, with the answers of all models and the chosen signals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from confroute.alignment import is_numbered
from confroute.asks import Final
from confroute.errors import PolicyError
from confroute.executor import Executor
from confroute.flow import drive
from confroute.hosts.chat import ChatCall
from confroute.hosts.dispatch import Dispatcher
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.text_host import TextHost, facts_of
from confroute.models.inside import option_alternatives
from confroute.models.prompt_cache import prompt_caching
from confroute.models.text_model import TextModel
from confroute.prices import Price
from confroute.recording.evidence import SET_UP, Wanted
from confroute.recording.going_on import RunFile, alone, errors_of
from confroute.recording.prompts import messages_of, pending
from confroute.recording.rows import ASKED, Middle, Row, Side
from confroute.remediation import describe
from confroute.signals.answers import options_in
from confroute.signals.option_probability import letter_logprobs
from confroute.types import JSON, TIERS, Generation, Message, Tier


class RowRecorder(Protocol):
    """Anything that turns prompts into rows."""

    def row(self, given: Row) -> Row:
        """Record one prompt."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorder(Wanted):
    """Turns prompts into recorded rows.

    Attributes
    ----------
    edge : TextModel
    tiers : mapping of str to TextModel
        Models between edge and cloud by the names of their tiers, cheapest first. Each drafts, and is measured, as the edge is, but for
        its hidden states.
    cloud : TextModel or None
        None keeps the cloud's answers that the input rows hold.
    tier_prices : mapping of str to Price
        Of the models in `tiers`.
    members : mapping of str to TextModel
        Further models, by the names under which an `Ensemble` among the signals asks them.
    system : str or None
        A system message before every prompt.
    """

    edge: TextModel
    tiers: Mapping[str, TextModel] = field(default_factory=dict)
    cloud: TextModel | None = None
    tier_prices: Mapping[str, Price] = field(default_factory=dict)
    members: Mapping[str, TextModel] = field(default_factory=dict)
    system: str | None = None
    # What a model refuses once it is not asked for again.
    _fallback: LogprobFallback = field(default_factory=LogprobFallback, init=False, repr=False, compare=False)
    _between: Mapping[str, Recorder] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if taken := set(self.tiers) & {"", *TIERS, *self.members}:
            msg = f"a tier between edge and cloud is named {min(taken)!r}: expected a name other than those and the members'"
            raise PolicyError(msg)
        if unknown := set(self.tier_prices) - set(self.tiers):
            msg = f"a price of {min(unknown)!r}: the tiers between edge and cloud are {', '.join(self.tiers) or 'none'}"
            raise PolicyError(msg)
        between = {
            name: replace(
                self,
                edge=model,
                edge_price=self.tier_prices.get(name),
                tiers={},
                tier_prices={},
                cloud=None,
                hidden=(),
            )
            for name, model in self.tiers.items()
        }
        object.__setattr__(self, "_between", between)

    def row(self, given: Row) -> Row:
        """Record one prompt; a model that fails leaves its error in the row.

        Raises
        ------
        RecordError
            Messages that cannot be sent.
        MissingExtraError, ModelError, PolicyError
            A model that was never set up, or a grade that is none.
        """
        messages = messages_of(given, self.system)
        row = self._drafted(given, messages)
        drafts = {
            name: _middle_of(recorder._drafted(given, messages)) for name, recorder in self._between.items()
        }
        return replace(row, tiers=drafts or given.tiers, cloud=self._cloud(given, messages))

    def _drafted(self, given: Row, messages: tuple[Message, ...]) -> Row:
        """The row with the graded draft of the edge and all that is measured of it."""
        tier = Tier(name="edge", model=self.edge.name)
        # A run may be recorded again with other models: what is measured here is of this draft.
        others = {name: value for name, value in given.signals.items() if name not in self.signals}
        given = replace(given, signals=others)
        with prompt_caching():
            flow = self.gather(
                given,
                tier,
                messages,
                question=given.question,
                context=given.context,
                options=partial(_options, self.edge, messages),
                asked=_asked(self.edge),
            )
            gathered = drive(flow, self._ask({"edge": self.edge, **self.members}, messages))
        edge = self._graded(given, gathered.row.edge, gathered.draft)
        return replace(gathered.row, edge=edge)

    def _ask(self, models: Mapping[str, TextModel], messages: tuple[Message, ...]) -> Executor:
        hosts = {
            name: TextHost(model, ChatCall(messages=messages), facts_of(model))
            for name, model in models.items()
        }
        return Executor(call=Dispatcher(models=hosts, fallback=self._fallback).call, limits={})

    def _cloud(self, given: Row, messages: tuple[Message, ...]) -> Side | None:
        if self.cloud is None:
            return given.cloud
        ask = self._ask({"cloud": self.cloud}, messages)
        try:
            answer = ask(Final(tier="cloud")).generations[0]
        except SET_UP:
            raise
        except Exception as error:  # noqa: BLE001  kept in the row, so that one bad prompt does not end a run
            return Side(model=self.cloud.name, error=describe(error), extra=_asked(self.cloud))
        side = self.answered(given, answer, self.cloud.name, self.cloud_price, _asked(self.cloud))
        return self._graded(given, side, answer)

    def _graded(self, given: Row, side: Side, answer: Generation | None) -> Side:
        return (
            side if answer is None else replace(side, quality=self.quality(given, answer.answer, answer.text))
        )


def _middle_of(row: Row) -> Middle:
    """What a further model drafted, where it stands beside the edge's."""
    missing = {name: row.extra[name] for name in ("unmeasured",) if name in row.extra}
    side = replace(row.edge, extra={**row.edge.extra, **missing})
    return Middle(side=side, signals=row.signals, measured_by=row.measured_by)


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


def recorded(rows: Iterable[Row], recorder: RowRecorder, *, concurrency: int = 1) -> Iterator[Row]:
    """Record rows, `concurrency` at a time, and yield each as soon as it is done.

    After an error no further row is started; those in progress are finished and yielded before it is raised. Rows are started one
    by one as others end, so a caller that stops iterating stops the calls.
    """
    if concurrency == 1:
        yield from map(recorder.row, rows)
        return
    errors: list[BaseException] = []
    with ThreadPoolExecutor(concurrency, thread_name_prefix="confroute-record") as pool:
        waiting = iter(rows)
        running: set[Future[Row]] = set()
        while True:
            while not errors and len(running) < concurrency and (row := next(waiting, None)) is not None:
                running.add(pool.submit(recorder.row, row))
            if not running:
                break
            done, running = wait(running, return_when=FIRST_COMPLETED)
            errors += filter(None, [future.exception() for future in done])
            yield from (future.result() for future in done if future.exception() is None)
    if errors:
        # The rows of any others are recorded when the run goes on.
        raise errors[0]


@dataclass(slots=True, kw_only=True)
class RunSummary:
    """What recording a run came to; of the rows that were there before, only their number.

    Attributes
    ----------
    todo, before : int
        Rows to record, and rows that were there.
    recorded, failed : int
    first_error : str or None
    cut_off : int
        Drafts that their length limit cut off: a policy sends such calls to the cloud.
    private : int
        Rows that were kept from the cloud.
    several, most_calls : int
        Rows of a pipeline that took more than one routed call, and the most that one of them took.
    grades : Counter of str
        How often each grade was given to the edge.
    """

    todo: int = 0
    before: int = 0
    recorded: int = 0
    failed: int = 0
    first_error: str | None = None
    cut_off: int = 0
    private: int = 0
    several: int = 0
    most_calls: int = 0
    grades: Counter[str] = field(default_factory=Counter)

    def add(self, row: Row) -> None:
        """Count a row."""
        errors = errors_of(row)
        self.recorded += 1
        self.failed += bool(errors)
        self.first_error = self.first_error or (errors[0] if errors else None)
        if row.edge.quality is not None:
            self.grades[f"quality {row.edge.quality:g}"] += 1
        self.cut_off += row.edge.finish == "length"
        self.private += row.extra.get("private") is True
        calls = row.extra.get("calls")
        self.several += isinstance(calls, int) and calls > 1
        self.most_calls = max(self.most_calls, calls if isinstance(calls, int) else 0)


def record_into(
    out: Path,
    prompts: list[Row],
    make: Callable[[], RowRecorder],
    *,
    limit: int | None = None,
    retry_errors: bool = False,
    concurrency: int = 1,
    tick: Callable[[RunSummary], object] | None = None,
) -> RunSummary:
    """Record the prompts that a file does not hold yet, and append each row as soon as it is done.

    Parameters
    ----------
    out : Path
    prompts : list of Row
    make : callable
        Makes the recorder, once and only if there is anything to record.
    limit : int, optional
        Only the first so many prompts.
    retry_errors : bool
        Record rows again that ended in an error.
    concurrency : int
        Prompts at a time.
    tick : callable, optional
        Called with the summary so far, before the first row and after each.

    Raises
    ------
    RecordError
        `out` is not a run.
    PolicyError
        Another process records into it.
    """
    with alone(out, PolicyError):
        file = RunFile(out)
        done = file.done(retry_errors=retry_errors)
        todo = list(pending(prompts, done, limit))
        summary = RunSummary(todo=len(todo), before=len(done))
        if not todo:
            return summary
        tell = tick or (lambda _: None)
        rows = recorded(todo, make(), concurrency=concurrency)
        tell(summary)
        for row in rows:
            file.put(row)
            summary.add(row)
            tell(summary)
    return summary
