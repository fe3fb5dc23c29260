"""Compares routers on a recorded run at equal total cost: those that read the prompt, and those that read the answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from confroute.bench import methods
from confroute.bench.costs import Calls, CostResult, RankingRouter, Router, SteppedRouter, at_equal_cost
from confroute.bench.data import Benchmark
from confroute.bench.material import embed_cached
from confroute.bench.protocol import Result, measure
from confroute.errors import CalibrationError
from confroute.fitting.choice import LEAST_TO_COMBINE, chosen, uncertainty_of
from confroute.fitting.rates import Rates, tokens
from confroute.fitting.replay import replaying
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

Say: TypeAlias = Callable[[str], None]
Fit: TypeAlias = "Callable[[Vectors, Array], Head]"

# Names of routers and columns.
RANDOM, LENGTH, RIDGE = "random", "prompt length", "ridge, features too"
PROBE = "probe of hidden states"
AGREEMENT = "a second answer agrees"
GREY_ZONE = "log-probability, then samples where it is grey"
DRAFT_ONLY, SAMPLES_TOO, WITH_PROMPT = (
    f"combination, {reads}" for reads in ("draft only", "samples too", "draft and prompt")
)
SELF_CONSISTENCY = "self-consistency of {}, stops early"
_HEAD = "prompt head"
_DROPOUT = "mc_dropout@"
LOGPROB = "token_logprob.mean"
# The unit of cost if no price is known.
_UNITS = "cloud calls"

MIN_ROWS = 50
_FOLDS = 5
_NEIGHBOURS, _PENALTY = 50, 3e3
# Centres and half-width, in ranks, of the grey zones of the two-step policy.
_CENTRES = tuple(at / 10 for at in range(1, 10))
_HALF_WIDTH = 0.25


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RecordedReplay:
    """Results of all routers on one recorded run.

    Attributes
    ----------
    bench : Benchmark
        Its costs are those of one answer of each model; the results include drafts and samples.
    results : tuple of Result
        Routers that rank calls, over the share of cloud calls.
    costs : tuple of CostResult
        These and the routers that stop early, over total cost.
    notes : tuple of str
        Where the costs come from, and what could not be measured.
    """

    bench: Benchmark
    results: tuple[Result, ...]
    costs: tuple[CostResult, ...]
    notes: tuple[str, ...] = field(default=())

    def to_dict(self) -> dict[str, JSON]:
        """Return the JSON that ``--json`` prints."""
        by_router: dict[str, dict[str, JSON]] = {result.name: result.to_dict() for result in self.results}
        for cost in self.costs:
            by_router.setdefault(cost.name, {}).update(cost.to_dict())
        return {"n": self.bench.n, "methods": dict(by_router), "notes": list(self.notes)}


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
    """Measure every router that the recorded rows allow.

    Parameters
    ----------
    rows : sequence of Row
        Rows without a grade of the edge or the cloud are left out.
    name : str
        Name of the data in tables.
    folder : Path, optional
        Folder of the run, for its hidden states; without it no probe is fitted.
    rates : Rates, optional
        Prices for calls without a recorded cost.
    encoder : Encoder, optional
        With features, to train heads on the prompts; without it no heads are trained.
    cache : Path, optional
        Folder of embeddings; needed with `encoder`.
    resamples : int
        Number of bootstrap resamples.
    say : callable
        Called with lines of progress.

    Returns
    -------
    RecordedReplay
        Costs are the recorded `cost_usd`, else tokens by `rates`, where a cloud answer without a token count is billed for
        as many tokens as the edge's. If costs are still unknown, a cloud call counts 1 and the edge 0.

    Raises
    ------
    RecordError
        No row has both grades, or on average the cloud is not better than the edge.
    """
    priced, used_rates, notes = _with_costs(_graded(rows), rates or Rates())
    table = table_of(priced, rates=used_rates)
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
    heads = [*untrained_routers(prompts, table.n), *_head_routers(bench, calls, encoder, cache, say)]
    routers: list[Router] = [RankingRouter(name="oracle", kind="reference", scores=calls.cloud - calls.edge)]
    routers += [*heads, *_answer_routers(table, heads, folder, used_rates, say)]
    ranking = [router for router in routers if isinstance(router, RankingRouter)]
    notes += [
        f"{column} can keep {known} of {table.n} drafts: the others were not measured or are not whole, and go to the cloud first"
        for column in usable_columns(table)
        if (known := int(np.isfinite(table.signal(column)).sum())) < table.n
    ]
    notes += [_caught(router, calls) for router in routers if router.name == AGREEMENT]
    say(f"{name}: intervals")
    return RecordedReplay(
        bench=bench,
        results=tuple(_result(router, bench, calls, resamples) for router in ranking),
        costs=tuple(at_equal_cost(calls, routers, resamples=resamples)),
        notes=tuple(notes),
    )


def _caught(router: Router, calls: Calls) -> str:
    """How many calls a second answer sends to the cloud, and how many of the edge's errors are among them."""
    assert isinstance(router, SteppedRouter)
    # Its settings are always-edge, always-cloud and the rule itself.
    _, _, sent = router.sent
    lost = 1 - calls.edge
    return (
        f"A second answer differs on {sent.mean():.0%} of the calls, where {lost[sent].sum() / lost.sum():.0%} of the quality "
        "that the edge loses is lost."
    )


def by_kind(costs: Sequence[CostResult]) -> Mapping[str, CostResult]:
    """The best router of each kind at equal total cost."""
    return {cost.kind: cost for cost in sorted(costs, key=lambda cost: cost.area.value)}


def _result(router: RankingRouter, bench: Benchmark, calls: Calls, resamples: int) -> Result:
    """Measure a router over the share of cloud calls, with the cost of its drafts and samples."""
    if router.kind == "answer":
        kept: Array = calls.edge_usd if router.samples_usd is None else calls.edge_usd + router.samples_usd
        bench = replace(bench, weak_usd=kept, strong_usd=kept + calls.cloud_usd)
    scores = router.scores
    if router.name == RANDOM:
        # RouteLLM's protocol with ten bins needs random scores, not equal ones.
        scores = next(scores for name, scores in methods.without_training(bench) if name == router.name)
    in_domain = router.kind == "query" and router.name not in (RANDOM, LENGTH)
    return measure(router.name, scores, bench, resamples=resamples, in_domain=in_domain)


# Grades and costs


def _graded(rows: Sequence[Row]) -> list[Row]:
    """Rows with a grade of the cloud, of which some have one of the edge too."""
    graded = [row for row in rows if row.cloud is not None and row.cloud.quality is not None]
    if not any(row.edge.quality is not None for row in graded):
        msg = f"0 of {len(rows)} rows have both grades: grade both answers before comparing routers"
        raise RecordError(msg)
    return graded


def _with_costs(rows: Sequence[Row], rates: Rates) -> tuple[list[Row], Rates, list[str]]:
    """Rows with known costs, the rates to compute them by, and sentences on where they come from."""
    notes = ["Costs are those that the run recorded."]
    billable, borrowed = [], 0
    for row in rows:
        cloud = row.cloud
        assert cloud is not None
        if cloud.cost_usd is None and tokens(cloud) is None and rates.cloud is not None:
            cloud, borrowed = replace(cloud, usage=row.edge.usage), borrowed + 1
        billable.append(replace(row, cloud=cloud))
    table = table_of(billable, rates=rates)
    if np.isfinite(table.draft["usd"]).all() and np.isfinite(table.cloud["usd"]).all():
        if rates.edge is not None or rates.cloud is not None:
            notes = ["Costs are recorded ones, else tokens by the prices given."]
        if borrowed:
            notes.append(
                f"{borrowed} cloud answers without a token count are billed for as many tokens as the edge's."
            )
        return billable, rates, notes
    counted = [
        replace(row, edge=replace(row.edge, cost_usd=0.0), cloud=replace(row.cloud, cost_usd=1.0))
        for row in rows
        if row.cloud is not None
    ]
    return (
        counted,
        Rates(),
        [f"Costs are not known, so that cost counts {_UNITS}: give --edge-price and --cloud-price."],
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


# Routers that read the prompt


def untrained_routers(prompts: Sequence[str], n: int) -> Iterator[RankingRouter]:
    """Yield random mixing and, if prompts were recorded, their length."""
    yield RankingRouter(name=RANDOM, kind="query", scores=np.zeros(n))
    if all(prompts):
        lengths = np.array([len(prompt) for prompt in prompts], dtype=np.float64)
        yield RankingRouter(name=LENGTH, kind="query", scores=lengths)


def _head_routers(
    bench: Benchmark, calls: Calls, encoder: Encoder | None, cache: Path | None, say: Say
) -> Iterator[RankingRouter]:
    if encoder is None or cache is None or not all(bench.prompts) or bench.n < MIN_ROWS:
        return
    vectors = embed_cached(encoder, bench.prompts, cache, progress=say)
    heads = []
    for head in crossfit_heads(vectors, calls):
        say(f"{bench.name}: {head.name}")
        heads.append(head)
        yield head
    yield mean_of_heads(heads)


def crossfit_heads(vectors: Vectors, calls: Calls, *, seed: int = 0) -> Iterator[RankingRouter]:
    """Train heads on the prompts' embeddings, and score each call by heads that were trained on the other folds.

    Parameters
    ----------
    vectors : array of float32, shape (n, dim)
        The embeddings, followed by the cheap features.
    calls : Calls
        50 or more.
    seed : int
        Seed of the five folds.

    Notes
    -----
    These heads are in-domain, and so the best that can be hoped for: they learn from answers of these very models to
    questions of the same kind. kNN, SW, MF and MLP learn which answer was better (as in the confidence-driven router and
    RouteLLM), the "TO-Router-style" ones whether the edge is wrong.
    """
    dim = vectors.shape[1] - len(FEATURES)
    better, wrong = (1 + calls.cloud - calls.edge) / 2, 1 - calls.edge
    fold = np.random.default_rng(seed).permutation(calls.n) % _FOLDS
    for name, fit, columns, labels in _trainings(dim, better, wrong):
        scores = np.empty(calls.n)
        for number in range(_FOLDS):
            held_out = fold == number
            head = fit(vectors[~held_out][:, columns], labels[~held_out])
            scores[held_out] = head.estimate(vectors[held_out][:, columns]).cloud_wins
        yield RankingRouter(name=name, kind="query", scores=scores)


def _trainings(dim: int, better: Array, wrong: Array) -> Iterator[tuple[str, Fit, slice, Array]]:
    """Name, fit, columns and labels of every head, the fast ones first."""
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


def mean_of_heads(heads: Sequence[RankingRouter]) -> RankingRouter:
    """Average the heads that learn which answer is better, whose scores all estimate the same number."""
    scores = [head.scores for head in heads if head.name in (RIDGE, "kNN", "MLP")]
    return RankingRouter(name="mean of ridge, kNN and MLP", kind="query", scores=np.mean(scores, axis=0))


# Routers that read the edge's answer


def _answer_routers(
    table: Table, heads: Sequence[RankingRouter], folder: Path | None, rates: Rates, say: Say
) -> Iterator[Router]:
    if folder is not None:
        say("probe of hidden states, if any were recorded")
        table = with_probe(table, folder)
    yield from single_signals(table)
    head = next((head for head in heads if head.name == RIDGE), None)
    if head is not None:
        ids = [row.id for row in table.rows]
        table = with_column(table, _HEAD, dict(zip(ids, head.scores.tolist(), strict=True)))
    say("combinations, early stopping")
    yield from combinations(table, None if head is None else _HEAD)
    yield from early_stopping(table, rates, say)


def with_probe(table: Table, folder: Path) -> Table:
    """Add the out-of-fold scores of a probe of the recorded hidden states as a column, if there are any.

    Raises
    ------
    CalibrationError
        Too few rows have hidden states.
    """
    if not any(isinstance(row.extra.get("hidden"), Mapping) for row in table.rows):
        return table
    probe = fit_probe(table.rows, folder)
    return with_column(table, PROBE, dict(zip(probe.ids, probe.out_of_fold.tolist(), strict=True)))


def with_column(table: Table, name: str, values: Mapping[str, float]) -> Table:
    """Add a column of values by row id."""
    rows = tuple(replace(row, signals={**row.signals, name: values.get(row.id)}) for row in table.rows)
    column = np.array([values.get(row.id, math.nan) for row in table.rows])
    return replace(table, rows=rows, signals={**table.signals, name: column})


def usable_columns(table: Table) -> list[str]:
    """Names of the signals that were measured on at least half of the calls; of equal ones, only the first."""
    columns: dict[str, Array] = {}
    for name in table.columns:
        values = table.signal(name)
        # For answers of one token the mean, the maximum and every quantile are the same number.
        duplicate = any(np.array_equal(values, other, equal_nan=True) for other in columns.values())
        if np.isfinite(values).mean() >= 0.5 and not duplicate:
            columns[name] = values
    return [*columns]


def unmeasured_first(uncertainty: Array) -> Array:
    """Replace missing uncertainties by one above all others, as policies send unmeasured calls to the cloud."""
    known = uncertainty[np.isfinite(uncertainty)]
    return np.nan_to_num(uncertainty, nan=float(known.max()) + 1, posinf=float(known.max()) + 1)


def extra_cost(table: Table, column: str) -> Array | None:
    """Cost of a signal beyond the draft, in USD per row; None if it costs nothing."""
    if column.startswith(_DROPOUT):
        return _dropout_cost(table)
    samples = getattr(table.signal_of(column), "n", 0) > 0
    return table.samples["usd"] if samples and table.drawn else None


def _dropout_cost(table: Table) -> Array | None:
    """Cost of Monte Carlo dropout at one rate, by the time that it added to the draft's."""
    rates = {
        name.removeprefix(_DROPOUT).rpartition(".")[0] for name in table.columns if name.startswith(_DROPOUT)
    }
    ratios = [_score_time_ratio(row) for row in table.rows]
    if None in ratios:
        return None
    return np.asarray(table.draft["usd"] * np.array(ratios, dtype=np.float64) / len(rates))


def _score_time_ratio(row: Row) -> float | None:
    """Time of scoring the draft over the time of drafting it."""
    seconds = row.extra.get("latency_s")
    if not isinstance(seconds, Mapping):
        return None
    draft, score = seconds.get("draft"), seconds.get("score")
    if not isinstance(draft, (int, float)) or not isinstance(score, (int, float)) or draft <= 0:
        return None
    return score / draft


def single_signals(table: Table) -> Iterator[RankingRouter]:
    """Yield one router per signal."""
    for name in usable_columns(table):
        scores = unmeasured_first(table.signal(name))
        yield RankingRouter(name=name, kind="answer", scores=scores, samples_usd=extra_cost(table, name))


def combinations(table: Table, head: str | None) -> Iterator[RankingRouter]:
    """Yield combinations of signals of the draft alone, of those and samples, and of those and a head's score."""
    columns = [name for name in usable_columns(table) if name != head]
    free = [name for name in columns if extra_cost(table, name) is None]
    yield from cross_fitted_combination(table, DRAFT_ONLY, free)
    if len(free) < len(columns):
        yield from cross_fitted_combination(table, SAMPLES_TOO, columns)
    if head is not None:
        yield from cross_fitted_combination(table, WITH_PROMPT, [*free, head])


def cross_fitted_combination(table: Table, name: str, columns: Sequence[str]) -> Iterator[RankingRouter]:
    """Yield the best combination of some columns, selected and fitted on the other folds; none if rows are too few."""
    if table.n * (_FOLDS - 1) // _FOLDS < LEAST_TO_COMBINE or len(columns) < 2:
        return
    fold = np.random.default_rng(0).permutation(table.n) % _FOLDS
    scores = np.empty(table.n)
    for number in range(_FOLDS):
        held_out = fold == number
        choice = chosen(table.part(~held_out), combine=True, columns=columns)
        scores[held_out] = uncertainty_of(choice, table.part(held_out))
    # Folds may select different signals: all are billed.
    costs = [cost for column in columns if (cost := extra_cost(table, column)) is not None]
    samples_usd = np.max(costs, axis=0) if costs else None
    yield RankingRouter(name=name, kind="answer", scores=unmeasured_first(scores), samples_usd=samples_usd)


def early_stopping(table: Table, rates: Rates, say: Say) -> Iterator[SteppedRouter]:
    """Yield one further answer, self-consistency that stops once no sample can change the decision, and that in a grey zone."""
    n = table.drawn
    if n < 2 or not all(row.edge.text is not None for row in table.rows if row.edge.error is None):
        return
    second = Gate(signal=SelfConsistency(n=1), threshold=Threshold(value=0.5))
    yield _stepped(AGREEMENT, table, [Cascade(gates=(second,))], rates)
    votes = [Threshold(value=(k + 0.5) / n) for k in range(n)]
    agreement = SelfConsistency(n=n)
    yield _stepped(
        SELF_CONSISTENCY.format(n),
        table,
        [Cascade(gates=(Gate(signal=agreement, threshold=vote),)) for vote in votes],
        rates,
    )
    if LOGPROB not in usable_columns(table):
        say("no log-probabilities: no two-step policy")
        return
    u = table.signal(LOGPROB)
    u = u[np.isfinite(u)]
    gates = []
    for centre in _CENTRES:
        ends = [max(0.0, centre - _HALF_WIDTH), centre, min(1.0, centre + _HALF_WIDTH)]
        low, middle, high = np.quantile(u, ends).tolist()
        first = Gate(signal=TokenLogprob(), threshold=Threshold(value=middle), grey=(low, high))
        gates.append((first, Gate(signal=agreement, threshold=Threshold(value=0.5))))
    policies = [Cascade(gates=both) for both in gates]
    yield _stepped(GREY_ZONE, table, policies, rates)


def _stepped(name: str, table: Table, policies: Sequence[Cascade], rates: Rates) -> SteppedRouter:
    """A router whose settings are always-edge, always-cloud and these policies."""
    never, always = np.zeros((1, table.n), dtype=bool), np.ones((1, table.n), dtype=bool)
    sent, usd = [never, always], [table.draft["usd"][None, :]] * 2
    for policy in policies:
        # A run of others has answers as they were read there, which are compared as they are.
        outcomes = [*replaying(policy, table.rows, rates=rates)]
        if failed := sum(outcome.failed for outcome in outcomes):
            msg = f"{name}: {failed} recorded calls ended in an error of both models: record these rows again, or leave them out"
            raise CalibrationError(msg)
        to_cloud = np.array([[outcome.cloud for outcome in outcomes]])
        total = np.array([[outcome.bill.usd for outcome in outcomes]])
        sent.append(to_cloud)
        usd.append(total - to_cloud * table.cloud["usd"])
    return SteppedRouter(name=name, sent=np.concatenate(sent), edge_usd=np.concatenate(usd))
