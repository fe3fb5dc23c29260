"""The comparisons of a cascade at their very bounds: what is kept, what is grey, and when no sample can change either."""

import pytest

from confroute import (
    Cascade,
    Gate,
    McDropout,
    Message,
    Request,
    SelfConsistency,
    Threshold,
    Tier,
    TokenLogprob,
)
from confroute.decision import Measurement
from confroute.executor import run
from confroute.policy.verdict import (
    blocked_by,
    is_grey,
    majority,
    settled_test,
    told_apart,
    verdict_of,
    verdict_without_signal,
)
from confroute.signals.base import shown_name
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from confroute.types import Generation

GREY = Gate(signal=SelfConsistency(n=5), threshold=Threshold(value=0.4), grey=(0.2, 0.8))


@pytest.mark.parametrize(("uncertainty", "keep"), [(0.39, True), (0.4, True), (0.41, False)])
def test_what_equals_the_threshold_is_kept(uncertainty, keep):
    """At most is meant, and said."""
    measured = Measurement(signal="self_consistency", uncertainty=uncertainty, details={})
    found = verdict_of(GREY, measured, stage="evidence")
    sign, then = ("<=", "kept") if keep else (">", "not kept")
    assert (found.keep, found.stage) == (keep, "evidence")
    assert found.reason == f"self consistency {uncertainty:g} share {sign} 0.4 (given): answer {then}"


def test_a_comparison_is_written_in_as_many_digits_as_it_takes():
    """Rounded to 3 digits the two would be the same."""
    measured = Measurement(signal="self_consistency", uncertainty=0.400002, details={})
    assert verdict_of(GREY, measured, stage="evidence").reason.startswith(
        "self consistency 0.400002 share > 0.4 (given)"
    )
    assert told_apart(0.1 + 0.2, 0.3) == ("0.30000000000000004", "0.3")
    assert told_apart(0.1, 0.1) == ("0.1", "0.1")


@pytest.mark.parametrize(
    ("signal", "words"),
    [
        (TokenLogprob(), "token logprob 1 nats"),
        (TokenLogprob(statistic="sum"), "token logprob sum 1 nats"),
        (McDropout(), "mc dropout 1 nats"),
        (McDropout(statistic="variance"), "mc dropout variance 1"),
    ],
)
def test_an_unusual_statistic_is_named(signal, words):
    """A sum is compared with another threshold than a mean: the reason says which it is."""
    gate = Gate(signal=signal, threshold=Threshold(value=2.0))
    measured = Measurement(signal=signal.name, uncertainty=1.0, details={})
    assert verdict_of(gate, measured, stage="draft").reason.startswith(words)
    assert f"{shown_name(signal)} <= 2" in repr(Cascade(gates=(gate,)))


@pytest.mark.parametrize(
    ("uncertainty", "grey"), [(0.19, False), (0.2, False), (0.21, True), (0.8, True), (0.81, False)]
)
def test_the_lower_end_of_a_grey_zone_is_clear(uncertainty, grey):
    """As a threshold there it would be kept; the upper end is not above itself, and grey."""
    assert is_grey(GREY, uncertainty) is grey
    assert not is_grey(Gate(signal=SelfConsistency(), threshold=Threshold(value=0.4)), uncertainty)


@pytest.mark.parametrize(
    ("low", "high", "more", "same"),
    [
        # With a further gate the zone's ends part the next steps, and the threshold inside it does not.
        (0.0, 0.2, True, True),
        (0.2, 0.3, True, False),
        (0.21, 0.8, True, True),
        (0.8, 0.81, True, False),
        (0.81, 1.0, True, True),
        # Without one only the threshold does.
        (0.0, 0.4, False, True),
        (0.4, 0.41, False, False),
        (0.41, 1.0, False, True),
    ],
)
def test_which_intervals_lead_to_one_step(low, high, more, same):
    """Clear, grey, or neither."""
    assert settled_test(GREY, more=more)(low, high) is same


def decided(policy, texts):
    """The decision on a draft of "4" with these samples."""
    request = Request(messages=(Message(role="user", text="What is 2 + 2?"),))
    edge = ScriptedModel([Reply(text="4", logprob=-0.01)], samples=texts)
    models = {"edge": edge, "cloud": ScriptedModel(["four"])}
    return run(policy, request, ScriptedCalls(models=models).call(request), {}).decision


def test_the_last_gates_grey_zone_does_not_stop_samples():
    """After one of two samples disagrees the share will be grey for certain, but only its side of the threshold counts."""
    texts = ["5", "4", "4", "4", "4"]
    wide = Gate(signal=SelfConsistency(n=5), threshold=Threshold(value=0.4), grey=(0.1, 0.9))
    found = decided(Cascade(gates=(wide,)), texts)
    assert (found.route, found.signals["self_consistency"].details["drawn"]) == ("edge", 4)
    further = Cascade(gates=(GREY, Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3))))
    found = decided(further, texts)
    assert (found.route, found.signal) == ("edge", "self_consistency")
    found = decided(further, ["5", "4", "5", "4", "4"])
    assert (found.route, found.signal) == ("edge", "token_logprob")
    assert found.signals["self_consistency"].details["drawn"] == 3


@pytest.mark.parametrize(
    ("choice", "kept"), [("edge", "edge answer kept"), ("cloud", "edge answer not kept")]
)
def test_no_evidence_in_words(choice, kept):
    """What was done, and by which word of the policy."""
    found = verdict_without_signal(Tier(name="edge", model="m"), {"a": "mute"}, choice)
    assert found.keep is (choice == "edge")
    assert found.reason.startswith(f"no evidence (a: mute): {kept} by on_no_signal={choice!r}; ")


def test_what_blocks_a_tier_in_words():
    """An open breaker before what it lacks; a prompt that leaves one token of the context fits."""
    assert blocked_by(Tier(name="edge", model="m", closed="5 failures", lacks="tools")) == (
        "edge is passed over (5 failures)"
    )
    assert blocked_by(Tier(name="edge", model="m", context_window=100, input_tokens=99)) is None


def test_the_default_policy_and_its_plain_decision():
    """0.25 nats a token, two of five samples; an ordinary call is none of what a decision flags."""
    assert [gate.threshold.value for gate in Cascade().gates] == [0.25, 0.4]
    assert {gate.threshold.source for gate in Cascade().gates} == {"uncalibrated default"}
    found = decided(Cascade(), ["4"])
    assert (found.degraded, found.private, found.sampled, found.rule) == (False, False, False, None)


@pytest.mark.parametrize(
    ("finish", "why"),
    [
        ("length", "cut off at its length limit"),
        ("content_filter", "cut off by a content filter"),
        ("error", "ends in an error"),
        ("stop", None),
        ("tool_calls", None),
        ("unknown", None),
    ],
)
def test_a_draft_that_is_not_whole_is_rejected_unless_the_policy_judges_it(finish, why):
    """However certain its tokens are; servers that say nothing (Ollama's null) are taken to send whole answers."""
    edge = ScriptedModel([Reply(text="The answer is", logprob=-0.01, finish=finish)])
    models = {"edge": edge, "cloud": ScriptedModel(["four"])}
    request = Request(messages=(Message(role="user", text="2 + 2?"),))
    call = ScriptedCalls(models=models).call(request)
    decision = run(Cascade.of(TokenLogprob(), 0.3), request, call, {}).decision
    assert decision.route == ("edge" if why is None else "cloud")
    assert why is None or why in decision.reason
    lenient = Cascade.of(TokenLogprob(), 0.3, on_unfinished="judge")
    assert run(lenient, request, call, {}).decision.route == "edge"


@pytest.mark.parametrize("finish", ["length", "content_filter", "error"])
def test_samples_that_are_not_whole_do_not_vote(finish):
    """None of them could be returned."""
    draft, sample = Generation(text="7"), Generation(text="8", finish=finish)
    assert majority("How many?", draft, [sample, sample]).answer is draft
