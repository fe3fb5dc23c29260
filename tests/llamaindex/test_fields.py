"""How sure the edge is of each value of a structured answer or a tool call: the worst of them decides."""

import json

import pytest
from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from confroute import record
from confroute.testing import Reply, ScriptedModel, ScriptedServer
from llamaindex_confroute.testing import ToolReply


class Person(BaseModel):
    """A person."""

    name: str
    age: int


ADA = Person(name="Ada", age=36)
PROMPT = PromptTemplate("Who wrote the first program?")
# Spaces part the tokens of a scripted model.
TEXT = '{"name": "Ada", "age": 36}'
USER = [ChatMessage(role="user", content="Who wrote the first program?")]


def reply(doubtful, text=TEXT, **fields):
    """Certain of every token but the one that holds `doubtful`."""
    tokens = Reply(text=text).tokens
    logprobs = tuple(-3.0 if doubtful and doubtful in token else -0.001 for token in tokens)
    made = ToolReply if "calls" in fields else Reply
    return made(text=text, logprobs=logprobs, **fields)


def router(kit, doubtful):
    """An edge that writes JSON, and a cloud that does so too."""
    edge = kit.scripted(reply(doubtful), name="small", is_function_calling_model=False)
    return kit.router(edge, kit.cloud(ADA.model_dump_json(), is_function_calling_model=False))


async def structured(llm, form):
    """A value by one of the eight forms."""
    if "structured" in form:
        called = getattr(llm, form)(Person, PROMPT)
    else:
        called = getattr(llm.as_structured_llm(Person), form)(USER if "chat" in form else "Who?")
    called = await called if form.startswith("a") else called
    if "stream" in form:
        called = [one async for one in called][-1] if form.startswith("a") else list(called)[-1]
    return called if "structured" in form else called.raw


FORMS = (
    *("structured_predict", "stream_structured_predict", "chat", "stream_chat", "complete"),
    *("astructured_predict", "astream_structured_predict", "achat", "astream_chat", "acomplete"),
)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("doubtful", "route"), [(None, "edge"), ("name", "edge"), ("36", "cloud"), ("Ada", "cloud")]
)
async def test_fields_of_a_structured_value(kit, form, doubtful, route):
    """Each field's uncertainty is in the decision; doubt about a value counts, about a field's name it does not."""
    with record() as decisions:
        assert await structured(router(kit, doubtful), form) == ADA
    (decision,) = decisions
    fields = decision.to_dict()["signals"]["token_logprob"]["fields"]
    assert set(fields) == {"name", "age"}
    assert (decision.route, decision.uncertainty) == (route, max(fields.values()))
    assert fields["age"] == (3.0 if doubtful == "36" else 0.001)


@pytest.mark.parametrize(("doubtful", "route"), [(None, "edge"), ('"a"', "edge"), ("41", "cloud")])
async def test_fields_of_a_tool_call(kit, doubtful, route):
    """Where a server scores the text of a call, the mean over all tokens does not hide one doubtful argument."""

    def add(a: int, b: int) -> int:
        """Add."""
        return a + b

    text = '{"name": "add", "arguments": {"a": 41, "b": 1}}'
    calls = (("add", {"a": 41, "b": 1}),)
    edge = kit.scripted(reply(doubtful, text, calls=calls), name="small")
    llm = kit.router(edge, kit.scripted(ToolReply(calls=calls), name="large"))
    tools = [FunctionTool.from_defaults(add)]
    for response in (
        llm.chat_with_tools(tools, chat_history=USER),
        await llm.achat_with_tools(tools, chat_history=USER),
    ):
        decision = kit.decision(response)
        assert set(decision["signals"]["token_logprob"]["fields"]) == {"name", "arguments.a", "arguments.b"}
        assert decision["route"] == route


def test_plain_answers_have_no_fields(kit):
    """Not even if they hold JSON: nobody asked for values."""
    decision = kit.decision(router(kit, None).chat(USER))
    assert "fields" not in decision["signals"]["token_logprob"]


@pytest.mark.parametrize(("doubtful", "route"), [(None, "edge"), ("36", "cloud")])
def test_fields_over_a_real_client(kit, doubtful, route):
    """`response_format` and log-probabilities through LlamaIndex's client of OpenAI's protocol."""
    models = {"small": ScriptedModel([reply(doubtful)]), "large": ScriptedModel([TEXT])}
    with ScriptedServer(models) as server:
        edge, cloud = (
            OpenAILike(
                model=name,
                api_base=server.url,
                api_key="none",
                is_chat_model=True,
                should_use_structured_outputs=True,
                max_retries=0,
            )
            for name in models
        )
        with record() as decisions:
            assert kit.router(edge, cloud).structured_predict(Person, PROMPT) == ADA
    assert decisions[0].route == route
    assert set(decisions[0].to_dict()["signals"]["token_logprob"]["fields"]) == {"name", "age"}
    assert json.dumps(server.bodies[0]["response_format"]).count("Person")
