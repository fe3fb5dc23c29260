"""Every file that anybody may have written is read, or refused by an error that names file, line and field."""

import gzip
import json
import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Literal

import pytest

from confroute import Cascade, KeepPrivate, TokenLogprob
from confroute.budget import Budget, Paced
from confroute.cli.judge import _gold
from confroute.decision import Decision, Measurement, Step
from confroute.errors import ConfrouteError, FormatError
from confroute.heads import WordRidge, load_head, save_head
from confroute.judge.agreement import read_items
from confroute.labels.rows import Label, read_labels
from confroute.models.embed import check_modules
from confroute.observe.log import read_log
from confroute.policy import load_policy
from confroute.policy.files import to_json
from confroute.prices import Price
from confroute.reading import DEPTH, dotted, fits, json_lines, line_of, read_json
from confroute.recording import Row, Side, read_rows
from confroute.recording.prompts import read_prompts
from confroute.signals.probe import ProbeWeights
from confroute.types import Usage

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
        ConfrouteError, match=rf"policy\.json, line {line + 1}: .*policy\.policy\.rules stands twice"
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
