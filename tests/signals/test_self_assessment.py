"""P(True) and verbalised confidence: which model is asked what, and how its reply is read."""

import math

import pytest

from confroute import Cascade, KeepPrivate, Message, Request
from confroute.asks import Evidence, Prompt
from confroute.errors import SignalUnavailableError
from confroute.executor import run
from confroute.signals import Case, PTrue, Verbalised
from confroute.signals.self_assessment import stated_confidence
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from confroute.types import Generation, Tier


def measure(signal, reply):
    """The measurement for one reply to the signal's prompt, and the prompt."""
    case = Case(
        tier=Tier(name="edge", model="m"), question="Capital of France?", draft=Generation(text="Paris")
    )
    flow = signal.measure(case)
    ask = next(flow)
    try:
        flow.send(Evidence(generations=(reply,)))
    except StopIteration as done:
        return done.value, ask
    raise AssertionError("one prompt is enough")


def letter(token="A", p=0.5, top=()):
    """A reply of one token with these alternatives."""
    tops = (tuple((t, math.log(q)) for t, q in top),) if top else None
    return Generation(text=token, tokens=(token,), logprobs=(math.log(p),), top_logprobs=tops)


def test_p_true_compares_both_letters():
    """A 0.6, B 0.2: a quarter of their mass says false; together they have 0.8 of all mass."""
    measurement, ask = measure(PTrue(), letter("A", 0.6, [("A", 0.6), (" B", 0.2), ("The", 0.1)]))
    assert measurement.uncertainty == pytest.approx(0.25)
    assert measurement.details["mass"] == pytest.approx(0.8)
    assert isinstance(ask, Prompt)
    assert ask.tier == "edge"
    assert "Paris" in ask.messages[0].text
    assert "Capital of France?" in ask.messages[0].text


def test_p_true_without_alternatives_reads_the_drawn_letter():
    """A at 0.9 gives 0.1, B at 0.9 gives 0.9."""
    assert measure(PTrue(), letter("A", 0.9))[0].uncertainty == pytest.approx(0.1)
    assert measure(PTrue(), letter("(B", 0.9))[0].uncertainty == pytest.approx(0.9)


def test_p_true_among_numbers_reads_the_drawn_letter():
    """The other one may be any token that is named by its number: it is not taken to be impossible."""
    among = [("A", 0.7), ("token_id:33", 0.2), ("token_id:34", 0.1)]
    assert measure(PTrue(), letter("A", 0.7, among))[0].uncertainty == pytest.approx(0.3)


def test_p_true_without_a_letter_is_refused():
    """No log-probabilities, and neither letter among the likeliest tokens, are refused."""
    for reply in (Generation(text="A"), letter("Perhaps", 0.9), letter("(", 0.9)):
        with pytest.raises(SignalUnavailableError):
            measure(PTrue(), reply)


def test_verbalised_confidence_is_read_from_words():
    """A stated 80 of 100 gives 0.2; words without a number state nothing."""
    assert measure(Verbalised(), Generation(text="About 80%."))[0].uncertainty == pytest.approx(0.2)
    with pytest.raises(SignalUnavailableError):
        measure(Verbalised(), Generation(text="quite sure"))


@pytest.mark.parametrize(
    ("text", "confidence"),
    [
        ("85", 0.85),
        ("9/10", 0.9),
        ("9 out of 10", 0.9),
        ("90 out of 100", 0.9),
        ("5 out of 5", 1.0),
        ("99,5", 0.995),
        ("0.5%", 0.005),
        ("Confidence: 0.7", 0.7),
        ("<think>The user wants 0 to 100</think> 30", 0.3),
        ("On a scale of 0 to 100: 20", None),
        ("The answer 95 is wrong: 5", None),
        ("Between 60 and 70", None),
        ("80-90", None),
        ("2 + 2 is 4, so 100", None),
        ("100% wrong", None),
        ("-5", None),
        ("250", None),
        ("3/7", None),
        ("85 km", None),
    ],
)
def test_a_stated_confidence_is_read_whole_or_not_at_all(text, confidence):
    """Out of what is said, else out of 100; several numbers state none."""
    assert stated_confidence(text) == (None if confidence is None else pytest.approx(confidence))


def route(rules=()):
    """A routed request whose edge doubts its draft; both models' prompts."""

    def edge(prompt):
        return Reply(text="10") if "0 to 100" in prompt else Reply(text="Paris")

    models = {"edge": ScriptedModel(edge), "cloud": ScriptedModel(["Lyon"])}
    request = Request(messages=(Message(role="user", text="my salary?"),))
    policy = Cascade.of(Verbalised(), 0.5, rules=rules)
    return run(policy, request, ScriptedCalls(models=models).call(request), {}), models


def test_the_prompt_goes_to_the_drafts_tier_only():
    """The cloud is asked the caller's question, never the signal's; the decision counts the prompt."""
    routed, models = route()
    assert routed.decision.route == "cloud"
    assert [step.kind for step in routed.decision.steps] == ["draft", "prompt", "final"]
    assert all("0 to 100" not in heard.prompt for heard in models["cloud"].calls)


def test_a_private_request_stays_on_the_edge():
    """The cloud receives nothing of a private request, not even the signal's prompt."""
    routed, models = route(rules=(KeepPrivate(patterns=(r"salary",)),))
    assert routed.decision.route == "edge"
    assert models["cloud"].calls == []


def test_p_true_refuses_an_alternative_that_is_not_a_number():
    """NaN for the letter that says true would count as certainty."""
    reply = Generation(
        text="A",
        tokens=("A",),
        logprobs=(-0.1,),
        top_logprobs=((("A", math.nan), ("B", math.log(0.5))),),
    )
    with pytest.raises(SignalUnavailableError, match="not valid"):
        measure(PTrue(), reply)
