"""How sure a model is of each value of a structured answer or a tool call."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_core.tools import tool
from pydantic import BaseModel

from confroute import Cascade, SelfConsistency, TokenLogprob, record
from confroute.observe.log import DecisionLog
from confroute.signals.fields import field_logprobs
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE


class Person(BaseModel):
    """A person."""

    name: str
    age: int


@tool
def book(city: str, nights: int) -> str:
    """Book a room."""
    return city


def edge_with(doubtful, *, calls=None, arguments=None):
    """An edge that is certain of everything but the words that hold `doubtful`."""
    text = json.dumps(arguments)
    tokens = Reply(text=text).tokens
    logprobs = tuple(-3.0 if doubtful and doubtful in token else -0.001 for token in tokens)
    script = ScriptedModel([Reply(text=text, logprobs=logprobs)], name="small")
    return ScriptedChat(script=script, model="small", calls=calls)


def router(edge):
    return ChatConfRoute(
        edge=edge,
        cloud=ScriptedChat.of("x", name="large"),
        policy=Cascade.of(TokenLogprob(), 0.5),
        edge_limits=ONCE,
        cloud_limits=ONCE,
    )


ARGS = {"city": "Rome", "nights": 3}


@pytest.mark.parametrize(
    ("doubtful", "route"), [(None, "edge"), ("city", "edge"), ("Rome", "cloud"), ("3", "cloud")]
)
def test_doubt_about_an_argument_counts_and_about_its_name_does_not(doubtful, route):
    """One doubtful value among certain ones sends a call to the cloud; the mean over all tokens would have kept it."""
    calls = [{"name": "book", "args": ARGS}]
    answer = router(edge_with(doubtful, calls=calls, arguments=[ARGS])).bind_tools([book]).invoke("q")
    decision = answer.response_metadata["confroute"]
    assert decision["route"] == route
    fields = decision["signals"]["token_logprob"]["fields"]
    assert set(fields) == {"[0].city", "[0].nights"}
    assert decision["uncertainty"] == max(fields.values())


@pytest.mark.parametrize(("doubtful", "route"), [(None, "edge"), ("40", "cloud")])
def test_fields_of_a_structured_value(doubtful, route):
    """Each field's uncertainty is in the decision, and the worst decides."""
    args = {"name": "Ada", "age": 40}
    edge = edge_with(doubtful, calls=[{"name": "Person", "args": args}], arguments=[args])
    result = router(edge).with_structured_output(Person, include_raw=True).invoke("q")
    decision = result["raw"].response_metadata["confroute"]
    assert decision["route"] == route
    fields = decision["signals"]["token_logprob"]["fields"]
    assert fields["[0].name"] == 0.001
    assert fields["[0].age"] == (0.001 if doubtful is None else 3.0)
    if route == "edge":
        assert result["parsed"] == Person(name="Ada", age=40)


def test_without_log_probabilities_samples_have_to_agree():
    """Name and canonical arguments are compared over samples: agreement keeps the call."""
    calls = [{"name": "book", "args": ARGS}]
    edge = ScriptedChat.of("x", name="small", logprob=None).model_copy(update={"calls": calls})
    model = router(edge).model_copy(update={"policy": Cascade.of(SelfConsistency(n=3), 0.3)})
    decision = model.bind_tools([book]).invoke("q").response_metadata["confroute"]
    assert (decision["route"], decision["signal"]) == ("edge", "self_consistency")


plain = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-99, 99), st.text('ab ,:{}[]"\\é', max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def leaves(value, path=""):
    if isinstance(value, dict):
        return [x for k, v in value.items() for x in leaves(v, f"{path}.{k}" if path else k)]
    if isinstance(value, list):
        return [x for i, v in enumerate(value) for x in leaves(v, f"{path}[{i}]")]
    return [path]


@given(
    value=st.one_of(st.lists(plain, max_size=3), st.dictionaries(st.sampled_from("xyz"), plain)),
    indent=st.sampled_from([None, 1]),
)
@settings(max_examples=150)
def test_every_value_of_any_json_is_found(value, indent):
    """Character tokens: each leaf has its tokens, no leaf is missed, whatever stands around the JSON."""
    text = "Here: " + json.dumps(value, indent=indent) + " done"
    found = field_logprobs(list(text), [-float(at) for at in range(len(text))], json.dumps(value))
    assert set(found) == set(leaves(value))


def test_answers_without_usable_json_have_no_fields():
    """No JSON, half of it, or tokens that are not known."""
    for text in ("plain words", '{"a": 1', '{"a" 1}', "[1, 2"):
        tokens = re.findall(r".", text)
        assert field_logprobs(tokens, [-0.1] * len(tokens), '{"a": 1}') == {}
    assert field_logprobs(None, (-0.1,), '{"a": 1}') == {}
    assert field_logprobs(['{"a": ', "1}"], (-0.1,), '{"a": 1}') == {}
    assert field_logprobs(['{"a": ', "1}"], (-0.1, -0.1), "not JSON") == {}


class Payroll(BaseModel):
    """Salaries by name."""

    salaries: dict[str, int]
    months: list[dict[str, str]] = []


@tool
def pay(salaries: dict[str, int], note: str = "") -> str:
    """Pay salaries."""
    return note


PAYROLL_FORM = {
    "title": "Payroll",
    "description": "Salaries by name.",
    "type": "object",
    "properties": {"salaries": {"type": "object", "additionalProperties": {"type": "integer"}}},
}
WRITTEN = {"salaries": {"Jane Doe": 4000, "John Roe": 5000}}


def shaped(shape, edge):
    model = router(edge)
    return (
        model.bind_tools([pay]) if shape == "tool" else model.with_structured_output(shape, include_raw=True)
    )


@pytest.mark.parametrize("form", ["invoke", "ainvoke", "stream"])
@pytest.mark.parametrize(
    ("shape", "args"),
    [
        ("tool", WRITTEN),
        (Payroll, WRITTEN),
        (PAYROLL_FORM, WRITTEN),
        (Payroll, {"salaries": {"Jane Doe": 1}, "months": [{"Jane Doe": "May"}]}),
    ],
    ids=["tool", "class", "JSON schema", "lists"],
)
async def test_names_that_the_model_wrote_stand_in_no_record(shape, args, form, tmp_path):
    """A decision, its log and its view hold the names of the schema; another key may be anybody's name."""
    name = "pay" if shape == "tool" else "Payroll"
    edge = edge_with("4000", calls=[{"name": name, "args": args}], arguments=[args])
    call = shaped(shape, edge)
    with record() as decisions, DecisionLog(tmp_path / "log.jsonl"):
        if form == "stream":
            list(call.stream("q"))
        else:
            await call.ainvoke("q") if form == "ainvoke" else call.invoke("q")
    (decision,) = decisions
    fields = decision.signals["token_logprob"].details["fields"]
    assert len(fields) == len(re.findall(r"\d+|May", json.dumps(args)))
    assert all(path.startswith(("[0].salaries.*", "[0].months[0].*")) for path in fields)
    assert max(fields.values()) == decision.uncertainty
    for text in (
        str(decision),
        repr(decision.to_dict()),
        (tmp_path / "log.jsonl").read_text(),
        decision._repr_html_(),
    ):
        assert re.search("token.logprob", text)
        assert "Jane" not in text


def test_a_flaw_names_no_word_of_the_model():
    """Where an argument is wrong deep inside, the parameter is named, and no key below it."""
    args = {"salaries": {"Jane Doe": "none"}, "Jane Doe": 1}
    edge = edge_with(None, calls=[{"name": "pay", "args": args}], arguments=[args])
    with record() as decisions:
        router(edge).bind_tools([pay]).invoke("q")
    assert "does not fit its schema: salaries (int_parsing)" in decisions[0].reason
    assert "Jane" not in repr(decisions[0].to_dict())
