"""Which JSON of a model's output is the answer that was validated, and what its values cost in nats."""

import json

import pytest

from confroute.hosts.tool_calls import Verdict, with_verdict
from confroute.signals.fields import field_logprobs
from confroute.types import Generation

SURE = -0.001
PLACE = {"name": "Kyoto", "euros": 9}
ANSWER = json.dumps(PLACE)
WRITTEN = [('{"name": "', SURE), ("Kyoto", -0.5), ('", "euros": ', SURE), ("9", -2.0), ("}", SURE)]
FOUND = {"name": (-0.5,), "euros": (-2.0,)}


def certain(*words):
    return [(word, SURE) for word in words]


def fields(pairs, answer=ANSWER):
    tokens, logprobs = zip(*pairs, strict=True)
    return field_logprobs(tokens, logprobs, answer)


@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param(WRITTEN, id="alone"),
        pytest.param(
            [*certain("<think>", "The set {a} is", "</think>"), *WRITTEN], id="braces in the reasoning"
        ),
        pytest.param(
            [*certain('<think>maybe {"name": "x", "euros": 4}', "</think>"), *WRITTEN],
            id="JSON in the reasoning",
        ),
        pytest.param([*certain(f"<think>{ANSWER}?", "</think>"), *WRITTEN], id="the answer in the reasoning"),
        pytest.param([*certain("Here [", "1", "]", " it is:\n"), *WRITTEN], id="a reference in the prose"),
        pytest.param([*WRITTEN, *certain("\nas in [", "2", "]")], id="a reference after it"),
    ],
)
def test_the_validated_json_is_found(pairs):
    """Whatever stands around it."""
    assert fields(pairs) == FOUND


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        (('{"name": "', "\\xf0\\x9f", "\\x97\\xbc", '", "euros": ', "9", "}"), "\U0001f5fc"),
        (('{"name": "', "\ufffd", "\ufffd", '", "euros": ', "9", "}"), "\U0001f5fc"),
        (('{"name":\u0120"', "Ky", "oto", '",\u0120"euros":\u0120', "9", "}"), "Kyoto"),
    ],
)
def test_tokens_that_are_parts_of_characters(tokens, name):
    """Byte escapes, replacement characters and raw names; the value at doubt keeps its 2 nats."""
    found = fields(
        [*zip(tokens, (SURE, -0.5, -0.5, SURE, -2.0, SURE), strict=True)], json.dumps({**PLACE, "name": name})
    )
    assert found == {"name": (-0.5, -0.5), "euros": (-2.0,)}


@pytest.mark.parametrize(
    "answer",
    [
        '{"name": "Kyoto", "euros": 9.0}',
        '{"name": "Kyoto", "euros": "9"}',
        '{"name": "Kyoto", "euros": 9, "currency": "EUR"}',
        '{"city": "Kyoto", "price": 9}',
        '{"name": "KYOTO, Japan", "euros": 9}',
        '[{"arguments": {"name": "Kyoto", "euros": 9}, "name": "book"}]',
    ],
)
def test_what_validation_changed_is_still_the_answer(answer):
    """Types, defaults, aliases, one value that a validator rewrote, and the arguments of the only call."""
    assert fields(WRITTEN, answer) == FOUND


def test_calls_that_are_written_apart():
    """Each call of Hermes' form counts, and its number begins its paths; a call that was not scored takes the evidence away."""
    first, second = ({"name": "add", "arguments": {"a": a}} for a in (1, 2))
    pairs = [
        *certain('<tool_call>{"name": "', "add", '", "arguments": {"a": ', "1", "}}</tool_call>"),
        *certain('<tool_call>{"name": "', "add", '", "arguments": {"a": '),
        ("2", -3.0),
        ("}}</tool_call>", SURE),
    ]
    found = fields(pairs, json.dumps([first, second]))
    assert found == {
        "[0].name": (SURE,),
        "[0].arguments.a": (SURE,),
        "[1].name": (SURE,),
        "[1].arguments.a": (-3.0,),
    }
    assert fields(pairs[:5], json.dumps([first, second])) == {}
    assert fields(pairs[:5], json.dumps([first])) == {"name": (SURE,), "arguments.a": (SURE,)}


def test_words_before_a_call_say_nothing_about_it():
    """Scored words, even with JSON in them, before a call without scores: no evidence is left."""
    for words in (("Let", " me", " see."), ('I saw {"city": ', '"Oslo"}', ".")):
        draft = Generation(
            text="".join(words), tokens=words, logprobs=(SURE,) * 3, top_logprobs=((("a", SURE),),) * 3
        )
        judged = with_verdict(draft, Verdict(answer='[{"arguments": {"city": "Rome"}, "name": "book"}]'))
        assert (judged.fields, judged.logprobs, judged.tokens, judged.top_logprobs) == ({}, None, None, None)
        assert with_verdict(draft, Verdict()).logprobs == draft.logprobs


def test_two_that_might_be_meant_are_none():
    """Of two drafts with the right names, neither of which has the values, nobody knows which was validated."""
    pairs = [*certain('{"name": "', "a", '", "euros": 1} {"name": "', "b", '", "euros": 2}')]
    assert fields(pairs) == {}
    assert fields(certain("[" * 3000)) == {}


def test_a_name_that_no_schema_declares_is_its_place():
    """At any depth, and each on its own, so that the worst value counts as ever."""
    text = '{"a": {"Jane": 1, "b": 2, "John": [3, {"Jane": 4}]}}'
    tokens = [*text]
    logprobs = [-float(token) if token.isdigit() else -0.0 for token in tokens]
    assert field_logprobs(tokens, logprobs, text, names={"a", "b"}) == {
        "a.*0": (-1.0,),
        "a.b": (-2.0,),
        "a.*2[0]": (-3.0,),
        "a.*2[1].*0": (-4.0,),
    }
    assert field_logprobs(tokens, logprobs, text, names=())["*0.*1"] == (-2.0,)
