"""Tools as text, for models that know none: told in the system turn, read from the answer.

The form is that of Qwen's and Hermes' chat templates: one JSON object with name and arguments between two tags.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from confroute.errors import RequestError
from confroute.testing._wire import text_of
from confroute.types import Message, Role

_TAGGED = re.compile(r"<tool_call>\s*(\{.*?\})\s*(?:</tool_call>|\Z)", re.DOTALL)
_FENCED = re.compile(r"\A\s*(?:```\w*\s*)?(\{.*\})\s*(?:```)?\s*\Z", re.DOTALL)
_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}
_INTRODUCTION = """You can call functions. Their descriptions, one JSON object a line:
<tools>
{tools}
</tools>
To call one, answer with nothing but its name and arguments:
<tool_call>
{{"name": <name>, "arguments": <object>}}
</tool_call>"""


def messages_of(body: Mapping[str, Any]) -> list[Message]:
    """The conversation of a request, with its tools, tool calls and tool results as text.

    Raises
    ------
    RequestError
        A role that is not known.
    """
    turns = [_message(turn) for turn in body.get("messages", ())]
    tools = tools_of(body)
    if not tools:
        return turns
    told = _INTRODUCTION.format(tools="\n".join(json.dumps(tool["function"]) for tool in tools))
    if body.get("tool_choice") not in {None, "auto"}:
        told += "\nYou must call one now."
    if turns and turns[0].role == "system":
        return [Message(role="system", text=f"{turns[0].text}\n\n{told}"), *turns[1:]]
    return [Message(role="system", text=told), *turns]


def _message(turn: Mapping[str, Any]) -> Message:
    role = _ROLES.get(str(turn.get("role")))
    if role is None:
        msg = f"message role {turn.get('role')!r}: expected one of {', '.join(_ROLES)}"
        raise RequestError(msg)
    calls = (call["function"] for call in turn.get("tool_calls") or ())
    texts = [
        f'<tool_call>\n{{"name": "{call["name"]}", "arguments": {call["arguments"]}}}\n</tool_call>'
        for call in calls
    ]
    return Message(role=role, text="\n".join(filter(None, (text_of(turn.get("content")), *texts))))


def tools_of(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools that an answer may call."""
    chosen = body.get("tool_choice")
    tools: list[dict[str, Any]] = [] if chosen == "none" else list(body.get("tools") or ())
    if isinstance(chosen, Mapping):
        tools = [tool for tool in tools if tool["function"]["name"] == chosen["function"]["name"]]
    return tools


def calls_in(text: str, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The calls that an answer makes, in OpenAI's form; none where it is an answer in words.

    Names are passed on as the model wrote them between the tags, known or not, as servers do. A bare object is a call
    only of a tool that there is.

    Examples
    --------
    >>> calls_in('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>', [])[0]["function"]
    {'name': 'add', 'arguments': '{"a": 1}'}
    >>> calls_in("The sum is 3.", [])
    []
    """
    found = [call for part in _TAGGED.findall(text) if (call := _call(part))]
    if not found and (bare := _FENCED.match(text)):
        known = {tool["function"]["name"] for tool in tools}
        call = _call(bare.group(1))
        found = [call] if call and call["name"] in known else []
    return [{"id": f"call_{uuid4().hex[:12]}", "type": "function", "function": call} for call in found]


def _call(text: str) -> dict[str, str] | None:
    try:
        made = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(made, dict) or not isinstance(made.get("name"), str):
        return None
    return {"name": made["name"], "arguments": json.dumps(made.get("arguments", {}))}
