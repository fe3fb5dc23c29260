"""Signals of recorded rows: measured from what a run holds, kept with what measured them, and found again for new calls."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from confroute.asks import Ask, Evidence, Sample
from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
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
from confroute.signals.answers import option_in
from confroute.signals.base import Case, Signal
from confroute.signals.ensemble import STATISTICS as OF_ENSEMBLES
from confroute.signals.ensemble import Ensemble
from confroute.signals.mc_dropout import STATISTICS as OF_DROPOUT
from confroute.signals.mc_dropout import McDropout
from confroute.signals.option_probability import OptionProbability, option_doubt
from confroute.types import JSON, Message, Tier

if TYPE_CHECKING:
    from confroute.signals.base import Asking

Work: TypeAlias = Callable[[Ask], Evidence]
Build: TypeAlias = Callable[[int], Signal]

OPTION = OptionProbability().name
# Sampling signals refuse fewer than 2; a row with fewer then answers too few of their asks.
LEAST_SAMPLES = 2
# COLUMN=EXPRESSION; without a column an expression has its "=" in brackets only.
_NAMED = re.compile(r"\s*([^()=\s]+)\s*=\s*(.+)", re.DOTALL)


class _Columns(Mapping[str, Build]):
    """The registry's columns as they are now: those of a signal that is registered later as well."""

    def __getitem__(self, name: str) -> Build:
        return partial(columns()[name].column, name)

    def __iter__(self) -> Iterator[str]:
        return iter(columns())

    def __len__(self) -> int:
        return len(columns())


SIGNALS: Mapping[str, Build] = _Columns()
"""What can be measured offline, by column: each entry makes the signal for rows of n samples."""


def builds_of(names: Iterable[str]) -> dict[str, Build]:
    """What ``confroute record --signals`` names: columns of the registry, or signals with their settings.

    Parameters
    ----------
    names : iterable of str
        Each a column such as "token_logprob.mean", an expression such as ``PTrue()`` whose column is the signal's own
        name, or COLUMN=EXPRESSION. Settings that count samples are set to the number of recorded ones.

    Raises
    ------
    PolicyError
        Neither, something that is no signal, or a column twice.

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
    """Every statistic of Monte Carlo dropout at some rates, as ``mc_dropout@RATE.STATISTIC``; none for 0 passes."""
    if not passes:
        return {}
    return {
        f"mc_dropout@{rate:g}.{statistic}": _always(McDropout(passes=passes, rate=rate, statistic=statistic))
        for rate in rates
        for statistic in OF_DROPOUT
    }


def ensemble_builds(members: Sequence[str]) -> dict[str, Build]:
    """Every statistic of an ensemble with these members, as ``ensemble.STATISTIC``; none without members."""
    if not members:
        return {}
    return {
        f"ensemble.{statistic}": _always(Ensemble(members=tuple(members), statistic=statistic))
        for statistic in OF_ENSEMBLES
    }


def _always(signal: Signal) -> Build:
    """The same signal for any number of samples."""
    return lambda _samples: signal


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownSignal:
    """One signal of the registry, in words; see `known_signals`.

    Attributes
    ----------
    name : str
        Its class.
    needs : str
        The evidence that it reads.
    values : str
        Their range and unit.
    recorded : str
        Its columns in recorded runs, or how it gets one, or why it has none.
    """

    name: str
    needs: str
    values: str
    recorded: str


def known_signals() -> list[KnownSignal]:
    """Every signal that is known, by its cost: what ``confroute signals --list`` and the documentation show."""
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
        Its asks for samples of the edge are answered from the row's, whatever temperature they were drawn at.
    work : callable, optional
        Answers every other ask; without it a signal that asks for more is not measured.
    messages : tuple of Message
        The conversation as it was sent, for signals that repeat it to the edge.

    Returns
    -------
    Measurement or None
        None where the row does not hold the evidence. Never a low uncertainty instead.

    Examples
    --------
    >>> from confroute import SelfConsistency, TokenLogprob
    >>> from confroute.recording import RecordedSample, Side
    >>> drawn = tuple(RecordedSample(text=text) for text in ("7", "8"))
    >>> row = Row(id="a", prompt="How many?", edge=Side(text="7", samples=drawn))
    >>> measured(row, SelfConsistency(n=2)).uncertainty, measured(row, TokenLogprob())
    (0.5, None)
    """
    draft = row.edge.generation()
    if draft is None or row.edge.error is not None:
        return None
    tier = Tier(name="edge", model=row.edge.model or "edge")
    case = Case(tier=tier, question=row.question, draft=draft, context=row.context, messages=messages)
    try:
        return _driven(signal.measure(case), row, work)
    except SignalUnavailableError:
        return None


def _driven(asks: Asking[Measurement], row: Row, work: Work | None) -> Measurement:
    try:
        ask = next(asks)
        while True:
            evidence = _answered(ask, row, work)
            if evidence is None:
                ask = asks.throw(SignalUnavailableError("the recorded run does not hold what was asked for"))
            else:
                ask = asks.send(evidence)
    except StopIteration as done:
        measurement: Measurement = done.value
        return measurement


def _answered(ask: Ask, row: Row, work: Work | None) -> Evidence | None:
    if isinstance(ask, Sample) and ask.tier == "edge":
        return Evidence(generations=row.edge.further()[ask.drawn : ask.drawn + ask.n])
    return None if work is None else work(ask)


def with_signals(
    row: Row,
    *,
    signals: Mapping[str, Build] = SIGNALS,
    samples: int | None = None,
    work: Work | None = None,
    messages: tuple[Message, ...] = (),
) -> Row:
    """The row with every signal that its evidence allows; recorded values are kept.

    Parameters
    ----------
    row : Row
    signals : mapping of str to callable
        By column, what makes the signal for n samples.
    samples : int, optional
        Use the first so many, 2 or more; rows with fewer are not measured by sampling signals. By default all that
        a row holds: a run should then hold equally many on every row, since entropies of different n do not compare.
    work, messages
        See `measured`.

    Returns
    -------
    Row
        `signals` holds None where a signal could not be measured, and `measured_by` every signal that its column's name
        alone does not tell.

    Examples
    --------
    >>> from confroute.recording import Side
    >>> row = Row(id="a", edge=Side(text="A", answer="A", logprobs=(-0.5,), extra={"options": {"A": -0.5}}))
    >>> found = with_signals(row).signals
    >>> found["token_logprob.mean"], found["option_probability"], found["self_consistency"]
    (0.5, 0.0, None)
    """
    n = max(LEAST_SAMPLES, len(row.edge.samples) if samples is None else samples)
    values: dict[str, float | None] = {}
    measured_by = dict(row.measured_by)
    for name, build in signals.items():
        if row.signals.get(name) is not None:
            values[name] = row.signals[name]
            continue
        signal = _drawn_at(build(n), temperature_of(row))
        measurement = measured(row, signal, work=work, messages=messages)
        values[name] = None if measurement is None else measurement.uncertainty
        if measurement is not None and (made := _told_by(name, signal, n)) is not None:
            measured_by[name] = made
    of_all = _option(row)
    if OPTION in signals and of_all is not None:
        values[OPTION] = of_all  # of every letter, where the alternatives may lack some
    recorded = {name: value for name, value in row.signals.items() if value is not None or name not in values}
    return replace(row, signals={**values, **recorded}, measured_by=measured_by)


def _told_by(name: str, signal: Signal, samples: int) -> JSON:
    """The signal as a policy file holds it; None where its column tells it, or where no file can hold it."""
    entry = columns().get(name)
    if entry is not None and _same_measure(entry.column(name, samples), signal):
        return None
    try:
        plain: JSON = to_plain(signal)
    except PolicyError:
        # Of a class that is not registered: its values can be replayed, and a fit says that nothing else can.
        return None
    return plain


def temperature_of(row: Row) -> float | None:
    """The temperature that a row's samples were drawn at; None where it was not recorded."""
    found = row.edge.extra.get("temperature")
    return float(found) if isinstance(found, (int, float)) and found > 0 else None


def _drawn_at(signal: Any, temperature: float | None) -> Signal:
    """A signal of samples with the temperature that the samples it is measured on were drawn at."""
    entry = entry_of(signal)
    if temperature is not None and entry is not None and entry.per_samples:
        signal = replace(signal, temperature=temperature)
    made: Signal = signal
    return made


def _stepwise(signal: Any) -> Signal:
    """One sample at a time: it changes what a signal costs, not what it measures."""
    steps = {"step": 1} if any(one.name == "step" for one in fields(signal)) else {}
    made: Signal = replace(signal, **steps)
    return made


def _same_measure(first: Any, second: Any) -> bool:
    """Whether two signals differ in how samples are drawn at most."""
    if type(first) is not type(second):
        return False
    drawing = {one.name for one in fields(first)} & {"step", "temperature"}
    same: bool = replace(first, **{name: getattr(second, name) for name in drawing}) == second
    return same


def live_signals(rows: Sequence[Row], *, samples: int) -> dict[str, Signal | str]:
    """What measures each recorded column on new calls too, or why nothing does.

    Parameters
    ----------
    rows : sequence of Row
    samples : int
        How many the columns were measured by.

    Returns
    -------
    dict of str to Signal or str
        A signal that draws samples draws them one at a time, at the temperature of the recorded ones. A text says why a
        column can be replayed only.

    Examples
    --------
    >>> from confroute.recording import Side
    >>> row = Row(id="a", edge=Side(text="7"), signals={"token_entropy": 0.5, "mine": 0.1})
    >>> live_signals([row], samples=0)
    {'token_entropy': TokenEntropy(...), 'mine': 'no signal is known that measures it on new calls'}
    """
    told: dict[str, list[JSON]] = {}
    for row in rows:
        for name, plain in row.measured_by.items():
            if plain not in told.setdefault(name, []):
                told[name].append(plain)
    temperatures = {temperature_of(row) for row in rows if row.edge.samples}
    temperature = temperatures.pop() if len(temperatures) == 1 else None
    names = dict.fromkeys(name for row in rows for name in row.signals)
    return {name: _live(name, told.get(name, []), samples, temperature) for name in names}


def _live(name: str, told: Sequence[JSON], samples: int, temperature: float | None) -> Signal | str:
    if len(told) > 1:
        return "its rows were measured with different settings"
    if told:
        try:
            return _stepwise(from_plain(told[0]))
        except PolicyError as error:
            return f"what measured it cannot be made here ({error})"
    if name not in columns():
        return "no signal is known that measures it on new calls"
    count = max(LEAST_SAMPLES, samples)
    return _stepwise(_drawn_at(columns()[name].column(name, count), temperature))


def column_of(signal: Signal, row: Row | None = None) -> str:
    """The column of a recorded row that holds a signal, else the signal's name.

    Examples
    --------
    >>> from confroute import TokenLogprob
    >>> column_of(TokenLogprob(statistic="max"))
    'token_logprob.max'
    """
    if row is not None and row.measured_by and entry_of(signal) is not None:
        for name, plain in row.measured_by.items():
            if _is_told(signal, plain):
                return name
    count = getattr(signal, "n", LEAST_SAMPLES)
    known = (
        name
        for name, entry in columns().items()
        if entry.known is type(signal) and _same_measure(entry.column(name, count), signal)
    )
    return next(known, signal.name)


def _is_told(signal: Signal, plain: JSON) -> bool:
    entry = entry_of(signal)
    if entry is None or not isinstance(plain, dict) or plain.get("class") != entry.name:
        return False
    return _same_measure(from_plain(plain), signal)


def _option(row: Row) -> float | None:
    """From every option's log-probability as the first token; None where that token was not the chosen one."""
    options, chosen = row.edge.extra.get("options"), row.edge.answer
    if not isinstance(options, dict) or not isinstance(chosen, str) or row.edge.error is not None:
        return None
    begun = row.edge.tokens[0] if row.edge.tokens else option_in((row.edge.text or "")[:2])
    return option_doubt(_numbers(options), chosen) if begun and begun.strip() == chosen else None


def _numbers(options: Mapping[str, JSON]) -> dict[str, float]:
    known = ((name, value) for name, value in options.items() if not isinstance(value, bool))
    return {name: float(value) for name, value in known if isinstance(value, (int, float))}
