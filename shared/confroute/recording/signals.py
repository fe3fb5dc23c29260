"""Signals of recorded rows: measured offline, stored with what measured them, and made again for new calls."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any, TypeAlias

from confroute.asks import Ask, AskGenerator, Evidence, Sample
from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.flow import drive, intercept
from confroute.recording.extraction import kind_of_row, with_kind
from confroute.recording.prompts import conversation
from confroute.recording.rows import Row
from confroute.registry import (
    Entry,
    columns,
    entries,
    entry_of,
    from_expression,
    from_plain,
    not_recorded,
    to_plain,
)
from confroute.signals.answers import Kind, option_in
from confroute.signals.base import Case, Signal
from confroute.signals.ensemble import STATISTICS as OF_ENSEMBLES
from confroute.signals.ensemble import Ensemble
from confroute.signals.mc_dropout import STATISTICS as OF_DROPOUT
from confroute.signals.mc_dropout import McDropout
from confroute.signals.option_probability import OptionProbability, option_doubt
from confroute.types import JSON, Message, Tier

Work: TypeAlias = Callable[[Ask], Evidence]
Build: TypeAlias = Callable[[int], Signal]

OPTION = OptionProbability().name
# Sampling signals refuse fewer than 2; a row with fewer then answers too few of their asks.
LEAST_SAMPLES = 2
# COLUMN=EXPRESSION; without a column an expression has its "=" in brackets only.
_NAMED = re.compile(r"\s*([^()=\s]+)\s*=\s*(.+)", re.DOTALL)


class _Columns(Mapping[str, Build]):
    """The columns of the registry as it is now, so that a signal that is registered later is included."""

    def __getitem__(self, name: str) -> Build:
        return partial(columns()[name].column, name)

    def __iter__(self) -> Iterator[str]:
        return iter(columns())

    def __len__(self) -> int:
        return len(columns())


SIGNALS: Mapping[str, Build] = _Columns()
"""Every column that can be measured offline, with the function that makes its signal for n samples."""


def builds_of(names: Iterable[str]) -> dict[str, Build]:
    """Read the arguments of ``confroute record --signals``.

    Parameters
    ----------
    names : iterable of str
        Each is a column of the registry such as "token_logprob.mean", a signal with its settings such as ``PTrue()``, whose
        column is named after the signal, or COLUMN=SIGNAL. Settings that count samples are replaced by the number of
        recorded samples.

    Raises
    ------
    PolicyError
        None of these, an object that is not a signal, or a column twice.

    Examples
    --------
    >>> made = builds_of(
    ...     ["degree", "PTrue()", "meanings=SemanticEntropy(equivalence=SameEmbedding(cosine=0.8))"]
    ... )
    >>> [(name, build(3).name) for name, build in made.items()]
    [('degree', 'degree'), ('p_true', 'p_true'), ('meanings', 'semantic_entropy')]
    """
    made: dict[str, Build] = {}
    for text in names:
        column, build = _build_of(text)
        if column in made:
            msg = f"--signals holds two signals for the column {column!r}: give one another name, as NAME={text}"
            raise PolicyError(msg)
        made[column] = build
    return made


def _build_of(text: str) -> tuple[str, Build]:
    if text in SIGNALS:
        return text, SIGNALS[text]
    named = _NAMED.fullmatch(text)
    expression = named[2] if named else text
    if "(" not in expression:
        msg = f"--signals {text}: expected names of {', '.join(SIGNALS)}, or a signal with its settings, such as 'PTrue()'"
        raise PolicyError(msg)
    signal = from_expression(expression)
    if not isinstance(signal, Signal):
        msg = f"--signals {text}: a {type(signal).__name__} is not a signal"
        raise PolicyError(msg)
    return (named[1] if named else signal.name), partial(_for_samples, signal)


def _for_samples(signal: Any, samples: int) -> Signal:
    entry = entry_of(signal)
    counts = dict.fromkeys(entry.per_samples if entry else (), samples)
    made: Signal = replace(signal, **counts)
    return made


def dropout_builds(passes: int, rates: Iterable[float]) -> dict[str, Build]:
    """Make every statistic of Monte Carlo dropout at these rates, as ``mc_dropout@RATE.STATISTIC``; none for 0 passes."""
    if not passes:
        return {}
    return {
        f"mc_dropout@{rate:g}.{statistic}": _always(McDropout(passes=passes, rate=rate, statistic=statistic))
        for rate in rates
        for statistic in OF_DROPOUT
    }


def ensemble_builds(members: Sequence[str]) -> dict[str, Build]:
    """Make every statistic of an ensemble of these members, as ``ensemble.STATISTIC``; none without members."""
    if not members:
        return {}
    return {
        f"ensemble.{statistic}": _always(Ensemble(members=tuple(members), statistic=statistic))
        for statistic in OF_ENSEMBLES
    }


def _always(signal: Signal) -> Build:
    """Make the same signal for any number of samples."""
    return lambda _samples: signal


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSignal:
    """A signal of the registry, described in words.

    Attributes
    ----------
    name : str
        Name of its class.
    needs : str
        The evidence that it reads.
    values : str
        Range and unit of its uncertainty.
    recorded : str
        Its columns in recorded runs, or the option that records it, or the reason why it is not recorded.
    """

    name: str
    needs: str
    values: str
    recorded: str


def known_signals() -> list[KnownSignal]:
    """Describe every registered signal, cheapest first, for ``confroute signals --list`` and the documentation."""
    return [
        KnownSignal(
            name=entry.name, needs=entry.needs, values=_values_of(entry), recorded=_recorded_as(entry)
        )
        for entry in entries("signal")
    ]


def _values_of(entry: Entry) -> str:
    if entry.why_not:
        return "-"
    span = entry.known(**entry.example).range
    ends = f"{span.low:g} or more" if math.isinf(span.high) else f"{span.low:g} to {span.high:g}"
    return f"{ends}, {span.unit}"


def _recorded_as(entry: Entry) -> str:
    if entry.columns:
        return ", ".join(f"`{name}`" for name in entry.columns)
    return entry.recorded or f"no: {not_recorded(entry)}"


def measured(
    row: Row, signal: Signal, *, work: Work | None = None, messages: tuple[Message, ...] = ()
) -> Measurement | None:
    """Measure one signal on a recorded row.

    Parameters
    ----------
    row : Row
    signal : Signal
        If it asks for samples of the edge, it gets those of the row, at whatever temperature they were drawn.
    work : callable, optional
        Answers all other asks; without it, a signal that asks for anything else is not measured.
    messages : tuple of Message
        The conversation as it was sent; by default that of the row.

    Returns
    -------
    Measurement or None
        None if the row does not hold the evidence. Never a low uncertainty instead.

    Examples
    --------
    >>> from confroute import SelfConsistency, TokenLogprob
    >>> from confroute.recording import RecordedSample, Side
    >>> drawn = tuple(RecordedSample(text=text) for text in ("7", "8"))
    >>> row = Row(id="a", prompt="How many?", edge=Side(text="7", samples=drawn))
    >>> measured(row, SelfConsistency(n=2)).uncertainty, measured(row, TokenLogprob())
    (0.5, None)
    """
    case = case_of(row, messages)
    return None if case is None else drive(measuring(row, signal, case), partial(_worked, work))


def case_of(row: Row, messages: tuple[Message, ...] = ()) -> Case | None:
    """A row's draft as signals judge it; None where none was recorded."""
    draft = row.edge.generation()
    if draft is None or row.edge.error is not None:
        return None
    tier = Tier(name="edge", model=row.edge.model or "edge")
    return Case(
        tier=tier,
        question=row.question,
        draft=draft,
        context=row.context,
        messages=messages or conversation(row),
    )


def measuring(row: Row, signal: Signal, case: Case) -> AskGenerator[Measurement | None]:
    """Measure one signal, as `measured` does, on a case: samples of the edge are the row's, and all else is asked for."""
    try:
        return (yield from intercept(signal.measure(case), partial(_evidence, row)))
    except SignalUnavailableError:
        return None


def _evidence(row: Row, ask: Ask) -> AskGenerator[Evidence]:
    if isinstance(ask, Sample) and ask.tier == "edge":
        return Evidence(generations=row.edge.further(ask.drawn, ask.n))
    return (yield ask)


def _worked(work: Work | None, ask: Ask) -> Evidence:
    if work is None:
        raise SignalUnavailableError("the recorded run does not hold what was asked for")
    return work(ask)


def with_signals(
    row: Row,
    *,
    signals: Mapping[str, Build] = SIGNALS,
    samples: int | None = None,
    work: Work | None = None,
    messages: tuple[Message, ...] = (),
) -> Row:
    """Add every signal to a row for which it holds the evidence; recorded values are kept.

    Parameters
    ----------
    row : Row
    signals : mapping of str to callable
        By column, the function that makes the signal for n samples.
    samples : int, optional
        Use this many samples, 2 or more; on rows with fewer, sampling signals are not measured. By default all samples of
        the row are used: every row of a run should then hold the same number, since entropies of different n do not
        compare.
    work, messages
        See `measured`.

    Returns
    -------
    Row
        In `signals`, None marks a signal that could not be measured. `measured_by` holds each signal that is not the one
        that the registry knows by the column's name.

    Examples
    --------
    >>> from confroute.recording import Side
    >>> row = Row(id="a", edge=Side(text="A", answer="A", logprobs=(-0.5,), extra={"options": {"A": -0.5}}))
    >>> found = with_signals(row).signals
    >>> found["token_logprob.mean"], found["option_probability"], found["self_consistency"]
    (0.5, 0.0, None)
    """
    case = case_of(row, messages)
    return drive(adding_signals(row, case, signals=signals, samples=samples), partial(_worked, work))


def rows_with_signals(rows: Iterable[Row], *, samples: int | None = None) -> Iterator[Row]:
    """Add every signal to the rows of a run, as `with_signals` does to one, making each signal only once."""
    made = _Made(SIGNALS)
    for row in rows:
        yield drive(_adding(row, case_of(row), made, samples), partial(_worked, None))


def adding_signals(
    row: Row, case: Case | None, *, signals: Mapping[str, Build] = SIGNALS, samples: int | None = None
) -> AskGenerator[Row]:
    """Add signals, as `with_signals` does, that are measured on a case, or none of them without one."""
    return _adding(row, case, _Made(signals), samples)


def _adding(row: Row, case: Case | None, made: _Made, samples: int | None) -> AskGenerator[Row]:
    n = max(LEAST_SAMPLES, len(row.edge.samples) if samples is None else samples)
    values: dict[str, float | None] = {}
    measured_by = dict(row.measured_by)
    how: tuple[int, float | None, Kind] = (n, temperature_of(row), kind_of_row(row) or "auto")
    for name in made.builds:
        if row.signals.get(name) is not None:
            values[name] = row.signals[name]
            continue
        measurement = None if case is None else (yield from measuring(row, made.signal(name, *how), case))
        values[name] = None if measurement is None else measurement.uncertainty
        if measurement is not None and (settings := made.settings(name, *how)) is not None:
            measured_by[name] = settings
    of_all = _option(row)
    if OPTION in made.builds and of_all is not None:
        values[OPTION] = of_all  # from every letter, where the alternatives may lack some
    recorded = {name: value for name, value in row.signals.items() if value is not None or name not in values}
    return replace(row, signals={**values, **recorded}, measured_by=measured_by)


class _Made:
    """The signals of columns for rows with so many samples, at a temperature, read by a kind: each is made once."""

    def __init__(self, builds: Mapping[str, Build]) -> None:
        self.builds = dict(builds)
        self._signals: dict[tuple[str, int, float | None, Kind], Signal] = {}
        self._settings: dict[tuple[str, int, float | None, Kind], JSON] = {}

    def signal(self, name: str, n: int, temperature: float | None, kind: Kind) -> Signal:
        how = (name, n, temperature, kind)
        if how not in self._signals:
            self._signals[how] = with_kind(_drawn_at(self.builds[name](n), temperature), kind)
        return self._signals[how]

    def settings(self, name: str, n: int, temperature: float | None, kind: Kind) -> JSON:
        how = (name, n, temperature, kind)
        if how not in self._settings:
            self._settings[how] = _settings_of(name, self.signal(*how), n)
        return self._settings[how]


def _settings_of(name: str, signal: Signal, samples: int) -> JSON:
    """The signal in the form of policy files; None if its column determines it, or if no file can hold it."""
    entry = columns().get(name)
    if entry is not None and _same_measure(entry.column(name, samples), signal):
        return None
    try:
        plain: JSON = to_plain(signal)
    except PolicyError:
        # Its class is not registered: its values can only be replayed, and a fit will say so.
        return None
    return plain


def temperature_of(row: Row) -> float | None:
    """The temperature at which a row's samples were drawn; None if it was not recorded."""
    found = row.edge.extra.get("temperature")
    return float(found) if isinstance(found, (int, float)) and found > 0 else None


def _drawn_at(signal: Any, temperature: float | None) -> Signal:
    """Give a sampling signal the temperature at which the recorded samples were drawn."""
    entry = entry_of(signal)
    if temperature is not None and entry is not None and entry.per_samples:
        signal = replace(signal, temperature=temperature)
    made: Signal = signal
    return made


def _stepwise(signal: Any) -> Signal:
    """Let a signal draw one sample at a time, which changes its cost but not what it measures."""
    steps = {"step": 1} if any(one.name == "step" for one in fields(signal)) else {}
    made: Signal = replace(signal, **steps)
    return made


def _same_measure(first: Any, second: Any) -> bool:
    """Whether two signals are equal, but for how their samples are drawn."""
    if type(first) is not type(second):
        return False
    drawing = {one.name for one in fields(first)} & {"step", "temperature"}
    same: bool = replace(first, **{name: getattr(second, name) for name in drawing}) == second
    return same


def live_signals(rows: Sequence[Row], *, samples: int) -> dict[str, Signal | str]:
    """Find, for each recorded column, the signal that measures it on new calls.

    Parameters
    ----------
    rows : sequence of Row
    samples : int
        Number of samples from which the columns were measured.

    Returns
    -------
    dict of str to Signal or str
        Sampling signals draw one sample at a time, at the temperature of the recorded samples. A text instead of a signal
        is the reason why a column can only be replayed.

    Examples
    --------
    >>> from confroute.recording import Side
    >>> row = Row(id="a", edge=Side(text="7"), signals={"token_entropy": 0.5, "mine": 0.1})
    >>> live_signals([row], samples=0)
    {'token_entropy': TokenEntropy(...), 'mine': 'no signal is known that measures it on new calls'}
    """
    found = Measured()
    for row in rows:
        found.add(row)
    return found.live_signals(samples=samples)


@dataclass(slots=True, kw_only=True)
class Measured:
    """How the columns of rows were measured; see `live_signals`.

    Attributes
    ----------
    names : mapping of str
        The columns, in the order of the rows.
    settings : mapping of str to list
        The different settings that a column was measured with, in the form of policy files.
    temperatures : set
        Of the samples.
    """

    names: dict[str, None] = field(default_factory=dict)
    settings: dict[str, list[JSON]] = field(default_factory=dict)
    temperatures: set[float | None] = field(default_factory=set)

    def add(self, row: Row) -> None:
        """Take a row."""
        self.names.update(dict.fromkeys(row.signals))
        for name, plain in row.measured_by.items():
            if plain not in self.settings.setdefault(name, []):
                self.settings[name].append(plain)
        if row.edge.samples:
            self.temperatures.add(temperature_of(row))

    def live_signals(self, *, samples: int) -> dict[str, Signal | str]:
        """See the function of this name."""
        temperature = next(iter(self.temperatures)) if len(self.temperatures) == 1 else None
        return {name: _live(name, self.settings.get(name, []), samples, temperature) for name in self.names}


def _live(name: str, settings: Sequence[JSON], samples: int, temperature: float | None) -> Signal | str:
    if len(settings) > 1:
        return "its rows were measured with different settings"
    if settings:
        try:
            return _stepwise(from_plain(settings[0]))
        except PolicyError as error:
            return f"the signal that measured it cannot be made here ({error})"
    if name not in columns():
        return "no signal is known that measures it on new calls"
    count = max(LEAST_SAMPLES, samples)
    return _stepwise(_drawn_at(columns()[name].column(name, count), temperature))


def column_of(signal: Signal, row: Row | None = None) -> str:
    """Find the column of recorded rows that holds a signal; the signal's own name if there is none.

    Examples
    --------
    >>> from confroute import TokenLogprob
    >>> column_of(TokenLogprob(statistic="max"))
    'token_logprob.max'
    """
    if row is not None and row.measured_by and entry_of(signal) is not None:
        for name, plain in row.measured_by.items():
            if _is_made_by(signal, plain):
                return name
    count = getattr(signal, "n", LEAST_SAMPLES)
    known = (
        name
        for name, entry in columns().items()
        if entry.known is type(signal) and _same_measure(entry.column(name, count), signal)
    )
    return next(known, signal.name)


def _is_made_by(signal: Signal, plain: JSON) -> bool:
    entry = entry_of(signal)
    if entry is None or not isinstance(plain, dict) or plain.get("class") != entry.name:
        return False
    return _same_measure(from_plain(plain), signal)


def _option(row: Row) -> float | None:
    """The uncertainty from every option's log-probability as the first token; None if that token was not the answer."""
    options, chosen = row.edge.extra.get("options"), row.edge.answer
    if not isinstance(options, dict) or not isinstance(chosen, str) or row.edge.error is not None:
        return None
    begun = row.edge.tokens[0] if row.edge.tokens else option_in((row.edge.text or "")[:2])
    return option_doubt(_numbers(options), chosen) if begun and begun.strip() == chosen else None


def _numbers(options: Mapping[str, JSON]) -> dict[str, float]:
    known = ((name, value) for name, value in options.items() if not isinstance(value, bool))
    return {name: float(value) for name, value in known if isinstance(value, (int, float))}
