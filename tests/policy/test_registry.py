"""Whatever ships can be recorded, fitted, saved, applied and deployed under the same name, or says why not."""

from __future__ import annotations

import functools
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from confroute import Cascade, KeepPrivate, SameEmbedding, SendTo, TokenLogprob, executor
from confroute.asks import Draft, Entails, Evidence, Final, Hidden, Prompt, Sample, Score
from confroute.budget import Budget, Pace, Paced
from confroute.drift import Audited, DriftTest
from confroute.errors import PolicyError
from confroute.executor import Executor, run
from confroute.fitting import CloudShare, expected, fit, replay
from confroute.fitting.recorded import request_of
from confroute.heads import WordRidge
from confroute.learning import LearnOnline
from confroute.policy import (
    DraftReuse,
    HeadFirst,
    Hedged,
    Sticky,
    TierPrice,
    load_policy,
    register,
    save_policy,
)
from confroute.prices import Price
from confroute.recording import RecordedSample, RecordError, Row, Side, with_signals
from confroute.recording.signals import (
    SIGNALS,
    builds_of,
    dropout_builds,
    ensemble_builds,
    known_signals,
    live_signals,
)
from confroute.registry import KINDS, columns, entries, not_recorded
from confroute.signals import Combined, Ensemble, McDropout, Recorded, Signal
from confroute.signals.mc_dropout import DropoutPasses
from confroute.signals.probe import ProbeWeights
from confroute.types import Context, Generation

SAMPLES = 4
OPTIONS = "What is right in case {i}?\nA. the first\nB. the second"
SEARCH = "How long is bridge number {i}?"
NOTHING = "The context does not say how long it is."


def shipped(*kinds):
    """The registry without what tests and examples of docstrings have added."""

    def ours(known):
        home = known.__module__
        return home.startswith("confroute.") and getattr(sys.modules[home], known.__name__, None) is known

    return [entry for entry in entries() if entry.kind in kinds and ours(entry.known)]


def drawn(kind, i, n):
    """Some answers to a question of a kind: letters, or lengths."""
    rng = np.random.default_rng([i, 7])
    return [("AB" if kind == "options" else ("10 m", "20 m"))[int(rng.random() < i / 40)] for _ in range(n)]


def draft_of(kind, i):
    doubt = (1 + i) / 80
    found = f"It is {10 * (1 + i % 3)} m long."
    text = {"options": "AB"[i % 2], "nothing": NOTHING}.get(kind, found)
    other = "BA"[i % 2] if kind == "options" else "x"
    return Generation(
        text=text,
        tokens=(text,),
        logprobs=(math.log1p(-doubt),),
        top_logprobs=(((text, math.log1p(-doubt)), (other, math.log(doubt))),),
        model="tiny",
    )


class TinyModels:
    """An edge whose weights can be looked into, two members and a cloud, each as certain as the question's number says."""

    def __init__(self, kind, i):
        self.kind, self.i = kind, i

    def __call__(self, ask):
        rng = np.random.default_rng([self.i, 3])
        if isinstance(ask, Score):
            logprobs = -rng.random((ask.passes, 3)) * (1 + self.i)
            return Evidence(
                passes=DropoutPasses(logprobs=logprobs, total=rng.random(3) + 1, expected=rng.random(3))
            )
        if isinstance(ask, Hidden):
            return Evidence(numbers=rng.random((len(ask.layers), 2), dtype=np.float32))
        if isinstance(ask, Prompt):
            said = "A" if "(A) True" in ask.messages[0].text else str(self.i)
            return [Generation(text=said, tokens=(said,), logprobs=(math.log(0.3 + self.i / 80),))]
        if isinstance(ask, Sample):
            texts = drawn(self.kind, self.i, ask.drawn + ask.n)[ask.drawn :]
            return [Generation(text=text, logprobs=(-0.1,), tokens=(text,)) for text in texts]
        assert isinstance(ask, (Draft, Final))
        if ask.tier == "cloud":
            return [Generation(text="cloud")]
        if ask.tier != "edge":
            return [Generation(text=drawn(self.kind, self.i + len(ask.tier), 1)[0])]
        return [draft_of(self.kind, self.i)]


def numbers(ask):
    """Embeddings and entailment that only look at the first letters."""
    if isinstance(ask, Entails):
        return np.array([0.9 if a[-3:] == b[-3:] else 0.1 for a, b in ask.pairs], dtype=np.float32)
    return ask.embed(ask.texts) if ask.embed else letters(ask.texts)


@register(name="letters_of_tests")
def letters(texts):
    """One vector a text."""
    found = np.array([[len(text) % 7 + 1, len(set(text)) % 5 + 1] for text in texts], dtype=np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


@pytest.fixture(scope="module", autouse=True)
def no_models():
    """No embedding or NLI model is loaded."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "_numbers", numbers)
        yield


@pytest.fixture(scope="module")
def probe(tmp_path_factory):
    """The file of a probe of two numbers."""
    path = tmp_path_factory.mktemp("probe") / "probe.safetensors"
    weights = ProbeWeights(
        layers=(1,),
        mean=np.zeros(2),
        scale=np.ones(2),
        weights=np.array([3.0, -1.0]),
        bias=0.0,
        target="wrong",
    )
    weights.save(path)
    return path


MORE = (
    "PTrue()",
    "Verbalised()",
    "own.words=SemanticEntropy(equivalence=SameText())",
    "own.embedding=SemanticEntropy(equivalence=SameEmbedding(cosine=0.8))",
    "own.function=SelfConsistency(kind='text')",
    "own.entailment=CoverageEntropy(equivalence=SameEntailment(model='nli'))",
    "own.cosine=Degree(similarity=EmbeddingCosine(model=letters_of_tests))",
    "own.degree=KernelEntropy(similarity=EntailmentDegree(model='nli'))",
    "own.overlap=Eccentricity(similarity=WordOverlap())",
    "own.support=ContextSupport(by='embedding', model=letters_of_tests)",
    "own.entailed=ContextSupport(by='entailment', model='nli')",
)


def builds(probe):
    return {
        **SIGNALS,
        **builds_of(MORE),
        **builds_of([f"Probe(path={str(probe)!r})"]),
        **dropout_builds(3, [0.01]),
        **ensemble_builds(["q8", "terse"]),
        "own.registered": lambda n: replace(
            SIGNALS["semantic_entropy"](n), equivalence=SameEmbedding(model=letters, cosine=0.99)
        ),
    }


def tool_turn(i):
    """A question, and three calls of a tool of which up to three fail."""
    calls = [{"name": "measure", "arguments": {"bridge": i, "by": by}} for by in range(3)]
    said = [
        {"role": "tool", "content": "Error: no signal" if by < i % 4 else f"{by} m", "tool_call_id": "1"}
        for by in range(3)
    ]
    told = [{"role": "assistant", "content": None, "tool_calls": [call]} for call in calls]
    turn = [message for pair in zip(told, said, strict=True) for message in pair]
    return ({"role": "user", "content": SEARCH.format(i=i)}, *turn)


def row_of(kind, i):
    answer = draft_of(kind, i)
    context = {
        "question": SEARCH.format(i=i),
        "passages": [f"Bridge number {i} is 10 m long."],
        "scores": [i / 40],
    }
    return Row(
        id=f"{kind}/{i}",
        prompt=None if kind == "tools" else (OPTIONS if kind == "options" else SEARCH).format(i=i),
        messages=tool_turn(i) if kind == "tools" else None,
        edge=Side(
            model="tiny",
            text=answer.text,
            tokens=answer.tokens,
            logprobs=answer.logprobs,
            quality=float(i % 3 > 0),
            samples=tuple(RecordedSample(text=t, logprobs=(-0.1,)) for t in drawn(kind, i, SAMPLES)),
            usage={"input_tokens": 10, "output_tokens": 1},
            latency_s=0.1,
            cost_usd=0.0,
            extra={
                "temperature": 1.0,
                "top_logprobs": [[[*pair] for pair in top] for top in answer.top_logprobs],
            },
        ),
        cloud=Side(
            text="cloud",
            quality=1.0,
            latency_s=0.2,
            cost_usd=0.01,
            usage={"input_tokens": 10, "output_tokens": 5},
        ),
        extra={} if kind in ("options", "tools") else {"context": context},
    )


@pytest.fixture(scope="module")
def rows(probe):
    """Recorded rows with every signal: questions with options, on passages, drafts that find nothing there, agents' steps."""
    found = []
    for kind, count in (("options", 24), ("search", 16), ("nothing", 12), ("tools", 12)):
        for i in range(count):
            row = row_of(kind, i)
            work = Executor(call=TinyModels(kind, i), limits={})
            messages = request_of(row).messages
            found.append(with_signals(row, signals=builds(probe), work=work, messages=messages))
    return found


def routed(policy, row):
    """Route one recorded call anew, by the models themselves."""
    kind, _, number = row.id.partition("/")
    return run(policy, request_of(row), TinyModels(kind, int(number)), {}).decision


OFFERED = [*columns(), *dropout_builds(3, [0.01]), *ensemble_builds(["q8", "terse"])]
OFFERED += ["p_true", "verbalised", "probe", "own.registered", *(text.split("=")[0] for text in MORE[2:])]


@pytest.mark.parametrize("column", OFFERED)
def test_a_column_is_fitted_saved_applied_and_deployed(column, rows, tmp_path):
    """The fitted policy measures on new calls what was recorded: the same numbers, and the same routes as its replay."""
    mine = [row for row in rows if row.signals[column] is not None]
    assert len(mine) >= 8, "recorded"
    found = fit(mine, CloudShare(share=0.5), signal=column)
    assert found.choice.column == column
    assert not isinstance(found.choice.signal, Recorded), "fitted to a signal that new calls have"
    assert not any("only be replayed" in note for note in found.notes)
    save_policy(found.policy, tmp_path / "policy.json")
    policy = load_policy(tmp_path / "policy.json")
    assert policy == found.policy
    # What finds nothing in its passages is judged before any gate, unless that is what the gate is about.
    policy = replace(policy, lacking=None)
    applied = replay(policy, mine)
    assert expected(applied).n == len(mine)
    (gate,) = policy.gates
    for row, outcome in zip(mine, applied, strict=True):
        decision = routed(policy, row)
        assert decision.route == outcome.decision.route
        measured = decision.signals[gate.signal.name]
        if "drawn" not in measured.details:
            assert measured.uncertainty == pytest.approx(row.signals[column], abs=1e-6)


def test_every_signal_that_ships_is_recorded_or_says_why_not(rows):
    """No signal is left out of the list above, and what is measured by a signal is found again by its column."""
    known = live_signals(rows, samples=SAMPLES).values()
    measured = {type(found) for found in known if isinstance(found, Signal)}
    for entry in shipped("signal"):
        assert (entry.known in measured) != bool(entry.why_not), entry.name
        assert bool(entry.columns) + bool(entry.recorded) + bool(entry.why_not) == 1
    assert {entry.known for entry in shipped("signal") if entry.why_not} == {Combined, Recorded}
    assert {entry.name for entry in shipped("signal")} <= {one.name for one in known_signals()}


def test_every_equivalence_and_similarity_is_part_of_a_recorded_signal():
    """Each stands in the list of signals with settings above."""
    named = " ".join(MORE)
    for entry in shipped("equivalence", "similarity"):
        assert f"{entry.name}(" in named, entry.name


def test_everything_else_says_why_it_is_not_recorded():
    """By its kind."""
    for kind in KINDS:
        for entry in shipped(kind):
            assert entry.kind == "signal" or not_recorded(entry)


@functools.cache
def plain():
    return Cascade.of(
        TokenLogprob(), 0.15, rules=(KeepPrivate(tags=("private",)), SendTo(tier="cloud", tags=("hard",)))
    )


def head():
    made = WordRidge.fit(["bridge how long", "right case second"] * 8, [1, 0] * 8, penalty=0.1)
    return HeadFirst(head=made, cascade=plain(), cloud_above=0.9, edge_below=0.1)


AROUND = {
    "Cascade": plain,
    "HeadFirst": head,
    "DraftReuse": lambda: DraftReuse(policy=plain(), mode="verify"),
    "Hedged": lambda: Hedged(policy=plain(), when="draft"),
    "Paced": lambda: Paced(
        policy=head(),
        budgets=(Budget(limit=3, unit="calls", pace=Pace(signal="token_logprob", ladder=(0.1, 0.3))),),
        store="sqlite:NOWHERE/state.db",
    ),
    "Sticky": lambda: Sticky(
        policy=plain(),
        prices=(TierPrice(tier="cloud", price=Price(input_usd=1.0, cached_usd=0.1)),),
        store="memory:test-registry-sticky",
    ),
    "Audited": lambda: Audited(
        policy=Hedged(policy=plain()),
        test=DriftTest(level=0.1),
        share=1.0,
        store="memory:test-registry-audit",
    ),
    "LearnOnline": lambda: LearnOnline(
        policy=plain(), labels=100, alpha=0.2, share=1.0, store="memory:test-registry-learning"
    ),
}


def test_every_policy_and_wrapper_is_in_the_list():
    assert {*AROUND} == {entry.name for entry in shipped("policy", "wrapper")}


@pytest.mark.parametrize("name", AROUND)
def test_a_wrapper_is_saved_applied_and_deployed(name, rows, tmp_path, monkeypatch):
    """Its replay leaves its own store alone, never spends more than its budget, and routes as the policy itself would."""
    monkeypatch.chdir(tmp_path)
    # An audit that ends between two calls would move what is learned.
    monkeypatch.setattr("confroute.background.shadow", lambda *_: None)
    policy = AROUND[name]()
    save_policy(policy, tmp_path / "policy.json")
    again = load_policy(tmp_path / "policy.json")
    applied = replay(again, rows)
    assert not (tmp_path / "NOWHERE").exists()
    cloud = sum(outcome.cloud for outcome in applied)
    assert 0 < cloud < len(rows)
    if name == "Paced":
        # Every call to the cloud is one of three, whether the head or a gate sends it; the others end without an answer.
        assert sum(outcome.cloud and not outcome.failed for outcome in applied) <= 3
        again = replace(again, store="memory:test-registry", budgets=(Budget(limit=1000, unit="calls"),))
    inner = head() if name in {"HeadFirst", "Paced"} else plain()
    for row, outcome in zip(rows, replay(inner, rows), strict=True):
        assert routed(again, row).route == outcome.decision.route


def test_rules_that_ship_are_saved_applied_and_deployed(rows, tmp_path):
    """A tagged call is ruled alike in the replay and by the loaded policy; no rule ships that the policy here lacks."""
    assert {type(rule).__name__ for rule in plain().rules} == {entry.name for entry in shipped("rule")}
    save_policy(plain(), tmp_path / "policy.json")
    policy = load_policy(tmp_path / "policy.json")
    for tag, route, rule in (("private", "edge", "keep_private"), ("hard", "cloud", "send_to")):
        row = replace(rows[0], extra={"tags": [tag]})
        (outcome,) = replay(policy, [row])
        for decision in (outcome.decision, routed(policy, row)):
            assert (decision.route, decision.rule) == (route, rule)


def test_what_measured_a_column_decides_over_its_name(rows):
    """Other settings than the column's own are kept with the row; rows that disagree are told apart from unknown ones."""
    assert "semantic_entropy" not in rows[0].measured_by
    assert rows[0].measured_by["mc_dropout@0.01.token_variance"]["passes"] == 3
    other = with_signals(
        replace(row_of("options", 1), id="options/again"),
        signals=dropout_builds(5, [0.01]),
        work=Executor(call=TinyModels("options", 1), limits={}),
    )
    column = "mc_dropout@0.01.token_variance"
    found = fit([*rows, other], CloudShare(share=0.5), signal=column)
    assert found.choice.signal == Recorded(column=column)
    assert any("its rows were measured with different settings" in note for note in found.notes)
    odd = [
        replace(row, measured_by={"mine": {"class": "Missing"}}, signals={"mine": 0.1}) for row in rows[:20]
    ]
    (note,) = [n for n in fit(odd, CloudShare(share=0.0), signal="mine").notes if "only be replayed" in n]
    assert "the signal that measured it cannot be made here (unknown class 'Missing'" in note


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["token_magic"], r"--signals token_magic: expected names of token_logprob\.mean"),
        (["PTrue()", "p_true=Verbalised()"], "two signals for the column 'p_true'"),
        (["SameText()"], "a SameText is not a signal"),
        (["Ensemble()"], "members"),
        (["McDropout(passes=1)"], "passes is 1: expected at least 2"),
        (["os.system('ls')"], r"expected NAME\(field=value"),
        (["open('x')"], r"expected NAME\(field=value"),
        (["PTrue(**{'top_logprobs': 3})"], "PTrue"),
        (["PTrue(top_logprobs=1 + 1)"], "PTrue"),
        (["Missing()"], "nothing is known by the name 'Missing'"),
    ],
)
def test_names_that_are_no_signals_are_refused(names, words):
    """Nothing but registered classes and plain values is ever made of what a command line says."""
    with pytest.raises(PolicyError, match=words):
        builds_of(names)


def test_recorded_temperatures_are_deployed(rows):
    """Samples of new calls are drawn at the temperature of the recorded ones."""
    found = fit(
        [row for row in rows if "options" in row.id], CloudShare(share=0.5), signal="self_consistency"
    )
    assert found.choice.signal.temperature == 1.0
    assert found.choice.signal.n == SAMPLES


def test_dropout_is_deployed_as_it_was_recorded(rows):
    """The recorded passes, rate and statistic, not the defaults."""
    found = fit(rows, CloudShare(share=0.5), signal="mc_dropout@0.01.token_variance")
    assert found.choice.signal == McDropout(passes=3, rate=0.01, statistic="token_variance")
    found = fit(rows, CloudShare(share=0.5), signal="ensemble.disagreement")
    assert found.choice.signal == Ensemble(members=("q8", "terse"))


def test_contexts_that_are_none_are_refused():
    """By the field that is wrong."""
    for context, words in (
        ({"passages": [1]}, r"context\.passages\[0\]"),
        ({"passages": ["a"], "scores": [0.1, 0.2]}, r"context\.scores is 2: expected 1 numbers"),
        ("a", "context is 'a': expected an object"),
    ):
        with pytest.raises(RecordError, match=words):
            _ = Row(id="a", edge=Side(), extra={"context": context}).context
    assert row_of("search", 1).context == Context(
        passages=("Bridge number 1 is 10 m long.",), scores=(1 / 40,)
    )
