"""Bills, tables, points and replays in numbers that can be reckoned on paper."""

import math
from dataclasses import replace

import numpy as np
import pytest

from confroute import Cascade, SelfConsistency, TokenLogprob
from confroute.errors import CalibrationError, PolicyError
from confroute.fitting import (
    CloudShare,
    MaxLoss,
    Objective,
    Rates,
    expected,
    fit,
    fit_combined,
    front_of,
    replay,
    table_of,
)
from confroute.fitting.choice import chosen, uncertainty_of
from confroute.fitting.fit import samples_of
from confroute.fitting.objective import Limit, Point
from confroute.fitting.rates import Bill, bill_of_cloud, bill_of_draft, bill_of_samples
from confroute.fitting.replay import ReplayedCall
from confroute.prices import Price
from confroute.recording import RecordedSample, Row, Side
from confroute.types import Generation

EDGE = Side(
    text="7",
    quality=1.0,
    logprobs=(-0.1,) * 4,
    usage={"input_tokens": 100, "output_tokens": 4},
    latency_s=2.0,
)
CLOUD = Side(text="7", quality=1.0, usage={"input_tokens": 90, "output_tokens": 2}, latency_s=1.0)
RATES = Rates(
    edge=Price(input_usd=1, output_usd=10),
    cloud=Price(input_usd=10, output_usd=30),
    edge_watts=10,
    cloud_watts=100,
)


def numbers(bill):
    """USD for a million calls, seconds, tokens, joules."""
    return (1e6 * bill.usd, bill.latency_s, bill.sent_tokens, bill.energy_j)


def test_bills_by_hand():
    """100 * 1 + 4 * 10 and 90 * 10 + 2 * 30 USD for a million; 10 W for 2 s and 100 W for 1 s."""
    draft, cloud = bill_of_draft(EDGE, RATES), bill_of_cloud(CLOUD, RATES)
    assert numbers(draft) == pytest.approx((140, 2, 0, 20))
    assert numbers(cloud) == pytest.approx((960, 1, 90, 100))
    assert numbers(draft + cloud) == pytest.approx((1100, 3, 90, 120))
    assert numbers(bill_of_draft(replace(EDGE, cost_usd=0.5), RATES))[0] == pytest.approx(5e5)


@pytest.mark.parametrize("edge", [EDGE, replace(EDGE, logprobs=None)])
def test_samples_cost_by_their_length(edge):
    """Of 2 and 6 tokens where the draft had 4: twice its price together, and the time of the longer, 1.5 drafts."""
    drawn = tuple(Generation(text="7", logprobs=(-0.1,) * n) for n in (2, 6))
    assert numbers(bill_of_samples(edge, drawn, RATES)) == pytest.approx((280, 3, 0, 30))
    unknown = (Generation(text="7"),) * 3
    assert numbers(bill_of_samples(edge, unknown, RATES)) == pytest.approx((420, 2, 0, 20))
    assert numbers(bill_of_samples(edge, (), RATES)) == (0, 0, 0, 0)


def test_what_is_not_recorded_is_not_known():
    """NaN, and not 0; but what is free is free for any number of tokens."""
    bare = Side(text="7")
    assert np.isnan(numbers(bill_of_cloud(bare, RATES))).all()
    assert np.isnan(numbers(bill_of_cloud(None, RATES))).all()
    assert np.isnan(bill_of_draft(EDGE, Rates()).usd)
    assert np.isnan(bill_of_draft(EDGE, Rates()).energy_j)
    assert bill_of_draft(bare, Rates(edge=Price())).usd == 0
    assert math.isnan(bill_of_draft(bare, Rates(edge=Price(output_usd=1.0))).usd)


@pytest.mark.parametrize("bad", [{"edge_watts": -0.1}, {"cloud_watts": -0.1}, {"cloud_watts": math.nan}])
def test_powers_are_numbers_from_0(bad):
    """No power at all is one."""
    assert Rates(edge_watts=0, cloud_watts=0).edge_watts == 0
    with pytest.raises(PolicyError, match="0 or more"):
        Rates(**bad)


def rows_of_every_kind():
    """Graded, failed on the edge, not graded, and a cloud that is not graded; with three, two, one and no samples."""
    drawn = [RecordedSample(text=text) for text in ("7", "8", "7")]
    return [
        Row(id="a", prompt="How many?", edge=replace(EDGE, samples=tuple(drawn)), cloud=CLOUD),
        Row(
            id="b", prompt="How many?", edge=replace(EDGE, quality=0.0, samples=tuple(drawn[:2])), cloud=CLOUD
        ),
        Row(id="c", prompt="How many?", edge=replace(EDGE, samples=tuple(drawn[:1])), cloud=CLOUD),
        Row(id="d", edge=Side(error="timeout"), cloud=replace(CLOUD, quality=0.5), signals={"mine": 0.3}),
        Row(id="e", edge=replace(EDGE, quality=None), cloud=CLOUD),
        Row(id="f", edge=EDGE, cloud=replace(CLOUD, quality=None)),
    ]


def test_a_table_by_hand():
    """Two rows are left out; a failed edge has quality 0 and no signal; the fewest samples from 2 on count."""
    table = table_of(rows_of_every_kind(), rates=RATES)
    assert ([row.id for row in table.rows], table.n, table.left_out) == (["a", "b", "c", "d"], 4, 2)
    assert table.edge_quality.tolist() == [1, 0, 1, 0]
    assert table.cloud_quality.tolist() == [1, 1, 1, 0.5]
    assert table.failed.tolist() == [False, False, False, True]
    assert (table.drawn, table.cloud_graded) == (2, True)
    assert "mine" not in table.columns, "recorded, but of a call that no draft answered"
    assert table.signal("token_logprob.mean")[:3] == pytest.approx([0.1] * 3)
    assert np.isnan(table.signal("token_logprob.mean")[3])
    assert 1e6 * table.samples["usd"] == pytest.approx([280, 280, 140, 0])
    part = table.part(np.array([False, True, False, True]))
    assert [row.id for row in part.rows] == ["b", "d"]
    assert (part.edge_quality.tolist(), part.failed.tolist()) == ([0, 0], [False, True])
    assert (part.drawn, part.left_out) == (2, 2)
    assert 1e6 * part.samples["usd"] == pytest.approx([280, 0])


def test_without_grades_of_the_cloud_every_graded_row_counts():
    """Then no quality of it is known."""
    table = table_of([Row(id="a", edge=EDGE), Row(id="b", edge=EDGE, cloud=replace(CLOUD, quality=None))])
    assert (table.n, table.left_out, table.cloud_graded, table.drawn) == (2, 0, False, 0)
    with pytest.raises(CalibrationError, match="none of 1 recorded rows"):
        table_of([Row(id="d", edge=Side(error="timeout"), cloud=CLOUD)])


def point(**changes):
    """A point with different numbers everywhere."""
    made = {
        "quality": 0.8,
        "usd_per_1k": 2.0,
        "latency_s": 3.0,
        "p95_latency_s": 9.0,
        "sent_tokens": 50.0,
        "energy_j": 7.0,
    }
    return Point(name="threshold", threshold=0.1, cloud_share=0.5, **{**made, **changes})


def test_worth_by_hand():
    """10 * 0.8 less 0.5 * 2, 0.1 * 3, 0.01 * 50 and 0.2 * 7."""
    goal = Objective.weighted(quality=10, usd_per_1k=0.5, latency_s=0.1, sent_tokens=0.01, energy_j=0.2)
    assert goal.worth(point()) == pytest.approx(8 - 1 - 0.3 - 0.5 - 1.4)
    assert Objective.weighted(quality=1).weights == (("quality", 1),)


def test_limits_hold_at_the_bound_and_not_beyond():
    """Up to rounding, either way."""
    for bound, direction, met in (
        (2.0, "at most", True),
        (2.0 - 1e-12, "at most", True),
        (1.99, "at most", False),
        (2.0, "at least", True),
        (2.0 + 1e-12, "at least", True),
        (2.01, "at least", False),
    ):
        assert Limit(metric="usd_per_1k", bound=bound, direction=direction).met(point()) is met
    best = Objective.weighted().within(energy_j=7, direction="at least").within(latency_s=3)
    assert (
        best.choose([point(), point(energy_j=6.0, quality=0.9), point(latency_s=4.0, quality=0.9)]) == point()
    )


def test_of_equal_points_the_one_with_fewer_calls_to_the_cloud():
    """Whatever order they come in."""
    few = replace(point(), cloud_share=0.2)
    for points in ([few, point()], [point(), few]):
        assert Objective.weighted().choose(points) == few
        assert Objective.lexicographic(("usd_per_1k", 0.0)).choose(points) == few


def test_an_order_keeps_what_lies_within_its_tolerance():
    """Quality within 0.1 of 0.9, the cheapest of these, and only then the fastest."""
    points = [
        point(quality=0.9, usd_per_1k=5.0),
        point(quality=0.8, usd_per_1k=3.0, latency_s=2.0),
        point(quality=0.85, usd_per_1k=3.0, latency_s=1.0),
        point(quality=0.79, usd_per_1k=1.0),
    ]
    goal = Objective.lexicographic(("quality", 0.1), ("usd_per_1k", 0.0), ("latency_s", 0.0))
    assert goal.choose(points) == points[2]
    assert Objective.lexicographic(("quality", 0.1), ("usd_per_1k", 2.0), ("latency_s", 9.0)).choose(points)


def test_limits_that_no_point_keeps_are_told_with_the_nearest():
    """The largest quality and the least cost."""
    goal = Objective.least_cost(quality=0.95).within(usd_per_1k=1.0)
    with pytest.raises(
        CalibrationError, match=r"quality at least 0.95 \(best: 0.9\) and usd_per_1k at most 1 \(best: 2\)"
    ):
        goal.choose([point(), point(quality=0.9, usd_per_1k=4.0)])


@pytest.mark.parametrize(
    "budget", [{"usd_per_day": 4.0}, {"usd_per_day": 4.0, "calls_per_day": 0}, {"calls_per_day": 9}]
)
def test_a_budget_of_a_day_needs_its_calls(budget):
    """And its amount."""
    with pytest.raises(PolicyError, match="a budget is needed"):
        Objective.best_quality(**budget)


def four(**settings):
    """A front over two calls of 10 s on the edge, the second of which failed there, and two of 20 s."""
    sides = [(1.0, 10.0), (None, None), (0.0, 20.0), (0.5, 20.0)]
    rows = [
        Row(
            id=str(at),
            edge=Side(error="timeout")
            if seconds is None
            else replace(EDGE, quality=grade, latency_s=seconds),
            cloud=replace(CLOUD, quality=0.75),
        )
        for at, (grade, seconds) in enumerate(sides)
    ]
    return front_of(table_of(rows, rates=RATES), [0.1, math.nan, 0.3, 0.2], **settings)


def test_a_front_with_a_failed_edge_and_a_call_that_was_not_measured():
    """It goes to the cloud at every threshold, and always asking the edge sends it too."""
    found = four(resamples=0)
    assert [(p.threshold, p.cloud_share, p.quality) for p in found.points] == [
        (0.1, 0.75, (1 + 3 * 0.75) / 4),
        (0.2, 0.5, (1 + 0.5 + 2 * 0.75) / 4),
        (0.3, 0.25, (1 + 0 + 0.5 + 0.75) / 4),
    ]
    assert (found.edge.cloud_share, found.edge.quality) == (0.25, 2.25 / 4)
    assert (found.cloud.cloud_share, found.cloud.quality, found.cloud.sent_tokens) == (1.0, 0.75, 90.0)
    assert (found.cloud.latency_s, found.cloud.p95_latency_s, found.cloud.quality_ci) == (1.0, 1.0, None)
    assert found.points[0].sent_tokens == 0.75 * 90
    assert found.points[0].latency_s is None, "how long the failed edge took is not recorded"
    # Gains are -0.25, 0.75 of the failed edge, which has to go, 0.75 and 0.25: the oracle sends up to three.
    assert [(p.cloud_share, p.quality) for p in found.oracle] == [
        (0.25, 2.25 / 4),
        (0.5, 3 / 4),
        (0.75, 3.25 / 4),
    ]


def test_bounds_of_a_front_may_be_met_exactly():
    """A share, a quality and a cost that a point has are within the bound."""
    found = four(resamples=0)
    assert found.metric == "cloud_share"
    assert found.at(cloud_share=0.5).quality == 0.75
    assert found.at(quality=0.8125).threshold == 0.1
    assert found.at(cost=0.75).threshold == 0.1
    with pytest.raises(CalibrationError, match=r"from 0\.5625 to 0\.8125, .* from 0\.25 to 1"):
        found.at(quality=0.9)


def calls(n, **settings):
    """n calls of rising uncertainty that the edge gets wrong and the cloud right, at 10 s and 1 s."""
    rows = [
        Row(
            id=str(at), edge=replace(EDGE, quality=0.0, latency_s=10.0), cloud=CLOUD, signals={"u": float(at)}
        )
        for at in range(n)
    ]
    table = table_of(rows, rates=RATES)
    return front_of(table, table.signal("u"), **settings)


def test_times_add_up_and_the_95th_percentile_is_of_the_sum():
    """Of 21 calls 20 are kept at 10 s and one goes on at 11; 95 % of the way lies the 20th, of the last two the middle."""
    found = calls(21, resamples=0)
    kept_but_one, two_sent = found.points[19], found.points[18]
    assert kept_but_one.latency_s == pytest.approx((20 * 10 + 11) / 21)
    assert kept_but_one.p95_latency_s == 10.0
    assert two_sent.p95_latency_s == 11.0
    assert kept_but_one.energy_j == pytest.approx((21 * 100 + 100) / 21)
    assert 1e6 * kept_but_one.usd_per_1k / 1000 == pytest.approx((21 * 140 + 960) / 21)


@pytest.mark.parametrize(("n", "points"), [(100, 100), (101, 100), (300, 100)])
def test_a_front_has_at_most_a_hundred_points(n, points):
    """From the lowest value to the highest."""
    found = calls(n, resamples=0)
    assert len(found.points) == points
    assert (found.points[0].threshold, found.points[-1].threshold) == (0.0, n - 1.0)


def test_intervals_of_what_never_differs_have_no_width():
    """Every resample of the cloud's answers is right; half of them sent, the interval surrounds a half."""
    found = calls(100, resamples=200)
    assert found.cloud.quality_ci == (pytest.approx(1.0), pytest.approx(1.0))
    assert found.cloud.usd_ci == (pytest.approx(0.96), pytest.approx(0.96))
    low, high = found.points[49].quality_ci
    # Two standard errors of a share of 0.5 in 100 calls are 0.1.
    assert (low, high) == (pytest.approx(0.4, abs=0.03), pytest.approx(0.6, abs=0.03))


def test_the_knee_is_farthest_above_the_line():
    """Sending the last call gains 1, the two before 1/4 each: from share 0 to 3/4 quality rises by 3/8, by 1/4 at the first."""
    edge = (1.0, 0.75, 0.75, 0.0)
    rows = [Row(id=str(at), edge=replace(EDGE, quality=grade), cloud=CLOUD) for at, grade in enumerate(edge)]
    found = front_of(table_of(rows), [0.1, 0.2, 0.3, 0.4], resamples=0)
    assert [(p.cloud_share, p.quality) for p in found.hull] == [(0.0, 0.625), (0.25, 0.875), (0.75, 1.0)]
    assert (found.knee.cloud_share, found.knee.quality) == (0.25, 0.875)


def outcome(*, quality=1.0, decision=None, failed=False, usd=0.001, seconds=1.0, sent=0.0, energy=5.0):
    """One replayed call."""
    bill = Bill(usd=usd, latency_s=seconds, sent_tokens=sent, energy_j=energy)
    return ReplayedCall(id="a", decision=decision, quality=quality, bill=bill, failed=failed)


def test_expectations_by_hand():
    """Means of two calls, and 95 % of the way from 1 s to 3 s."""
    found = expected(
        [outcome(), outcome(quality=0.5, usd=0.003, seconds=3.0, sent=90.0, energy=15.0, failed=True)]
    )
    assert (found.n, found.cloud_share, found.quality, found.cost_per_1k) == (
        2,
        1.0,
        0.75,
        pytest.approx(2.0),
    )
    assert (found.latency_s, found.p95_latency_s) == (2.0, pytest.approx(2.9))
    assert (found.sent_tokens, found.energy_j, found.samples) == (45.0, 10.0, 0.0)
    told = replace(found, quality=2 / 3, intervals={}, usd_per_1k=None, cloud_share=1 / 3).to_dict()
    assert told == {"cloud_share": 0.333333, "quality": 0.666667, "quality_ci": None, "cost_per_1k": None}


def test_one_call_that_does_not_tell_leaves_the_mean_unknown():
    """None, as no mean of the others would be that of all."""
    nan = math.nan
    found = expected([outcome(), outcome(quality=nan, usd=nan, seconds=nan, sent=nan, energy=nan)])
    assert (found.quality, found.quality_ci, found.cost_per_1k, found.latency_s) == (None,) * 4
    assert (found.p95_latency_s, found.sent_tokens, found.energy_j) == (None,) * 3
    with pytest.raises(CalibrationError, match="at least one graded row"):
        expected([])


def test_a_replay_counts_draft_samples_and_cloud():
    """A draft of 4 tokens, three samples of unknown length, and the cloud's answer."""
    drawn = tuple(RecordedSample(text="8") for _ in range(5))
    row = Row(id="a", prompt="How many?", edge=replace(EDGE, samples=drawn), cloud=CLOUD)
    seen = []
    (done,) = replay(
        Cascade.of(SelfConsistency(n=5), 0.4), [row], rates=RATES, progress=lambda *at: seen.append(at)
    )
    assert (done.decision.route, done.cloud, done.quality, seen) == ("cloud", True, 1.0, [(1, 1)])
    assert numbers(done.bill) == pytest.approx((140 + 3 * 140 + 960, 2 + 3 * 2 + 1, 90, 20 + 3 * 20 + 100))
    (kept,) = replay(Cascade.of(TokenLogprob(), 0.1), [row], rates=RATES)
    assert (kept.decision.route, kept.cloud) == ("edge", False)
    assert numbers(kept.bill) == pytest.approx((140, 2, 0, 20))


@pytest.mark.parametrize("answer", [None, "extracted"])
@pytest.mark.parametrize(
    ("reference", "sample", "quality"),
    [
        (7, "7", 1.0),
        ("7", "7", 1.0),
        (9, "7", 0.0),
        (["seven", "7"], "7", 1.0),
        (["nine"], "7", 0.0),
        (None, "7", None),
        (7, "8", 0.25),
    ],
)
def test_a_sample_in_the_drafts_place_is_graded_by_the_reference(reference, sample, quality, answer):
    """Whether the recorder extracted its answer or not; the draft's own answer has the draft's grade."""
    drawn = tuple(RecordedSample(text=sample, answer=answer and sample) for _ in range(5))
    edge = replace(EDGE, text="8", quality=0.25, samples=drawn)
    row = Row(id="a", prompt="How many?", reference=reference, edge=edge, cloud=CLOUD)
    policy = replace(Cascade.of(SelfConsistency(n=5, step=5), 1.0), returns="majority")
    assert expected(replay(policy, [row])).quality == quality


def uneven(share, n=10, missing=2):
    """The threshold of a share of n calls, the last `missing` of which were not measured."""
    rows = [
        Row(
            id=str(at),
            edge=replace(EDGE, logprobs=None),
            cloud=CLOUD,
            signals={"u": at} if at < n - missing else {},
        )
        for at in range(n)
    ]
    return fit(rows, CloudShare(share=share), signal="u").policy.gates[0].threshold.value


def test_a_share_counts_what_was_not_measured():
    """Half of ten: two that were not measured and three of eight; a fifth: those two alone."""
    assert [uneven(0.5), uneven(0.2)] == [4.0, 7.0]
    with pytest.raises(CalibrationError, match="2 of 10 calls go to the cloud"):
        uneven(0.19)


def test_a_promise_may_keep_all_that_was_measured():
    """400 calls of which none fails are kept to the last; the 40 that fail were not measured, and are never kept."""
    rows = [
        Row(
            id=str(at),
            edge=replace(EDGE, logprobs=None, quality=float(at < 400)),
            cloud=CLOUD,
            signals={"u": at} if at < 400 else {},
        )
        for at in range(440)
    ]
    found = fit(rows, MaxLoss(alpha=0.05), signal="u")
    assert (found.policy.gates[0].threshold.value, found.certificate.n) == (399.0, 440)
    assert found.expected.cloud_share == pytest.approx(40 / 440)


def test_an_objective_says_where_one_model_alone_is_better():
    """An edge that is always right needs no cloud; a threshold that keeps all is not better than it."""
    rows = [
        Row(id=str(at), edge=replace(EDGE, quality=0.0), cloud=CLOUD, signals={"u": at}) for at in range(40)
    ]
    found = fit(rows, Objective.weighted(), signal="u")
    assert "by this objective, always asking the cloud does better" in found.notes
    assert not any("asking the edge alone" in note for note in found.notes)
    bounded = fit(rows, Objective.weighted().within(cloud_share=0.99), signal="u")
    assert not any("does better" in note for note in bounded.notes)


def test_a_model_alone_that_is_as_good_is_not_better():
    """Keeping all calls is always asking the edge: no note."""
    rows = [Row(id=str(at), edge=EDGE, cloud=CLOUD, signals={"u": at}) for at in range(40)]
    assert not any("does better" in note for note in fit(rows, Objective.weighted(), signal="u").notes)


def test_a_net_loss_needs_the_clouds_grades():
    """Without them the cloud would count as always right, which is no net loss."""
    rows = [Row(id=str(at), edge=EDGE, signals={"u": at}) for at in range(400)]
    with pytest.raises(CalibrationError, match="a net loss needs the cloud's grades"):
        fit(rows, MaxLoss(alpha=0.05, loss="net"), signal="u")
    found = front_of(table_of(rows), np.arange(400.0), resamples=0)
    with pytest.raises(CalibrationError, match="grade both tiers' answers"):
        found.at(quality=0.5)
    with pytest.raises(CalibrationError, match="exactly one"):
        found.at(cost=1.0, cloud_share=0.5)


def test_a_combination_draws_samples_where_a_member_does():
    """So that its front is billed for them."""
    values, right = np.linspace(0, 1, 60)[:, None], np.arange(60) % 2
    for signal, drawn in ((SelfConsistency(n=5), 5), (TokenLogprob(), 0)):
        assert samples_of(fit_combined({"a": signal}, values, right)) == drawn


def separable(n=200, *, right=None):
    """Calls that one signal parts without an error, and whose cloud is always right."""
    rows = [
        Row(
            id=str(at),
            edge=replace(EDGE, logprobs=None, quality=float(at < n / 2) if right is None else right),
            cloud=CLOUD,
            signals={"u": float(at)},
        )
        for at in range(n)
    ]
    return table_of(rows)


def test_a_combination_that_is_as_good_is_not_worth_it():
    """Of one signal that tells every error: out of fold it ranks as well, and the single one is chosen; forced, it is taken."""
    found = chosen(separable())
    assert found.column == "u"
    assert found.scores["combined"] == pytest.approx(found.scores["u"], abs=0.001)
    assert found.ece["u"] == pytest.approx(0.0, abs=0.05)
    # Two blocks, 0 and 1, with a line from the middle of one to that of the other: half of all rows are off by 1/4 on average.
    assert found.ece["combined"] == pytest.approx(0.125, abs=0.01)
    assert chosen(separable(), combine=True).column == "combined"
    assert "combined" not in chosen(separable(), combine=False).scores
    assert "combined" not in chosen(separable(n=98)).scores


def test_a_combination_decides_by_gain_where_the_cloud_is_graded():
    """Against a cloud of 0.5 a right answer gains -0.5 and a wrong one 0.5; told to decide by errors, it gives 0 and 1."""
    table = table_of(replace(row, cloud=replace(CLOUD, quality=0.5)) for row in separable().rows)
    choice = chosen(table, combine=True)
    by_error = replace(choice, signal=replace(choice.signal, decides="wrong"))
    for decided, low, high in ((choice, -0.5, 0.5), (by_error, 0.0, 1.0)):
        found = uncertainty_of(decided, table)
        assert (found[0], found[-1]) == (pytest.approx(low, abs=0.05), pytest.approx(high, abs=0.05))
    ungraded = chosen(table_of(replace(row, cloud=None) for row in table.rows), combine=True)
    found = uncertainty_of(ungraded, table)
    assert (found[0], found[-1]) == (pytest.approx(0.0, abs=0.05), pytest.approx(1.0, abs=0.05))


def test_where_the_cloud_is_no_better_every_signal_is_chance():
    """There is nothing to gain by any order."""
    assert chosen(separable(right=1.0), combine=False).scores == {"u": 0.5}


def test_members_are_the_best_of_each_family(rows):
    """One of each, those that draw no samples first."""
    signal = fit(rows, CloudShare(share=0.3), signal="combined").policy.gates[0].signal
    names = [member.name for member in signal.members]
    assert 2 <= len(names) <= 4
    assert len({name.split(".")[0] for name in names}) == len(names)
    drawn = [samples_of(member.signal) for member in signal.members]
    assert drawn == sorted(drawn)
    assert any(drawn)
    assert not all(drawn)
