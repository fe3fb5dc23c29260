"""A head before the cascade: what it settles, what it leaves, and what happens when something fails."""

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
    """A head that reads probability and spread from the vector: the policy is what is tested here."""

    kind, dim = "reader", 2

    def estimate(self, vectors):
        """The two columns."""
        found = np.atleast_2d(vectors)
        return Estimate(cloud_wins=found[:, 0], spread=found[:, 1])

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


def routed(text, made, *, edge="ok", cloud="ok", edge_logprob=-0.01, **request):
    """Route one prompt between two scripted models."""
    replies = {
        "edge": ScriptedModel([Reply(text=edge, logprob=edge_logprob)], name="e") if edge else None,
        "cloud": ScriptedModel([Reply(text=cloud)], name="c") if cloud else None,
    }
    asked = Request(messages=(Message(role="user", text=text),), **request)

    def call(ask):
        if replies[ask.tier] is None:
            raise TierError(f"{ask.tier} is down")
        return replies[ask.tier].generate(asked.messages)

    return run(made, asked, call, {})


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
    """Cloud now, edge now, verify in between, and verify where the head does not know."""
    found = routed(text, policy()).decision
    assert (found.route, found.stage) == (route, stage)
    assert [step.kind for step in found.steps] == kinds
    assert found.signals["head"].uncertainty == pytest.approx(float(text.split()[0]))
    assert found.signals["head"].details["spread"] == pytest.approx(float(text.split()[1]))


def test_a_head_that_does_not_know_can_ask_the_cloud():
    """on_doubt='cloud' escalates what is off the training prompts."""
    found = routed("0.1 0.45", policy(on_doubt="cloud")).decision
    assert (found.route, found.stage) == ("cloud", "head")
    assert "does not know" in found.reason


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
    """Cloud, edge, a draft for words never seen, and a rule before the head; nothing is embedded."""
    found = routed(text, on_words()).decision
    assert (found.route, found.stage) == (route, stage)
    assert [step.kind for step in found.steps] == kinds
    assert ("head" in found.signals) == (stage != "rule")


def test_head_and_encoder_have_to_fit():
    """A head on vectors without an encoder, and one on texts with one, are refused."""
    with pytest.raises(PolicyError, match="give the encoder"):
        policy(encoder=None)
    with pytest.raises(PolicyError, match="leave the encoder out"):
        policy(head=on_words().head)


def test_private_text_is_not_embedded():
    """A rule comes before the encoder, and before the head's choice."""
    seen.clear()
    made = policy(cascade={"rules": (KeepPrivate(patterns=("secret",)),)})
    found = routed("0.9 0.1 secret", made).decision
    assert (found.route, found.private, seen) == ("edge", True, [])


def test_the_callers_route_is_not_asked_about():
    """A forced route needs no head."""
    found = routed("0.9 0.1", policy(), route="edge").decision
    assert (found.route, found.stage, dict(found.signals)) == ("edge", "forced", {})


def test_an_embedding_that_fails_is_no_evidence():
    """The cascade decides, and the decision says why the head did not."""
    found = routed("no number", policy()).decision
    assert (found.route, found.stage) == ("edge", "draft")
    assert "ValueError" in found.skipped["head"]


def test_an_edge_that_fails_is_replaced_by_the_cloud():
    """Edge now, edge down: the cloud answers, as a fallback."""
    found = routed("0.1 0.1", policy(), edge=None).decision
    assert (found.route, found.stage) == ("cloud", "fallback")
    assert "edge failed" in found.reason


def test_a_cloud_that_fails_is_replaced_only_if_the_policy_lets_it():
    """Cloud now, cloud down: an error, or the edge where on_cloud_error says so."""
    with pytest.raises(TierError):
        routed("0.9 0.1", policy(), cloud=None)
    made = policy(cascade={"on_cloud_error": "edge"})
    assert routed("0.9 0.1", made, cloud=None).decision.route == "edge"


def test_an_edge_that_cannot_take_the_call_is_not_chosen():
    """Edge now, but it lacks tools: the cascade sends the call on."""
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
    """Crossed, never reached, no numbers, unknown words."""
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
    """Both at one place, the paper's router; one of the two; and doubt alone where it asks the cloud."""
    assert policy(**bounds).tiers == ("edge", "cloud")
    alone = HeadFirst(head=on_words().head, edge_below=0.3)
    assert (alone.cloud_above, alone.doubt, alone.on_doubt) == (1.0, float("inf"), "verify")


@pytest.mark.parametrize(("text", "route"), [("0.9 0.1", "cloud"), ("0.9 0.5", "cloud"), ("0.1 0.1", "edge")])
def test_of_three_tiers_the_head_knows_the_first_and_the_last(text, route):
    """The one between is the cascade's."""
    cascade = Cascade(gates=Cascade.of(TokenLogprob(), 0.25).gates, tiers=("edge", "middle", "cloud"))
    calls = ScriptedCalls(models={name: ScriptedModel([name]) for name in cascade.tiers})
    asked = Request(messages=(Message(role="user", text=text),))
    found = run(replace(policy(on_doubt="cloud"), cascade=cascade), asked, calls.call(asked), {})
    assert (found.decision.route, found.decision.stage) == (route, "head")


@pytest.mark.parametrize("text", ["0.75 0.1", "0.25 0.1"])
def test_a_bound_itself_is_verified(text):
    """Above and below are meant: a probability that equals a bound goes to the cascade."""
    assert routed(text, policy(cloud_above=0.75, edge_below=0.25)).decision.stage == "draft"


def test_a_spread_that_equals_the_doubt_is_none():
    """Only what is above it leaves the head without a word."""
    assert routed("0.9 0.5", policy(doubt=0.5)).decision.stage == "head"


@pytest.mark.parametrize(("text", "bound"), [("0.9 0.1", 0.7), ("0.1 0.1", 0.3)])
def test_what_the_head_settled_names_its_bound(text, bound):
    """Signal, value and threshold stand in the decision, as those of any signal."""
    found = routed(text, policy()).decision
    value = pytest.approx(float(text.split()[0]))
    assert (found.signal, found.uncertainty, found.threshold) == ("head", value, bound)
    assert (found.threshold_source, found.signals["head"].details["kind"]) == ("given", "reader")
    assert f"head {text.split()[0]}" in found.reason


@pytest.mark.parametrize(
    ("error", "cascade"),
    [
        (MissingExtraError(extra="local", needed_for="the edge"), {}),
        (StreamInterruptedError("broke off"), {}),
        (TierError("down"), {"on_edge_error": "raise"}),
    ],
)
def test_an_edge_that_may_not_be_replaced_ends_the_call(error, cascade):
    """Set-up errors, an answer that was shown in part, and a policy that wants to know."""

    def call(ask):
        if ask.tier == "edge":
            raise error
        return ScriptedModel([Reply(text="ok")], name="c").generate(asked.messages)

    asked = Request(messages=(Message(role="user", text="0.1 0.1"),))
    with record() as decisions, pytest.raises(type(error)):
        run(policy(cascade=cascade), asked, call, {})
    assert [found.stage for found in decisions] == ["failed"]


async def test_async_decides_the_same():
    """One flow, two drivers."""
    asked = Request(messages=(Message(role="user", text="0.9 0.1"),))

    async def call(ask):
        return ScriptedModel([Reply(text="ok")], name=ask.tier).generate(asked.messages)

    assert (await arun(policy(), asked, call, {})).decision.stage == "head"


def test_both_hosts_take_it():
    """LangChain and LlamaIndex route by it like by any policy."""
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
    """The test kit of the core drives it too."""
    calls = ScriptedCalls(
        models={name: ScriptedModel([Reply(text=name)], name=name) for name in ("edge", "cloud")}
    )
    asked = Request(messages=(Message(role="user", text="0.9 0.1"),))
    assert run(policy(), asked, calls.call(asked), {}).generation.text == "cloud"


def test_a_replaced_tier_leaves_one_decision_with_all_that_was_tried():
    """The call did not fail: `record` sees one decision, and the tier that failed stands in its steps."""
    with record() as decisions:
        routed("0.1 0.1", policy(), edge=None)
    (found,) = decisions
    assert [(step.kind, step.tier, step.error) for step in found.steps] == [
        ("embed", None, None),
        ("final", "edge", "TierError"),
        ("final", "cloud", None),
    ]


def test_a_call_that_fails_is_recorded_once():
    """The cloud is down and nothing may stand in for it."""
    with record() as decisions, pytest.raises(TierError):
        routed("0.9 0.1", policy(), cloud=None)
    assert [found.stage for found in decisions] == ["failed"]


def test_a_call_that_goes_on_from_the_cloud_stays_there():
    """Edge now, says the head; but a weaker model would rewrite the cloud's answer."""
    found = routed("0.1 0.1", policy(), begun_on="cloud").decision
    assert (found.route, found.rule) == ("cloud", "sticky")
    assert "head" not in found.signals


@pytest.mark.parametrize("text", ["0.9 0.1", "0.1 0.1", "0.5 0.1", "0.9 0.9", "no number", "0.9 0.1 secret"])
@pytest.mark.parametrize("edge", ["ok", None])
def test_rules_are_asked_once(text, edge):
    """Settled, judged, fallen back or ruled: a detector may cost more than the draft."""
    asked = []

    def counted(request):
        asked.append(request)
        return KeepPrivate(patterns=("secret",))(request)

    if edge is None and "secret" in text:
        with pytest.raises(TierError, match="private"):
            routed(text, policy(cascade={"rules": (counted,)}), edge=None)
    else:
        routed(text, policy(cascade={"rules": (counted,)}), edge=edge)
    assert len(asked) == 1
