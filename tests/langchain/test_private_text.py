"""A privacy rule sees every text that would be sent."""

from __future__ import annotations

import base64

import pytest
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, ChatMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompt_values import ChatPromptValue
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import StructuredTool
from pydantic import BaseModel, Field

from confroute import Cascade, KeepPrivate, Router, SendTo, TokenLogprob, record
from confroute.testing import Reply, ScriptedModel
from langchain_confroute import ChatConfRoute, ConfidenceRouter
from langchain_confroute.testing import ScriptedChat

RULES = (KeepPrivate(patterns=(r"\bJosé Díaz\b",)),)
CALL = {"name": "store", "args": {"note": "for\nJosé Díaz"}, "id": "1", "type": "tool_call"}
WRONG = {"name": "store", "args": '{"who": "Jos\\u00e9 D\\u00edaz"', "id": "1", "error": None}
RAW = {
    "id": "1",
    "type": "function",
    "function": {"name": "s", "arguments": '{"who": "Jos\\u00e9 D\\u00edaz"}'},
}
IMAGE = {"type": "image_url", "image_url": {"url": "https://example.org/of José Díaz.png"}}
PDF = {"type": "file", "mime_type": "application/pdf", "base64": "JVBERi0=", "filename": "José Díaz.pdf"}

MESSAGES = {
    "name": HumanMessage("hi", name="José Díaz"),
    "name of a system message": SystemMessage("hi", name="José Díaz"),
    "name in additional_kwargs": HumanMessage("hi", additional_kwargs={"name": "José Díaz"}),
    "role": ChatMessage("hi", role="José Díaz"),
    "text": HumanMessage("I am José Díaz"),
    "tool call": AIMessage("", tool_calls=[CALL]),
    "tool call as OpenAI writes it": AIMessage("", additional_kwargs={"tool_calls": [RAW]}),
    "tool result": ToolMessage("José Díaz", tool_call_id="1"),
    "address of an image": HumanMessage([IMAGE]),
    "title of a file": HumanMessage([PDF]),
    "document of another provider": HumanMessage([{"type": "document", "title": "José Díaz"}]),
    "block of an unknown kind": HumanMessage([{"type": "custom", "payload": {"of": ["José Díaz"]}}]),
}


def route_of(router, *messages, **kwargs):
    with record() as decisions:
        router.invoke([HumanMessage("q"), *messages, HumanMessage("q")], **kwargs)
    return decisions[0].route, decisions[0].private


def routed(**given):
    """An edge that is never sure."""
    policy = Cascade.of(TokenLogprob(), 0.1, rules=given.pop("rules", RULES))
    edge = ScriptedChat.of("edge", logprob=-3.0)
    return ChatConfRoute(edge=edge, cloud=ScriptedChat.of("cloud"), policy=policy)


@pytest.mark.parametrize("where", MESSAGES)
def test_private_text_anywhere_in_a_message_stays(where):
    """In its text, its name, its calls, and what its attachments are called."""
    assert route_of(routed(), MESSAGES[where]) == ("edge", True)
    assert route_of(routed(), HumanMessage("hi", name="Ada")) == ("cloud", False)


def test_private_text_in_a_broken_call_stays():
    """Arguments that are no JSON are sent as they are, and looked at as they are."""
    rules = (KeepPrivate(patterns=(r"Jos\\u00e9",)),)
    assert route_of(routed(rules=rules), AIMessage("", invalid_tool_calls=[WRONG]))[1]


def look(who: str) -> str:
    """Look José Díaz up."""
    return who


class Answer(BaseModel):
    """An answer."""

    text: str = Field(description="What José Díaz said")


def test_private_text_in_tools_schemas_and_arguments_stays():
    """Descriptions of tools, fields of a schema, stop strings and a provider's own arguments are sent as well."""
    assert route_of(routed().bind_tools([StructuredTool.from_function(look)]))[1]
    assert route_of(routed(), tools=[look])[1]
    assert route_of(routed(), stop=["José Díaz"])[1]
    assert route_of(routed(), user="José Díaz")[1]
    with record() as decisions:
        routed().with_structured_output(Answer).invoke("q")
    assert decisions[0].private


@pytest.mark.parametrize("kind", ["a data URL", "base64 beside a type", "a file"])
def test_what_cannot_be_read_stays(kind):
    """An image or a file may show anything; a rule that is told so lets it go, without a look at its bytes."""
    pixels = base64.b64encode(bytes(range(256)) + b"Jane Doe" * 99).decode()
    block = {
        "a data URL": {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{pixels}"}},
        "base64 beside a type": {"type": "image", "base64": pixels, "mime_type": "image/png"},
        "a file": {"type": "file", "base64": pixels, "mime_type": "application/pdf"},
    }[kind]
    assert route_of(routed(rules=(KeepPrivate(patterns=("Jane",)),)), HumanMessage([block])) == ("edge", True)
    for pattern in ("Jane", pixels[40:44]):
        lets = (KeepPrivate(patterns=(pattern,), unread="send"),)
        assert route_of(routed(rules=lets), HumanMessage([block])) == ("cloud", False)
    # A rule that searches nothing has nothing to read.
    assert route_of(routed(rules=(KeepPrivate(),)), HumanMessage([block])) == ("cloud", False)


def test_what_only_looks_like_bytes_is_read():
    """A text that begins like a data URL, one that encodes words, and a plain text file."""
    words = base64.b64encode("José Díaz".encode() * 40).decode()
    for text in ("data:image/png;base64,of José Díaz", f"data:text/plain;base64,{words}", words):
        image = HumanMessage([{"type": "image_url", "image_url": {"url": text}}])
        assert route_of(routed(rules=(KeepPrivate(patterns=("José",), unread="send"),)), image)[1]


def test_send_to_reads_the_conversation_only():
    """A tool's description is the same in every call and would send all of them."""
    rules = (SendTo(tier="edge", patterns=("José",)),)
    assert route_of(routed(rules=rules).bind_tools([look]))[0] == "cloud"
    assert route_of(routed(rules=rules), HumanMessage("hi", name="José"))[0] == "edge"


def test_between_chains_names_and_arguments_count_too():
    """`ConfidenceRouter` sees a chain's input and the arguments of its call."""
    chains = {name: RunnableLambda(lambda _, who=None, name=name: name) for name in ("edge", "cloud")}
    router = ConfidenceRouter(**chains, policy=Cascade.of(TokenLogprob(), 0.1, rules=RULES))
    assert route_of(router) == ("cloud", False)
    assert route_of(router, MESSAGES["name"]) == ("edge", True)
    assert route_of(router, who="José Díaz") == ("edge", True)


@pytest.mark.parametrize(
    "inputs",
    [
        {"pay": {"José Díaz": 4000}},
        {"pay": [{"to": {"José Díaz"}}]},
        {"José Díaz": "q"},
        {"q": HumanMessage("hi", name="José Díaz")},
        [("user", "q"), ("ai", "José Díaz")],
        Document("q", metadata={"by": "José Díaz"}),
        ChatPromptValue(
            messages=[HumanMessage([{"type": "text", "text": "José "}, {"type": "text", "text": "Díaz"}])]
        ),
    ],
    ids=["key", "deep", "name of an input", "message", "tuples", "document", "prompt"],
)
def test_between_chains_every_name_and_value_of_the_input_counts(inputs):
    """A chain may write any part of what it is given into its prompt."""
    chains = {name: RunnableLambda(lambda _, name=name: name) for name in ("edge", "cloud")}
    router = ConfidenceRouter(**chains, policy=Cascade.of(TokenLogprob(), 0.1, rules=RULES))
    with record() as decisions:
        router.invoke(inputs)
        router.invoke({"pay": {"Ada": 4000}})
    assert [one.private for one in decisions] == [True, False]


def test_what_is_bound_to_any_model_but_the_edge_counts():
    """To the cloud, inside wrappers and fallbacks, and to a member of an ensemble; the edge may have its own."""
    bound = {"stop": ["of José Díaz"]}
    policy = Cascade.of(TokenLogprob(), 0.1, rules=RULES)

    def kept(edge=None, cloud=None, **members):
        edge, cloud = edge or ScriptedChat.of("e", logprob=-3.0), cloud or ScriptedChat.of("c", name="large")
        return route_of(ChatConfRoute(edge=edge, cloud=cloud, members=members, policy=policy))[1]

    model = ScriptedChat.of("c", name="large")
    assert kept(cloud=model.bind(**bound))
    assert kept(cloud=model.bind(**bound).with_retry())
    assert kept(cloud=model.with_fallbacks([ScriptedChat.of("d", name="other").bind(**bound)]))
    assert kept(cloud=model.model_copy(update=bound))
    assert kept(third=model.bind(**bound))
    inside = ChatConfRoute(edge=ScriptedChat.of("e"), cloud=model.bind(**bound))
    assert kept(cloud=inside)
    assert kept(
        cloud=ChatConfRoute(edge=ScriptedChat.of("e"), cloud=model, members={"m": model.bind(**bound)})
    )
    assert not kept(cloud=ChatConfRoute(edge=ScriptedChat.of("e"), cloud=model))
    assert not kept(edge=ScriptedChat.of("e", logprob=-3.0).bind(**bound))
    assert not kept()


def test_nothing_is_read_unless_a_rule_needs_it(monkeypatch):
    """A rule for tags and tools, or none at all, costs no look at the texts; two rules that read cost one."""
    from langchain_confroute import calls

    read = []
    monkeypatch.setattr(calls, "read", lambda *values, **given: read.append(values) or calls.merged())
    for rules in (
        (),
        (KeepPrivate(),),
        (KeepPrivate(tools=("pay",)),),
        (SendTo(tier="cloud", patterns=("x",)),),
    ):
        route_of(routed(rules=rules), extra_body={"a": 1})
    assert read == []
    route_of(
        routed(rules=(KeepPrivate(patterns=("x",)), KeepPrivate(patterns=("y",), name="second"))), user="a"
    )
    assert len(read) == 1


def test_ids_that_only_langchain_knows_are_not_texts():
    """A pattern of digits would be found in a random id by chance, and they are not sent."""
    rules = (KeepPrivate(patterns=(r"\d{6}",)),)
    said = AIMessage("hi", id="run-123456", response_metadata={"id": "chatcmpl-123456"})
    assert not route_of(routed(rules=rules), said)[1]


def test_a_router_without_a_framework_reads_what_its_models_send():
    """A model of a framework may be bound to texts; the messages are what they are."""
    policy = Cascade.of(TokenLogprob(), 0.1, rules=RULES)
    edge, model = ScriptedModel([Reply(text="e", logprob=-3.0)]), ScriptedChat.of("c", name="large")
    asked = {
        True: (model.bind(stop=["of José Díaz"]), "q"),
        False: (model, "q"),
        None: (model, "q about &#74;osé%20Díaz"),
    }
    for private, (cloud, text) in asked.items():
        routed = Router(edge=edge, cloud=cloud, policy=policy).ask(text)
        assert routed.decision.private is (private is not False)
