"""A recorded run on the replay's axes: routers that read the prompt and routers that read the answer, at total cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from confroute.bench._arrays import Array
from confroute.bench.replay import answers, methods, queries
from confroute.bench.replay.costs import AtCost, Calls, Ranked, Router, at_equal_cost
from confroute.bench.replay.data import Benchmark
from confroute.bench.replay.embeddings import embedded
from confroute.bench.replay.protocol import Result, measure
from confroute.fitting.rates import Rates, tokens
from confroute.fitting.table import Table, table_of
from confroute.heads.encoder import Encoder
from confroute.recording import RecordError, Row
from confroute.types import JSON

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
    heads = [*queries.untrained(prompts, table.n), *_heads(bench, calls, encoder, cache, say)]
    routers: list[Router] = [Ranked(name="oracle", kind="reference", scores=calls.cloud - calls.edge)]
    routers += [*heads, *_answered(table, heads, folder, at, say)]
    ranked = [router for router in routers if isinstance(router, Ranked)]
    notes += [
        f"{column} was measured on {known} of {table.n} calls: the others go to the cloud first"
        for column in answers.columns_of(table)
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
    if encoder is None or cache is None or not all(bench.prompts) or bench.n < queries.LEAST_ROWS:
        return
    vectors = embedded(encoder, bench.prompts, cache, progress=say)
    found = []
    for head in queries.crossfitted(vectors, calls):
        say(f"{bench.name}: {head.name}")
        found.append(head)
        yield head
    yield queries.together(found)


def _answered(
    table: Table, heads: Sequence[Ranked], folder: Path | None, rates: Rates, say: Say
) -> Iterator[Router]:
    if folder is not None:
        say("probe of hidden states, if any were recorded")
        table = answers.with_probe(table, folder)
    yield from answers.single(table)
    head = next((head for head in heads if head.name == queries.RIDGE), None)
    if head is not None:
        ids = [row.id for row in table.rows]
        table = answers.with_column(table, _HEAD, dict(zip(ids, head.scores.tolist(), strict=True)))
    say("combinations, early stopping")
    yield from answers.combinations(table, None if head is None else _HEAD)
    yield from answers.stopping(table, rates, say)


def _result(router: Ranked, bench: Benchmark, calls: Calls, resamples: int) -> Result:
    """A router over the share of cloud calls, with what its calls cost."""
    if router.kind == "answer":
        kept: Array = calls.edge_usd if router.samples_usd is None else calls.edge_usd + router.samples_usd
        bench = replace(bench, weak_usd=kept, strong_usd=kept + calls.cloud_usd)
    scores = router.scores
    if router.name == queries.RANDOM:
        # By RouteLLM's protocol random draws, which ten bins need.
        scores = next(drawn for name, drawn in methods.without_training(bench) if name == router.name)
    in_domain = router.kind == "query" and router.name not in (queries.RANDOM, queries.LENGTH)
    return measure(router.name, scores, bench, resamples=resamples, in_domain=in_domain)


def by_kind(costs: Sequence[AtCost]) -> Mapping[str, AtCost]:
    """The best router of each kind at equal total cost."""
    return {one.kind: one for one in sorted(costs, key=lambda one: one.area.value)}
