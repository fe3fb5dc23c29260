"""Answers in OpenAI's chat format: whole, and event by event, each with the decision that led to it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from uuid import uuid4

from confroute.decision import Decision, Routed
from confroute.hosts.chat import ChatCall
from confroute.models import chat_format
from confroute.models.provider_answers import logprobs_content
from confroute.models.text_model import Piece
from confroute.types import JSON, Alternatives, Generation, Usage

HEADER = "x-confroute-decision"
_IN_HEADER = ("route", "stage", "uncertainty", "signal", "threshold", "private", "degraded", "run_id")
END = b"data: [DONE]\n\n"


def event(content: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n".encode()


def header_of(decision: Decision) -> dict[str, str]:
    """The decision as a header: compact JSON of what was decided; its steps and reasons stand in the body.

    Examples
    --------
    >>> header_of(Decision(route="edge", stage="draft", reason="kept"))["x-confroute-decision"]
    '{"route":"edge","stage":"draft"}'
    """
    known = decision.to_dict()
    short = {name: value for name in _IN_HEADER if (value := known.get(name)) not in (None, False)}
    return {HEADER: json.dumps(short, separators=(",", ":"))}


class Answer:
    """Writes the answer to one request.

    Parameters
    ----------
    body : mapping
        The request.
    chat : ChatCall
        The same, read.
    """

    __slots__ = ("_body", "_chat", "_name", "_shown")

    def __init__(self, body: Mapping[str, Any], chat: ChatCall) -> None:
        self._body, self._chat = body, chat
        self._name = f"chatcmpl-{uuid4().hex}"
        self._shown = False

    def whole(self, routed: Routed) -> dict[str, Any]:
        """The JSON of a whole answer."""
        answer = routed.generation
        choice = {
            "index": 0,
            "message": _message(answer),
            "finish_reason": _finish(answer),
            "logprobs": self._logprobs(answer),
        }
        made = chat_format.completion(self._body, [choice], answer.usage or Usage(), self._name)
        return {**made, "metadata": _metadata(routed)}

    def part(self, piece: Piece) -> dict[str, Any] | None:
        """The JSON of the next part of a stream; None where there is nothing to say."""
        if not (piece.text or piece.beside or piece.logprobs):
            return None
        content = {**(piece.beside or {}), **({"content": piece.text} if piece.text else {})}
        return self._delta(content, logprobs=self._logprobs(piece))

    def ending(self, routed: Routed) -> Iterator[dict[str, Any]]:
        """The JSON of the last events: an answer that was drafted as a whole, why it ended, and its usage where that is wanted."""
        answer = routed.generation
        if not self._shown:
            message = _message(answer)
            calls = [{"index": at, **call} for at, call in enumerate(message.pop("tool_calls", ()))]
            yield self._delta(
                message | ({"tool_calls": calls} if calls else {}), logprobs=self._logprobs(answer)
            )
        last = chat_format.delta(self._body, {}, finish=_finish(answer), name=self._name)
        yield {**last, "metadata": _metadata(routed)}
        if (self._body.get("stream_options") or {}).get("include_usage"):
            yield chat_format.usage_delta(self._body, answer.usage or Usage(), self._name)

    def _delta(self, content: Mapping[str, Any], *, logprobs: Mapping[str, Any] | None) -> dict[str, Any]:
        role = {} if self._shown else {"role": "assistant"}
        self._shown = True
        return chat_format.delta(self._body, {**role, **content}, logprobs=logprobs, name=self._name)

    def _logprobs(self, scored: Piece | Generation) -> dict[str, Any] | None:
        """Those of the tokens, where the caller asked for them; signals may have asked for more alternatives than it did."""
        if not self._chat.logprobs or not scored.logprobs or not scored.tokens:
            return None
        kept: list[Alternatives] | None = None
        if scored.top_logprobs is not None:
            kept = [place[: self._chat.top_logprobs] for place in scored.top_logprobs]
        return {"content": logprobs_content(scored.tokens, scored.logprobs, kept), "refusal": None}


def _message(answer: Generation) -> dict[str, Any]:
    """The message as its server wrote it, where it wrote one."""
    own = answer.raw if isinstance(answer.raw, Mapping) else {}
    content = answer.text if answer.text or not own.get("tool_calls") else None
    return {**own, "role": "assistant", "content": content}


def _finish(answer: Generation) -> str | None:
    if answer.finish == "unknown":
        # The format wants a reason, and clients refuse an answer without one.
        return None if answer.unfinished else "stop"
    return answer.finish


def _metadata(routed: Routed) -> dict[str, JSON]:
    return {"confroute": routed.decision.to_dict()}
