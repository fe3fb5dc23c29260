"""Calls to come, by hand: an even window has 48 parts, so a rate of 48 is one call a part."""

import pytest

from confroute.budget.pacing import PARTS, begun, counted, passed, to_come, turned


def after(*arrivals):
    """The record after so many calls in each of the window's first parts."""
    rest = [0] * (PARTS - len(arrivals))
    return begun() | {"calls": sum(arrivals), "arrivals": [*arrivals, *rest]}


@pytest.mark.parametrize(
    ("record", "part", "expected", "profile", "calls"),
    [
        # Nothing seen: all that is expected, less the last 0.005 of the traffic.
        (begun(), 0.0, 100, (), 99.5),
        # As even as can be: 48 a window, of which 0.5 - 0.005 is to come, and no scatter.
        (after(*[1] * 24), 0.5, None, (), 23.76),
        # (100 * 0.1 + 24) / (0.1 + 0.5) = 56.667, less 0.5**3 of its distance to the last part's 48: 55.583. Of that 0.495 is
        # 27.514; each part was 55.583 / 48 - 1 = 0.158 off, and sqrt(24 parts) times that is 0.774.
        (after(*[1] * 24), 0.5, 100, (), 26.740),
        # None lately: 48 - 0.5**3 * 48 = 42. It scatters so much that the least share, 0.6 * 42 * 0.495, is left.
        (after(24), 0.5, None, (), 12.474),
        # Many lately do not raise the 48: 0.6 * 48 * 0.495.
        (after(*[0] * 23, 24), 0.5, None, (), 14.256),
        # Three parts are too few for a scatter: 48 * (1 - 1 / 16**3) * (15 / 16 - 0.005).
        (after(3, 0, 0), 3 / 48, None, (), 44.749),
        # With four, 48 * (1 - 1 / 12**3) * (11 / 12 - 0.005) = 43.735, less sqrt((3**2 + 3 * 1**2) / 4) * sqrt(44) = 11.489.
        (after(4, 0, 0, 0), 4 / 48, None, (), 32.245),
        # 3 / 8 of the traffic has passed with no call: 10 / 0.475 * (1 - 0.375**3) = 19.942, times 0.62 is 12.364, less
        # 6 * 19.942 * 0.75 / 24 = 3.739.
        (begun(), 0.25, 100, (3.0, 1.0), 8.625),
    ],
)
def test_calls_to_come(record, part, expected, profile, calls):
    """Prior, slack of the last parts, scatter and floor, each by hand."""
    assert to_come(record, part, expected=expected, profile=profile) == pytest.approx(calls, abs=1e-3)


def test_too_little_of_a_window_says_nothing():
    """Where nothing was expected, two hundredths of it are needed."""
    assert to_come(after(1), 0.019, expected=None, profile=()) is None
    assert to_come(after(1), 0.021, expected=None, profile=()) is not None


def test_what_is_usual_is_halfway_to_the_newest_window():
    """1 a part, then 3: 2 are usual, 96 a window; counting begins anew, and the last part counts too."""
    record = after(*[1] * PARTS)
    turned(record)
    assert (record["calls"], record["arrivals"], record["usual"]) == (0, [0] * PARTS, [1.0] * PARTS)
    for at in range(PARTS):
        for _ in range(3):
            counted(record, (at + 0.5) / PARTS)
    assert (record["calls"], record["arrivals"]) == (144, [3] * PARTS)
    turned(record)
    assert record["usual"] == [2.0] * PARTS
    assert to_come(record, 0.0, expected=None, profile=()) == pytest.approx(96 * 0.995)


def test_a_burst_of_one_part_is_not_usual():
    """It is a burst among two neighbours on each side; three parts in a row are not. 0.02 of the traffic is taken as even."""
    burst, block, first = after(*[0] * 10, 48), after(*[0] * 10, 16, 16, 16), after(24, 24)
    for record in (burst, block, first):
        turned(record)
    assert burst["shape"] == pytest.approx([0.02] * PARTS)
    assert block["shape"] == pytest.approx([0.02] * 10 + [16.02] * 3 + [0.02] * 35)
    # The first two parts have three and four of the five: medians of (24, 24, 0) and (24, 24, 0, 0).
    assert first["shape"] == pytest.approx([24.02, 12.02] + [0.02] * 46)


def test_all_traffic_has_passed_at_the_end():
    """The end of the last part belongs to it."""
    assert passed((0.0, 0.75, 1.0), 1.0) == 1.0
