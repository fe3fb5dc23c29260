"""Learning thresholds online: labels, looks, logs and decisions, through the core and through both hosts."""

import itertools
import logging
import random

import pytest

from confroute import (
    Cascade,
    Gate,
    KeepPrivate,
    SelfConsistency,
    Threshold,
    TokenLogprob,
    background,
    executor,
    record,
)
from confroute.budget import Budget, Pace, Paced
from confroute.drift import Audited, DriftTest
from confroute.errors import PolicyError, StateError
from confroute.executor import arun, run
from confroute.learning import LearnOnline
from confroute.policy.files import from_json, to_json
from confroute.state import MemoryStore, SQLiteStore
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from tests.conftest import ask

NUMBERS = itertools.count()


def learner(policy=None, **more):
    """A policy that labels every call, and learns from 60 labels."""
    settings = {"alpha": 0.1, "share": 1.0, "labels": 60, "store": MemoryStore(), **more}
    return LearnOnline(policy=policy or Cascade.of(TokenLogprob(), 0.25), **settings)


def right_when_sure(prompt):
    """Right up to an uncertainty of 0.5 nats, wrong above."""
    doubt = float(prompt.split()[-1])
    return Reply(text="4" if doubt <= 0.5 else "5", logprob=-doubt)


def doubts(n):
    return [0.01 + 0.98 * at / n for at in range(n)]


def calls_of(edge=right_when_sure, cloud="4", samples=()):
    return ScriptedCalls(
        models={"edge": ScriptedModel(edge, samples=samples), "cloud": ScriptedModel([cloud])}
    )


def route(policy, doubt=0.1, calls=None, **more):
    """The decision of one call, after its label was stored."""
    request = ask(f"What is 2 + 2? {doubt}", **more)
    routed = run(policy, request, (calls or calls_of()).call(request), {})
    assert background.wait()
    return routed.decision


def test_labels_move_the_threshold_and_the_decision_holds_its_certificate(caplog):
    """From 0.25 to somewhere below 0.6, up to which at most one in ten calls is lost; the move is logged."""
    policy = learner()
    for doubt in doubts(60):
        route(policy, doubt)
    state = policy.state()["token_logprob"]
    assert (state.labels, state.look) == (60, len(policy.certification.looks))
    decision = route(policy, 0.45)
    assert decision.route == "edge"
    assert decision.threshold == state.threshold.value > 0.25
    assert decision.certificate.alpha == 0.1
    assert "learned: regret at most 0.1 with confidence 0.9" in decision.reason
    assert decision.layers["learn"] == {"share": 1.0, "labelled": False, "labels": 60, "look": state.look}
    assert sum("threshold of token_logprob 0.25 -> " in line for line in caplog.messages) == 1


def test_a_label_of_a_rejected_draft_costs_no_call():
    """The cloud's answer is there already; for a kept draft the cloud is asked afterwards."""
    for doubt, route_taken, cloud_calls in ((0.9, "cloud", 1), (0.1, "edge", 1)):
        policy, calls = learner(), calls_of()
        decision = route(policy, doubt, calls)
        assert decision.route == route_taken
        assert decision.layers["learn"]["labelled"] is True
        assert policy.state()["token_logprob"].labels == 1
        assert len(calls.models["cloud"].calls) == cloud_calls


def test_the_same_share_of_kept_and_of_rejected_calls_is_labelled(monkeypatch):
    """Otherwise the labels would not be a sample of the traffic."""
    monkeypatch.setattr("confroute.policy.wrapper._coin", random.Random(5))
    policy = learner(share=0.3, labels=2000)
    labelled = {"edge": 0, "cloud": 0}
    for at in range(600):
        decision = route(policy, 0.1 if at % 2 else 0.9)
        labelled[decision.route] += decision.layers["learn"]["labelled"]
    assert all(60 < count < 120 for count in labelled.values()), labelled


def test_a_labelled_call_draws_all_its_samples():
    """Early stopping depends on the threshold, and a label must not."""
    consistent = Cascade.of(SelfConsistency(n=5), 0.4)
    for policy, drawn in ((consistent, 3), (learner(consistent), 5)):
        calls = calls_of(samples=["4"])
        route(policy, calls=calls)
        assert len(calls.models["edge"].calls) == 1 + drawn


def test_private_and_overridden_calls_are_not_labelled():
    """The cloud never sees a private text, and a forced route or threshold says nothing about the policy."""
    policy = learner(Cascade.of(TokenLogprob(), 0.25, rules=(KeepPrivate(patterns=("secret",)),)))
    calls = calls_of()
    private = ask("secret 0.1")
    run(policy, private, calls.call(private), {})
    route(policy, calls=calls, route="edge")
    route(policy, calls=calls, threshold=0.3)
    assert background.wait()
    assert calls.models["cloud"].calls == []
    assert policy.state()["token_logprob"].labels == 0


def test_a_loss_that_fails_costs_no_answer(caplog):
    """The user has the answer, and the log reports the error, for kept and rejected calls."""

    def broken(question, edge, cloud):
        raise ZeroDivisionError("no judge")

    for doubt in (0.1, 0.9):
        policy = learner(loss=broken)
        assert route(policy, doubt).route in ("edge", "cloud")
        assert policy.state()["token_logprob"].labels == 0
    assert caplog.text.count("ZeroDivisionError") == 2


def test_a_cloud_that_fails_in_the_background_is_only_logged(caplog):
    """A missing label raises no error."""
    policy = learner()
    route(policy, calls=calls_of(cloud=Reply(fault=ConnectionError("down"))))
    assert "no label for edge: the cloud failed (ConnectionError)" in caplog.text
    assert policy.state()["token_logprob"].labels == 0


def test_another_process_continues_from_the_store(tmp_path):
    """Policies of the same name share labels and thresholds."""
    store = SQLiteStore(tmp_path / "learned.db")
    for doubt in doubts(60):
        learner(store=store).add("token_logprob", doubt, float(doubt > 0.5))
    other = learner(store=store)
    assert other.state()["token_logprob"].threshold.value > 0.25
    assert other.current().gates[0].threshold == other.state()["token_logprob"].threshold
    other.reset()
    assert learner(store=store).current().gates[0].threshold.value == 0.25
    store.close()


async def test_async_calls_learn_too():
    """The label is stored off the event loop."""
    policy, calls = learner(), calls_of()
    for doubt in (0.1, 0.9):
        request = ask(f"What is 2 + 2? {doubt}")
        await arun(policy, request, calls.acall(request), {})
    assert await background.await_all()
    assert policy.state()["token_logprob"].labels == 2


def test_policies_whose_thresholds_cannot_move_alone_are_refused():
    """Grey zones, three tiers, wrappers inside, levels out of range."""
    grey = Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3), grey=(0.1, 0.8))
    with pytest.raises(PolicyError, match="grey zone"):
        learner(Cascade(gates=(grey, Gate(signal=SelfConsistency(), threshold=Threshold(value=0.4)))))
    with pytest.raises(PolicyError, match="two tiers"):
        learner(Cascade(tiers=("edge", "middle", "cloud")))
    with pytest.raises(PolicyError, match="two tiers"):
        learner(learner())
    with pytest.raises(PolicyError, match=r"share is 0.0"):
        learner(share=0.0)
    with pytest.raises(PolicyError, match="would undo"):
        Audited(policy=learner(), test=DriftTest(level=0.05), on_alarm="widen")


def test_an_audit_around_watches_the_learned_policy():
    """A wrapper that changes no threshold may stand around it."""
    policy = Audited(policy=learner(), test=DriftTest(level=0.1), share=1.0, store=MemoryStore())
    decision = route(policy)
    assert set(decision.layers) == {"learn", "audit"}


def test_it_can_be_saved():
    """A policy whose store is given by name is equal after saving and loading."""
    policy = LearnOnline(policy=Cascade(), alpha=0.05, store="memory:file")
    assert from_json(to_json(policy)) == policy


def through_langchain(policy, edge, cloud):
    from langchain_confroute import ChatConfRoute
    from langchain_confroute.testing import ScriptedChat

    router = ChatConfRoute(edge=ScriptedChat(script=edge), cloud=ScriptedChat(script=cloud), policy=policy)
    return router.invoke


def through_llamaindex(policy, edge, cloud):
    from llamaindex_confroute import ConfRouteLLM
    from llamaindex_confroute.testing import ScriptedLLM

    return ConfRouteLLM(edge=ScriptedLLM(model=edge), cloud=ScriptedLLM(model=cloud), policy=policy).complete


@pytest.mark.parametrize("host", [through_langchain, through_llamaindex])
def test_a_host_learns_and_then_routes_by_what_it_learned(host):
    """A call that went to the cloud before learning is kept afterwards, with a certificate."""
    policy = learner(name=f"host {next(NUMBERS)}")
    call = host(policy, ScriptedModel(right_when_sure, name="small"), ScriptedModel(["4"], name="large"))
    with record() as decisions:
        call("What is 2 + 2? 0.4")
        for doubt in doubts(60):
            call(f"What is 2 + 2? {doubt}")
            assert background.wait()
        call("What is 2 + 2? 0.4")
    assert (decisions[0].route, decisions[0].certificate) == ("cloud", None)
    assert (decisions[-1].route, decisions[-1].certificate.loss) == ("edge", "regret")


def test_uncalibrated_defaults_are_reported_once(caplog):
    """The hint names both ways to calibrate; an explicit policy gets no hint."""
    executor.warn_uncalibrated.cache_clear()
    with caplog.at_level(logging.WARNING, logger="confroute"):
        route(Cascade.of(TokenLogprob(), 0.25))
        assert caplog.messages == []
        for _ in range(3):
            route(Cascade())
    (hint,) = caplog.messages
    assert "confroute fit" in hint
    assert "LearnOnline" in hint


class Unreachable(MemoryStore):
    """A store that cannot be reached."""

    def change(self, keys, change):
        """Fail."""
        raise StateError("the state cannot be changed")


def test_a_store_that_cannot_be_reached_costs_no_answer(caplog):
    """The policy's own thresholds are used, and the log says so."""
    decision = route(learner(store=Unreachable()))
    assert (decision.route, decision.threshold, decision.layers["learn"]["labelled"]) == ("edge", 0.25, False)
    assert "nothing is learned" in caplog.text


def test_a_budget_that_is_spent_costs_no_answer(caplog):
    """The kept answer is returned, and the log says that its label could not be paid for."""
    spent = Budget(limit=1, unit="calls", window_s=1e9)
    policy = Paced(policy=learner(), budgets=(spent,), store=MemoryStore())
    assert [route(policy).layers["learn"]["labelled"] for _ in range(2)] == [True, False]
    assert "BudgetSpentError" in caplog.text


def test_a_pace_around_what_learns_is_refused():
    """Both would set the same thresholds, and nothing would ever be learned."""
    pace = Pace(signal="token_logprob", ladder=(0.1, 0.9))
    with pytest.raises(PolicyError, match="the policy learns"):
        Paced(policy=learner(), budgets=(Budget(limit=1, unit="calls", pace=pace),))


def test_the_log_holds_no_text_of_a_loss_that_fails(caplog):
    """An error of the caller's own function may repeat the prompt."""

    def loss(question, edge, cloud):
        raise ValueError(question)

    route(learner(loss=loss), 0.1)
    route(learner(loss=loss), 0.9)
    assert caplog.text.count("could not be") == caplog.text.count(": ValueError") == 2
    assert "What is" not in caplog.text
