"""More than two tiers: thresholds of their own, in the policy and for one call, in files and views, and the policies around them."""

from dataclasses import replace

import pytest

from confroute import (
    Cascade,
    Gate,
    KeepPrivate,
    SelfConsistency,
    SendTo,
    Threshold,
    TokenLogprob,
    background,
    load_policy,
    save_policy,
)
from confroute.budget import Budget, Pace, Paced
from confroute.drift import Audited, DriftTest
from confroute.errors import BudgetSpentError, CallThresholdError, PolicyError
from confroute.executor import run
from confroute.learning import LearnOnline
from confroute.policy import DraftReuse, GroupThreshold, Hedged, Prefix, TierThreshold
from confroute.prices import Price
from confroute.signals import ContextLacks
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedCalls, ScriptedModel, faults
from tests.conftest import ask

NAMES = ("edge", "mid", "cloud")
DOUBTFUL, WORSE = Reply(text="5", logprob=-0.5), Reply(text="6", logprob=-2.0)
SURE, DOWN = Reply(text="4", logprob=-0.05), Reply(fault=faults.cut_off())


def own(tier="mid", value=1.0, **given):
    """A threshold of one tier."""
    return TierThreshold(tier=tier, threshold=Threshold(value=value, source=f"fitted to {tier}"), **given)


def cascade(*by_tier, tiers=NAMES, **given):
    """Three tiers, one signal, a threshold of 0.1 for those that have none of their own."""
    gate = Gate(signal=TokenLogprob(), threshold=Threshold(value=0.1), by_tier=by_tier)
    return Cascade(**{"gates": (gate,), "tiers": tiers, **given})


def routed(policy, *replies, samples=(), request=None):
    """The routed answer of a call, and the number of calls of each tier."""
    models = {
        name: ScriptedModel([reply], samples=samples) for name, reply in zip(NAMES, replies, strict=True)
    }
    request = request or ask()
    answer = run(policy, request, ScriptedCalls(models=models).call(request), {})
    return answer, [len(model.calls) for model in models.values()]


def test_each_tier_is_judged_by_its_own_threshold():
    """With its source in the decision; a tier without one has the gate's."""
    answer, counts = routed(cascade(own()), DOUBTFUL, DOUBTFUL, "four")
    found = answer.decision
    assert (found.route, found.threshold, found.threshold_source, counts) == (
        "mid",
        1.0,
        "fitted to mid",
        [1, 1, 0],
    )
    assert found.reason == (
        "token logprob 0.5 nats > 0.1 (given): edge answer not kept; token logprob 0.5 nats <= 1 (fitted to mid): mid answer kept"
    )
    assert routed(cascade(), DOUBTFUL, DOUBTFUL, "four")[0].decision.route == "cloud"
    kept = routed(cascade(own("edge")), DOUBTFUL, DOUBTFUL, "four")[0].decision
    assert (kept.route, kept.threshold) == ("edge", 1.0)


def test_a_tier_has_its_own_grey_zone_and_tags():
    """They stand in place of the gate's: a zone is in the units of one model."""
    gates = (
        Gate(
            signal=TokenLogprob(),
            threshold=Threshold(value=0.1),
            grey=(0.05, 0.6),
            by_tag=(GroupThreshold(tag="lenient", threshold=Threshold(value=9.0)),),
            by_tier=(own(grey=None, by_tag=(GroupThreshold(tag="strict", threshold=Threshold(value=0.2)),)),),
        ),
        Gate(signal=SelfConsistency(n=2, step=2), threshold=Threshold(value=0.1)),
    )
    policy = cascade(gates=gates)
    plain = routed(policy, DOUBTFUL, DOUBTFUL, "four", samples=["7"])[0].decision
    assert [step.tier for step in plain.steps if step.kind == "sample"] == ["edge"]
    assert (plain.route, list(plain.grey)) == ("mid", ["edge/token_logprob"])
    strict = routed(policy, WORSE, DOUBTFUL, "four", request=ask(tags=frozenset({"strict"})))[0].decision
    assert (strict.route, strict.threshold) == ("cloud", 0.2)
    lenient = routed(policy, WORSE, DOUBTFUL, "four", request=ask(tags=frozenset({"lenient"})))[0].decision
    assert (lenient.route, lenient.threshold) == ("edge", 9.0)


@pytest.mark.parametrize(
    ("threshold", "route"),
    [
        (0.6, "edge"),
        (0.2, "cloud"),
        ({"token_logprob": 0.6}, "edge"),
        ({"mid": 0.6}, "mid"),
        ({"mid": {"token_logprob": 0.6}}, "mid"),
        ({"token_logprob": 0.6, "edge": 0.2}, "mid"),
        ({"edge": 0.2, "mid": 0.2}, "cloud"),
    ],
)
def test_a_call_may_have_thresholds_of_its_own_by_tier(threshold, route):
    """What is given for a tier goes before what is given for all."""
    assert (
        routed(cascade(), DOUBTFUL, DOUBTFUL, "four", request=ask(threshold=threshold))[0].decision.route
        == route
    )


@pytest.mark.parametrize(
    ("threshold", "says"),
    [
        (
            {"cloud": 0.3},
            "threshold for cloud: this policy measures token_logprob, and drafts are those of edge, mid",
        ),
        ({"mid": {"margin": 0.3}}, "threshold for margin"),
        ({"mid": -1.0}, r"outside its range \[0, inf\]"),
        (float("inf"), "expected a finite number"),
    ],
)
def test_a_threshold_that_no_draft_could_have_is_refused(threshold, says):
    """The last tier is not judged; before any model is asked."""
    models = {name: ScriptedModel() for name in NAMES}
    request = ask(threshold=threshold)
    with pytest.raises(CallThresholdError, match=says):
        run(cascade(), request, ScriptedCalls(models=models).call(request), {})
    assert not any(model.calls for model in models.values())


@pytest.mark.parametrize(
    ("build", "says"),
    [
        (
            lambda: cascade(own("cloud")),
            "a threshold for drafts of 'cloud': expected a tier that drafts, one of edge, mid",
        ),
        (lambda: cascade(own(), own()), "by_tier of token_logprob is for mid, mid: expected each tier once"),
        (lambda: cascade(Threshold(value=1.0)), r"expected TierThreshold\(tier=..., threshold=...\)"),
        (lambda: cascade(own(value=-1.0)), "outside its range"),
        (lambda: cascade(own(grey=(2.0, 3.0))), r"grey zone \(2.0, 3.0\)"),
        (
            lambda: cascade(tiers=("token_logprob", "mid", "cloud")),
            "'token_logprob' is the name of both a tier and a signal",
        ),
        (
            lambda: cascade(rules=(SendTo(tier="claud", tags=("x",)),)),
            "names the tier 'claud': expected one of edge, mid",
        ),
        (
            lambda: cascade(tiers=("s", "m", "l"), rules=(KeepPrivate(),)),
            "names the tier 'edge': expected one of s, m, l",
        ),
        (lambda: cascade(rules=(KeepPrivate(tier="mid"),)), "set local=True"),
        (
            lambda: cascade(
                prefix=Prefix(commit=Threshold(value=0.1), cut=Threshold(value=1), tiers=("cloud",))
            ),
            "the prefix is for drafts of 'cloud'",
        ),
        (
            lambda: cascade(
                lacking=Gate(
                    signal=ContextLacks(), threshold=Threshold(value=0.5), by_tier=(own("cloud", 0.5),)
                )
            ),
            "for drafts of 'cloud'",
        ),
    ],
)
def test_what_names_no_tier_is_refused_when_it_is_made(build, says):
    """Not at every call."""
    with pytest.raises(PolicyError, match=says):
        build()


def test_the_latest_draft_that_can_be_shown_is_returned():
    """Where the last tier fails: with the threshold and the reason that rejected that very draft."""
    policy = cascade(on_cloud_error="edge", on_unfinished="reject")
    answer = routed(policy, DOUBTFUL, WORSE, DOWN)[0]
    assert (answer.text, answer.decision.route, answer.decision.uncertainty) == ("6", "mid", 2.0)
    cut_off = Prefix(commit=Threshold(value=0.01), cut=Threshold(value=1.0), tokens=1, least=1)
    answer = routed(replace(policy, prefix=cut_off), DOUBTFUL, WORSE, DOWN)[0]
    assert (answer.text, answer.decision.route, answer.decision.uncertainty) == ("5", "edge", 0.5)
    assert answer.decision.degraded


def test_a_prefix_for_one_tier_leaves_the_others_to_the_gates():
    """What a running mean is worth differs from model to model."""
    prefix = Prefix(commit=Threshold(value=0.6), cut=Threshold(value=1.0), tokens=1, least=1, tiers=("mid",))
    decision = routed(cascade(prefix=prefix), DOUBTFUL, DOUBTFUL, "four")[0].decision
    assert (decision.route, decision.stage) == ("mid", "prefix")


def test_what_could_not_be_measured_is_told_by_tier():
    """The second tier's reason names its own cause alone, and the decision holds both."""
    silent = Reply(text="5", logprob=None)
    found = routed(cascade(on_no_signal="cloud"), silent, silent, "four")[0].decision
    assert sorted(found.skipped) == ["edge/token_logprob", "token_logprob"]
    assert found.reason.count("token_logprob:") == 2


def test_it_is_saved_and_loaded(tmp_path):
    """With every threshold, source and certificate."""
    promised = Threshold.certify([0.005 * i for i in range(400)], [1.0] * 400, alpha=0.05)
    by_tag = (GroupThreshold(tag="maths", threshold=Threshold(value=0.7)),)
    policy = cascade(TierThreshold(tier="mid", threshold=promised, grey=(0.0, 3.0), by_tag=by_tag))
    save_policy(policy, tmp_path / "policy.json")
    again = load_policy(tmp_path / "policy.json")
    assert again == policy
    assert again.gates[0].by_tier[0].threshold.certificate == promised.certificate
    assert repr(cascade(own())) == (
        "<Cascade edge > mid > cloud: token_logprob <= 0.1 nats (given), for mid <= 1 nats (fitted to mid)>"
    )


def test_a_hedge_is_begun_once_and_dropped_if_the_middle_tier_keeps():
    """The last tier is begun beside the first draft's samples."""
    gates = (
        Gate(signal=TokenLogprob(), threshold=Threshold(value=0.1), grey=(0.1, 3.0)),
        Gate(signal=SelfConsistency(n=2, step=2), threshold=Threshold(value=0.1)),
    )
    answer, counts = routed(Hedged(policy=cascade(gates=gates)), DOUBTFUL, SURE, "four", samples=["7"])
    assert (answer.decision.route, answer.decision.layers["hedge"]["used"]) == ("mid", False)
    assert counts[2] == 1


def test_the_draft_that_is_reused_is_the_latest():
    """Of two rejected drafts the better model's."""
    answer = routed(DraftReuse(policy=cascade(), mode="verify"), WORSE, DOUBTFUL, "OK")[0]
    assert (answer.text, answer.decision.route) == ("5", "mid")


def test_an_alarm_closes_or_narrows_every_tier_that_drafts():
    """The audit is of all kept drafts."""
    policy = Audited(
        policy=cascade(own()), test=DriftTest(level=0.05), share=1.0, on_alarm="cloud", store=MemoryStore()
    )
    policy._change(lambda state: {**state, "alarm_at": 1})
    assert routed(policy, SURE, SURE, "four")[1] == [0, 0, 1]
    policy = replace(policy, on_alarm="widen", widen=0.25, store=MemoryStore())
    policy._change(lambda state: {**state, "alarm_at": 1})
    decision = routed(policy, SURE, DOUBTFUL, "four")[0].decision
    assert (decision.route, decision.signals["edge/token_logprob"].uncertainty) == ("cloud", 0.05)
    assert decision.threshold == pytest.approx(0.25)
    assert background.wait()


def test_thresholds_by_tier_are_not_learned():
    """It moves one threshold for each signal."""
    with pytest.raises(PolicyError, match="token_logprob"):
        LearnOnline(policy=cascade(own("edge"), tiers=("edge", "cloud")), store=MemoryStore())


class TestBudgets:
    """One for each tier."""

    def paced(self, store, *, mid, cloud, **given):
        """A budget of calls for the middle tier, and one for the last."""
        inner = Paced(
            policy=cascade(**given),
            budgets=(Budget(limit=mid, unit="calls", name="mid"),),
            tier="mid",
            store=store,
        )
        return Paced(policy=inner, budgets=(Budget(limit=cloud, unit="calls", name="cloud"),), store=store)

    def test_each_tier_is_paid_from_its_own(self):
        """The decision holds both."""
        decision = routed(self.paced(MemoryStore(), mid=5, cloud=5), WORSE, WORSE, "four")[0].decision
        assert decision.layers["budget"] == {
            "mid": {"charged": 1.0, "left": 4.0},
            "cloud": {"charged": 1.0, "left": 4.0},
        }

    def test_a_tier_whose_budget_is_spent_is_passed_over(self):
        """The next one answers; the last one's rejected draft is returned once nothing is left at all."""
        policy = self.paced(MemoryStore(), mid=1, cloud=2, on_cloud_error="raise")
        assert [routed(policy, WORSE, SURE, "four")[0].decision.route for _ in range(4)] == [
            *("mid", "cloud", "cloud"),
            "edge",
        ]

    def test_two_tiers_may_share_a_purse(self):
        """Budgets of one name in one store; what was charged is the sum."""
        store, purse = MemoryStore(), Budget(limit=3, unit="calls", name="all")
        inner = Paced(policy=cascade(), budgets=(purse,), tier="mid", store=store)
        policy = Paced(policy=inner, budgets=(purse,), store=store, on_spent="raise")
        decision = routed(policy, WORSE, WORSE, "four")[0].decision
        assert decision.layers["budget"] == {"all": {"charged": 2.0, "left": 1.0}}
        with pytest.raises(BudgetSpentError):
            routed(policy, WORSE, WORSE, "four", request=ask())

    def test_a_pace_moves_the_threshold_of_the_tier_before(self):
        """Other tiers keep theirs, and so does a call that brings its own."""
        pace = Pace(signal="token_logprob", ladder=(0.6, 4.0), start=0.0)
        policy = Paced(
            policy=cascade(own()), budgets=(Budget(limit=9, unit="calls", pace=pace),), store=MemoryStore()
        )
        moved = routed(policy, DOUBTFUL, DOUBTFUL, "four")[0].decision
        assert (moved.route, moved.threshold) == ("mid", 0.6)
        assert moved.threshold_source == "paced by the budget"
        assert "> 0.1 (given): edge answer not kept" in moved.reason
        given = routed(policy, DOUBTFUL, DOUBTFUL, "four", request=ask(threshold={"mid": 0.7}))[0].decision
        assert (given.route, given.threshold) == ("mid", 0.7)
        for_all = ask(threshold={"token_logprob": 0.8})
        assert routed(policy, WORSE, DOUBTFUL, "four", request=for_all)[0].decision.threshold == 0.8

    @pytest.mark.parametrize(
        ("changes", "says"),
        [
            ({"tier": "large"}, "tier is 'large': expected one of edge, mid, cloud"),
            ({"policy": "paced"}, "would charge calls twice"),
            ({"tier": "edge", "pace": True}, "edge is the first"),
        ],
    )
    def test_what_cannot_be_paid_is_refused(self, changes, says):
        """When it is made."""
        changes, store = dict(changes), MemoryStore()
        pace = Pace(signal="token_logprob", ladder=(0.0, 1.0)) if changes.pop("pace", False) else None
        given = {"policy": cascade(), "budgets": (Budget(limit=1, unit="calls", pace=pace),), "store": store}
        inner = Paced(**given)
        if changes.get("policy"):
            changes["policy"] = inner
        with pytest.raises(PolicyError, match=says):
            Paced(**{**given, **changes})

    def test_a_draft_that_may_be_cut_off_is_paid_as_well(self):
        """A watched draft is an ask of its own."""
        cut_off = Prefix(commit=Threshold(value=0.01), cut=Threshold(value=1.0), tokens=1, least=1)
        price = Price(input_usd=1.0, output_usd=1.0)
        policy = Paced(
            policy=cascade(prefix=cut_off),
            budgets=(Budget(limit=10, unit="usd", name="mid"),),
            tier="mid",
            price=price,
            store=MemoryStore(),
        )
        assert routed(policy, WORSE, WORSE, "four")[0].decision.layers["budget"]["mid"]["charged"] > 0
