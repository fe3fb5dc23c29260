"""Rows and recordings of more than two models: a row of two is the special case, and its line does not change."""

import json
from dataclasses import replace

import pytest

from confroute.cli import main
from confroute.errors import PolicyError
from confroute.prices import Price
from confroute.recording import (
    Middle,
    RecordedSample,
    RecordError,
    Row,
    Side,
    read_rows,
    row_from_dict,
    write_rows,
)
from confroute.recording.extraction import read_anew
from confroute.recording.runner import Recorder, record_into
from confroute.signals import SelfConsistency, TokenLogprob
from confroute.testing import Reply, ScriptedModel, faults

LINE = {
    "id": "a",
    "edge": {"text": "7", "quality": 1.0},
    "tiers": {
        "mid": {
            **{"text": "8", "quality": 0.0, "samples": [{"text": "9"}], "cost_usd": 0.1, "mine": [1]},
            **{"signals": {"x": 0.5, "y": None}, "measured_by": {"x": {"class": "TokenLogprob"}}},
        },
        "more": {"error": "down"},
    },
    "cloud": {"text": "7"},
    "signals": {"x": 0.1},
}
BUILDS = {"logprob": lambda n: TokenLogprob(), "samples": lambda n: SelfConsistency(n=n)}


def test_a_row_keeps_every_model_with_its_own_evidence(tmp_path):
    """In order, read and written alike, unknown keys too; views of two models are rows of two."""
    row = row_from_dict(LINE)
    assert row.models == ("edge", "mid", "more", "cloud")
    mid = row.tiers["mid"]
    assert (mid.side.quality, mid.signals, mid.side.samples[0].text) == (0.0, {"x": 0.5, "y": None}, "9")
    assert mid.side.extra == {"mine": [1]}
    plain = row.to_dict()
    assert list(plain)[5:8] == ["edge", "tiers", "cloud"]
    assert plain["tiers"]["mid"]["measured_by"] == {"x": {"class": "TokenLogprob"}}
    write_rows(tmp_path / "run.jsonl", [row])
    assert list(read_rows(tmp_path / "run.jsonl")) == [row]
    pair = row.between("mid", "more")
    assert (pair.edge, pair.cloud.error, pair.signals, pair.models) == (
        mid.side,
        "down",
        mid.signals,
        ("edge", "cloud"),
    )
    assert row.between("edge", "mid").cloud == mid.side
    assert row.between("edge", "cloud").signals == {"x": 0.1}


def test_a_row_of_two_models_has_no_word_of_others():
    """Its line is what it was."""
    plain = Row(id="a", edge=Side(text="7"), cloud=Side(text="8")).to_dict()
    assert "tiers" not in plain
    assert row_from_dict(plain).tiers == {}


@pytest.mark.parametrize(
    ("tiers", "words"),
    [
        ({"cloud": {}}, "tiers is 'cloud': expected names of tiers between edge and cloud"),
        ({"": {}}, "expected names of tiers between"),
        ([1], "tiers is"),
        ({"mid": 7}, "tiers.mid is 7"),
        ({"mid": {"quality": 2}}, "tiers.mid.quality is 2"),
        ({"mid": {"signals": {"x": "high"}}}, "tiers.mid.signals.x is 'high'"),
        ({"mid": {"samples": [{"text": 1}]}}, r"tiers.mid.samples\[0\].text is 1"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(tiers, words):
    """As in every other field of a row."""
    with pytest.raises(RecordError, match=words):
        row_from_dict({**LINE, "tiers": tiers})


def models(mid=None):
    """Three scripted models, of which the middle one draws other samples than the edge."""
    return {
        "edge": ScriptedModel(
            [Reply(text="5", logprob=-0.5)], samples=[Reply(text="5"), Reply(text="6")], name="e"
        ),
        "tiers": {
            "mid": mid or ScriptedModel([Reply(text="7", logprob=-0.1)], samples=[Reply(text="7")], name="m")
        },
        "cloud": ScriptedModel(["7"], name="c"),
    }


def recorded(given=None, *, mid=None, **wanted):
    """One row of three models."""
    prompt = given or Row(id="a", prompt="What is 3 + 4?", reference=7, edge=Side())
    return Recorder(**models(mid), **{"samples": 2, "signals": BUILDS, **wanted}).row(prompt)


def test_every_model_but_the_last_drafts_and_is_measured():
    """Each by its own log-probabilities and samples, graded and priced."""
    row = recorded(edge_price=Price(), tier_prices={"mid": Price(output_usd=1e6)})
    mid = row.tiers["mid"]
    assert (row.edge.quality, mid.side.quality, row.cloud.quality) == (0.0, 1.0, 1.0)
    assert [one.text for one in mid.side.samples] == ["7", "7"]
    assert (row.signals["logprob"], mid.signals["logprob"]) == (0.5, 0.1)
    assert (row.signals["samples"], mid.signals["samples"]) == (0.5, 0.0)
    assert mid.measured_by["samples"]["class"] == "SelfConsistency"
    assert (row.edge.cost_usd, row.cloud.cost_usd) == (0.0, None)
    assert mid.side.cost_usd == mid.side.usage["output_tokens"]
    assert mid.side.extra["asked"] == {"model": "m", "max_tokens": None}
    two = Recorder(edge=models()["edge"], cloud=models()["cloud"], samples=2, signals=BUILDS)
    apart = two.row(Row(id="a", prompt="What is 3 + 4?", reference=7, edge=Side()))
    assert apart.signals == row.signals
    assert apart.tiers == {}


def test_a_middle_model_that_fails_leaves_its_error_and_is_done_again(tmp_path):
    """Its row is one with an error, which only a row without it replaces."""
    prompt = [Row(id="a", prompt="What is 3 + 4?", reference=7, edge=Side())]
    out = tmp_path / "run.jsonl"
    down = ScriptedModel([Reply(fault=faults.cut_off())], name="m")
    failed = record_into(out, prompt, lambda: Recorder(**models(down), signals={}))
    assert (failed.recorded, failed.failed) == (1, 1)
    (row,) = read_rows(out)
    assert row.tiers["mid"].side.error
    assert row.edge.error is row.cloud.error is None
    again = record_into(out, prompt, lambda: Recorder(**models(), signals={}), retry_errors=True)
    assert (again.recorded, again.failed) == (1, 0)
    assert [one.tiers["mid"].side.error for one in read_rows(out)] == [None]


def test_a_run_recorded_again_measures_the_new_drafts():
    """What another model's draft was measured at does not stay; a number of one's own about the prompt does."""
    before = recorded()
    given = replace(before, signals={**before.signals, "own": 3.0})
    row = recorded(given, mid=ScriptedModel([Reply(text="8", logprob=-0.9)], name="n"), samples=0)
    assert (row.signals["own"], row.tiers["mid"].signals["own"]) == (3.0, 3.0)
    assert row.tiers["mid"].signals["logprob"] == 0.9
    assert row.signals["samples"] is None
    two = Recorder(edge=models()["edge"], signals={}).row(given)
    assert two.tiers == before.tiers, "as a cloud is kept that is not asked again"


def test_names_and_prices_of_tiers():
    """None that is another's, and no price without a tier."""
    given = models()
    for name in ("edge", "cloud", "", "friend"):
        with pytest.raises(PolicyError, match=f"is named '{name}'"):
            Recorder(edge=given["edge"], tiers={name: given["cloud"]}, members={"friend": given["cloud"]})
    with pytest.raises(PolicyError, match="a price of 'middle': the tiers between edge and cloud are mid"):
        Recorder(**given, tier_prices={"middle": Price()})


def test_the_command_takes_any_number_of_models(tmp_path, monkeypatch, capsys):
    """By --tier, with a price of each; a slip ends it before the first row."""
    (tmp_path / "three.py").write_text(
        "from confroute.testing import Reply, ScriptedModel\n"
        "edge = ScriptedModel([Reply(text='5', logprob=-0.5)], name='e')\n"
        "mid = ScriptedModel([Reply(text='7', logprob=-0.1)], name='m')\n"
        "more = ScriptedModel([Reply(text='8', logprob=-0.2)], name='n')\n"
        "cloud = ScriptedModel(['7'], name='c')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(json.dumps({"id": "1", "prompt": "What is 3 + 4?", "reference": 7}) + "\n")
    out = tmp_path / "run.jsonl"
    command = ["record", str(prompts), "--out", str(out), "--edge", "three:edge", "--cloud", "three:cloud"]
    tiers = ["--tier", "mid=three:mid", "--tier", "more=three:more"]
    assert main([*command, *tiers, "--price", "mid=0,1000000", "--cloud-price", "1,1"]) == 0
    (row,) = read_rows(out)
    assert row.models == ("edge", "mid", "more", "cloud")
    assert row.tiers["mid"].side.cost_usd == row.tiers["mid"].side.usage["output_tokens"]
    assert row.tiers["more"].side.cost_usd is None
    assert row.tiers["more"].signals["token_logprob.mean"] == pytest.approx(0.2)
    out.unlink()
    capsys.readouterr()
    for more, words in (
        (["--tier", "cloud=three:mid"], "--tier cloud=three:mid: expected NAME=VALUE"),
        (["--tier-base-url", "mid=http://x"], "expected a name that --tier gives"),
        ([*tiers, "--price", "middle=1,1"], "a price of 'middle'"),
        ([*tiers, "--pipeline", "three:edge"], "--edge, --tier, --cloud beside --pipeline"),
    ):
        assert main([*command, *more]) == 1
        assert words in capsys.readouterr().err
    assert not out.exists()


def test_answers_of_every_model_are_read_anew():
    """With the signals that compared them left out."""
    mid = Middle(
        side=Side(
            text="It is 7.", answer="It is 7.", samples=(RecordedSample(text="So 8.", answer="So 8."),)
        ),
        signals={"self_consistency": 1.0, "token_logprob.mean": 0.1},
    )
    row = read_anew(Row(id="a", prompt="?", edge=Side(text="7"), tiers={"mid": mid}), "number")
    found = row.tiers["mid"]
    assert (found.side.answer, found.side.samples[0].answer) == ("7", "8")
    assert found.signals == {"token_logprob.mean": 0.1}
