"""lm-polygraph 0.7.0: equal numbers where it is right, and where it is not."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from confroute.signals import SameEntailment, semantic_entropy, token_nll
from confroute.signals.clusters import Clusters, normalised_entropy
from confroute.signals.graph import degree, soft_count
from confroute.signals.token_entropy import entropy_bounds

TEXTS = [f"some answer in words number {word}" for word in ("one", "two", "three", "four", "five", "six")]


def clustered(entailed):
    """Our clusters of TEXTS; `entailed[i, j]` says whether text i entails text j."""
    clusters = Clusters(question="", equivalence=SameEntailment(model="nli"))
    asking = clusters.extend(TEXTS)
    try:
        ask = next(asking)
        while True:
            found = [entailed[TEXTS.index(a.strip()), TEXTS.index(b.strip())] for a, b in ask.pairs]
            ask = asking.send(SimpleNamespace(numbers=np.array(found, dtype=float)))
    except StopIteration:
        return clusters


def theirs(entailed):
    """Their clusters of the same texts."""
    from lm_polygraph.stat_calculators.semantic_classes import SemanticClassesCalculator

    stats = {
        "sample_texts": [TEXTS],
        "semantic_matrix_classes": np.where(entailed, 2, 0)[None],
        "entailment_id": 2,
    }
    return SemanticClassesCalculator()(stats, [""], None)


def test_token_statistics_are_equal(polygraph):
    """Perplexity (their name for the mean), sequence probability, and entropy of whole distributions."""
    from lm_polygraph.stat_calculators.entropy import EntropyCalculator

    generator = np.random.default_rng(0)
    logprobs = -generator.exponential(size=40)
    stats = {"greedy_log_likelihoods": [logprobs]}
    ours = token_nll(tuple(logprobs))
    assert polygraph.Perplexity()(stats)[0] == pytest.approx(ours["mean"])
    assert polygraph.MaximumSequenceProbability()(stats)[0] == pytest.approx(ours["sum"])
    whole = np.log(generator.dirichlet(np.full(30, 0.2), size=8) + 1e-300)
    entropies = EntropyCalculator()({"greedy_log_probs": [whole]})["entropy"][0]
    assert [entropy_bounds(row, vocabulary=30)[0] for row in whole] == pytest.approx(entropies, abs=1e-5)


def test_clusters_and_counted_entropy_are_equal(polygraph):
    """Both require both directions with the first answer of a cluster: 300 random verdicts, one partition, one entropy."""
    generator = np.random.default_rng(0)
    for share in np.linspace(0, 1, 300):
        entailed = (generator.random((6, 6)) < share) | np.eye(6, dtype=bool)
        ours, found = clustered(entailed), theirs(entailed)
        labels = found["semantic_classes_entail"]["sample_to_class"][0]
        assert ours.labels == [labels[place] for place in range(6)]
        stats = {"sample_texts": [TEXTS], **found}
        counted = polygraph.SemanticEntropy(class_probability_estimation="frequency")(stats)[0]
        assert normalised_entropy(ours.counts, 6) * math.log(6) == pytest.approx(counted)


def test_graph_measures_are_equal(polygraph):
    """Sum of eigenvalues as it is; degree up to our factor m / (m - 1), with which it reaches 1."""
    generator = np.random.default_rng(0)
    for _ in range(50):
        half = np.triu(generator.random((6, 6)), 1)
        matrix = half + half.T + np.eye(6)
        stats = {"sample_texts": [TEXTS], "semantic_matrix_entail": matrix[None]}
        assert soft_count(matrix) == pytest.approx(polygraph.EigValLaplacian()(stats)[0])
        assert degree(matrix) * 5 / 6 == pytest.approx(polygraph.DegMat()(stats)[0])


def test_wrong_there_entropy_below_zero(polygraph):
    """Twenty equal answers of probability 0.2: -1.386 by default and -110.9 "direct"; an entropy is 0 or more, and ours is 0."""
    stats = {
        "sample_texts": [["Paris"] * 20],
        "sample_log_probs": [[math.log(0.2)] * 20],
        "semantic_classes_entail": {
            "class_to_sample": {0: [[*range(20)]]},
            "sample_to_class": {0: dict.fromkeys(range(20), 0)},
        },
    }
    assert polygraph.SemanticEntropy()(stats)[0] == pytest.approx(-1.386, abs=1e-3)
    assert polygraph.SemanticEntropy(entropy_estimation="direct")(stats)[0] == pytest.approx(-110.9, abs=0.05)
    assert semantic_entropy(["Paris"] * 20, logprobs=[[math.log(0.2)]] * 20) == 0.0


def test_wrong_there_monte_carlo_dropout_and_ensembles_do_not_run(polygraph):
    """Documented, and refused where their statistics are computed."""
    from lm_polygraph.stat_calculators.ensemble_token_data import EnsembleTokenLevelDataCalculator

    with pytest.raises(NotImplementedError):
        EnsembleTokenLevelDataCalculator()({}, [""], None)
