"""Samples that sequential stopping saves on recorded answers, and what it does to the decisions.

    CONFROUTE_DATA=... python benchmarks/stopping.py [--signal semantic_entropy] [--n 10] [--orders 20] [--eps 0.05]

`gsm8k_llama2_13b_x48`: sampled answers of Llama-2-13B to 200 questions. In every order one answer is the draft and N others are the
samples, all drawn at random without replacement. A policy keeps the draft where at most a given share of the samples disagrees, or
where their entropy is at most a given one. For every threshold, decisions and samples of the full N are compared with exact stopping and with P(flip) <= eps, whose prior is fitted
to the other half of the questions. APGR is the area over all thresholds (trapezoid rule over the cloud share, as RouteLLM's),
with a bootstrap interval over questions of its difference.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from _recorded import gsm8k_samples

from confroute import SelfConsistency, SemanticEntropy
from confroute.asks import Evidence
from confroute.signals import BetaBinomial, Case, EwensMixture
from confroute.types import Generation, Tier

KINDS = {
    "self_consistency": (SelfConsistency, BetaBinomial),
    "semantic_entropy": (SemanticEntropy, EwensMixture),
}


def measured(signal, draft, answers, threshold=None):
    """The uncertainty, how many samples it took, and in how many meanings they fell; without a threshold of all samples."""
    case = Case(
        tier=Tier(name="edge", model="m"),
        question="How many?",
        draft=Generation(text=draft, answer=draft),
        settled=lambda low, high: threshold is not None and not low <= threshold < high,
    )
    flow, left = signal.measure(case), iter(answers)
    try:
        ask = next(flow)
        while True:
            texts = [next(left) for _ in range(ask.n)]
            ask = flow.send(Evidence(generations=tuple(Generation(text=t, answer=t) for t in texts)))
    except StopIteration as done:
        details = done.value.details
        return done.value.uncertainty, details["drawn"], len(details.get("clusters", ()))


def curve(sent, edge, cloud):
    """APGR of routes by threshold, rising cloud share, ends added; shape (thresholds, calls)."""
    points = [
        (0.0, 0.0),
        *((s.mean(), (s * (cloud - edge)).mean()) for s in sent),
        (1.0, (cloud - edge).mean()),
    ]
    share, gain = np.array(sorted(points)).T
    return float((np.diff(share) * (gain[1:] + gain[:-1]) / 2).sum() / (cloud - edge).mean())


def thresholds_of(values, most):
    """Midpoints between the different values, at most so many of them, evenly."""
    different = np.unique(values)
    middles = (different[1:] + different[:-1]) / 2
    return middles[np.unique(np.linspace(0, len(middles) - 1, most).round().astype(int))]


def prior_of(kind, values, meanings, n, eps):
    """Fitted to calls by what each kind of signal saw of them."""
    if kind == "semantic_entropy":
        # The draft is one of the answers.
        return EwensMixture.fit(meanings.tolist(), [n + 1] * len(meanings), eps=eps)
    return BetaBinomial.fit((values * n).round().astype(int).tolist(), [n] * len(values), eps=eps)


def main():
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--signal", choices=KINDS, default="self_consistency")
    parser.add_argument("--n", type=int, default=10)
    parser.add_argument("--orders", type=int, default=20)
    parser.add_argument("--eps", type=float, nargs="+", default=[0.01, 0.05, 0.1, 0.2])
    options = parser.parse_args()
    rows, generator, n = gsm8k_samples(), np.random.default_rng(0), options.n
    drawn = [
        [str(row["weak_sample_answers"][i]) for i in generator.permutation(48)[: n + 1]]
        for _ in range(options.orders)
        for row in rows
    ]
    calls = [row for _ in range(options.orders) for row in rows]
    edge = np.array([float(d[0] == str(row["reference"])) for d, row in zip(drawn, calls, strict=True)])
    cloud = np.array([float(row["gpt4_1106_correct"]) for row in calls])
    signal = KINDS[options.signal][0]
    values, _, meanings = np.array([measured(signal(n=n), d[0], d[1:]) for d in drawn]).T
    half = np.arange(len(calls)) % len(rows) % 2
    thresholds = thresholds_of(values, n)
    full = values > thresholds[:, None]

    def run(signals):
        found = np.array(
            [
                [measured(signals[h], d[0], d[1:], t)[:2] for d, h in zip(drawn, half, strict=True)]
                for t in thresholds
            ]
        )
        return found[:, :, 0] > thresholds[:, None], found[:, :, 1]

    print(
        f"{len(rows)} questions, {options.orders} orders, N = {n}, {options.signal}, edge {edge.mean():.3f}, cloud {cloud.mean():.3f}"
    )
    whole = curve(full, edge, cloud)
    print(
        f"{'mode':16} {'samples':>7} {'saved':>6} {'other routes':>12} {'APGR':>7} {'difference, 95 %':>26}"
    )
    print(f"{'full N':16} {n:7.2f} {0:6.1%} {0:12.2%} {whole:7.4f}")
    modes = {"exact": [signal(n=n)] * 2}
    for eps in options.eps:
        priors = [
            prior_of(options.signal, values[half != h], meanings[half != h].astype(int), n, eps)
            for h in (0, 1)
        ]
        modes[f"P(flip) <= {eps:g}"] = [signal(n=n, stop=prior) for prior in priors]
    for name, signals in modes.items():
        sent, samples = run(signals)
        area = curve(sent, edge, cloud)
        gaps = []
        for _ in range(200):
            pick = generator.integers(0, len(rows), len(rows))
            at = (np.arange(options.orders)[:, None] * len(rows) + pick).ravel()
            gaps.append(curve(sent[:, at], edge[at], cloud[at]) - curve(full[:, at], edge[at], cloud[at]))
        low, high = np.quantile(gaps, [0.025, 0.975])
        print(
            f"{name:16} {samples.mean():7.2f} {1 - samples.mean() / n:6.1%} {(sent != full).mean():12.2%} {area:7.4f} "
            f"{area - whole:+.4f} [{low:+.4f}, {high:+.4f}]"
        )


if __name__ == "__main__":
    main()
