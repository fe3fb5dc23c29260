"""Rules before anything leaves the process: what they look at, what decisions call them, and that nothing overrides a private one."""

import itertools

import pytest
from langchain_core.tools import tool
from llama_index.core.instrumentation.dispatcher import instrument_tags
from llama_index.core.tools import FunctionTool

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
    TokenLogprob,
    background,
    record,
)
from confroute.budget import Budget, Paced
from confroute.drift import Audited, DriftTest
from confroute.errors import ConfrouteError, MissingExtraError, PolicyError
from confroute.executor import run
from confroute.policy import Presidio, presidio
from confroute.policy.hedge import Hedged
from confroute.policy.reuse import DraftReuse
from confroute.signals import PTrue
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM

ONCE = Limits(attempts=1)
SURE, UNSURE = Reply(text="4", logprob=-0.01), Reply(text="5", logprob=-0.5)
DOWN = Reply(fault=ConnectionError("refused"))


def decided(rules, text="What is 2 + 2?", **facts):
    """The decision of one call under these rules, and what the cloud heard."""
    request = Request(messages=(Message(role="user", text=text),), **facts)
    models = {"edge": ScriptedModel([SURE]), "cloud": ScriptedModel(["four"])}
    calls = ScriptedCalls(models=models)
    policy = Cascade.of(TokenLogprob(), 0.3, rules=rules)
    decision = run(policy, request, calls.call(request), {"edge": ONCE, "cloud": ONCE}).decision
    return decision, len(models["cloud"].heard)


def salary(text):
    """A detector."""
    return "salary" in text


def broken(text):
    """A detector that fails."""
    raise OSError(text)


@pytest.mark.parametrize(
    ("rule", "facts", "why"),
    [
        (KeepPrivate(patterns=(r"2 \+ 2",)), {}, "pattern 1"),
        (KeepPrivate(), {"tags": frozenset({"never-cloud"})}, "tag 'never-cloud'"),
        (KeepPrivate(tools=("pay",)), {"tools": frozenset({"pay"})}, "tool 'pay'"),
        (KeepPrivate(detect=salary), {"text": "my salary"}, "detector salary"),
        (KeepPrivate(detect=broken), {}, "detector broken failed with OSError"),
    ],
)
def test_a_private_call_stays_and_says_why(rule, facts, why):
    """Whatever made it private, a forced route does not move it, and the reason repeats nothing of it."""
    decision, heard = decided((rule,), **facts, route="cloud")
    assert (decision.route, decision.rule, decision.private, heard) == ("edge", "keep_private", True, 0)
    assert decision.reason == f"private ({why}): stays on edge"


@pytest.mark.parametrize(
    ("rule", "facts"),
    [
        (SendTo(tier="cloud", tags=("always-cloud",), name="always"), {"tags": frozenset({"always-cloud"})}),
        (SendTo(tier="cloud", tools=("pay",), name="payments"), {"tools": frozenset({"pay", "look"})}),
        (SendTo(tier="cloud", tags=("tenant=acme",), name="acme"), {"tags": frozenset({"tenant=acme"})}),
    ],
)
def test_tags_tools_and_tenants_send_a_call_at_once(rule, facts):
    """Without a draft; the decision calls the rule by its name. Other calls are judged as ever."""
    decision, _ = decided((rule,), **facts)
    assert (decision.route, decision.stage, decision.rule) == ("cloud", "rule", rule.name)
    assert [step.kind for step in decision.steps] == ["final"]
    assert decided((rule,))[0].route == "edge"


def test_a_detector_is_asked_about_every_message():
    """An earlier turn is sent as well, so it counts."""
    asked = []
    rule = KeepPrivate(detect=lambda text: bool(asked.append(text)))
    turns = tuple(Message(role=role, text=role) for role in ("system", "user", "assistant", "user"))
    assert rule(Request(messages=turns)) is None
    assert asked == ["system", "user", "assistant", "user"]


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_one_private_message_is_enough(place):
    """Whichever turn a pattern or a detector finds, or the question that the host names, and whichever pattern it is."""
    texts = ["hello"] * 4
    texts[place] = "my salary"
    turns = tuple(Message(role="user", text=text) for text in texts[:3])
    request = Request(messages=turns, question=texts[3])
    for rule in (KeepPrivate(patterns=("pension", "salary")), KeepPrivate(detect=salary)):
        assert rule(request).private


def test_detectors_in_policy_files(tmp_path):
    """Presidio's settings can be saved; a function cannot, and is refused by name."""
    policy = Cascade(rules=(KeepPrivate(detect=Presidio(entities=("IBAN_CODE",))),))
    policy.save(tmp_path / "p.json")
    assert Cascade.load(tmp_path / "p.json") == policy
    with pytest.raises(PolicyError, match="function"):
        Cascade(rules=(KeepPrivate(detect=salary),)).save(tmp_path / "q.json")


def test_presidio_that_is_not_installed_is_an_error(monkeypatch):
    """It says what to install; the call is not let out, nor kept without a word."""
    monkeypatch.setitem(__import__("sys").modules, "presidio_analyzer", None)
    monkeypatch.setattr(presidio, "_own", [])
    presidio._default.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'confroute\[presidio\]'"):
        decided((KeepPrivate(detect=Presidio()),))


def test_presidio_finds_an_account_number(monkeypatch):
    """By its own recogniser of a pattern, which needs no language model."""
    analyser = pytest.importorskip("presidio_analyzer")
    from presidio_analyzer.nlp_engine import NlpArtifacts
    from presidio_analyzer.predefined_recognizers import IbanRecognizer

    class NoLanguageModel:
        """An engine for recognisers that read patterns alone."""

        def process_text(self, text, language):
            return NlpArtifacts([], [], [], [], self, language)

        def is_loaded(self):
            return True

        def get_supported_languages(self):
            return ["en"]

        def get_supported_entities(self):
            return []

    registry = analyser.RecognizerRegistry(recognizers=[IbanRecognizer()])
    monkeypatch.setattr(presidio, "_own", [])
    presidio.use(
        analyser.AnalyzerEngine(registry=registry, nlp_engine=NoLanguageModel(), supported_languages=["en"])
    )
    rule = KeepPrivate(detect=Presidio(entities=("IBAN_CODE",)))
    assert decided((rule,), "Pay DE89 3704 0044 0532 0130 00, please.")[0].private
    assert not decided((rule,), "Pay nobody, please.")[0].private


@pytest.mark.parametrize("given", [{"detect": "word"}, {"tools": "pay"}, {"tags": ()}])
def test_rules_that_cannot_be_are_refused(given):
    """A detector that is no function, a text for a tuple, nothing to match."""
    with pytest.raises(PolicyError, match=r"expected|tuples|never applies"):
        KeepPrivate(**given)
    if "detect" not in given:
        with pytest.raises(PolicyError, match=r"tuples|never applies"):
            SendTo(tier="cloud", **given)


@tool
def pay(amount: int) -> str:
    """Pay."""
    return str(amount)


def test_tool_rules_hold_in_both_hosts():
    """A call that is offered the tool goes to the cloud at once; one that is not is judged."""
    policy = Cascade.of(TokenLogprob(), 0.3, rules=(SendTo(tier="cloud", tools=("pay",)),))
    chat = ChatConfRoute(edge=ScriptedChat.of("4"), cloud=ScriptedChat.of("four"), policy=policy)
    llm = ConfRouteLLM(
        edge=ScriptedLLM(model=ScriptedModel([SURE], name="small")),
        cloud=ScriptedLLM(model=ScriptedModel(["four"], name="large")),
        policy=policy,
    )
    with record() as decisions:
        chat.bind_tools([pay]).invoke("What is 2 + 2?")
        llm.chat_with_tools([FunctionTool.from_defaults(fn=lambda amount: amount, name="pay")], "Pay 2")
        chat.invoke("What is 2 + 2?")
        llm.complete("What is 2 + 2?")
    assert [d.route for d in decisions] == ["cloud", "cloud", "edge", "edge"]
    assert [d.rule for d in decisions[:2]] == ["send_to"] * 2


LAYERS = {
    "plain": lambda policy: policy,
    "hedged at once": lambda policy: Hedged(policy=policy, when="draft"),
    "hedged in the grey zone": lambda policy: Hedged(policy=policy),
    "draft to verify": lambda policy: DraftReuse(policy=policy, mode="verify"),
    "draft to patch": lambda policy: DraftReuse(policy=policy, mode="patch"),
    "audited": lambda policy: audited(policy, "warn"),
    "alarm": lambda policy: audited(policy, "cloud", alarm=True),
    "budget": lambda policy: Paced(
        policy=policy, budgets=(Budget(limit=9, unit="calls"),), store=MemoryStore()
    ),
    "all": lambda policy: Paced(
        policy=audited(Hedged(policy=policy, when="draft"), "cloud", alarm=True),
        budgets=(Budget(limit=9, unit="calls"),),
        store=MemoryStore(),
    ),
}


def audited(policy, on_alarm, *, alarm=False):
    """Every kept answer is audited; the alarm may have been raised already."""
    layer = Audited(
        policy=policy, test=DriftTest(level=0.05), share=1.0, on_alarm=on_alarm, store=MemoryStore()
    )
    if alarm:
        layer._change(lambda state: {**state, "alarm_at": 1})
    return layer


def cascade(rule):
    """Samples and a judgement of its own answer in the grey zone; every fallback leads to the cloud."""
    return Cascade(
        gates=(
            Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3), grey=(0.1, 0.9)),
            Gate(signal=SelfConsistency(n=3), threshold=Threshold(value=0.4), grey=(0.1, 0.9)),
            Gate(signal=PTrue(), threshold=Threshold(value=0.4)),
        ),
        rules=(SendTo(tier="cloud", patterns=("secret",)), rule),
        on_no_signal="cloud",
        on_edge_error="cloud",
    )


RULES = {
    "pattern": (KeepPrivate(patterns=("secret",)), ()),
    "detector": (KeepPrivate(detect=lambda text: "secret" in text), ()),
    "tag": (KeepPrivate(), ("private",)),
}


@pytest.mark.parametrize(
    ("layer", "rule", "edge", "cloud", "host"),
    [
        *itertools.product(
            LAYERS, RULES, [SURE, UNSURE, DOWN], [Reply(text="four"), DOWN], ["langchain", "llamaindex"]
        )
    ],
)
async def test_nothing_overrides_a_private_call(layer, rule, edge, cloud, host):
    """Every layer, rule, outage and form of a call, with a forced route and another rule for the cloud: it hears nothing."""
    keeps, tags = RULES[rule]
    models = {
        "edge": ScriptedModel([edge], samples=["5"], name="small"),
        "cloud": ScriptedModel([cloud], name="large"),
    }
    policy = LAYERS[layer](cascade(keeps))
    given = {"policy": policy, "edge_limits": ONCE, "cloud_limits": ONCE}
    forms = (chat_forms if host == "langchain" else llm_forms)(models, given, tags)
    for form in forms:
        try:
            await form()
        except ConfrouteError:
            assert edge is DOWN
    background.wait()
    await background.await_all()
    assert models["cloud"].heard == []


def chat_forms(models, given, tags):
    """LangChain's four forms of a call."""
    router = ChatConfRoute(
        edge=ScriptedChat(script=models["edge"], model="small"),
        cloud=ScriptedChat(script=models["cloud"], model="large"),
        **given,
    )
    config = {"tags": list(tags), "configurable": {"confroute_route": "cloud"}}

    async def whole():
        router.invoke("a secret", config)

    async def streamed():
        list(router.stream("a secret", config))

    async def awhole():
        await router.ainvoke("a secret", config)

    async def astreamed():
        [chunk async for chunk in router.astream("a secret", config)]

    return whole, streamed, awhole, astreamed


def llm_forms(models, given, tags):
    """LlamaIndex's four forms of a call."""
    router = ConfRouteLLM(
        edge=ScriptedLLM(model=models["edge"]), cloud=ScriptedLLM(model=models["cloud"]), **given
    )
    told = {"confroute": {"route": "cloud", "tags": list(tags)}}

    async def whole():
        with instrument_tags(told):
            router.complete("a secret")

    async def streamed():
        with instrument_tags(told):
            list(router.stream_complete("a secret"))

    async def awhole():
        with instrument_tags(told):
            await router.acomplete("a secret")

    async def astreamed():
        with instrument_tags(told):
            [chunk async for chunk in await router.astream_complete("a secret")]

    return whole, streamed, awhole, astreamed
