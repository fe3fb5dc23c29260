"""One way of reading answers: the same in record, fit, apply and live; what was recorded otherwise is refused."""

import json
from dataclasses import replace

import pytest

from confroute import Cascade, SelfConsistency
from confroute.cli import main
from confroute.errors import CalibrationError
from confroute.fitting import CloudShare, fit, replay, table_of
from confroute.policy import Gate, Threshold
from confroute.recording import RecordedSample, RecordError, Row, Side, read_rows, row_from_dict, write_rows
from confroute.recording.extraction import check_extraction, kind_of_row, read_anew, with_kind
from confroute.recording.runner import Recorder
from confroute.signals import TokenLogprob
from confroute.signals.answers import final_answer
from confroute.testing import ScriptedModel


def rows_made(n=60, *, kind=None, answer=lambda text: None):
    """Answers with more than the number in them, as dates have."""
    for i in range(n):
        drawn = tuple(f"05/{i % 12 + 1:02d}/{year}" for year in (2021, 2021, 2020))
        yield Row(
            id=str(i),
            prompt="Tell me, then.",
            edge=Side(
                text=drawn[0],
                answer=answer(drawn[0]),
                quality=float(i % 3 > 0),
                samples=tuple(RecordedSample(text=text, answer=answer(text)) for text in drawn),
            ),
            cloud=Side(text="x", quality=1.0),
            extra={} if kind is None else {"answer_kind": kind},
        )


def policy(kind="auto"):
    """Self-consistency that compares answers of a kind."""
    signal = SelfConsistency(n=3, kind=kind)
    return Cascade(gates=(Gate(signal=signal, threshold=Threshold(value=0.5)),))


@pytest.mark.parametrize("kind", ["auto", "number", "date", "text"])
def test_a_recorder_reads_answers_as_a_live_signal_does(kind):
    """Whatever the reference is: a new call has none."""
    given = Row(id="a", prompt="What happened on 05/01/2021?", reference=7, edge=Side())
    edge = ScriptedModel(["It took 7 hours."], samples=["7", "8"], name="edge")
    made = Recorder(edge=edge, samples=2, kind=kind, signals={}).row(given)
    for one in (made.edge, *made.edge.samples):
        assert one.answer == final_answer(one.text, given.prompt, kind=kind)
    assert kind_of_row(made) == kind
    assert made.edge.quality == 1.0, "a grade may read the reference, an answer may not"


@pytest.mark.parametrize("kind", ["number", "date"])
def test_the_kind_stands_in_the_fitted_policy(kind, tmp_path):
    """As the rows say, through the file; and rows of another kind are refused."""
    rows = list(rows_made(kind=kind))
    found = fit(rows, CloudShare(share=0.5), signal="self_consistency")
    found.save(tmp_path / "policy.json")
    loaded = Cascade.load(tmp_path / "policy.json")
    assert loaded.gates[0].signal.kind == kind
    assert len(replay(loaded, table_of(rows).rows)) == len(rows)
    with pytest.raises(CalibrationError, match=r"'0', '1'.*--kind"):
        replay(loaded, list(rows_made(kind="text")))


def test_an_old_policy_file_without_a_kind_loads(tmp_path):
    """It compares by the question, as it did."""
    path = tmp_path / "policy.json"
    policy("number").save(path)
    data = json.loads(path.read_text())
    del data["policy"]["gates"][0]["signal"]["kind"]
    path.write_text(json.dumps(data))
    assert Cascade.load(path).gates[0].signal.kind == "auto"


def test_answers_that_were_read_with_the_reference_in_hand_are_refused():
    """Rows that say no kind are read again: what differs is refused, what does not is taken."""
    with_reference = list(rows_made(answer=lambda text: float(text[-1])))
    for refuse in (
        lambda rows: replay(policy(), rows),
        lambda rows: fit(rows, CloudShare(share=0.5), signal="self_consistency"),
    ):
        with pytest.raises(CalibrationError, match="60 of"):
            refuse(with_reference)
    alike = list(rows_made(answer=lambda text: final_answer(text, "Tell me, then.")))
    assert len(replay(policy(), alike)) == 60
    check_extraction([TokenLogprob()], with_reference)


def test_recorded_texts_can_be_read_anew():
    """By a named kind: answers and the signals that compared them, nothing else."""
    (row,) = rows_made(1, answer=lambda text: 7.0)
    row = replace(row, signals={"self_consistency": 0.0, "token_logprob.mean": 0.5})
    anew = read_anew(row, "date")
    assert (anew.edge.answer, anew.edge.samples[2].answer) == ("5/1/2021", "5/1/2020")
    assert anew.signals == {"token_logprob.mean": 0.5}
    check_extraction([SelfConsistency(kind="date")], [anew])


def test_several_kinds_and_unknown_ones_are_refused():
    """A policy has one kind, of those that are known."""
    one, other = list(rows_made(2))
    rows = [replace(one, extra={"answer_kind": "date"}), replace(other, extra={"answer_kind": "number"})]
    with pytest.raises(CalibrationError, match="1 of 2 rows"):
        check_extraction([SelfConsistency(kind="date")], rows)
    with pytest.raises(RecordError, match="'sum'"):
        kind_of_row(replace(one, extra={"answer_kind": "sum"}))
    assert with_kind(TokenLogprob(), "date") == TokenLogprob()


def test_duplicate_ids_are_refused_with_the_ids(tmp_path, capsys):
    """Copies of a row would make a promise of it stronger than it is."""
    rows = list(rows_made(30))
    with pytest.raises(CalibrationError, match=r"30 ids.*'0', '1'"):
        table_of(rows * 4)
    path = tmp_path / "run.jsonl"
    write_rows(path, rows * 4)
    with pytest.raises(RecordError, match="line 31: the id '0' is in line 1"):
        list(read_rows(path))
    for command in (
        ["fit", str(path), "--cloud-share", "0.5", "--out", str(tmp_path / "p.json")],
        ["signals", str(path)],
    ):
        assert main(command) == 1
        assert "line 31: the id '0' is in line 1" in capsys.readouterr().err


def test_ids_of_data_sets_and_contents_in_parts_are_taken():
    """Integers as ids; a content of text parts is its text."""
    parts = [{"type": "text", "text": "What is"}, {"type": "text", "text": "3 + 4?"}]
    row = row_from_dict({"id": 7, "edge": {"text": "7"}, "messages": [{"role": "user", "content": parts}]})
    assert (row.id, row.question) == ("7", "What is\n3 + 4?")
    with pytest.raises(RecordError, match="id is True"):
        row_from_dict({"id": True, "edge": {}})


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ('{"id": "a", "edge": {}, "reference": 1e999}', "line 1: reference: 1e999 is larger"),
        ('{"id": "a", "edge": {"quality": NaN}}', "line 1: edge.quality: NaN"),
    ],
)
def test_a_number_that_cannot_be_written_is_named_at_reading(tmp_path, line, fault):
    """Before anything was paid for."""
    path = tmp_path / "run.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(RecordError, match=fault):
        list(read_rows(path))
