"""Every place where a text stands in a request of four real clients, found in the bodies that a server was sent: none leaves privately.

A scenario fills every place that its client has with a word of its own. What the server is sent without a private rule says which of
them go out; the other texts of the body have to be the protocol's. Then each word in turn is private.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

import pytest

pytest.importorskip("langchain_openai")
pytest.importorskip("langchain_anthropic")
pytest.importorskip("langchain_ollama")
pytest.importorskip("llama_index.llms.openai_like")

from langchain_anthropic import ChatAnthropic
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_ollama import ChatOllama
from langchain_openai import ChatOpenAI
from llama_index.core.base.llms.types import (
    ChatMessage,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.core.tools.types import ToolMetadata
from llama_index.llms.openai_like import OpenAILike
from pydantic import Field, create_model

from confroute import Cascade, KeepPrivate, TokenLogprob, record
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute
from langchain_confroute.testing import ScriptedChat
from llamaindex_confroute import ConfRouteLLM
from llamaindex_confroute.testing import ScriptedLLM
from tests.servers import formats

URL = "https://example.org"
WORD = re.compile(r"zq\d\dx", re.IGNORECASE)
PROTOCOL = frozenset(
    [
        "$comment",
        "$defs",
        "$ref",
        "additionalProperties",
        "annotations",
        "approximate",
        "arguments",
        "assistant",
        "audio",
        "authorization_token",
        "call_id",
        "city",
        "const",
        "content",
        "context",
        "data",
        "data:text/plain;base64,SGVsbG8=",
        "default",
        "description",
        "document",
        "enum",
        "examples",
        "file",
        "file_data",
        "file_id",
        "filename",
        "format",
        "function",
        "function_call",
        "function_call_output",
        "functions",
        "id",
        "image",
        "image_url",
        "input",
        "input_image",
        "input_schema",
        "input_text",
        "instructions",
        "is_error",
        "json_schema",
        "keep_alive",
        "logit_bias",
        "m",
        "max_tokens",
        "mcp",
        "mcp_servers",
        "media_type",
        "message",
        "messages",
        "model",
        "name",
        "object",
        "options",
        "output",
        "output_config",
        "output_text",
        "parallel_tool_calls",
        "parameters",
        "pattern",
        "prediction",
        "prompt",
        "prompt_cache_key",
        "properties",
        "required",
        "response_format",
        "role",
        "safety_identifier",
        "schema",
        "search_result",
        "server_label",
        "server_url",
        "signature",
        "source",
        "stop",
        "stop_sequences",
        "stream",
        "strict",
        "string",
        "system",
        "temperature",
        "text",
        "text/plain",
        "thinking",
        "title",
        "tool",
        "tool_call_id",
        "tool_calls",
        "tool_choice",
        "tool_result",
        "tool_use",
        "tool_use_id",
        "tools",
        "type",
        "url",
        "user",
        "user_location",
        "variables",
        "web_search_options",
    ]
) | {""}
# Places that are sent, at the least: a client that leaves some of them out would prove less.
LEAST = {
    "ChatOpenAI": 50,
    "ChatOpenAI, formats": 27,
    "ChatOpenAI, responses": 52,
    "ChatAnthropic": 58,
    "ChatOllama": 35,
    "ChatOpenAI, bound": 4,
    "ChatOpenAI, json_schema": 30,
    "ChatOpenAI, function_calling": 21,
    "ChatAnthropic, json_schema": 30,
    "ChatAnthropic, function_calling": 21,
    "ChatOllama, json_schema": 30,
    "ChatOllama, function_calling": 14,
    "OpenAILike, chat": 44,
    "OpenAILike, tools": 43,
    "OpenAILike, value": 42,
    "OpenAILike, set up": 4,
}


class Words:
    """Hands out words that stand nowhere else."""

    def __init__(self):
        self.made: list[str] = []

    def __call__(self, place: str) -> str:
        self.made.append(f"zq{len(self.made):02d}x")
        return self.made[-1]


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A client, and calls of a router that has it as its cloud.

    `fill(word)` makes the arguments of a call, each text by `word(place)`; `call(router, form, given)` makes the call.
    """

    server: type[formats.Format]
    client: Callable[..., Any]
    fill: Callable[[Words], Any]
    shaped: Callable[[Any, Any], Any] = field(default=lambda router, given: router)
    cloud: Callable[[Any, Words], Any] = field(default=lambda client, word: client)


def schema(word):
    """A class that says something in every place that a schema has."""
    kind = Enum(word("name of an enumeration"), {"A": word("value of an enumeration")})
    inner = create_model(
        word("name of a nested class"),
        __doc__=word("documentation of a nested class"),
        **{word("nested field"): (str, Field(description=word("nested description")))},
    )
    return create_model(
        word("name of a class"),
        __doc__=word("documentation of a class"),
        **{
            word("field"): (str, Field(description=word("description"), title=word("title"))),
            word("field with examples"): (str, Field(examples=[word("example")])),
            word("field with a default"): (str, Field(default=word("default"))),
            word("field with a pattern"): (str, Field(pattern=word("pattern"))),
            word("field with more"): (
                str,
                Field(json_schema_extra={word("further key"): word("further value")}),
            ),
            word("field of an enumeration"): (kind, ...),
            word("field of a class"): (inner, ...),
            word("field of a mapping"): (dict[str, inner], ...),
        },
    )


def json_schema(word):
    """The same as a dictionary that a user wrote."""
    return {
        "title": word("title of a schema"),
        "description": word("description of a schema"),
        "type": "object",
        "$comment": word("comment of a schema"),
        "properties": {
            word("property"): {"type": "string", "description": word("description of a property")},
            word("property with a choice"): {"enum": [word("choice")], "title": word("title of a property")},
            word("property with a constant"): {"const": word("constant")},
        },
        "required": [word("required name")],
    }


def tool_of(word):
    """A tool as a dictionary, in OpenAI's form."""
    function = {
        "name": word("name of a tool"),
        "description": word("description of a tool"),
        "parameters": json_schema(word),
    }
    return {"type": "function", "function": function}


def conversation(word, *blocks):
    """Every kind of message of LangChain."""
    call, text = word("id of a call"), word("value of an argument")
    arguments = {
        word("name of an argument"): text,
        word("deep key"): [{word("deep name"): [word("deep value")]}],
    }
    broken = {
        "name": word("broken call"),
        "args": word("broken arguments"),
        "id": word("id of a broken call"),
        "error": None,
    }
    return [
        SystemMessage([{"type": "text", "text": word("system text")}], name=word("name of a system message")),
        HumanMessage(word("text"), name=word("name of a speaker")),
        AIMessage(
            word("earlier answer"),
            name=word("name of an answer"),
            tool_calls=[{"name": word("name of a call"), "args": arguments, "id": call}],
            invalid_tool_calls=[broken],
        ),
        ToolMessage(word("result"), tool_call_id=call, name=word("name of a result")),
        ToolMessage(word("result of a broken call"), tool_call_id=broken["id"]),
        HumanMessage(
            [
                {"type": "text", "text": word("block")},
                *blocks,
                {"type": "text", "text": word("last block")},
            ]
        ),
    ]


def openai_chat(word):
    """Messages and arguments of OpenAI's chat."""
    messages = conversation(
        word,
        {"type": "image_url", "image_url": {"url": f"{URL}/{word('address of an image')}.png"}},
        {"type": "file", "file": {"filename": word("name of a file"), "file_id": word("id of a file")}},
    )
    legacy = {
        "name": word("legacy call"),
        "arguments": json.dumps({word("legacy argument"): word("legacy value")}),
    }
    messages[1:1] = [
        AIMessage("", additional_kwargs={"function_call": legacy}),
        AIMessage("", additional_kwargs={"audio": {"id": word("id of audio")}}),
    ]
    return messages, {
        "stop": [word("stop")],
        "user": word("user"),
        "logit_bias": {word("biased token"): 1},
        "extra_body": {word("key of the body"): {word("inner key of the body"): word("value of the body")}},
        "tools": [tool_of(word)],
        "tool_choice": {"type": "function", "function": {"name": word("chosen tool")}},
        "prediction": {"type": "content", "content": word("prediction")},
        "prompt_cache_key": word("key of a cache"),
        "safety_identifier": word("safety identifier"),
        "web_search_options": {"user_location": {"approximate": {"city": word("city")}}},
    }


def openai_formats(word):
    """What OpenAI's chat takes in place of tools."""
    form = {"name": word("name of a format"), "schema": json_schema(word)}
    return [HumanMessage(word("text"))], {
        "response_format": {"type": "json_schema", "json_schema": form},
        "functions": [tool_of(word)["function"]],
        "function_call": {"name": word("chosen function")},
    }


def responses(word):
    """Messages and arguments of OpenAI's newer interface."""
    messages = conversation(
        word, {"type": "image_url", "image_url": {"url": f"{URL}/{word('address of an image')}.png"}}
    )
    return messages, {
        "user": word("user"),
        "extra_body": {word("key of the body"): word("value of the body")},
        "tools": [
            tool_of(word),
            {
                "type": "mcp",
                "server_label": word("label of a server"),
                "server_url": f"{URL}/{word('server')}",
            },
        ],
        "instructions": word("instructions"),
        "prompt": {
            "id": word("id of a prompt"),
            "variables": {word("variable"): word("value of a variable")},
        },
        "text": {
            "format": {"type": "json_schema", "name": word("name of a format"), "schema": json_schema(word)}
        },
    }


def anthropic(word):
    """Messages and arguments of Anthropic."""
    messages = conversation(
        word,
        {"type": "image", "source": {"type": "url", "url": f"{URL}/{word('address of an image')}.png"}},
        {
            "type": "document",
            "title": word("title of a document"),
            "context": word("context of a document"),
            "source": {"type": "text", "media_type": "text/plain", "data": word("text of a document")},
        },
        {
            "type": "search_result",
            "title": word("title of a result"),
            "source": word("source of a result"),
            "content": [{"type": "text", "text": word("text of a result")}],
        },
    )
    messages[2:2] = [
        AIMessage([{"type": "thinking", "thinking": word("thought"), "signature": word("signature")}]),
        HumanMessage(word("a turn")),
    ]
    return messages, {
        "stop": [word("stop")],
        "tools": [
            tool_of(word),
            {"name": word("tool in its own form"), "description": "", "input_schema": json_schema(word)},
        ],
        "tool_choice": {"type": "tool", "name": word("chosen tool")},
        "extra_body": {word("key of the body"): word("value of the body")},
        "mcp_servers": [
            {
                "type": "url",
                "name": word("name of a server"),
                "url": f"{URL}/{word('server')}",
                "authorization_token": word("token"),
            }
        ],
        "betas": [word("beta")],
    }


def ollama(word):
    """Messages and arguments of Ollama."""
    messages = conversation(word)
    return messages, {
        "stop": [word("stop")],
        "tools": [tool_of(word)],
        "format": json_schema(word),
        "options": {word("option"): word("value of an option")},
        "keep_alive": word("time to live"),
    }


def bound_client(client, word):
    """What its user bound to the cloud or set on it."""
    return client.bind(extra_body={word("bound key"): [word("bound value")]}, stop=[word("bound stop")])


def client_of_openai(server, **more):
    return ChatOpenAI(model="m", base_url=server.url, api_key="none", max_retries=0, **more)


def client_of_responses(server, **more):
    return client_of_openai(server, use_responses_api=True, **more)


def client_of_anthropic(server, **more):
    return ChatAnthropic(model="m", base_url=server.root, api_key="none", max_retries=0, **more)


def client_of_ollama(server, **more):
    return ChatOllama(model="m", base_url=server.root, **more)


def question(word):
    return [HumanMessage(word("text"))], {}


def structured(method):
    """A structured value by one method; the class stands behind the arguments of the call."""

    def fill(word):
        return [HumanMessage(word("text"))], {"shape": schema(word)}

    return fill, lambda router, given: router.with_structured_output(
        given[1]["shape"], **({"method": method} if method else {})
    )


def chat_scenarios():
    """Of the three clients of LangChain, by name."""
    found = {
        "ChatOpenAI": Scenario(server=formats.Chat, client=client_of_openai, fill=openai_chat),
        "ChatOpenAI, formats": Scenario(server=formats.Chat, client=client_of_openai, fill=openai_formats),
        "ChatOpenAI, responses": Scenario(
            server=formats.Responses, client=client_of_responses, fill=responses
        ),
        "ChatAnthropic": Scenario(server=formats.Anthropic, client=client_of_anthropic, fill=anthropic),
        "ChatOllama": Scenario(server=formats.Ollama, client=client_of_ollama, fill=ollama),
        "ChatOpenAI, bound": Scenario(
            server=formats.Chat, client=client_of_openai, fill=question, cloud=bound_client
        ),
    }
    makers = {
        "ChatOpenAI": (formats.Chat, client_of_openai),
        "ChatAnthropic": (formats.Anthropic, client_of_anthropic),
        "ChatOllama": (formats.Ollama, client_of_ollama),
    }
    for name, (server, client) in makers.items():
        for method in ("json_schema", "function_calling"):
            fill, shaped = structured(method)
            found[f"{name}, {method}"] = Scenario(server=server, client=client, fill=fill, shaped=shaped)
    return found


def written(word):
    """LlamaIndex's messages, every kind of block that its client of OpenAI's chat sends."""
    call = word("id of a call")
    said = {word("name of an argument"): word("value of an argument")}
    return [
        ChatMessage(role="system", blocks=[TextBlock(text=word("system text"))]),
        ChatMessage(role="user", content=word("text"), additional_kwargs={"name": word("name of a speaker")}),
        ChatMessage(
            role="assistant",
            blocks=[
                TextBlock(text=word("earlier answer")),
                ThinkingBlock(content=word("thought")),
                ToolCallBlock(tool_call_id=call, tool_name=word("name of a call"), tool_kwargs=said),
            ],
        ),
        ChatMessage(
            role="tool",
            content=word("result"),
            additional_kwargs={"tool_call_id": call, "name": word("name of a result")},
        ),
        ChatMessage(
            role="user",
            blocks=[
                TextBlock(text=word("block")),
                ImageBlock(url=f"{URL}/{word('address of an image')}.png"),
                DocumentBlock(
                    data=b"Hello", title=word("title of a document"), document_mimetype="text/plain"
                ),
                TextBlock(text=word("last block")),
            ],
        ),
    ]


def llama_chat(word):
    return written(word), {
        "stop": [word("stop")],
        "user": word("user"),
        "logit_bias": {word("biased token"): 1},
        "extra_body": {word("key of the body"): {word("inner key of the body"): word("value of the body")}},
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": word("name of a format"), "schema": json_schema(word)},
        },
        "tools": [tool_of(word)],
        "prediction": {"type": "content", "content": word("prediction")},
    }


def llama_tools(word):
    name = word("name of a tool")
    about = ToolMetadata(name=name, description=word("description of a tool"), fn_schema=schema(word))
    return written(word), {
        "tools": [FunctionTool(fn=lambda **given: "", metadata=about)],
        "tool_choice": {"type": "function", "function": {"name": word("chosen tool")}},
        "user": word("user"),
    }


def llama_value(word):
    return written(word), {"shape": schema(word), "user": word("user")}


def set_up(client, word):
    """What its user set on it."""
    client.additional_kwargs = {
        "user": word("fixed user"),
        "extra_body": {word("fixed key"): word("fixed value")},
    }
    return client


def client_of_llama(server, **more):
    given = {"is_chat_model": True, "is_function_calling_model": True, "max_retries": 0}
    return OpenAILike(model="m", api_base=server.url, api_key="none", **given, **more)


CHATS = chat_scenarios()
LLAMAS = {
    f"OpenAILike, {name}": Scenario(server=formats.Chat, client=client_of_llama, fill=fill, cloud=cloud)
    for name, fill, cloud in (
        ("chat", llama_chat, lambda client, word: client),
        ("tools", llama_tools, lambda client, word: client),
        ("value", llama_value, lambda client, word: client),
        ("set up", lambda word: ([ChatMessage(word("text"))], {}), set_up),
    )
}
FORMS = ("sync", "async", "stream", "astream")


async def drained(items):
    """All of a stream, which some clients hand out only when it is awaited."""
    items = await items if hasattr(items, "__await__") else items
    return [item async for item in items] if hasattr(items, "__aiter__") else [*items]


async def chat(scenario, cloud, policy, given, form, route):
    """One call of LangChain."""
    edge = ScriptedChat.of("4", name="small", logprob=-3.0)
    router = scenario.shaped(ChatConfRoute(edge=edge, cloud=cloud, policy=policy), given)
    kwargs = {name: value for name, value in given[1].items() if name != "shape"}
    asked = given[0], {"configurable": {"confroute_route": route}}
    if form == "sync":
        router.invoke(*asked, **kwargs)
    elif form == "async":
        await router.ainvoke(*asked, **kwargs)
    else:
        await drained(
            router.stream(*asked, **kwargs) if form == "stream" else router.astream(*asked, **kwargs)
        )


async def llama(scenario, cloud, policy, given, form, route):
    """One call of LlamaIndex."""
    edge = ScriptedLLM(model=ScriptedModel([Reply(text="4", logprob=-3.0)], name="small"))
    router = ConfRouteLLM(edge=edge, cloud=cloud, policy=policy)
    messages, kwargs = given[0], {**given[1], "confroute_route": route}
    prefix = {"sync": "", "async": "a", "stream": "stream_", "astream": "astream_"}[form]
    if "shape" in kwargs:
        shape = kwargs.pop("shape")
        name, args, kwargs = (
            "structured_predict",
            (shape, ChatPromptTemplate(messages)),
            {"llm_kwargs": kwargs},
        )
    elif scenario.fill is llama_tools:
        name, args, kwargs = "chat_with_tools", (kwargs.pop("tools"),), {"chat_history": messages, **kwargs}
    else:
        name, args = "chat", (messages,)
    answer = getattr(router, prefix + name)(*args, **kwargs)
    answer = await answer if hasattr(answer, "__await__") else answer
    if "stream" in form:
        await drained(answer)


SCENARIOS = {
    **{name: (one, chat) for name, one in CHATS.items()},
    **{name: (one, llama) for name, one in LLAMAS.items()},
}
OPEN = Cascade.of(TokenLogprob(), 0.1)


async def call(scenario, ask, cloud, policy, given, form, route="cloud"):
    """Make a call whose answer does not matter: our servers answer nothing that fits a schema, and our edge cannot do all."""
    with record() as decisions, suppress(Exception):
        await ask(scenario, cloud, policy, given, form, route)
    return decisions


def texts(value):
    """Every name and text of a body."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


async def sent(scenario, ask, server, word):
    """The cloud, the arguments of a call, and the body that it sends where nothing is private."""
    cloud, given = scenario.cloud(scenario.client(server), word), scenario.fill(word)
    await call(scenario, ask, cloud, OPEN, given, "sync")
    return cloud, given, server.bodies[-1]


@pytest.mark.parametrize("name", SCENARIOS)
async def test_every_text_of_a_body_is_a_word_of_ours_or_the_protocols(name):
    """So no place is forgotten: a client that sends more than these fails here."""
    scenario, ask = SCENARIOS[name]
    with scenario.server() as server:
        _, _, body = await sent(scenario, ask, server, Words())
    assert {text for text in texts(body) if not WORD.search(text)} <= PROTOCOL


@pytest.mark.parametrize("name", SCENARIOS)
async def test_no_private_word_reaches_the_cloud(name):
    """Each word that goes out, as it stands in the body, in each of four forms, forced to the cloud: 0 of N."""
    scenario, ask = SCENARIOS[name]
    least, tried, reached = LEAST[name], 0, []
    with scenario.server() as server:
        cloud, given, body = await sent(scenario, ask, server, Words())
        words = sorted({found for text in texts(body) for found in WORD.findall(text)})
        for private in words:
            policy = replace(OPEN, rules=(KeepPrivate(patterns=(private,), unread="send"),))
            for form in FORMS:
                before = len(server.bodies)
                decisions = await call(scenario, ask, cloud, policy, given, form)
                tried += 1
                kept = len(server.bodies) == before and decisions and all(one.private for one in decisions)
                if not kept:
                    reached.append((private, form))
        # The same calls go out where nothing is private, so that these were kept by the rule.
        for form in FORMS:
            before = len(server.bodies)
            await call(scenario, ask, cloud, OPEN, given, form)
            assert len(server.bodies) > before
    print(
        f"{name}: {len(words)} places in {len(FORMS)} forms, private texts at the cloud {len(reached)} of {tried}"
    )
    assert reached == []
    assert tried >= 4 * least
