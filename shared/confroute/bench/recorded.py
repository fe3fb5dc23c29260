"""A recorded run on the replay's axes: routers that read the prompt and routers that read the answer, at total cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from confroute.bench import methods
from confroute.bench.costs import AtCost, Calls, Ranked, Router, Stepped, at_equal_cost
from confroute.bench.data import Benchmark
from confroute.bench.material import embedded
from confroute.bench.protocol import Result, measure
from confroute.errors import CalibrationError
from confroute.fitting.choice import LEAST_TO_COMBINE, chosen, uncertainty_of
from confroute.fitting.rates import Rates, tokens
from confroute.fitting.replay import replay
from confroute.fitting.table import Table, table_of
from confroute.heads import FEATURES, MLP, MatrixFactorisation, NearestNeighbours, Ridge, SimilarityRanking
from confroute.heads.base import Head, Vectors
from confroute.heads.encoder import Encoder
from confroute.policy import Cascade, Gate, Threshold
from confroute.recording import RecordError, Row
from confroute.recording.probes import fit_probe
from confroute.signals import SelfConsistency, TokenLogprob
from confroute.stats.arrays import Array
from confroute.types import JSON

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
    draws = getattr(table.signal_of(column), "n", 0) > 0
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


Fit: TypeAlias = "Callable[[Vectors, Array], Head]"
LEAST_ROWS = 50
RANDOM, LENGTH, RIDGE = "random", "prompt length", "ridge, features too"
_NEIGHBOURS, _PENALTY = 50, 3e3


def untrained(prompts: Sequence[str], n: int) -> Iterator[Ranked]:
    """Mixing at random and, where prompts were recorded, their length."""
    yield Ranked(name=RANDOM, kind="query", scores=np.zeros(n))
    if all(prompts):
        lengths = np.array([len(prompt) for prompt in prompts], dtype=np.float64)
        yield Ranked(name=LENGTH, kind="query", scores=lengths)


def crossfitted(vectors: Vectors, calls: Calls, *, seed: int = 0) -> Iterator[Ranked]:
    """Heads on the prompts' embeddings, each call scored by one that was trained on the other folds.

    Parameters
    ----------
    vectors : array of float32, shape (n, dim)
        The embedding, with the cheap features behind it.
    calls : Calls
        50 or more.
    seed : int
        Of the five folds.

    Notes
    -----
    In-domain and so the best that a head can hope for: it learns from answers of these very models to questions of the same
    kind. kNN, SW, MF and MLP learn which answer was better (as the confidence-driven router and RouteLLM do), the
    "TO-Router-style" ones whether the edge is wrong.
    """
    dim = vectors.shape[1] - len(FEATURES)
    better, wrong = (1 + calls.cloud - calls.edge) / 2, 1 - calls.edge
    fold = np.random.default_rng(seed).permutation(calls.n) % _FOLDS
    for name, fit, part, labels in _trainings(dim, better, wrong):
        scores = np.empty(calls.n)
        for held in range(_FOLDS):
            apart = fold == held
            head = fit(vectors[~apart][:, part], labels[~apart])
            scores[apart] = head.estimate(vectors[apart][:, part]).cloud_wins
        yield Ranked(name=name, kind="query", scores=scores)


def together(heads: Sequence[Ranked]) -> Ranked:
    """The mean of some heads that learnt which answer was better, whose scores are estimates of one number."""
    scores = [head.scores for head in heads if head.name in (RIDGE, "kNN", "MLP")]
    return Ranked(name="mean of ridge, kNN and MLP", kind="query", scores=np.mean(scores, axis=0))


def _trainings(dim: int, better: Array, wrong: Array) -> Iterator[tuple[str, Fit, slice, Array]]:
    """Name, fit, columns and labels of every head, the quick ones first."""
    embedding, features, both = slice(0, dim), slice(dim, None), slice(None)
    yield "cheap features", lambda x, y: Ridge.fit(x, y, penalty=100.0), features, better
    yield RIDGE, lambda x, y: Ridge.fit(x, y, penalty=_PENALTY), both, better
    yield f"{RIDGE}, edge wrong", lambda x, y: Ridge.fit(x, y, penalty=_PENALTY), both, wrong
    fits: Mapping[str, Fit] = {
        "kNN": lambda x, y: NearestNeighbours.fit(x, y, k=min(_NEIGHBOURS, len(x) // 4)),
        "SW": SimilarityRanking.fit,
        "MLP": lambda x, y: MLP.fit(x, y, epochs=8),
        "MF": MatrixFactorisation.fit,
    }
    for name, fit in fits.items():
        yield name, fit, embedding, better
    for name in ("kNN", "MLP"):
        yield f"TO-Router-style {name}", fits[name], embedding, wrong


Say = Callable[[str], None]
# Where no price is known: so many cloud calls are counted.
_UNITS = "cloud calls"
_HEAD = "prompt head"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedReplay:
    """All routers on one recorded run.

    Attributes
    ----------
    bench : Benchmark
        Costs of one answer of each model; drafts and samples are in the results.
    results : tuple of Result
        Over the share of cloud calls, for routers that rank calls.
    costs : tuple of AtCost
        Over total cost, for these and for those that stop early.
    notes : tuple of str
        How costs are known, and what was not measured.
    """

    bench: Benchmark
    results: tuple[Result, ...]
    costs: tuple[AtCost, ...]
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, JSON]:
        """What ``--json`` prints of it."""
        told: dict[str, dict[str, JSON]] = {result.name: result.to_dict() for result in self.results}
        for one in self.costs:
            told.setdefault(one.name, {}).update(one.to_dict())
        return {"n": self.bench.n, "methods": dict(told), "notes": list(self.notes)}


def replay_recorded(
    rows: Sequence[Row],
    *,
    name: str,
    folder: Path | None = None,
    rates: Rates | None = None,
    encoder: Encoder | None = None,
    cache: Path | None = None,
    resamples: int = 1000,
    say: Say = lambda _: None,
) -> RecordedReplay:
    """Measure every router that the rows allow.

    Parameters
    ----------
    rows : sequence of Row
        Rows whose edge or cloud is ungraded are left out.
    name : str
        Of the data, for the tables.
    folder : Path, optional
        Where the run stands, for its hidden states; without it no probe is fitted.
    rates : Rates, optional
        Prices of calls that recorded none.
    encoder : Encoder, optional
        With features, for heads on the prompts; without it none are trained.
    cache : Path, optional
        Folder of embeddings; needed with `encoder`.
    resamples : int
        Of the bootstrap.
    say : callable
        Told progress.

    Returns
    -------
    RecordedReplay
        Costs are the recorded `cost_usd`, else tokens by `rates`, a cloud whose tokens were not counted being billed for
        as many as the edge; where that fails too, a cloud call counts 1 and the edge nothing.

    Raises
    ------
    RecordError
        No row with both grades, or a cloud that is on average no better than the edge.
    """
    priced, at, notes = _priced(_graded(rows), rates or Rates())
    table = table_of(priced, rates=at)
    calls = _calls(table)
    prompts = tuple(row.question for row in table.rows)
    bench = Benchmark(
        name=name,
        prompts=prompts,
        weak=calls.edge,
        strong=calls.cloud,
        weak_usd=calls.edge_usd,
        strong_usd=calls.cloud_usd,
        dropped=len(rows) - table.n,
    )
    heads = [*untrained(prompts, table.n), *_heads(bench, calls, encoder, cache, say)]
    routers: list[Router] = [Ranked(name="oracle", kind="reference", scores=calls.cloud - calls.edge)]
    routers += [*heads, *_answered(table, heads, folder, at, say)]
    ranked = [router for router in routers if isinstance(router, Ranked)]
    notes += [
        f"{column} was measured on {known} of {table.n} calls: the others go to the cloud first"
        for column in columns_of(table)
        if (known := int(np.isfinite(table.signal(column)).sum())) < table.n
    ]
    say(f"{name}: intervals")
    return RecordedReplay(
        bench=bench,
        results=tuple(_result(router, bench, calls, resamples) for router in ranked),
        costs=tuple(at_equal_cost(calls, routers, resamples=resamples)),
        notes=tuple(notes),
    )


def _calls(table: Table) -> Calls:
    calls = Calls(
        edge=table.edge_quality,
        cloud=table.cloud_quality,
        edge_usd=table.draft["usd"],
        cloud_usd=table.cloud["usd"],
    )
    if calls.cloud.mean() <= calls.edge.mean():
        msg = f"{table.n} rows have both grades (edge {calls.edge.mean():.3f}, cloud {calls.cloud.mean():.3f}): expected a better cloud"
        raise RecordError(msg)
    return calls


def _graded(rows: Sequence[Row]) -> list[Row]:
    graded = [row for row in rows if row.cloud is not None and row.cloud.quality is not None]
    if not any(row.edge.quality is not None for row in graded):
        msg = f"0 of {len(rows)} rows have both grades: grade both answers before comparing routers"
        raise RecordError(msg)
    return graded


def _priced(rows: Sequence[Row], rates: Rates) -> tuple[list[Row], Rates, list[str]]:
    """Rows whose costs are known, the rates that make them so, and a sentence on how."""
    notes = ["Costs are those that the run recorded."]
    found, borrowed = [], 0
    for row in rows:
        cloud = row.cloud
        assert cloud is not None
        if cloud.cost_usd is None and tokens(cloud) is None and rates.cloud is not None:
            cloud, borrowed = replace(cloud, usage=row.edge.usage), borrowed + 1
        found.append(replace(row, cloud=cloud))
    table = table_of(found, rates=rates)
    if np.isfinite(table.draft["usd"]).all() and np.isfinite(table.cloud["usd"]).all():
        if rates.edge is not None or rates.cloud is not None:
            notes = ["Costs are recorded ones, else tokens by the prices given."]
        if borrowed:
            notes.append(
                f"{borrowed} cloud answers without a token count are billed for as many tokens as the edge's."
            )
        return found, rates, notes
    free = [
        replace(row, edge=replace(row.edge, cost_usd=0.0), cloud=replace(row.cloud, cost_usd=1.0))
        for row in rows
        if row.cloud is not None
    ]
    return (
        free,
        Rates(),
        [f"Costs are not known, so that cost counts {_UNITS}: give --edge-price and --cloud-price."],
    )


def _heads(
    bench: Benchmark, calls: Calls, encoder: Encoder | None, cache: Path | None, say: Say
) -> Iterator[Ranked]:
    if encoder is None or cache is None or not all(bench.prompts) or bench.n < LEAST_ROWS:
        return
    vectors = embedded(encoder, bench.prompts, cache, progress=say)
    found = []
    for head in crossfitted(vectors, calls):
        say(f"{bench.name}: {head.name}")
        found.append(head)
        yield head
    yield together(found)


def _answered(
    table: Table, heads: Sequence[Ranked], folder: Path | None, rates: Rates, say: Say
) -> Iterator[Router]:
    if folder is not None:
        say("probe of hidden states, if any were recorded")
        table = with_probe(table, folder)
    yield from single(table)
    head = next((head for head in heads if head.name == RIDGE), None)
    if head is not None:
        ids = [row.id for row in table.rows]
        table = with_column(table, _HEAD, dict(zip(ids, head.scores.tolist(), strict=True)))
    say("combinations, early stopping")
    yield from combinations(table, None if head is None else _HEAD)
    yield from stopping(table, rates, say)


def _result(router: Ranked, bench: Benchmark, calls: Calls, resamples: int) -> Result:
    """A router over the share of cloud calls, with what its calls cost."""
    if router.kind == "answer":
        kept: Array = calls.edge_usd if router.samples_usd is None else calls.edge_usd + router.samples_usd
        bench = replace(bench, weak_usd=kept, strong_usd=kept + calls.cloud_usd)
    scores = router.scores
    if router.name == RANDOM:
        # By RouteLLM's protocol random draws, which ten bins need.
        scores = next(drawn for name, drawn in methods.without_training(bench) if name == router.name)
    in_domain = router.kind == "query" and router.name not in (RANDOM, LENGTH)
    return measure(router.name, scores, bench, resamples=resamples, in_domain=in_domain)


def by_kind(costs: Sequence[AtCost]) -> Mapping[str, AtCost]:
    """The best router of each kind at equal total cost."""
    return {one.kind: one for one in sorted(costs, key=lambda one: one.area.value)}
