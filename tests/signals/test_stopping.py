"""Stopping early never changes a decision, shown by trying every sequence of samples."""

import itertools
import math

import pytest

from confroute import SelfConsistency, SemanticEntropy
from confroute.asks import Evidence
from confroute.errors import PolicyError
from confroute.signals import (
    AlphabetSize,
    Case,
    CoverageEntropy,
    Degree,
    Eccentricity,
    EigenvalueSum,
    KernelEntropy,
)
from confroute.types import Generation, Tier

WORDS = ("ash", "birch", "cedar", "elm", "fir", "hazel", "larch", "maple")


def run(signal, draft, texts, settled, *, question="Which tree?"):
    """The signal's measurement over these samples, in this order; answers are texts, or generations."""
    draft, *samples = (
        one if isinstance(one, Generation) else Generation(text=one) for one in (draft, *texts)
    )
    case = Case(tier=Tier(name="edge", model="m"), question=question, draft=draft, settled=settled)
    left = iter(samples)
    flow = signal.measure(case)
    ask = next(flow)
    while True:
        try:
            ask = flow.send(Evidence(generations=tuple(next(left) for _ in range(ask.n))))
        except StopIteration as done:
            return done.value


def partitions(n):
    """Every partition of a draft and n samples into meanings, labelled by first appearance; the draft comes first."""
    for labels in itertools.product(range(n + 1), repeat=n):
        answers = (0, *labels)
        if all(label <= max(answers[:i], default=-1) + 1 for i, label in enumerate(answers)):
            yield [WORDS[label] for label in answers]


def check(signal_class, n, step, thresholds):
    """Compare every early stop with all samples, at these thresholds and at every value that there is: count samples drawn, and all."""
    answers = [*partitions(n)]
    full = [run(signal_class(n=n, step=n), draft, texts, never).uncertainty for draft, *texts in answers]
    drawn = total = 0
    for (draft, *texts), final in zip(answers, full, strict=True):
        for threshold in sorted({*thresholds, *full}):
            early = run(
                signal_class(n=n, step=step),
                draft,
                texts,
                lambda low, high, t=threshold: low > t or high <= t,
            )
            assert (early.uncertainty <= threshold) == (final <= threshold), (draft, texts, threshold)
            drawn += early.details["drawn"]
            total += n
    return drawn, total


def never(low, high):
    """No two bounds settle anything."""
    return False


@pytest.mark.parametrize("signal_class", [SemanticEntropy, SelfConsistency])
def test_five_samples(signal_class):
    """All 203 sequences of a draft and 5 samples, at every value and between them, one and two samples at a time."""
    assert len([*partitions(5)]) == 203
    for step in (1, 2):
        drawn, total = check(signal_class, 5, step, [0.0, 0.2, 0.4, 0.5, 0.6, 0.9, 1.0])
        assert drawn < total


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("signal_class", [SemanticEntropy, SelfConsistency])
def test_seven_samples(signal_class, step):
    """All 4,140 sequences of a draft and 7 samples, at every value and at 0.5, one to three samples at a time."""
    drawn, total = check(signal_class, 7, step, [0.5])
    assert drawn < total


def test_one_sample_agrees_or_does_not():
    """A single further answer is the cheapest check: 0 where it says the same, 1 where it does not; none is refused."""
    signal = SelfConsistency(n=1)
    assert run(signal, "elm", ["Elm."], never).uncertainty == 0
    assert run(signal, "elm", ["ash"], never).uncertainty == 1
    with pytest.raises(PolicyError, match=r"n is 0: expected at least 1 sample$"):
        SelfConsistency(n=0)
    with pytest.raises(PolicyError, match="n is 1: expected at least 2 samples"):
        SemanticEntropy(n=1)


def test_the_draft_is_one_of_the_answers():
    """A draft that no sample repeats is a meaning of its own; one that all repeat is certain."""
    alone = run(SemanticEntropy(n=2, step=2), "ash", ["birch", "birch"], never)
    two = (math.log(3) - 2 / 3 * math.log(2)) / math.log(3)
    assert alone.uncertainty == pytest.approx(two)
    assert alone.details["clusters"] == [2, 1]
    assert run(SemanticEntropy(n=2, step=2), "ash", ["ash", "ash"], never).uncertainty == 0.0


@pytest.mark.parametrize(
    "signal",
    [
        SemanticEntropy(n=3),
        CoverageEntropy(n=3),
        AlphabetSize(n=3),
        Degree(n=3),
        EigenvalueSum(n=3),
        KernelEntropy(n=3),
    ],
)
def test_a_disagreeing_draft_raises_the_uncertainty_of_agreeing_samples(signal):
    """All of the family count the draft."""
    agreed, apart = (run(signal, draft, ["ash"] * 3, never).uncertainty for draft in ("ash", "elm"))
    assert agreed == signal.range.low
    assert apart > agreed


def family(question, draft, samples):
    """What each signal makes of answers that are given beside their texts."""
    for signal in (
        SelfConsistency(n=2),
        SemanticEntropy(n=2),
        CoverageEntropy(n=2),
        Degree(n=2),
        KernelEntropy(n=2),
    ):
        yield run(signal, draft, samples, never, question=question).uncertainty


def given_answer(text, answer):
    return Generation(text=text, answer=answer)


@pytest.mark.parametrize(
    ("question", "one", "other"),
    [
        ("How many are 3 and 4?", "3:2", "32"),
        ("How many are 3 and 4?", "1/3", "2/3"),
        ("Which?\nA. Mars\nB. Venus", "A, then B", "A"),
        (
            "Which tree?",
            '[{"arguments": {"a": 1.5}, "name": "f"}]',
            '[{"arguments": {"a": 15}, "name": "f"}]',
        ),
        ("How many are 3 and 4?", '[{"arguments": {"a": 1, "b": 2}}]', '[{"arguments": {"a": 5, "b": 2}}]'),
    ],
)
def test_given_answers_are_compared_as_they_are(question, one, other):
    """By all signals alike: not by a number or a normalised text in them, whatever their texts are."""
    same = [given_answer("in these words", one), given_answer("in others", one)]
    assert [*family(question, given_answer("so", one), same)] == [0.0] * 5
    apart = [given_answer("so", other), given_answer("so", other)]
    assert all(value > 0 for value in family(question, given_answer("so", one), apart))


def test_a_given_answer_equals_the_one_in_a_text():
    """A sample without an answer of its own is read, as self-consistency reads it."""
    samples = [Generation(text="So it is 7."), Generation(text="The answer is 7.0 apples")]
    assert [*family("How many apples?", given_answer("seven", "7"), samples)] == [0.0] * 5


def test_equal_values_are_equal():
    """Whatever the order in which answers came: of 203 sequences, as many values as there are different counts of meanings."""
    for signal in (
        SemanticEntropy(n=5, step=5),
        CoverageEntropy(n=5),
        Degree(n=5),
        EigenvalueSum(n=5),
        KernelEntropy(n=5),
        Eccentricity(n=5),
    ):
        values: dict[tuple[int, ...], set[float]] = {}
        for draft, *texts in partitions(5):
            counts = tuple(sorted([draft, *texts].count(text) for text in {draft, *texts}))
            values.setdefault(counts, set()).add(run(signal, draft, texts, never).uncertainty)
        assert len(values) == 11
        assert all(len(some) == 1 for some in values.values()), signal
