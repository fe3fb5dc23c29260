"""Stopping early never changes a decision, shown by trying every sequence of samples."""

import itertools

import pytest

from confroute import SelfConsistency, SemanticEntropy
from confroute.asks import Evidence
from confroute.signals import Case
from confroute.types import Generation, Tier

WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch")


def run(signal, draft, texts, settled):
    """The signal's measurement over these samples, in this order."""
    case = Case(
        tier=Tier(name="edge", model="m"),
        question="Which tree?",
        draft=Generation(text=draft),
        settled=settled,
    )
    left = iter(texts)
    flow = signal.measure(case)
    ask = next(flow)
    while True:
        try:
            ask = flow.send(Evidence(generations=tuple(Generation(text=next(left)) for _ in range(ask.n))))
        except StopIteration as done:
            return done.value


def partitions(n):
    """Every partition of n answers into meanings, labelled by first appearance."""
    for labels in itertools.product(range(n), repeat=n):
        if all(label <= max(labels[:i], default=-1) + 1 for i, label in enumerate(labels)):
            yield [WORDS[label] for label in labels]


def check(signal_class, n, step, thresholds):
    """Compare every early stop with all samples; return how many samples were drawn and saved."""
    drawn = total = 0
    for texts in partitions(n):
        full = run(signal_class(n=n, step=n), "ash", texts, lambda low, high: False).uncertainty
        for threshold in thresholds:
            early = run(
                signal_class(n=n, step=step),
                "ash",
                texts,
                lambda low, high, t=threshold: low > t or high <= t,
            )
            assert (early.uncertainty <= threshold) == (full <= threshold), (texts, threshold)
            drawn += early.details["drawn"]
            total += n
    return drawn, total


@pytest.mark.parametrize("signal_class", [SemanticEntropy, SelfConsistency])
def test_five_samples(signal_class):
    """All 52 sequences of 5 samples, at thresholds through the range, one and two samples at a time."""
    for step in (1, 2):
        drawn, total = check(signal_class, 5, step, [0.0, 0.2, 0.4, 0.5, 0.6, 0.9, 1.0])
        assert drawn < total


@pytest.mark.slow
@pytest.mark.parametrize("signal_class", [SemanticEntropy, SelfConsistency])
def test_seven_samples(signal_class):
    """All 877 sequences of 7 samples, at 41 thresholds, one to three samples at a time."""
    for step in (1, 2, 3):
        drawn, total = check(signal_class, 7, step, [i / 40 for i in range(41)])
        assert drawn < total
