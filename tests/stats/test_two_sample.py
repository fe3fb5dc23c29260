"""The two-sample Kolmogorov-Smirnov test: against another implementation, by hand, and where it must refuse."""

import math

import numpy as np
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st
from scipy.stats import ks_2samp, kstwobign

from confroute.stats.arrays import MetricError
from confroute.stats.two_sample import _bound, _leaving, ks_p_value


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_the_p_value_is_the_exact_one(n, m, seed):
    """Of sizes with and without common divisors."""
    generator = np.random.default_rng(seed)
    try:
        found = ks_2samp(generator.normal(size=n), generator.normal(0.4, size=m), method="exact")
    except RuntimeWarning:
        # Where rounding brings its probability above 1, scipy gives another method's.
        reject()
    assert ks_p_value(found.statistic, n, m) == pytest.approx(found.pvalue, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(50, 2000), (1000, 999), (3, 5000)])
def test_large_samples_do_not_overflow(n, m):
    """Far more paths than a float can count."""
    generator = np.random.default_rng(0)
    found = ks_2samp(generator.normal(size=n), generator.normal(size=m), method="exact")
    assert ks_p_value(found.statistic, n, m) == pytest.approx(found.pvalue, rel=1e-6)


@pytest.mark.parametrize(("n", "m"), [(20, 3000), (400, 700), (2000, 1500), (10_000, 5000)])
def test_samples_without_a_common_value_are_told_apart_at_any_size(n, m):
    """A wide band holds paths of which most are more than a float can hold times as many as others."""
    assert ks_p_value(1.0, n, m) < 1e-12
    assert ks_p_value(0.5, n, m) < 1e-3
    unit = math.sqrt(1 / n + 1 / m)
    found = [ks_p_value(min(1.0, share * unit), n, m) for share in (0.5, 1.0, 2.0, 5.0, 9.0)]
    assert found == sorted(found, reverse=True)
    # The limit for large samples.
    assert found[1] == pytest.approx(kstwobign.sf(1.0), rel=0.2)


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0.05, 1.0))
def test_the_bound_for_distances_beyond_doubt_is_none_too_low(n, m, distance):
    """Which is taken where it is below 1e-12: nowhere is it below the probability itself."""
    steps = math.ceil(distance * n * m)
    assert _leaving(*sorted((n, m)), steps) <= _bound(distance, n, m) * (1 + 1e-9)


def test_by_hand():
    """Of 2 and 2 values in 6 orders, two part them wholly, four have a distance of a half."""
    assert ks_p_value(1.0, 2, 2) == pytest.approx(2 / 6)
    assert ks_p_value(0.5, 2, 2) == 1.0


@pytest.mark.parametrize(("distance", "n", "m"), [(-0.1, 3, 3), (1.1, 3, 3), (0.5, 0, 3), (0.5, 3, 0)])
def test_what_is_no_distance_or_no_sample_is_refused(distance, n, m):
    """With the numbers."""
    with pytest.raises(MetricError, match="expected a distance"):
        ks_p_value(distance, n, m)
