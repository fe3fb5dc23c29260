"""Runs ``confroute bench replay``, from the folders of data to the results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from confroute.bench import methods
from confroute.bench.candidates import HEAD_CHOICES, LARGER, TUNED
from confroute.bench.data import Benchmark, load_benchmarks
from confroute.bench.material import Material, materials
from confroute.bench.preference import Level, RouterComparison, compare, level
from confroute.bench.protocol import Result, measure
from confroute.bench.training import TrainingSet, load_tasks, load_training_set
from confroute.display import Displayable
from confroute.errors import PolicyError
from confroute.heads.encoder import Encoder
from confroute.types import JSON

Say = Callable[[str], None]
_MIN_IN_DOMAIN = 500


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Replay(Displayable):
    """Results of all methods on one benchmark.

    Attributes
    ----------
    bench : Benchmark
    train : TrainingSet or None
    results : tuple of Result
    comparisons : tuple of RouterComparison
        Our best method against each baseline.
    levels : tuple of Level
        Each method with half of the calls sent to the cloud.
    """

    bench: Benchmark
    train: TrainingSet | None
    results: tuple[Result, ...]
    comparisons: tuple[RouterComparison, ...] = field(default=())
    levels: tuple[Level, ...] = field(default=())

    def __repr__(self) -> str:
        """One line: the benchmark, and the methods from best to worst."""
        ranked = sorted(self.results, key=lambda result: -result.apgr)
        methods = ", ".join(f"{result.name} {result.apgr:.3f}" for result in ranked)
        return f"<Replay of {self.bench.name}, {self.bench.n} prompts, APGR: {methods}>"

    def to_dict(self) -> dict[str, JSON]:
        """Return the JSON that ``--json`` prints."""
        against: dict[str, JSON] = {one.other: one.to_dict() for one in self.comparisons}
        methods: dict[str, JSON] = {result.name: result.to_dict() for result in self.results}
        return {"n": self.bench.n, "methods": methods, "best_against": against}


def replay(
    folder: Path,
    *,
    train: Path | None,
    encoder: Callable[[], Encoder],
    tune: Callable[[TrainingSet], Encoder],
    larger: Callable[[], Encoder],
    cache: Path,
    resamples: int = 1000,
    say: Say = lambda _: None,
) -> dict[str, Replay]:
    """Score and measure every method that the data allow.

    Parameters
    ----------
    folder : Path
        RouteLLM's folder.
    train : Path or None
        Recorded training data; with None only methods without training run.
    encoder : callable
        Makes the encoder, with features; called only if something is trained.
    tune : callable
        Makes an encoder that is tuned on the labels of a training set, such as `tuned_encoder`.
    larger : callable
        Makes a second, larger encoder, with features; called only if a chosen head reads it.
    cache : Path
        Folder of embeddings.
    resamples : int
    say : callable
        Called with lines of progress, and with what is left out.

    Raises
    ------
    PolicyError
        The data are missing or not as expected.
    """
    recorded = load_training_set(train) if train is not None else None
    if train is None or recorded is None:
        say("no training data: only methods without training run (give --train or set CONFROUTE_DATA)")
    elif packages := methods.missing_packages():
        say(f"RouteLLM's own code is left out: {', '.join(packages)} not installed (pip install routellm)")
    benches = load_benchmarks(folder)
    for name, bench in benches.items():
        say(f"{name}: {bench.n} prompts, {bench.dropped} dropped as contaminated")
    material: dict[str, Material] = {}
    if train is not None and recorded is not None:
        embed = encoder()
        if not embed.features:
            msg = f"the encoder {embed.name} has no features: expected encoder(..., features=True)"
            raise PolicyError(msg)
        others = {TUNED: tune}
        if any("mpnet" in HEAD_CHOICES[name].members for name in benches):
            others[LARGER] = lambda _: larger()
        runs = {"mmlu": recorded, **load_tasks(train)}
        material = materials(benches, runs, embed, others, cache=cache, say=say)
    return {
        name: _replay_one(bench, material.get(name), resamples=resamples, say=say)
        for name, bench in benches.items()
    }


def _replay_one(bench: Benchmark, material: Material | None, *, resamples: int, say: Say) -> Replay:
    results = []
    for name, scores in _scores(bench, material):
        say(f"{bench.name}: {name}")
        in_domain = name == methods.IN_DOMAIN
        results.append(measure(name, scores, bench, resamples=resamples, in_domain=in_domain))
    by_name = {result.name: result for result in results}
    best = by_name.get(methods.BEST)
    others = [
        result for result in results if result.name.startswith(("random", "RouteLLM", "SW", "MF", "TO-"))
    ]
    comparisons = () if best is None else tuple(compare(best, other, bench, resamples) for other in others)
    return Replay(
        bench=bench,
        train=material.train if material is not None else None,
        results=tuple(results),
        comparisons=comparisons,
        levels=tuple(level(result, bench, resamples) for result in results),
    )


def _scores(bench: Benchmark, material: Material | None) -> Iterator[methods.Scored]:
    yield from methods.without_training(bench)
    if material is None:
        return
    if not methods.missing_packages():
        yield from methods.routellm(material)
    yield from methods.trained(material)
    if bench.n >= _MIN_IN_DOMAIN:
        yield from methods.in_domain(material)
