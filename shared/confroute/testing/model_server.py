"""A local model behind an OpenAI-compatible server on loopback: a stand-in for a provider, with real tokens."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from confroute.errors import RequestError
from confroute.models.local import local_dtype
from confroute.testing import wire
from confroute.testing.wire import text_of
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


class _Handler(wire.Wire):
    served: ModelServer

    def respond(self, body: dict[str, Any]) -> None:
        model = self.served.models.get(str(body.get("model")))
        if model is None:
            self.fail(404, f"no model {body.get('model')!r}: this server has {', '.join(self.served.models)}")
            return
        try:
            if body.get("stream") and not tools_of(body):
                self._stream(body, model.stream(messages_of(body), **self._asked(body)))
                return
            said = model.generate(messages_of(body), n=body.get("n") or 1, **self._asked(body))
        except RequestError as error:
            self.fail(400, str(error))
            return
        if body.get("stream"):
            self._at_once(body, said[0])
        else:
            choices = [_choice(body, one, at) for at, one in enumerate(said)]
            self.send_json(wire.completion(body, choices, _total(said)))

    def _asked(self, body: Mapping[str, Any]) -> dict[str, Any]:
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
            told = wire.logprobs_of(body, piece.tokens, piece.logprobs, piece.top_logprobs)
            content = {"role": "assistant", "content": piece.text}
            # Leaving the loop ends the decoding.
            if not self.event(wire.delta(body, content, finish=piece.finish, logprobs=told)):
                return
            if piece.usage is not None:
                self.event(wire.usage_delta(body, piece.usage))
        self.end_events()

    def _at_once(self, body: dict[str, Any], said: Generation) -> None:
        """An answer that may call a tool, which is known only at its end."""
        choice = _choice(body, said, 0)
        content = dict(choice["message"])
        if "tool_calls" in content:
            content["tool_calls"] = [{**call, "index": at} for at, call in enumerate(content["tool_calls"])]
        self.begin_events()
        self.event(wire.delta(body, content, logprobs=choice["logprobs"]))
        self.event(wire.delta(body, {}, finish=choice["finish_reason"]))
        self.event(wire.usage_delta(body, said.usage or Usage()))
        self.end_events()


class ModelServer(wire.LoopbackServer):
    """Serves `/v1/chat/completions` from local models: whole and token by token, with log-probabilities and tools.

    For examples and tests that need a provider but have none. The models are loaded when it starts, and are this
    process's own: a `ChatLocal` of the same name shares their weights.

    Parameters
    ----------
    *models : str
        What `LocalModel.load` takes; requests name one of them. Models of the catalogue with more than 1 B parameters are
        loaded in the type that this processor is fast in.
    max_tokens : int
        Longest answer to a request that does not say.

    Notes
    -----
    Greedy where a request gives no temperature, so that runs repeat. Tools are told in the system turn and read from the
    answer, so a request with tools is streamed in one piece. `response_format` is refused.
    """

    handler = _Handler

    def __init__(self, *models: str, max_tokens: int = 128) -> None:
        super().__init__()
        self.names = models
        self.max_tokens = max_tokens
        self.models: dict[str, LocalModel] = {}

    def start(self) -> None:
        """Load the models, then listen on a free port of 127.0.0.1."""
        from confroute.models.local import LocalModel

        self.models = {name: LocalModel.load(name, dtype=local_dtype(name)) for name in self.names}
        super().start()


def _choice(body: Mapping[str, Any], said: Generation, at: int) -> dict[str, Any]:
    calls = calls_in(said.text, tools) if (tools := tools_of(body)) else []
    words = {"role": "assistant", "content": said.text}
    return {
        "index": at,
        "message": {"role": "assistant", "content": None, "tool_calls": calls} if calls else words,
        "finish_reason": "tool_calls" if calls else said.finish,
        "logprobs": wire.logprobs_of(body, said.tokens or (), said.logprobs, said.top_logprobs),
    }


def _total(said: tuple[Generation, ...]) -> Usage:
    return sum((one.usage for one in said if one.usage is not None), Usage())
