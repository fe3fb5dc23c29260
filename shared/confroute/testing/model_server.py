"""Serves local models in OpenAI's format on loopback, as a stand-in for a provider with real tokens and tool calls."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from confroute.errors import RequestError
from confroute.models import chat_format
from confroute.models.chat_format import text_of
from confroute.testing import wire
from confroute.types import Generation, Message, Role, Usage

if TYPE_CHECKING:
    from confroute.models.local import LocalModel, Piece

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


def conversation_of(body: Mapping[str, Any]) -> list[Message]:
    """Return the conversation of a request, with its tools, tool calls and tool results as text.

    Raises
    ------
    RequestError
        A message has an unknown role.
    """
    turns = [_message(turn) for turn in body.get("messages", ())]
    tools = tools_of(body)
    if not tools:
        return turns
    introduction = _INTRODUCTION.format(tools="\n".join(json.dumps(tool["function"]) for tool in tools))
    if body.get("tool_choice") not in {None, "auto"}:
        introduction += "\nYou must call one now."
    if turns and turns[0].role == "system":
        return [Message(role="system", text=f"{turns[0].text}\n\n{introduction}"), *turns[1:]]
    return [Message(role="system", text=introduction), *turns]


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
    """Return the tools that the answer may call."""
    choice = body.get("tool_choice")
    tools: list[dict[str, Any]] = [] if choice == "none" else list(body.get("tools") or ())
    if isinstance(choice, Mapping):
        tools = [tool for tool in tools if tool["function"]["name"] == choice["function"]["name"]]
    return tools


def parse_tool_calls(text: str, tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Parse the tool calls in an answer, in OpenAI's format; an answer in words has none.

    Between the tags a model may write any name, known or not, as on real servers. A bare JSON object is a call only if
    it names a known tool.

    Examples
    --------
    >>> parse_tool_calls('<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>', [])[0]["function"]
    {'name': 'add', 'arguments': '{"a": 1}'}
    >>> parse_tool_calls("The sum is 3.", [])
    []
    """
    calls = [call for match in _TAGGED.findall(text) if (call := _call(match))]
    if not calls and (bare := _FENCED.match(text)):
        names = {tool["function"]["name"] for tool in tools}
        call = _call(bare.group(1))
        calls = [call] if call and call["name"] in names else []
    return [{"id": f"call_{uuid4().hex[:12]}", "type": "function", "function": call} for call in calls]


def _call(text: str) -> dict[str, str] | None:
    try:
        data = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(data, dict) or not isinstance(data.get("name"), str):
        return None
    return {"name": data["name"], "arguments": json.dumps(data.get("arguments", {}))}


class _ModelHandler(wire.RequestHandler):
    served: ModelServer

    def respond(self, body: dict[str, Any]) -> None:
        model = self.served.models.get(str(body.get("model")))
        if model is None:
            self.fail(404, f"no model {body.get('model')!r}: this server has {', '.join(self.served.models)}")
            return
        try:
            if body.get("stream") and not tools_of(body):
                self._stream(body, model.stream(conversation_of(body), **self._settings(body)))
                return
            answers = model.generate(conversation_of(body), n=body.get("n") or 1, **self._settings(body))
        except RequestError as error:
            self.fail(400, str(error))
            return
        if body.get("stream"):
            self._stream_whole(body, answers[0])
        else:
            choices = [_choice(body, answer, index) for index, answer in enumerate(answers)]
            self.send_json(chat_format.completion(body, choices, _total_usage(answers)))

    def _settings(self, body: Mapping[str, Any]) -> dict[str, Any]:
        if (body.get("response_format") or {"type": "text"})["type"] != "text":
            msg = "response_format is not served: leave it out, or use tools"
            raise RequestError(msg)
        stop = body.get("stop") or ()
        limit = body.get("max_completion_tokens") or body.get("max_tokens")
        return {
            "max_tokens": limit or self.served.max_tokens,
            "temperature": body.get("temperature") or 0.0,
            "top_p": body.get("top_p") or 1.0,
            "seed": body.get("seed"),
            "stop": (stop,) if isinstance(stop, str) else tuple(stop),
            "top_logprobs": (body.get("top_logprobs") or 0) if body.get("logprobs") else 0,
        }

    def _stream(self, body: dict[str, Any], pieces: Iterator[Piece]) -> None:
        self.begin_events()
        for piece in pieces:
            logprobs = wire.logprobs_of(body, piece.tokens, piece.logprobs, piece.top_logprobs)
            content = {"role": "assistant", "content": piece.text}
            # Leaving the loop ends the decoding.
            if not self.event(chat_format.delta(body, content, finish=piece.finish, logprobs=logprobs)):
                return
            if piece.usage is not None:
                self.event(chat_format.usage_delta(body, piece.usage))
        self.end_events()

    def _stream_whole(self, body: dict[str, Any], answer: Generation) -> None:
        """Send a whole answer as a stream: only at its end is it known whether it calls a tool."""
        choice = _choice(body, answer, 0)
        content = dict(choice["message"])
        if "tool_calls" in content:
            calls = content["tool_calls"]
            content["tool_calls"] = [{**call, "index": index} for index, call in enumerate(calls)]
        self.begin_events()
        self.event(chat_format.delta(body, content, logprobs=choice["logprobs"]))
        self.event(chat_format.delta(body, {}, finish=choice["finish_reason"]))
        self.event(chat_format.usage_delta(body, answer.usage or Usage()))
        self.end_events()


class ModelServer(wire.LoopbackServer):
    """Serves `/v1/chat/completions` from local models: whole and token by token, with log-probabilities and tools.

    For examples and tests that need a provider but have none. The models are loaded into this process when the server
    starts; a `ChatLocal` of the same name shares their weights.

    Parameters
    ----------
    *models : str
        Names for `LocalModel.load`; each request names one of them.
    max_tokens : int
        Longest answer to a request that sets no limit.

    Notes
    -----
    A request without a temperature is decoded greedily, so that runs repeat. Tools are described in the system message
    and their calls are parsed from the answer, so that a request with tools is streamed in one piece. `response_format`
    is refused.
    """

    handler = _ModelHandler

    def __init__(self, *models: str, max_tokens: int = 128) -> None:
        super().__init__()
        self.names = models
        self.max_tokens = max_tokens
        self.models: dict[str, LocalModel] = {}

    def start(self) -> None:
        """Load the models, then listen on a free port of 127.0.0.1."""
        from confroute.models.local import LocalModel

        self.models = {name: LocalModel.load(name) for name in self.names}
        super().start()


def _choice(body: Mapping[str, Any], answer: Generation, index: int) -> dict[str, Any]:
    calls = parse_tool_calls(answer.text, tools) if (tools := tools_of(body)) else []
    words = {"role": "assistant", "content": answer.text}
    return {
        "index": index,
        "message": {"role": "assistant", "content": None, "tool_calls": calls} if calls else words,
        "finish_reason": "tool_calls" if calls else answer.finish,
        "logprobs": wire.logprobs_of(body, answer.tokens or (), answer.logprobs, answer.top_logprobs),
    }


def _total_usage(answers: tuple[Generation, ...]) -> Usage:
    return sum((answer.usage for answer in answers if answer.usage is not None), Usage())
