"""Tools, structured values and agents."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from langchain.agents import create_agent
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.messages import AIMessage, HumanMessage
from langchain_core.runnables import RunnableBinding, RunnableLambda
from langchain_core.runnables.fallbacks import RunnableWithFallbacks
from langchain_core.tools import tool
from pydantic import BaseModel, Field

from confroute import Cascade, SelfConsistency, TokenLogprob, record
from confroute.testing import ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.structured import ToolCalls, in_openai_form
from langchain_confroute.testing import ScriptedChat
from tests.langchain.conftest import ONCE, forced


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@tool
def delete(path: str) -> str:
    """Delete a file."""
    return "gone"


class Person(BaseModel):
    """A person."""

    name: str = Field(min_length=2)
    age: int


def small(calls=None, *, logprob=-0.05, **settings):
    script = ScriptedModel(["done"], name="small")
    model = ScriptedChat.of("done", name="small", logprob=logprob)
    return model.model_copy(update={"calls": calls, "script": model.script or script, **settings})


def large(calls=None):
    return ScriptedChat.of("cloud done", name="large").model_copy(update={"calls": calls})


def router(edge, cloud=None, policy=None, **settings):
    return ChatConfRoute(
        edge=edge,
        cloud=cloud or large(),
        policy=policy or Cascade.of(TokenLogprob(), 0.5),
        edge_limits=ONCE,
        cloud_limits=ONCE,
        **settings,
    )


def decision_of(message):
    return message.response_metadata["confroute"]


GOOD = [{"name": "add", "args": {"a": 1, "b": 2}}]


async def test_good_edge_calls_are_kept():
    """Known name, fitting arguments, good evidence: the edge's call is returned, in all forms."""
    model = router(small(GOOD)).bind_tools([add])
    answers = [model.invoke("q"), await model.ainvoke("q")]
    chunks = list(model.stream("q"))
    answers.append(sum(chunks[1:], chunks[0]))
    for answer in answers:
        assert decision_of(answer)["route"] == "edge"
        assert [(c["name"], c["args"]) for c in answer.tool_calls] == [("add", {"a": 1, "b": 2})]


@pytest.mark.parametrize(
    ("calls", "why"),
    [
        ([{"name": "subtract", "args": {}}], "not offered"),
        ([{"name": "add", "args": {"a": 1}}], "does not fit"),
        ([{"name": "add", "args": {"a": "one", "b": 2}}], "does not fit"),
        ([*GOOD, {"name": "add", "args": {}}], "does not fit"),
        ([{"name": "delete", "args": {"path": "/"}}], "always the cloud's"),
    ],
)
def test_edge_calls_that_no_tool_could_take(calls, why):
    """Escalated however certain, with the reason, which never repeats the call."""
    edge, cloud = small(calls), large(GOOD)
    answer = router(edge, cloud, cloud_tools=("delete",)).bind_tools([add, delete]).invoke("q")
    assert decision_of(answer)["route"] == "cloud"
    assert why in decision_of(answer)["reason"]
    assert "subtract" not in str(decision_of(answer))
    assert answer.tool_calls[0]["args"] == {"a": 1, "b": 2}


def test_weak_evidence_escalates_a_call():
    """A valid call with doubtful tokens goes to the cloud."""
    answer = router(small(GOOD, logprob=-2.0), large(GOOD)).bind_tools([add]).invoke("q")
    assert decision_of(answer)["route"] == "cloud"
    assert decision_of(answer)["signal"] == "token_logprob"


@pytest.mark.parametrize(("sampled", "route"), [({"b": 2, "a": 1}, "edge"), ({"a": 1, "b": 3}, "cloud")])
def test_calls_are_compared_by_name_and_arguments(sampled, route):
    """Without log-probabilities the samples' calls have to agree; the order of arguments does not matter."""
    edge = small(lambda heat: [{"name": "add", "args": sampled}] if heat else GOOD, logprob=None)
    model = router(edge, policy=Cascade.of(SelfConsistency(n=3), 0.3)).bind_tools([add])
    assert decision_of(model.invoke("q"))["route"] == route


def test_a_required_call_that_is_missing():
    """tool_choice="any" and no call: the draft is of no use."""
    model = router(small([]), large(GOOD)).bind_tools([add], tool_choice="any")
    assert "has to be" in decision_of(model.invoke("q"))["reason"]
    assert decision_of(router(small([])).bind_tools([add]).invoke("q"))["route"] == "edge"


def test_original_tools_reach_each_provider():
    """Tools are bound by each model's own bind_tools, as the user gave them, inside its bindings."""
    given: list[Any] = []

    class Picky(ScriptedChat):
        def bind_tools(self, tools, *, tool_choice=None, **kwargs):
            given.append((list(tools), tool_choice, kwargs))
            return self.bind(picky_tools=len(tools))

    edge = Picky(script=ScriptedModel(["x"], name="small"), model="small")
    bound = router(edge.bind(max_tokens=9), Picky(model="large")).bind_tools(
        [add], tool_choice="any", strict=True
    )
    assert isinstance(bound, RunnableBinding)
    assert bound.kwargs["tools"][0]["function"]["name"] == "add"
    assert given == [([add], "any", {"strict": True})] * 2
    assert given[0][0][0] is add
    bound.invoke("q")
    assert edge.seen[0]["picky_tools"] == 1
    assert edge.seen[0]["max_tokens"] == 9
    assert "tools" not in edge.seen[0]
    assert "strict" not in edge.seen[0]
    assert len(given) == 2


def test_tools_given_with_a_call():
    """tools= as a call argument, or bound by hand, is bound by each provider too, once."""
    model = router(small(GOOD))
    tools = [in_openai_form(add)]
    for _ in range(2):
        answer = model.invoke("q", tools=tools)
        assert answer.tool_calls[0]["name"] == "add"
        assert decision_of(answer)["route"] == "edge"
    first = model._last_tools
    model.bind(tools=tools).invoke("q")
    assert model._last_tools is first
    bound = model.bind_tools([add])
    assert bound.invoke("q", tool_choice="any").tool_calls
    assert bound.bound._last_tools[-1]._shape.originals == [add]
    assert bound.bound._last_tools[-1]._shape.choice == "any"
    assert model.bind_tools([]).invoke("q").text == "done"


def test_an_edge_without_tools_is_passed_over():
    """bind_tools that is not implemented, or a profile that denies tools: the cloud answers, and the reason says so."""

    class NoTools(ScriptedChat):
        def bind_tools(self, *args, **kwargs):
            raise NotImplementedError("no tools here")

    denied = small(GOOD).model_copy(update={"profile": {"tool_calling": False}})
    opaque = RunnableLambda(lambda messages: AIMessage("x"))
    for edge in (NoTools(model="small"), denied, opaque):
        answer = router(edge, large(GOOD)).bind_tools([add]).invoke("q")
        assert "cannot do tools" in decision_of(answer)["reason"]
        assert answer.tool_calls
    with pytest.raises(NotImplementedError):
        router(NoTools(model="small"), large(GOOD)).bind_tools([add]).invoke("q", forced("edge"))
    with pytest.raises(NotImplementedError):
        router(small(GOOD), NoTools(model="large")).bind_tools([add])


def test_fallbacks_keep_the_router():
    """router.with_fallbacks([...]).bind_tools(...) binds the fallback as well, and so does structured output."""
    spare = large(GOOD)
    bound = router(small(GOOD)).with_fallbacks([spare]).bind_tools([add])
    assert isinstance(bound, RunnableWithFallbacks)
    assert isinstance(bound.runnable.bound, ChatConfRoute)
    assert len(bound.fallbacks) == 1
    structured = router(small()).with_fallbacks([spare]).with_structured_output(Person)
    assert isinstance(structured, RunnableWithFallbacks)


class Wide(BaseModel):
    kind: Literal["a", "b"]
    tags: list[str] = []
    inner: Person | None = None


def search(query: str, limit: int = 3) -> str:
    """Search.

    Args:
        query: What.
        limit: How many.
    """
    return query


@pytest.mark.parametrize(
    ("schema", "arguments", "fits"),
    [
        (Person, {"name": "Al", "age": 3}, True),
        (Person, {"name": "A", "age": 3}, False),
        (add, {"a": 1, "b": 2}, True),
        (add, {"a": 1, "b": "x"}, False),
        (search, {"query": "x"}, True),
        (search, {"limit": 2}, False),
        (search, {"query": 3}, False),
        (search, {"query": "x", "limit": True}, False),
        (in_openai_form(Wide), {"kind": "a", "tags": ["x"], "inner": {"name": "Al", "age": 1}}, True),
        (in_openai_form(Wide), {"kind": "c"}, False),
        (in_openai_form(Wide), {"kind": "a", "tags": [1]}, False),
        (in_openai_form(Wide), {"kind": "a", "inner": {"name": "Al"}}, False),
        (in_openai_form(Wide), {"kind": "a", "inner": None}, True),
        (
            {
                "name": "f",
                "description": "",
                "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
            },
            {"x": 1},
            False,
        ),
        ({"name": "f", "description": "", "parameters": {}}, {"x": 1}, True),
    ],
)
def test_arguments_against_schemas(schema, arguments, fits):
    """Pydantic classes, tools, functions and plain schemas."""
    name = in_openai_form(schema)["function"]["name"]
    message = AIMessage("", tool_calls=[{"name": name, "args": arguments, "id": "1"}])
    verdict = ToolCalls.of([schema], None, {}).judge("edge", message)
    assert (verdict.flaw is None) == fits


def test_calls_are_last_tools_to_what_was_asked_for():
    """An argument that a class does not name, and a second call where parallel calls were ruled out, are flaws."""
    model = router(small([{"name": "add", "args": {"a": 1, "b": 2, "c": 3}}]), large(GOOD)).bind_tools([add])
    assert "a name that the schema does not" in decision_of(model.invoke("q"))["reason"]
    twice = router(small([*GOOD, *GOOD]), large(GOOD))
    assert decision_of(twice.bind_tools([add]).invoke("q"))["route"] == "edge"
    once = twice.bind_tools([add], parallel_tool_calls=False)
    assert "2 tool calls where one is allowed" in decision_of(once.invoke("q"))["reason"]


def structured(args, **settings):
    return small([{"name": "Person", "args": args}], **settings)


@pytest.mark.parametrize("schema", [Person, Person.model_json_schema()])
async def test_structured_output_from_the_edge(schema):
    """A value that parses and has good evidence is the edge's, parsed by its own parser."""
    with record() as decisions:
        chain = router(structured({"name": "Ann", "age": 3})).with_structured_output(schema)
        values = [chain.invoke("q"), await chain.ainvoke("q"), list(chain.stream("q"))[-1]]
    assert [d.route for d in decisions] == ["edge"] * 3
    assert values == [Person(name="Ann", age=3) if schema is Person else {"name": "Ann", "age": 3}] * 3


@pytest.mark.parametrize("args", [{"name": "Ann"}, {"name": "A", "age": 1}])
def test_structured_output_that_does_not_parse_goes_to_the_cloud(args):
    """Escalated as a flaw, usage of both counted."""
    cloud = large([{"name": "Person", "args": {"name": "Bob", "age": 4}}])
    with record() as decisions, get_usage_metadata_callback() as usage:
        value = router(structured(args), cloud).with_structured_output(Person).invoke("q")
    assert value == Person(name="Bob", age=4)
    assert "does not parse" in decisions[0].reason
    assert set(usage.usage_metadata) == {"small", "large"}


def test_no_structured_value_goes_to_the_cloud():
    """None is no value."""
    cloud = large([{"name": "Person", "args": {"name": "Bob", "age": 4}}])
    with record() as decisions:
        assert router(small([]), cloud).with_structured_output(Person).invoke("q").name == "Bob"
    assert "no structured value" in decisions[0].reason


def test_include_raw():
    """Raw message, value and error, in the host's own form; a wrong last answer is handed over with its error."""
    good = (
        router(structured({"name": "Ann", "age": 3}))
        .with_structured_output(Person, include_raw=True)
        .invoke("q")
    )
    assert (good["parsed"], good["parsing_error"]) == (Person(name="Ann", age=3), None)
    assert decision_of(good["raw"])["route"] == "edge"
    wrong = [{"name": "Person", "args": {"name": "B"}}]
    bad = router(structured({}), large(wrong)).with_structured_output(Person, include_raw=True).invoke("q")
    assert bad["parsed"] is None
    assert bad["parsing_error"] is not None
    with pytest.raises(type(bad["parsing_error"])):
        router(structured({}), large(wrong)).with_structured_output(Person).invoke("q")


def test_structured_samples_are_compared_by_value():
    """Equal values agree however they were written."""
    edge = small(
        lambda heat: [
            {"name": "Person", "args": {"age": 3, "name": "Ann"} if heat else {"name": "Ann", "age": 3}}
        ],
        logprob=None,
    )
    with record() as decisions:
        router(edge, policy=Cascade.of(SelfConsistency(n=3), 0.3)).with_structured_output(Person).invoke("q")
    assert decisions[0].route == "edge"


def test_structured_output_keeps_bound_arguments():
    """Arguments bound around an inner model are sent, which LangChain's own forwarding loses."""
    edge = structured({"name": "Ann", "age": 3})
    router(edge.bind(max_tokens=9)).with_structured_output(Person).invoke("q")
    assert edge.seen[0]["max_tokens"] == 9
    assert edge.seen[0]["tools"]


def agent_model(logprob):
    def ask(_heat):
        return GOOD

    return router(small(ask, logprob=logprob), large(GOOD))


@pytest.mark.parametrize(
    ("logprob", "route", "text"), [(-0.05, "edge", "done"), (-2.0, "cloud", "cloud done")]
)
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_agent_with_tools(logprob, route, text, asynchronous):
    """create_agent calls the tool once and answers, with one decision a step and exact usage."""
    agent = create_agent(agent_model(logprob), tools=[add])
    given = {"messages": [HumanMessage("what is 1 + 2?")]}
    with record() as decisions, get_usage_metadata_callback() as usage:
        state = await agent.ainvoke(given) if asynchronous else agent.invoke(given)
    assert [m.type for m in state["messages"]] == ["human", "ai", "tool", "ai"]
    assert state["messages"][2].content == "3"
    assert state["messages"][-1].text == text
    assert [d.route for d in decisions] == [route] * 2
    told = sum(u.total_tokens for d in decisions for u in d.usage.values())
    assert told == sum(u["total_tokens"] for u in usage.usage_metadata.values())


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_agent_without_tools_and_with_overrides(asynchronous):
    """An agent's config reaches the router."""
    agent = create_agent(router(small()), tools=[])
    given = {"messages": [HumanMessage("q")]}
    state = (
        await agent.ainvoke(given, forced("cloud")) if asynchronous else agent.invoke(given, forced("cloud"))
    )
    assert decision_of(state["messages"][-1])["stage"] == "forced"


@pytest.mark.parametrize("strategy", [Person, ToolStrategy(Person)])
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_agent_with_response_format(strategy, asynchronous):
    """The structured response comes through the router."""
    model = router(structured({"name": "Ann", "age": 3}))
    agent = create_agent(model, tools=[], response_format=strategy)
    given = {"messages": [HumanMessage("q")]}
    with record() as decisions:
        state = await agent.ainvoke(given) if asynchronous else agent.invoke(given)
    assert state["structured_response"] == Person(name="Ann", age=3)
    assert decisions[0].route == "edge"


def test_agent_with_provider_strategy():
    """ProviderStrategy binds a response format beside the tools; it reaches both models."""
    edge = ScriptedChat.of('{"name": "Ann", "age": 3}', name="small", logprob=-0.01)
    agent = create_agent(router(edge), tools=[], response_format=ProviderStrategy(Person))
    state = agent.invoke({"messages": [HumanMessage("q")]})
    assert state["structured_response"] == Person(name="Ann", age=3)
    assert "response_format" in edge.seen[0]


def test_agent_streams_no_rejected_draft():
    """stream_mode="messages" of an agent shows the cloud's text only."""
    agent = create_agent(router(small(logprob=-2.0)), tools=[])
    chunks = list(agent.stream({"messages": [HumanMessage("q")]}, stream_mode="messages"))
    assert "".join(chunk.text for chunk, _ in chunks) == "cloud done"
