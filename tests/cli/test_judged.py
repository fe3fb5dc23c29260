"""From a judge's grades and a sheet that a person fills in to a promise, by the commands alone."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

from confroute.cli import main
from confroute.errors import CalibrationError
from confroute.fitting import MaxLoss, fit
from confroute.judge.sheet import drawn, read_sheet, with_people
from confroute.recording import RecordError, Row, Side, read_rows, write_rows
from confroute.recording.grade import quality_by_people


def run_of(path, n=600, *, judged=True):
    """Answers that are wrong more often the less certain they are; a judge's grades are right but for a few."""
    generator = np.random.default_rng(0)
    rows = []
    for at in range(n):
        doubt = at / n
        right = float(generator.random() > doubt / 2)
        said = right if generator.random() < 0.97 else 1 - right
        edge = Side(text="yes" if right else "=no", logprobs=(-doubt,), judged=said if judged else None)
        cloud = Side(text="yes", judged=1.0 if judged else None)
        rows.append(Row(id=f"-{at}", prompt="Is it?", edge=edge, cloud=cloud))
    write_rows(path, rows)
    return path


def fill(sheet):
    """Grade as a person would: "yes" is right."""
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    for line in lines:
        line["edge_quality"] = "1" if line["edge_answer"] == "yes" else "0,0"
        line["cloud_quality"] = "1"
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    return lines


def fit_command(data, out, *more):
    return ["fit", str(data), "--out", str(out), "--max-loss", "0.1", "--signal", "token_logprob.mean", *more]


def test_a_promise_from_a_judge_and_a_sheet(tmp_path, capsys):
    """`judge sheet`, a person, `judge enter`, `fit --judged`: the certificate names method and both numbers of rows."""
    run, sheet, graded = run_of(tmp_path / "run.jsonl"), tmp_path / "sheet.csv", tmp_path / "graded.jsonl"
    assert main(["judge", "sheet", str(run), "--rows", "200", "--out", str(sheet)]) == 0
    assert "fill in edge_quality" in capsys.readouterr().out
    lines = fill(sheet)
    assert len(lines) == 200
    assert all(line["id"].startswith("'-") and line["edge_answer"] in ("yes", "'=no") for line in lines)
    assert main(["judge", "enter", str(run), str(sheet), "--out", str(graded)]) == 0
    assert sum(row.edge.quality is not None for row in read_rows(graded)) == 200
    assert main(fit_command(graded, tmp_path / "p.json", "--judged", "--json")) == 0
    told = capsys.readouterr()
    promise = json.loads(told.out.split("\n", 1)[1])["certificate"]
    assert (promise["method"], promise["n"], promise["labelled"]) == ("ltt-prediction-powered", 600, 200)
    assert "on the 200 rows that people or a reference graded too" in told.err
    assert (tmp_path / "p.json").read_text().count('"labelled": 200') >= 1


@pytest.mark.parametrize(
    ("labelled", "judged", "words"),
    [
        (0, True, "0 of 600 judged rows have a grade by a person .* `confroute judge sheet` draws them"),
        (20, True, "20 of 600 .* at least"),
        (200, False, "none of 600 rows has a judge's grade .*--into judged"),
    ],
)
def test_a_judge_of_unknown_error_promises_nothing(tmp_path, capsys, labelled, judged, words):
    """Without grades by people, with too few of them, and without the judge's; the numbers are told."""
    rows = list(read_rows(run_of(tmp_path / "run.jsonl", judged=judged)))
    right = {row.id: {"edge": float(row.edge.text == "yes"), "cloud": 1.0} for row in drawn(rows, labelled)}
    with pytest.raises(CalibrationError, match=words):
        fit(with_people(rows, right), MaxLoss(alpha=0.1, judged=True), signal="token_logprob.mean")


def test_a_quality_that_a_judge_wrote_is_no_persons(tmp_path):
    """Else a judge would be measured against itself, and its errors promised away; a person's grade takes its place."""
    rows = [
        Row(id=row.id, prompt=row.prompt, edge=Side(
            text=row.edge.text, logprobs=row.edge.logprobs, quality=row.edge.judged, judged=row.edge.judged,
            extra={"judge": {"quality": row.edge.judged}},
        ))
        for row in read_rows(run_of(tmp_path / "run.jsonl"))
    ]  # fmt: skip
    assert {quality_by_people(row.edge) for row in rows} == {None}
    with pytest.raises(CalibrationError, match="0 of 600 judged rows"):
        fit(rows, MaxLoss(alpha=0.1, judged=True), signal="token_logprob.mean")
    (entered, *_) = with_people(rows, {"-0": {"edge": 0.5}})
    assert quality_by_people(entered.edge) == 0.5


def test_peoples_grades_choose_no_signal(tmp_path):
    """They are few: all of them are left for the threshold."""
    rows = list(read_rows(run_of(tmp_path / "run.jsonl")))
    right = {row.id: {"edge": float(row.edge.text == "yes"), "cloud": 1.0} for row in rows[::3]}
    found = fit(with_people(rows, right), MaxLoss(alpha=0.15, judged=True), signal="combined")
    assert found.selected_on > 0
    assert found.certificate.labelled == 200


@pytest.mark.parametrize("signal", ["auto", "combined"])
def test_rows_that_people_graded_throughout_leave_none_to_choose_by(tmp_path, signal):
    """As where a reference graded all of them: said with the numbers, and what to do."""
    rows = [
        replace(row, signals={"one": at % 7, "other": at % 5})
        for at, row in enumerate(read_rows(run_of(tmp_path / "run.jsonl")))
    ]
    right = {row.id: {"edge": float(row.edge.text == "yes"), "cloud": 1.0} for row in rows}
    with pytest.raises(
        CalibrationError,
        match=r"of 600 judged rows, 600 have a grade by people or a reference.* name a signal",
    ):
        fit(with_people(rows, right), MaxLoss(alpha=0.15, judged=True), signal=signal, replay_only=True)


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        (["id", "edge_quality"], "no column cloud_quality"),
        (["id", "edge_quality", "cloud_quality", "\n-0", "2", "1"], "line 2, edge_quality is '2'"),
        (["id", "edge_quality", "cloud_quality", "\n-0", "good", "1"], "'good': expected a number from 0"),
        (
            ["id", "edge_quality", "cloud_quality", "\n9", "1", "1"],
            "'9' .*expected the run that it was drawn",
        ),
        (
            ["id", "edge_quality", "cloud_quality", "\n9", "1", "1\n9", "1", "1"],
            "line 3: the id '9' stands above",
        ),
    ],
)
def test_a_sheet_that_is_none_is_refused(tmp_path, capsys, cells, words):
    """Before anything is written."""
    run, sheet = run_of(tmp_path / "run.jsonl", 20), tmp_path / "s.csv"
    sheet.write_text(",".join(cells).replace(",\n", "\n"))
    with pytest.raises(RecordError, match=words):
        list(with_people(read_rows(run), read_sheet(sheet)))
    assert main(["judge", "enter", str(run), str(sheet), "--out", str(tmp_path / "out")]) == 1
    assert not (tmp_path / "out").exists()


def test_rows_left_empty_are_told(tmp_path, capsys):
    """Leaving out what is hard to grade makes the graded rows a selection; and no sheet is overwritten."""
    run, sheet = run_of(tmp_path / "run.jsonl", 20), tmp_path / "s.csv"
    command = ["judge", "sheet", str(run), "--rows", "5", "--out", str(sheet)]
    assert main(command) == 0
    assert main(command) == 1
    assert "exists and may contain grades" in capsys.readouterr().err
    assert main(["judge", "enter", str(run), str(sheet), "--out", str(tmp_path / "out")]) == 1
    assert "5 of 5 rows that were drawn are not graded" in capsys.readouterr().err
    assert main([*command[:4], "21", "--out", str(tmp_path / "t.csv")]) == 1
    assert "21 rows were asked for: 20 hold" in capsys.readouterr().err


def test_a_judge_grades_beside_the_qualities(tmp_path, capsys, openai_server):
    """`--into judged` grades every answer and changes no quality; a second run asks nothing; `--max-loss` is needed to use it."""
    openai_server.answer = "Good.\nSCORE: 10"
    path, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write_rows(path, [Row(id="1", prompt="?", edge=Side(text="x", quality=0.25), cloud=Side(text="y"))])
    command = ["judge", "grade", str(path), "--out", str(out), "--judge", "openai:j", "--into", "judged"]
    command += ["--judge-base-url", openai_server.url]
    assert main(command) == 0
    (row,) = read_rows(out)
    assert (row.edge.quality, row.edge.judged, row.cloud.quality, row.cloud.judged) == (0.25, 1.0, None, 1.0)
    assert row.edge.extra["judged_by"]["score"] == 10.0
    assert quality_by_people(row.edge) == 0.25
    sent = len(openai_server.bodies)
    assert main([*command[:2], str(out), *command[3:]]) == 0
    assert len(openai_server.bodies) == sent
    assert main(["fit", str(out), "--out", str(tmp_path / "p"), "--cloud-share", "0.5", "--judged"]) == 1
    assert "--judged works only with --max-loss" in capsys.readouterr().err


@pytest.mark.parametrize(("left", "told"), [("cloud_quality", "1 of 5 rows"), (None, None)])
def test_a_row_that_is_half_filled_in_is_told(tmp_path, capsys, left, told):
    """A promise would leave it out, as one that is empty; not where no answer of that model was graded."""
    run, sheet, out = run_of(tmp_path / "run.jsonl", 20), tmp_path / "s.csv", tmp_path / "out"
    assert main(["judge", "sheet", str(run), "--rows", "5", "--out", str(sheet)]) == 0
    lines = fill(sheet)
    for line in lines if left is None else lines[:1]:
        line["cloud_quality"] = ""
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, lines[0])
        writer.writeheader()
        writer.writerows(lines)
    capsys.readouterr()
    assert main(["judge", "enter", str(run), str(sheet), "--out", str(out)]) == (0 if told is None else 1)
    err = capsys.readouterr().err
    assert (told in err) if told else not err


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_sheet_is_read_as_spreadsheets_write_it(tmp_path, delimiter):
    """Where a comma stands in numbers, they separate cells by semicolons."""
    sheet = tmp_path / "s.csv"
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerow(["id", "question", "edge_quality", "cloud_quality"])
        writer.writerow(["1", "a, b; c", "0,5", "1"])
    assert read_sheet(sheet) == {"1": {"edge": 0.5, "cloud": 1.0}}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("id,edge_quality,cloud_quality\n1,\u00e9,1\n".encode("latin-1"), "UTF-8"),
        (b"id,edge_quality,cloud_quality\n1," + b"x" * 140_000, "field larger"),
    ],
)
def test_a_sheet_that_cannot_be_read_says_so(tmp_path, content, words):
    """With what to do, in place of a reader's own error."""
    sheet = tmp_path / "s.csv"
    sheet.write_bytes(content)
    with pytest.raises(RecordError, match=f"s.csv cannot be read.*{words}"):
        read_sheet(sheet)


@pytest.mark.parametrize("command", ["grade", "compare", "enter"])
def test_an_output_of_another_kind_is_not_replaced(tmp_path, capsys, openai_server, command):
    """Nor is anything paid for: the command would write over labels, prompts or a policy."""
    run, sheet, out = run_of(tmp_path / "run.jsonl", 20), tmp_path / "s.csv", tmp_path / "policy.json"
    sheet.write_text("id,edge_quality,cloud_quality\n'-0,1,1\n")
    out.write_text('{"policy": 1}\n')
    data = {"grade": [run], "compare": [run, run], "enter": [run, sheet]}[command]
    judge = [] if command == "enter" else ["--judge", "openai:j", "--judge-base-url", openai_server.url]
    assert main(["judge", command, *map(str, data), "--out", str(out), *judge]) == 1
    assert "policy.json exists" in capsys.readouterr().err
    assert out.read_text() == '{"policy": 1}\n'
    assert not openai_server.bodies


@pytest.mark.parametrize("command", ["grade", "compare", "label", "record"])
def test_labels_that_are_all_the_same_are_told(tmp_path, capsys, openai_server, command):
    """With what to do, by every command that makes labels or grades; a few may well be the same."""
    openai_server.answer = "Good.\nSCORE: 10\nVERDICT: TIE"
    server = ["openai:j", "--judge-base-url", openai_server.url]
    edge = ["--edge", "openai:e", "--edge-base-url", openai_server.url]
    more = {
        "grade": ["judge", "grade", "--judge", *server],
        "compare": ["judge", "compare", "--judge", *server],
        "label": [
            "label",
            "--source",
            "correctness",
            "--cloud",
            "openai:c",
            "--cloud-base-url",
            openai_server.url,
            *edge,
        ],
        "record": ["record", *edge],
    }[command]
    for n, told in ((3, False), (12, True)):
        path = tmp_path / f"{n}.jsonl"
        lines = [{"id": str(at), "prompt": f"q{at}", "reference": "Bern"} for at in range(n)]
        if command in ("grade", "compare"):
            lines = [{**line, "edge": {"text": "Zug"}} for line in lines]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        data = [str(path)] * (2 if command == "compare" else 1)
        assert main([*more, *data, "--out", str(tmp_path / f"{n}.out.jsonl")]) == 0
        assert (f"warning: all {n} " in (err := capsys.readouterr().err)) is told, err
        assert ("take other prompts, models or settings" in err) is told
