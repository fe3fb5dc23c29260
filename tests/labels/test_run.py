"""The label pipeline: what it writes, how it resumes, what stops it."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from confroute.asks import Embed
from confroute.cli import main
from confroute.errors import PolicyError
from confroute.judge import Judge
from confroute.labels import (
    Labeller,
    LabelRunError,
    LocalEngine,
    UnlabelledError,
    label_from_dict,
    label_rows,
    quality_of,
    read_inputs,
    read_labels,
)
from confroute.models.text_model import FunctionModel
from confroute.policy import KeepPrivate
from confroute.recording import RecordedSample, RecordError, Row, Side, read_rows
from confroute.signals import SameText
from confroute.signals.equivalence import Match
from confroute.types import Generation

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import scripted_models


def prompts(n=12, **more):
    return [Row(id=f"p{i}", prompt=f"This is prompt {i}", edge=Side(), extra=more) for i in range(n)]


def models():
    return {
        "edge": FunctionModel(function=scripted_models.edge, name="edge-model", remote=False),
        "cloud": FunctionModel(function=scripted_models.cloud, name="cloud-model"),
    }


def labeller(**settings):
    return Labeller(**{**models(), "equivalence": SameText(), "samples": 4, **settings})


def file_of(path, n=12):
    path.write_text(
        "".join(json.dumps({"id": f"p{i}", "prompt": f"This is prompt {i}"}) + "\n" for i in range(n))
    )
    return path


COMMAND = (
    "--edge",
    "scripted_models:edge",
    "--cloud",
    "scripted_models:cloud",
    "--same",
    "text",
    "--samples",
    "4",
)


def test_rows_have_the_papers_fields_and_one_winner(tmp_path):
    """Exactly one of the three winners is 1, entropies and delta decide it, both responses are there."""
    summary = label_rows(prompts(), labeller(), tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [f"p{i}" for i in range(12)]
    keys = {
        "id",
        "model_a",
        "model_b",
        "prompt",
        "response_a",
        "response_b",
        "winner_model_a",
        "winner_model_b",
        "winner_tie",
    }
    for row in rows:
        assert keys <= row.keys()
        assert sorted(row[k] for k in ("winner_model_a", "winner_model_b", "winner_tie")) == [0, 0, 1]
        assert (row["model_a"], row["model_b"], row["source"]) == ("edge-model", "cloud-model", "entropy")
        tie = abs(row["se_b"] - row["se_a"]) <= 0.1 * row["se_b"]
        assert row["winner_tie"] == tie
        assert row["winner_model_a"] == (not tie and row["se_a"] < row["se_b"])
    assert summary.labelled == 12
    assert sum(summary.winners.values()) == 12


def test_an_interrupted_run_resumes_and_ends_with_the_same_file(tmp_path):
    """From half of the labels and an incomplete line, the file becomes what one run would have written."""
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    label_rows(prompts(), labeller(), whole)
    lines = whole.read_bytes().splitlines(keepends=True)
    cut.write_bytes(b"".join(lines[:6]) + lines[6][:40])
    summary = label_rows(prompts(), labeller(), cut)
    assert cut.read_bytes() == whole.read_bytes()
    assert (summary.kept, summary.labelled) == (6, 6)


def test_samples_that_were_kept_are_not_drawn_again(tmp_path):
    """Kept answers can be labelled with another threshold without any model, and by a resumed run."""
    kept = tmp_path / "kept.jsonl"
    label_rows(prompts(), labeller(), tmp_path / "a.jsonl", keep=kept)
    assert [len(row.edge.samples) for row in read_rows(kept)] == [4] * 12
    again = Labeller(equivalence=SameText(), samples=4, tau=1e6)
    label_rows(read_rows(kept), again, tmp_path / "b.jsonl")
    a, b = (list(read_labels(tmp_path / name)) for name in ("a.jsonl", "b.jsonl"))
    assert [(one.se_a, one.se_b) for one in a] == [(one.se_a, one.se_b) for one in b]
    assert {one.winner for one in b} == {"tie"}
    without_models = labeller(edge=None, cloud=None)
    with pytest.raises(LabelRunError, match="no model to draw them from"):
        label_rows(prompts(), without_models, tmp_path / "c.jsonl", max_failures=3)
    label_rows(prompts(), without_models, tmp_path / "d.jsonl", keep=kept)
    assert len(list(read_rows(kept))) == 12, "nothing is kept twice"


def test_labels_of_other_settings_are_not_mixed(tmp_path):
    """Labels with another threshold are refused for the same file, and so is a file that holds no labels."""
    label_rows(prompts(3), labeller(), tmp_path / "out.jsonl")
    with pytest.raises(RecordError, match="labels made with other settings"):
        label_rows(prompts(3), labeller(tau=0.3), tmp_path / "out.jsonl")
    (tmp_path / "other.jsonl").write_text('{"id": "x"}\n')
    with pytest.raises(RecordError, match="line 1"):
        label_rows(prompts(3), labeller(), tmp_path / "other.jsonl")


def test_one_failure_is_listed_and_tried_again(tmp_path):
    """The run continues; the next one labels only the prompts that failed."""
    broken = {"p3"}
    calls = []

    def flaky(messages, seed):
        calls.append(messages[0].text)
        if messages[0].text.endswith(" 3") and broken:
            raise ValueError("no such luck")
        return scripted_models.cloud(messages, seed)

    cloud = FunctionModel(function=flaky, name="cloud-model")
    out = tmp_path / "out.jsonl"
    summary = label_rows(prompts(6), labeller(cloud=cloud), out)
    assert (summary.labelled, summary.failed) == (5, 1)
    (failure,) = [json.loads(line) for line in Path(f"{out}.errors.jsonl").read_text().splitlines()]
    assert failure == {"id": "p3", "error": "ValueError: no such luck"}
    broken.clear()
    calls.clear()
    assert label_rows(prompts(6), labeller(cloud=cloud), out).labelled == 1
    assert set(calls) == {"This is prompt 3"}
    assert not Path(f"{out}.errors.jsonl").exists()


def test_many_failures_in_a_row_stop_the_run(tmp_path):
    """An expired key does not cost a whole night."""

    def expired(messages):
        raise PermissionError("expired")

    with pytest.raises(
        LabelRunError, match="5 prompts in a row failed, the last with: PermissionError: expired"
    ):
        label_rows(
            prompts(500),
            labeller(cloud=FunctionModel(function=expired, name="c")),
            tmp_path / "out.jsonl",
            max_failures=5,
        )


def test_private_prompts_never_reach_a_remote_model(tmp_path):
    """Prompts are private by tag or by field; a model on this machine may see them."""
    seen = []

    def spy(messages, seed):
        seen.append(messages[0].text)
        return scripted_models.cloud(messages, seed)

    rows = [
        *prompts(1, private=True),
        *(Row(id="t", prompt="tagged", edge=Side(), extra={"tags": ["private"]}),),
    ]
    out = tmp_path / "out.jsonl"
    summary = label_rows(rows, labeller(cloud=FunctionModel(function=spy, name="c")), out)
    assert (summary.labelled, summary.failed, seen) == (0, 2, [])
    assert "private" in Path(f"{out}.errors.jsonl").read_text()
    here = FunctionModel(function=spy, name="c", remote=False)
    assert label_rows(rows, labeller(cloud=here), out).labelled == 2


def test_correctness_judge_and_mixed_write_the_same_format(tmp_path):
    """References decide if there are any; a judge with a position bias gives ties; mixed uses what each row allows."""
    rows = [
        Row(id="r", prompt="How many?", reference=7, edge=Side(text="8"), cloud=Side(text="It is 7.")),
        Row(id="q", prompt="x?", edge=Side(quality=1.0), cloud=Side(quality=0.0)),
        Row(id="n", prompt="Say it.", edge=Side(text="This."), cloud=Side(text="That.")),
    ]
    judge = Judge(panel=(scripted_models.judge,))
    label_rows(rows[:2], Labeller(source="correctness"), tmp_path / "c.jsonl")
    label_rows(rows, Labeller(source="mixed", judge=judge), tmp_path / "m.jsonl")
    label_rows([rows[0], rows[2]], Labeller(source="judge", judge=judge), tmp_path / "j.jsonl")
    labels = {
        name: [(one.id, one.winner, one.source) for one in read_labels(tmp_path / f"{name}.jsonl")]
        for name in "cmj"
    }
    assert labels["c"] == [("r", "b", "correctness"), ("q", "a", "correctness")]
    assert labels["m"] == [*labels["c"], ("n", "tie", "judge")]
    assert labels["j"] == [("r", "tie", "judge"), ("n", "tie", "judge")]


def test_names_of_an_answer_are_found_as_whole_words():
    """Any of several names within a sentence is right; part of a word is not."""
    assert quality_of("That was in Kansas City.", "Where?", ["Kansas City", "KC"]) == 1
    assert quality_of("Arkansas.", "Where?", ["Kansas"]) == 0
    assert quality_of("Arkansas.", "Where?", []) is None


def test_a_head_learns_from_a_file_of_labels(tmp_path):
    """From prompts to a saved head, which predicts for new prompts what the labels say of prompts of that kind."""
    from confroute.heads import Ridge, encoder, load_head, save_head

    rows = [
        Row(
            id=str(at),
            prompt="sum " * (1 + at % 2),
            edge=Side(quality=float(at % 2)),
            cloud=Side(quality=1.0),
        )
        for at in range(20)
    ]
    label_rows(rows, Labeller(source="correctness"), tmp_path / "labels.jsonl")
    labels = [*read_labels(tmp_path / "labels.jsonl")]
    assert [one.cloud_wins for one in labels[:2]] == [1.0, 0.5]
    embed = encoder(lambda texts: [[float(len(text)), 1.0] for text in texts], name="length")
    head = Ridge.fit(embed([one.prompt for one in labels]), [one.cloud_wins for one in labels], penalty=0.1)
    save_head(head, tmp_path / "head", identity=embed.identity())
    short, long = load_head(tmp_path / "head", embed).estimate(embed(["sum ", "sum sum "])).cloud_wins
    assert short > 0.9
    assert long < 0.6


def test_infinite_delta_survives_the_file(tmp_path):
    """JSON has no infinity: a null beside both entropies stands for it."""
    certain = (RecordedSample(text="a"), RecordedSample(text="a"))
    row = Row(
        id="1",
        prompt="?",
        edge=Side(samples=(RecordedSample(text="x"), RecordedSample(text="y"))),
        cloud=Side(samples=certain),
    )
    label_rows([row], Labeller(samples=2, estimator="discrete", equivalence=SameText()), tmp_path / "o.jsonl")
    (label,) = read_labels(tmp_path / "o.jsonl")
    assert (label.winner, label.se_b, label.delta) == ("b", 0.0, float("inf"))
    assert label_from_dict(label.to_dict()) == label


def test_a_model_that_ignores_the_temperature_is_reported(tmp_path, capsys):
    """Equal samples on every prompt are reported, not silently taken for certainty."""
    frozen = FunctionModel(
        function=lambda messages: Generation(text="same", logprobs=(-0.1,)), name="edge-model"
    )
    summary = label_rows(prompts(), labeller(edge=frozen), tmp_path / "out.jsonl")
    assert summary.models_with_constant_samples() == ["edge"]


def test_only_one_process_writes_a_file(tmp_path):
    """A second run into the same file is refused while the first is running."""
    from filelock import FileLock

    with FileLock(f"{tmp_path / 'out.jsonl'}.lock"), pytest.raises(LabelRunError, match="another process"):
        label_rows(prompts(), labeller(), tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    "settings",
    [{"samples": 1}, {"temperature": 0.0}, {"tau": -1.0}, {"source": "judge"}, {"estimator": "mean"}],
)
def test_settings_that_cannot_work_are_refused(settings):
    """They are refused before any model is called."""
    with pytest.raises(PolicyError):
        labeller(**settings)


def test_threads_change_nothing(tmp_path):
    """Eight prompts at a time give the same file as one at a time."""
    for n in (1, 8):
        label_rows(prompts(40), labeller(), tmp_path / f"{n}.jsonl", engine=LocalEngine(concurrency=n))
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "8.jsonl").read_bytes()


def test_command_labels_and_prints_a_summary(tmp_path, capsys):
    """`confroute label` on a prompt file, models by MODULE:OBJECT, JSON on standard output."""
    data, out = file_of(tmp_path / "prompts.jsonl"), tmp_path / "out.jsonl"
    assert main(["label", str(data), "--out", str(out), *COMMAND, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["labelled"], summary["failed"]) == (12, 0)
    assert len(list(read_labels(out))) == 12
    assert main(["label", str(data), "--out", str(out), *COMMAND]) == 0
    assert "0 labelled, 12 there before" in capsys.readouterr().out


def test_question_and_answers_are_read_too(tmp_path):
    """Files with "question" and "answers" need no conversion."""
    path = tmp_path / "q.jsonl"
    path.write_text('{"id": "1", "question": "Who?", "answers": ["Ada"]}\n')
    (row,) = read_inputs(path)
    assert (row.prompt, row.reference) == ("Who?", ["Ada"])
    path.write_text('{"id": "1"}\n')
    with pytest.raises(RecordError, match="neither prompt"):
        list(read_inputs(path))


def test_a_killed_command_resumes_where_it_was(tmp_path):
    """SIGKILL in the middle, then the same command: the file is that of an unbroken run."""
    data = file_of(tmp_path / "prompts.jsonl", 30)
    outs = [tmp_path / "killed.jsonl", tmp_path / "whole.jsonl"]
    command = [
        sys.executable,
        "-c",
        "import sys; from confroute.cli import main; sys.exit(main())",
        "label",
        str(data),
    ]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "SLOWLY_S": "0.02"}
    arguments = [*COMMAND, "--workers", "2"]
    process = subprocess.Popen([*command, "--out", str(outs[0]), *arguments], env=environment)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (outs[0].exists() and outs[0].read_bytes().count(b"\n") >= 5):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 5 <= outs[0].read_bytes().count(b"\n") < 30
    assert (
        subprocess.run([*command, "--out", str(outs[0]), *arguments], env=environment, check=False).returncode
        == 0
    )
    label_rows(
        read_inputs(data),
        Labeller(
            edge=FunctionModel(function=scripted_models.edge, name="edge"),
            cloud=FunctionModel(function=scripted_models.cloud, name="cloud"),
            equivalence=SameText(),
            samples=4,
        ),
        outs[1],
    )
    assert outs[0].read_bytes() == outs[1].read_bytes()


def test_both_sides_use_the_same_number_of_samples(tmp_path):
    """Entropy grows with the number of samples: ten recorded and four new ones are not comparable."""
    samples = tuple(RecordedSample(text=f"Answer {n}.") for n in range(10))
    row = Row(id="r", prompt="?", edge=Side(samples=samples), cloud=Side(samples=samples[:4]))
    label = labeller(estimator="discrete").label(row)
    assert (label.se_a, label.winner) == (label.se_b, "tie")


def test_a_remote_judge_is_not_shown_private_answers():
    """The rule also checks the answers: a local model may have written private text."""
    heard = []
    judge = Judge(panel=(FunctionModel(function=lambda messages: heard.append(messages) or "x", name="j"),))
    row = Row(id="r", prompt="?", edge=Side(text="My salary is 4,000."), cloud=Side(text="No."))
    private = Labeller(source="judge", judge=judge, private=KeepPrivate(patterns=("salary",)))
    with pytest.raises(UnlabelledError, match="private"):
        private.label(row)
    assert heard == []


def test_one_empty_answer_is_one_failed_prompt(tmp_path):
    """It cannot be weighted without log-probabilities: the run continues, while it stops if no answer has any."""

    def sometimes(messages, seed):
        empty = "prompt 3" in messages[-1].text and seed % 2
        return Generation(text="") if empty else scripted_models.edge(messages, seed)

    sometimes_empty = labeller(edge=FunctionModel(function=sometimes, name="e", remote=False))
    summary = label_rows(prompts(), sometimes_empty, tmp_path / "out.jsonl")
    assert (summary.labelled, summary.failed) == (11, 1)
    assert "may be empty" in (tmp_path / "out.jsonl.errors.jsonl").read_text()


class SameVector:
    """Answers mean the same if their vectors are equal."""

    def match(self, question, heads, text):
        """Compare by embeddings."""
        evidence = yield Embed(texts=(text, *heads), model="own", embed=embed)
        near = np.flatnonzero((evidence.numbers[1:] == evidence.numbers[0]).all(axis=1))
        return Match(index=int(near[0]) if near.size else None)


def embed(texts):
    """All reds have the same vector."""
    return np.array([[float(text in {"red", "scarlet"})] for text in texts])


def test_an_equivalence_may_ask_a_model():
    """Reds are one meaning, red and teal are two: entropies of 0 and ln 3 - 2/3 ln 2, so that delta is 1."""
    by_vector = Labeller(samples=3, estimator="discrete", equivalence=SameVector())
    edge, cloud = (
        Side(samples=tuple(RecordedSample(text=text) for text in texts))
        for texts in (("red", "scarlet", "red"), ("red", "teal", "teal"))
    )
    label = by_vector.label(Row(id="1", prompt="Name a colour", edge=edge, cloud=cloud))
    assert (label.winner, label.se_a, label.delta) == ("a", 0.0, 1.0)
    assert label.se_b == pytest.approx(math.log(3) - 2 / 3 * math.log(2))


def test_relabelling_reads_the_number_of_samples_from_the_file(tmp_path, capsys):
    """No `--samples` again: as many as the file holds of each model, where no model is named."""
    data, kept = file_of(tmp_path / "prompts.jsonl"), tmp_path / "kept.jsonl"
    first = ["label", str(data), "--out", str(tmp_path / "a"), "--keep", str(kept), *COMMAND[:-1], "3"]
    assert main(first) == 0
    again = ["label", str(kept), "--same", "text", "--tau", "0.5"]
    assert main([*again, "--out", str(tmp_path / "b")]) == 0
    assert main([*again, "--out", str(tmp_path / "c"), "--samples", "3"]) == 0
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()
    assert main([*again, "--out", str(tmp_path / "d"), "--samples", "4"]) == 1
    assert "3 samples of the edge are recorded, 4 are needed" in (tmp_path / "d.errors.jsonl").read_text()


def test_a_server_of_one_slot_is_asked_once_for_each_sample(tmp_path, capsys, openai_server):
    """llama.cpp refuses an `n` above its number of slots with 400."""
    data, asked = file_of(tmp_path / "prompts.jsonl", 3), []

    def one_slot(body):
        asked.append(body.get("n", 1))
        openai_server.status = 400 if body.get("n", 1) > 1 else 200
        return f"answer {len(asked) % 2}", -0.1

    openai_server.respond = one_slot
    command = [
        "label",
        str(data),
        "--out",
        str(tmp_path / "out"),
        "--same",
        "text",
        "--samples",
        "3",
        "--json",
    ]
    for side in ("edge", "cloud"):
        command += [f"--{side}", f"openai:{side}", f"--{side}-base-url", openai_server.url]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["labelled"] == 3
    assert sorted(set(asked)) == [1, 3]


def test_mixed_with_a_judge_asks_for_no_log_probabilities(tmp_path, openai_server):
    """Entropy never decides there, and some servers refuse the request."""
    openai_server.answer = "Fine."
    data = file_of(tmp_path / "prompts.jsonl", 2)
    command = ["label", str(data), "--out", str(tmp_path / "out"), "--source", "mixed"]
    for side in ("edge", "cloud", "judge"):
        command += [f"--{side}", f"openai:{side}", f"--{side}-base-url", openai_server.url]
    main(command)
    assert openai_server.bodies
    assert not any(body.get("logprobs") for body in openai_server.bodies)
