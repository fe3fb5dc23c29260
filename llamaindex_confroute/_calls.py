"""Tool calls: read from any provider's message, checked against the tools, made portable between providers."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llama_index.core.base.llms.types import CachePoint, ChatMessage, MessageRole, ToolCallBlock
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.llms.utils import parse_partial_json
from llama_index.core.tools import BaseTool, FunctionTool
from pydantic import ValidationError

from llamaindex_confroute._reading import read

# Integrations that send cache points on.
_CACHING = ("anthropic", "bedrock_converse")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One tool call as the model wrote it; `arguments` is None where they are no JSON object."""

    id: str
    name: str
    arguments: dict[str, Any] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Calls in one canonical form, to be compared with others, and what makes them unusable, if anything."""

    answer: str | None = None
    flaw: str | None = None


def calls_in(message: ChatMessage) -> list[Call]:
    """The tool calls of a message, from its blocks or from the `additional_kwargs` of OpenAI and Ollama."""
    blocks = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    if blocks:
        return [
            Call(id=block.tool_call_id or "", name=block.tool_name, arguments=_parsed(block.tool_kwargs))
            for block in blocks
        ]
    found = message.additional_kwargs.get("tool_calls") or []
    functions = [(read(call, "id") or "", read(call, "function")) for call in found]
    return [
        Call(id=str(id_), name=read(function, "name") or "", arguments=_parsed(read(function, "arguments")))
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
        ToolSelection(tool_id=call.id or call.name, tool_name=call.name, tool_kwargs=call.arguments or {})
        for call in calls_in(message)
    ]


def check(calls: Sequence[Call], tools: Sequence[BaseTool], *, parallel: bool, required: bool) -> Checked:
    """Compare calls with the tools that were offered. Nothing is executed.

    Parameters
    ----------
    calls : sequence of Call
    tools : sequence of BaseTool
    parallel : bool
        Whether more than one call is allowed.
    required : bool
        Whether an answer without a call is useless.
    """
    if not calls:
        return Checked(flaw="no tool was called, though one had to be" if required else None)
    known = {_offered(name): tool for tool in tools for name in (tool.metadata.name,) if name}
    flaws, canonical = [], []
    if len(calls) > 1 and not parallel:
        flaws.append(f"{len(calls)} tool calls where one was allowed")
    for call in calls:
        tool = known.get(_offered(call.name))
        arguments, flaw = (call.arguments, _UNKNOWN) if tool is None else _checked(call.arguments, tool)
        canonical.append({"name": call.name, "arguments": arguments})
        flaws += [flaw] if flaw else []
    answer = json.dumps(canonical, sort_keys=True, ensure_ascii=False, default=str)
    return Checked(answer=answer, flaw="; ".join(dict.fromkeys(flaws)) or None)


_UNKNOWN = "a call of a tool that was not offered"


def portable(messages: Sequence[ChatMessage], llm: LLM) -> list[ChatMessage]:
    """Copies that `llm` can read, whichever provider's model wrote the tool calls in them.

    Arguments become objects, calls stand in blocks only, and each has an id of its own, which its result carries
    too: Ollama gives none, so results are matched by order. Cache points go only to models that know them; others refuse
    the whole message.
    """
    copies = [message.model_copy(deep=True) for message in messages]
    if not _is_of(llm, *_CACHING):
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
            arguments = call.arguments if call.arguments is not None else written[number] if written else {}
            message.blocks.append(ToolCallBlock(tool_call_id=id_, tool_name=call.name, tool_kwargs=arguments))
        _hand_on(copies[position + 1 :], calls, ids)
    return copies


def _keeps_its_own(message: ChatMessage, llm: LLM) -> bool:
    """LiteLLM writes and reads tool calls in `additional_kwargs` only."""
    in_blocks = any(isinstance(block, ToolCallBlock) for block in message.blocks)
    return not in_blocks and _is_of(llm, "litellm")


def _is_of(llm: LLM, *packages: str) -> bool:
    """Whether the model's class, or one that it derives from, is of one of these integrations."""
    modules = [f".{cls.__module__}." for cls in type(llm).__mro__]
    return any(f".{package}." in module for package in packages for module in modules)


def _unique(ids: Sequence[str], names: Sequence[str], *, prefix: str) -> list[str]:
    if all(ids) and len(set(ids)) == len(ids) and not set(ids) & set(names):
        return list(ids)
    return [f"{prefix}_{number}" for number in range(len(ids))]


def _hand_on(later: Sequence[ChatMessage], calls: Sequence[Call], ids: Sequence[str]) -> None:
    """Give the results that follow a message the ids of its calls."""
    open_ = list(range(len(calls)))
    for message in later:
        if message.role not in (MessageRole.TOOL, MessageRole.FUNCTION) or not open_:
            return
        said = message.additional_kwargs.get("tool_call_id")
        matching = [number for number in open_ if said and said in (calls[number].id, calls[number].name)]
        number = (matching or open_)[0]
        open_.remove(number)
        message.additional_kwargs["tool_call_id"] = ids[number]


def _parsed(arguments: Any) -> dict[str, Any] | None:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except json.JSONDecodeError:
            return None
    return dict(arguments) if isinstance(arguments, Mapping) else None


def _partial(arguments: Any) -> dict[str, Any]:
    try:
        found = parse_partial_json(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return {}
    return dict(found) if isinstance(found, Mapping) else {}


def _offered(name: str) -> str:
    """Tools are offered under names that OpenAI allows."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "_" for c in name)


def _checked(arguments: dict[str, Any] | None, tool: BaseTool) -> tuple[dict[str, Any] | None, str | None]:
    """The arguments with the schema's types and defaults, and what is wrong with them."""
    name, schema = tool.metadata.name, tool.metadata.fn_schema
    if arguments is None:
        return None, f"arguments of {name!r} that are no JSON object"
    if schema is None:
        wrong = not isinstance(arguments.get("input"), str)
        return arguments, f"arguments of {name!r} without a text 'input'" if wrong else None
    try:
        value = schema.model_validate(arguments)
    except ValidationError as error:
        places = {f"{'.'.join(map(str, one['loc'][:1]))} ({one['type']})" for one in error.errors()}
        return arguments, f"arguments of {name!r} that do not validate: {', '.join(sorted(places))}"
    known = {key for field, info in schema.model_fields.items() for key in (field, info.alias)}
    if set(arguments) - known and not _takes_any(tool):
        return arguments, f"arguments of {name!r} that it does not have"
    return value.model_dump(mode="json", warnings=False), None


def _takes_any(tool: BaseTool) -> bool:
    schema = tool.metadata.fn_schema
    if schema is not None and schema.model_config.get("extra") == "allow":
        return True
    if not isinstance(tool, FunctionTool):
        return False
    kinds = {parameter.kind for parameter in inspect.signature(tool.real_fn).parameters.values()}
    return inspect.Parameter.VAR_KEYWORD in kinds
