"""Semantic entropy as a label: the paper's estimator, its rule, and entropies of 0."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.errors import BadLogprobsError, PolicyError, SignalUnavailableError
from confroute.labels import entropy_of, entropy_winner, relative_difference
from confroute.labels.entropy import label_entropy
from confroute.signals import SameText
from confroute.types import Generation

entropies = st.one_of(st.just(0.0), st.floats(1e-6, 50))


def generation(text, *logprobs):
    return Generation(text=text, logprobs=logprobs or None)


def test_paper_estimator_worked_by_hand():
    """Two meanings of probability 0.5 + 0.25 and 0.125: the mean of -log 0.75 and -log 0.125."""
    answers = [
        generation("Paris", math.log(0.5)),
        generation("It is Paris", math.log(0.5), math.log(0.5)),
        generation("Lyon", math.log(0.125)),
    ]
    expected = -(math.log(0.75) + math.log(0.125)) / 2
    assert entropy_of(answers, [0, 0, 1], estimator="paper") == pytest.approx(expected)


def test_a_sequence_drawn_twice_counts_once():
    """Otherwise ten draws of an answer of probability 0.9 would have a probability of 9 and a negative entropy."""
    ten = [generation("Paris", math.log(0.9))] * 10
    assert entropy_of(ten, [0] * 10, estimator="paper") == pytest.approx(-math.log(0.9))


def test_other_estimators_worked_by_hand():
    """Normalised: 0 for one meaning, however long. Discrete: the entropy of the shares, in nats."""
    long = [generation("x " * 50, *[-0.5] * 50), generation("y " * 50, *[-0.5] * 50)]
    assert entropy_of(long, [0, 0], estimator="normalised") == 0
    assert entropy_of(long, [0, 1], estimator="normalised") == pytest.approx(math.log(2))
    assert entropy_of(
        [generation("a"), generation("a"), generation("b")], [0, 0, 1], estimator="discrete"
    ) == pytest.approx(-(2 / 3) * math.log(2 / 3) - (1 / 3) * math.log(1 / 3))


def test_a_text_has_the_probability_of_its_likelier_tokenisation():
    """It is one text in either order: -log 0.5, from neither the sum nor the last one."""
    answers = [generation("ab", math.log(0.5)), generation("ab", math.log(0.5), math.log(0.5))]
    for order in (answers, answers[::-1]):
        assert entropy_of(order, [0, 0], estimator="paper") == pytest.approx(math.log(2))


def test_missing_or_impossible_logprobs_are_refused():
    """Estimators that weight by probability refuse answers without log-probabilities, or with impossible ones."""
    with pytest.raises(PolicyError, match="use the estimator 'discrete'"):
        entropy_of([generation("a"), generation("b")], [0, 1], estimator="paper")
    with pytest.raises(BadLogprobsError):
        entropy_of([generation("a", 0.5), generation("b", -1.0)], [0, 1], estimator="paper")
    with pytest.raises(SignalUnavailableError, match="one of the answers"):
        entropy_of([generation("a"), generation("b", -1.0)], [0, 1], estimator="paper")


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(-30, 0)), min_size=2, max_size=8))
def test_paper_entropy_is_at_least_zero_and_ignores_the_order(drawn):
    """Whatever the samples and their order."""
    # Distinct texts of one model exclude each other: the shift by log n keeps the sum of their probabilities at most 1.
    answers = [generation(str(at), value - math.log(len(drawn))) for at, (_, value) in enumerate(drawn)]
    meanings = [meaning for meaning, _ in drawn]
    entropy = entropy_of(answers, meanings, estimator="paper")
    assert entropy >= 0
    assert entropy_of(answers[::-1], meanings[::-1], estimator="paper") == pytest.approx(entropy, abs=1e-9)


@pytest.mark.parametrize(
    ("edge", "cloud", "tau", "winner"),
    [
        (0.0, 0.0, 0.0, "tie"),
        (0.0, 0.0, 5.0, "tie"),
        (0.5, 0.0, 1e9, "b"),
        (1e-12, 0.0, 0.1, "tie"),
        (0.0, 0.5, 0.1, "a"),
        (0.0, 0.5, 1.0, "tie"),
        (1.1, 1.0, 0.2, "tie"),
        (1.25, 1.0, 0.25, "tie"),
        (1.3, 1.0, 0.2, "b"),
        (0.7, 1.0, 0.2, "a"),
    ],
)
def test_rule_and_its_limits(edge, cloud, tau, winner):
    """Two certain models tie; against a certain cloud an uncertain edge loses; at tau = 1 the edge cannot win."""
    assert entropy_winner(edge, cloud, tau=tau) == winner


@given(edge=entropies, cloud=entropies, tau=st.floats(0, 3), more=st.floats(0, 3))
def test_a_higher_tau_only_makes_ties(edge, cloud, tau, more):
    """Raising tau turns wins into ties and nothing else."""
    low, high = entropy_winner(edge, cloud, tau=tau), entropy_winner(edge, cloud, tau=tau + more)
    assert high in (low, "tie")
    if low != "tie":
        assert (low == "a") == (edge < cloud)
        assert relative_difference(edge, cloud) > tau


def test_negative_tau_is_refused():
    """It would give equal entropies a winner."""
    with pytest.raises(PolicyError, match="expected a relative difference"):
        entropy_winner(1.0, 1.0, tau=-0.1)


def test_an_extracted_answer_replaces_the_text():
    """Two derivations of the same answer are one meaning; without the extracted answer they are two texts."""
    ways = [Generation(text=text, answer="7") for text in ("three and four", "eight less one")]
    for answers, nats in ((ways, 0.0), ([replace(way, answer=None) for way in ways], math.log(2))):
        entropy = label_entropy(answers, question="?", equivalence=SameText(), estimator="discrete")
        with pytest.raises(StopIteration) as done:
            next(entropy)
        assert done.value.value == pytest.approx(nats)


def test_answers_in_canonical_form_are_compared_as_they_are():
    """As the signals do: calls that differ in nothing but the case of an argument are two meanings."""
    calls = [
        Generation(text="", answer=f'[{{"arguments": {{"path": "{path}"}}, "name": "open"}}]')
        for path in ("/a/Notes", "/a/notes")
    ]
    entropy = label_entropy(calls, question="Open the notes.", equivalence=SameText(), estimator="discrete")
    with pytest.raises(StopIteration) as done:
        next(entropy)
    assert done.value.value == pytest.approx(math.log(2))
