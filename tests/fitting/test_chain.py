"""Runs of several models: thresholds for every step under one goal and one promise, and which chain to deploy."""

import json
import math
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest

from confroute import Cascade, Gate, Router, Threshold, TokenLogprob, load_policy
from confroute.cli import main
from confroute.drift.shift import measured_by
from confroute.errors import CalibrationError, PolicyError, UnmetPromiseError
from confroute.fitting import (
    CloudShare,
    MaxLoss,
    Objective,
    Rates,
    adverse_selection,
    apply,
    expected,
    fit,
    replay,
)
from confroute.fitting.chain import Chain, chain_of, comparable, tables_of
from confroute.fitting.chain_choice import chosen_chain, compared
from confroute.policy import TierThreshold
from confroute.policy.guarantee import certified_policies
from confroute.prices import Price
from confroute.recording import Middle, RecordedSample, RecordError, Row, Side, write_rows
from confroute.testing import Reply, ScriptedModel

COSTS = {"edge": 0.0001, "mid": 0.002, "cloud": 0.01}
LOGPROB = "token_logprob.mean"


def drafted(generator, hardness, skill, cost, *, samples=0, bare=True):
    """A draft that is right, and certain, where a call is not too hard for its model; without its text, its uncertainty is recorded."""
    doubt = 0.6 / (1 + math.exp(12 * (skill - hardness))) + 0.03 * generator.random()
    drawn = tuple(RecordedSample(text="7" if generator.random() > doubt else "8") for _ in range(samples))
    side = Side(
        text=None if bare else "7",
        logprobs=None if bare else (-doubt,),
        quality=float(generator.random() > 1.5 * doubt),
        samples=drawn,
        cost_usd=cost,
        latency_s=0.1,
        extra={"finish": "stop"},
    )
    return Middle(side=side, signals={LOGPROB: doubt} if bare else {})


def rows_of(n=600, *, seed=0, edge=0.5, mid=0.9, mid_cost=COSTS["mid"], **given):
    """Rows of three models of given skills; the cloud is right on 9 of 10."""
    generator = np.random.default_rng(seed)
    for at, hardness in enumerate(generator.random(n)):
        first = drafted(generator, hardness, edge, COSTS["edge"], **given)
        yield Row(
            id=f"{seed}/{at}",
            prompt="How many?",
            reference="7",
            edge=first.side,
            tiers={"mid": drafted(generator, hardness, mid, mid_cost, **given)},
            cloud=Side(
                text="7", quality=float(generator.random() < 0.9), cost_usd=COSTS["cloud"], latency_s=1.0
            ),
            signals=first.signals,
        )


@pytest.fixture(scope="module")
def rows():
    """600 rows whose middle model pays."""
    return list(rows_of())


@pytest.fixture(scope="module")
def fitted(rows):
    """Fitted for a promise."""
    return fit(rows, MaxLoss(alpha=0.1), signal=LOGPROB)


def near(value):
    """But for the rounding of a mean."""
    return pytest.approx(value, abs=1e-9)


def chain(rows, column=LOGPROB, **given):
    """The rows as a chain."""
    return chain_of(tables_of(comparable(rows), **given), column, sampled=column == "self_consistency")


def policy_of(tiers, thresholds):
    """A cascade with these thresholds."""
    first, *others = (Threshold(value=value) for value in thresholds)
    own = tuple(
        TierThreshold(tier=tier, threshold=one) for tier, one in zip(tiers[1:-1], others, strict=True)
    )
    return Cascade(
        tiers=tiers, gates=(Gate(signal=TokenLogprob(), threshold=first, by_tier=own),), lacking=None
    )


@pytest.mark.parametrize(
    ("tiers", "thresholds"),
    [
        (("edge", "mid", "cloud"), (0.15, 0.3)),
        (("edge", "mid", "cloud"), (0.4, 0.1)),
        (("mid", "cloud"), (0.2,)),
        (("edge", "mid"), (0.2,)),
        (("edge", "cloud"), (0.2,)),
    ],
)
def test_columns_say_what_a_replay_says(tiers, thresholds):
    """Quality, cost, time and cloud share of any thresholds, with drafts that failed, are cut off or were not measured."""
    rows = list(rows_of(60, bare=False))
    mid = rows[2].tiers["mid"]
    changed = [
        replace(rows[0], edge=Side(error="down", cost_usd=0.0, latency_s=0.0)),
        replace(rows[1], edge=replace(rows[1].edge, extra={"finish": "length"})),
        replace(rows[2], tiers={"mid": replace(mid, side=replace(mid.side, logprobs=None))}),
        *rows[3:],
    ]
    found = expected(replay(policy_of(tiers, thresholds), changed))
    some = chain(changed).of(tiers)
    calls = some.calls([some.routes(thresholds)])
    assert found.quality == pytest.approx(calls.quality.mean())
    assert found.usd_per_1k == pytest.approx(1000 * calls.usd.mean())
    assert found.latency_s == pytest.approx(calls.latency_s.mean())
    assert found.cloud_share == pytest.approx(calls.cloud.mean())


def test_samples_are_billed_at_every_step_that_measures():
    """As a replay bills them whose draws do not stop early."""
    rows = list(rows_of(40, samples=3, bare=False))
    some = chain(rows, "self_consistency")
    to_the_end = some.calls([np.full(some.n, 2)])
    assert to_the_end.usd[0] == pytest.approx(
        np.full(40, 4 * COSTS["edge"] + 4 * COSTS["mid"] + COSTS["cloud"])
    )


def test_losses_of_a_chain_by_hand():
    """Each against the run's last model, whichever tier answers; without that model in the chain every call may lose."""
    some = Chain(
        tiers=("edge", "mid", "cloud"),
        quality=np.array([[1.0, 0.0, 0.0, 0.5], [0.0, 1.0, 0.0, 1.0], [1.0, 1.0, 1.0, 0.0]]),
        uncertainty=np.array([[0.1, 0.9, 0.9, np.nan], [0.5, 0.2, 0.8, 0.1]]),
        answers={"usd": np.array([[1.0] * 4, [2.0] * 4, [10.0] * 4])},
        evidence={"usd": np.zeros((2, 4))},
        cloud_quality=np.array([1.0, 1.0, 1.0, 0.0]),
    )
    routes = some.routes((0.3, 0.3))
    assert routes.tolist() == [0, 1, 2, 1]
    assert some.losses("regret", routes).tolist() == [0, 0, 0, 0]
    assert some.losses("net", routes).tolist() == [0, 0, 0, -1]
    assert some.losses("selective", routes).tolist() == [0, 0, 0]
    assert some.losses("shortfall", some.routes((0.3, 0.0))).tolist() == [0, 0, 0, 1]
    pair = some.of(("edge", "mid"))
    assert pair.losses("regret", pair.routes((0.3,))).tolist() == [0, 0, 1, 0]
    assert pair.losses("selective", pair.routes((0.3,))).tolist() == [0, 0, 1, 0]
    assert [one.words for one in some.subsets()][:4] == [
        "edge alone",
        "mid alone",
        "cloud alone",
        "edge > mid",
    ]


def test_a_front_holds_no_thresholds_that_others_beat(rows):
    """Each next one loses more and costs less, and none of all combinations does better at both."""
    some = chain(rows)
    front = some.front("regret")
    lost = [some.losses("regret", some.routes(one)).mean() for one in front]
    usd = [some.calls([some.routes(one)]).usd.mean() for one in front]
    assert len(front) > 20
    assert all(np.diff(lost) > 0)
    assert all(np.diff(usd) < 0)
    generator = np.random.default_rng(1)
    for at in generator.integers(0, some.n, (50, 2)):
        thresholds = tuple(some.uncertainty[[0, 1], at])
        loss = some.losses("regret", some.routes(thresholds)).mean()
        cost = some.calls([some.routes(thresholds)]).usd.mean()
        # The front is of quantiles, so another value may beat it by what lies between two of them.
        assert not any(loss < a - 0.02 and cost < b - 1e-4 for a, b in zip(lost, usd, strict=True))


@pytest.mark.parametrize(
    ("loss", "graded"), [("regret", False), ("regret", True), ("net", False), ("selective", False)]
)
def test_one_promise_over_a_sequence_of_policies_is_broken_as_rarely_as_it_says(loss, graded):
    """Where losses go up and down along the sequence, and the policy after the first ones breaks the bound by a little."""
    alpha, delta, runs = 0.1, 0.2, 400
    truth = np.array([0.02, 0.08, 0.11, 0.05, 0.3])
    generator = np.random.default_rng(0)
    broken = 0
    for _ in range(runs):
        losses = (generator.random((5, 150)) < truth[:, None]).astype(float)
        if graded:
            losses = losses * 0.5 + 0.5 * (generator.random((5, 150)) < truth[:, None])
        try:
            at, promise = certified_policies(losses, [losses[0]], alpha=alpha, delta=delta, loss=loss)
        except UnmetPromiseError:
            continue
        assert promise.observed == losses[at].mean()
        broken += truth[at] > alpha
    # Three standard deviations of the count where it is exactly delta.
    assert broken <= delta * runs + 3 * math.sqrt(delta * (1 - delta) * runs)
    assert graded or loss == "net" or broken > 0, "else the level costs more than it has to"


@pytest.mark.parametrize(("failures", "proved"), [(1, True), (2, False)])
def test_a_policy_is_tested_at_the_full_level_and_no_more(failures, proved):
    """Of 100 calls that lose 5 % each, at most 1 fails with probability .037, and at most 2 with .118."""
    losses = np.arange(100) < failures
    refused = nullcontext() if proved else pytest.raises(UnmetPromiseError, match="2 on 100 calls")
    with refused:
        certified_policies([losses * 1.0], [losses], alpha=0.05, delta=0.1)


@pytest.mark.parametrize(("gain", "tiers"), [(0.0015, 2), (0.0025, 3)])
def test_a_further_model_has_to_be_worth_it(rows, gain, tiers):
    """A gain below .002 a model is within the noise of the rows."""
    chosen = chosen_chain(chain(rows), "regret", lambda option, _: gain * len(option.tiers))
    assert len(chosen) == tiers


def test_too_few_kept_calls_prove_nothing():
    """Of a handful of calls that never lost, a mean over those kept says little."""
    with pytest.raises(UnmetPromiseError, match="cannot be guaranteed"):
        certified_policies([np.zeros(20)], [np.zeros(20)], alpha=0.2, delta=0.1, loss="selective")


def test_a_fit_promises_the_whole_loss_at_every_step(fitted, rows, tmp_path):
    """One certificate; the file loads in a router of these tiers, and the promise is judged once elsewhere."""
    assert fitted.policy.tiers == ("edge", "mid", "cloud")
    gate = fitted.policy.gates[0]
    first, second = (gate.for_call(tier, frozenset()).threshold for tier in ("edge", "mid"))
    assert first.certificate == second.certificate
    assert first.value != second.value
    assert first.source.endswith("on 300 calls of edge > mid > cloud")
    assert (fitted.n, fitted.selected_on) == (300, 300)
    assert fitted.certificate.observed <= 0.1
    assert [one.alpha for one in fitted.promise_curve] == sorted(one.alpha for one in fitted.promise_curve)
    fitted.save(tmp_path / "policy.json")
    policy = load_policy(tmp_path / "policy.json")
    models = {
        "edge": ScriptedModel([Reply(text="5", logprob=-5.0)], name="e"),
        "mid": ScriptedModel([Reply(text="7", logprob=-1e-6)], name="m"),
        "cloud": ScriptedModel(["7"], name="c"),
    }
    assert Router(tiers=models, policy=policy).ask("How many?").decision.route == "mid"
    applied = apply(policy, list(rows_of(1500, seed=7)))
    (verdict,) = applied.verdicts
    assert (verdict.outcome, verdict.n) == ("held", 1500)
    assert applied.shift.like_recorded
    assert apply(policy, rows).verdicts[0].why.startswith("these are the rows")


def test_a_promise_is_kept_on_other_calls_as_often_as_it_says():
    """The middle of everything: over runs, the true loss of the fitted policy is above alpha at most as often as delta."""
    broken, other = 0, chain(list(rows_of(2000, seed=99)))
    for seed in range(12):
        found = fit(list(rows_of(300, seed=seed)), MaxLoss(alpha=0.1, delta=0.2), signal=LOGPROB, seed=seed)
        gate, tiers = found.policy.gates[0], found.policy.tiers
        thresholds = tuple(gate.for_call(tier, frozenset()).threshold.value for tier in tiers[:-1])
        some = other.of(tiers)
        broken += some.losses("regret", some.routes(thresholds)).mean() > 0.1
    # At most 2.4 are expected; six or more have a probability below 2 %.
    assert broken < 6


def test_a_middle_model_that_pays_is_deployed_and_compared_with_the_best_pair(fitted):
    """At equal total cost, with a paired interval; each model alone at its own cost."""
    by_name = {one.name: one for one in fitted.chains}
    assert list(by_name) == [
        *("edge alone", "mid alone", "cloud alone"),
        *("edge > mid", "edge > cloud", "mid > cloud"),
        "edge > mid > cloud",
    ]
    whole = by_name["edge > mid > cloud"]
    assert whole.deployed
    assert whole.quality == pytest.approx(fitted.expected.quality)
    assert whole.usd_per_1k == pytest.approx(fitted.expected.usd_per_1k)
    pair = by_name["edge > cloud"]
    low, high = pair.gain_ci
    assert 0 < low < pair.gain < high
    assert pair.usd_per_1k == whole.usd_per_1k
    assert by_name["cloud alone"].usd_per_1k == pytest.approx(1000 * COSTS["cloud"])
    assert any(note.startswith("the best pair at this cost is") for note in fitted.notes)


def test_a_middle_model_that_does_not_pay_is_left_out_and_named():
    """It is no better than the edge, and dearer."""
    found = fit(list(rows_of(mid=0.45, mid_cost=0.004)), MaxLoss(alpha=0.1), signal=LOGPROB)
    assert found.policy.tiers == ("edge", "cloud")
    assert any(note.startswith("mid left out: on the calls that chose the chain") for note in found.notes)
    whole = found.chains[-1]
    assert whole.gain > 0
    assert found.certificate.alpha == 0.1


def test_qualities_at_equal_cost_by_hand():
    """Between two points of a front calls are divided so that the cost is met; a chain whose drafts cost more has none there."""
    n = 1000
    right = np.arange(n) % 2 == 0
    some = Chain(
        tiers=("edge", "cloud"),
        quality=np.stack([right, np.ones(n)]).astype(float),
        uncertainty=np.where(right, 0.1, 0.9)[None, :],
        answers={
            name: np.repeat([[1.0], [9.0]], n, axis=1)
            for name in ("usd", "latency_s", "sent_tokens", "energy_j")
        },
        evidence={name: np.zeros((1, n)) for name in ("usd", "latency_s", "sent_tokens", "energy_j")},
        cloud_quality=np.ones(n),
    )
    alone = [(some.of([tier]), ((),)) for tier in some.tiers]
    edge, cloud, deployed = compared([*alone, (some, ((0.1,), (0.9,)))], deployed=2, at=0)
    assert (deployed.quality, deployed.usd_per_1k, deployed.gain) == (near(1), near(5500), None)
    assert (edge.quality, edge.gain) == (near(0.5), near(0)), (
        "keeping every draft costs what the edge alone does"
    )
    assert (cloud.quality, cloud.usd_per_1k, cloud.gain) == (near(1), near(9000), near(0))
    _, _, between = compared([*alone, (some, ((-1.0,), (0.9,)))], deployed=2, at=1)
    assert between.quality == near(0.5)
    dear = replace(some, answers={**some.answers, "usd": some.answers["usd"] + 10})
    *_, lacking = compared([(some, ((0.9,),)), (dear, ((0.1,), (0.9,)))], deployed=0, at=0)
    assert (lacking.quality, lacking.gain, lacking.gain_ci) == (None, None, None)
    assert "cannot be had" in lacking.words


@pytest.mark.parametrize(
    "goal",
    [
        CloudShare(share=0.3),
        Objective.weighted(quality=1.0, usd_per_1k=0.01),
        Objective.best_quality(usd_per_1k=4.0),
        MaxLoss(alpha=0.3, loss="selective"),
        MaxLoss(alpha=0.3, loss="shortfall", horizon=math.inf),
        MaxLoss(alpha=0.1, loss="net"),
        MaxLoss(alpha=0.2, loss="error"),
    ],
    ids=str,
)
def test_every_goal(goal, rows):
    """Each gives a policy that does what was asked on the rows that did not choose its thresholds."""
    found = fit(rows, goal, signal=LOGPROB)
    if isinstance(goal, CloudShare):
        assert found.expected.cloud_share == pytest.approx(0.3, abs=0.05)
    elif isinstance(goal, MaxLoss):
        assert found.certificate.observed <= goal.alpha
        assert found.certificate.loss == goal.loss
    else:
        assert all(limit.met(found.expected) for limit in goal.limits)
        assert found.certificate is None


def test_the_signal_is_the_best_on_average_over_the_steps():
    """Of those that every tier has; columns of one tier alone are no candidates."""
    generator = np.random.default_rng(0)
    rows = [
        replace(
            row,
            signals={**row.signals, "token_margin": generator.random(), "only": 0.0},
            tiers={"mid": with_margin(row.tiers["mid"], generator.random())},
        )
        for row in rows_of(200)
    ]
    found = fit(rows, MaxLoss(alpha=0.2))
    assert found.choice.column == LOGPROB
    assert "only" not in found.choice.scores
    assert found.choice.scores[found.choice.column] > found.choice.scores["token_margin"]
    with pytest.raises(CalibrationError, match="that can be kept has the signal 'only'"):
        fit(rows, MaxLoss(alpha=0.2), signal="only")
    bare = [replace(row, signals={"only": 0.5}) for row in rows]
    with pytest.raises(CalibrationError, match="measured in the same way on the drafts of every tier"):
        fit(bare, MaxLoss(alpha=0.2))


def with_margin(middle, margin):
    """With one more column."""
    return replace(middle, signals={**middle.signals, "token_margin": margin})


@pytest.mark.parametrize(
    ("goal", "signal", "words"),
    [
        (MaxLoss(alpha=0.1, judged=True), LOGPROB, "judged is for runs of two models"),
        (MaxLoss(alpha=0.1, delta=None), LOGPROB, "delta=None is for runs of two models"),
        (MaxLoss(alpha=0.1, horizon=100), LOGPROB, "a horizon is for runs of two models"),
        (MaxLoss(alpha=0.1), "combined", "combined signals work only with runs of two models"),
        (MaxLoss(alpha=0.001), LOGPROB, "the smallest loss that can be promised on them is 0.0"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_can(goal, signal, words, rows):
    """Each with the reason."""
    with pytest.raises(CalibrationError, match=words):
        fit(rows, goal, signal=signal)


def test_a_run_whose_costs_or_grades_are_not_known_is_refused(rows):
    """Chains are compared at equal total cost, on the same calls; a price of a tier that is not there is a slip."""
    free = [replace(row, edge=replace(row.edge, cost_usd=None)) for row in rows]
    with pytest.raises(
        CalibrationError, match=r"cost of some recorded calls is not known.*--price TIER=IN,OUT"
    ):
        fit(free, MaxLoss(alpha=0.1), signal=LOGPROB)
    assert fit(free, MaxLoss(alpha=0.1), signal=LOGPROB, rates=Rates(edge=Price())).n == 300
    with pytest.raises(CalibrationError, match="a price of 'middle'"):
        fit(rows, MaxLoss(alpha=0.1), signal=LOGPROB, rates=Rates(tiers={"middle": Price()}))
    ungraded = [ungrade(row) for row in rows]
    with pytest.raises(CalibrationError, match=r"none of 600 rows holds graded answers of edge, mid, cloud"):
        fit(ungraded, MaxLoss(alpha=0.1), signal=LOGPROB)
    some = [*ungraded[:100], *rows[100:]]
    assert fit(some, MaxLoss(alpha=0.1), signal=LOGPROB).left_out == 100
    policy = policy_of(("edge", "mid", "cloud"), (0.2, 0.2))
    applied = apply(policy, some)
    assert (applied.n, applied.left_out) == (500, 100)
    assert apply(policy, [replace(row, edge=replace(row.edge, quality=None)) for row in rows]).graded is False


def ungrade(row):
    """A row whose middle model is not graded."""
    mid = row.tiers["mid"]
    return replace(row, tiers={"mid": replace(mid, side=replace(mid.side, quality=None))})


def test_tiers_stand_for_models_of_their_names_else_in_order(rows):
    """A policy of some of the tiers, of others' names, and one that fits neither way."""
    some = rows[:50]
    own = replay(policy_of(("small", "medium", "large"), (0.2, 0.2)), some)
    named = replay(policy_of(("edge", "mid", "cloud"), (0.2, 0.2)), some)
    assert [one.route for one in own] == [one.route for one in named]
    assert {one.route for one in own} == {"edge", "mid", "cloud"}
    pair = replay(policy_of(("small", "large"), (0.2,)), some)
    assert {one.route for one in pair} == {"edge", "cloud"}
    without = replay(policy_of(("mid", "cloud"), (0.2,)), some)
    assert {one.route for one in without} == {"mid", "cloud"}
    assert without[0].bill.usd == pytest.approx(COSTS["mid"] + (COSTS["cloud"] if without[0].cloud else 0.0))
    with pytest.raises(
        CalibrationError, match="the policy has tiers a, b, c, d and row '0/0' those of edge, mid, cloud"
    ):
        replay(policy_of(("a", "b", "c", "d"), (0.2, 0.2, 0.2)), some)
    with pytest.raises(RecordError, match="holds no drafts of 'a'"):
        rows[0].between("a", "cloud")


def test_the_first_tiers_uncertainty_is_compared_with_recorded_ones(rows):
    """Where a later draft was judged too, the signal's own name is that draft's."""
    policy = policy_of(("edge", "mid", "cloud"), (0.2, 0.2))
    done = replay(policy, rows[:50])
    assert len({one.route for one in done}) == 3
    found = measured_by(policy, [one.decision for one in done])
    assert found == pytest.approx([row.signals[LOGPROB] for row in rows[:50]])


def test_a_middle_model_of_another_name_is_warned_of(rows, tmp_path):
    """As one of the edge or the cloud is."""
    named = [
        replace(
            row,
            edge=replace(row.edge, model="e"),
            tiers={"mid": replace(row.tiers["mid"], side=replace(row.tiers["mid"].side, model="m"))},
            cloud=replace(row.cloud, model="c"),
        )
        for row in rows
    ]
    policy = fit(named, MaxLoss(alpha=0.1), signal=LOGPROB).policy
    assert [one.names for one in policy.provenance.between] == [("m",)]
    assert policy.provenance.to_dict()["between"][0]["names"] == ["m"]
    models = {
        name: ScriptedModel([Reply(text="7", logprob=-0.01)], name=name[0])
        for name in ("edge", "mid", "cloud")
    }
    Router(tiers=models, policy=policy)
    with pytest.warns(UserWarning, match="its mid is other, recorded was m"):
        Router(tiers={**models, "mid": ScriptedModel(["7"], name="other")}, policy=policy)


def test_adverse_selection_is_the_clouds_own(rows):
    """On the most uncertain quarter, with calls that are tied where it begins counted in part, and unmeasured ones in it."""
    doubt = np.array([0.0, 1.0, 1.0, 1.0, np.nan, 0.0, 0.0, 0.0])
    right = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    found = adverse_selection(doubt, right, tier="mid")
    assert found.uncertain == pytest.approx((0 + 1 / 3) / 2)
    assert found.difference == pytest.approx(1 / 6 - 5 / 8)
    assert "mid is most uncertain of" in found.words
    assert adverse_selection(doubt, np.full(8, np.nan)) is None
    generator = np.random.default_rng(0)
    many = generator.random(2000)
    lower = (generator.random(2000) < np.where(many > 0.75, 0.7, 0.9)).astype(float)
    found = adverse_selection(many, lower)
    order = np.argsort(many)[-500:]
    assert found.uncertain == pytest.approx(lower[order].mean())
    assert found.interval[0] < -0.15 < found.interval[1]
    two = fit([replace(row, tiers={}) for row in rows], MaxLoss(alpha=0.1), signal=LOGPROB)
    assert [one.tier for one in two.adverse_selection] == ["edge"]
    assert two.to_dict("p")["adverse_selection"][0]["n"] == 600
    assert two.chains == ()


def test_the_command_says_which_chain_to_deploy(rows, tmp_path, capsys):
    """In words, in JSON and on the page; `apply` takes the same run."""
    run, out = tmp_path / "run.jsonl", tmp_path / "policy.json"
    write_rows(run, rows)
    command = ["fit", str(run), "--out", str(out), "--max-loss", "0.1", "--signal", LOGPROB]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "threshold for drafts of mid" in told
    assert "  edge > mid > cloud: quality" in told
    assert "adverse selection: the cloud's quality is" in told
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["tiers"] for one in found["chains"]][-1] == ["edge", "mid", "cloud"]
    assert found["chains"][-1]["deployed"] is True
    assert [one["tier"] for one in found["adverse_selection"]] == ["edge", "mid"]
    page = out.with_suffix(".html").read_text()
    assert "Which models?" in page
    assert "threshold of mid" in page
    assert main(["apply", str(out), str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n"] == 600
    assert main([*command[:-4], "--max-loss", "0.001", "--signal", LOGPROB, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["refused"]["promise_curve"][0]["alpha"] > 0.001
    assert main([*command, "--price", "middle=1,2"]) == 1
    assert "a price of 'middle'" in capsys.readouterr().err


def test_four_tiers():
    """Any number: every chain of some of them is a candidate."""
    rows = [
        replace(row, tiers={**row.tiers, "more": drafted(np.random.default_rng(at), 0.5, 0.9, 0.001)})
        for at, row in enumerate(rows_of(200))
    ]
    found = fit(rows, MaxLoss(alpha=0.2), signal=LOGPROB)
    assert len(found.chains) == 15
    assert sum(one.deployed for one in found.chains) == 1


def test_a_negative_power_of_a_middle_model_is_refused():
    """As that of the edge."""
    with pytest.raises(PolicyError, match="power is -1"):
        Rates(tier_watts={"mid": -1})
