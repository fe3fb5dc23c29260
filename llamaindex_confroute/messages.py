"""LlamaIndex's messages: as the core sees them, their tool calls, and copies that every provider can read."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from llama_index.core.base.llms.types import (
    BaseContentBlock,
    CachePoint,
    ChatMessage,
    CitableBlock,
    CitationBlock,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.llms.utils import parse_partial_json
from llama_index.core.tools import BaseTool, FunctionTool
from pydantic import BaseModel

from confroute.asks import HelpTool
from confroute.errors import RequestError
from confroute.hosts.tool_calls import OfferedTool, ToolCall, call_digest, says_failed
from confroute.models.provider_answers import field, role_of
from confroute.text_extraction import read
from confroute.types import Message

# Integrations that send cache points on.
_CACHING = ("anthropic", "bedrock_converse")
# What a tool without a schema takes.
_TEXT_INPUT = {"type": "object", "properties": {"input": {"type": "string"}}, "required": ["input"]}


def checked(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """Return the messages as a list.

    Raises
    ------
    RequestError
        Something in it is not a `ChatMessage`.
    """
    for position, message in enumerate(messages):
        given: object = message
        if not isinstance(given, ChatMessage):
            msg = f"messages[{position}] is a {type(message).__name__}: expected ChatMessage(role=..., content=...)"
            raise RequestError(msg)
    return list(messages)


def user_turn(text: object) -> list[ChatMessage]:
    """A text as the only message of a conversation.

    Raises
    ------
    RequestError
        It is not a string.
    """
    if not isinstance(text, str):
        msg = f"the prompt is a {type(text).__name__}: expected a string; use chat() for messages"
        raise RequestError(msg)
    return [ChatMessage(role=MessageRole.USER, content=text)]


def to_core(messages: Sequence[ChatMessage]) -> tuple[Message, ...]:
    """Roles and all text, thoughts and tool calls included, and what else is sent with it: rules see all of it."""
    return tuple(map(_to_core, messages))


def _to_core(message: ChatMessage) -> Message:
    role, blocks = role_of(message.role.value), message.blocks
    # Most messages: nothing has to be looked for.
    if len(blocks) == 1 and type(blocks[0]) is TextBlock and not message.additional_kwargs:
        return Message(role=role, text=blocks[0].text)
    return Message(
        role=role,
        text="\n".join([*_texts(blocks), *_written_calls(message)]),
        beside=_beside(blocks, message.additional_kwargs),
        calls=tuple(call_digest(call.name, call.arguments) for call in calls_in(message)),
        failed=says_failed(message.additional_kwargs),
    )


def from_core(messages: Sequence[Message]) -> list[ChatMessage]:
    """A signal's own prompt as LlamaIndex's messages; it has no tool turns."""
    return [ChatMessage(role=MessageRole(message.role), content=message.text) for message in messages]


def has_attachments(messages: Sequence[ChatMessage]) -> bool:
    """Whether a message holds an image, a sound, a film or a file."""
    return any(_attached(message.blocks) for message in messages)


def _texts(blocks: Sequence[BaseContentBlock]) -> Iterator[str]:
    for block in blocks:
        if isinstance(block, TextBlock):
            yield block.text
        elif isinstance(block, ThinkingBlock):
            yield block.content or ""
        elif isinstance(block, ToolCallBlock):
            given = block.tool_kwargs
            yield f"{block.tool_name} {given if isinstance(given, str) else _json(given)}"
        elif isinstance(block, CitableBlock):
            yield from _texts(block.content)
        elif isinstance(block, CitationBlock):
            yield from _texts([block.cited_content])


def _beside(blocks: Sequence[BaseContentBlock], kwargs: Mapping[str, Any]) -> str:
    """Addresses and titles of attachments, and what stands beside the blocks."""
    others = [block for block in blocks if not isinstance(block, (TextBlock, ToolCallBlock))]
    return "\n".join(read(*others, kwargs).texts) if others or kwargs else ""


def _written_calls(message: ChatMessage) -> Iterator[str]:
    """Tool calls that stand beside the blocks, in the provider's own form: models are sent them too."""
    for key in ("tool_calls", "function_call"):
        if message.additional_kwargs.get(key):
            yield _json(message.additional_kwargs[key])


def _json(value: object) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


def _attached(blocks: Sequence[BaseContentBlock]) -> bool:
    return any(
        _attached(block.content)
        if isinstance(block, CitableBlock)
        else getattr(block, "block_type", None) in ("image", "audio", "video", "document")
        for block in blocks
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifiedCall(ToolCall):
    """A tool call with the id that its result refers to; empty where the provider gives none."""

    id: str


def calls_in(message: ChatMessage) -> list[IdentifiedCall]:
    """The tool calls of a message, from its blocks or from the `additional_kwargs` of OpenAI and Ollama."""
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return [
            IdentifiedCall(
                id=block.tool_call_id or "", name=block.tool_name, arguments=_parsed(block.tool_kwargs)
            )
            for block in blocks
        ]
    written = message.additional_kwargs.get("tool_calls") or []
    functions = [(field(call, "id") or "", field(call, "function")) for call in written]
    return [
        IdentifiedCall(
            id=str(id_), name=field(function, "name") or "", arguments=_parsed(field(function, "arguments"))
        )
        for id_, function in functions
        if function is not None
    ]


def selections(message: ChatMessage) -> list[ToolSelection]:
    """The calls of a message that may still be growing."""
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    return [
        ToolSelection(
            tool_id=block.tool_call_id or block.tool_name,
            tool_name=block.tool_name,
            tool_kwargs=_partial(block.tool_kwargs),
        )
        for block in blocks
    ] or [
        ToolSelection(
            tool_id=call.id or call.name, tool_name=call.name, tool_kwargs=dict(call.arguments or {})
        )
        for call in calls_in(message)
    ]


def offered_tools(tools: Sequence[BaseTool]) -> dict[str, OfferedTool]:
    """Tools by their names, and by those that OpenAI allows, under which they are offered."""
    offered: dict[str, OfferedTool] = {}
    for tool in tools:
        name, schema = tool.metadata.name, tool.metadata.fn_schema
        if name:
            one = OfferedTool(name=name, schema=schema or _TEXT_INPUT, open=_takes_any(tool))
            allowed = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)
            offered |= {allowed: one, name: one}
    return offered


class _NoArguments(BaseModel):
    """What a tool without arguments takes."""


def help_tool(given: HelpTool) -> BaseTool:
    """The tool by which a model asks for a larger one. It is offered, and never executed."""

    def never() -> str:
        msg = f"{given.name} was executed, and is only a sign to the router"
        raise RuntimeError(msg)

    return FunctionTool.from_defaults(
        fn=never, name=given.name, description=given.words, fn_schema=_NoArguments
    )


def _takes_any(tool: BaseTool) -> bool:
    if not isinstance(tool, FunctionTool):
        return False
    kinds = {parameter.kind for parameter in inspect.signature(tool.real_fn).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds


def _parsed(arguments: Any) -> dict[str, Any] | None:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            return None
    return dict(arguments) if isinstance(arguments, Mapping) else None


def _partial(arguments: Any) -> dict[str, Any]:
    try:
        parsed = parse_partial_json(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return {}
    return dict(parsed) if isinstance(parsed, Mapping) else {}


def portable(messages: Sequence[ChatMessage], llm: LLM) -> list[ChatMessage]:
    """Copies that `llm` can read, whichever provider's model wrote the tool calls in them.

    Arguments become objects, calls stand in blocks only, and each has an id of its own, which its result carries
    too: Ollama gives none, so results are matched by order. Cache points go only to models that know them; others refuse
    the whole message.
    """
    copies = [message.model_copy(deep=True) for message in messages]
    if integrations_of(type(llm)).isdisjoint(_CACHING):
        for message in copies:
            message.blocks = [block for block in message.blocks if not isinstance(block, CachePoint)]
    for position, message in enumerate(copies):
        calls = calls_in(message)
        if not calls or _keeps_its_own(message, llm):
            continue
        ids = _unique([call.id for call in calls], [call.name for call in calls], prefix=f"call_{position}")
        message.additional_kwargs.pop("tool_calls", None)
        written = [block.tool_kwargs for block in message.blocks if isinstance(block, ToolCallBlock)]
        message.blocks = [block for block in message.blocks if not isinstance(block, ToolCallBlock)]
        for number, (id_, call) in enumerate(zip(ids, calls, strict=True)):
            parsed = None if call.arguments is None else dict(call.arguments)
            arguments = parsed if parsed is not None else written[number] if written else {}
            message.blocks.append(ToolCallBlock(tool_call_id=id_, tool_name=call.name, tool_kwargs=arguments))
        _hand_on(copies[position + 1 :], calls, ids)
    return copies


def _keeps_its_own(message: ChatMessage, llm: LLM) -> bool:
    """LiteLLM writes and reads tool calls in `additional_kwargs` only."""
    in_blocks = any(isinstance(block, ToolCallBlock) for block in message.blocks)
    return not in_blocks and "litellm" in integrations_of(type(llm))


@lru_cache(maxsize=64)
def integrations_of(kind: type[LLM]) -> frozenset[str]:
    """The parts of the names of the modules that a model's class, and those that it derives from, come from."""
    return frozenset(part for cls in kind.__mro__ for part in cls.__module__.split("."))


def _unique(ids: Sequence[str], names: Sequence[str], *, prefix: str) -> list[str]:
    if all(ids) and len(set(ids)) == len(ids) and not set(ids) & set(names):
        return list(ids)
    return [f"{prefix}_{number}" for number in range(len(ids))]


def _hand_on(later: Sequence[ChatMessage], calls: Sequence[IdentifiedCall], ids: Sequence[str]) -> None:
    """Give the results that follow a message the ids of its calls."""
    open_ = list(range(len(calls)))
    for message in later:
        if message.role not in (MessageRole.TOOL, MessageRole.FUNCTION) or not open_:
            return
        refers_to = message.additional_kwargs.get("tool_call_id")
        matching = [n for n in open_ if refers_to and refers_to in (calls[n].id, calls[n].name)]
        number = (matching or open_)[0]
        open_.remove(number)
        message.additional_kwargs["tool_call_id"] = ids[number]
