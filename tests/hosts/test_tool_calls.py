"""Tool calls: what no tool could take is a flaw, and equal calls have equal texts."""

import json
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError, field_validator

from confroute.hosts.tool_calls import (
    OfferedTool,
    ToolCall,
    Verdict,
    canonical_text,
    check_tool_calls,
    misfit,
    with_verdict,
)
from confroute.types import Generation


class Person(BaseModel):
    """A person."""

    name: str = Field(min_length=2)
    age: int = 30


class Record(BaseModel):
    """Every kind of schema that tools ask with."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["a", "b"]
    unit: Literal["m"] = "m"
    tags: list[str] = []
    counts: dict[str, int] = {}
    person: Person | None = None
    amount: float | str = 0.0
    sure: bool = False


ADD = OfferedTool(
    name="add",
    schema={
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a"],
    },
)
MEET = OfferedTool(name="meet", schema=Person)
TOOLS = {"add": ADD, "meet": MEET, "delete": OfferedTool(name="delete")}


def check(*calls, **rules):
    """Calls by name and arguments."""
    made = [ToolCall(name=name, arguments=arguments) for name, arguments in calls]
    return check_tool_calls(made, TOOLS, **rules)


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        ([("secret", {})], "not offered"),
        ([("add", None)], "not a JSON object"),
        ([("add", {})], "arguments lacks a"),
        ([("add", {"a": "secret"})], "a is not of type integer"),
        ([("add", {"a": True})], "a is not of type integer"),
        ([("meet", {"age": 3})], "name (missing)"),
        ([("meet", {"name": "secret", "age": "secret"})], "age (int_parsing)"),
        ([("meet", {"name": "secret", "secret": 1})], "a name that the schema does not"),
        ([("delete", {"path": "secret"})], "calls of 'delete' are always the cloud's"),
        ([("add", {"a": 1}), ("add", {"a": "secret"})], "a is not of type integer"),
    ],
)
def test_calls_that_no_tool_could_take(calls, why):
    """Each is named, in words that do not repeat the call."""
    verdict = check(*calls, forbidden=("delete",))
    assert why in verdict.flaw
    assert "secret" not in verdict.flaw
    assert verdict.answer is not None


def test_every_flaw_is_named_once():
    """Also where the number of calls is one of them."""
    flaw = check(("add", {}), ("add", {}), ("x", {}), parallel=False).flaw
    assert flaw == (
        "3 tool calls where one is allowed; a call of 'add' does not fit its schema: arguments lacks a; "
        "a call of a tool that was not offered"
    )


def test_no_call():
    """Useless only where one has to be made."""
    assert check() == Verdict()
    assert check(required=True).flaw == "no tool is called, though one has to be"


def test_equal_calls_have_equal_texts():
    """Order, defaults and number types do not make another call; other values do."""
    same = {check(("meet", arguments)).answer for arguments in ({"name": "Al"}, {"age": "30", "name": "Al"})}
    assert same == {'[{"arguments": {"age": 30, "name": "Al"}, "name": "meet"}]'}
    assert check(("add", {"a": 1, "b": 2})) == check(("add", {"b": 2, "a": 1}))
    assert check(("add", {"a": 1})).answer != check(("add", {"a": 2})).answer
    assert canonical_text(Person(name="Al")) == canonical_text({"age": 30, "name": "Al"})


def test_names_that_a_class_takes():
    """Its fields, their aliases, and any name where the class or the tool says so."""

    class Aliased(BaseModel):
        query: str = Field(alias="q")
        limit: int = Field(default=1, validation_alias=AliasChoices("n", "top"))

    class Open(BaseModel):
        model_config = ConfigDict(extra="allow")

    def flaw(schema, arguments, *, takes_any=False):
        tool = OfferedTool(name="t", schema=schema, open=takes_any)
        return check_tool_calls([ToolCall(name="t", arguments=arguments)], {"t": tool}).flaw

    assert flaw(Aliased, {"q": "x", "top": 2}) is None
    assert "a name that" in flaw(Aliased, {"q": "x", "bottom": 2})
    assert flaw(Aliased, {"q": "x", "bottom": 2}, takes_any=True) is None
    assert flaw(Open, {"any": 1}) is None


def test_validators_of_the_users_own():
    """Whatever they raise is a misfit, not a failure of the call."""

    class Odd(BaseModel):
        value: int

        @field_validator("value")
        @classmethod
        def check_value(cls, value):
            raise KeyError(value)

    tool = OfferedTool(name="odd", schema=Odd)
    verdict = check_tool_calls([ToolCall(name="odd", arguments={"value": 7})], {"odd": tool})
    assert verdict.flaw == "a call of 'odd' does not fit its schema: arguments (KeyError)"


def test_values_that_json_does_not_have():
    """Such arguments are compared as they were written."""

    class Handle(BaseModel):
        model_config = ConfigDict(arbitrary_types_allowed=True)
        value: complex | object

    tool = OfferedTool(name="h", schema=Handle)
    verdict = check_tool_calls([ToolCall(name="h", arguments={"value": object})], {"h": tool})
    assert verdict.flaw is None
    assert "object" in verdict.answer


def test_secrets_in_nested_names_stay_out():
    """A dictionary's keys come from the call."""

    class Prices(BaseModel):
        prices: dict[str, int]

    tool = OfferedTool(name="p", schema=Prices)
    call = ToolCall(name="p", arguments={"prices": {"secret": "x"}})
    assert check_tool_calls([call], {"p": tool}).flaw.endswith("prices (int_parsing)")
    assert misfit(Prices.model_json_schema(), {"prices": {"secret": "x"}}) == (
        "a value of prices is not of type integer"
    )


@pytest.mark.parametrize(
    ("schema", "value", "fits"),
    [
        ({}, {"x": 1}, True),
        (True, 1, True),
        (False, 1, False),
        (None, 1, True),
        ({"type": ["integer", "null"]}, None, True),
        ({"type": ["integer", "null"]}, "x", False),
        ({"type": "url"}, True, True),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, 1.5, False),
        ({"allOf": [{"type": "integer"}, {"enum": [1, 2]}]}, 3, False),
        ({"anyOf": [{"type": "object", "required": ["a"]}], "required": ["b"]}, {"a": 1}, False),
        ({"$ref": "#/definitions/x", "definitions": {"x": {"type": "integer"}}}, "1", False),
        ({"$ref": "#/$defs/missing"}, "1", True),
        ({"items": {"type": "integer"}}, [1, "x"], False),
    ],
)
def test_json_schemas(schema, value, fits):
    """The keywords that tools use; others constrain nothing."""
    assert (misfit(schema, value) is None) == fits


fields = {
    "kind": st.sampled_from(["a", "b", "c", 1]),
    "unit": st.sampled_from(["m", "km"]),
    "tags": st.lists(st.sampled_from(["x", 1]), max_size=2),
    "counts": st.dictionaries(st.text(max_size=3), st.sampled_from([1, "1"]), max_size=2),
    "person": st.sampled_from([None, {"name": "Al"}, {"age": 1}, {"name": "Al", "age": "1"}]),
    "amount": st.sampled_from([1, 1.5, "x", None]),
    "sure": st.sampled_from([True, False, 1, "yes"]),
    "other": st.just(1),
}


@given(st.fixed_dictionaries({}, optional=fields))
def test_a_schema_and_its_class_agree(arguments):
    """What the class refuses, strictly read, its JSON schema refuses here, and nothing else."""
    try:
        Record.model_validate_json(json.dumps(arguments), strict=True)
        valid = True
    except ValidationError:
        valid = False
    assert (misfit(Record.model_json_schema(), arguments) is None) == valid


def test_judged_answers():
    """They carry the verdict, and the log-probabilities of each field where there are any."""
    scored = Generation(text="", tokens=('{"a": ', "1", "}"), logprobs=(-0.1, -0.5, -0.1))
    schema = {"properties": {"a": {}}}
    made = with_verdict(scored, Verdict(answer='{"a": 1}', flaw="y", schemas=(schema,)))
    assert (made.answer, made.flaw, made.fields) == ('{"a": 1}', "y", {"a": (-0.5,)})
    assert with_verdict(scored, Verdict()).fields == {}
    assert with_verdict(Generation(text=""), Verdict(answer="x")).fields == {}
