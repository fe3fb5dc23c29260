"""Objectives and the Pareto front, by hand and by trying everything."""

import math
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from confroute.errors import CalibrationError, PolicyError
from confroute.fitting import Objective, Rates, fit, front_of, table_of
from confroute.fitting.fit import CloudShare
from confroute.recording import RecordedSample, Row, Side
from confroute.views.fit import front_svg, report_html

EDGE, CLOUD = 0.5, 2.0  # USD for 1000 calls


def front(edge=(1, 1, 0, 0), cloud=(1, 0, 1, 0), *, price=CLOUD, **settings):
    """The front of four calls of rising uncertainty."""
    rows = [
        Row(
            id=str(i),
            edge=Side(quality=float(e), cost_usd=EDGE / 1000),
            cloud=Side(quality=float(c), cost_usd=price / 1000),
        )
        for i, (e, c) in enumerate(zip(edge, cloud, strict=True))
    ]
    return front_of(table_of(rows), [0.1, 0.2, 0.3, 0.4], **settings)


def test_points_by_hand():
    """Quality and cost of every threshold, of both ends and of the oracle; the draft is always counted."""
    found = front()
    assert [(p.cloud_share, p.quality, p.usd_per_1k) for p in found.points] == [
        *((0.75, 0.5, 2.0), (0.5, 0.75, 1.5), (0.25, 0.5, 1.0), (0.0, 0.5, 0.5)),
    ]
    assert (found.edge.quality, found.edge.usd_per_1k) == (0.5, 0.5)
    assert (found.cloud.quality, found.cloud.usd_per_1k, found.cloud.cloud_share) == (0.5, 2.0, 1.0)
    # Known beforehand, the call that goes on needs no draft: (3 * 0.5 + 2) / 4.
    assert [(p.cloud_share, p.quality, p.usd_per_1k) for p in found.oracle] == [
        (0.0, 0.5, 0.5),
        (0.25, 0.75, 0.875),
    ]
    assert [(p.usd_per_1k, p.quality) for p in found.hull] == [(0.5, 0.5), (1.5, 0.75)]
    assert found.break_even == pytest.approx(1 - EDGE / CLOUD)


QUARTERS = st.integers(0, 4).map(lambda k: k / 4)
CENTS = st.integers(0, 20).map(lambda k: k / 100)
CALLS = st.lists(
    st.tuples(QUARTERS, QUARTERS, CENTS, CENTS, st.none() | st.integers(0, 9), st.integers(0, 9)),
    min_size=2,
    max_size=25,
)


@given(CALLS, st.booleans(), st.booleans())
def test_the_oracle_is_above_every_policy_at_equal_cost(calls, priced, sampled):
    """Graded answers, costs in any order, calls that were not measured and edges that failed: no routing is above it."""
    rows = [
        Row(
            id=str(at),
            edge=Side(
                text="7",
                answer="7",
                **({"error": "timeout"} if failed == 9 else {"quality": e}),
                cost_usd=draft if priced else None,
                samples=(RecordedSample(text="7", answer="7"),) * 2,
            ),
            cloud=Side(quality=c, cost_usd=price if priced else None),
        )
        for at, (e, c, draft, price, _, failed) in enumerate(calls)
    ]
    assume(any(u is not None and failed != 9 for *_, u, failed in calls))
    u = [math.nan if u is None or failed == 9 else float(u) for *_, u, failed in calls]
    found = front_of(table_of(rows), u, sampled=sampled, resamples=0)
    costs, worths = zip(*((found.cost(p), p.quality) for p in found.oracle), strict=True)
    assert list(costs) == sorted(costs)
    for point in (*found.points, found.edge, found.cloud):
        assert found.cost(point) >= costs[0] - 1e-9
        assert point.quality <= np.interp(found.cost(point), costs, worths) + 1e-9


def test_at_is_the_best_within_a_bound():
    """By cost, by quality and by cloud share; exactly one of them, and none that no point keeps."""
    found = front()
    assert found.at(cost=1.6).quality == 0.75
    assert found.at(quality=0.7).usd_per_1k == 1.5
    assert found.at(cloud_share=0.4).quality == 0.5
    for bounds in ({}, {"cost": 1, "quality": 1}, {"quality": 0.9}, {"cost": 0.1}):
        with pytest.raises(CalibrationError):
            found.at(**bounds)


def test_routing_that_costs_more_than_the_cloud_is_named():
    """With a cloud hardly dearer than the edge, only few calls may go on before it does not pay."""
    dear = front(price=0.8)
    assert dear.break_even == pytest.approx(1 - 0.5 / 0.8)
    assert "always asking the cloud 0.8" in dear.warning(dear.points[0])
    assert dear.warning(dear.at(quality=0.75)) is not None
    assert front().warning(front().at(quality=0.75)) is None
    assert "no better than the edge" in front().warning(front().points[2])


def test_the_hull_is_above_every_point_and_concave():
    """On random calls: no point lies above the hull, whose slope falls."""
    generator = np.random.default_rng(0)
    rows = [
        Row(
            id=str(i),
            edge=Side(quality=float(generator.random() > u), cost_usd=0.0005),
            cloud=Side(quality=float(generator.random() < 0.9), cost_usd=0.002),
            signals={"u": float(u)},
        )
        for i, u in enumerate(generator.random(300))
    ]
    table = table_of(rows)
    found = front_of(table, table.signal("u"))
    xs, ys = [found.cost(p) for p in found.hull], [p.quality for p in found.hull]
    slopes = np.diff(ys) / np.diff(xs)
    assert (np.diff(slopes) < 0).all()
    inside = [p for p in found.points if found.cost(p) <= xs[-1]]
    assert all(p.quality <= np.interp(found.cost(p), xs, ys) + 1e-12 for p in inside)
    assert found.knee in found.hull
    assert all(low <= p.quality <= high for p in found.points for low, high in [p.quality_ci])
    svg = ElementTree.fromstring(front_svg(found, chosen=found.knee))
    assert {"edge", "cloud", "knee", "chosen"} <= set(svg.itertext())
    page = report_html(fit(rows, CloudShare(share=0.3)))
    assert "always cloud" in page
    assert "http://www.w3.org/2000/svg" in page


def test_energy_and_unknown_costs():
    """Energy is power times time; what the run does not tell is None, and an objective over it is refused."""
    rows = [
        Row(id=str(i), edge=Side(quality=1.0, latency_s=2.0), cloud=Side(quality=1.0, latency_s=1.0))
        for i in range(4)
    ]
    table = table_of(rows, rates=Rates(edge_watts=10, cloud_watts=100))
    found = front_of(table, [1, 2, 3, 4])
    assert (found.edge.energy_j, found.cloud.energy_j, found.points[0].energy_j) == (20, 100, 95)
    assert (found.metric, found.edge.usd_per_1k, found.break_even) == ("cloud_share", None, None)
    with pytest.raises(CalibrationError, match="usd_per_1k is not known"):
        Objective.weighted(usd_per_1k=1).choose(found.points)


def test_objectives_choose_by_hand():
    """Weights, limits and orders over the same four points."""
    points = front().points
    assert Objective.weighted(quality=1, usd_per_1k=0.1).choose(points).quality == 0.75
    assert Objective.weighted(quality=1, usd_per_1k=1).choose(points).cloud_share == 0.0
    assert Objective.best_quality(usd_per_1k=1.2).choose(points).cloud_share == 0.0, (
        "equal quality, fewer calls"
    )
    assert Objective.best_quality(usd_per_day=30, calls_per_day=20_000).choose(points).quality == 0.75
    assert Objective.lexicographic(("quality", 0.3), ("usd_per_1k", 0)).choose(points).cloud_share == 0.0
    assert Objective.lexicographic(("quality", 0.0)).choose(points).quality == 0.75


@pytest.mark.parametrize(
    "make",
    [
        Objective,
        lambda: Objective(weights=(("colour", 1.0),)),
        lambda: Objective.weighted(quality=-1),
        lambda: Objective.weighted().within(colour=1),
        Objective.best_quality,
        lambda: Rates(edge_watts=-1),
    ],
)
def test_objectives_that_mean_nothing_are_refused(make):
    """No metric, an unknown one, a negative weight, a budget without an amount."""
    with pytest.raises(PolicyError, match=r"expected|needed"):
        make()


@given(CALLS, st.booleans(), st.booleans(), st.integers(1, 40), st.integers(0, 99), st.data())
def test_points_and_intervals_are_those_of_whole_arrays(calls, priced, sampled, block, seed, data):
    """In blocks of any size: every threshold's calls priced one by one, and all resamples drawn at once."""
    rows = [
        Row(
            id=str(at),
            edge=Side(
                text="7",
                quality=edge,
                cost_usd=cheap if priced else None,
                latency_s=seconds,
                samples=(RecordedSample(text="7"),) * 2,
            ),
            cloud=Side(quality=cloud, cost_usd=dear if priced else None, latency_s=wait),
        )
        for at, (edge, cloud, cheap, dear, seconds, wait) in enumerate(calls)
    ]
    table = table_of(rows)
    u = np.array(data.draw(st.lists(QUARTERS, min_size=table.n, max_size=table.n)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("confroute.fitting.front._BLOCK", block)
        found = front_of(table, u, sampled=sampled, resamples=9, seed=seed)
    weights = (
        np.random.default_rng(seed).multinomial(table.n, np.full(table.n, 1 / table.n), size=9) / table.n
    )
    ways = [(point, ~(u <= point.threshold), sampled, True) for point in found.points]
    ways += [
        (found.edge, np.zeros(table.n, bool), False, True),
        (found.cloud, np.ones(table.n, bool), False, False),
    ]
    for point, sent, evidence, drafts in ways:
        quality = np.where(sent, table.cloud_quality, table.edge_quality)
        usd = np.where(sent, table.cloud["usd"], 0.0) + table.draft["usd"] * (drafts | ~sent)
        usd = 1000 * (usd + table.samples["usd"] * evidence)
        assert point.quality == pytest.approx(quality.mean(), abs=1e-12)
        assert point.intervals["quality"] == pytest.approx(
            np.quantile(weights @ quality, [0.025, 0.975]), abs=1e-12
        )
        if priced:
            assert point.usd_per_1k == pytest.approx(usd.mean(), abs=1e-9)
            assert point.intervals["usd_per_1k"] == pytest.approx(
                np.quantile(weights @ usd, [0.025, 0.975]), abs=1e-9
            )
        else:
            assert point.usd_per_1k is None
            assert "usd_per_1k" not in point.intervals
