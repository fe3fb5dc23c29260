"""Stopping semantic entropy by P(flip): never wrong at eps 0, wrong with a rate of at most eps under the true prior."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest

from confroute import Cascade, Gate, Message, Request, SelfConsistency, SemanticEntropy, Threshold
from confroute.errors import CalibrationError, PolicyError
from confroute.executor import run
from confroute.signals import BetaBinomial, EwensMixture
from confroute.signals.clusters import normalised_entropy
from confroute.signals.stopping import MOST_ANSWERS, final_entropies
from confroute.testing import ScriptedCalls, ScriptedModel


def entropy(answers):
    """The entropy of a list of answers."""
    return normalised_entropy([*Counter(answers).values()], len(answers))


def course(prior, answers, threshold):
    """The decision, and the number of samples drawn, for one sequence of answers."""

    def settled(low, high):
        return not low <= threshold < high

    for drawn in range(1, len(answers) + 1):
        counts = [*Counter(answers[:drawn]).values()]
        probable = prior.probable_range(counts, len(answers), settled)
        if probable is not None:
            assert settled(*probable), "every entropy of the range leads to the same decision"
            return probable[1] <= threshold, drawn
    raise AssertionError


def restaurant(generator, concentration, n):
    """Draw n answers of a model with this concentration."""
    answers = []
    for m in range(n):
        new = generator.random() < concentration / (concentration + m)
        answers.append(len(set(answers)) if new else answers[generator.integers(m)])
    return answers


def test_without_a_tolerance_no_decision_changes():
    """All sequences of 6 samples with up to three meanings, at several thresholds: the decision of all samples."""
    exact = EwensMixture(concentrations=(0.1, 1.0), weights=(0.5, 0.5), eps=0.0)
    for answers in itertools.product("abc", repeat=6):
        for threshold in (0.0, 0.3, 0.55, 0.9):
            keep, _ = course(exact, answers, threshold)
            assert keep == (entropy(answers) <= threshold)


def test_the_distribution_of_final_entropies_is_that_of_simulated_answers():
    """From two answers that agree and one that does not, to six."""
    finals = dict(final_entropies((0.7,), (1.0,), (1, 2), 6))
    assert sum(finals.values()) == pytest.approx(1.0)
    generator, simulated = np.random.default_rng(0), Counter()
    for _ in range(6000):
        counts = [2, 1]
        for m in range(3, 6):
            at = generator.choice(len(counts) + 1, p=np.array([*counts, 0.7]) / (0.7 + m))
            counts = [c + (i == at) for i, c in enumerate([*counts, 0])]
            counts = [c for c in counts if c]
        simulated[round(normalised_entropy(sorted(counts), 6), 9)] += 1
    assert {round(value, 9) for value in finals} == set(simulated)
    for value, probability in finals.items():
        assert simulated[round(value, 9)] / 6000 == pytest.approx(probability, abs=0.02)


@pytest.mark.parametrize("eps", [0.05, 0.2])
def test_under_the_true_prior_it_is_wrong_at_most_eps(eps):
    """Two kinds of calls, certain and guessing: flips stay below eps, with fewer samples than exact stopping."""
    generator = np.random.default_rng(0)
    shape = {"concentrations": (0.05, 3.0), "weights": (0.6, 0.4)}
    prior, exact = EwensMixture(**shape, eps=eps), EwensMixture(**shape, eps=0.0)
    flips, drawn, full = 0, 0, 0
    for _ in range(400):
        answers = restaurant(generator, generator.choice([0.05, 3.0], p=[0.6, 0.4]), 8)
        keep, k = course(prior, answers, 0.5)
        flips += keep != (entropy(answers) <= 0.5)
        drawn, full = drawn + k, full + course(exact, answers, 0.5)[1]
    assert flips / 400 <= eps
    assert drawn < 0.8 * full


def test_the_mixture_is_recovered():
    """Fitted to counts drawn from a mixture, it predicts the number of meanings."""
    generator = np.random.default_rng(0)
    calls = [restaurant(generator, generator.choice([0.01, 3.0]), 10) for _ in range(1500)]
    meanings = [len(set(answers)) for answers in calls]
    prior = EwensMixture.fit(meanings, [10] * len(calls))
    one = float(np.mean([k == 1 for k in meanings]))
    finals = dict(final_entropies(prior.concentrations, prior.weights, (1,), 10))
    assert finals[0.0] == pytest.approx(one, abs=0.03)
    assert sum(
        w for c, w in zip(prior.concentrations, prior.weights, strict=True) if c < 0.2
    ) == pytest.approx(0.5, abs=0.1)


def test_equal_calls_weigh_concentrations_by_their_likelihood():
    """If all calls are equal, each of the 200 rounds multiplies a weight by that concentration's likelihood.

    Ten samples of one meaning have the likelihood 9! / ((c + 1) ... (c + 9)). Twenty calls are enough.
    """
    prior = EwensMixture.fit([1] * 20, [10] * 20)
    assert len(prior.concentrations) == 11
    assert prior.concentrations[0] == 0.001
    assert prior.concentrations[-1] == 100
    raised = [math.prod(m / (c + m) for m in range(1, 10)) ** 200 for c in prior.concentrations]
    assert prior.weights == pytest.approx([w / sum(raised) for w in raised], abs=2e-6)
    assert prior.eps == 0.05
    # Ten samples of ten meanings are possible too, and most like the largest.
    assert max(EwensMixture.fit([10] * 20, [10] * 20).weights) == pytest.approx(1.0, abs=1e-3)


def test_a_range_by_hand():
    """One answer of three at concentration 1: all agree with 1/2 * 2/3 = 1/3; two that agree are the next entropy, 0.579."""
    two = (math.log(3) - 2 / 3 * math.log(2)) / math.log(3)
    for eps, expected in ((0.33, None), (0.34, pytest.approx((two, 1.0)))):
        prior = EwensMixture(concentrations=(1.0,), weights=(1.0,), eps=eps)
        assert prior.probable_range([1], 3, lambda low, high: not low <= 0.3 < high) == expected


def test_a_call_updates_its_concentration():
    """Two meanings of two samples: c / (1 + c) is 1/4 at 1/3 and 3/4 at 3, so that 3 weighs three times as much.

    The third answer joins either meaning with 2 / (2 + c): (1/4 * 2 / (7/3) + 3/4 * 2 / 5).
    """
    finals = final_entropies((1 / 3, 3.0), (0.5, 0.5), (1, 1), 3)
    assert [value for value, _ in finals] == pytest.approx(
        [(math.log(3) - 2 / 3 * math.log(2)) / math.log(3), 1.0]
    )
    joined = 1 / 4 * 6 / 7 + 3 / 4 * 2 / 5
    assert [chance for _, chance in finals] == pytest.approx([joined, 1 - joined])


def test_a_policy_draws_fewer_samples_with_it(tmp_path):
    """Three agreeing answers of ten suffice for a model that mostly agrees with itself; the policy file keeps the prior."""
    prior = EwensMixture(concentrations=(0.001, 5.0), weights=(0.9, 0.1))
    drawn = []
    for stop in (None, prior):
        signal = SemanticEntropy(n=10, stop=stop)
        policy = Cascade(gates=(Gate(signal=signal, threshold=Threshold(value=0.4)),))
        policy.save(tmp_path / "policy.json")
        assert Cascade.load(tmp_path / "policy.json") == policy
        models = {"edge": ScriptedModel(["Paris"], samples=["Paris"]), "cloud": ScriptedModel(["Lyon"])}
        request = Request(messages=(Message(role="user", text="Capital?"),))
        decision = run(policy, request, ScriptedCalls(models=models).call(request), {}).decision
        assert decision.route == "edge"
        drawn.append(decision.signals["semantic_entropy"].details["drawn"])
    assert drawn[1] <= 3 < drawn[0]


def test_the_ways_of_thirty_samples_are_counted_in_time_and_more_are_refused():
    """Partitions grow exponentially; a policy with more samples is refused when it is made, not after minutes of a call."""
    prior = EwensMixture(concentrations=(0.01, 1.0, 30.0), weights=(0.4, 0.3, 0.3))
    finals = final_entropies(prior.concentrations, prior.weights, (1,), MOST_ANSWERS)
    assert len(finals) > 3000
    assert sum(chance for _, chance in finals) == pytest.approx(1.0)
    assert SemanticEntropy(n=MOST_ANSWERS - 1, stop=prior).n == 30
    assert SemanticEntropy(n=MOST_ANSWERS).n == 31
    with pytest.raises(PolicyError, match="at most 30 samples"):
        SemanticEntropy(n=MOST_ANSWERS, stop=prior)
    with pytest.raises(PolicyError, match="at most 31"):
        prior.probable_range([1], MOST_ANSWERS + 1, lambda low, high: False)


def test_decisions_name_the_data_of_their_prior(tmp_path):
    """Both priors, whether they stopped the draw or not."""
    for signal, prior in (
        (SemanticEntropy, EwensMixture.fit([1, 5] * 10, [6] * 20, source="gsm8k.jsonl")),
        (SelfConsistency, BetaBinomial.fit([0, 5] * 10, [5] * 20, source="gsm8k.jsonl")),
    ):
        policy = Cascade.of(signal(n=5, stop=prior), 0.4)
        policy.save(tmp_path / "policy.json")
        assert Cascade.load(tmp_path / "policy.json") == policy
        models = {"edge": ScriptedModel(["Paris"], samples=["Paris"]), "cloud": ScriptedModel(["Lyon"])}
        request = Request(messages=(Message(role="user", text="Capital?"),))
        decision = run(policy, request, ScriptedCalls(models=models).call(request), {}).decision
        assert decision.signals[policy.gates[0].signal.name].details["prior"] == "gsm8k.jsonl"


def test_invalid_priors_are_refused():
    """A concentration of 0, weights of another length, too few calls, no meaning, and the probability weighting."""
    for bad in (
        {"concentrations": (0.0,), "weights": (1.0,)},
        {"concentrations": (1.0,), "weights": ()},
        {"concentrations": (1.0,), "weights": (0.0,)},
        {"concentrations": (1.0, 2.0), "weights": (1.0, -0.5)},
        {"concentrations": (), "weights": ()},
        {"concentrations": (1.0,), "weights": (1.0,), "eps": 1.0},
        {"concentrations": (1.0,), "weights": (1.0,), "eps": -0.1},
    ):
        with pytest.raises(PolicyError, match="expected concentrations above 0"):
            EwensMixture(**bad)
    for counts in ([1] * 19, [0] * 20, [11] * 20):
        with pytest.raises(CalibrationError, match="at least 20"):
            EwensMixture.fit(counts, [10] * len(counts))
    with pytest.raises(PolicyError, match="discrete"):
        SemanticEntropy(weighting="probability", stop=EwensMixture(concentrations=(1.0,), weights=(1.0,)))
