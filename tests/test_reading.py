"""Every file that anybody may have written is read, or refused by an error that names file, line and field."""

import contextlib
import copy
import functools
import gzip
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from confroute import Cascade, KeepPrivate, Message, Request, TokenLogprob
from confroute.budget import Budget, Pace, Paced
from confroute.cli.judge import _gold
from confroute.decision import Decision, Measurement, Step
from confroute.drift import Audited, DriftTest
from confroute.errors import (
    ConfrouteError,
    FormatError,
    LogError,
    MissingExtraError,
    ModelError,
    PolicyError,
    StateError,
    TierError,
)
from confroute.executor import run
from confroute.heads import WordRidge, load_head, save_head
from confroute.judge.agreement import read_items
from confroute.labels.rows import Label, read_labels
from confroute.learning import LearnOnline
from confroute.models.embed import check_modules
from confroute.observe.log import read_log
from confroute.policy import load_policy
from confroute.policy.files import from_json, to_json
from confroute.prices import Price
from confroute.reading import DEPTH, dotted, fits, json_lines, line_of, number, numbers, read_json, texts
from confroute.recording import RecordError, Row, Side, read_rows, with_signals
from confroute.recording.grade import graded
from confroute.recording.prompts import read_prompts
from confroute.signals.answers import Kind, final_answer, final_span, options_in
from confroute.signals.fields import field_logprobs
from confroute.signals.probe import ProbeWeights
from confroute.signals.tokens import answer_spans
from confroute.state import MemoryStore
from confroute.testing import Reply, ScriptedCalls, ScriptedModel
from confroute.types import Usage
from confroute.views.report import log_page

POLICY = Paced(
    policy=Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(patterns=("secret",)),)),
    budgets=(Budget(limit=1.0),),
    price=Price(input_usd=1.0),
    store="memory:reading",
)
DECISION = Decision(
    route="edge",
    stage="draft",
    reason="kept",
    signals={"token_logprob": Measurement(signal="token_logprob", uncertainty=0.1)},
    steps=(Step(kind="draft", tier="edge", usage=Usage(input_tokens=3, output_tokens=1)),),
)
ROW = Row(
    id="a",
    prompt="2 + 3?",
    edge=Side(
        text="5", logprobs=(-0.1,), cost_usd=0.0, latency_s=0.1, usage={"input_tokens": 3, "output_tokens": 1}
    ),
    cloud=Side(text="5", quality=1.0),
    signals={"token_logprob.mean": 0.1},
    extra={"context": {"passages": ["five"], "scores": [0.5]}},
)
LABEL = Label(
    id="a", model_a="m", model_b="c", prompt="?", response_a="1", response_b="2", winner="b", source="judge"
)
PAIR = {
    "id": "a",
    "dataset": "d",
    "prompt": "?",
    "output_1": "x",
    "output_2": "y",
    "human_label": 1,
    "verdicts": {"j|orig": "1", "j|swap": None},
}


def lines(read):
    """A reader of whole files from one of lines."""
    return lambda path: list(read(path))


@dataclass(frozen=True)
class Reader:
    """One reader, a file that it takes, and whether that file holds lines."""

    read: object
    text: str
    by_line: bool = True
    name: str = "file.jsonl"


READERS = {
    "policy": Reader(load_policy, to_json(POLICY), by_line=False, name="policy.json"),
    "log": Reader(
        lines(read_log), json.dumps({"at": "2026-01-01T00:00:00.000+00:00", **DECISION.to_dict()}) + "\n"
    ),
    "run": Reader(lines(read_rows), json.dumps(ROW.to_dict()) + "\n"),
    "prompts": Reader(read_prompts, json.dumps({"id": "a", "prompt": "?"}) + "\n"),
    "labels": Reader(lines(read_labels), json.dumps(LABEL.to_dict()) + "\n"),
    "pairs": Reader(read_items, json.dumps(PAIR) + "\n"),
    "gold": Reader(_gold, json.dumps({"id": "a", "winner": "a"}) + "\n"),
    "head": Reader(lambda path: load_head(path.parent), "", by_line=False, name="head.json"),
    "probe": Reader(
        lambda path: ProbeWeights.load(path.with_suffix(".safetensors")), "", by_line=False, name="probe.json"
    ),
    "modules": Reader(
        lambda path: check_modules(path.parent),
        json.dumps([{"path": "1_Pooling", "type": "x.Transformer"}, {"path": "p", "type": "x.Pooling"}]),
        by_line=False,
        name="modules.json",
    ),
}
EACH = pytest.mark.parametrize("kind", READERS)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder with a head's and a probe's weights, and the metadata that belongs to them."""
    pytest.importorskip("safetensors")
    import numpy as np

    folder = tmp_path_factory.mktemp("weights")
    save_head(WordRidge.fit(["prove this", "name that"] * 8, [1, 0] * 8, penalty=0.1), folder)
    one = np.ones(2)
    ProbeWeights(layers=(0,), mean=one, scale=one, weights=one, bias=0.1, target="wrong").save(
        folder / "probe.safetensors"
    )
    return folder


@pytest.fixture(scope="module")
def fuzz_folder(weights, tmp_path_factory):
    """A folder in which files are changed and put back."""
    folder = tmp_path_factory.mktemp("fuzz")
    for made in weights.iterdir():
        (folder / made.name).write_bytes(made.read_bytes())
    (folder / "p").mkdir()
    (folder / "p" / "config.json").write_text('{"pooling_mode": "mean"}')
    return folder


@pytest.fixture
def files(tmp_path, request):
    """Writes the file of a kind, and reads it."""

    def text_of(kind):
        reader = READERS[kind]
        if reader.text:
            return reader.text
        folder = request.getfixturevalue("weights")
        for made in folder.iterdir():
            (tmp_path / made.name).write_bytes(made.read_bytes())
        return (folder / reader.name).read_text()

    def read(kind, content):
        reader = READERS[kind]
        path = tmp_path / reader.name
        if kind == "modules":
            (tmp_path / "p").mkdir(exist_ok=True)
            (tmp_path / "p" / "config.json").write_text('{"pooling_mode": "mean"}')
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        return reader.read(path)

    return SimpleNamespace(text_of=text_of, read=read)


@EACH
def test_a_whole_file_is_read(kind, files):
    """What is refused below is what was done to it."""
    files.read(kind, files.text_of(kind))


HOSTILE = {
    "a key twice": lambda text: text.replace("{", '{"twice": 1, "twice": 2, ', 1),
    "deep lists": lambda text: text.replace("{", '{"x": ' + "[" * 5000 + "]" * 5000 + ", ", 1),
    "deep objects": lambda text: text.replace("{", '{"x": ' + '{"a": ' * 900 + "1" + "}" * 900 + ", ", 1),
    "never closed": lambda text: "[" * 100_000,
    "400 digits": lambda text: text.replace("{", '{"x": ' + "1" * 400 + ", ", 1),
    "6000 digits": lambda text: text.replace("{", '{"x": ' + "1" * 6000 + ", ", 1),
    "infinite": lambda text: text.replace("{", '{"x": 1e999, ', 1),
    "NaN": lambda text: text.replace("{", '{"x": NaN, ', 1),
    "cut off": lambda text: text[: len(text) // 2] + "\n",
    "no text": lambda text: b"\xff\xfe\x00\n",
    "a number": lambda text: "3\n",
    "null": lambda text: "null\n",
    "a text": lambda text: '"x"\n',
    "a list in a list": lambda text: "[[]]\n",
}


@EACH
@pytest.mark.parametrize("done", HOSTILE)
def test_a_hostile_file_is_refused_by_name_and_line(kind, done, files):
    """By one of confroute's errors, never by one of Python's."""
    with pytest.raises(ConfrouteError) as caught:
        files.read(kind, HOSTILE[done](files.text_of(kind)))
    assert READERS[kind].name in str(caught.value) or READERS[kind].name == "head.json"
    if READERS[kind].by_line or done not in {"a number", "null", "a text", "a list in a list"}:
        assert ("line " if done == "cut off" else "line 1") in str(caught.value)


@EACH
def test_no_missing_file_is_a_traceback(kind, tmp_path):
    """Nor a folder in its place, nor a path that no system takes."""
    pytest.importorskip("safetensors")
    (tmp_path / "folder" / READERS[kind].name).mkdir(parents=True)
    for path in (tmp_path / "none" / READERS[kind].name, tmp_path / "folder" / READERS[kind].name):
        with pytest.raises(ConfrouteError):
            READERS[kind].read(path)


WRONG = [
    ("policy", ("version",), True, "version True"),
    ("policy", ("version",), 1.0, r"version 1\.0"),
    ("policy", ("policy", "policy", "prefix"), 3, r"policy\.policy\.prefix: 3: expected .*Prefix"),
    ("policy", ("policy", "policy", "sticky"), "no", r"policy\.policy\.sticky: 'no': expected bool"),
    ("policy", ("policy", "policy", "rules"), "abc", r"policy\.policy\.rules: 'abc'"),
    ("policy", ("policy", "policy", "rules"), [1], r"policy\.policy\.rules"),
    ("policy", ("policy", "policy", "tiers"), [1, 2], r"policy\.policy\.tiers"),
    ("policy", ("policy", "policy", "rules", 0, "tags"), [None], r"rules\[0\]\.tags"),
    (
        "policy",
        ("policy", "policy", "rules", 0, "patterns"),
        ["(a" * 120 + ")" * 120 + "{99999999999}"],
        r"rules\[0\]",
    ),
    ("policy", ("policy", "policy", "rules", 0, "name"), {"float": "x"}, r"rules\[0\]\.name: float is 'x'"),
    (
        "policy",
        ("policy", "policy", "gates", 0, "signal", "quantile"),
        "0.9",
        r"gates\[0\]\.signal\.quantile",
    ),
    ("policy", ("policy", "policy", "gates", 0, "threshold", "source"), 5, r"gates\[0\]\.threshold\.source"),
    ("policy", ("policy", "budgets", 0, "limit"), True, r"policy\.budgets\[0\]\.limit: True: expected float"),
    ("policy", ("policy", "price", "input_usd"), -1, r"policy\.price: prices -1"),
    ("policy", ("policy", "max_output_tokens"), 2.5, r"policy\.max_output_tokens: 2\.5: expected int"),
    ("log", ("v",), True, "format True"),
    ("log", ("at",), 5, "at is 5"),
    ("log", ("at",), "yesterday", "at is 'yesterday'"),
    ("log", ("at",), "2026-01-01T00:00:00", "offset from UTC"),
    ("log", ("at",), "0001-01-01T00:00:00+23:59", "at is '0001"),
    ("log", ("reason",), 5, "reason is 5"),
    ("log", ("route",), None, "route is None"),
    ("log", ("signals",), [], r"signals is \[\]"),
    (
        "log",
        ("signals", "token_logprob", "uncertainty"),
        "high",
        r"signals\.token_logprob\.uncertainty is 'high'",
    ),
    ("log", ("steps", 0, "latency_s"), -1, r"steps\[0\]\.latency_s is -1"),
    ("log", ("steps", 0, "usage", "input_tokens"), -5, r"steps\[0\]\.usage\.input_tokens is -5"),
    ("log", ("steps", 0, "usage", "input_tokens"), "3", r"steps\[0\]\.usage\.input_tokens is '3'"),
    ("log", ("steps", 0, "inner"), [{"v": 2}], "format 2"),
    ("log", ("certificate",), {"n": 0}, "certificate"),
    ("run", ("edge", "cost_usd"), -5, r"edge\.cost_usd is -5"),
    ("run", ("edge", "latency_s"), -1, r"edge\.latency_s is -1"),
    ("run", ("cloud", "cost_usd"), True, r"cloud\.cost_usd is True"),
    ("run", ("edge", "usage", "input_tokens"), -5, r"edge\.usage\.input_tokens is -5"),
    ("run", ("edge", "usage", "output_tokens"), 10**30, r"edge\.usage\.output_tokens is 10+"),
    ("run", ("edge", "top_logprobs"), [[["a"]]], r"edge\.top_logprobs\[0\]\[0\]"),
    ("run", ("context", "scores"), [1, 2], r"context\.scores is 2"),
    ("labels", ("winner_model_a",), True, "winners are"),
    ("labels", ("quality_a",), -1, "quality_a is -1"),
    ("pairs", ("human_label",), 3, "human_label is 3"),
    ("gold", ("winner",), "c", "winner is 'c'"),
    ("head", ("version",), True, "version True"),
    ("head", ("settings",), 3, "settings is 3"),
    ("head", ("encoder",), [], r"encoder is \[\]"),
    ("probe", ("version",), 1.0, r"version 1\.0"),
    ("probe", ("bias",), "0.1", "bias is '0.1'"),
    ("probe", ("layers",), [True], r"layers\[0\] is True"),
    ("modules", (0, "type"), 5, "type is 5"),
]


@pytest.mark.parametrize(("kind", "place", "value", "says"), WRONG, ids=lambda one: str(one)[:40])
def test_a_field_of_another_type_is_named(kind, place, value, says, files):
    """With what it is; True is no number, and a cost is not below 0."""
    data = json.loads(files.text_of(kind))
    inner = data
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(ConfrouteError, match=says):
        files.read(kind, json.dumps(data) + "\n")


def test_a_second_list_of_rules_does_not_replace_the_first(tmp_path):
    """Which of two a reader takes is anybody's guess, and one of them keeps private text at home."""
    path = tmp_path / "policy.json"
    text = to_json(POLICY)
    line = text.splitlines().index(next(one for one in text.splitlines() if '"tiers"' in one))
    path.write_text(text.replace('"tiers"', '"rules": [], "tiers"', 1))
    with pytest.raises(
        ConfrouteError, match=rf"policy\.json, line {line + 1}: .*policy\.policy\.rules appears twice"
    ):
        load_policy(path)


def test_the_line_of_a_field_in_a_policy_file_is_named(tmp_path):
    """Policy files have many lines, and people write them too."""
    path = tmp_path / "policy.json"
    text = to_json(POLICY)
    line = next(at for at, one in enumerate(text.splitlines(), start=1) if '"prefix"' in one)
    path.write_text(text.replace('"prefix": null', '"prefix": 3'))
    with pytest.raises(
        ConfrouteError, match=rf"policy\.json, line {line}: policy\.policy\.prefix: 3: expected"
    ):
        load_policy(path)


def test_lines_are_counted_and_packed_ones_are_read(tmp_path):
    """Empty lines, CRLF and a byte-order mark are no faults."""
    path = tmp_path / "lines.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n[2]\n')
    assert [*json_lines(path, FormatError)] == [(1, {"a": 1}), (3, [2])]
    path.write_bytes(gzip.compress(path.read_bytes()))
    assert [*json_lines(path, FormatError)] == [(1, {"a": 1}), (3, [2])]
    path.write_bytes(b"[1]\n\n[2\n")
    with pytest.raises(FormatError, match=r"lines\.jsonl, line 3: "):
        list(json_lines(path, FormatError))
    torn = []
    path.write_bytes(b"[1]\n\n[2")
    assert [*json_lines(path, FormatError, torn=torn.append)] == [(1, [1])]
    assert torn == [3]


def test_depth_is_counted_where_there_is_some():
    """As many levels as are allowed are read; brackets in texts are no levels."""
    assert read_json("[" * DEPTH + "]" * DEPTH)
    with pytest.raises(FormatError, match=f"deeper than {DEPTH} levels"):
        read_json("[" * (DEPTH + 1) + "]" * (DEPTH + 1))
    assert read_json(json.dumps(["[" * 500, "{" * 500])) == ["[" * 500, "{" * 500]


def test_numbers_are_kept_up_to_what_a_float_holds():
    """Infinities only where Python's own writer may have put them."""
    assert read_json("[" + "9" * 308 + ", 1.7e308, -0.0]") == [int("9" * 308), 1.7e308, 0.0]
    assert read_json("[Infinity]", infinite=True) == [math.inf]
    for text in ("Infinity", "-Infinity", "NaN", "-" + "1" * 309, "-1e400"):
        with pytest.raises(FormatError):
            read_json(text)


def test_places_are_found_and_written():
    """The innermost value that is there."""
    text = '{\n"a": [\n1,\n{"b": "}\\"]"}\n],\n"c": 2\n}'
    assert [line_of(text, place) for place in (("a", 1, "b"), ("c",), ("a", 1, "x"), ("x",))] == [4, 6, 4, 1]
    assert dotted(("a", 1, "b")) == "a[1].b"


def test_types_are_those_of_the_annotations():
    """What annotations say, as far as they can be checked."""
    good = [
        (1, float),
        (1.5, float | None),
        ((1.0, 2.0), tuple[float, float]),
        ("a", Literal["a", "b"]),
        ({"a": 1}, dict[str, int]),
        (print, "not read"),
    ]
    bad = [
        (True, int),
        (1.0, int),
        ("1", float),
        ((1,), tuple[int, int]),
        (1, Literal[True]),
        ("a", tuple[str, ...]),
    ]
    assert all(fits(*one) for one in good)
    assert not any(fits(*one) for one in bad)


# What mutations put in the place of a value, besides other values of the same file.
ODD = [
    *(None, True, False, 0, -1, 1, 2**63, -(10**30), 10**309, 0.5, -0.0, 1e308, -1e-320),
    *(math.nan, math.inf, -math.inf, "", "x", "edge", "-1", "1e999", "\ud800", "\x00\x1b[2J", "2026-01-01"),
    *([], {}, [[]], [None], ["", 1], {"": {}}, {"class": "Cascade"}, {"class": ["Gate"]}, {"float": "inf"}),
    *({"float": "x"}, {"function": "disagreement"}, {"class": "Price", "input_usd": math.nan}),
    functools.reduce(lambda inner, _: [inner], range(150), 0),
    functools.reduce(lambda inner, _: {"a": inner}, range(60), 0),
]
PIECES = [
    b'"',
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b"NaN",
    b"1e999",
    b"-",
    b"\\",
    b"\\ud800",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
]
PIECES += [
    b"9" * 400,
    b"[" * 1000,
    b'{"a":' * 200,
    b'"id":1,',
    b"\xef\xbb\xbf",
    b"\x1f\x8b",
    b"null",
    b"true",
    b"1.0",
    b"0e0",
]
VALUES = st.recursive(
    st.sampled_from(ODD) | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


def places_in(value, place=()):
    """Every place in a JSON value."""
    yield place
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, one in inner:
        yield from places_in(one, (*place, step))


def at(value, place):
    """What stands at a place."""
    return functools.reduce(lambda inner, step: inner[step], place, value)


def with_other_bytes(draw, text):
    """A file of which bytes were lost, added or changed."""
    content = bytearray(text.encode())
    for _ in range(draw(st.integers(1, 4))):
        begin = draw(st.integers(0, len(content)))
        end = min(len(content), begin + draw(st.integers(0, 20)))
        content[begin:end] = draw(st.sampled_from(PIECES) | st.binary(max_size=6))
    return bytes(content)


def with_other_values(draw, text):
    """A file of which values were changed, moved or taken away, and keys renamed or written twice."""
    data = json.loads(text)
    for _ in range(draw(st.integers(1, 3))):
        places = [*places_in(data)][1:]
        if not places:
            break
        *way, step = draw(st.sampled_from(places))
        around = at(data, way)
        kind = draw(st.sampled_from(["change", "change", "move", "take", "rename"]))
        if kind == "take":
            del around[step]
        elif kind == "move":
            around[step] = copy.deepcopy(at(data, draw(st.sampled_from(places))))
        elif kind == "rename" and isinstance(around, dict):
            around[draw(st.sampled_from(["class", "", "v", "id", "x"]))] = around.pop(step)
        else:
            # A copy: the next change may be inside.
            around[step] = copy.deepcopy(draw(VALUES))
    return json.dumps(data) + "\n"


def mutated(draw, text):
    """A file as nobody would write it, or only somebody who means harm."""
    kind = draw(st.sampled_from(["bytes", "values", "values", "anything"]))
    if kind == "anything":
        return draw(st.binary(max_size=200) | VALUES.map(json.dumps).map(lambda one: one.encode() + b"\n"))
    return with_other_bytes(draw, text) if kind == "bytes" else with_other_values(draw, text).encode()


def used_policy(policy):
    """Show it, and write and read it again."""
    assert repr(policy)
    assert to_json(from_json(to_json(policy))) == to_json(policy)


def used_entries(entries):
    """Show each, and write them as the log does; the report draws them all."""
    for entry in entries:
        json.dumps(entry.decision.to_dict(), allow_nan=False)
        assert entry.decision._repr_html_()
    assert log_page(entries)


def used_rows(rows):
    """Write each again, and give it to signals as `confroute signals` does."""
    for row in rows:
        json.dumps(row.to_dict(), allow_nan=False)
        assert (row.context is None) == ((row.extra.get("context") or {}).get("passages") is None)
        assert isinstance(row.question, str)
        with_signals(row)


USES = {"policy": used_policy, "log": used_entries, "run": used_rows, "prompts": used_rows}
ERRORS = {
    **dict.fromkeys(("run", "prompts", "labels", "pairs"), RecordError),
    **dict.fromkeys(("policy", "gold", "head", "probe"), (PolicyError, MissingExtraError)),
    "log": LogError,
    "modules": ModelError,
}
SEEDS = [
    to_json(POLICY),
    *(one.read_text() for one in sorted(Path(__file__).parent.glob("policy/files/*.json"))),
]


def fuzzed(kind, folder, data):
    """Read a file that was changed: it is refused by its documented error, or what was read can be used."""
    seeds = SEEDS if kind == "policy" else [READERS[kind].text or (folder / READERS[kind].name).read_text()]
    path = folder / READERS[kind].name
    before = path.read_bytes() if path.exists() else None
    path.write_bytes(mutated(data.draw, data.draw(st.sampled_from(seeds))))
    try:
        read = READERS[kind].read(path)
    except ERRORS[kind]:
        return
    finally:
        if before is not None:
            path.write_bytes(before)
    USES.get(kind, repr)(read)


def fuzzed_record(data):
    """Call through a store that holds a changed record: a kept draft comes back, whatever stands there."""
    key, policy = data.draw(st.sampled_from([*RECORDED.items()]))
    # What is drawn goes by the record's length, and a budget's record holds where in the day it was written.
    store = MemoryStore(clock=lambda: EARLY)
    # Escalated calls are labelled at once, kept ones in another thread: those are not drawn.
    always, never = policy(store, 1.0), policy(store, 1e-12)
    routed(always, logprob=-2.0)
    text = mutated(data.draw, store._records[key])
    store._records[key] = text.decode("utf-8", "surrogateescape")
    assert routed(never).decision.route == "edge"
    with contextlib.suppress(StateError, TierError):
        routed(always, logprob=-2.0)
    assert store.remove(key)
    assert routed(always, logprob=-2.0).decision.route == "cloud"


def routed(policy, logprob=-0.01):
    """One call."""
    models = {"edge": ScriptedModel([Reply(text="4", logprob=logprob)]), "cloud": ScriptedModel(["four"])}
    request = Request(messages=(Message(role="user", text="2 + 2?"),))
    return run(policy, request, ScriptedCalls(models=models).call(request), {})


PLAIN = Cascade.of(TokenLogprob(), 0.3)
RECORDED = {
    "budget/cloud": lambda store, _: Paced(
        policy=PLAIN,
        budgets=(Budget(limit=10, unit="calls", pace=Pace(signal="token_logprob", ladder=(0.1, 0.5))),),
        store=store,
    ),
    "learn/edge/token_logprob": lambda store, share: LearnOnline(policy=PLAIN, share=share, store=store),
    "learn/edge/token_logprob/rows": lambda store, share: LearnOnline(policy=PLAIN, share=share, store=store),
    "audit/edge": lambda store, share: Audited(
        policy=PLAIN, test=DriftTest(level=0.05), share=share, store=store
    ),
}

WORDS = [
    *(
        "The answer is ",
        "\\boxed{",
        "}",
        "####",
        "<think>",
        "</think>",
        "42",
        "1,234.5",
        "1 234,5",
        "½",
        "3/4",
        "10^",
        "e9",
    ),
    *(
        "-",
        "\u2212",
        "$",
        "%",
        " km",
        "A.",
        "(B)",
        "\n",
        "\\frac{1}{",
        "\\text{",
        "2026-01-02",
        "3/4/2026",
        "12:30",
        "zwölf",
        "三百",
    ),
    *(
        "twenty-one",
        "million",
        "between 3 and ",
        "not ",
        "²",
        "٣",
        "\u200b",
        "\ud800",
        "\x00",
        "9" * 400,
        "{" * 50,
        '{"a": ',
    ),
]
TEXTS = st.lists(st.sampled_from(WORDS) | st.text(max_size=6), max_size=12).map("".join) | st.text(
    max_size=60
)


def fuzzed_answer(text, question, reference):
    """Read an answer in every way: nothing is raised, and a span lies in its text."""
    assert set(options_in(question)) <= {*"ABCDEFGHIJ"}
    for kind in get_args(Kind):
        assert isinstance(final_answer(text, question, kind=kind), str | None)
        span = final_span(text, question, kind=kind)
        assert span is None or 0 <= span[0] <= span[1] <= len(text)
        assert all(0 <= low <= high <= len(text) for low, high in answer_spans(text, question, kind=kind))
    assert graded(None, text, question, reference) in (None, 0.0, 1.0)
    tokens = text.split(" ")
    assert isinstance(field_logprobs(tokens, (-0.1,) * len(tokens), text), dict)


# A time of day at which the pace of a first call is cut back: its record holds every kind of number.
EARLY = 1000.1 * 86_400
FAST, LONG = 40, int(os.environ.get("CONFROUTE_FUZZ", "2000"))
LOUD = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]


def examples(count):
    """So many, without a limit of time for each."""
    return settings(max_examples=count, suppress_health_check=LOUD, print_blob=True)


@EACH
@examples(FAST)
@given(data=st.data())
def test_no_file_raises_what_is_not_documented(kind, data, fuzz_folder):
    """A few changes of each kind of file; `make test-slow` makes many."""
    fuzzed(kind, fuzz_folder, data)


@examples(FAST)
@given(data=st.data())
def test_no_record_costs_a_kept_draft(data):
    """A few changes of each kind of record."""
    fuzzed_record(data)


@examples(FAST)
@given(text=TEXTS, question=TEXTS, reference=TEXTS | VALUES)
def test_no_answer_is_an_error(text, question, reference):
    """Models write anything."""
    fuzzed_answer(text, question, reference)


@pytest.mark.slow
@pytest.mark.timeout(0)
@EACH
@examples(LONG)
@given(data=st.data())
def test_no_file_raises_what_is_not_documented_for_long(kind, data, fuzz_folder):
    """Many changes of each kind of file: CONFROUTE_FUZZ says how many."""
    fuzzed(kind, fuzz_folder, data)


@pytest.mark.slow
@pytest.mark.timeout(0)
@examples(LONG)
@given(data=st.data())
def test_no_record_costs_a_kept_draft_for_long(data):
    """Many changes of each kind of record."""
    fuzzed_record(data)


@pytest.mark.slow
@pytest.mark.timeout(0)
@examples(LONG)
@given(text=TEXTS, question=TEXTS, reference=TEXTS | VALUES)
def test_no_answer_is_an_error_for_long(text, question, reference):
    """Many answers."""
    fuzzed_answer(text, question, reference)


@given(
    st.lists(st.one_of(st.floats(), st.integers(-3, 3), st.booleans(), st.none(), st.just("1")), max_size=6),
    st.sampled_from([-math.inf, 0.0]),
)
def test_lists_of_numbers_are_read_as_their_numbers_are(values, low):
    """A flawless list is taken as a whole; the first fault is named by its place, as `number` names it."""

    def outcome(read):
        try:
            return read()
        except FormatError as error:
            return str(error)

    one_by_one = outcome(lambda: [number(value, f"x[{at}]", low=low) for at, value in enumerate(values)])
    found = outcome(lambda: numbers(values, "x", low=low))
    assert found == one_by_one
    assert found is not values


def test_a_list_that_is_read_is_a_copy():
    """What is read does not change with what it was read from."""
    names = ["a", "b"]
    assert texts(names, "x") == names
    assert texts(names, "x") is not names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"a": 1\n', "Expecting ',' delimiter at its end"),
        ('{"a": ', "Expecting value at its end"),
        ('{"a" 1}\n', "Expecting ':' delimiter at column 6"),
    ],
)
def test_an_error_says_where_a_line_breaks_off(text, says):
    """Not at the first column of the line behind it."""
    with pytest.raises(FormatError, match=says):
        read_json(text)
