"""Rules before anything leaves the process: what they look at, what decisions call them, and that nothing overrides a private one."""

import re

import pytest

from confroute import (
    Cascade,
    KeepPrivate,
    Limits,
    Message,
    Request,
    SendTo,
    TokenLogprob,
)
from confroute.errors import MissingExtraError, PolicyError, RequestError
from confroute.executor import run
from confroute.policy import Presidio, presidio
from confroute.testing import Reply, ScriptedCalls, ScriptedModel

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
    return decision, len(models["cloud"].calls)


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
    turns = tuple(Message(role=role, text=f"the {role}") for role in ("system", "user", "assistant", "tool"))
    assert rule(Request(messages=turns)) is None
    assert asked == ["the system", "the user", "the assistant", "the tool"]


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


@pytest.mark.parametrize(
    "label",
    [
        "private",
        "Private",
        " PRIVATE ",
        "never_cloud",
        "private=true",
        "Private=Yes",
        "private=1",
        "private=1.0",
    ],
)
def test_a_label_is_private_however_it_is_spelt(label):
    """In any case, with spaces or an underscore, and as a value that says yes."""
    assert decided((KeepPrivate(),), tags=frozenset({"user=a", label}))[0].private


@pytest.mark.parametrize(
    "label", ["private=false", "private=0", "private=No", "private=", "private=None", "user=private"]
)
def test_a_label_that_says_no_is_not_private(label):
    """Neither is another label with that value."""
    assert not decided((KeepPrivate(),), tags=frozenset({label}))[0].private


@pytest.mark.parametrize("label", ["private=maybe", "private=<list>", "Never-Cloud=2"])
def test_a_label_that_says_neither_is_refused(label):
    """Without its value, which may be private: which of the two was meant must not be guessed."""
    with pytest.raises(RequestError, match="neither yes nor no: expected True or False"):
        decided((KeepPrivate(),), tags=frozenset({label}))
    assert not decided((KeepPrivate(tags=("confidential",)),), tags=frozenset({label}))[0].private


def test_a_tag_with_a_value_of_its_own_matches_as_a_whole():
    """A rule may name a tenant, whose name is neither yes nor no."""
    rule = KeepPrivate(tags=("tenant=acme",))
    assert decided((rule,), tags=frozenset({"Tenant=ACME"}))[0].private
    assert not decided((rule,), tags=frozenset({"tenant=other"}))[0].private


@pytest.mark.parametrize("given", [{"detect": "word"}, {"tools": "pay"}, {"tags": ()}])
def test_rules_that_cannot_be_are_refused(given):
    """A detector that is no function, a text for a tuple, nothing to match."""
    with pytest.raises(PolicyError, match=r"expected|tuples|never applies"):
        KeepPrivate(**given)
    if "detect" not in given:
        with pytest.raises(PolicyError, match=r"tuples|never applies"):
            SendTo(tier="cloud", **given)


SLOW = [
    r"(\w+\s?)+@corp\.com",
    r"(a+)+",
    r"(?:a*)*b",
    r"((\d+-?)*)+x",
    r"(?P<n>(?:\w+|-)+)+",
    r"x(\s*\w*)*y",
    r"(a+?)+",
]
FINE = [r"(?i)salary", r"\d{3}-\d{2}-\d{4}", r"(?:\w+, )+end", r"\w+@\w+\.com", r"(ab)+", r"(a|b)*c", r"(?:\d{2,4}-)+", r"\bjane\b.*\bdoe\b"]  # fmt: skip


@pytest.mark.parametrize("pattern", SLOW)
def test_a_pattern_that_may_take_for_ever_is_told(pattern):
    """When the rule is made, with what to do instead; a detector of one's own is not looked at."""
    with pytest.warns(UserWarning, match=r"takes for ever.*detect=re2"):
        KeepPrivate(patterns=("fine", pattern))
    with pytest.warns(UserWarning, match="takes for ever"):
        SendTo(tier="cloud", patterns=(pattern,))
    KeepPrivate(detect=re.compile(pattern).search)


@pytest.mark.parametrize("pattern", FINE)
def test_other_patterns_are_not(pattern):
    """Repeats of what has to be there, however long. (A warning is an error here.)"""
    assert KeepPrivate(patterns=(pattern,)).patterns == (pattern,)


DISGUISED = {
    "full width": "\uff2a\uff41\uff4e\uff45",
    "a ligature": "Jane \ufb01",
    "a zero-width space": "Ja\u200bne",
    "a joiner and a soft hyphen": "J\u2060a\u00adne",
    "a change of direction": "Ja\u202dne\u202c",
    "mathematical letters": "\U0001d409\U0001d41a\U0001d427\U0001d41e",
}


@pytest.mark.parametrize("disguise", DISGUISED)
def test_a_folded_text_is_searched_too(disguise):
    """Whatever looks the same; only where the rule asks for it, and beside the text as it is."""
    text = f"my name is {DISGUISED[disguise]}"
    pattern = "fi" if disguise == "a ligature" else "Jane"
    assert not decided((KeepPrivate(patterns=(pattern,)),), text, route="cloud")[0].private
    assert decided((KeepPrivate(patterns=(pattern,), fold=True),), text)[0].private
    assert decided((KeepPrivate(detect=lambda found: pattern in found, fold=True),), text)[0].private
    assert decided((KeepPrivate(patterns=(DISGUISED[disguise],), fold=True),), text)[0].private


def test_private_text_stays_on_the_first_tier_unless_another_is_declared_local():
    """A rule for the cloud would send private text there, whatever its name says."""
    with pytest.raises(PolicyError, match="set local=True"):
        KeepPrivate(patterns=("x",), tier="cloud")
    three = {"tiers": ("phone", "server", "cloud")}
    for tier in ("server", "cloud"):
        with pytest.raises(PolicyError, match=rf"keeps calls on '{tier}', a later tier than"):
            Cascade(rules=(KeepPrivate(patterns=("x",), tier=tier),), **three)
        Cascade(rules=(KeepPrivate(patterns=("x",), tier=tier, local=True),), **three)
    Cascade(rules=(KeepPrivate(patterns=("x",), tier="phone"),), **three)
    decision, heard = decided((KeepPrivate(patterns=("secret",), tier="cloud", local=True),), "a secret")
    assert (decision.route, decision.private, heard) == ("cloud", True, 1)


def test_a_private_rule_of_every_setting_is_saved(tmp_path):
    """And read back as it was."""
    rule = KeepPrivate(patterns=("x",), unread="send", fold=True, tier="cloud", local=True)
    Cascade(rules=(rule,)).save(tmp_path / "p.json")
    assert Cascade.load(tmp_path / "p.json").rules == (rule,)
