"""Answers clustered together or one by one: the same groups, with at most both directions per answer and representative."""

from types import SimpleNamespace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from confroute.signals import SameEntailment
from confroute.signals.clusters import Clusters

TEXTS = [
    f"some answer in words number {word}" for word in ("one", "two", "three", "four", "five", "six", "seven")
]
answers = st.lists(st.sampled_from([*TEXTS, "Some answer, in words number one."]), min_size=1, max_size=10)
entailed = st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)))


def clustered(parts, entails, counts):
    """Cluster answers that arrive in parts; `entails` holds (premise, hypothesis) as indices of texts."""
    clusters = Clusters(question="", equivalence=SameEntailment(model="nli"))
    for part in parts:
        generator = clusters.extend(part)
        try:
            ask = next(generator)
            while True:
                counts.append(len(ask.pairs))
                verdicts = [
                    tuple(TEXTS.index(text.strip()) for text in pair) in entails for pair in ask.pairs
                ]
                ask = generator.send(SimpleNamespace(numbers=np.array(verdicts, dtype=float)))
        except StopIteration:
            pass
    return clusters


def greedy(texts, entails):
    """Reference: the first representative that entails an answer and is entailed by it."""
    representatives, labels = [], []
    for text in texts:
        at = TEXTS.index(text) if text in TEXTS else 0
        same = (i for i, one in enumerate(representatives) if one == at or {(one, at), (at, one)} <= entails)
        label = next(same, len(representatives))
        representatives += [at] if label == len(representatives) else []
        labels.append(label)
    return labels


@given(answers, entailed, st.integers(1, 10))
def test_answers_together_or_one_by_one_form_the_same_groups(texts, entails, size):
    """The groups of the greedy reference, however many answers arrive at a time."""
    # What said the same before goes with it, whatever its representative: so every text is judged once.
    first = [*dict.fromkeys(text if text in TEXTS else TEXTS[0] for text in texts)]
    label = dict(zip(first, greedy(first, entails), strict=True))
    expected = [label[text if text in TEXTS else TEXTS[0]] for text in texts]
    texts = [
        TEXTS[0] if TEXTS[0] not in texts[:at] and text not in TEXTS else text
        for at, text in enumerate(texts)
    ]
    parts = [texts[at : at + size] for at in range(0, len(texts), size)]
    counts, alone = [], []
    assert clustered(parts, entails, counts).labels == expected
    assert clustered([[text] for text in texts], entails, alone).labels == expected
    assert clustered([texts], entails, together := []).pairs == sum(together)
    before = sum(len({label[text] for text in first[:at]}) for at in range(len(first)))
    assert sum(together) <= 2 * before, "at most both directions with every representative before"
    assert len(together) <= len(alone), "together is never slower"


def test_seven_different_answers_take_three_passes_and_no_reverse_pair():
    """21 forward pairs, none of which holds: one representative, then two, then the others."""
    counts = []
    assert clustered([TEXTS], set(), counts).labels == [*range(7)]
    assert counts == [6, 5 + 4, 3 + 2 + 1]


def test_representatives_are_not_compared_with_each_other_again():
    """Two different answers, then two more: each new one is compared with the first, then with the second and the other new one."""
    counts = []
    assert clustered([TEXTS[:2], TEXTS[2:4]], set(), counts).labels == [*range(4)]
    assert counts == [1, 2, 2 + 1]


def test_representatives_are_taken_together_only_after_one_that_matched_nothing():
    """Three wordings of each of two answers: never a pair with an answer that is not a representative."""
    counts = []
    every = {(i, j) for i in range(6) for j in range(6) if i % 2 == j % 2}
    assert clustered([TEXTS[:6]], every, counts).labels == [0, 1] * 3
    assert counts == [5, 2, 2, 2]


def test_an_answer_joins_the_first_of_two_representatives_tried_together():
    """The fourth answer matches the second and the third, which are tried together; its second reverse pair is not compared."""
    counts = []
    both = {(1, 3), (3, 1), (2, 3), (3, 2)}
    assert clustered([TEXTS[:4]], both, counts).labels == [0, 1, 2, 1]
    assert counts == [3, 2 + 1, 1]


def test_seven_wordings_of_one_answer_take_two_passes():
    """All forward pairs at once, then all reverse ones."""
    counts = []
    every = {(i, j) for i in range(7) for j in range(7)}
    assert clustered([TEXTS], every, counts).labels == [0] * 7
    assert counts == [6, 6]
