"""How a cascade treats answers that rest on retrieved text."""

from confroute import (
    Cascade,
    Context,
    ContextLacks,
    ContextSupport,
    Gate,
    KeepPrivate,
    Message,
    Request,
    RetrievalScore,
    SendTo,
    Threshold,
    TokenLogprob,
)
from confroute.executor import run
from confroute.testing import Reply, ScriptedCalls, ScriptedModel


def ask(policy, edge, *, context, question="Who is the captain of the Heron?", **request):
    """Route one question about a context."""
    models = {"edge": ScriptedModel([edge], name="small"), "cloud": ScriptedModel(["Ada"], name="large")}
    text = " ".join(context.passages)
    asked = Request(
        messages=(Message(role="user", text=f"{text}\n{question}"),),
        question=question,
        context=context,
        **request,
    )
    routed = run(policy, asked, ScriptedCalls(models=models).call(asked), {})
    return routed, models


UNSURE = Reply(text="The context does not say who the captain is.", logprob=-2.0)


def test_a_context_that_lacks_the_answer_is_not_escalated():
    """However unsure the draft is: the cloud would see the same text."""
    context = Context(passages=("The Heron leaves at 07:30.",))
    routed, models = ask(Cascade.of(TokenLogprob(), 0.3), UNSURE, context=context)
    decision = routed.decision
    assert (decision.route, decision.stage, decision.signal) == ("edge", "lacking", "context_lacks")
    assert decision.reason.startswith("the draft says that the context lacks the answer; context lacks 0.5")
    assert models["cloud"].calls == []


def test_a_context_that_holds_the_answer_is_asked_again():
    """The draft's claim is not believed: the whole question is covered by the text."""
    context = Context(passages=("The captain of the Heron is Ada.",))
    decision = ask(Cascade.of(TokenLogprob(), 0.3), UNSURE, context=context)[0].decision
    assert (decision.route, decision.stage, decision.uncertainty) == ("cloud", "lacking", 1.0)


def test_the_abstention_gate_can_use_scores_or_be_switched_off():
    """It is a gate like any other."""
    context = Context(passages=("The Heron leaves at 07:30.",), scores=(0.8,))
    strict = Gate(signal=ContextLacks(by="scores"), threshold=Threshold(value=0.7))
    policy = Cascade(gates=Cascade.of(TokenLogprob(), 0.3).gates, lacking=strict)
    assert ask(policy, UNSURE, context=context)[0].decision.route == "cloud"
    off = Cascade(gates=policy.gates, lacking=None)
    decision = ask(off, UNSURE, context=context)[0].decision
    assert (decision.stage, decision.signal) == ("draft", "token_logprob")


def test_drafts_that_answer_go_to_the_other_gates():
    """The abstention gate skips them, with the reason."""
    decision = ask(Cascade.of(TokenLogprob(), 0.3), "Ada", context=Context(passages=("x",)))[0].decision
    assert (decision.route, decision.stage) == ("edge", "draft")
    assert decision.skipped == {"context_lacks": "the draft gives an answer"}


def test_a_given_threshold_is_for_the_policy_s_own_gates():
    """So that calibration can keep every draft."""
    context = Context(passages=("The captain of the Heron is Ada.",))
    decision = ask(Cascade.of(TokenLogprob(), 0.3), UNSURE, context=context, threshold=1e9)[0].decision
    assert (decision.route, decision.signal) == ("edge", "token_logprob")


def test_refining_stays_where_the_answer_came_from():
    """Unless `sticky=False`; and private text never follows."""
    context = Context(passages=("x",), existing_answer="Ada")
    policy = Cascade.of(TokenLogprob(), 0.3)
    decision = ask(policy, "sure", context=context, begun_on="cloud")[0].decision
    assert (decision.route, decision.rule) == ("cloud", "sticky")
    free = Cascade(gates=policy.gates, sticky=False)
    assert ask(free, "sure", context=context, begun_on="cloud")[0].decision.route == "edge"
    private = Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(patterns=("captain",)),))
    assert ask(private, "sure", context=context, begun_on="cloud")[0].decision.route == "edge"


def test_a_copied_draft_is_not_measured():
    """Its certainty would be about the text that it repeats, which was judged when it was written."""
    context = Context(passages=("x",), existing_answer="The captain is Ada.")
    copied = Reply(text="the captain is Ada", logprob=-3.0)
    decision = ask(Cascade.of(TokenLogprob(), 0.3), copied, context=context, begun_on="edge")[0].decision
    assert (decision.route, decision.uncertainty) == ("edge", None)
    assert "repeats its answer" in decision.reason
    unknown = ask(Cascade.of(TokenLogprob(), 0.3), copied, context=context)[0].decision
    assert (unknown.route, unknown.signal) == ("cloud", "token_logprob")


def test_purposes_send_to_a_tier():
    """Condensing is the edge's work, whatever its log-probabilities."""
    policy = Cascade.of(TokenLogprob(), 0.3, rules=(SendTo(tier="edge", purposes=("condense",)),))
    context = Context(passages=("x",))
    for purpose, route in (("condense", "edge"), ("text_qa", "cloud"), (None, "cloud")):
        reply = Reply(text="Ada", logprob=-2.0)
        assert ask(policy, reply, context=context, purpose=purpose)[0].decision.route == route


def test_policies_with_context_signals_can_be_saved(tmp_path):
    """They load as equal ones."""
    policy = Cascade(
        gates=(
            Gate(signal=ContextSupport(by="embedding", statistic="min"), threshold=Threshold(value=0.5)),
            Gate(signal=RetrievalScore(), threshold=Threshold(value=0.7)),
        ),
        rules=(SendTo(tier="edge", purposes=("condense", "summary")),),
        lacking=Gate(signal=ContextLacks(by="scores", phrases=("n/a",)), threshold=Threshold(value=0.6)),
        sticky=False,
    )
    policy.save(tmp_path / "policy.json")
    assert Cascade.load(tmp_path / "policy.json") == policy
