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
    with pytest.raises(CalibrationError, match="not a finite number"):
        Threshold.fit(doubt, [*RIGHT[:7], bad])
    with pytest.raises(CalibrationError, match="not a finite number"):
        Threshold.fit(doubt, RIGHT, [bad, *[1] * 7])
    with pytest.raises(CalibrationError, match="price is"):
        Threshold.fit(doubt, RIGHT, price=bad)


@given(st.lists(st.floats(0, 1e-11), min_size=8, max_size=8, unique=True))
def test_the_fitted_threshold_keeps_what_it_was_chosen_for(doubt):
    """However close two neighbouring values lie, what stands below the threshold is the four right ones."""
    found = Threshold.fit(sorted(doubt), RIGHT)
    assert int((np.array(doubt) <= found.value).sum()) == 4


@pytest.mark.parametrize(
    ("values", "share", "value", "told"),
    [
        (range(1, 9), 0.0, 8.0, "0% cloud share on 8 recorded calls"),
        (range(1, 9), 0.25, 6.0, "25% cloud share on 8 recorded calls"),
        # Of what these values can meet, a half is the nearest.
        ([1, 1, 1, 1, 2, 2, 2, 3], 0.45, 1.0, "50% cloud share on 8 recorded calls"),
    ],
)
def test_a_share_by_hand(values, share, value, told):
    """The value of the last call that is kept, and the share that it really gives."""
    found = Threshold.for_cloud_share(list(values), share=share)
    assert (found.value, found.source) == (value, told)


def test_calls_that_go_on_whatever_the_threshold_are_part_of_the_share():
    """Two of ten were not measured: the other three of a half come from the threshold, and less than two cannot be."""
    found = Threshold.for_cloud_share(range(8), share=0.5, always=2)
    assert (found.value, found.source) == (4.0, "50% cloud share on 10 recorded calls")
    with pytest.raises(CalibrationError, match="2 of 10 calls go to the cloud whatever the threshold"):
        Threshold.for_cloud_share(range(8), share=0.1, always=2)
    # 0.29 * 100 is below 29 by rounding.
    assert Threshold.for_cloud_share(range(71), share=0.29, always=29).value == 70


@pytest.mark.parametrize("share", [0.05, 0.3, 0.6])
def test_a_share_that_a_coarse_signal_cannot_meet_is_refused_with_those_that_it_can(share):
    """Eleven values, of which the lowest holds half of the calls and the highest a sixth."""
    values = [0.0] * 50 + [0.1 * k for k in range(1, 10) for _ in range(2)] + [1.0] * 32
    with pytest.raises(CalibrationError, match=r"11 values.*: 0\.000, 0\.320|0\.320, 0\.340|0\.480, 0\.500"):
        Threshold.for_cloud_share(values, share=share if share != 0.3 else 0.2, tolerance=0.05)
    assert Threshold.for_cloud_share(values, share=0.32, tolerance=0.05).value == pytest.approx(0.9)
    assert Threshold.for_cloud_share(values, share=0.2).source == "32% cloud share on 100 recorded calls"


@pytest.mark.parametrize(
    ("share", "words"), [(-0.1, "expected a number"), (1.1, "expected a number"), (1, "keeps none")]
)
def test_shares_that_cannot_be_are_refused(share, words):
    """Below 0, above 1, and all of them."""
    with pytest.raises(CalibrationError, match=words):
        Threshold.for_cloud_share(range(8), share=share)


@pytest.mark.parametrize(
    ("edge", "settings", "value"),
    [
        # Kept, the last one loses 1 - 0.1 - 0.85 = 0.05; at a price of 0.2 it gains as much, and all are kept.
        ([1] * 7 + [0.85], {}, 6.5),
        ([1] * 7 + [0.85], {"price": 0.2}, 7.0),
        # A single answer is worth 0.1.
        ([1] + [0] * 7, {}, 0.5),
        # The last four neither gain nor lose, and a tie is the cloud's.
        ([1] * 4 + [0.75] * 4, {"price": 0.25}, 3.5),
        # Against a cloud that is wrong as well, a wrong answer saves the price.
        ([1] * 4 + [0] * 4, {"cloud_quality": [1] * 4 + [0] * 2 + [1] * 2}, 5.5),
    ],
)
def test_the_best_threshold_by_hand(edge, settings, value):
    """Uncertainties 0 to 7: the midpoint after the last answer worth keeping, or the last value."""
    assert Threshold.fit(range(8), edge, **settings).value == value
    assert Threshold.fit([*range(8)][::-1], edge[::-1], **mirrored(settings)).value == value


def mirrored(settings):
    """The same rows from the last to the first."""
    return {name: given[::-1] if isinstance(given, list) else given for name, given in settings.items()}


def test_a_threshold_does_not_part_equal_uncertainties():
    """Keeping the first of two equals is best and impossible: with both 0.9 - 0.1 is lost, so neither is kept."""
    assert Threshold.fit([1, 1, 2, 2, 3, 3, 4, 4], [1, 1, 1, 0, 0, 0, 0, 0]).value == 1.5


def test_fitted_thresholds():
    """The best point between kept and sent, checked by trying every other."""
    uncertainty = [0.1, 0.5, 0.2, 0.9, 0.4, 0.3, 0.7, 0.6]
    edge = [1, 1, 1, 0, 1, 0, 0, 0]
    cloud = [1, 1, 1, 1, 1, 0, 1, 1]
    fitted = Threshold.fit(uncertainty, edge, cloud, price=0.1)

    def worth(threshold):
        return sum(e if u <= threshold else c - 0.1 for u, e, c in zip(uncertainty, edge, cloud, strict=True))

    assert worth(fitted.value) == max(worth(t / 100) for t in range(-1, 101))
    assert "8 recorded calls" in fitted.source


@pytest.mark.parametrize(
    "call",
    [
        lambda: Threshold.fit([0.1] * 7, [1] * 7),
        lambda: Threshold.fit([0.1] * 8, [1] * 7),
        lambda: Threshold.fit([float("nan")] * 8, [1] * 8),
        lambda: Threshold.fit([0.1] * 8, [0] * 8),
        lambda: Threshold.for_cloud_share([0.1] * 8, share=1.2),
        lambda: Threshold.for_cloud_share([0.1] * 8, share=1.0),
    ],
    ids=["few", "uneven", "nan", "edge never right", "share above 1", "share keeps none"],
)
def test_calibrations_that_cannot_be_met_raise(call):
    """With the numbers, instead of a threshold that means nothing."""
    with pytest.raises(CalibrationError, match=r"\d"):
        call()
