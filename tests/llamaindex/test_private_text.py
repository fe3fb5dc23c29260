"""A privacy rule sees every text that would be sent."""

from __future__ import annotations

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    CitableBlock,
    CitationBlock,
    DocumentBlock,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from pydantic import BaseModel, Field

from confroute import Cascade, KeepPrivate, TokenLogprob, record
from confroute.errors import TierError

RULES = (KeepPrivate(patterns=(r"\bJosé Díaz\b",)),)
RAW = {
    "id": "1",
    "type": "function",
    "function": {"name": "s", "arguments": '{"who": "Jos\\u00e9 D\\u00edaz"}'},
}
CITED = {
    "cited_content": TextBlock(text="t"),
    "source": "José Díaz",
    "title": "t",
    "additional_location_info": {},
}


def said(*blocks, **kwargs):
    return ChatMessage(role="user", blocks=list(blocks), additional_kwargs=kwargs)


MESSAGES = {
    "text": said(TextBlock(text="I am José Díaz")),
    "name": said(TextBlock(text="hi"), name="José Díaz"),
    "tool call": said(ToolCallBlock(tool_name="s", tool_kwargs={"note": "for\nJosé Díaz"})),
    "tool call as text": said(ToolCallBlock(tool_name="s", tool_kwargs='{"who": "Jos\\u00e9 D\\u00edaz"}')),
    "tool call as OpenAI writes it": said(tool_calls=[RAW]),
    "address of an image": said(ImageBlock(url="https://example.org/José Díaz.png")),
    "title of a document": said(DocumentBlock(data=b"%PDF", title="José Díaz", document_mimetype="application/pdf")),
    "title of what is cited": said(CitableBlock(title="José Díaz", source="s", content=[TextBlock(text="t")])),
    "source of a citation": said(CitationBlock(**CITED)),
    "thought": said(ThinkingBlock(content="it is José Díaz")),
}  # fmt: skip


def private(call):
    with record() as decisions:
        call()
    return decisions[0].private


def routed(kit):
    return kit.router(kit.unsure(), policy=Cascade.of(TokenLogprob(), 0.3, rules=RULES))


@pytest.mark.parametrize("where", MESSAGES)
def test_private_text_anywhere_in_a_message_stays(kit, where):
    """In its text, its name, its calls, and what its attachments are called."""
    llm = routed(kit)
    assert private(lambda: llm.chat([MESSAGES[where], ChatMessage(content="q")]))
    assert not private(lambda: llm.chat([said(TextBlock(text="hi"), name="Ada")]))


def look(who: str) -> str:
    """Look José Díaz up."""
    return who


class Answer(BaseModel):
    """An answer."""

    text: str = Field(description="What José Díaz said")


def test_private_text_in_tools_schemas_and_arguments_stays(kit):
    """Descriptions of tools, fields of a schema and a provider's own arguments are sent as well."""
    llm = routed(kit)
    assert private(lambda: llm.chat_with_tools([FunctionTool.from_defaults(look)], "q"))
    assert private(lambda: llm.complete("q", user="José Díaz"))
    with pytest.raises(TierError, match="the text is private"):
        llm.structured_predict(Answer, PromptTemplate("q"))


@pytest.mark.parametrize(
    "blocks",
    [
        (TextBlock(text="José "), TextBlock(text="Díaz")),
        (TextBlock(text="José"), TextBlock(text=" Díaz")),
        (TextBlock(text="José Dí"), ImageBlock(url="https://example.org/a.png"), TextBlock(text="az")),
        (CitableBlock(title="t", source="s", content=[TextBlock(text="José "), TextBlock(text="Díaz")]),),
    ],
    ids=["space first", "space last", "around an image", "cited"],
)
def test_blocks_are_read_as_they_are_joined(kit, blocks):
    """Integrations send them side by side, in one text or in lines."""
    llm = routed(kit)
    assert private(lambda: llm.chat([said(*blocks)]))


def test_a_name_is_read_wherever_it_is_one(kit):
    """Keys of arguments, of schemas and of a provider's own body, escaped ones too."""
    llm = routed(kit)
    escaped = '{"Jos\\u00e9 D\\u00edaz": 4000}'
    calls = [{"id": "1", "type": "function", "function": {"name": "s", "arguments": escaped}}]
    assert private(lambda: llm.chat([said(TextBlock(text="q"), tool_calls=calls)]))
    assert private(
        lambda: llm.chat([said(TextBlock(text="q"), function_call={"name": "s", "arguments": escaped})])
    )
    assert private(lambda: llm.complete("q", extra_body={"José Díaz": 1}))
    assert private(lambda: llm.complete("q", response_format={"schema": {"properties": {"José Díaz": {}}}}))
    assert not private(lambda: llm.complete("q", extra_body={"top_k": 1}))


def test_what_cannot_be_read_stays(kit):
    """Pixels and a PDF; a text file is read."""
    llm = routed(kit)
    pixels = ImageBlock(image=bytes(range(256)), image_mimetype="image/png")
    pdf = DocumentBlock(data=b"%PDF-1.7 \x89", title="t", document_mimetype="application/pdf")
    for block in (
        pixels,
        pdf,
        DocumentBlock(data="von José Díaz".encode(), title="t", document_mimetype="text/plain"),
    ):
        assert private(lambda block=block: llm.chat([said(block, TextBlock(text="q"))]))
    words = DocumentBlock(data=b"from Ada", title="t", document_mimetype="text/plain")
    assert not private(lambda: llm.chat([said(words, TextBlock(text="q"))]))
