"""The semantic-entropy family: values worked out by hand, and properties for any answers."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute import Cascade, Message, Request
from confroute.asks import Entails, Evidence, Sample
from confroute.executor import run
from confroute.policy.files import from_json, to_json
from confroute.signals import (
    AlphabetSize,
    Case,
    Cocoa,
    CoverageEntropy,
    Degree,
    Eccentricity,
    EigenvalueSum,
    EntailmentDegree,
    KernelEntropy,
    SemanticEntropy,
)
from confroute.signals.alphabet_size import alphabet_size
from confroute.signals.clusters import normalised_entropy
from confroute.signals.coverage_entropy import chao_shen
from confroute.signals.graph import degree, eccentricity, kernel_entropy, soft_count
from confroute.testing import ScriptedCalls, ScriptedModel
from confroute.types import Generation, Tier

WORDS = ("oslo town", "bern", "rome here", "lima", "quito city", "paris")
FAMILY = (AlphabetSize, Cocoa, CoverageEntropy, Degree, Eccentricity, EigenvalueSum, KernelEntropy)
BOUNDED = (Degree, Eccentricity, EigenvalueSum, KernelEntropy)
answers = st.lists(
    st.sampled_from(["Rome", "rome.", "Oslo", "the red fox", "a red dog"]), min_size=3, max_size=7
)


def measure(signal, texts, *, entailed=None):
    """Run a signal over a draft, the first text, and its samples."""
    drawn = tuple(Generation(text=text) for text in texts[1:])
    case = Case(
        tier=Tier(name="edge", model="m"),
        question="Which?",
        draft=Generation(text=texts[0], logprobs=(-0.5,)),
    )
    flow, evidence, pairs = signal.measure(case), None, 0
    while True:
        try:
            ask = next(flow) if evidence is None else flow.send(evidence)
        except StopIteration as done:
            return done.value, pairs
        if isinstance(ask, Sample):
            evidence = Evidence(generations=drawn[ask.drawn : ask.drawn + ask.n])
        else:
            assert isinstance(ask, Entails)
            pairs += len(ask.pairs)
            evidence = Evidence(numbers=np.array([entailed(*pair) for pair in ask.pairs], dtype=np.float32))


def blocks(counts):
    """The similarity matrix of clear-cut clusters."""
    labels = np.repeat(np.arange(len(counts)), counts)
    return (labels[:, None] == labels[None, :]).astype(float), tuple(int(x) for x in labels)


def test_clear_cut_clusters_by_hand():
    """Two clusters of two: 4 of 6 pairs apart, a soft count of 2, entropy log 2 of log 4."""
    matrix, labels = blocks([2, 2])
    assert degree(matrix) == pytest.approx(4 / 6)
    assert soft_count(matrix) == pytest.approx(2.0)
    assert kernel_entropy(matrix, labels) == pytest.approx(0.5)


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4).filter(lambda c: sum(c) > 1))
def test_kernel_entropy_of_clusters_is_the_discrete_entropy(counts):
    """The kernel entropy generalises the discrete one: they agree where meanings are either equal or unrelated."""
    matrix, labels = blocks(counts)
    assert kernel_entropy(matrix, labels) == pytest.approx(normalised_entropy(counts, sum(counts)), abs=1e-9)
    assert soft_count(matrix) == pytest.approx(len(counts))


def test_two_half_similar_answers_by_hand():
    """W = [[1, .5], [.5, 1]]: eigenvalues 0 and 2/3 of the Laplacian, soft count 4/3, both vectors kept."""
    matrix = np.array([[1.0, 0.5], [0.5, 1.0]])
    assert soft_count(matrix) == pytest.approx(4 / 3)
    assert eccentricity(matrix) == pytest.approx(1.0)
    # Heat kernel of L = [[.5, -.5], [-.5, .5]] at t: off-diagonal tanh(t / 2) once its diagonal is 1.
    share = (1 + math.tanh(0.15)) / 2
    expected = -(share * math.log(share) + (1 - share) * math.log(1 - share)) / math.log(2)
    assert kernel_entropy(matrix, (0, 1)) == pytest.approx(expected)


def test_chao_shen_by_hand():
    """(3, 1): coverage 3/4, p = 9/16 and 3/16, each term divided by its probability of being drawn in 4."""
    p, q = 9 / 16, 3 / 16
    expected = -p * math.log(p) / (1 - (1 - p) ** 4) - q * math.log(q) / (1 - (1 - q) ** 4)
    assert chao_shen([3, 1]) == pytest.approx(expected)
    assert chao_shen([7]) == 0.0


def test_alphabet_size_by_hand():
    """3 meanings of 4 answers, 2 of them single: 3 * 4 / 2 = 6; all single: the soft count."""
    assert alphabet_size([2, 1, 1], 2.9) == 6.0
    assert alphabet_size([1, 1, 1], 2.9) == 2.9
    assert alphabet_size([2, 2], 2.5) == 2.5


def test_splitting_a_cluster_never_lowers_the_corrected_entropy():
    """Every split of every cluster of up to 8 answers: more disagreement is never less uncertainty."""
    for n in range(2, 9):
        for counts in _partitions(n):
            for i, size in enumerate(counts):
                for part in range(1, size):
                    split = [*counts[:i], part, size - part, *counts[i + 1 :]]
                    assert chao_shen(split) >= chao_shen(counts) - 1e-12, (counts, split)
                    if max(split) > 1:  # all alone, the estimate takes the soft count, which is at most n
                        assert alphabet_size(split, len(split)) >= alphabet_size(counts, len(counts)) - 1e-12


def _partitions(n, most=None):
    if n == 0:
        yield []
    for first in range(min(n, most or n), 0, -1):
        for rest in _partitions(n - first, first):
            yield [first, *rest]


@given(answers, st.randoms())
def test_order_does_not_matter(texts, random):
    """Any permutation of the samples gives the same value."""
    shuffled = [*texts]
    random.shuffle(shuffled)
    for kind in (*BOUNDED, AlphabetSize, CoverageEntropy):
        one, _ = measure(kind(n=len(texts) - 1), texts)
        other, _ = measure(kind(n=len(texts) - 1), shuffled)
        assert one.uncertainty == pytest.approx(other.uncertainty, abs=1e-7), kind


@given(answers)
def test_values_lie_in_their_range(texts):
    """Within the range that the signal states."""
    for kind in FAMILY:
        measurement, _ = measure(kind(n=len(texts) - 1), texts)
        assert measurement.uncertainty in kind().range, kind


@pytest.mark.parametrize("kind", FAMILY)
def test_identical_answers_are_certain(kind):
    """Exactly the lower end of the range, and no pair is compared."""
    measurement, _ = measure(kind(n=3), ["Rome", "rome.", "The answer is Rome", "Rome"])
    assert measurement.uncertainty == pytest.approx(kind().range.low, abs=1e-12)
    assert measurement.details["pairs"] == 0


@pytest.mark.parametrize("kind", BOUNDED)
def test_unrelated_answers_are_wholly_uncertain(kind):
    """Answers without a common word reach 1."""
    measurement, _ = measure(kind(n=5), list(WORDS))
    assert measurement.uncertainty == pytest.approx(1.0)


def test_cocoa_multiplies():
    """0.5 nats times two of four samples that differ from the draft; at most n pairs."""
    measurement, _ = measure(Cocoa(n=4), ["bern", "bern", "bern", "rome", "lima"])
    assert measurement.uncertainty == pytest.approx(0.25)
    assert measurement.details["pairs"] == 2


def test_entailment_compares_distinct_answers_only():
    """Three distinct answers among five: 3 pairs, 6 directions; the details count them."""
    texts = ["a red fox", "the red fox", "one grey wolf", "some brown bear", "one grey wolf"]
    measurement, directions = measure(
        Degree(n=4, similarity=EntailmentDegree(model="nli")), texts, entailed=lambda a, b: 0.0
    )
    assert directions == 6
    assert measurement.details["pairs"] == 3


@pytest.mark.parametrize("kind", FAMILY)
def test_policy_files_hold_them(kind):
    """A saved signal loads as an equal one, nested similarity included."""
    settings = {} if kind is CoverageEntropy else {"similarity": EntailmentDegree(model="nli")}
    policy = Cascade.of(kind(n=3, **settings), 1.0)
    assert from_json(to_json(policy)) == policy


def test_partitions_are_complete():
    """The helper lists all 22 partitions of 8."""
    assert len(list(itertools.islice(_partitions(8), 99))) == 22


@pytest.mark.parametrize(
    "signal", [SemanticEntropy(n=4), CoverageEntropy(n=4), AlphabetSize(n=4), Degree(n=4), KernelEntropy(n=4)]
)
def test_empty_samples_are_refused(signal):
    """An edge that returns empty samples would otherwise look certain of one meaning."""
    models = {
        "edge": ScriptedModel(["a town"], samples=["", " ", "\n", ""]),
        "cloud": ScriptedModel(["Bern"]),
    }
    request = Request(messages=(Message(role="user", text="Which town?"),))
    calls = ScriptedCalls(models=models)
    decision = run(Cascade.of(signal, signal.range.low + 0.5), request, calls.call(request), {}).decision
    assert (decision.route, decision.stage) == ("cloud", "no_signal")
    assert "empty samples" in decision.skipped[signal.name]
