"""What a fitted policy holds of the run: models, lengths, data and distribution, and nothing of its texts."""

import hashlib
import json
import re
import warnings
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute import Router, load_policy, save_policy
from confroute.cli import main
from confroute.errors import PolicyError
from confroute.fitting import CloudShare, MaxLoss, apply, fit
from confroute.models.text_model import FunctionModel
from confroute.policy import Provenance, ProvenanceWarning
from confroute.policy.provenance import RecordedModel, RecordedUncertainty, RowSketch
from confroute.recording import Row, Side, write_rows
from confroute.recording.runner import Recorder
from confroute.testing import Reply, ScriptedModel
from confroute.types import Generation, Usage


class Short(ScriptedModel):
    """A scripted model with an answer limit, as models behind servers have."""

    max_tokens = 64


def recorded(edge, cloud, n=40):
    """Rows as `confroute record` makes them."""
    recorder = Recorder(edge=edge, cloud=cloud, signals={})
    rows = [
        recorder.row(Row(id=str(at), prompt=f"secret {at}", reference="yes", edge=Side())) for at in range(n)
    ]
    return [replace(row, signals={"mine": at / n}) for at, row in enumerate(rows)]


def test_a_run_says_how_its_models_were_asked():
    """The name by which a model is configured, which its server may not answer by, and its limit; None for a function's."""
    row = recorded(Short([Reply(text="yes")], name="small"), FunctionModel(function=lambda m: "yes"), n=1)[0]
    assert row.edge.extra["asked"] == {"model": "small", "max_tokens": 64}
    assert row.cloud.extra["asked"] == {"model": None, "max_tokens": None}


def test_a_fitted_policy_holds_it_and_its_file_too(tmp_path):
    """The file's hash, so that anyone can check which run it was; no text of the run."""
    rows = recorded(Short([Reply(text="yes")], name="small"), ScriptedModel(["yes"], name="large"))
    rows[3] = replace(rows[3], edge=replace(rows[3].edge, extra={**rows[3].edge.extra, "finish": "length"}))
    path = tmp_path / "run.jsonl"
    write_rows(path, rows)
    found = fit(rows, CloudShare(share=0.3), signal="mine").policy.provenance
    assert (found.edge.names, found.edge.max_tokens, found.edge.cut_off) == (("small",), 64, 1 / 40)
    assert (found.cloud.names, found.cloud.max_tokens) == (("large",), None)
    assert (found.n, found.kind) == (40, "auto")
    assert found.data_hash == hashlib.sha256(path.read_bytes()).hexdigest()
    assert found.uncertainty[0].n == 40
    assert found.uncertainty[0].measured == 39 / 40, "a draft that was cut off is not measured"
    assert (
        main(
            ["fit", str(path), "--out", str(tmp_path / "p.json"), "--cloud-share", "0.3", "--signal", "mine"]
        )
        == 0
    )
    text = (tmp_path / "p.json").read_text()
    assert "secret" not in text
    assert load_policy(tmp_path / "p.json").provenance == found
    assert json.loads(text)["policy"]["provenance"]["class"] == "Provenance"


def test_the_same_models_raise_no_warning_and_a_shorter_edge_does():
    """From recording to deployment, without a framework."""
    edge, cloud = Short([Reply(text="yes")], name="small"), ScriptedModel(["yes"], name="large")
    policy = fit(recorded(edge, cloud), CloudShare(share=0.3), signal="mine").policy
    Router(edge=edge, cloud=cloud, policy=policy)
    shorter = Short([Reply(text="yes")], name="small")
    shorter.max_tokens = 8
    with pytest.warns(ProvenanceWarning, match="up to 8 tokens, recorded was small"):
        Router(edge=shorter, cloud=cloud, policy=policy)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ProvenanceWarning)
        Router(edge=ScriptedModel(["yes"], name="tiny"), cloud=cloud, policy=policy)


def test_a_server_may_answer_by_another_name():
    """Both names are the recorded model's."""

    def answers(messages):
        return Generation(text="yes", model="small-2025-01-31", usage=Usage(input_tokens=3, output_tokens=90))

    rows = recorded(FunctionModel(function=answers, name="small"), ScriptedModel(["yes"], name="large"))
    unnamed = fit(rows, CloudShare(share=0.3), signal="mine").policy.provenance.edge
    assert (unnamed.names, unnamed.longest) == ((), 90)
    asked = [
        replace(
            row, edge=replace(row.edge, extra={**row.edge.extra, "asked": {"model": "s", "max_tokens": None}})
        )
        for row in rows
    ]
    named = fit(asked, CloudShare(share=0.3), signal="mine").policy.provenance.edge
    assert named.names == ("s", "small-2025-01-31")
    # Without a recorded limit, the longest answer is what a limit must leave room for.
    provenance = fit(asked, CloudShare(share=0.3), signal="mine").policy.provenance
    assert provenance.differs("edge", "s", 90) is None
    assert "up to 89 tokens" in provenance.differs("edge", "s", 89)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RecordedModel(cut_off=1.5), "cut_off is 1.5"),
        (lambda: RecordedUncertainty(signal="s", values=(1.0, 0.5), at_most=(1, 2), n=3), "rising"),
        (lambda: RecordedUncertainty(signal="s", values=(0.5, 1.0), at_most=(2, 1), n=3), "rising"),
        (lambda: RecordedUncertainty(signal="s", values=(0.5,), at_most=(4,), n=3), "at most 3 calls"),
        (lambda: RecordedUncertainty(signal="s", values=(), at_most=(), n=0), "one call at least"),
        (lambda: RowSketch(fingerprints=(2, 1)), "expected at most 256, rising"),
        (lambda: RowSketch(fingerprints=(-1,)), "expected at most 256, rising"),
        (lambda: RowSketch(fingerprints=(2**48,)), "below"),
        (lambda: RowSketch(fingerprints=tuple(range(257))), "257 fingerprints"),
        (
            lambda: Provenance(
                edge=RecordedModel(),
                cloud=None,
                kind=None,
                n=0,
                date="",
                data_hash="",
                version="",
                uncertainty=(),
            ),
            "0 rows",
        ),
    ],
)
def test_what_no_run_can_have_is_refused(make, words):
    """As from a file that somebody changed."""
    with pytest.raises(PolicyError, match=words):
        make()


def test_a_notebook_shows_it():
    """Both models and the day, beside the policy's signals."""
    edge, cloud = Short([Reply(text="yes")], name="small"), ScriptedModel(["yes"], name="large")
    policy = fit(recorded(edge, cloud), CloudShare(share=0.3), signal="mine").policy
    shown = policy._repr_html_()
    assert "fitted on 40 calls of small (answers of up to 64 tokens" in shown
    assert policy.provenance.date in shown


def graded(names):
    """Rows of these ids, whose edge is right where it is certain."""
    return [
        Row(
            id=name,
            prompt=f"{name}?",
            edge=Side(text="7", logprobs=(-at / len(names),), quality=float(at < 0.7 * len(names))),
            cloud=Side(text="7", quality=1.0),
        )
        for at, name in enumerate(names)
    ]


MINE = graded([f"mine {at}" for at in range(1500)])
OTHERS = graded([f"other {at}" for at in range(1500)])


@pytest.fixture(scope="module")
def policy():
    """Fitted on all of these."""
    return fit(MINE, MaxLoss(alpha=0.2)).policy


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (MINE, "these are the rows that the policy was fitted on"),
        (MINE[:500], "about 100% of these rows are among those"),
        (MINE[::-1], "about 100% of these rows are among those"),
        ([replace(row, signals={"new": 0.5}) for row in MINE], "about 100% of these rows are among those"),
        ([replace(row, edge=replace(row.edge, quality=0.5)) for row in MINE], "about 100% of these rows"),
        (MINE[:600] + OTHERS[:600], "about (4[0-9]|5[0-9]|60)% of these rows are among those"),
    ],
    ids=["all", "some", "turned", "measured anew", "graded anew", "mixed"],
)
def test_rows_that_a_policy_was_fitted_on_are_no_evidence(rows, words, policy, tmp_path):
    """Nor are some of them, in whatever file they stand; also after the policy was written and read."""
    save_policy(policy, tmp_path / "p.json")
    for one in (policy, load_policy(tmp_path / "p.json")):
        found = apply(one, rows)
        assert re.match(words, found.notes[0])
        assert {verdict.outcome for verdict in found.verdicts} == {"unknown"}


@pytest.mark.parametrize(
    "rows",
    [
        OTHERS,
        [replace(row, id=f"again {row.id}") for row in MINE],
        [replace(row, edge=replace(row.edge, text="8")) for row in MINE],
    ],
    ids=["others", "asked again", "answered again"],
)
def test_other_rows_are_evidence(rows, policy):
    """Even those of the same questions."""
    found = apply(policy, rows)
    assert {verdict.outcome for verdict in found.verdicts} == {"held"}
    assert not any("cannot judge" in note for note in found.notes)


def test_a_policy_of_an_earlier_version_knows_its_whole_run_alone(policy):
    """Its file has no sketch."""
    policy = replace(policy, provenance=replace(policy.provenance, rows=None))
    assert "cannot judge" in apply(policy, MINE).notes[0]
    assert not apply(policy, MINE[:900]).notes


@given(st.sets(st.integers(0, 2**48 - 1), max_size=600), st.sets(st.integers(0, 2**48 - 1), max_size=600))
def test_a_sketch_of_few_rows_is_exact_and_never_claims_a_stranger(mine, others):
    """A run without a common row has a share of 0; where all rows are kept, the share is the true one."""
    sketch = RowSketch.of(mine)
    assert sketch.share_of(others - mine) == 0
    assert sketch.share_of(mine) == float(bool(mine))
    if len(mine) < 256 and others:
        assert sketch.share_of(others) == len(others & mine) / len(others)
