"""Semantic entropy against values worked out by hand."""

import itertools
import math

import numpy as np
import pytest

from confroute import SameEmbedding, SameEntailment, SemanticEntropy, semantic_entropy
from confroute.asks import Embed, Entails, Evidence, Sample
from confroute.errors import BadLogprobsError, PolicyError, SignalUnavailableError
from confroute.signals import Case
from confroute.signals.clusters import bounds, normalised_entropy
from confroute.types import Generation, Tier

# "Paris and London" entails both of its parts; neither of them entails it.
ENTAILS = {("Paris and London", "Paris"), ("Paris and London", "London")}


def entails(first: str, second: str) -> bool:
    """Ground truth of entailment between the three answers."""
    return first == second or (first, second) in ENTAILS


def measure(
    signal, texts, *, question="Which city?", settled=None, similarity=None, entailed=None, logprobs=None
):
    """Run a sampling signal over a draft, the first text, and its samples; return its measurement and the asks it made."""
    draft, *rest = (
        Generation(text=t, logprobs=None if logprobs is None else logprobs[i]) for i, t in enumerate(texts)
    )
    drawn = iter(rest)
    asks = []
    case = Case(
        tier=Tier(name="edge", model="m"),
        question=question,
        draft=draft,
        **({"settled": settled} if settled else {}),
    )
    flow = signal.measure(case)
    evidence = None
    while True:
        try:
            ask = flow.send(evidence) if evidence else next(flow)
        except StopIteration as done:
            return done.value, asks
        asks.append(ask)
        if isinstance(ask, Sample):
            evidence = Evidence(generations=tuple(itertools.islice(drawn, ask.n)))
        elif isinstance(ask, Embed):
            evidence = Evidence(numbers=np.array([similarity(t) for t in ask.texts], dtype=np.float32))
        elif isinstance(ask, Entails):
            bare = [tuple(t.removeprefix(question).strip() for t in pair) for pair in ask.pairs]
            evidence = Evidence(numbers=np.array([float(entailed(*pair)) for pair in bare], dtype=np.float32))


def test_an_answer_that_entails_two_others_is_a_third_meaning():
    """{Paris, London, "Paris and London"} are three meanings under strict two-way entailment: entropy 1."""
    for order in itertools.permutations(["Paris", "London", "Paris and London"]):
        assert semantic_entropy(order, same=entails) == 1.0


def test_one_way_entailment_never_merges():
    """The signal checks both directions, and the one-way pair stays apart in every order."""
    for order in itertools.permutations(["Paris", "London", "Paris and London"]):
        measured, asks = measure(
            SemanticEntropy(n=2, equivalence=SameEntailment(model="nli")), order, entailed=entails
        )
        assert measured.uncertainty == 1.0
        assert measured.details["clusters"] == [1, 1, 1]
        assert sum(len(a.pairs) for a in asks if isinstance(a, Entails)) == measured.details["pairs"]


def test_twenty_identical_answers_are_exactly_certain():
    """20 equal answers: entropy exactly 0, and no model is asked about equal texts."""
    assert semantic_entropy(["Paris"] * 20) == 0.0
    measured, asks = measure(SemanticEntropy(n=19, equivalence=SameEntailment(model="nli")), ["Paris"] * 20)
    assert measured.uncertainty == 0.0
    assert not [a for a in asks if isinstance(a, Entails)]


@pytest.mark.parametrize("n", [2, 3, 7, 20])
def test_all_different_answers_are_exactly_uncertain(n):
    """n meanings of n answers: entropy exactly 1."""
    answers = [f"city number {chr(97 + i)}" for i in range(n)]
    assert semantic_entropy(answers) == 1.0


def test_two_against_one():
    """Clusters of 2 and 1: ln 3 - (2/3) ln 2, over ln 3."""
    expected = (math.log(3) - 2 / 3 * math.log(2)) / math.log(3)
    assert semantic_entropy(["Rome", "Rome.", "Oslo"]) == pytest.approx(expected)


def test_probability_weights():
    """Cluster weights 0.8 + 0.8 and 0.4 of per-token probability give the entropy of (0.8, 0.2)."""
    logprobs = [[math.log(0.8)], [math.log(0.8)] * 3, [math.log(0.4)] * 2]
    expected = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2)) / math.log(3)
    assert semantic_entropy(["Rome", "Rome", "Oslo"], logprobs=logprobs) == pytest.approx(expected)
    measured, _ = measure(
        SemanticEntropy(n=2, weighting="probability"),
        ["Rome", "Rome", "Oslo"],
        logprobs=[tuple(x) for x in logprobs],
        settled=lambda low, high: True,
    )
    assert measured.uncertainty == pytest.approx(expected), "a weighted entropy may not stop early"


def test_probability_weights_need_logprobs():
    """Samples without log-probabilities cannot be weighted; the error says what to use instead."""
    with pytest.raises(SignalUnavailableError, match="discrete"):
        measure(SemanticEntropy(n=2, weighting="probability"), ["a b c", "d e f", "g h i"])


def test_numbers_are_compared_by_value_before_any_model():
    """The same number in other words is the same answer; a different number is a different one."""
    measured, asks = measure(
        SemanticEntropy(n=2, equivalence=SameEmbedding()),
        ["The answer is 42.", "It costs 42.0 in all", "I get 43"],
        question="How many apples are there?",
    )
    assert measured.details["clusters"] == [2, 1]
    assert not [a for a in asks if isinstance(a, Embed)]


def test_embeddings_decide_on_free_text_but_never_merge_a_negation():
    """Close vectors merge; a negated answer stays apart however close its vector is."""
    measured, _ = measure(
        SemanticEntropy(n=2, equivalence=SameEmbedding(cosine=0.9)),
        ["Whales are mammals", "A whale belongs to the mammals", "Whales are not mammals"],
        question="What are whales?",
        similarity=lambda text: [1.0, 0.0],
    )
    assert measured.details["clusters"] == [2, 1]


def test_the_question_is_prepended():
    """Entailment is judged between answers to the question, not between bare words."""
    _, asks = measure(
        SemanticEntropy(n=2, equivalence=SameEntailment(model="nli")),
        ["yes it is", "indeed so", "indeed so"],
        entailed=lambda a, b: True,
    )
    pairs = [pair for a in asks if isinstance(a, Entails) for pair in a.pairs]
    assert pairs[0] == ("Which city? yes it is", "Which city? indeed so")
    assert pairs[1] == ("Which city? indeed so", "Which city? yes it is")


def test_sampling_stops_as_soon_as_nothing_can_change():
    """Threshold 0.5 of a draft and 4 samples: after three different answers even two repeats leave the entropy above it."""

    def settled(low, high):
        return low > 0.5 or high <= 0.5

    measured, asks = measure(SemanticEntropy(n=4), ["a a", "b b", "c c", "a a", "a a"], settled=settled)
    assert bounds([1, 1, 1], 5)[0] > 0.5
    assert measured.details["drawn"] == 2
    assert sum(a.n for a in asks) == 2
    assert measured.uncertainty > 0.5


def test_bad_arguments_are_named():
    """One answer has no entropy, and settings that measure nothing are refused."""
    with pytest.raises(PolicyError, match="at least 2"):
        semantic_entropy(["Paris"])
    with pytest.raises(PolicyError, match="one non-empty list per answer"):
        semantic_entropy(["a", "b"], logprobs=[[-1.0]])
    for bad in ({"n": 1}, {"temperature": 0.0}, {"step": 9}, {"weighting": "soft"}):
        with pytest.raises(PolicyError):
            SemanticEntropy(**bad)


def test_entropy_of_clusters_by_hand():
    """(3, 1) of 4: 0.8113 bits over 2 bits."""
    assert normalised_entropy([3, 1], 4) == pytest.approx(0.8112781 / 2)


def test_invalid_logprobs_are_refused():
    """NaN would give entropy 0, which is certainty; an answer without log-probabilities has no weight."""
    with pytest.raises(BadLogprobsError):
        semantic_entropy(["Paris", "Rome"], logprobs=[[math.nan], [-0.1]])
    with pytest.raises(BadLogprobsError):
        semantic_entropy(["Paris", "Rome"], logprobs=[[0.5], [-0.1]])
    with pytest.raises(PolicyError, match="non-empty list per answer"):
        semantic_entropy(["Paris", "Rome"], logprobs=[[], [-0.1]])
