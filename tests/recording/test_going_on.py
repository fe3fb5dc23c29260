"""A file that an earlier process wrote is gone on with alone, after a look at it, and without losing a row."""

import gzip
import json
import os
from pathlib import Path

import pytest

from confroute.cli import main
from confroute.errors import PolicyError
from confroute.labels import Labeller, label_rows
from confroute.labels.run import LabelRunError
from confroute.recording import RecordError, Row, Side, append_row, read_rows, write_rows
from confroute.recording.going_on import RunFile, alone
from confroute.testing import Reply, ScriptedModel

MODELS = """
from confroute.errors import ModelError
from confroute.testing import faults
from confroute.testing import Reply, ScriptedModel


def answers(prompt):
    return "5"


def fails(prompt):
    raise ConnectionError("the server is down")


def missing(prompt):
    raise ModelError("there is no such model")


def dies(prompt):
    dies.calls += 1
    if dies.calls > 3:
        raise KeyboardInterrupt
    return "5"


dies.calls = 0
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A module of models."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "going_on_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(__import__("sys").modules, "going_on_models", raising=False)


@pytest.fixture
def record(tmp_path, models):
    """Records so many prompts by one of the models."""

    def run(model, *more, count=40, out=tmp_path / "run.jsonl"):
        prompts = tmp_path / "prompts.jsonl"
        rows = [{"id": f"{n}", "prompt": "What is 2 + 3?", "reference": 5} for n in range(count)]
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
        edge = model if ":" in model else f"going_on_models:{model}"
        return main(["record", str(prompts), "--out", str(out), "--edge", edge, *more])

    return run


@pytest.fixture
def failed(record, tmp_path):
    """A run of 40 rows, all of which failed."""
    assert record("fails") == 1
    return tmp_path / "run.jsonl"


def ids(path):
    """The ids of a run."""
    return [row.id for row in read_rows(path)]


ALL = [f"{n}" for n in range(40)]


@pytest.mark.parametrize("model", ["no_such_module:edge", "going_on_models:missing"])
def test_an_edge_that_cannot_be_had_costs_no_row(record, failed, model):
    """Rows are there until there is something in their place."""
    before = failed.read_bytes()
    assert record(model, "--retry-errors") == 1
    assert failed.read_bytes() == before


@pytest.mark.parametrize(("more", "count"), [(("--limit", "5"), 40), ((), 3)])
def test_rows_outside_the_work_list_are_not_touched(record, failed, more, count):
    """Neither by a limit nor by a shorter file of prompts; rows that are done again keep their place."""
    before = failed.read_bytes().splitlines()
    assert record("answers", "--retry-errors", *more, count=count) == 0
    assert ids(failed) == ALL
    done = [row.id for row in read_rows(failed) if row.edge.error is None]
    assert done == ALL[: 5 if more else 3]
    assert failed.read_bytes().splitlines()[len(done) :] == before[len(done) :]


def test_a_retry_that_is_stopped_has_lost_nothing(record, failed, tmp_path):
    """What was done is there, and the rest is as it was; nothing is left beside the run."""
    assert record("dies", "--retry-errors") == 130
    assert ids(failed) == ALL
    assert [row.id for row in read_rows(failed) if row.edge.error is None] == ALL[:3]
    assert [one.name for one in tmp_path.iterdir() if one.name.startswith(".")] == []
    assert record("answers", "--retry-errors") == 0
    assert all(row.edge.error is None for row in read_rows(failed))


def test_a_retry_that_fails_where_the_first_did_not_is_not_kept(tmp_path):
    """An answer that was paid for is not given for an error."""
    path = tmp_path / "run.jsonl"
    paid = Row(id="a", edge=Side(text="5"), cloud=Side(error="down"))
    write_rows(path, [paid, Row(id="b", edge=Side(error="down"))])
    file = RunFile(path)
    assert (file.done(retry_errors=False), file.done(retry_errors=True)) == ({"a", "b"}, set())
    file.put(Row(id="a", edge=Side(error="down"), cloud=Side(text="5")))
    assert next(iter(read_rows(path))) == paid
    file.put(Row(id="a", edge=Side(text="6"), cloud=Side(error="still down")))
    file.put(Row(id="c", edge=Side(text="7")))
    file.put(Row(id="a", edge=Side(text="7"), cloud=Side(text="5")))
    assert [(row.id, row.edge.text) for row in read_rows(path)] == [("a", "7"), ("b", None), ("c", "7")]


def test_a_replaced_row_leaves_the_file_its_mode_and_its_link(tmp_path):
    """Through a link the file that it names changes."""
    path, link = tmp_path / "run.jsonl", tmp_path / "link.jsonl"
    append_row(path, Row(id="a", edge=Side(error="down")))
    path.chmod(0o600)
    link.symlink_to(path)
    RunFile(link).put(Row(id="a", edge=Side(text="5")))
    assert link.is_symlink()
    assert path.stat().st_mode & 0o777 == 0o600
    assert [row.edge.text for row in read_rows(path)] == ["5"]
    write_rows(link, read_rows(path))
    assert link.is_symlink()


OTHERS = {
    "notes": b"Buy milk.",
    "lines of notes": b"Buy milk.\nAnd tea",
    "prompts": b'{"id": "a", "prompt": "?"}\n{"id": "b", "prompt": "?"}\n',
    "one prompt without its line break": b'{"id": "a", "prompt": "?"}',
    "a log": b'{"at": "2026-01-01T00:00:00+00:00", "v": 1, "route": "edge"}\n{"at": "2026-',
    "a number": b"3",
    "packed": gzip.compress(b'{"id": "a", "edge": {}}\n'),
    "bytes": b"\xff\xfe\x00\x01",
    "half a row of another kind": b'{"id": "a", "edge": {}}\n{"name": "x',
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_a_file_of_another_kind_is_left_as_it_is(record, tmp_path, content, capsys):
    """It is refused by name before its first byte is touched."""
    path = tmp_path / "other.txt"
    path.write_bytes(content)
    assert record("answers", out=path, count=2) == 1
    assert path.read_bytes() == content
    assert "other.txt" in capsys.readouterr().err


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
@pytest.mark.parametrize("which", ["out", "keep"])
def test_labels_are_written_into_no_other_file_either(tmp_path, content, which):
    """Neither the labels nor the rows that are kept."""
    path = tmp_path / "other.txt"
    path.write_bytes(content)
    labeller = Labeller(
        edge=ScriptedModel([Reply(text="5")]),
        cloud=ScriptedModel([Reply(text="5")]),
        source="entropy",
        samples=2,
    )
    names = {"out": tmp_path / "labels.jsonl", "keep": tmp_path / "kept.jsonl", which: path}
    row = Row(id="a", prompt="2 + 3?", edge=Side())
    with pytest.raises(RecordError, match=r"other\.txt"):
        label_rows([row], labeller, names["out"], keep=names["keep"])
    assert path.read_bytes() == content


@pytest.mark.parametrize("before", [0, 1, 3])
@pytest.mark.parametrize(
    ("last", "kept"),
    [
        (b'{"id": "' + b"x" * 200_000, b""),
        (b'{"i', b""),
        (b'{"id": "z", "edge": {"te', b""),
        (b'{"id": "z", "edge": {}}', b'{"id": "z", "edge": {}}\n'),
        (b"", b""),
    ],
    ids=["long", "short", "half", "whole", "nothing"],
)
def test_a_torn_last_line_is_cut_off_and_a_whole_one_kept(tmp_path, before, last, kept):
    """Whatever stands before it, and however long it is."""
    whole = b"".join(b'{"id": "%d", "edge": {}}\n' % n for n in range(before))
    path = tmp_path / "run.jsonl"
    path.write_bytes(whole + last)
    file = RunFile(path)
    assert path.read_bytes() == whole + kept
    file.put(Row(id="new", edge=Side(text="5")))
    assert ids(path)[-1] == "new"


def paths_to(folder: Path):
    """The file, a link to it, a link to its folder, and a detour."""
    path = folder / "real" / "run.jsonl"
    path.parent.mkdir()
    path.touch()
    (folder / "link.jsonl").symlink_to(path)
    (folder / "folder").symlink_to(path.parent)
    return [
        path,
        folder / "link.jsonl",
        folder / "folder" / "run.jsonl",
        folder / "real" / ".." / "real" / "run.jsonl",
    ]


@pytest.mark.parametrize("at", [1, 2, 3])
def test_one_file_is_one_whatever_it_is_called(tmp_path, at):
    """Two runs through a link would record every prompt twice."""
    first, other = (paths := paths_to(tmp_path))[0], paths[at]
    for one, two in ((first, other), (other, first)):
        with (
            alone(one, PolicyError),
            pytest.raises(PolicyError, match="another process"),
            alone(two, PolicyError),
        ):
            pass
    with alone(other, PolicyError):
        pass


def test_commands_lock_the_file_that_a_link_names(record, tmp_path, capsys):
    """`record` and `label`, with the rows that it keeps."""
    path, link, *_ = paths_to(tmp_path)
    labeller = Labeller(edge=ScriptedModel(["5"]), cloud=ScriptedModel(["5"]), source="entropy", samples=2)
    with alone(path, PolicyError):
        assert record("answers", out=link, count=2) == 1
        assert "another process" in capsys.readouterr().err
        for names in ({"out": link}, {"out": tmp_path / "labels.jsonl", "keep": link}):
            with pytest.raises(LabelRunError, match="another process"):
                label_rows([], labeller, **names)
    assert path.read_bytes() == b""
    assert os.path.realpath(link) == os.path.realpath(path)


def test_a_killed_run_can_be_looked_at(tmp_path, capsys):
    """Its torn last line is left out, and said to be."""
    path = tmp_path / "run.jsonl"
    write_rows(
        path, [Row(id=f"{n}", edge=Side(text="5", logprobs=(-0.1 * n,), quality=n % 2)) for n in range(20)]
    )
    path.write_bytes(path.read_bytes()[:-30])
    assert main(["signals", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "19 graded rows" in out
    assert f"{path}, line 20 is cut off in the middle: left out" in err
