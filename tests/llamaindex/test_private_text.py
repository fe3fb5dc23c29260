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
