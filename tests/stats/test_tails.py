"""Tail probabilities and p-values: against their definitions, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.stats.tails import (
    betting,
    binomial_cdf,
    hoeffding_bentkus,
    hypergeometric_cdf,
    most_failures,
    rows_needed,
)


@pytest.mark.parametrize(
    ("alpha", "limits"),
    [
        (0.01, {300: 0, 500: 1, 1000: 5, 2000: 13}),
        (0.02, {200: 1, 300: 2, 500: 5, 1000: 13, 2000: 31}),
        (0.05, {100: 1, 200: 5, 300: 9, 500: 18, 1000: 40, 2000: 87}),
        (0.10, {100: 5, 200: 14, 300: 22, 500: 40, 1000: 87, 2000: 182}),
    ],
)
def test_most_failures_are_those_of_clopper_and_pearson(alpha, limits):
    """Failures that still certify at delta = 0.1, as computed elsewhere."""
    assert {n: most_failures(n, alpha, 0.1) for n in limits} == limits


def test_rows_needed_without_a_failure():
    """The published numbers of rows, and that one row fewer proves nothing."""
    assert [rows_needed(a, 0.1, horizon=False) for a in (0.01, 0.02, 0.05, 0.10)] == [230, 114, 45, 22]
    for horizon in (False, True):
        n = rows_needed(0.05, 0.1, horizon=horizon)
        limits = [most_failures(m, 0.05, 0.1, horizon=m if horizon else None) for m in (n - 1, n)]
        assert limits == [-1, 0]


@given(st.integers(1, 60), st.floats(0.01, 0.99), st.integers(-2, 61))
def test_binomial_tail_is_the_sum_of_its_terms(n, p, k):
    """Against the definition, term by term."""
    terms = [math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(min(k, n) + 1)]
    assert binomial_cdf(k, n, p) == pytest.approx(math.fsum(terms), abs=1e-12)


@given(st.integers(0, 25), st.integers(0, 25), st.integers(0, 50), st.integers(-1, 26))
def test_hypergeometric_tail_is_the_share_of_subsets(marked, unmarked, drawn, k):
    """Against counting subsets."""
    drawn = min(drawn, marked + unmarked)
    ways = sum(math.comb(marked, i) * math.comb(unmarked, drawn - i) for i in range(min(k, drawn) + 1))
    expected = ways / math.comb(marked + unmarked, drawn)
    assert hypergeometric_cdf(k, marked, unmarked, drawn) == pytest.approx(expected, abs=1e-9)


def test_a_long_horizon_is_the_long_run():
    """The more calls are promised, the nearer the limit comes to the binomial one."""
    limits = [most_failures(400, 0.05, 0.1, horizon=m) for m in (100, 400, 4000, 400_000)]
    assert limits == sorted(limits)
    assert limits[-1] == most_failures(400, 0.05, 0.1)


@given(st.integers(20, 400), st.floats(0.02, 0.3), st.floats(0, 1))
def test_hoeffding_bentkus_is_never_below_the_exact_test(n, alpha, share):
    """On losses of 0 and 1 a bound for all losses in [0, 1] may not claim more than the exact tail."""
    failures = int(share * alpha * n)
    assert hoeffding_bentkus(failures / n, n, alpha) >= binomial_cdf(failures, n, alpha) - 1e-12


@pytest.mark.parametrize(
    ("mean", "n", "p"),
    [
        # No loss: (1 - 0.1)**50 by Hoeffding, which Bentkus multiplies by e.
        (0.0, 50, 0.9**50),
        # Five failures of 100: Bentkus' e * 0.05758 is less than Hoeffding's exp(-100 * 0.016707) = 0.188.
        (0.05, 100, math.e * 0.0575769),
        # Three, and not four for the rounding of a mean: e * 0.007836.
        (0.03 + 1e-12, 100, math.e * 0.0078365),
    ],
)
def test_hoeffding_bentkus_by_hand(mean, n, p):
    """The smaller of both bounds."""
    assert hoeffding_bentkus(mean, n, 0.1) == pytest.approx(p, rel=1e-4)


def test_betting_by_hand():
    """Three values of -1, 0 on the scale of [0, 1], against 0.05, which is 0.525 there, with 2 ln(1 / 0.9) = 0.21072.

    Variances before each: 0.25, (0.25 + 0.25**2) / 2 = 0.15625 and (0.3125 + (1 / 6)**2) / 3 = 0.11343; the stakes are
    sqrt(0.21072 / 3 / variance): 0.53006, 0.67048, 0.78693. The capital is the product of 1 + 0.525 stake: 2.44226.
    At a delta of 0.1 every stake of one value is the most that is allowed, 0.75 / 0.475: 1 + 0.525 * 1.57895.
    """
    assert betting(np.full(3, -1.0), 0.05, 0.9, low=-1.0) == pytest.approx(1 / 2.44226, rel=1e-5)
    assert betting(np.full(1, -1.0), 0.05, 0.1, low=-1.0) == pytest.approx(1 / 1.82895, rel=1e-5)
    # What is lost after the largest capital does not count, nor does a capital that never grew.
    assert betting(np.array([-1.0, 1.0]), 0.05, 0.1, low=-1.0) == pytest.approx(1 / 1.82895, rel=1e-5)
    assert betting(np.array([1.0, -1.0]), 0.05, 0.1, low=-1.0) == 1.0


def test_a_bet_on_a_range_is_a_bet_on_the_unit_interval():
    """Differences in [-1, 1] and the same numbers moved to [0, 1] give one p-value."""
    values = np.random.default_rng(0).uniform(-1, 0.3, 50)
    assert betting(values, 0.05, 0.1, low=-1.0) == pytest.approx(betting((values + 1) / 2, 0.525, 0.1))


LOSSES = {
    "bernoulli": lambda generator, size: generator.random(size) < 0.05,
    "beta": lambda generator, size: generator.beta(0.2, 3.8, size),
    "eleven values": lambda generator, size: np.where(
        generator.random(size) < 0.1, generator.integers(0, 11, size) / 10, 0.0
    ),
    "mass at the ends": lambda generator, size: generator.choice([0.0, 0.5, 1.0], size, p=[0.93, 0.04, 0.03]),
    "constant": lambda generator, size: np.full(size, 0.05),
}


@pytest.mark.slow
@pytest.mark.parametrize("n", [50, 300])
@pytest.mark.parametrize("name", LOSSES)
def test_a_bet_that_is_not_warranted_is_won_as_rarely_as_promised(name, n):
    """Mean losses of exactly alpha, 2,000 draws: a p-value of delta or less in at most delta, up to three standard errors."""
    generator = np.random.default_rng(5)
    drawn = np.asarray(LOSSES[name](generator, (2000, n)), dtype=np.float64)
    false = np.mean([betting(row, 0.05, 0.1) <= 0.1 for row in drawn])
    assert false <= 0.1 + 3 * math.sqrt(0.09 / 2000)
