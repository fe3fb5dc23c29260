"""Recorded runs: read, write, and measure offline."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.asks import Embed, Evidence
from confroute.errors import ConfrouteError
from confroute.recording import (
    RecordedSample,
    RecordError,
    Row,
    Side,
    append_row,
    measured,
    option_doubt,
    read_rows,
    row_from_dict,
    with_signals,
    write_rows,
)
from confroute.recording.evidence import Wanted
from confroute.registry import columns
from confroute.signals import token_nll
from confroute.signals.consistency import SelfConsistency
from confroute.signals.equivalence import SameEmbedding
from confroute.signals.semantic_entropy import SemanticEntropy
from confroute.stats.metrics import auroc
from confroute.types import Generation

DATA = Path(os.environ.get("CONFROUTE_DATA", Path(__file__).parents[2] / "../shared/data"))
RECORDED = DATA / "recorded"

LINE = {
    "id": "a",
    "dataset": "d",
    "prompt": "How many apples are 3 and 4?",
    "messages": None,
    "reference": 7,
    "edge": {
        "model": "m",
        "text": "3 + 4 = 7",
        "logprobs": [-0.1, -0.3],
        "tokens": ["3", " + 4 = 7"],
        "answer": 7.0,
        "quality": 1.0,
        "usage": {"input_tokens": 9, "output_tokens": 2, "cached": 1},
        "latency_s": 0.5,
        "cost_usd": None,
        "samples": [
            {"text": "It is 7.", "logprobs": [-0.2], "answer": 7, "finish": "stop"},
            {"text": "8", "logprobs": None, "answer": None},
        ],
        "error": None,
        "finish": "length",
    },
    "cloud": {
        **dict.fromkeys(("text", "logprobs", "tokens", "answer", "usage", "latency_s", "cost_usd", "error")),
        "model": "c",
        "quality": 0.5,
        "graded_by": "judge",
    },
    "signals": {"mine": 0.25},
    "note": {"kept": [1, None]},
}

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
unknown = st.dictionaries(
    st.text(min_size=1, max_size=4).map(lambda key: f"x_{key}"), json_values, max_size=3
)


def test_a_line_is_written_back_as_it_was(tmp_path):
    """Every known and unknown key survives, at every level."""
    assert row_from_dict(LINE).to_dict() == LINE
    for name in ("run.jsonl", "run.jsonl.gz"):
        lines = [LINE, {**LINE, "id": "b"}]
        assert write_rows(tmp_path / name, map(row_from_dict, lines)) == 2
        assert [row.to_dict() for row in read_rows(tmp_path / name)] == lines
    assert (tmp_path / "run.jsonl").read_text().count("\n") == 2
    assert gzip.decompress((tmp_path / "run.jsonl.gz").read_bytes()) == (tmp_path / "run.jsonl").read_bytes()


@given(unknown, unknown, st.text(max_size=20), st.none() | st.floats(0, 1))
def test_any_row_survives_json(extra, side_extra, text, quality):
    """Rows equal themselves after a round trip, surrogates and odd keys included."""
    row = Row(id="r", edge=Side(text=text, quality=quality, extra=side_extra), extra=extra)
    assert row_from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_half_a_surrogate_pair_can_be_written(tmp_path):
    """A model that stops inside an emoji does not break the file."""
    row = Row(id="r", edge=Side(text="\ud83d", logprobs=()))
    append_row(tmp_path / "run.jsonl", row)
    assert [*read_rows(tmp_path / "run.jsonl")] == [row]


@pytest.mark.parametrize("name", ["run.jsonl", "run.jsonl.gz"])
def test_rows_can_be_appended_and_rewritten_in_place(tmp_path, name):
    """Appending makes the file, then grows it; writing may read from the file that it replaces."""
    path = tmp_path / name
    for key in "abc":
        append_row(path, Row(id=key, edge=Side(text=key)))
    assert [row.id for row in read_rows(path)] == ["a", "b", "c"]
    write_rows(path, (replace(row, dataset="d") for row in read_rows(path)))
    assert [(row.id, row.dataset) for row in read_rows(path)] == [("a", "d"), ("b", "d"), ("c", "d")]
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_a_failed_write_leaves_the_file_alone(tmp_path):
    """An infinity is not JSON: nothing is replaced, nothing is left behind."""
    path = tmp_path / "run.jsonl"
    append_row(path, Row(id="a", edge=Side()))
    before = path.read_bytes()
    broken = Row(id="b", edge=Side(), signals={"s": math.inf})
    with pytest.raises(RecordError, match="row 'b' cannot be written"):
        write_rows(path, [Row(id="a", edge=Side()), broken])
    with pytest.raises(RecordError, match="row 'b'"):
        append_row(path, broken)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["run.jsonl"]


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"id": "a"', "line 3: .*expected one JSON object"),
        ("[1]", r"line 3: the row is \[1\]: expected an object"),
        ('{"edge": {}}', 'line 3: "id" is missing: give every line its own'),
        ('{"id": "a"}', "line 3: edge is None: expected an object"),
        ('{"id": "a", "edge": {"quality": 1.5}}', r"edge.quality is 1.5: expected a number in \[0, 1\]"),
        ('{"id": "a", "edge": {"quality": true}}', "edge.quality is True: expected a finite number"),
        ('{"id": "a", "edge": {"logprobs": [0, "x"]}}', r"edge.logprobs\[1\] is 'x'"),
        ('{"id": "a", "edge": {"latency_s": NaN}}', "NaN is not a JSON number"),
        ('{"id": "a", "edge": {"samples": [{}]}}', r"edge.samples\[0\].text is None"),
        ('{"id": "a", "edge": {"usage": {"output_tokens": "2"}}}', "output_tokens is '2'"),
        ('{"id": "a", "edge": {}, "signals": {"s": "high"}}', "signals.s is 'high'"),
        ('{"id": "a", "edge": {}, "messages": ["hi"]}', r"messages\[0\] is 'hi': expected an object"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, says):
    """The error holds the file, the line's number, the field, what it is and what is expected."""
    path = tmp_path / "run.jsonl"
    path.write_text(json.dumps(LINE) + "\n\n" + line + "\n")
    with pytest.raises(RecordError, match=says) as caught:
        list(read_rows(path))
    assert isinstance(caught.value, ConfrouteError)
    assert "run.jsonl, line 3" in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    """Missing, not UTF-8, cut off: each is one error of confroute's."""
    with pytest.raises(RecordError, match=r"none\.jsonl: no such file$"):
        list(read_rows(tmp_path / "none.jsonl"))
    (tmp_path / "latin.jsonl").write_bytes(b'{"id": "\xe9"}\n')
    with pytest.raises(RecordError, match=r"line 1: .*UTF-8"):
        list(read_rows(tmp_path / "latin.jsonl"))
    packed = gzip.compress(json.dumps(LINE).encode() * 50)
    (tmp_path / "cut.gz").write_bytes(packed[: len(packed) // 2])
    with pytest.raises(RecordError, match=r"cut\.gz"):
        list(read_rows(tmp_path / "cut.gz"))


def test_the_question_comes_from_prompt_or_messages():
    """The prompt, else the last user message under either key."""
    edge = Side(text="x")
    said = (
        {"role": "user", "content": "first"},
        {"role": "user", "text": "last"},
        {"role": "assistant", "content": "x"},
    )
    assert Row(id="a", edge=edge, prompt="p", messages=said).question == "p"
    assert Row(id="a", edge=edge, messages=said).question == "last"
    frameworks = ({"role": "human", "content": "why"}, {"role": "ai", "content": "x"})
    assert Row(id="a", edge=edge, messages=frameworks).question == "why"
    assert Row(id="a", edge=edge).question == ""


def test_a_side_becomes_a_generation():
    """Text, log-probabilities, usage, the canonical answer and why it ended."""
    side = row_from_dict(LINE).edge
    draft = side.generation()
    assert (draft.text, draft.logprobs, draft.answer, draft.finish) == (
        "3 + 4 = 7",
        (-0.1, -0.3),
        "7",
        "length",
    )
    assert draft.usage.total_tokens == 11
    assert [sample.answer for sample in side.further()] == ["7", None]
    assert Side(error="timed out").generation() is None


def test_signals_are_those_of_the_online_classes():
    """Every value is what the signal itself says of the same evidence; recorded values stay."""
    found = with_signals(row_from_dict(LINE)).signals
    stats = token_nll((-0.1, -0.3))
    for statistic in ("mean", "max", "sum", "q50", "q75", "q90"):
        assert found[f"token_logprob.{statistic}"] == pytest.approx(stats[statistic])
    # Of the draft and two samples, two mean the same.
    entropy = pytest.approx((math.log(3) - 2 / 3 * math.log(2)) / math.log(3))
    assert (found["self_consistency"], found["semantic_entropy"], found["mine"]) == (0.5, entropy, 0.25)
    assert found["semantic_entropy.probability"] is None, "one sample has no log-probabilities"
    assert found["option_probability"] is None
    kept = with_signals(replace(row_from_dict(LINE), signals={"self_consistency": 0.125}))
    assert kept.signals["self_consistency"] == 0.125


def test_missing_evidence_is_missing():
    """No draft, too few samples or no log-probabilities give None, never a low uncertainty."""
    failed = with_signals(Row(id="a", prompt="How many?", edge=Side(error="no answer"))).signals
    assert set(failed.values()) == {None}
    # A signal that reads the text alone has all of its evidence.
    reads_more = [
        name for name, entry in columns().items() if re.search("log-prob|alternatives|samples", entry.needs)
    ]
    for samples in ((), (RecordedSample(text="7"),)):
        row = Row(id="a", prompt="How many?", edge=Side(text="7", samples=samples))
        found = with_signals(row).signals
        assert {found[name] for name in reads_more} == {None}
    drawn = tuple(RecordedSample(text=text) for text in "778")
    row = Row(id="a", prompt="How many?", edge=Side(text="7", samples=drawn))
    assert with_signals(row, samples=2).signals["self_consistency"] == 0.0
    assert with_signals(row).signals["self_consistency"] == pytest.approx(1 / 3)
    assert with_signals(row, samples=4).signals["self_consistency"] is None


def test_asks_for_other_models_go_to_the_callers_function():
    """Embeddings are asked for; without anyone to answer, the signal is not measured."""
    drawn = tuple(RecordedSample(text=text) for text in ("a large dog barks", "some big hound is barking"))
    row = Row(id="a", prompt="What is heard?", edge=Side(text="a dog", samples=drawn))
    signal = SemanticEntropy(n=2, equivalence=SameEmbedding())
    asked = []

    def work(ask):
        asked.append(ask)
        return Evidence(numbers=np.ones((len(ask.texts), 1), dtype=np.float32))

    assert measured(row, signal) is None
    assert measured(row, signal, work=work).uncertainty == 0.0
    assert [type(ask) for ask in asked] == [Embed, Embed], (
        "each sample is compared with the answers before it"
    )


def test_option_doubt_by_hand():
    """Shares among the options; one that was not returned by the provider has none."""
    options = {"A": math.log(0.2), "B": math.log(0.2), "C": math.log(0.1)}
    assert option_doubt(options, "A") == pytest.approx(0.6)
    assert option_doubt(options, "D") is None
    assert option_doubt({"A": -800.0, "B": -801.0}, "A") == pytest.approx(1 / (1 + math.e))


def test_options_count_only_where_the_first_token_is_the_letter():
    """Recorded options are those of the first token, as the live signal's: behind "The answer is" they say nothing."""
    options = {"A": math.log(0.2), "B": math.log(0.6)}
    question = "Which?\nA. x\nB. y"

    def doubt(text, **more):
        edge = Side(text=text, answer="B", extra={"options": options}, **more)
        return with_signals(Row(id="a", prompt=question, edge=edge)).signals["option_probability"]

    assert doubt("B") == doubt(" B) y") == doubt("B", tokens=("B",)) == pytest.approx(0.25)
    assert doubt("The answer is B") is None
    assert doubt("The answer is B", tokens=("The", " answer", " is", " B")) is None


def test_options_are_read_from_alternatives_where_they_were_not_recorded():
    """The live signal on the row's own top_logprobs; recorded options of every letter go before."""
    tops = [[["B", math.log(0.6)], ["A", math.log(0.2)]]]
    side = {"text": "B", "tokens": ("B",), "logprobs": (math.log(0.6),)}
    row = Row(id="a", prompt="Which?\nA. x\nB. y\nC. z", edge=Side(**side, extra={"top_logprobs": tops}))
    assert with_signals(row).signals["option_probability"] == pytest.approx(0.25)
    every = {"A": math.log(0.2), "B": math.log(0.6), "C": math.log(0.1)}
    row = replace(row, edge=replace(row.edge, answer="B", extra={"top_logprobs": tops, "options": every}))
    assert with_signals(row).signals["option_probability"] == pytest.approx(1 / 3)


def recorded(name):
    """A file of the recorded data, or a skip."""
    path = RECORDED / name
    if not path.is_file():
        pytest.skip(f"{path} is not there: set CONFROUTE_DATA to the folder of recorded data")
    return path


def test_a_real_run_is_kept_and_measured():
    """qwen_edge is written back unchanged; its AUROCs are near those known of the larger run it is a part of."""
    path = recorded("qwen_edge.jsonl.gz")
    rows = [*read_rows(path)]
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        assert [row.to_dict() for row in rows] == [json.loads(line) for line in lines]
    known = {"option_probability": ("mmlu_test", 0.71), "self_consistency": ("gsm8k_test", 0.87)}
    known |= {"token_logprob.mean": ("gsm8k_test", 0.70), "token_logprob.sum": ("gsm8k_test", 0.72)}
    for name, (dataset, area) in known.items():
        chosen = [with_signals(row) for row in rows if row.dataset == dataset]
        wrong = [row.edge.quality < 0.5 for row in chosen]
        assert auroc([row.signals[name] for row in chosen], wrong) == pytest.approx(area, abs=0.05)


def test_more_samples_tell_errors_better():
    """Entropy of 48 samples of Llama-2-13B ranks wrong majority answers better than entropy of 5 of them."""
    with gzip.open(recorded("gsm8k_llama2_13b_x48.jsonl.gz"), "rt", encoding="utf-8") as lines:
        raw = [json.loads(line) for line in lines]
    wrong = [not row["weak_correct"] for row in raw]
    areas = {}
    for n in (5, 48):
        signal = SemanticEntropy(n=n, step=n)
        areas[n] = auroc([measured(from_x48(row), signal).uncertainty for row in raw], wrong)
    assert areas[48] > areas[5] > 0.6
    assert areas[48] == pytest.approx(0.79, abs=0.05)
    assert measured(from_x48(raw[0]), SelfConsistency(n=48, step=48)) is not None


def from_x48(raw):
    """A row of the 48-sample file, with the majority answer as the draft."""
    answers = zip(raw["weak_samples"], raw["weak_sample_answers"], strict=True)
    drawn = tuple(RecordedSample(text=text or "", answer=answer) for text, answer in answers)
    majority = raw["weak_majority"]
    return Row(
        id=raw["id"], prompt=raw["prompt"], edge=Side(text=str(majority), answer=majority, samples=drawn)
    )


def test_a_log_probability_that_json_cannot_hold_ends_no_run(tmp_path):
    """One of them says nothing of the answer; the row is kept without any."""
    answer = Generation(text="7", logprobs=(-0.1, float("-inf")), tokens=("7", "!"))
    side = Wanted().answered(Row(id="a", prompt="?", edge=Side()), answer, "m", None)
    append_row(tmp_path / "run.jsonl", Row(id="a", prompt="?", edge=side))
    (row,) = read_rows(tmp_path / "run.jsonl")
    assert (row.edge.logprobs, row.edge.tokens) == (None, ("7", "!"))
