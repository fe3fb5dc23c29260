"""Fitting: every goal, what it may not do, and that a replay agrees with it."""

import dataclasses
import math
from dataclasses import replace

import numpy as np
import pytest

from confroute import Cascade, SelfConsistency, Threshold, TokenLogprob
from confroute.errors import CalibrationError
from confroute.fitting import CloudShare, MaxLoss, Objective, Rates, expected, fit, replay
from confroute.fitting.fit import samples_of
from confroute.prices import Price
from confroute.recording import Row, Side
from confroute.signals import Cocoa, Combined, Degree, EigenvalueSum, Recorded, TokenMargin


def test_a_promise_is_made_on_rows_that_did_not_choose_the_signal(rows):
    """Three of ten rows choose; the certificate counts the rest, and the policy file carries it."""
    found = fit(rows, MaxLoss(alpha=0.1))
    assert (found.selected_on, found.n, found.certificate.n) == (120, 280, 280)
    assert found.certificate.observed <= 0.1
    assert found.to_dict("p.json")["certificate"] == {
        **{"loss": "regret", "alpha": 0.1, "delta": 0.1},
        **{"n": 280, "method": "ltt-hypergeometric"},
    }
    named = fit(rows, MaxLoss(alpha=0.1), signal="token_logprob.mean")
    assert (named.selected_on, named.n) == (0, 400)


def test_a_saved_fit_does_what_it_did(plain, tmp_path):
    """Read back and replayed on the same rows, the policy gives the numbers that the fit told."""
    found = fit(plain, CloudShare(share=0.3), signal="token_logprob.mean")
    found.save(tmp_path / "policy.json")
    policy = Cascade.load(tmp_path / "policy.json")
    assert policy == found.policy
    assert expected(replay(policy, plain)) == found.expected
    assert found.expected.cloud_share == pytest.approx(0.3, abs=0.01)


def test_the_combination_of_two_signals_beats_both(rows):
    """Log-probabilities and samples each tell part of the errors; out of fold the combination ranks them better."""
    found = fit(rows, CloudShare(share=0.3), signal="combined")
    assert isinstance(found.policy.gates[0].signal, Combined)
    scores = found.choice.scores
    assert scores["combined"] > max(scores["token_logprob.mean"], scores["self_consistency"])
    # CoCoA is a fixed product of the same two: it may rank as well, and the note says which does.
    best = max(score for name, score in scores.items() if name != "combined")
    verb = "beats" if scores["combined"] > best else "does not beat"
    assert any(f") {verb} the best single signal" in note for note in found.notes)


def test_noise_is_not_combined(made):
    """A second column without any information does not make the combination worth it."""
    generator = np.random.default_rng(0)
    noisy = [
        dataclasses.replace(row, signals={"noise": float(generator.random())})
        for row in made(300, samples=False)
    ]
    found = fit(noisy, CloudShare(share=0.3), replay_only=True)
    assert "noise" not in found.choice.column
    assert found.choice.scores["noise"] < 0.6


def test_costs_count_the_discarded_draft_and_samples(rows):
    """Cloud calls cost 2 USD a thousand, drafts and samples 0.1 each; a recorded cost goes before a price."""
    plain = fit(
        rows, CloudShare(share=0.3), signal="token_logprob.mean", rates=Rates(cloud=Price(input_usd=99))
    )
    assert plain.expected.cost_per_1k == pytest.approx(1000 * (0.0001 + plain.expected.cloud_share * 0.002))
    sampled = fit(rows, CloudShare(share=0.3), signal="self_consistency")
    drawn = sampled.expected.samples
    assert 1 < drawn < 5, "sampling stops when the decision stands"
    assert sampled.expected.cost_per_1k == pytest.approx(
        1000 * (0.0001 * (1 + drawn) + sampled.expected.cloud_share * 0.002)
    )


def test_prices_stand_in_for_costs_that_were_not_recorded(made):
    """From tokens; without a price the cost is not known, and a goal that needs it is refused."""
    free = [*made(200, samples=False, cost=False)]
    goal = CloudShare(share=0.5)
    assert fit(free, goal, signal="token_logprob.mean").expected.cost_per_1k is None
    rates = Rates(edge=Price(), cloud=Price(input_usd=10, output_usd=30))
    priced = fit(free, goal, signal="token_logprob.mean", rates=rates).expected
    assert priced.cost_per_1k == pytest.approx(1000 * priced.cloud_share * (90 * 10 + 2 * 30) / 1e6)
    with pytest.raises(CalibrationError, match="usd_per_1k is not known"):
        fit(free, Objective.best_quality(usd_per_1k=1.0), signal="token_logprob.mean")


def test_objectives_meet_their_bounds(plain):
    """Cheapest with a quality, best within a budget, and a bound no threshold meets."""
    signal = "token_logprob.mean"
    cheap = fit(plain, Objective.least_cost(quality=0.8), signal=signal).expected
    assert cheap.quality >= 0.8
    assert (
        fit(plain, Objective.least_cost(quality=0.7), signal=signal).expected.cost_per_1k < cheap.cost_per_1k
    )
    budget = fit(plain, Objective.best_quality(usd_per_1k=0.8), signal=signal).expected
    assert budget.cost_per_1k <= 0.8
    fast = fit(plain, Objective.weighted().within(p95_latency_s=0.6), signal=signal).expected
    assert fast.p95_latency_s <= 0.6
    assert fast.cloud_share <= 0.05
    with pytest.raises(CalibrationError, match=r"quality at least 0.99 \(best: 0\.\d+\)"):
        fit(plain, Objective.least_cost(quality=0.99), signal=signal)


def test_rows_with_only_signals_can_be_fitted_and_replayed():
    """Neither text nor log-probabilities nor costs: the recorded column decides, what is not known is None."""
    generator = np.random.default_rng(1)
    bare = [
        Row(
            id=str(i),
            edge=Side(quality=float(u < 0.6)),
            cloud=Side(quality=1.0),
            signals={"mine": float(u)},
        )
        for i, u in enumerate(generator.random(400))
    ]
    found = fit(bare, MaxLoss(alpha=0.05))
    assert found.policy.gates[0].signal == Recorded(column="mine")
    assert 0.6 < found.policy.gates[0].threshold.value < 0.65
    assert found.expected.quality >= 0.95
    assert (found.expected.cost_per_1k, found.expected.latency_s) == (None, None)
    assert any("only be replayed" in note for note in found.notes)


def test_without_a_graded_cloud_every_wrong_answer_counts(made):
    """The certificate says "error", and the policy's quality is not known."""
    found = fit([*made(400, samples=False, cloud=False)], MaxLoss(alpha=0.15), signal="token_logprob.mean")
    assert found.certificate.loss == "error"
    assert (found.expected.quality, found.expected.quality_ci) == (None, None)


@pytest.mark.parametrize("finish", ["length", "content_filter", "error"])
def test_drafts_that_are_not_whole_go_to_the_cloud_in_the_fit_too(plain, finish):
    """New calls reject them however certain they are: no threshold of the fit keeps them, so that fit and replay agree."""

    def ended(row, how):
        return replace(row, edge=replace(row.edge, extra={"finish": how}))

    cut = [ended(row, finish if at % 4 == 0 else "stop") for at, row in enumerate(plain)]
    found = fit(cut, CloudShare(share=0.4), signal="token_logprob.mean")
    assert found.expected.cloud_share == pytest.approx(0.4, abs=0.01)
    last = found.front.points[-1]
    assert last.cloud_share == pytest.approx(0.25)
    replayed = expected(replay(Cascade.of(TokenLogprob(), last.threshold), cut))
    assert (last.quality, last.usd_per_1k) == pytest.approx((replayed.quality, replayed.cost_per_1k))
    assert any("100 of 400 drafts are incomplete" in note for note in found.notes)
    promised = fit(cut, MaxLoss(alpha=0.1), signal="token_logprob.mean")
    assert promised.certificate.observed == pytest.approx(_regret(promised.policy, cut))
    with pytest.raises(CalibrationError, match="100 of 400 calls go to the cloud whatever the threshold"):
        fit(cut, CloudShare(share=0.2), signal="token_logprob.mean")
    judged = fit(cut, CloudShare(share=0.2), signal="token_logprob.mean", on_unfinished="judge")
    assert (judged.policy.on_unfinished, judged.expected.cloud_share) == (
        "judge",
        pytest.approx(0.2, abs=0.01),
    )


@pytest.mark.parametrize(
    "edge",
    [{"text": None, "extra": {"finish": "length"}}, {"text": " ", "answer": None}],
    ids=["cut", "empty"],
)
def test_a_draft_that_no_threshold_keeps_is_told_by_its_end_alone(plain, edge):
    """One that was cut off and whose text was not recorded, and one that is empty: the fit sends them, as a replay does."""
    rows = [replace(row, edge=replace(row.edge, **edge)) if at < 100 else row for at, row in enumerate(plain)]
    found = fit(rows, CloudShare(share=0.4), signal="token_logprob.mean")
    assert found.front.points[-1].cloud_share == pytest.approx(0.25)
    assert found.expected.cloud_share == pytest.approx(0.4, abs=0.01)


def _regret(policy, rows):
    outcomes = zip(replay(policy, rows), rows, strict=True)
    return np.mean([max(0.0, row.cloud.quality - one.quality) for one, row in outcomes])


def test_a_failed_edge_goes_to_the_cloud(made):
    """A row whose edge failed is answered and graded by the cloud; one whose cloud failed too has no answer."""
    rows = [*made(100, samples=False)]
    rows[0] = dataclasses.replace(rows[0], edge=Side(error="timeout"), cloud=Side(quality=1.0))
    policy = Cascade.of(TokenLogprob(), 5.0)
    done = replay(policy, rows)
    assert (done[0].decision.stage, done[0].quality) == ("fallback", 1.0)
    rows[0] = dataclasses.replace(rows[0], cloud=Side(error="quota"))
    lost = replay(policy, rows)[0]
    assert (lost.failed, lost.quality, lost.cloud) == (True, 0.0, True)
    assert [step.error for step in lost.decision.steps] == ["TierError", "TierError"]


def test_calls_that_were_not_measured_go_to_the_cloud(made):
    """A threshold for a share takes them into account, and refuses what they make impossible."""
    rows = [*made(200, samples=False)]
    mute = [dataclasses.replace(row, edge=dataclasses.replace(row.edge, logprobs=None)) for row in rows[:80]]
    found = fit([*mute, *rows[80:]], CloudShare(share=0.5), signal="token_logprob.mean")
    assert found.expected.cloud_share == pytest.approx(0.5, abs=0.01)
    assert any("not measured on 80 of 200" in note for note in found.notes)
    with pytest.raises(CalibrationError, match="80 of 200 calls go to the cloud"):
        fit([*mute, *rows[80:]], CloudShare(share=0.2), signal="token_logprob.mean")
    promised = fit([*mute, *rows[80:]], MaxLoss(alpha=0.1), signal="token_logprob.mean")
    assert promised.certificate.n == 200


def test_what_cannot_be_fitted_says_why(rows):
    """Unknown signals, ungraded rows, no signal, too few rows to combine."""
    goal = CloudShare(share=0.5)
    with pytest.raises(CalibrationError, match="no draft that can be kept has the signal 'other'"):
        fit(rows, goal, signal="other")
    with pytest.raises(CalibrationError, match="none of 1 recorded rows has a graded"):
        fit([Row(id="a", edge=Side(text="7"))], goal)
    with pytest.raises(CalibrationError, match="no signal was recorded"):
        fit([Row(id=str(i), edge=Side(text="7", quality=1.0)) for i in range(40)], goal)
    with pytest.raises(CalibrationError, match="at least 100"):
        fit(rows[:100], goal, signal="combined")
    with pytest.raises(
        CalibrationError, match="the policy has tiers a, b, c and row '0' those of edge, cloud"
    ):
        replay(Cascade(tiers=("a", "b", "c")), rows)


def test_replays_stop_sampling_as_calls_do(rows):
    """The policy's own early stopping is at work: fewer samples than n, the same routes as with all of them."""
    early = replay(Cascade.of(SelfConsistency(n=5), 0.4), rows)
    full = replay(Cascade.of(SelfConsistency(n=5, step=5), 0.4), rows)
    assert [o.decision.route for o in early] == [o.decision.route for o in full]
    drawn = [sum(s.n for s in o.decision.steps if s.kind == "sample") for o in early]
    assert np.mean(drawn) < 4
    assert math.isclose(expected(early).samples, np.mean(drawn))


def test_decisions_of_a_replay_carry_the_certificate(plain):
    """The promise stands in every decision that the threshold settles."""
    found = fit(plain, MaxLoss(alpha=0.1), signal="token_logprob.mean")
    done = replay(found.policy, plain[:5])
    assert all(o.decision.certificate == found.certificate for o in done)
    assert Threshold(value=1.0).certificate is None


def test_a_column_that_no_signal_measures_live_is_left_out(made):
    """Even where it tells every error: a policy on it would be blind on new calls. Asked for, it is taken, and noted."""
    oracle = [
        dataclasses.replace(row, signals={"oracle": 1.0 - row.edge.quality})
        for row in made(300, samples=False)
    ]
    found = fit(oracle, CloudShare(share=0.3))
    assert "oracle" not in found.choice.scores
    assert any(note.startswith("oracle left out") for note in found.notes)
    wrong = float(np.mean([row.signals["oracle"] for row in oracle]))
    replayed = fit(oracle, CloudShare(share=wrong), replay_only=True)
    assert "oracle" in replayed.choice.scores
    assert any("can only be replayed" in note for note in replayed.notes)


def test_a_signal_of_few_values_is_no_candidate_for_a_share_that_it_cannot_meet(made):
    """It tells every error, and could send 0 or 40 % of the calls: another signal meets the share; alone it is refused, named it is told."""
    coarse = [replace(row, signals={"coarse": 1 - row.edge.quality}) for row in made(300, samples=False)]
    found = fit(coarse, CloudShare(share=0.7), replay_only=True)
    assert found.expected.cloud_share == pytest.approx(0.7, abs=0.05)
    assert "coarse" not in found.choice.scores
    assert any(note.startswith("coarse left out: too few different values") for note in found.notes)
    named = fit(coarse, CloudShare(share=0.7), signal="coarse")
    assert named.expected.cloud_share < 0.5
    assert any("instead of 70.0%: calls of equal uncertainty" in note for note in named.notes)
    alone = [replace(row, edge=replace(row.edge, logprobs=None)) for row in coarse]
    with pytest.raises(CalibrationError, match="the signal takes 2 values"):
        fit(alone, CloudShare(share=0.7), replay_only=True)


def test_a_share_that_is_met_nearly_is_told():
    """Ten values of 20 calls each: 47 % is met by 50 %, and said."""
    rows = [
        Row(id=str(i), edge=Side(quality=1.0), cloud=Side(quality=1.0), signals={"tenths": i % 10 / 10})
        for i in range(200)
    ]
    found = fit(rows, CloudShare(share=0.47), signal="tenths")
    assert found.expected.cloud_share == pytest.approx(0.5)
    assert any("a cloud share of 50.0% instead of 47.0%" in note for note in found.notes)
    exact = fit(rows, CloudShare(share=0.5), signal="tenths")
    assert not any("instead of" in note for note in exact.notes)


def test_nothing_is_set_aside_where_all_candidates_order_the_calls_alike(made):
    """A column, its square and one of a single value: there is nothing to choose, so all rows calibrate."""
    rows = [
        replace(
            row, edge=replace(row.edge, logprobs=None), signals={"u": u, "squared": u * u, "constant": 1.0}
        )
        for row in made(300, samples=False)
        for u in [-row.edge.logprobs[0]]
    ]
    found = fit(rows, MaxLoss(alpha=0.15), replay_only=True)
    assert (found.choice.column, found.selected_on, found.n) == ("u", 0, 300)
    noisy = [replace(row, signals={**row.signals, "noise": i % 7}) for i, row in enumerate(rows)]
    assert fit(noisy, MaxLoss(alpha=0.15), replay_only=True).selected_on == 100


@pytest.mark.parametrize(("n", "selected"), [(200, 60), (248, 74), (250, 100), (400, 120)])
def test_three_of_ten_choose_or_as_many_as_a_combination_takes(made, n, selected):
    """The hundred of a combination, where they are at most four of ten."""
    rows = [replace(row, signals={"noise": i % 97}) for i, row in enumerate(made(n, samples=False))]
    found = fit(rows, CloudShare(share=0.5), replay_only=True, signal="auto")
    assert (found.selected_on, found.n) == (selected, n - selected)


def test_what_a_combination_draws_is_told(rows):
    """Samples cost as much as drafts."""
    found = fit(rows, CloudShare(share=0.3), signal="combined")
    drawn = samples_of(found.choice.signal)
    assert any(f"combined draws up to {drawn} samples per call" in note for note in found.notes)


def test_a_combination_asks_for_the_alternatives_that_a_member_reads(rows):
    """Inside a combination a margin wants as many alternatives of the draft as alone."""
    signal = fit(rows, CloudShare(share=0.3), signal="combined").policy.gates[0].signal
    assert isinstance(signal, Combined)
    assert signal.top_logprobs == 0
    members = tuple(dataclasses.replace(m, signal=TokenMargin()) for m in signal.members)
    assert dataclasses.replace(signal, members=members).top_logprobs == 2


def test_a_signal_of_a_few_rows_does_not_stop_a_fit(made):
    """Mixed runs hold some multiple choice: what a few rows measured is no member, and the others are combined still."""
    rows = [*made(400, samples=False)]
    rows[::50] = [replace(row, signals={"option_probability": 0.5}) for row in rows[::50]]
    found = fit(rows, CloudShare(share=0.4), signal="combined")
    assert [member.name for member in found.choice.signal.members] == ["token_logprob.mean"]


def test_signals_that_draw_samples_are_billed_for_them():
    """CoCoA and the graph signals as much as consistency; also inside a combination; log-probabilities are not."""
    drawing = (SelfConsistency(n=3), Cocoa(n=3), Degree(n=3), EigenvalueSum(n=3))
    assert [samples_of(signal) for signal in drawing] == [3] * 4
    assert samples_of(TokenLogprob()) == samples_of(TokenMargin()) == 0


def test_a_signal_that_few_rows_chose_is_told_so(made):
    """Six of twenty rows cannot tell signals apart: the fit says so and how to name one; a hundred and fifty can, and a name needs none."""

    def noted(n, **settings):
        found = fit([*made(n)], CloudShare(share=0.4), **settings)
        return [note for note in found.notes if "rows chose the signal" in note]

    assert len(noted(20)) == 1
    assert noted(20)[0].startswith("6 rows chose the signal")
    assert noted(150) == []
    assert noted(20, signal="token_logprob.mean") == []
