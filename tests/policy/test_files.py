"""Policy files: what is written is what is read, and nothing else is read."""

import dataclasses
import json

import pytest

from confroute import (
    Cascade,
    Gate,
    KeepPrivate,
    SameEmbedding,
    SameEntailment,
    SelfConsistency,
    SemanticEntropy,
    SendTo,
    Threshold,
    TokenLogprob,
    load_policy,
    save_policy,
)
from confroute.budget import Budget, Pace, Paced
from confroute.drift import Audited, DriftTest
from confroute.errors import PolicyError
from confroute.heads import NearestNeighbours, WordRidge, encoder
from confroute.learning import LearnOnline
from confroute.policy import DraftReuse, HeadFirst, Hedged, Sticky, TierPrice, register
from confroute.prices import Price
from confroute.state import MemoryStore

FULL = Cascade(
    gates=(
        Gate(
            signal=TokenLogprob(statistic="quantile"),
            threshold=Threshold(value=0.5, source="fitted"),
            grey=(0.1, 1.0),
        ),
        Gate(signal=SelfConsistency(n=3, step=3), threshold=Threshold(value=0.4)),
        Gate(signal=SemanticEntropy(equivalence=SameEntailment(model="nli")), threshold=Threshold(value=0.6)),
    ),
    rules=(KeepPrivate(patterns=(r"\bIBAN\b",)), SendTo(tier="cloud", tags=("hard",))),
    on_cloud_error="edge",
)


def test_round_trip(tmp_path):
    """A policy with everything in it comes back equal, and decides the same because it is the same value."""
    for policy in (Cascade(), FULL, Cascade.of(SemanticEntropy(equivalence=SameEmbedding()), 0.5)):
        policy.save(tmp_path / "policy.json")
        assert Cascade.load(tmp_path / "policy.json") == policy


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "version 2, this confroute reads version 1"),
        ({"version": None}, "version None"),
        ({"format": "other"}, "not a policy file"),
        ({"policy": {"class": "os.system"}}, "unknown class 'os.system'"),
        ({"policy": {"class": "Cascade", "gates": []}}, "at least one signal"),
        ({"policy": {"class": "Cascade", "colour": 1}}, "colour"),
        ({"policy": {"class": "Threshold", "value": 1.0}}, "holds a Threshold: expected a policy"),
    ],
)
def test_other_files_are_refused(tmp_path, change, words):
    """Another version, another format, an unknown class or impossible values: said, never guessed."""
    path = tmp_path / "policy.json"
    FULL.save(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(PolicyError, match=words):
        Cascade.load(path)


def test_files_that_are_no_json_are_refused(tmp_path):
    """Not JSON, or JSON of another shape."""
    for text in ("", "{", "[]", "3"):
        (tmp_path / "policy.json").write_text(text)
        with pytest.raises(
            PolicyError, match=r"policy\.json(, line 1)?: this is not a policy file.* save_policy"
        ):
            Cascade.load(tmp_path / "policy.json")


def test_a_file_that_is_not_there_is_named(tmp_path):
    """With where policy files come from."""
    with pytest.raises(PolicyError, match=r"missing\.json: no such file; .* `confroute fit --out`"):
        Cascade.load(tmp_path / "missing.json")


def test_own_classes_are_not_written_half(tmp_path):
    """A rule that cannot be read back is refused before a file exists."""
    policy = Cascade(rules=(lambda request: None,))
    with pytest.raises(PolicyError, match="cannot be written"):
        policy.save(tmp_path / "policy.json")
    assert not (tmp_path / "policy.json").exists()


@pytest.mark.parametrize(
    "bad",
    [
        {"grey": [0.1]},
        {"grey": ["a", "b"]},
        {"grey": 0.3},
        {"by_tag": [{"class": "Threshold", "value": 0.2}]},
    ],
)
def test_a_gate_with_parts_of_another_shape_is_refused(tmp_path, bad):
    """A file that was edited by hand is told what is wrong with it, without a traceback of Python's own."""
    path = tmp_path / "p.json"
    Cascade.of(TokenLogprob(), 0.3).save(path)
    data = json.loads(path.read_text())
    data["policy"]["gates"][0] |= bad
    path.write_text(json.dumps(data))
    with pytest.raises(PolicyError, match="expected"):
        Cascade.load(path)


PLAIN = Cascade.of(TokenLogprob(), 0.3)
PACED = {
    "budgets": (Budget(limit=1.0, pace=Pace(signal="token_logprob", ladder=(0.1, 0.5))),),
    "price": Price(),
}
WRAPPED = (
    Hedged(policy=PLAIN, when="draft", tags=("fast",)),
    DraftReuse(policy=FULL, mode="verify"),
    LearnOnline(policy=PLAIN, store="sqlite:state.db"),
    Audited(policy=Hedged(policy=LearnOnline(policy=PLAIN)), test=DriftTest(level=0.05)),
    Paced(policy=Audited(policy=DraftReuse(policy=PLAIN), test=DriftTest(level=0.05)), **PACED),
    Sticky(
        policy=Hedged(policy=PLAIN),
        prices=(TierPrice(tier="cloud", price=Price(input_usd=3.0, cached_usd=0.3, cache_write_usd=3.75)),),
        store="sqlite:state.db",
    ),
    Paced(policy=Hedged(policy=PLAIN), budgets=(Budget(limit=3, unit="calls"),), store="redis://127.0.0.1/0"),
)


@pytest.mark.parametrize("policy", WRAPPED, ids=lambda policy: type(policy).__name__)
def test_wrappers_of_policies_come_back(policy, tmp_path):
    """In any nesting, with prices, paces and stores by their address; a cascade is not made of them."""
    path = tmp_path / "policy.json"
    save_policy(policy, path)
    assert load_policy(path) == policy
    kind = type(policy).__name__
    with pytest.raises(
        PolicyError, match=rf"holds a {kind}: expected a Cascade; load_policy\('.*'\) loads it"
    ):
        Cascade.load(path)


def sizes(texts):
    """Vectors that say how long texts are."""
    return [[float(len(text)), 1.0] for text in texts]


def on_vectors(**more):
    head = NearestNeighbours.fit(sizes("abcdefgh"), [0, 1] * 4, k=3)
    return HeadFirst(head=head, encoder=encoder(sizes, name="sizes"), cascade=FULL, cloud_above=0.7, **more)


def test_a_head_stands_beside_its_policy(tmp_path):
    """The head comes back with the same estimates, inside other wrappers too, wherever the folder is moved."""
    head = WordRidge.fit(["prove this", "name that"] * 8, [1, 0] * 8, penalty=0.1)
    inner = HeadFirst(head=head, cascade=FULL, cloud_above=0.7, edge_below=0.3)
    (tmp_path / "a").mkdir()
    save_policy(Paced(policy=inner, **PACED), tmp_path / "a" / "policy.json")
    found = load_policy((tmp_path / "a").rename(tmp_path / "b") / "policy.json")
    assert dataclasses.replace(found.policy, head=head) == inner
    texts = ["prove that", "name this"]
    assert found.policy.head.estimate(texts).cloud_wins.tolist() == head.estimate(texts).cloud_wins.tolist()


def test_a_head_of_another_encoder_or_another_head_is_refused(tmp_path):
    """A function is asked for, and checked; a head that was trained anew is not taken for the one that was saved."""
    path = tmp_path / "policy.json"
    policy = on_vectors(doubt=0.4)
    save_policy(policy, path)
    with pytest.raises(
        PolicyError, match=r"'sizes', which is not a local model: give load_policy\(path, encoder="
    ):
        load_policy(path)
    assert load_policy(path, encoder=policy.encoder).doubt == 0.4
    with pytest.raises(PolicyError, match="another vector"):
        load_policy(path, encoder=encoder(lambda texts: [[1.0, float(len(t))] for t in texts], name="sizes"))
    save_policy(dataclasses.replace(on_vectors(), cloud_above=0.8), tmp_path / "other.json")
    (tmp_path / "other.json.head" / "head.json").write_text("{}")
    with pytest.raises(PolicyError, match="is not the one that this policy was saved with"):
        load_policy(tmp_path / "other.json", encoder=policy.encoder)


def test_a_head_that_is_never_in_doubt_comes_back_so(tmp_path):
    """Its infinite bound is written in a way that every reader of JSON takes."""
    path = tmp_path / "policy.json"
    save_policy(on_vectors(), path)
    json.loads(path.read_text(), parse_constant=pytest.fail)
    assert load_policy(path, encoder=encoder(sizes, name="sizes")).doubt == float("inf")


def own_loss(question, edge, cloud):
    return 0.0


@dataclasses.dataclass(frozen=True)
class Unknown:
    name: str = "unknown"

    def __call__(self, request):
        return None


TEST = DriftTest(level=0.05)


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (
            Audited(policy=PLAIN, test=TEST, loss=own_loss),
            r"Audited\.loss: the function own_loss cannot be .*put @confroute\.policy\.register above its `def`",
        ),
        (
            Cascade(rules=(lambda request: None,)),
            r"Cascade\.rules: the function .*<lambda> cannot be written",
        ),
        (Cascade(rules=(Unknown(),)), r"Cascade\.rules: a Unknown cannot be .*register above its class"),
        (
            LearnOnline(policy=PLAIN, store=MemoryStore()),
            r"LearnOnline\.store: a MemoryStore .*'sqlite:PATH'",
        ),
        (Paced(policy=PLAIN, store=MemoryStore(), **PACED), r"Paced\.store: a MemoryStore .*as text"),
        (Paced(policy=on_vectors(), store=MemoryStore(), **PACED), r"Paced\.store"),
    ],
    ids=["function", "lambda", "class", "store", "store of a budget", "store around a head"],
)
def test_what_cannot_be_written_says_why_and_what_to_do(policy, words, tmp_path):
    """By the field that holds it, and before anything is written."""
    with pytest.raises(PolicyError, match=words):
        save_policy(policy, tmp_path / "policy.json")
    assert not list(tmp_path.iterdir())


@register
@dataclasses.dataclass(frozen=True)
class OnFridays:
    tier: str = "edge"

    def __call__(self, request):
        return None


@register(name="tests.likes", kind="function")
def likes(question, edge, cloud):
    return 0.5


def test_registered_classes_and_functions_of_ones_own_are_written(tmp_path):
    """By their names; a file that names what is not registered is not guessed at."""
    path = tmp_path / "policy.json"
    policy = Audited(policy=Cascade(rules=(OnFridays(tier="cloud"),)), test=TEST, loss=likes)
    save_policy(policy, path)
    assert load_policy(path) == policy
    assert json.loads(path.read_text())["policy"]["loss"] == {"function": "tests.likes"}
    for changed in ('{"function": "os.system"}', '{"class": "tests.likes"}', '{"function": "Cascade"}'):
        path.write_text(path.read_text().replace('{\n      "function": "tests.likes"\n    }', changed))
        with pytest.raises(PolicyError, match="is to be registered"):
            load_policy(path)
        save_policy(policy, path)


def test_a_name_belongs_to_one_class():
    """Another class of a name is refused, the same one defined again is not; nor is what no file could hold."""
    with pytest.raises(
        PolicyError, match=r"the name 'Cascade' is taken by confroute\.policy\.cascade\.Cascade"
    ):
        register(dataclasses.make_dataclass("Cascade", ["x"], frozen=True))
    again = dataclasses.make_dataclass("OnFridays", ["tier"], frozen=True)
    again.__qualname__, again.__module__ = OnFridays.__qualname__, OnFridays.__module__
    register(again)
    register(OnFridays)
    for other in (3, print, PLAIN, type("Loose", (), {})):
        with pytest.raises(PolicyError, match="neither a dataclass nor a function"):
            register(name="other")(other)
    with pytest.raises(PolicyError, match="a lambda has no name"):
        register(lambda question: 0.0)


@register
@dataclasses.dataclass(frozen=True)
class MadeInside:
    """A rule that works out a field of its own."""

    word: str
    lower: str = dataclasses.field(init=False, default="")

    def __post_init__(self):
        """Work it out."""
        object.__setattr__(self, "lower", self.word.lower())

    def __call__(self, request):
        """No ruling."""
        return


def test_what_a_class_makes_itself_is_not_written(tmp_path):
    """The file would be refused by the class that it was written from."""
    policy = Cascade.of(TokenLogprob(), 0.3, rules=(MadeInside("Tree"),))
    save_policy(policy, tmp_path / "policy.json")
    assert load_policy(tmp_path / "policy.json") == policy
