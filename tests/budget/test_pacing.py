"""The pace of a budget: predicted calls, the controller's steps by hand, and simulated days."""

import importlib.util
import sys
from pathlib import Path

import pytest

from confroute.budget import Budget, Pace
from confroute.budget.pacing import PARTS, count_call, end_window, new_traffic, remaining_calls, traffic_share
from confroute.errors import (
    PolicyError,
)

BUDGET_DAYS = Path(__file__).parents[2] / "benchmarks" / "budget.py"


@pytest.fixture(scope="module")
def simulation():
    """The module that simulates days under a budget."""
    spec = importlib.util.spec_from_file_location("budget_days", BUDGET_DAYS)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("kind", "traffic"), [("memory", "bursty"), ("sqlite", "even")])
def test_the_pace_makes_the_budget_last(kind, traffic, simulation, tmp_path):
    """8 workers, unknown traffic: the budget is nearly spent and never exceeded, the store is exact, the threshold steady."""
    store_of = simulation.stores([kind], tmp_path)[kind]
    days, budget, recorded = simulation.simulated(traffic, calls=800, days=1, store_of=store_of)
    (day,) = simulation.measured(days, budget, recorded)
    # The budget pays for 240 calls. The worst case of one is 1 % of it, and which of 8 threads reserves last is random.
    assert 0.94 <= day["spent"] <= 1
    assert day["unbooked"] < 1e-12
    assert day["turns"] < 80
    assert "<polyline" in simulation.svg_of({"a day": (days, budget)})


def after_calls(pace, budget, record, times, window=0):
    """The record after calls at these fractions of a window; every third is sent and costs 1."""
    for at, elapsed in enumerate(times):
        now = (window + elapsed) * budget.window_s
        record = budget.current(record, now)
        count_call(record, elapsed)
        sent = at % 3 == 0
        if sent:
            record["spent"] += 1
            record["spent_by_sent"] += 1
            record["sent"] += 1
        pace.move(record, elapsed, budget.limit, sent=sent)
    return record


def test_the_usual_traffic_is_learned_from_the_window_before():
    """All traffic comes in the first half: the first window predicts as much again, the second does not."""
    pace = Pace(signal="s", ladder=(0.0, 1.0))
    budget = Budget(limit=1000, unit="calls", window_s=100, pace=pace)
    half = [k / 2000 for k in range(1000)]
    first = after_calls(pace, budget, None, half[:900])
    assert remaining_calls(first, 0.45, expected=None, profile=()) > 800
    second = after_calls(pace, budget, after_calls(pace, budget, None, half), half[:900], window=1)
    assert 80 < remaining_calls(second, 0.45, expected=None, profile=()) < 150
    assert 80 < remaining_calls(first, 0.45, expected=1000, profile=(1.0, 0.0)) < 150


@pytest.mark.parametrize(
    ("level", "value"), [(-1, 0.0), (0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 2.0), (1, 3.0), (2, 3.0)]
)
def test_thresholds_are_interpolated_between_the_rungs(level, value):
    """Rungs at 0, 1 and 3, at equal steps of level; the threshold never leaves the ladder."""
    assert Pace(signal="s", ladder=(0.0, 1.0, 3.0)).threshold(level) == value


@pytest.mark.parametrize(
    ("change", "sent", "level", "trim"),
    [
        # 0.2 of 1049.75 calls give a gain of 0.0047630. The target is 1 - 0.5 plus the trim, to which half the gain is added.
        ({}, True, 0.6023815, 0.1023815),
        ({}, False, 0.5976185, 0.0976185),
        # At an end of the ladder the trim does not wind up.
        ({"level": 0.0}, False, 0.6, 0.1),
        ({"level": 1.0}, True, 0.6, 0.1),
        ({"level": 0.0}, True, 0.6023815, 0.1023815),
        # If calls cost nothing, all may be sent.
        ({"spent_by_sent": 0.0}, False, 0.0952370, 0.0952370),
        # No money is left: the trim moves by the gain, the level stays on the ladder.
        ({"spent": 5000.0}, True, 1.0, 0.1047630),
        # Nothing was sent so far: the cost of a call is unknown.
        ({"sent": 0}, False, 0.4, 0.1),
    ],
)
def test_a_level_by_hand(change, sent, level, trim):
    """Five calls of 1000 expected, at the window's start: (100 + 5) / 0.1 * 0.995 = 1044.75 to come, at a mean cost of 2.

    10 are spent, and a call under way, with 7 reserved, will cost 2: the remaining 1044.75 pay for half of the calls.
    """
    record = Budget(limit=1).current(None, 0.0)
    record |= {"calls": 5, "spent": 10.0, "spent_by_sent": 20.0, "sent": 10, "held": {"x": [7.0, 1.0]}}
    record |= {"level": 0.4, "trim": 0.1, **change}
    for step, expected in (
        (1.0, level),
        (0.005, record["level"] + max(-0.005, min(0.005, level - record["level"]))),
    ):
        after = record.copy()
        Pace(signal="s", ladder=(0.0, 1.0), step=step, expected_calls=1000).move(
            after, 0.0, 1056.75, sent=sent
        )
        assert (after["level"], after["trim"]) == pytest.approx((expected, trim), abs=1e-6)


def test_a_trim_moves_neither_too_fast_nor_too_slowly():
    """A fifth of 100 calls would be a gain of 0.05, of a million 0.000005: both are limited, to 0.02 and 0.0005."""
    for calls, gain in ((100, 0.02), (1_000_000, 0.0005)):
        record = Budget(limit=1).current(None, 0.0)
        record |= {"sent": 1, "spent_by_sent": 1.0, "level": 0.5}
        Pace(signal="s", ladder=(0.0, 1.0), expected_calls=calls).move(
            record, 0.0, calls * 0.995 / 2, sent=True
        )
        assert record["trim"] == pytest.approx(gain / 2)


@pytest.mark.parametrize(
    "change",
    [
        {"ladder": (1.0, 0.0)},
        {"ladder": (1.0,)},
        {"ladder": (0.0, float("inf"))},
        {"start": 1.1},
        {"step": 0},
        {"profile": (1.0, -1.0)},
        {"profile": (0.0, 0.0)},
    ],
)
def test_invalid_paces_are_refused(change):
    """A ladder that does not rise or is not finite, a start or step out of range, traffic below 0 or none at all."""
    with pytest.raises(PolicyError, match="expected"):
        Pace(**{"signal": "s", "ladder": (0.0, 1.0), **change})


def test_a_new_window_starts_at_the_share_of_the_last():
    """Not at the level that the last calls left behind."""
    pace = Pace(signal="s", ladder=(0.0, 1.0))
    budget = Budget(limit=400, unit="calls", window_s=100, pace=pace)
    record = after_calls(pace, budget, None, [k / 1000 for k in range(1000)])
    record |= {"level": 0.0, "trim": 0.1}
    assert budget.current(record, 100.0)["level"] == pytest.approx(2 / 3 + 0.1, abs=0.01)


# By hand: an even window has 48 parts, so that a rate of 48 is one call per part.
def traffic(*arrivals):
    """A record with these numbers of calls in the window's first parts."""
    rest = [0] * (PARTS - len(arrivals))
    return new_traffic() | {"calls": sum(arrivals), "arrivals": [*arrivals, *rest]}


@pytest.mark.parametrize(
    ("record", "elapsed", "expected", "profile", "calls"),
    [
        # No call yet: all expected calls, less the last 0.005 of the traffic.
        (new_traffic(), 0.0, 100, (), 99.5),
        # Perfectly even: 48 per window, of which 0.5 - 0.005 is to come, without scatter.
        (traffic(*[1] * 24), 0.5, None, (), 23.76),
        # (100 * 0.1 + 24) / (0.1 + 0.5) = 56.667, less 0.5**3 of its distance to the last part's 48: 55.583. Of that 0.495 is
        # 27.514; each part was 55.583 / 48 - 1 = 0.158 off, and sqrt(24 parts) times that is 0.774.
        (traffic(*[1] * 24), 0.5, 100, (), 26.740),
        # None recently: 48 - 0.5**3 * 48 = 42. The scatter is so large that the smallest share remains, 0.6 * 42 * 0.495.
        (traffic(24), 0.5, None, (), 12.474),
        # Many recent calls do not raise the 48: 0.6 * 48 * 0.495.
        (traffic(*[0] * 23, 24), 0.5, None, (), 14.256),
        # Three parts are too few for a scatter: 48 * (1 - 1 / 16**3) * (15 / 16 - 0.005).
        (traffic(3, 0, 0), 3 / 48, None, (), 44.749),
        # With four, 48 * (1 - 1 / 12**3) * (11 / 12 - 0.005) = 43.735, less sqrt((3**2 + 3 * 1**2) / 4) * sqrt(44) = 11.489.
        (traffic(4, 0, 0, 0), 4 / 48, None, (), 32.245),
        # 3 / 8 of the traffic has passed without a call: 10 / 0.475 * (1 - 0.375**3) = 19.942, times 0.62 is 12.364, less
        # 6 * 19.942 * 0.75 / 24 = 3.739.
        (new_traffic(), 0.25, 100, (3.0, 1.0), 8.625),
    ],
)
def test_remaining_calls_by_hand(record, elapsed, expected, profile, calls):
    """The prior, a lull in the most recent parts, the scatter and the floor."""
    assert remaining_calls(record, elapsed, expected=expected, profile=profile) == pytest.approx(
        calls, abs=1e-3
    )


def test_too_little_of_a_window_predicts_nothing():
    """Without an expectation, two hundredths of the traffic must have passed."""
    assert remaining_calls(traffic(1), 0.019, expected=None, profile=()) is None
    assert remaining_calls(traffic(1), 0.021, expected=None, profile=()) is not None


def test_the_usual_traffic_moves_halfway_to_the_newest_window():
    """1 per part, then 3: 2 are usual, 96 per window; counting starts again, and the last part counts too."""
    record = traffic(*[1] * PARTS)
    end_window(record)
    assert (record["calls"], record["arrivals"], record["usual"]) == (0, [0] * PARTS, [1.0] * PARTS)
    for at in range(PARTS):
        for _ in range(3):
            count_call(record, (at + 0.5) / PARTS)
    assert (record["calls"], record["arrivals"]) == (144, [3] * PARTS)
    end_window(record)
    assert record["usual"] == [2.0] * PARTS
    assert remaining_calls(record, 0.0, expected=None, profile=()) == pytest.approx(96 * 0.995)


def test_a_burst_of_one_part_is_not_usual():
    """One busy part between two quiet ones on each side is a burst, three in a row are not. 0.02 of the traffic is even."""
    burst, block, first = traffic(*[0] * 10, 48), traffic(*[0] * 10, 16, 16, 16), traffic(24, 24)
    for record in (burst, block, first):
        end_window(record)
    assert burst["shape"] == pytest.approx([0.02] * PARTS)
    assert block["shape"] == pytest.approx([0.02] * 10 + [16.02] * 3 + [0.02] * 35)
    # The first two parts have three and four of the five: medians of (24, 24, 0) and (24, 24, 0, 0).
    assert first["shape"] == pytest.approx([24.02, 12.02] + [0.02] * 46)


def test_all_traffic_has_passed_at_the_end():
    """The end of the window belongs to its last part."""
    assert traffic_share((0.0, 0.75, 1.0), 1.0) == 1.0
