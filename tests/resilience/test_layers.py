"""Hedges, draft reuse and audits around a cascade; and a private call under all of them."""

import inspect
import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

from confroute import (
    Cascade,
    Gate,
    KeepPrivate,
    Limits,
    Message,
    Request,
    SelfConsistency,
    Threshold,
    TokenLogprob,
    background,
)
from confroute.asks import (
    Begin,
    Draft,
    Embed,
    Final,
    Gather,
    Hidden,
    Prompt,
    Sample,
    Score,
    Shadow,
    Tentative,
)
from confroute.budget import Budget, Paced
from confroute.drift import Audited, DriftTest, Logged, off_policy
from confroute.errors import CalibrationError, ConfrouteError, PolicyError, PrivacyError, StateError
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.policy import GroupThreshold
from confroute.policy.hedge import Hedged
from confroute.policy.reuse import PATCH, DraftReuse
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedCalls, ScriptedModel

ONCE = {"edge": Limits(attempts=1), "cloud": Limits(attempts=1)}
SURE, UNSURE = Reply(text="4", logprob=-0.01), Reply(text="5", logprob=-0.5)
TEST = DriftTest(level=0.05)
GREY = Cascade(
    gates=(
        Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3), grey=(0.1, 0.9)),
        Gate(signal=SelfConsistency(n=3), threshold=Threshold(value=0.4)),
    ),
    rules=(KeepPrivate(patterns=("secret",)),),
    on_cloud_error="edge",
)


def ask(text="What is 2 + 2?", **kwargs):
    return Request(messages=(Message(role="user", text=text),), **kwargs)


def calls_of(*, edge=SURE, samples=(), cloud="four"):
    return ScriptedCalls(
        models={"edge": ScriptedModel([edge], samples=samples), "cloud": ScriptedModel([cloud])}
    )


@pytest.mark.parametrize(("samples", "route"), [(["5"], "edge"), (["4"], "cloud")])
async def test_a_hedge_is_used_or_paid_for(samples, route):
    """Beside the samples the cloud begins once; it answers, or stands in the steps as what was lost."""
    calls = calls_of(edge=UNSURE, samples=samples)
    for routed in (
        run(Hedged(policy=GREY), ask(), calls.call(ask()), ONCE),
        await arun(Hedged(policy=GREY), ask(), calls.acall(ask()), ONCE),
    ):
        decision = routed.decision
        assert decision.route == route
        assert decision.layers["hedge"]["used"] is (route == "cloud")
        paid = [step for step in decision.steps if step.tier == "cloud"]
        assert [step.kind for step in paid] == ["final" if route == "cloud" else "hedge"]
        assert paid[0].usage.input_tokens > 0


def test_a_verified_draft_is_returned():
    """One word of the cloud keeps the draft, which is then the edge's answer."""
    sends = Cascade.of(TokenLogprob(), 0.1)
    routed = run(
        DraftReuse(policy=sends, mode="verify"), ask(), calls_of(edge=UNSURE, cloud="OK").call(ask()), ONCE
    )
    assert (routed.generation.text, routed.decision.route) == ("5", "edge")
    assert routed.decision.usage["cloud"].output_tokens == 1
    other = run(DraftReuse(policy=sends, mode="verify"), ask(), calls_of(edge=UNSURE).call(ask()), ONCE)
    assert (other.generation.text, other.decision.route) == ("four", "cloud")


async def test_a_draft_to_patch_is_shown_to_the_cloud_whose_answer_counts():
    """The cloud reads question and draft, and what it writes is the answer, even the word that would verify; a kept draft is not shown."""
    patching = DraftReuse(policy=Cascade.of(TokenLogprob(), 0.1))
    assert patching.mode == "patch"
    for said in ("5, patched", "OK"):
        calls = calls_of(edge=UNSURE, cloud=said)
        for routed in (
            run(patching, ask(), calls.call(ask()), ONCE),
            await arun(patching, ask(), calls.acall(ask()), ONCE),
        ):
            assert (routed.generation.text, routed.decision.route) == (said, "cloud")
            assert routed.decision.layers["reuse"] == {"mode": "patch"}
            assert [(step.kind, step.tier) for step in routed.decision.steps] == [
                ("draft", "edge"),
                ("final", "cloud"),
            ]
        for heard in calls.models["cloud"].heard:
            assert "What is 2 + 2?" in heard.prompt
            assert PATCH.format(draft="5") in heard.prompt
        assert all("smaller model" not in heard.prompt for heard in calls.models["edge"].heard)
    kept = calls_of(edge=SURE)
    decision = run(patching, ask(), kept.call(ask()), ONCE).decision
    assert (decision.route, "reuse" in decision.layers) == ("edge", False)
    assert kept.models["cloud"].heard == []


@pytest.mark.parametrize("on_alarm", ["warn", "widen", "cloud"])
def test_an_alarm_does_what_was_chosen(on_alarm):
    """After enough audited disagreements the edge is warned of, narrowed or passed over, until reset."""
    policy = Audited(
        policy=Cascade.of(TokenLogprob(), 0.3), test=TEST, share=1.0, on_alarm=on_alarm, store=MemoryStore()
    )
    calls = calls_of(edge=Reply(text="5", logprob=-0.2), cloud="7")
    for _ in range(20):
        run(policy, ask(), calls.call(ask()), ONCE)
        assert background.wait()
    decision = run(policy, ask(), calls.call(ask()), ONCE).decision
    assert policy.state()["alarm_at"] is not None
    assert decision.layers["audit"]["on_alarm"] == on_alarm
    assert decision.route == ("edge" if on_alarm == "warn" else "cloud")
    background.wait()
    policy.reset()
    assert run(policy, ask(), calls.call(ask()), ONCE).decision.route == "edge"
    background.wait()


@pytest.mark.parametrize("runs", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_false_alarms_stay_below_the_stated_rate(runs):
    """Runs of 500 audits at the promised loss raise the alarm in at most 5 %."""
    chance = np.random.default_rng(0)
    alarms = sum(TEST.first_alarm(chance.random(500) < 0.05) is not None for _ in range(runs))
    assert alarms <= 0.05 * runs


def test_the_evidence_for_drift_by_hand():
    """A loss of 1, then 0, at a level of 0.5: a bet b makes 1 + b of what it has, then 1 - b.

    The weights are 1 - 1 / (1 + ln 2) = 0.40939 and 0.59061 - 1 / (1 + ln 3) = 0.11410, the rest is unspent; the six bets have a
    mean of 0.13 and a mean square of 0.0355. So 0.40939 * 1.13 + 0.59061, and 0.40939 * 0.9645 + 0.11410 * 0.87 + 0.47651.
    """
    test = DriftTest(level=0.5)
    once = test.update(test.begin(), 1.0)
    twice = test.update(once, 0.0)
    assert test.evidence(once) == pytest.approx(1.05322, abs=1e-5)
    assert test.evidence(twice) == pytest.approx(0.97063, abs=1e-5)
    assert (twice["audits"], twice["lost"], twice["alarm_at"]) == (2, 1.0, None)
    # The same evidence is an alarm where one is wanted at 1 / 0.95 = 1.0526, and not at 1 / 0.949; it stays.
    quick, slower = (DriftTest(level=0.5, false_alarm=rate) for rate in (0.95, 0.949))
    raised = quick.update(quick.begin(), 1.0)
    assert (raised["alarm_at"], quick.update(raised, 0.0)["alarm_at"]) == (1, 1)
    assert slower.update(slower.begin(), 1.0)["alarm_at"] is None
    for loss in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match=r"in \[0, 1\]"):
            test.update(once, loss)
    for given in ({"level": 0.0}, {"level": 1.0}, {"level": 0.5, "false_alarm": 0.0}):
        with pytest.raises(PolicyError, match="between 0 and 1"):
            DriftTest(**given)


@pytest.mark.parametrize(
    ("method", "value", "half"),
    [
        # (25 * 1 + 10 * 0.5 / 0.8) / 50, and the standard deviation of 25 times 1, 10 times 0.625 and 15 times 0.
        ("ips", 0.625, 0.1875**0.5),
        # 31.25 / (25 + 12.5); deviations (1 - 0.8333) / 0.75 and (0.625 - 1.25 * 0.8333) / 0.75.
        ("snips", 0.8333333, ((25 / 4.5**2 + 10 / 1.8**2) / 50) ** 0.5),
        # Both models are exact: 25 times 1, 25 times 0.5.
        ("dr", 0.75, 0.25),
    ],
)
def test_off_policy_by_hand(method, value, half):
    """Half of 50 calls kept, all worth 1; of the others' answers, worth 0.5, ten are seen with a propensity of 0.8."""
    rows = [
        Logged(uncertainty=u, edge=1.0, cloud=0.5 if 25 <= u < 35 else None, cloud_propensity=0.8)
        for u in range(50)
    ]
    found = off_policy(rows, 24, method=method, confidence=0.5)
    assert found.value == pytest.approx(value)
    # Half of a normal lies within 0.67449 of its standard errors.
    assert (found.low, found.high) == pytest.approx(
        (value - 0.67449 * half / 50**0.5, value + 0.67449 * half / 50**0.5), abs=1e-5
    )
    assert found.effective_n == pytest.approx(37.5**2 / (25 + 10 * 1.25**2))
    assert off_policy(rows, lambda u: 0.5 * (u < 10), method="ips").value == pytest.approx(
        (10 * 0.5 + 10 * 0.625) / 50
    )
    # What is not wanted need not have been possible.
    unseen = [replace(row, cloud=None, cloud_propensity=0.0) for row in rows]
    assert off_policy(unseen, 49, method=method).value == 1.0
    with pytest.raises(CalibrationError, match="49 logged calls"):
        off_policy(rows[:49], 24)


def test_no_call_is_explained_by_itself():
    """Every fifth of 50 is worth 1: from the other folds 0 is expected of it, and 10 / 40 of the others.

    Weighed by 2 that is 2 * 1 - 0 and 2 * 0 - 0.25: a mean of 0.2, a standard deviation of sqrt((10 * 1.8**2 + 40 * 0.45**2) / 50)
    = 0.9. In their own folds it would be 0.4.
    """
    rows = [
        Logged(uncertainty=0.0, edge=float(k % 5 == 0), cloud=None, edge_propensity=0.5) for k in range(50)
    ]
    found = off_policy(rows, 0.0, confidence=0.5)
    assert (found.value, found.high - found.value) == pytest.approx((0.2, 0.67449 * 0.9 / 50**0.5), abs=1e-5)


class Unreachable(MemoryStore):
    """A store that cannot be changed."""

    def change(self, keys, change):
        raise StateError("unreachable")


@pytest.mark.parametrize(
    ("edge", "store", "note"),
    [
        (SURE, MemoryStore, {"propensity": 1.0, "audited": True}),
        # What the cloud answered could not have been audited.
        (UNSURE, MemoryStore, {"propensity": 0.0, "audited": False}),
        (SURE, Unreachable, {"propensity": 0.0, "audited": False}),
    ],
)
def test_a_decision_says_how_likely_its_audit_was(edge, store, note):
    """Off-policy estimates divide by it."""
    policy = Audited(policy=Cascade.of(TokenLogprob(), 0.3), test=TEST, share=1.0, store=store())
    calls = calls_of(edge=edge)
    assert run(policy, ask(), calls.call(ask()), ONCE).decision.layers["audit"] == note
    assert background.wait()
    with pytest.raises(PolicyError, match="expected a share"):
        replace(policy, share=0)


def test_off_policy_estimates_agree_with_the_truth():
    """From traffic at one threshold, audited at 10 %, another threshold's worth lies in the interval."""
    chance = np.random.default_rng(3)
    u = chance.random(20_000)
    edge, cloud = (chance.random(u.size) > u).astype(float), (chance.random(u.size) < 0.9).astype(float)
    kept, audited = u <= 0.6, chance.random(u.size) < 0.1
    rows = [
        Logged(uncertainty=x, edge=e, cloud=c if not k or a else None, cloud_propensity=0.1 if k else 1.0)
        for x, e, c, k, a in zip(u, edge, cloud, kept, audited, strict=True)
    ]
    truth = float(np.where(u <= 0.3, edge, cloud).mean())
    widths = {}
    for method in ("ips", "snips", "dr"):
        found = off_policy(rows, 0.3, method=method, confidence=0.999)
        assert found.low <= truth <= found.high
        widths[method] = found.high - found.low
    assert widths["dr"] < widths["ips"]
    with pytest.raises(CalibrationError, match="propensity 0"):
        off_policy([Logged(uncertainty=0.1, edge=1.0, cloud=None, cloud_propensity=0.0)] * 50, -1.0)


@pytest.mark.parametrize(
    ("edge_up", "cloud_up", "route", "when", "driver"),
    [*itertools.product(*[(True, False)] * 2, [None, "cloud"], ["grey", "draft"], ["run", "arun", "stream"])],
)
async def test_no_layer_lets_private_text_out(edge_up, cloud_up, route, when, driver):
    """Budget, audit with an alarm, hedge, samples, forced route, outages: the cloud hears nothing."""
    audited = Audited(
        policy=Hedged(policy=GREY, when=when), test=TEST, share=1.0, on_alarm="cloud", store=MemoryStore()
    )
    audited._change(lambda state: {**state, "alarm_at": 1})
    policy = Paced(policy=audited, budgets=(Budget(limit=100, unit="calls"),), store=MemoryStore())
    down = Reply(fault=ConnectionError("refused"))
    calls = calls_of(edge=UNSURE if edge_up else down, samples=["5"], cloud="four" if cloud_up else down)
    request = ask("a secret", route=route)
    try:
        if driver == "arun":
            await arun(policy, request, calls.acall(request), ONCE)
            await background.await_all()
        elif driver == "stream":
            list(run_stream(policy, request, calls.call(request), calls.stream(request), ONCE))
        else:
            run(policy, request, calls.call(request), ONCE)
    except ConfrouteError:
        assert not edge_up
    background.wait()
    assert calls.models["cloud"].heard == []


async def driven(driver, policy, calls):
    """One call in one of the four forms, to its end."""
    request, scores = ask(), lambda chunk: (-0.1,)
    if driver == "run":
        run(policy, request, calls.call(request), ONCE)
    elif driver == "arun":
        await arun(policy, request, calls.acall(request), ONCE)
    elif driver == "stream":
        given = (calls.call(request), calls.stream(request), ONCE)
        list(run_stream(policy, request, *given, scores=scores))
    else:
        given = (calls.acall(request), calls.astream(request), ONCE)
        _ = [chunk async for chunk in arun_stream(policy, request, *given, scores=scores)]


SENT = []
FORGOTTEN = {
    "final": Final(tier="cloud"),
    "another seal": Final(tier="cloud", private=True),
    "draft": Draft(tier="cloud"),
    "tentative": Tentative(tier="cloud", watch=lambda tokens, nats: "commit"),
    "sample": Sample(tier="cloud"),
    "prompt": Prompt(tier="cloud", messages=(Message(role="user", text="a secret"),)),
    "score": Score(tier="cloud", answer="a secret"),
    "hidden": Hidden(tier="cloud", layers=(1,)),
    "begin": Begin(ask=Final(tier="cloud")),
    "shadow": Shadow(ask=Draft(tier="cloud"), then=SENT.append),
    "gather": Gather(asks=(Sample(tier="edge"), Draft(tier="cloud"))),
    "one gathered": Gather(asks=(Draft(tier="cloud"),)),
    "embedding elsewhere": Embed(texts=("a secret",), model="m", embed=SENT.append),
}


@pytest.mark.parametrize("driver", ["run", "arun", "stream", "astream"])
@pytest.mark.parametrize("forgotten", FORGOTTEN)
async def test_a_policy_that_forgets_is_refused(forgotten, driver):
    """Once a call is bound, whatever is asked of another tier, in whatever form, is refused before anything is sent."""

    class Careless:
        tiers = ("edge", "cloud")

        def flow(self, request):
            yield Final(tier="edge", private=True)
            evidence = yield FORGOTTEN[forgotten]
            raise next(part for part in evidence.parts if isinstance(part, Exception))

    calls = calls_of()
    with pytest.raises(PrivacyError, match="nothing was sent"):
        await driven(driver, Careless(), calls)
    assert background.wait()
    await background.await_all()
    assert (calls.models["cloud"].heard, SENT) == ([], [])


def test_a_hedge_around_an_audit_begins_nothing_for_it():
    """The audit is asked for after the answer was kept: a second call of the cloud would be paid for and thrown away."""
    calls = calls_of()
    audited = Audited(policy=GREY, test=TEST, share=1.0, store=MemoryStore())
    decision = run(Hedged(policy=audited), ask(), calls.call(ask()), ONCE).decision
    assert background.wait()
    assert decision.layers["audit"]["audited"]
    assert "hedge" not in decision.layers
    assert len(calls.models["cloud"].heard) == 1


def test_an_alarm_never_loosens_the_threshold_of_a_tag():
    """Narrowed is the threshold that holds for the call, not the one of all other calls."""
    gate = Gate(
        signal=TokenLogprob(),
        threshold=Threshold(value=1.0),
        by_tag=(GroupThreshold(tag="strict", threshold=Threshold(value=0.1)),),
    )
    policy = Audited(
        policy=Cascade(gates=(gate,)), test=TEST, share=1.0, on_alarm="widen", store=MemoryStore()
    )
    policy._change(lambda state: {**state, "alarm_at": 1})
    request = ask(tags=frozenset({"strict"}))
    calls = calls_of(edge=Reply(text="4", logprob=-0.2))
    decision = run(policy, request, calls.call(request), ONCE).decision
    assert (decision.route, decision.threshold) == ("cloud", pytest.approx(0.05))


@pytest.mark.parametrize("samples", [["5"], ["4"]])
async def test_a_hedged_call_takes_no_longer_than_it_took(samples):
    """What ran beside the samples is not added to them: the decision's seconds are the caller's."""
    slow = [Reply(text=text, latency_s=0.1) for text in samples]
    calls = calls_of(edge=UNSURE, samples=slow, cloud=Reply(text="four", latency_s=0.15))
    for routed in (
        lambda: run(Hedged(policy=GREY), ask(), calls.call(ask()), ONCE),
        lambda: arun(Hedged(policy=GREY), ask(), calls.acall(ask()), ONCE),
    ):
        start = time.perf_counter()
        done = routed()
        decision = (await done if inspect.isawaitable(done) else done).decision
        assert decision.latency_s <= time.perf_counter() - start
