"""A head before the cascade: which calls it settles, which it leaves, and what happens if something fails."""

from dataclasses import replace

import numpy as np
import pytest

from confroute import Cascade, KeepPrivate, Message, Request, Tier, TokenLogprob, record
from confroute.errors import MissingExtraError, PolicyError, StreamInterruptedError, TierError
from confroute.executor import arun, run
from confroute.heads import Estimate, WordRidge, encoder
from confroute.policy import HeadFirst
from confroute.testing import Reply, ScriptedCalls, ScriptedModel


class Reader:
    """A head that reads probability and spread from the vector, so that tests choose them."""

    kind, dim = "reader", 2

    def estimate(self, vectors):
        """The two columns."""
        rows = np.atleast_2d(vectors)
        return Estimate(cloud_wins=rows[:, 0], spread=rows[:, 1])

    def arrays(self):
        """None."""
        return {}

    def settings(self):
        """None."""
        return {}


seen = []


def read(texts):
    """Vectors from prompts such as '0.9 0.1'."""
    seen.extend(texts)
    return [[float(part) for part in text.split()[:2]] for text in texts]


def policy(**kwargs):
    """Cloud above .7, edge below .3, doubt above .4."""
    cascade = Cascade.of(TokenLogprob(), 0.25, **kwargs.pop("cascade", {}))
    read_by = {"head": Reader(), "encoder": encoder(read, name="reader")}
    return HeadFirst(
        **{**read_by, "cascade": cascade, "cloud_above": 0.7, "edge_below": 0.3, "doubt": 0.4, **kwargs}
    )


def on_words():
    """A head on words that sends proofs to the cloud and names to the edge, without an encoder."""
    texts = ["prove this", "prove that", "name this", "name that"] * 4
    head = WordRidge.fit(texts, [1, 1, 0, 0] * 4, penalty=0.1)
    rules = (KeepPrivate(patterns=("secret",)),)
    cascade = Cascade.of(TokenLogprob(), 0.25, rules=rules)
    return HeadFirst(head=head, cascade=cascade, cloud_above=0.7, edge_below=0.3, doubt=0.4)


def routed(text, policy, *, edge="ok", cloud="ok", edge_logprob=-0.01, **fields):
    """Route one prompt between two scripted models."""
    replies = {
        "edge": ScriptedModel([Reply(text=edge, logprob=edge_logprob)], name="e") if edge else None,
        "cloud": ScriptedModel([Reply(text=cloud)], name="c") if cloud else None,
    }
    request = Request(messages=(Message(role="user", text=text),), **fields)

    def call(ask):
        if replies[ask.tier] is None:
            raise TierError(f"{ask.tier} is down")
        return replies[ask.tier].generate(request.messages)

    return run(policy, request, call, {})


@pytest.mark.parametrize(
    ("text", "route", "stage", "kinds"),
    [
        ("0.9 0.1", "cloud", "head", ["embed", "final"]),
        ("0.1 0.1", "edge", "head", ["embed", "final"]),
        ("0.5 0.1", "edge", "draft", ["embed", "draft"]),
        ("0.9 0.45", "edge", "draft", ["embed", "draft"]),
    ],
)
def test_the_head_settles_what_it_knows_and_leaves_the_rest_to_the_cascade(text, route, stage, kinds):
    """Cloud at once, edge at once, verification in between, and verification if the head is uncertain."""
    decision = routed(text, policy()).decision
    assert (decision.route, decision.stage) == (route, stage)
    assert [step.kind for step in decision.steps] == kinds
    assert decision.signals["head"].uncertainty == pytest.approx(float(text.split()[0]))
    assert decision.signals["head"].details["spread"] == pytest.approx(float(text.split()[1]))


@pytest.mark.parametrize(("wins", "bound"), [("0.800004", "0.8"), ("0.199996", "0.2")])
def test_the_reason_tells_an_estimate_from_its_bound(wins, bound):
    """However near it is."""
    sign = ">" if bound == "0.8" else "<"
    decision = routed(f"{wins} 0.1", policy(cloud_above=0.8, edge_below=0.2)).decision
    assert decision.reason.startswith(f"head {wins} {sign} {bound}: ")


def test_a_head_that_does_not_know_can_ask_the_cloud():
    """on_doubt='cloud' escalates calls far from the training prompts."""
    decision = routed("0.1 0.45", policy(on_doubt="cloud")).decision
    assert (decision.route, decision.stage) == ("cloud", "head")
    assert "does not know" in decision.reason


@pytest.mark.parametrize(
    ("text", "route", "stage", "kinds"),
    [
        ("Prove that!", "cloud", "head", ["final"]),
        ("name this", "edge", "head", ["final"]),
        ("nothing known", "edge", "draft", ["draft"]),
        ("prove that secret", "edge", "rule", ["final"]),
    ],
)
def test_a_head_that_reads_texts_needs_no_encoder(text, route, stage, kinds):
    """Cloud, edge, a draft for unknown words, and a rule before the head; nothing is embedded."""
    decision = routed(text, on_words()).decision
    assert (decision.route, decision.stage) == (route, stage)
    assert [step.kind for step in decision.steps] == kinds
    assert ("head" in decision.signals) == (stage != "rule")


def test_head_and_encoder_have_to_fit():
    """A head on vectors without an encoder, and one on texts with one, are refused."""
    with pytest.raises(PolicyError, match="give the encoder"):
        policy(encoder=None)
    with pytest.raises(PolicyError, match="leave the encoder out"):
        policy(head=on_words().head)


def test_private_text_is_not_embedded():
    """A rule comes before the encoder, and before the head's choice."""
    seen.clear()
    private = policy(cascade={"rules": (KeepPrivate(patterns=("secret",)),)})
    decision = routed("0.9 0.1 secret", private).decision
    assert (decision.route, decision.private, seen) == ("edge", True, [])


def test_a_forced_route_bypasses_the_head():
    """A forced route needs no head."""
    decision = routed("0.9 0.1", policy(), route="edge").decision
    assert (decision.route, decision.stage, dict(decision.signals)) == ("edge", "forced", {})


def test_an_embedding_that_fails_is_no_evidence():
    """The cascade decides, and the decision records why the head did not."""
    decision = routed("no number", policy()).decision
    assert (decision.route, decision.stage) == ("edge", "draft")
    assert "ValueError" in decision.skipped["head"]


def test_an_edge_that_fails_is_replaced_by_the_cloud():
    """The head chooses the edge, which is down: the cloud answers, as a fallback."""
    decision = routed("0.1 0.1", policy(), edge=None).decision
    assert (decision.route, decision.stage) == ("cloud", "fallback")
    assert "edge failed" in decision.reason


def test_a_cloud_that_fails_is_replaced_only_if_the_policy_lets_it():
    """The head chooses the cloud, which is down: an error, or the edge if on_cloud_error says so."""
    with pytest.raises(TierError):
        routed("0.9 0.1", policy(), cloud=None)
    fallback = policy(cascade={"on_cloud_error": "edge"})
    assert routed("0.9 0.1", fallback, cloud=None).decision.route == "edge"


def test_an_edge_that_cannot_take_the_call_is_not_chosen():
    """The head chooses the edge, which has no tools: the cascade escalates the call."""
    tiers = {"edge": Tier(name="edge", model="e", lacks="tools")}
    assert routed("0.1 0.1", policy(), tiers=tiers).decision.route == "cloud"


@pytest.mark.parametrize(
    "bad",
    [
        {"cloud_above": 0.2, "edge_below": 0.5},
        {"cloud_above": 1.0, "edge_below": 0.0},
        {"doubt": float("nan")},
        {"on_doubt": "ask"},
        {"cloud_above": 1.5},
        {"edge_below": -0.1},
        {"doubt": -0.1},
        {"cloud_above": 1.0, "edge_below": 0.0, "on_doubt": "cloud", "doubt": float("inf")},
    ],
)
def test_bounds_that_make_no_sense_are_refused(bad):
    """Crossed or unreachable bounds, bounds that are not numbers, unknown options."""
    with pytest.raises(PolicyError):
        policy(**bad)


@pytest.mark.parametrize(
    "bounds",
    [
        {"cloud_above": 0.5, "edge_below": 0.5},
        {"cloud_above": 1.0},
        {"edge_below": 0.0},
        {"cloud_above": 1.0, "edge_below": 0.0, "on_doubt": "cloud", "doubt": 0.0},
    ],
)
def test_one_bound_is_enough(bounds):
    """Both bounds equal, as in the paper's router; one of the two; or doubt alone, if it asks the cloud."""
    assert policy(**bounds).tiers == ("edge", "cloud")
    alone = HeadFirst(head=on_words().head, edge_below=0.3)
    assert (alone.cloud_above, alone.doubt, alone.on_doubt) == (1.0, float("inf"), "verify")


@pytest.mark.parametrize(("text", "route"), [("0.9 0.1", "cloud"), ("0.9 0.5", "cloud"), ("0.1 0.1", "edge")])
def test_of_three_tiers_the_head_knows_the_first_and_the_last(text, route):
    """Only the cascade uses the tier between them."""
    cascade = Cascade(gates=Cascade.of(TokenLogprob(), 0.25).gates, tiers=("edge", "middle", "cloud"))
    calls = ScriptedCalls(models={name: ScriptedModel([name]) for name in cascade.tiers})
    request = Request(messages=(Message(role="user", text=text),))
    result = run(replace(policy(on_doubt="cloud"), cascade=cascade), request, calls.call(request), {})
    assert (result.decision.route, result.decision.stage) == (route, "head")


@pytest.mark.parametrize("text", ["0.75 0.1", "0.25 0.1"])
def test_a_bound_itself_is_verified(text):
    """The bounds are strict: a probability that equals a bound goes to the cascade."""
    assert routed(text, policy(cloud_above=0.75, edge_below=0.25)).decision.stage == "draft"


def test_a_spread_that_equals_the_doubt_is_none():
    """Only a larger spread makes the head abstain."""
    assert routed("0.9 0.5", policy(doubt=0.5)).decision.stage == "head"


@pytest.mark.parametrize(("text", "bound"), [("0.9 0.1", 0.7), ("0.1 0.1", 0.3)])
def test_what_the_head_settled_names_its_bound(text, bound):
    """The decision contains signal, value and threshold, as for any signal."""
    decision = routed(text, policy()).decision
    value = pytest.approx(float(text.split()[0]))
    assert (decision.signal, decision.uncertainty, decision.threshold) == ("head", value, bound)
    assert (decision.threshold_source, decision.signals["head"].details["kind"]) == ("given", "reader")
    assert f"head {text.split()[0]}" in decision.reason


@pytest.mark.parametrize(
    ("error", "cascade"),
    [
        (MissingExtraError(extra="local", needed_for="the edge"), {}),
        (StreamInterruptedError("broke off"), {}),
        (TierError("down"), {"on_edge_error": "raise"}),
    ],
)
def test_an_edge_that_may_not_be_replaced_ends_the_call(error, cascade):
    """Set-up errors, an answer that was partly shown, and a policy that raises errors of the edge."""

    def call(ask):
        if ask.tier == "edge":
            raise error
        return ScriptedModel([Reply(text="ok")], name="c").generate(request.messages)

    request = Request(messages=(Message(role="user", text="0.1 0.1"),))
    with record() as decisions, pytest.raises(type(error)):
        run(policy(cascade=cascade), request, call, {})
    assert [decision.stage for decision in decisions] == ["failed"]


async def test_async_decides_the_same():
    """The same flow runs under both drivers."""
    request = Request(messages=(Message(role="user", text="0.9 0.1"),))

    async def call(ask):
        return ScriptedModel([Reply(text="ok")], name=ask.tier).generate(request.messages)

    assert (await arun(policy(), request, call, {})).decision.stage == "head"


def test_both_hosts_take_it():
    """LangChain and LlamaIndex route by it as by any policy."""
    from langchain_confroute import ChatConfRoute
    from langchain_confroute.testing import ScriptedChat
    from llamaindex_confroute import ConfRouteLLM
    from llamaindex_confroute.testing import ScriptedLLM

    models = [ScriptedModel([Reply(text=name)], name=name) for name in ("e", "c")]
    chat = ChatConfRoute(
        edge=ScriptedChat(script=models[0]), cloud=ScriptedChat(script=models[1]), policy=policy()
    )
    answer = chat.invoke("0.9 0.1")
    assert (answer.text, answer.response_metadata["confroute"]["stage"]) == ("c", "head")
    llm = ConfRouteLLM(edge=ScriptedLLM(model=models[0]), cloud=ScriptedLLM(model=models[1]), policy=policy())
    assert llm.complete("0.1 0.1").additional_kwargs["confroute"]["stage"] == "head"
    chat = ChatConfRoute(
        edge=ScriptedChat(script=models[0]), cloud=ScriptedChat(script=models[1]), policy=on_words()
    )
    answer = chat.invoke("prove that")
    assert (answer.text, answer.response_metadata["confroute"]["stage"]) == ("c", "head")


def test_scripted_calls_are_enough_to_try_it():
    """`ScriptedCalls` answers its asks too."""
    calls = ScriptedCalls(
        models={name: ScriptedModel([Reply(text=name)], name=name) for name in ("edge", "cloud")}
    )
    request = Request(messages=(Message(role="user", text="0.9 0.1"),))
    assert run(policy(), request, calls.call(request), {}).generation.text == "cloud"


def test_a_replaced_tier_leaves_one_decision_with_all_that_was_tried():
    """The call did not fail: `record` sees one decision, whose steps include the tier that failed."""
    with record() as decisions:
        routed("0.1 0.1", policy(), edge=None)
    (decision,) = decisions
    assert [(step.kind, step.tier, step.error) for step in decision.steps] == [
        ("embed", None, None),
        ("final", "edge", "TierError"),
        ("final", "cloud", None),
    ]


def test_a_call_that_fails_is_recorded_once():
    """The cloud is down and no other tier may answer."""
    with record() as decisions, pytest.raises(TierError):
        routed("0.9 0.1", policy(), cloud=None)
    assert [decision.stage for decision in decisions] == ["failed"]


@pytest.mark.parametrize(
    ("text", "cascade", "tried"),
    [
        ("0.9 0.1", {}, ["cloud"]),
        ("0.9 0.1", {"on_cloud_error": "edge"}, ["cloud", "edge"]),
        ("0.1 0.1", {}, ["edge", "cloud"]),
        ("0.1 0.1", {"on_edge_error": "raise"}, ["edge"]),
        ("0.5 0.1", {}, ["edge", "cloud"]),
        ("0.9 0.9", {}, ["edge", "cloud"]),
    ],
)
def test_a_call_that_fails_records_the_estimate_and_all_that_was_tried(text, cascade, tried):
    """As a call that is answered: both tiers are down, whoever chose between them."""
    with record() as decisions, pytest.raises(TierError):
        routed(text, policy(cascade=cascade), edge=None, cloud=None)
    (decision,) = decisions
    wins, spread = map(float, text.split())
    assert decision.stage == "failed"
    assert decision.signals["head"].uncertainty == pytest.approx(wins)
    assert decision.signals["head"].details["spread"] == pytest.approx(spread)
    assert decision.steps[0].kind == "embed"
    assert [step.tier for step in decision.steps[1:]] == tried
    if wins != 0.5 and spread < 0.4:
        bound = 0.7 if wins > 0.7 else 0.3
        assert (decision.signal, decision.uncertainty, decision.threshold) == (
            "head",
            pytest.approx(wins),
            bound,
        )


def test_a_call_that_fails_records_why_there_is_no_estimate():
    """The embedding failed before both tiers did."""
    with record() as decisions, pytest.raises(TierError):
        routed("no number", policy(), edge=None, cloud=None)
    assert "ValueError" in decisions[0].skipped["head"]


def test_a_call_that_goes_on_from_the_cloud_stays_there():
    """The head would choose the edge, but a weaker model would rewrite the cloud's answer."""
    decision = routed("0.1 0.1", policy(), begun_on="cloud").decision
    assert (decision.route, decision.rule) == ("cloud", "sticky")
    assert "head" not in decision.signals


@pytest.mark.parametrize("text", ["0.9 0.1", "0.1 0.1", "0.5 0.1", "0.9 0.9", "no number", "0.9 0.1 secret"])
@pytest.mark.parametrize("edge", ["ok", None])
def test_rules_are_evaluated_once(text, edge):
    """Whichever way a call is settled: a rule's detector may cost more than the draft."""
    requests = []

    def counted(request):
        requests.append(request)
        return KeepPrivate(patterns=("secret",))(request)

    if edge is None and "secret" in text:
        with pytest.raises(TierError, match="private"):
            routed(text, policy(cascade={"rules": (counted,)}), edge=None)
    else:
        routed(text, policy(cascade={"rules": (counted,)}), edge=edge)
    assert len(requests) == 1
