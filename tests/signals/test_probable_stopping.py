"""Stopping by P(flip): never wrong at eps 0, wrong with a rate of at most eps under the true prior."""

import itertools

import numpy as np
import pytest

from confroute import Cascade, Gate, SelfConsistency, Threshold
from confroute.decision import without_noise
from confroute.errors import CalibrationError, PolicyError
from confroute.signals import BetaBinomial


def course(prior, answers, threshold):
    """The decision, and the number of samples drawn, for one sequence; True stands for a disagreeing sample."""
    n, apart = len(answers), 0

    def settled(low, high):
        return not low <= threshold < high

    for drawn, other in enumerate(answers, 1):
        apart += other
        probable = prior.probable_range(apart, drawn, n, settled)
        if probable is not None:
            assert settled(*probable), "every share of the range leads to the same decision"
            return probable[1] <= threshold, drawn
    raise AssertionError


def test_without_a_tolerance_no_decision_changes():
    """All sequences of 7 samples at all thresholds: the decision of all samples."""
    exact = BetaBinomial(a=1, b=1, eps=0.0)
    for answers in itertools.product((False, True), repeat=7):
        for threshold in (0.0, 0.2, 0.5, 0.9):
            keep, drawn = course(exact, answers, threshold)
            assert keep == (sum(answers) / 7 <= threshold)
            assert drawn <= 7


@pytest.mark.parametrize(("a", "b"), [(0.03, 0.7), (0.3, 0.7), (1, 1), (31.6, 0.1)])
def test_without_a_tolerance_it_stops_where_nothing_can_change(a, b):
    """At each count of 10, exactly when every completion leads to the same decision; the range covers all completions."""
    exact = BetaBinomial(a=a, b=b, eps=0.0)
    for threshold in (0.0, 0.2, 0.45, 0.9):
        for drawn in range(1, 11):
            for apart in range(drawn + 1):
                least, most = apart / 10, (apart + 10 - drawn) / 10
                same = most <= threshold or least > threshold
                probable = exact.probable_range(
                    apart, drawn, 10, lambda low, high, t=threshold: not low <= t < high
                )
                assert probable == ((least, most) if same else None)


THIRD = without_noise(1 / 3)


@pytest.mark.parametrize(
    ("eps", "expected"),
    [
        # At a = b = 1 every number of the three to come is equally likely: 1/4 each.
        (0.49, None),
        (0.51, (0.0, THIRD)),
    ],
)
def test_a_range_by_hand(eps, expected):
    """None of 3 drawn under a flat prior: shares 0 and 1/3 stay below 0.5 and together have half the probability."""
    flat = BetaBinomial(a=1, b=1, eps=eps)
    assert flat.probable_range(0, 0, 3, lambda low, high: not low <= 0.5 < high) == expected


def test_samples_so_far_move_the_range():
    """After one of one agrees, Beta(1, 2): of the next two, none, one or both disagree with probability 1/2, 1/3 and 1/6."""
    for eps, expected in ((0.16, None), (0.17, (0.0, THIRD))):
        flat = BetaBinomial(a=1, b=1, eps=eps)
        assert flat.probable_range(0, 1, 3, lambda low, high: not low <= 0.5 < high) == expected
    # And after one of one disagrees, Beta(2, 1), the other way round.
    for eps, expected in ((0.16, None), (0.17, (without_noise(2 / 3), 1.0))):
        flat = BetaBinomial(a=1, b=1, eps=eps)
        assert flat.probable_range(1, 1, 3, lambda low, high: not low <= 0.5 < high) == expected


def test_a_rate_is_fitted_in_closed_form():
    """One sample per call determines only the mean a / (a + b); 2 of 20 is 0.1, between ratios a / b of 0.1 and 0.133 of the grid.

    18 ln(1 - p) + 2 ln(p) is -6.511 at p = 1 / 11 and -6.533 at the next, 0.1177. Twenty calls are enough.
    """
    prior = BetaBinomial.fit([0] * 18 + [1] * 2, [1] * 20)
    assert prior.a / prior.b == pytest.approx(0.1, rel=1e-3)
    assert prior.eps == 0.05


@pytest.mark.parametrize("eps", [0.05, 0.2])
def test_under_the_true_prior_it_is_wrong_at_most_eps(eps):
    """Rates drawn from the prior: flips stay below eps, with fewer samples than exact stopping."""
    generator = np.random.default_rng(0)
    prior, exact = BetaBinomial(a=0.4, b=0.6, eps=eps), BetaBinomial(a=0.4, b=0.6, eps=0.0)
    flips, drawn, full = 0, 0, 0
    for rate in generator.beta(0.4, 0.6, 2000):
        answers = (generator.random(10) < rate).tolist()
        keep, k = course(prior, answers, 0.45)
        flips += keep != (sum(answers) / 10 <= 0.45)
        drawn, full = drawn + k, full + course(exact, answers, 0.45)[1]
    assert flips / 2000 <= eps
    assert drawn < 0.8 * full


def test_the_prior_is_recovered():
    """Fitted to counts drawn from a beta-binomial, the mean rate and its spread come back."""
    generator = np.random.default_rng(0)
    counts = generator.binomial(10, generator.beta(0.5, 1.5, 3000))
    prior = BetaBinomial.fit(counts.tolist(), [10] * 3000)
    assert prior.a / (prior.a + prior.b) == pytest.approx(0.25, abs=0.02)
    assert prior.a + prior.b == pytest.approx(2, rel=0.35)


def test_a_policy_file_keeps_it(tmp_path):
    """The saved policy loads as an equal one."""
    signal = SelfConsistency(n=10, stop=BetaBinomial(a=0.3, b=0.7))
    policy = Cascade(gates=(Gate(signal=signal, threshold=Threshold(value=0.4)),))
    policy.save(tmp_path / "policy.json")
    assert Cascade.load(tmp_path / "policy.json") == policy


def test_invalid_priors_are_refused():
    """Shapes of 0, an eps of 1, too few calls, more disagreeing samples than drawn."""
    for bad in (
        {"a": 0, "b": 1},
        {"a": 1, "b": 0},
        {"a": 1, "b": 1, "eps": 1.0},
        {"a": 1, "b": 1, "eps": -0.1},
    ):
        with pytest.raises(PolicyError, match="expected shapes above 0"):
            BetaBinomial(**bad)
    for counts in ([1] * 19, [11] * 20, [-1] * 20):
        with pytest.raises(CalibrationError, match="at least 20"):
            BetaBinomial.fit(counts, [10] * len(counts))
