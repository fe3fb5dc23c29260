"""Shadow audits: what an alarm changes, what a decision records, and what happens if an audit cannot be made."""

from dataclasses import replace

import pytest

from confroute import Cascade, Gate, Threshold, TokenLogprob, background
from confroute.budget import Budget, Paced
from confroute.drift import Audited, DriftTest
from confroute.errors import PolicyError, StateError
from confroute.executor import run
from confroute.policy import GroupThreshold
from confroute.policy.hedge import Hedged
from confroute.state import MemoryStore
from confroute.testing import Reply
from tests.conftest import GREY, ONCE, SURE, UNSURE, ask, calls_of

TEST = DriftTest(level=0.05)


@pytest.mark.parametrize("on_alarm", ["warn", "widen", "cloud"])
def test_an_alarm_acts_as_configured(on_alarm):
    """After enough audited disagreements the alarm is logged, thresholds shrink or the edge is skipped, until reset."""
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


class Unreachable(MemoryStore):
    """A store that cannot be changed."""

    def change(self, keys, change):
        raise StateError("unreachable")


@pytest.mark.parametrize(
    ("edge", "store", "note"),
    [
        (SURE, MemoryStore, {"propensity": 1.0, "audited": True}),
        # An answer of the cloud could not have been audited.
        (UNSURE, MemoryStore, {"propensity": 0.0, "audited": False, "drawn": True}),
        (SURE, Unreachable, {"propensity": 0.0, "audited": False}),
    ],
)
def test_a_decision_records_the_propensity_of_its_audit(edge, store, note):
    """Off-policy estimates divide by it."""
    policy = Audited(policy=Cascade.of(TokenLogprob(), 0.3), test=TEST, share=1.0, store=store())
    calls = calls_of(edge=edge)
    assert run(policy, ask(), calls.call(ask()), ONCE).decision.layers["audit"] == note
    assert background.wait()
    with pytest.raises(PolicyError, match="expected share"):
        replace(policy, share=0)


def test_a_hedge_around_an_audit_does_not_hedge_the_audit():
    """The audit comes after the answer was kept: a second cloud call would be paid for and thrown away."""
    calls = calls_of()
    audited = Audited(policy=GREY, test=TEST, share=1.0, store=MemoryStore())
    decision = run(Hedged(policy=audited), ask(), calls.call(ask()), ONCE).decision
    assert background.wait()
    assert decision.layers["audit"]["audited"]
    assert "hedge" not in decision.layers
    assert len(calls.models["cloud"].calls) == 1


def test_an_alarm_never_loosens_the_threshold_of_a_tag():
    """The alarm multiplies the threshold that applies to the call, not the general one."""
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


def test_an_audit_that_cannot_be_paid_costs_no_answer():
    """The kept answer is returned, and its decision says that no audit was possible."""
    audited = Audited(policy=Cascade.of(TokenLogprob(), 0.3), test=TEST, share=1.0, store=MemoryStore())
    policy = Paced(policy=audited, budgets=(Budget(limit=0.5, unit="calls"),), store=MemoryStore())
    calls = calls_of()
    note = run(policy, ask(), calls.call(ask()), ONCE).decision.layers["audit"]
    assert note == {"propensity": 0.0, "audited": False, "skipped": "BudgetSpentError"}
    assert calls.models["cloud"].calls == []
