"""uqlm 0.6.7: equal numbers where it is right, and where it is not."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from confroute.models.nli import entailment_index
from confroute.signals import SameEntailment, semantic_entropy
from confroute.signals.clusters import Clusters, normalised_entropy

CONTRADICTS, ENTAILS = np.array([0.9, 0.05, 0.05]), np.array([0.05, 0.05, 0.9])
CITIES = ["It is Paris then", "It is London then", "It is Paris and London both"]


def judged(uqlm, entailed):
    """Their clusters of CITIES; a pair of places in `entailed` says that the first text entails the second."""
    from uqlm.nli.cluster import SemanticClusterer
    from uqlm.nli.nli import NLI

    nli = NLI.__new__(NLI)  # without weights: what it makes of verdicts is the subject
    nli.label_mapping, nli.probabilities = ["contradiction", "neutral", "entailment"], {}
    nli.predict_batch = lambda pairs: np.array(
        [ENTAILS if (CITIES.index(a), CITIES.index(b)) in entailed else CONTRADICTS for a, b in pairs]
    )
    _, places, _, _ = SemanticClusterer(nli=nli).cluster_responses(responses=CITIES)
    return [list(cluster) for cluster in places]


def ours(entailed):
    """Our labels of the same."""
    clusters = Clusters(question="", equivalence=SameEntailment(model="nli"))
    asking = clusters.extend(CITIES)
    try:
        ask = next(asking)
        while True:
            found = [(CITIES.index(a.strip()), CITIES.index(b.strip())) in entailed for a, b in ask.pairs]
            ask = asking.send(SimpleNamespace(numbers=np.array(found, dtype=float)))
    except StopIteration:
        return clusters.labels


def test_entropy_of_the_same_clusters_is_equal(uqlm):
    """Counted and weighed by length-normalised probability; theirs is put on log(n + 1), ours on log(n)."""
    from uqlm.nli.entropy_utils import (
        compute_cluster_probabilities,
        compute_response_probabilities,
        compute_semantic_entropy,
        normalize_entropy,
    )

    generator = np.random.default_rng(0)
    for _ in range(100):
        n = int(generator.integers(2, 9))
        answers = [f"word{generator.integers(4)}" for _ in range(n)]
        logprobs = [(-generator.exponential(size=generator.integers(1, 6))).tolist() for _ in range(n)]
        clusters = [[i for i in range(n) if answers[i] == word] for word in dict.fromkeys(answers)]
        weighed, counted = compute_response_probabilities(
            [[{"logprob": v} for v in one] for one in logprobs], n
        )
        for weights, given in ((counted, None), (weighed, logprobs)):
            theirs = compute_semantic_entropy(compute_cluster_probabilities(weights, clusters))
            assert semantic_entropy(answers, logprobs=given) * math.log(n) == pytest.approx(theirs, abs=1e-9)
            assert normalize_entropy([theirs], n)[0] == pytest.approx(theirs / math.log(n + 1))


def test_clusters_are_equal_where_entailment_goes_both_ways(uqlm):
    """Two wordings of one city and another city."""
    both = {(0, 2), (2, 0)}
    assert judged(uqlm, both) == [[0, 2], [1]]
    assert ours(both) == [0, 1, 0]


def test_wrong_there_one_direction_is_enough_and_an_answer_joins_two_clusters(uqlm):
    """ "Paris and London" entails "Paris" and "London", not the reverse: clusters [0, 2] and [1, 2] there, three here."""
    one_way = {(2, 0), (2, 1)}
    assert judged(uqlm, one_way) == [[0, 2], [1, 2]]
    assert ours(one_way) == [0, 1, 2]
    from uqlm.nli.entropy_utils import compute_cluster_probabilities, compute_semantic_entropy

    shares = compute_cluster_probabilities([1 / 3] * 3, [[0, 2], [1, 2]])
    assert compute_semantic_entropy(shares) == pytest.approx(0.693, abs=1e-3)
    assert normalised_entropy([1, 1, 1], 3) == 1.0


def test_wrong_there_the_order_of_labels_is_assumed(uqlm, tmp_path):
    """A model whose first label is entailment: there it is read as contradiction, here from its configuration."""
    transformers = pytest.importorskip("transformers")
    from uqlm.nli.nli import NLI

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]))
    transformers.BertTokenizer(str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    labels = {0: "entailment", 1: "neutral", 2: "contradiction"}
    config = transformers.BertConfig(
        vocab_size=7, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    config.id2label, config.label2id = labels, {name: at for at, name in labels.items()}
    network = transformers.BertForSequenceClassification(config).eval()
    network.classifier.bias.data[:] = network.classifier.bias.new_tensor(
        [50.0, 0.0, 0.0]
    )  # always entailment
    network.save_pretrained(tmp_path)
    found = NLI(device="cpu", nli_model_name=str(tmp_path)).get_nli_results("a", "b")
    assert not found["entailment"]
    assert entailment_index(config, "reversed") == 0
