"""Thresholds from recorded calls: what they keep, and what they refuse."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute import Threshold
from confroute.errors import CalibrationError

RIGHT = [1, 1, 1, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_qualities_and_prices_that_are_no_numbers_are_refused(bad):
    """A NaN is the greatest of all to an argmax: the threshold would be where the first one stands."""
    doubt = [n / 10 for n in range(8)]
    with pytest.raises(CalibrationError, match="no finite number"):
        Threshold.fit(doubt, [*RIGHT[:7], bad])
    with pytest.raises(CalibrationError, match="no finite number"):
        Threshold.fit(doubt, RIGHT, [bad, *[1] * 7])
    with pytest.raises(CalibrationError, match="price is"):
        Threshold.fit(doubt, RIGHT, price=bad)


@given(st.lists(st.floats(0, 1e-11), min_size=8, max_size=8, unique=True))
def test_the_fitted_threshold_keeps_what_it_was_chosen_for(doubt):
    """However close two neighbouring values lie, what stands below the threshold is the four right ones."""
    found = Threshold.fit(sorted(doubt), RIGHT)
    assert int((np.array(doubt) <= found.value).sum()) == 4
