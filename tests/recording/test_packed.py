"""Rows of long runs: packed, chosen and given their columns, they are the rows that they were."""

import dataclasses
import hashlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.fitting import apply, fit, table_of
from confroute.fitting.promise import MaxLoss
from confroute.recording import RecordedSample, RecordError, Row, Side, with_signals
from confroute.recording.packed import PackedRows, hash_of, models_of, outlines_of, picked
from confroute.recording.rows import json_line
from confroute.recording.signals import rows_with_signals

GRADES = st.none() | st.sampled_from([0.0, 0.25, 1.0])
LOGPROBS = st.none() | st.lists(st.floats(-3, 0), min_size=1, max_size=4).map(tuple)
ANSWERS = st.sampled_from(["7", "It is 7.", "8", "", "\u2028seven\x85\ud800"])
SAMPLES = st.builds(RecordedSample, text=ANSWERS, logprobs=LOGPROBS, answer=st.none() | st.just("7"))
EDGES = st.builds(
    Side,
    model=st.none() | st.sampled_from(["small", "other"]),
    text=st.none() | ANSWERS,
    logprobs=LOGPROBS,
    quality=GRADES,
    usage=st.none() | st.just({"input_tokens": 3, "output_tokens": 2}),
    cost_usd=st.none() | st.just(0.5),
    samples=st.lists(SAMPLES, max_size=4).map(tuple),
    error=st.none() | st.just("timeout"),
    extra=st.sampled_from([{}, {"finish": "length"}, {"temperature": 0.5}, {"flaw": "no call"}]),
)
ROWS = st.builds(
    Row,
    id=st.just(""),
    prompt=st.none() | st.sampled_from(["How many?", "Who?"]),
    edge=EDGES,
    cloud=st.none() | st.builds(Side, text=st.none() | ANSWERS, quality=GRADES),
    signals=st.dictionaries(st.sampled_from(["mine", "yours", "degree"]), st.none() | st.floats(0, 1)),
    measured_by=st.sampled_from([{}, {"mine": {"class": "PTrue"}}]),
    extra=st.sampled_from([{}, {"answer_kind": "auto"}, {"context": {"passages": ["a"]}}]),
)


@st.composite
def runs(draw, most=5):
    """Rows with an id each."""
    given_rows = draw(st.lists(ROWS, max_size=most))
    return [dataclasses.replace(row, id=str(at)) for at, row in enumerate(given_rows)]


@given(runs(), st.integers(1, 40))
def test_packed_rows_are_the_same_rows(rows, times):
    """In any order, by place, from the end and by slices, over the ends of blocks."""
    rows = [dataclasses.replace(row, id=f"{row.id}-{copy}") for copy in range(times) for row in rows]
    packed = PackedRows(iter(rows))
    assert len(packed) == len(rows)
    assert [*packed] == rows
    assert [packed[-1 - at] for at in range(len(rows))] == rows[::-1]
    assert packed[1:9:2] == tuple(rows[1:9:2])
    with pytest.raises(IndexError):
        packed[len(rows)]
    assert packed.data_hash == hashlib.sha256(b"".join(map(json_line, rows))).hexdigest() == hash_of(rows)
    assert [*packed.outlines] == outlines_of(rows)
    assert packed.models == models_of(rows)


@given(runs(), st.randoms())
def test_picked_rows(rows, generator):
    """Those at the given places, in the given order."""
    places = [at for at in range(len(rows)) if generator.random() < 0.5]
    generator.shuffle(places)
    assert [*picked(PackedRows(rows), np.array(places, dtype=np.intp))] == [rows[at] for at in places]


def test_what_json_cannot_hold_is_refused():
    """As where a run is written."""
    with pytest.raises(RecordError, match="'a' cannot be written"):
        PackedRows([Row(id="a", edge=Side(text="7", logprobs=(-math.inf,)))])


@given(runs())
def test_signals_of_a_run_are_those_of_its_rows(rows):
    """Signals that are made once for all rows, and what they share of one call, do not part from row by row."""
    assert [*rows_with_signals(rows)] == [with_signals(row) for row in rows]
    assert [*rows_with_signals(rows, samples=2)] == [with_signals(row, samples=2) for row in rows]


@given(runs(most=8))
def test_a_table_makes_the_rows_that_it_measured(rows):
    """Rows come back from the columns as they were measured; a column that another row holds is None where a row lacks it."""
    table = table_of(PackedRows(rows), graded_only=False) if rows else None
    if table is None:
        return
    counts = [len(row.edge.samples) for row in rows if len(row.edge.samples) > 1]
    measured = [with_signals(row, samples=min(counts, default=0) or None) for row in rows]
    names = dict.fromkeys(name for row in measured for name in row.signals)
    assert [*table.rows] == [
        dataclasses.replace(row, signals={name: row.signals.get(name) for name in names}) for row in measured
    ]
    kept = np.arange(table.n) % 2 == 0
    assert [row.id for row in table.part(kept).rows] == [row.id for row in rows][::2]
    lost = table.failed | table.rejected
    for name in names:
        wanted = [
            math.nan if out or row.signals.get(name) is None else row.signals[name]
            for row, out in zip(measured, lost.tolist(), strict=True)
        ]
        np.testing.assert_array_equal(table.signal(name), wanted)


def test_a_fit_and_what_is_applied_are_the_same_on_packed_rows():
    """Down to the hash of the rows, by which a policy knows the run that it was fitted on."""
    generator = np.random.default_rng(0)
    rows = []
    for at in range(300):
        right = float(generator.random() < 0.7)
        drawn = generator.permutation(["7", "7", "8"] if right else ["7", "8", "9"]).tolist()
        edge = Side(
            text="7",
            logprobs=(-float(generator.exponential(1.2 - right)),),
            quality=right,
            cost_usd=0.001,
            samples=tuple(RecordedSample(text=text, answer=text) for text in drawn),
        )
        rows.append(
            Row(id=str(at), prompt="How many?", edge=edge, cloud=Side(text="7", quality=1.0, cost_usd=0.01))
        )
    loose, packed = (fit(one, MaxLoss(alpha=0.2)) for one in (rows, PackedRows(iter(rows))))
    assert dataclasses.replace(loose, choice=packed.choice) == packed
    assert loose.policy.provenance.data_hash == hash_of(rows)
    found = [apply(loose.policy, one) for one in (rows, PackedRows(iter(rows)), iter(rows))]
    assert found[0] == found[1] == found[2]
    assert "cannot judge it" in found[0].notes[0]
