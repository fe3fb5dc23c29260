"""The two-sample Kolmogorov-Smirnov test: against another implementation, by hand, and where it must refuse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from confroute.stats.arrays import MetricError
from confroute.stats.two_sample import ks_p_value


@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 1000))
def test_the_p_value_is_the_exact_one(n, m, seed):
    """Of sizes with and without common divisors."""
    generator = np.random.default_rng(seed)
    found = ks_2samp(generator.normal(size=n), generator.normal(0.4, size=m), method="exact")
    assert ks_p_value(found.statistic, n, m) == pytest.approx(found.pvalue, abs=1e-9)


@pytest.mark.parametrize(("n", "m"), [(50, 2000), (1000, 999), (3, 5000)])
def test_large_samples_do_not_overflow(n, m):
    """Far more paths than a float can count."""
    generator = np.random.default_rng(0)
    found = ks_2samp(generator.normal(size=n), generator.normal(size=m), method="exact")
    assert ks_p_value(found.statistic, n, m) == pytest.approx(found.pvalue, rel=1e-6)


def test_by_hand():
    """Of 2 and 2 values in 6 orders, two part them wholly, four have a distance of a half."""
    assert ks_p_value(1.0, 2, 2) == pytest.approx(2 / 6)
    assert ks_p_value(0.5, 2, 2) == 1.0


@pytest.mark.parametrize(("distance", "n", "m"), [(-0.1, 3, 3), (1.1, 3, 3), (0.5, 0, 3), (0.5, 3, 0)])
def test_what_is_no_distance_or_no_sample_is_refused(distance, n, m):
    """With the numbers."""
    with pytest.raises(MetricError, match="expected a distance"):
        ks_p_value(distance, n, m)
