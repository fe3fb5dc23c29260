"""Properties of signals that must hold for any answers."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.errors import BadLogprobsError
from confroute.signals import semantic_entropy, token_nll
from confroute.signals.answers import final_answer, normalised, number_in
from confroute.signals.clusters import bounds, normalised_entropy
from confroute.types import checked_logprobs

answers = st.lists(
    st.sampled_from(["Rome", "rome.", "Oslo", "Bern", "the Oslo", "Lima"]), min_size=2, max_size=9
)
logprobs = st.lists(st.floats(-50, 0), min_size=1, max_size=60).map(tuple)


@given(answers, st.randoms())
def test_order_does_not_matter(texts, random):
    """Any permutation of the answers has the same semantic entropy."""
    shuffled = [*texts]
    random.shuffle(shuffled)
    assert semantic_entropy(shuffled) == semantic_entropy(texts)


@given(st.permutations(["a cat", "one cat", "some cat", "a dog"]))
def test_order_does_not_matter_without_transitivity(texts):
    """Even where "same" is not transitive, as with embeddings near a cut-off."""
    near = {("cat", "one cat"), ("one cat", "some cat")}

    def same(a, b):
        return (normalised(a), normalised(b)) in near or (normalised(b), normalised(a)) in near

    assert semantic_entropy(texts, same=same) == semantic_entropy(sorted(texts), same=same)


@given(answers)
def test_it_stays_within_its_range(texts):
    """Always in [0, 1]; 0 exactly when there is one meaning, 1 exactly when all differ."""
    value = semantic_entropy(texts)
    meanings = len({normalised(t) for t in texts})
    assert 0 <= value <= 1
    assert (value == 0) == (meanings == 1)
    assert (value == 1) == (meanings == len(texts))


@given(st.lists(st.integers(1, 6), min_size=2, max_size=6))
def test_splitting_a_cluster_never_lowers_it(counts):
    """More disagreement is never less uncertainty."""
    n = sum(counts)
    for i, size in enumerate(counts):
        for part in range(1, size):
            split = [*counts[:i], part, size - part, *counts[i + 1 :]]
            assert normalised_entropy(split, n) >= normalised_entropy(counts, n) - 1e-12


@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.integers(0, 3))
def test_bounds_hold_for_every_completion(labels, rest):
    """Whatever the next answers are, the entropy ends between the bounds; both are reached."""
    n = len(labels) + rest
    if n < 2:
        return
    counts = [labels.count(x) for x in set(labels)]
    low, high = bounds(counts, n)
    fresh = [100 + i for i in range(rest)]
    ends = []
    for completion in itertools.product([*set(labels), *fresh], repeat=rest):
        full = [*labels, *completion]
        ends.append(normalised_entropy([full.count(x) for x in set(full)], n))
    assert min(ends) == pytest.approx(low, abs=1e-12)
    assert max(ends) == pytest.approx(high, abs=1e-12)


@given(logprobs)
def test_token_statistics_are_ordered(values):
    """0 <= median <= q90 <= max <= sum, and the mean lies between 0 and the maximum."""
    stats = token_nll(values)
    assert 0 <= stats["q50"] <= stats["q75"] <= stats["q90"] <= stats["max"] <= stats["sum"] + 1e-9
    assert 0 <= stats["mean"] <= stats["max"] + 1e-9
    assert [stats["q50"], stats["q90"]] == pytest.approx(
        np.quantile(-np.array(values), [0.5, 0.9]), abs=1e-12
    )


@given(logprobs, st.data())
def test_invalid_logprobs_are_refused(values, data):
    """One NaN, infinity or positive value anywhere makes all of them unusable."""
    bad = data.draw(st.sampled_from([float("nan"), float("inf"), float("-inf"), 0.5]))
    at = data.draw(st.integers(0, len(values)))
    with pytest.raises(BadLogprobsError) as caught:
        checked_logprobs((*values[:at], bad, *values[at:]))
    assert caught.value.position == at


@given(st.integers(3, 500), st.integers(0, 400))
def test_too_few_logprobs_are_refused(tokens, scored):
    """An answer that is only partly scored counts as unscored."""
    values = (-0.1,) * max(1, min(scored, tokens - 3))
    with pytest.raises(BadLogprobsError):
        checked_logprobs(values, output_tokens=len(values) + 3)
    assert checked_logprobs(values, output_tokens=len(values) + 2) == values


@given(
    st.integers(-(10**9), 10**9),
    st.sampled_from(["{}", "The answer is {}.", "{:,}", "so 1 + 2 = {}", "#### {}", "**{}**"]),
)
def test_numbers_are_found_in_any_form(number, dress):
    """The final number is returned in one canonical form."""
    assert number_in(dress.format(number)) == f"{number:.12g}"


@given(st.text(max_size=60), st.text(max_size=60))
def test_final_answers_never_crash_and_are_stable(text, question):
    """Any text gives an answer or None, and the final answer of a final answer is itself."""
    answer = final_answer(text, question, kind="text")
    if answer is not None:
        assert final_answer(answer, question, kind="text") == answer
    final_answer(text, question)
