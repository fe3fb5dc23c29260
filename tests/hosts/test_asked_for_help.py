"""The tool by which an edge asks for a larger model: offered to the edge alone, a stage of its own, never shown, never executed."""

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.tools import FunctionTool

from confroute import Cascade, KeepPrivate, TokenLogprob, record
from confroute.asks import HelpTool
from confroute.errors import PolicyError
from confroute.policy.files import load_policy, save_policy
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.middleware import ConfRouteMiddleware
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM, ToolReply

ANY, NAME = 1e9, HelpTool().name
POLICY = Cascade(gates=Cascade.of(TokenLogprob(), ANY).gates, ask_for_help=HelpTool(), on_cloud_error="edge")
HELP, ADD = {"name": NAME, "args": {}}, {"name": "add", "args": {"a": 1, "b": 2}}


@tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def plain_add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


def chats(calls, cloud=None):
    edge = ScriptedChat(script=ScriptedModel(["edge done"], name="small"), model="small", calls=calls)
    return edge, cloud or ScriptedChat.of("cloud done", name="large")


def offered(model):
    """Names of the tools of each call."""
    return [[one["function"]["name"] for one in seen.get("tools") or ()] for seen in model.seen]


@pytest.mark.parametrize("calls", [[HELP], [ADD, HELP], [{"name": NAME, "args": {"reason": "x"}}]], ids=str)
@pytest.mark.parametrize("form", ["invoke", "ainvoke", "stream", "astream"])
async def test_langchain(calls, form):
    """However certain the call is, the cloud answers, with the caller's tools alone; the edge's call is seen by nobody."""
    edge, cloud = chats(calls)
    bound = ChatConfRoute(edge=edge, cloud=cloud, policy=POLICY).bind_tools([add])
    with record() as decisions:
        if form == "invoke":
            answer = bound.invoke("1 + 2?")
        elif form == "ainvoke":
            answer = await bound.ainvoke("1 + 2?")
        elif form == "stream":
            answer = sum_of(list(bound.stream("1 + 2?")))
        else:
            answer = sum_of([chunk async for chunk in bound.astream("1 + 2?")])
    assert [call["name"] for call in answer.tool_calls] == ["add"]
    assert (decisions[0].route, decisions[0].stage) == ("cloud", "asked")
    assert decisions[0].reason == "edge asked for a larger model: cloud answers"
    assert offered(edge) == [["add", NAME]]
    assert offered(cloud) == [["add"]]


def sum_of(chunks):
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def test_what_is_no_cry_for_help_is_judged_as_ever():
    """A call of the caller's tool that fits is kept; without tools nothing is offered."""
    edge, cloud = chats([ADD])
    router = ChatConfRoute(edge=edge, cloud=cloud, policy=POLICY)
    answer = router.bind_tools([add]).invoke("1 + 2?")
    assert [call["name"] for call in answer.tool_calls] == ["add"]
    assert answer.response_metadata["confroute"]["route"] == "edge"
    assert router.invoke("hello").text == "edge done"
    assert offered(edge) == [["add", NAME], []]


def test_an_edge_that_has_to_answer_is_not_offered_help():
    """Private text, a forced route: nobody could help."""
    edge, cloud = chats(None)
    private = Cascade(gates=POLICY.gates, ask_for_help=HelpTool(), rules=(KeepPrivate(patterns=("Jane",)),))
    bound = ChatConfRoute(edge=edge, cloud=cloud, policy=private).bind_tools([add])
    bound.invoke("Jane: 1 + 2?")
    bound.invoke("1 + 2?", {"configurable": {"confroute_route": "edge"}})
    assert offered(edge) == [["add"], ["add"]]
    assert cloud.seen == []


def test_a_cry_for_help_is_never_the_answer():
    """Not even where the cloud fails and a rejected draft may be returned."""
    reply = Reply(fault=RuntimeError("down"))
    down = ScriptedChat(script=ScriptedModel([reply], name="large"), model="large", calls=[])
    edge, cloud = chats([HELP], down)
    with pytest.raises(Exception, match="asked for a larger model"):
        ChatConfRoute(edge=edge, cloud=cloud, policy=POLICY).bind_tools([add]).invoke("1 + 2?")


class Tokens(BaseCallbackHandler):
    """Everything that handlers are shown of tokens."""

    def __init__(self):
        self.seen = []

    def on_llm_new_token(self, token, *, chunk=None, **kwargs):
        self.seen.append(str(chunk))


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_agent_never_sees_it(asynchronous):
    """Neither in its state nor in any stream; the tool is never executed, since no ToolNode knows it."""
    edge, cloud = chats([HELP])
    built = create_agent(cloud, [add], middleware=[ConfRouteMiddleware(edge, policy=POLICY)])
    given, handler = {"messages": [HumanMessage("1 + 2?")]}, Tokens()
    modes, config = ["messages", "values", "updates"], {"callbacks": [handler]}
    if asynchronous:
        shown = [one async for one in built.astream(given, config, stream_mode=modes)]
    else:
        shown = list(built.stream(given, config, stream_mode=modes))
    assert NAME not in str(shown)
    assert NAME not in str(handler.seen)
    messages = [one for mode, one in shown if mode == "values"][-1]["messages"]
    assert messages[-1].text == "cloud done"
    decision = messages[1].response_metadata["confroute"]
    assert (decision["stage"], decision["route"]) == ("asked", "cloud")


@pytest.mark.parametrize("form", ["chat", "achat", "stream", "astream"])
async def test_llamaindex(form):
    """The function-calling path of LlamaIndex: the same decision, the same tools."""
    edge = ScriptedLLM(model=ScriptedModel([ToolReply(calls=((NAME, {}),))], name="small"))
    reply = ToolReply(calls=(("add", {"a": 1, "b": 2}),))
    cloud = ScriptedLLM(model=ScriptedModel([reply], name="large"))
    llm = ConfRouteLLM(edge=edge, cloud=cloud, policy=POLICY)
    messages = [ChatMessage(role="user", content="1 + 2?")]
    tools = [FunctionTool.from_defaults(plain_add, name="add")]
    with record() as decisions:
        if form == "chat":
            answers = [llm.chat_with_tools(tools, chat_history=messages)]
        elif form == "achat":
            answers = [await llm.achat_with_tools(tools, chat_history=messages)]
        elif form == "stream":
            answers = list(llm.stream_chat_with_tools(tools, chat_history=messages))
        else:
            answers = [one async for one in await llm.astream_chat_with_tools(tools, chat_history=messages)]
    assert (decisions[0].route, decisions[0].stage) == ("cloud", "asked")
    assert NAME not in str(answers)
    assert [one.tool_name for one in llm.get_tool_calls_from_response(answers[-1])] == ["add"]


def test_settings(tmp_path):
    """Saved and loaded; a name that is the caller's, or no name, is refused."""
    save_policy(POLICY, tmp_path / "policy.json")
    assert load_policy(tmp_path / "policy.json") == POLICY
    own = Cascade(gates=POLICY.gates, ask_for_help=HelpTool(name="add"))
    edge, cloud = chats(None)
    with pytest.raises(PolicyError, match="another name"):
        ChatConfRoute(edge=edge, cloud=cloud, policy=own).bind_tools([add]).invoke("1 + 2?")
    with pytest.raises(PolicyError, match="expected 1 to 64"):
        HelpTool(name="ask me")
    with pytest.raises(PolicyError, match="expected HelpTool"):
        Cascade(ask_for_help=True)
