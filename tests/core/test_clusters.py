"""Clustering together and one by one: the same groups, never more pairs than representatives ask for."""

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


def clustered(parts, entails, asked):
    """Clusters of answers that come in parts; `entails` holds (premise, hypothesis) as numbers of texts."""
    clusters = Clusters(question="", equivalence=SameEntailment(model="nli"))
    for part in parts:
        asking = clusters.extend(part)
        try:
            ask = next(asking)
            while True:
                asked.append(len(ask.pairs))
                found = [tuple(TEXTS.index(text.strip()) for text in pair) in entails for pair in ask.pairs]
                ask = asking.send(SimpleNamespace(numbers=np.array(found, dtype=float)))
        except StopIteration:
            pass
    return clusters


def greedy(texts, entails):
    """The rule itself: the first representative that entails an answer and is entailed by it."""
    heads, labels = [], []
    for text in texts:
        at = TEXTS.index(text) if text in TEXTS else 0
        same = (i for i, head in enumerate(heads) if head == at or {(head, at), (at, head)} <= entails)
        label = next(same, len(heads))
        heads += [at] if label == len(heads) else []
        labels.append(label)
    return labels


@given(answers, entailed, st.integers(1, 10))
def test_answers_together_or_one_by_one_fall_in_the_same_groups(texts, entails, size):
    """Those of the greedy rule with representatives, both directions required, however many come at a time."""
    # What said the same before goes with it, whatever its representative: so every text is judged once.
    first = [*dict.fromkeys(text if text in TEXTS else TEXTS[0] for text in texts)]
    label = dict(zip(first, greedy(first, entails), strict=True))
    wanted = [label[text if text in TEXTS else TEXTS[0]] for text in texts]
    texts = [
        TEXTS[0] if TEXTS[0] not in texts[:at] and text not in TEXTS else text
        for at, text in enumerate(texts)
    ]
    parts = [texts[at : at + size] for at in range(0, len(texts), size)]
    asked, alone = [], []
    assert clustered(parts, entails, asked).labels == wanted
    assert clustered([[text] for text in texts], entails, alone).labels == wanted
    assert clustered([texts], entails, together := []).pairs == sum(together)
    assert sum(together) <= sum(alone), "what matched is compared no further"


def test_ten_different_answers_take_nine_passes_and_no_reverse_pair():
    """45 forward pairs, none of which holds; seven answers here take 21 in 6."""
    asked = []
    assert clustered([TEXTS], set(), asked).labels == [*range(7)]
    assert asked == [6, 5, 4, 3, 2, 1]


def test_seven_wordings_of_one_answer_take_two_passes():
    """All forward pairs at once, then all reverse ones."""
    asked = []
    every = {(i, j) for i in range(7) for j in range(7)}
    assert clustered([TEXTS], every, asked).labels == [0] * 7
    assert asked == [6, 6]
