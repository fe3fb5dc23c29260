"""Policy files: what is written is what is read, and nothing else is read."""

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
)
from confroute.errors import PolicyError

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
        ({"format": "other"}, "no policy file"),
        ({"policy": {"class": "os.system"}}, "unknown class 'os.system'"),
        ({"policy": {"class": "Cascade", "gates": []}}, "at least one signal"),
        ({"policy": {"class": "Cascade", "colour": 1}}, "colour"),
        ({"policy": {"class": "Threshold", "value": 1.0}}, "expected a Cascade"),
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
        with pytest.raises(PolicyError, match=r"policy\.json: this is no policy file.* policy\.save"):
            Cascade.load(tmp_path / "policy.json")


def test_a_file_that_is_not_there_is_named(tmp_path):
    """With where policy files come from."""
    with pytest.raises(PolicyError, match=r"missing\.json cannot be read: .* `confroute fit --out`"):
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
