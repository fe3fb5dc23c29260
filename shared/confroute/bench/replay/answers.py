"""Routers that look at the edge's answer first: signals of a recorded run, combinations of them, early stopping."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from confroute.bench._arrays import Array
from confroute.bench.replay.costs import Ranked, Stepped
from confroute.errors import CalibrationError
from confroute.fitting.choice import LEAST_TO_COMBINE, chosen, uncertainty_of
from confroute.fitting.rates import Rates
from confroute.fitting.recorded import signal_of
from confroute.fitting.replay import replay
from confroute.fitting.table import Table
from confroute.policy import Cascade, Gate, Threshold
from confroute.recording import Row
from confroute.recording.probes import fit_probe
from confroute.signals import SelfConsistency, TokenLogprob

PROBE = "probe of hidden states"
_FOLDS = 5
_DROPOUT = "mc_dropout@"
_LOGPROB = "token_logprob.mean"
# Centres and half-width, in ranks, of the grey zones of the two-step policy.
_CENTRES = tuple(at / 10 for at in range(1, 10))
_HALF_WIDTH = 0.25


def sent_first(uncertainty: Array) -> Array:
    """Uncertainties with calls that were not measured above all others, as a policy sends them to the cloud."""
    known = uncertainty[np.isfinite(uncertainty)]
    return np.nan_to_num(uncertainty, nan=float(known.max()) + 1, posinf=float(known.max()) + 1)


def columns_of(table: Table) -> list[str]:
    """Signals that were measured on half of the calls at least; of several that say the same, the first."""
    found: dict[str, Array] = {}
    for name in table.columns:
        values = table.signal(name)
        # Of answers of one token, the mean, the maximum and every quantile are one number.
        same = any(np.array_equal(values, other, equal_nan=True) for other in found.values())
        if np.isfinite(values).mean() >= 0.5 and not same:
            found[name] = values
    return [*found]


def samples_of(table: Table, column: str) -> Array | None:
    """What a signal costs beyond the draft, USD by row; None for nothing."""
    if column.startswith(_DROPOUT):
        return _passes(table)
    draws = getattr(signal_of(column, table.drawn), "n", 0) > 0
    return table.samples["usd"] if draws and table.drawn else None


def _passes(table: Table) -> Array | None:
    """Monte Carlo dropout by the seconds that it added to the draft's, for one of the recorded rates."""
    rates = {
        name.removeprefix(_DROPOUT).rpartition(".")[0] for name in table.columns if name.startswith(_DROPOUT)
    }
    ratios = [_added(row) for row in table.rows]
    if None in ratios:
        return None
    return np.asarray(table.draft["usd"] * np.array(ratios, dtype=np.float64) / len(rates))


def _added(row: Row) -> float | None:
    seconds = row.extra.get("latency_s")
    if not isinstance(seconds, Mapping):
        return None
    draft, score = seconds.get("draft"), seconds.get("score")
    if not isinstance(draft, (int, float)) or not isinstance(score, (int, float)) or draft <= 0:
        return None
    return score / draft


def with_probe(table: Table, folder: Path) -> Table:
    """The table with a probe of the recorded hidden states as a column, out of fold; unchanged where there are none.

    Raises
    ------
    CalibrationError
        States of too few rows.
    """
    if not any(isinstance(row.extra.get("hidden"), Mapping) for row in table.rows):
        return table
    fitted = fit_probe(table.rows, folder)
    return with_column(table, PROBE, dict(zip(fitted.ids, fitted.out_of_fold.tolist(), strict=True)))


def with_column(table: Table, name: str, values: Mapping[str, float]) -> Table:
    """The table with one more column, by row id."""
    rows = tuple(replace(row, signals={**row.signals, name: values.get(row.id)}) for row in table.rows)
    return replace(table, rows=rows)


def single(table: Table) -> Iterator[Ranked]:
    """Every signal alone."""
    for name in columns_of(table):
        scores = sent_first(table.signal(name))
        yield Ranked(name=name, kind="answer", scores=scores, samples_usd=samples_of(table, name))


def combined(table: Table, name: str, columns: Sequence[str]) -> Iterator[Ranked]:
    """The best combination of some columns, its choice of signals included fitted on the other folds."""
    if table.n * (_FOLDS - 1) // _FOLDS < LEAST_TO_COMBINE or len(columns) < 2:
        return
    fold = np.random.default_rng(0).permutation(table.n) % _FOLDS
    scores = np.empty(table.n)
    for held in range(_FOLDS):
        apart = fold == held
        choice = chosen(table.part(~apart), combine=True, columns=columns)
        scores[apart] = uncertainty_of(choice, table.part(apart))
    # Which members a fold chose differs: all are billed.
    bills = [bill for column in columns if (bill := samples_of(table, column)) is not None]
    spent = np.max(bills, axis=0) if bills else None
    yield Ranked(name=name, kind="answer", scores=sent_first(scores), samples_usd=spent)


def combinations(table: Table, heads: str | None) -> Iterator[Ranked]:
    """Combinations of what the draft alone shows, of that and samples, and of both with a head's score of the prompt."""
    columns = [name for name in columns_of(table) if name != heads]
    free = [name for name in columns if samples_of(table, name) is None]
    yield from combined(table, "combination, draft only", free)
    if len(free) < len(columns):
        yield from combined(table, "combination, samples too", columns)
    if heads is not None:
        yield from combined(table, "combination, draft and prompt", [*free, heads])


def stopping(table: Table, rates: Rates, say: Callable[[str], None]) -> Iterator[Stepped]:
    """Self-consistency that stops drawing once no further sample can change the decision, alone and in a grey zone."""
    n = table.drawn
    if n < 2 or not all(row.edge.text is not None for row in table.rows if row.edge.error is None):
        return
    votes = [Threshold(value=(k + 0.5) / n) for k in range(n)]
    agree = SelfConsistency(n=n)
    yield _stepped(
        f"self-consistency of {n}, stops early",
        table,
        [Cascade(gates=(Gate(signal=agree, threshold=vote),)) for vote in votes],
        rates,
    )
    if _LOGPROB not in columns_of(table):
        say("no log-probabilities: no two-step policy")
        return
    u = table.signal(_LOGPROB)
    u = u[np.isfinite(u)]
    gates = []
    for centre in _CENTRES:
        ends = [max(0.0, centre - _HALF_WIDTH), centre, min(1.0, centre + _HALF_WIDTH)]
        low, middle, high = np.quantile(u, ends).tolist()
        first = Gate(signal=TokenLogprob(), threshold=Threshold(value=middle), grey=(low, high))
        gates.append((first, Gate(signal=agree, threshold=Threshold(value=0.5))))
    policies = [Cascade(gates=both) for both in gates]
    yield _stepped("log-probability, then samples where it is grey", table, policies, rates)


def _stepped(name: str, table: Table, policies: Sequence[Cascade], rates: Rates) -> Stepped:
    never, always = np.zeros((1, table.n), dtype=bool), np.ones((1, table.n), dtype=bool)
    sent, usd = [never, always], [table.draft["usd"][None, :]] * 2
    for policy in policies:
        outcomes = replay(policy, table.rows, rates=rates)
        if any(one.failed for one in outcomes):
            msg = f"{name}: {sum(one.failed for one in outcomes)} recorded calls ended in an error of both models"
            raise CalibrationError(msg)
        went = np.array([[one.cloud for one in outcomes]])
        total = np.array([[one.bill.usd for one in outcomes]])
        sent.append(went)
        usd.append(total - went * table.cloud["usd"])
    return Stepped(name=name, sent=np.concatenate(sent), edge_usd=np.concatenate(usd))
