"""How fast heads decide from ready embeddings, and how long they train, on vectors of MiniLM's size.

    OMP_NUM_THREADS=1 python benchmarks/heads.py              # decisions in processor time, so that other work counts little
    python benchmarks/heads.py --wall                         # decisions by the clock, all threads
    python benchmarks/heads.py --prompts 50000                # trains every head on as many prompts: minutes

Training is told by the clock and by the processor. The table is of the two heads that multiply each prompt with all they were trained on, beside that product alone. The last lines compare similarity-weighted ranking with RouteLLM's code on 60,000 battles, where that package is installed.
"""

import argparse
import statistics
import time
from functools import partial

import numpy as np

from confroute.bench import methods
from confroute.heads import MLP, MatrixFactorisation, NearestNeighbours, Ridge, SimilarityRanking

DIM = 384
SIZES = (1000, 1635, 2500, 5000, 10_000, 50_000)


def unit(n, seed):
    """Unit vectors."""
    x = np.random.default_rng(seed).normal(size=(n, DIM)).astype(np.float32)
    x[:, 0] += 20
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def labels(x):
    """Wins of the cloud that depend on one direction."""
    return (np.random.default_rng(2).random(len(x)) < 0.5 + 2 * x[:, 1]).astype(float)


def median_s(work, times, repeats=1, *, clock=time.process_time):
    """Median seconds of `work()`."""
    found = []
    for _ in range(times):
        start = clock()
        for _ in range(repeats):
            work()
        found.append((clock() - start) / repeats)
    return statistics.median(found)


def by_prompts(tests, median):
    """One decision and a batch of the heads that read all training prompts, by how many those are."""
    print("prompts    product      knn      SW    knn, batch     SW, batch")
    for n in SIZES:
        x = unit(n, 0)
        heads = [kind.fit(x, labels(x)) for kind in (NearestNeighbours, SimilarityRanking)]
        works = [lambda head=heads[0]: head.vectors @ tests[0]]
        works += [lambda head=head: head.estimate(tests[0]) for head in heads]
        product, knn, sw = (1e6 * median(work, 31, repeats=10) for work in works)
        batches = [len(tests) / median(lambda head=head: head.estimate(tests), 3) for head in heads]
        print(
            f"{n:7d} {product:7.0f} us {knn:5.0f} us {sw:4.0f} us", *(f"{rate:11.0f}/s" for rate in batches)
        )


def ranking(n, median):
    """Ours and RouteLLM's ranking on the same battles between ten tiers."""
    x, query = unit(n, 3), unit(1, 4)[0]
    generator = np.random.default_rng(5)
    first, second = generator.integers(0, 10, (2, n))
    outcome = generator.choice([0.0, 0.5, 1.0], n)
    heads = [
        SimilarityRanking.of_battles(x, first, second, outcome, models=10, edge=2, cloud=7, same_tier_bug=bug)
        for bug in (True, False)
    ]
    print(
        f"SW, {n} battles, 10 tiers: ours {1e3 * median(lambda: heads[0].estimate(query), 21):.2f} ms a call"
    )
    if lacking := methods.missing_packages():
        print(f"RouteLLM's is left out: {', '.join(lacking)} not installed")
        return
    import importlib
    import os

    import pandas as pd

    os.environ.setdefault("OPENAI_API_KEY", "unused")
    module = importlib.import_module("routellm.routers.similarity_weighted.utils")
    winner = np.where(outcome > 0.5, "model_a", np.where(outcome < 0.5, "model_b", "tie")).astype(object)
    battles = pd.DataFrame({"model_a": first, "model_b": second, "winner": winner})
    rates = []

    def theirs():
        similarity = x @ query / (np.linalg.norm(x, axis=1) * np.linalg.norm(query))
        weight = (10 * 10 ** (similarity / similarity.max())).astype(np.float64)
        found = module.compute_elo_mle_with_tie(battles, sample_weight=weight)
        rates.append(1 - 1 / (1 + 10 ** ((found[7] - found[2]) / 400)))

    print(f"  RouteLLM's code {1e3 * median(theirs, 3):.0f} ms a call")
    replicated, fixed = (head.estimate(query).cloud_wins[0] for head in heads)
    print(f"  win rate: theirs {rates[0]:.8f}, ours with its bug {replicated:.8f}, without {fixed:.8f}")


def main():
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--prompts", type=int, default=5000, help="to train on; 50000 takes minutes")
    parser.add_argument("--wall", action="store_true", help="time decisions by the clock")
    asked = parser.parse_args()
    prompts = asked.prompts
    median = partial(median_s, clock=time.perf_counter if asked.wall else time.process_time)
    x, tests = unit(prompts, 0), unit(2000, 1)
    y = labels(x)
    total = clock = 0.0
    for kind in (MLP, MatrixFactorisation, Ridge, NearestNeighbours, SimilarityRanking):
        start, used = time.perf_counter(), time.process_time()
        head = kind.fit(x, y)
        trained, used = time.perf_counter() - start, time.process_time() - used
        total, clock = total + used, clock + trained
        one = median(lambda head=head: head.estimate(tests[0]), 11, repeats=20)
        batch = len(tests) / median(lambda head=head: head.estimate(tests), 5)
        print(
            f"{head.kind:21s} trained in {trained:6.1f} s ({used:.1f} of the processor), one decision {1e6 * one:8.0f} us, batch {batch:9.0f} decisions/s"
        )
    print(f"all heads on {prompts} prompts: {clock:.1f} s, {total:.1f} of the processor")
    by_prompts(tests[:1024], median)
    ranking(60_000, median)


if __name__ == "__main__":
    main()
