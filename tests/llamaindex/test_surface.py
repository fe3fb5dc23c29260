"""Every public name of LlamaIndex's LLM, on the router: what a caller gets is what the model alone would have given.

A name that LlamaIndex adds fails `test_every_public_name_is_covered` until it stands in one of the tables.
"""

import inspect

import pytest
from llama_index.core.base.llms.types import ChatMessage, LLMMetadata
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from llama_index_instrumentation.dispatcher import instrument_tags
from pydantic import BaseModel

from confroute import Cascade, Gate, Prefix, Threshold, TokenLogprob, record
from confroute.testing import Reply
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ToolReply

USER = [ChatMessage(role="user", content="What is 1 + 2?")]
PROMPT = PromptTemplate("What is {sum}?")
TEXT = Reply(text="It is three, I think.")
CALL = ToolReply(calls=(("add", {"a": 1, "b": 2}),))


class Sum(BaseModel):
    """A sum."""

    value: int


JSON = Reply(text='{"value": 3}')
VALUE = ToolReply(calls=(("Sum", {"value": 3}),))


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


TOOLS = [FunctionTool.from_defaults(add)]


async def result(called):
    """What a caller makes of a result in any form: awaited, and of a stream all texts and the last item."""
    called = await called if inspect.isawaitable(called) else called
    if hasattr(called, "__aiter__"):
        called = [item async for item in called]
    elif inspect.isgenerator(called):
        called = list(called)
    if isinstance(called, list) and isinstance(called[0], str):
        return "".join(called)
    if isinstance(called, list):
        return "".join(_delta(item) for item in called), _plain(called[-1])
    return _plain(called)


def _delta(item):
    return getattr(item, "delta", None) or ""


def _plain(item):
    if isinstance(item, (str, BaseModel)) and not hasattr(item, "raw"):
        return item
    if isinstance(getattr(item, "raw", None), BaseModel):
        return item.raw
    if hasattr(item, "message"):
        message = item.message
        return message.role, message.content, [block.model_dump() for block in message.blocks]
    return getattr(item, "text", None) or item.response


# Name: what the models say, and a call of it.
CALLS = {
    "chat": (TEXT, lambda llm: llm.chat(USER)),
    "achat": (TEXT, lambda llm: llm.achat(USER)),
    "stream_chat": (TEXT, lambda llm: llm.stream_chat(USER)),
    "astream_chat": (TEXT, lambda llm: llm.astream_chat(USER)),
    "complete": (TEXT, lambda llm: llm.complete("q")),
    "acomplete": (TEXT, lambda llm: llm.acomplete("q")),
    "stream_complete": (TEXT, lambda llm: llm.stream_complete("q")),
    "astream_complete": (TEXT, lambda llm: llm.astream_complete("q")),
    "predict": (TEXT, lambda llm: llm.predict(PROMPT, sum="1 + 2")),
    "apredict": (TEXT, lambda llm: llm.apredict(PROMPT, sum="1 + 2")),
    "stream": (TEXT, lambda llm: llm.stream(PROMPT, sum="1 + 2")),
    "astream": (TEXT, lambda llm: llm.astream(PROMPT, sum="1 + 2")),
    "structured_predict": (JSON, lambda llm: llm.structured_predict(Sum, PROMPT, sum="1 + 2")),
    "astructured_predict": (JSON, lambda llm: llm.astructured_predict(Sum, PROMPT, sum="1 + 2")),
    "stream_structured_predict": (JSON, lambda llm: llm.stream_structured_predict(Sum, PROMPT, sum="1 + 2")),
    "astream_structured_predict": (
        JSON,
        lambda llm: llm.astream_structured_predict(Sum, PROMPT, sum="1 + 2"),
    ),
    "chat_with_tools": (CALL, lambda llm: llm.chat_with_tools(TOOLS, "q")),
    "achat_with_tools": (CALL, lambda llm: llm.achat_with_tools(TOOLS, "q")),
    "stream_chat_with_tools": (CALL, lambda llm: llm.stream_chat_with_tools(TOOLS, "q")),
    "astream_chat_with_tools": (CALL, lambda llm: llm.astream_chat_with_tools(TOOLS, "q")),
    "predict_and_call": (CALL, lambda llm: llm.predict_and_call(TOOLS, "q")),
    "apredict_and_call": (CALL, lambda llm: llm.apredict_and_call(TOOLS, "q")),
    "get_tool_calls_from_response": (CALL, lambda llm: str(selected(llm))),
    "as_structured_llm": (JSON, lambda llm: llm.as_structured_llm(Sum).chat(USER)),
}
# The forms of what `as_structured_llm` returns, and structured values by tools.
MORE = {
    "structured achat": (JSON, lambda llm: llm.as_structured_llm(Sum).achat(USER)),
    "structured stream_chat": (JSON, lambda llm: llm.as_structured_llm(Sum).stream_chat(USER)),
    "structured astream_chat": (JSON, lambda llm: llm.as_structured_llm(Sum).astream_chat(USER)),
    "structured complete": (JSON, lambda llm: llm.as_structured_llm(Sum).complete("q")),
    "structured acomplete": (JSON, lambda llm: llm.as_structured_llm(Sum).acomplete("q")),
    "by tools": (VALUE, lambda llm: llm.structured_predict(Sum, PROMPT, sum="1 + 2")),
    "by tools, async": (VALUE, lambda llm: llm.astructured_predict(Sum, PROMPT, sum="1 + 2")),
    "text with tools": (TEXT, lambda llm: llm.chat_with_tools(TOOLS, "q")),
    "text with tools, streamed": (TEXT, lambda llm: llm.stream_chat_with_tools(TOOLS, "q")),
    "no tools": (TEXT, lambda llm: llm.achat_with_tools([], chat_history=USER)),
    "None for tools": (TEXT, lambda llm: llm.chat_with_tools(None, "q")),
    "message with tools": (CALL, lambda llm: llm.predict_and_call(TOOLS, USER[0], chat_history=list(USER))),
}


def selected(llm):
    """The calls of a whole response and of a streamed one."""
    whole = llm.chat_with_tools(TOOLS, "q")
    *_, last = llm.stream_chat_with_tools(TOOLS, "q")
    return [
        (one.tool_name, one.tool_kwargs)
        for response in (whole, last)
        for one in llm.get_tool_calls_from_response(response)
    ]


WAYS = ("kept", "escalated", "settled before", "edge down", "prefix")


def routed(kit, way, reply, **fields):
    """A router whose answer is to be what a model says alone."""
    right = kit.scripted(reply, name="large", **fields)
    if way == "escalated":
        return kit.router(kit.unsure(**fields), right)
    if way == "settled before":
        return kit.router(kit.sure(**fields), right)
    if way == "edge down":
        return kit.router(kit.down(), right)
    edge = kit.scripted(reply, name="small", **fields)
    prefix = Prefix(commit=Threshold(value=0.2), cut=Threshold(value=0.9), tokens=2, least=1)
    policy = Cascade(
        gates=(Gate(signal=TokenLogprob(), threshold=Threshold(value=0.3)),),
        on_no_signal="edge",  # tool calls come without log-probabilities
        prefix=prefix if way == "prefix" else None,
    )
    return kit.router(edge, kit.down(name="large"), policy=policy)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", [*CALLS, *MORE])
async def test_callers_notice_nothing(kit, name, way):
    """Text, chunks, values, tool calls and their results are those of the model that answered, had it been alone."""
    reply, call = {**CALLS, **MORE}[name]
    fields = {"is_function_calling_model": reply is not JSON}
    alone = await result(call(kit.scripted(reply, name="large", **fields)))
    llm = routed(kit, way, reply, **fields)
    tags = {"confroute": {"route": "cloud"}} if way == "settled before" else {}
    with record() as decisions, instrument_tags(tags):
        got = await result(call(llm))
    assert got == alone
    assert {decision.route for decision in decisions} == {"edge" if way in {"kept", "prefix"} else "cloud"}
    if way == "settled before":
        assert llm.edge.model.calls == []


def test_a_call_that_has_to_be_made_is_not_left_out(kit):
    """`predict_and_call` raises without a call: a sure edge that makes none does not answer it."""
    llm = kit.router(kit.sure("three"), kit.scripted(CALL, name="large"))
    assert llm.predict_and_call(TOOLS, "q").response == "3"
    assert llm.predict_and_call(TOOLS, "q", error_on_no_tool_call=False).response == "three"


def has_name(llm):
    """A stable name."""
    assert llm.class_name() == type(llm).class_name() == "ConfRouteLLM"


def describes_itself(llm):
    """Of the host's own type."""
    assert isinstance(llm.metadata, LLMMetadata)
    assert llm.metadata.model_name == "confroute(small->large)"


def serialises(llm):
    """Without keys and policies."""
    forms = (llm.dict(), llm.json(), llm.to_dict(), llm.to_json(), llm.to_payload(), llm.model_dump())
    assert "SECRET" not in str(forms)
    assert llm.to_dict()["edge"]["model_name"] == "small"


def loads(llm):
    """With live models, which are not in the serialised form."""
    models = {"edge": llm.edge, "cloud": llm.cloud}
    for again in (
        ConfRouteLLM.from_dict(llm.to_dict(), **models),
        ConfRouteLLM.from_json(llm.to_json(), **models),
    ):
        assert (again.edge, again.system_prompt) == (llm.edge, "Be brief.")


def has_defaults(llm):
    """The host's own prompts, and a callback manager that is never None."""
    assert llm.completion_to_prompt("x") == "x"
    assert "user: What" in llm.messages_to_prompt(USER)
    assert llm.callback_manager is not None


def converts(llm):
    """Messages as the host does."""
    assert llm.convert_chat_messages(USER)[0].content == USER[0].content


PLUMBING = {
    "class_name": has_name,
    "metadata": describes_itself,
    "dict": serialises,
    "json": serialises,
    "to_dict": serialises,
    "to_json": serialises,
    "to_payload": serialises,
    "custom_model_dump": serialises,
    "from_dict": loads,
    "from_json": loads,
    "model_config": serialises,
    "check_callback_manager": has_defaults,
    "check_prompts": has_defaults,
    "set_completion_to_prompt": has_defaults,
    "set_messages_to_prompt": has_defaults,
    "convert_chat_messages": converts,
}


@pytest.mark.filterwarnings("ignore:The `json` method is deprecated")
@pytest.mark.parametrize("name", PLUMBING)
def test_plumbing(name):
    """Over models with keys."""
    edge, cloud = (
        OpenAILike(model=model, api_base="http://127.0.0.1:1/v1", api_key=f"SECRET-{model}")
        for model in ("small", "large")
    )
    PLUMBING[name](ConfRouteLLM(edge=edge, cloud=cloud, system_prompt="Be brief."))


def host_names():
    """Public names of LlamaIndex's function-calling LLM, those of pydantic left out."""
    return {
        name
        for cls in FunctionCallingLLM.__mro__
        if cls.__module__.startswith("llama_index")
        for name in vars(cls)
        if not name.startswith("_")
    }


def test_every_public_name_is_covered():
    """What LlamaIndex adds has to be looked at."""
    assert host_names() == {*CALLS, *PLUMBING}


@pytest.mark.parametrize("name", CALLS)
def test_signatures_are_the_host_s(name):
    """Callers may pass each argument by place or by name."""
    ours, theirs = (inspect.signature(getattr(cls, name)) for cls in (ConfRouteLLM, FunctionCallingLLM))
    assert [(p.name, p.kind, p.default) for p in ours.parameters.values()] == [
        (p.name, p.kind, p.default) for p in theirs.parameters.values()
    ]
