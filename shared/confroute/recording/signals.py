"""Signals measured offline, from what a run recorded: no model is called."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TypeAlias

from confroute.asks import Ask, Evidence, Sample
from confroute.decision import Measurement
from confroute.errors import SignalUnavailableError
from confroute.flow import drive
from confroute.recording.extraction import kind_of_row, with_kind
from confroute.recording.rows import Row
from confroute.signals.alphabet_size import AlphabetSize
from confroute.signals.answers import option_in
from confroute.signals.base import Case, Signal
from confroute.signals.cocoa import Cocoa
from confroute.signals.consistency import SelfConsistency
from confroute.signals.coverage_entropy import CoverageEntropy
from confroute.signals.graph import Degree, Eccentricity, EigenvalueSum, KernelEntropy
from confroute.signals.logprob import TokenLogprob
from confroute.signals.option_probability import OptionProbability, option_doubt
from confroute.signals.semantic_entropy import SemanticEntropy
from confroute.signals.token_entropy import TokenEntropy
from confroute.signals.token_margin import TokenMargin
from confroute.types import JSON, Tier

Work: TypeAlias = Callable[[Ask], Evidence]
Build: TypeAlias = Callable[[int], Signal]

OPTION = OptionProbability().name
# Sampling signals refuse fewer than 2; a row with fewer then answers too few of their asks.
_LEAST_SAMPLES = 2

SIGNALS: Mapping[str, Build] = {
    "token_logprob.mean": lambda _n: TokenLogprob(),
    "token_logprob.max": lambda _n: TokenLogprob(statistic="max"),
    "token_logprob.sum": lambda _n: TokenLogprob(statistic="sum"),
    "token_logprob.q50": lambda _n: TokenLogprob(statistic="quantile", quantile=0.5),
    "token_logprob.q75": lambda _n: TokenLogprob(statistic="quantile", quantile=0.75),
    "token_logprob.q90": lambda _n: TokenLogprob(statistic="quantile", quantile=0.9),
    "token_logprob.answer": lambda _n: TokenLogprob(span="answer"),
    "token_entropy": lambda _n: TokenEntropy(),
    "token_margin": lambda _n: TokenMargin(),
    OPTION: lambda _n: OptionProbability(),
    "self_consistency": lambda n: SelfConsistency(n=n, step=n),
    "semantic_entropy": lambda n: SemanticEntropy(n=n, step=n),
    "semantic_entropy.probability": lambda n: SemanticEntropy(n=n, step=n, weighting="probability"),
    "coverage_entropy": lambda n: CoverageEntropy(n=n),
    "alphabet_size": lambda n: AlphabetSize(n=n),
    "kernel_entropy": lambda n: KernelEntropy(n=n),
    "degree": lambda n: Degree(n=n),
    "eccentricity": lambda n: Eccentricity(n=n),
    "eigenvalues": lambda n: EigenvalueSum(n=n),
    "cocoa": lambda n: Cocoa(n=n),
}
"""What can be measured offline, by name: each entry makes the signal for rows of n samples."""


def measured(row: Row, signal: Signal, *, work: Work | None = None) -> Measurement | None:
    """Measure one signal on a recorded row.

    Parameters
    ----------
    row : Row
    signal : Signal
        Its asks for samples are answered from the row's, whatever temperature they were drawn at.
    work : callable, optional
        Answers asks for embeddings and entailment; without it a signal that needs them is not measured.

    Returns
    -------
    Measurement or None
        None where the row does not hold the evidence. Never a low uncertainty instead.

    Examples
    --------
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
    case = Case(tier=tier, question=row.question, draft=draft)
    try:
        return drive(signal.measure(case), lambda ask: _evidence(ask, row, work))
    except SignalUnavailableError:
        return None


def _evidence(ask: Ask, row: Row, work: Work | None) -> Evidence:
    if isinstance(ask, Sample):
        return Evidence(generations=row.edge.further()[ask.drawn : ask.drawn + ask.n])
    if work is None:
        raise SignalUnavailableError("the recorded run does not hold what was asked for")
    return work(ask)


def with_signals(
    row: Row,
    *,
    signals: Mapping[str, Build] = SIGNALS,
    samples: int | None = None,
    work: Work | None = None,
) -> Row:
    """The row with every signal that its evidence allows; recorded values are kept.

    Parameters
    ----------
    row : Row
    signals : mapping of str to callable
        By name, what makes the signal for n samples.
    samples : int, optional
        Use the first so many, 2 or more; rows with fewer are not measured by sampling signals. By default all that
        a row holds: a run should then hold equally many on every row, since entropies of different n do not compare.
    work : callable, optional
        See `measured`.

    Returns
    -------
    Row
        `signals` holds None where a signal could not be measured.

    Examples
    --------
    >>> from confroute.recording import Side
    >>> row = Row(id="a", edge=Side(text="A", answer="A", logprobs=(-0.5,), extra={"options": {"A": -0.5}}))
    >>> found = with_signals(row).signals
    >>> found["token_logprob.mean"], found["option_probability"], found["self_consistency"]
    (0.5, 0.0, None)
    """
    n = max(_LEAST_SAMPLES, len(row.edge.samples) if samples is None else samples)
    kind = kind_of_row(row) or "auto"
    found: dict[str, float | None] = {}
    for name, build in signals.items():
        if row.signals.get(name) is not None:
            found[name] = row.signals[name]
            continue
        measurement = measured(row, with_kind(build(n), kind), work=work)
        found[name] = None if measurement is None else measurement.uncertainty
    of_all = _option(row)
    if OPTION in signals and of_all is not None:
        found[OPTION] = of_all  # of every letter, where the alternatives may lack some
    recorded = {name: value for name, value in row.signals.items() if value is not None or name not in found}
    return replace(row, signals={**found, **recorded})


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
