"""Tool calls: an edge's are kept only if they could be made; agents notice nothing."""

import json
from types import SimpleNamespace

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, CodeActAgent, FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ToolCallBlock
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.tools import FunctionTool, QueryEngineTool
from llama_index.llms.openai_like import OpenAILike

from confroute import Cascade, KeepPrivate, SelfConsistency, TokenLogprob, record
from confroute.errors import TierError
from confroute.testing import Reply
from llamaindex_confroute.messages import calls_in, portable
from llamaindex_confroute.testing import ToolReply

USER = [ChatMessage(role="user", content="What is 1 + 2?")]
ADD = (("add", {"a": 1, "b": 2}),)
FORMS = ("chat_with_tools", "achat_with_tools", "stream_chat_with_tools", "astream_chat_with_tools")
# A tool call has no log-probabilities: samples that agree are the evidence.
AGREEING = Cascade.of(SelfConsistency(n=2, step=2), 0.4)


def add(a: int, b: int = 2) -> int:
    """Add two numbers."""
    return a + b


TOOLS = [FunctionTool.from_defaults(add)]


def calling(*replies):
    """Replies that call tools, without log-probabilities as providers give none for calls."""
    return [ToolReply(calls=one, logprob=None) if isinstance(one, tuple) else one for one in replies]


async def ask(llm, form, **kwargs):
    """Call in one form; the responses."""
    called = getattr(llm, form)(TOOLS, chat_history=USER, **kwargs)
    if form.startswith("a"):
        called = await called
    if "stream" not in form:
        return [called]
    return [chunk async for chunk in called] if form.startswith("a") else list(called)


@pytest.mark.parametrize("form", FORMS)
async def test_good_call_of_the_edge_is_kept(kit, form):
    """In all four forms, and read back by the router."""
    llm = kit.router(kit.scripted(*calling(ADD), name="small"), policy=AGREEING)
    *_, last = await ask(llm, form)
    assert kit.decision(last)["route"] == "edge"
    (selection,) = llm.get_tool_calls_from_response(last)
    assert (selection.tool_name, selection.tool_kwargs) == ("add", {"a": 1, "b": 2})


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("calls", "why"),
    [
        ((("subtract", {"a": 1, "b": 2}),), "a call of a tool that was not offered"),
        ((("add", {"b": 2}),), "does not fit its schema: a (missing)"),
        ((("add", {"a": "many"}),), "does not fit its schema: a (int_parsing)"),
        ((("add", '{"a": 1, "b":'),), "are not a JSON object"),
        ((("add", {"a": 1, "c": 3}),), "a name that the schema does not"),
        ((*ADD, *ADD), "2 tool calls where one is allowed"),
    ],
)
async def test_bad_call_of_the_edge_escalates(kit, form, calls, why):
    """However certain it is, and without repeating what it said."""
    large = kit.scripted(*calling(ADD), name="large")
    llm = kit.router(kit.scripted(ToolReply(calls=calls, logprob=-0.01), name="small"), large)
    *_, last = await ask(llm, form)
    decision = kit.decision(last)
    assert (decision["route"], why in decision["reason"]) == ("cloud", True)
    assert "many" not in decision["reason"]
    assert llm.get_tool_calls_from_response(last)[0].tool_kwargs == {"a": 1, "b": 2}


def test_parallel_calls_where_allowed(kit):
    """And refused where not; a required call must come."""
    edge = kit.scripted(*calling((*ADD, ("add", {"a": 5}))), name="small")
    llm = kit.router(edge, policy=AGREEING)
    response = llm.chat_with_tools(TOOLS, "What?", allow_parallel_tool_calls=True)
    assert len(llm.get_tool_calls_from_response(response)) == 2
    silent = kit.router(kit.sure("three"), kit.scripted(*calling(ADD), name="large"))
    assert kit.decision(silent.chat_with_tools(TOOLS, "What?", tool_required=True))["route"] == "cloud"
    assert kit.decision(silent.chat_with_tools(TOOLS, "What?"))["route"] == "edge"


def test_samples_compare_calls_in_canonical_form(kit):
    """Order, defaults and number types do not make another call; other arguments do."""
    same = calling((("add", {"b": 2, "a": 1}),), (("add", {"a": "1"}),))
    other = calling((("add", {"a": 1, "b": 3}),), (("add", {"a": 9}),))
    for samples, route in ((same, "edge"), (other, "cloud")):
        edge = kit.scripted(*calling(ADD), name="small", samples=samples)
        llm = kit.router(edge, policy=AGREEING)
        assert kit.decision(llm.chat_with_tools(TOOLS, "What?"))["route"] == route


def test_only_models_that_can_are_asked(kit):
    """A model without tool calling is passed over, and named when nothing else may answer."""
    llm = kit.router(MockLLM(), kit.scripted(*calling(ADD), name="large"))
    decision = kit.decision(llm.chat_with_tools(TOOLS, "What?"))
    assert (decision["route"], "cannot do tool calls" in decision["reason"]) == ("cloud", True)
    private = kit.router(
        MockLLM(), policy=Cascade.of(TokenLogprob(), 0.3, rules=(KeepPrivate(patterns=("What",)),))
    )
    with pytest.raises(TierError, match="cannot call tools"):
        private.chat_with_tools(TOOLS, "What?")
    assert kit.decision(llm.chat_with_tools([], "What?", confroute_route="edge"))["route"] == "edge"


def test_histories_stay_as_they_were(kit):
    """Providers append to the list they get: the cloud must not see the question twice, nor the caller."""
    edge, large = kit.unsure(), kit.cloud()
    history = [ChatMessage(role="user", content="h")]
    kit.router(edge, large).chat_with_tools(TOOLS, "U", chat_history=history)
    assert history == [ChatMessage(role="user", content="h")]
    assert edge.model.calls[0].prompt == large.model.calls[0].prompt == "user: h\nuser: U"


def test_plain_answers_call_nothing(kit):
    """Of either model, also one that knows no tools: an empty list, or the host's error."""
    for edge in (kit.sure(), MockLLM()):
        llm = kit.router(edge)
        response = llm.chat(USER, confroute_route="edge")
        assert llm.get_tool_calls_from_response(response, error_on_no_tool_call=False) == []
        with pytest.raises(ValueError, match="at least one"):
            llm.get_tool_calls_from_response(response)


@pytest.mark.parametrize("route", ["edge", "cloud"])
async def test_predict_and_call(kit, route):
    """The host executes, the router only answers."""
    edge = (
        kit.scripted(*calling(ADD), name="small")
        if route == "edge"
        else kit.scripted(*calling((("no", {}),)), name="small")
    )
    llm = kit.router(edge, kit.scripted(*calling(ADD), name="large"), policy=AGREEING)
    assert llm.predict_and_call(TOOLS, "What?").response == "3"
    assert (await llm.apredict_and_call(TOOLS, "What?")).response == "3"


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("route", ["edge", "cloud"])
async def test_function_agent(kit, route, streaming):
    """Two steps: a call and an answer, by the same or by different models."""
    calls = calling(ADD if route == "edge" else (("no", {}),))
    edge = kit.scripted(
        *calls,
        Reply(text="It is 3.", logprob=-0.05 if route == "edge" else -1.0),
        name="small",
        samples=calling(ADD),
    )
    large = kit.scripted(*calling(ADD), "It is three.", name="large")
    policy = Cascade(gates=(Cascade().gates[0], *AGREEING.gates))
    agent = FunctionAgent(tools=TOOLS, llm=kit.router(edge, large, policy=policy), streaming=streaming)
    with record() as decisions:
        output = await agent.run("What is 1 + 2?")
    assert str(output) == ("It is 3." if route == "edge" else "It is three.")
    assert [decision.route for decision in decisions] == [route, route]
    assert "confroute" not in str(output.response)


async def test_edge_calls_and_cloud_answers(kit):
    """The history of one provider reaches the other in a form that it takes."""
    edge = kit.scripted(*calling(ADD), Reply(text="3?", logprob=-1.0), name="small", samples=calling(ADD))
    large = kit.cloud("It is three.")
    policy = Cascade(gates=(Cascade().gates[0], *AGREEING.gates))
    agent = FunctionAgent(tools=TOOLS, llm=kit.router(edge, large, policy=policy))
    assert str(await agent.run("What is 1 + 2?")) == "It is three."
    assert large.model.calls[0].prompt.endswith('assistant: add {"a": 1, "b": 2}\ntool: 3')


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("edge", ["sure", "unsure"])
async def test_react_agent(kit, edge, streaming):
    """Tool calls in text."""
    steps = [
        'Thought: I add.\nAction: add\nAction Input: {"a": 1, "b": 2}',
        "Thought: I can answer without using any more tools.\nAnswer: It is 3.",
    ]
    small = kit.scripted(
        *[Reply(text=step, logprob=-0.05 if edge == "sure" else -1.0) for step in steps], name="small"
    )
    agent = ReActAgent(
        tools=TOOLS, llm=kit.router(small, kit.scripted(*steps, name="large")), streaming=streaming
    )
    with record() as decisions:
        assert str(await agent.run("What is 1 + 2?")) == "It is 3."
    assert {decision.route for decision in decisions} == {"edge" if edge == "sure" else "cloud"}


async def test_workflows_and_code_agents(kit):
    """The host picks its function-calling agent, and `CodeActAgent` accepts the router."""
    workflow = AgentWorkflow.from_tools_or_functions([add], llm=kit.router(kit.sure("It is 3.")))
    assert isinstance(next(iter(workflow.agents.values())), FunctionAgent)
    assert str(await workflow.run("What is 1 + 2?")) == "It is 3."
    ran = []

    async def execute(code: str) -> str:
        ran.append(code.strip())
        return "3"

    edge = kit.scripted(
        Reply(text="<execute>\nprint(1 + 2)\n</execute>"), Reply(text="It is 3."), name="small"
    )
    agent = CodeActAgent(code_execute_fn=execute, llm=kit.router(edge), tools=[])
    assert str(await agent.run("What is 1 + 2?")) == "It is 3."
    assert ran == ["print(1 + 2)"]


async def test_query_engine_as_a_tool(kit, index):
    """Calls of the tool's own engine are routed and recorded like the agent's."""
    call = (("ask", {"input": "Which city?"}),)
    edge = kit.scripted(
        *calling(call),
        Reply(text="From the text."),
        Reply(text="Paris."),
        name="small",
        samples=calling(call),
    )
    llm = kit.router(edge, policy=Cascade(gates=(Cascade().gates[0], *AGREEING.gates)))
    tool = QueryEngineTool.from_defaults(index.as_query_engine(llm=llm), name="ask", description="Ask.")
    with record() as decisions:
        assert str(await FunctionAgent(tools=[tool], llm=llm).run("Which city?")) == "Paris."
    assert len(decisions) == 3


def told(*calls, results=(), **fields):
    """A history with an assistant's calls and their results."""
    message = ChatMessage(role="assistant", content="", **fields)
    message.blocks.extend(calls)
    return [
        message,
        *[
            ChatMessage(role="tool", content=text, additional_kwargs={"tool_call_id": id_})
            for id_, text in results
        ],
    ]


def test_ollama_history_gets_ids(kit):
    """By order: two calls of one tool have one name, which Ollama uses as the id of their results."""
    calls = [{"function": {"name": "add", "arguments": {"a": n}}} for n in (1, 5)]
    history = told(additional_kwargs={"tool_calls": calls}, results=[("add", "3"), ("add", "7")])
    before = [message.model_copy(deep=True) for message in history]
    message, *results = portable(history, kit.sure())
    ids = [call.id for call in calls_in(message)]
    assert len(set(ids)) == 2
    assert [result.additional_kwargs["tool_call_id"] for result in results] == ids
    assert "tool_calls" not in message.additional_kwargs
    assert history == before


def test_results_out_of_order_keep_their_call(kit):
    """Where names tell them apart."""
    calls = (
        ToolCallBlock(tool_name="add", tool_kwargs={"a": 1}),
        ToolCallBlock(tool_name="sub", tool_kwargs={"a": 1}),
    )
    message, first, second = portable(told(*calls, results=[("sub", "0"), ("add", "2")]), kit.sure())
    add_id, sub_id = (call.id for call in calls_in(message))
    assert (first.additional_kwargs["tool_call_id"], second.additional_kwargs["tool_call_id"]) == (
        sub_id,
        add_id,
    )


def test_good_ids_stay(kit):
    """And arguments become objects, OpenAI's own among them."""
    function = SimpleNamespace(name="add", arguments='{"a": 1}')
    history = told(
        ToolCallBlock(tool_call_id="c9", tool_name="add", tool_kwargs='{"a": 1}'), results=[("c9", "3")]
    )
    history[0].additional_kwargs["tool_calls"] = [SimpleNamespace(id="c9", function=function)]
    message, result = portable(history, kit.sure())
    assert calls_in(message)[0].arguments == {"a": 1}
    assert message.blocks[-1].tool_kwargs == {"a": 1}
    assert result.additional_kwargs == {"tool_call_id": "c9"}
    assert "tool_calls" not in message.additional_kwargs


def test_ollama_history_on_the_openai_wire(kit, openai_server):
    """Every call has an id and its result the same one."""
    large = OpenAILike(
        model="large",
        api_base=openai_server.url,
        api_key="k",
        is_chat_model=True,
        is_function_calling_model=True,
        max_retries=0,
    )
    calls = [{"function": {"name": "add", "arguments": {"a": 1, "b": 2}}}]
    history = [*USER, *told(additional_kwargs={"tool_calls": calls}, results=[("add", "3")])]
    llm = kit.router(kit.unsure(), large)
    assert kit.decision(llm.chat_with_tools(TOOLS, chat_history=history))["route"] == "cloud"
    (body,) = openai_server.bodies
    _, assistant, tool = body["messages"]
    assert assistant["tool_calls"][0]["id"] == tool["tool_call_id"]
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == {"a": 1, "b": 2}
    assert body["tools"][0]["function"]["name"] == "add"
