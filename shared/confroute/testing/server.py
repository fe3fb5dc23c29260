"""Serves scripted models in OpenAI's format on loopback, so that real clients read real bytes without a provider."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from confroute.models import chat_format
from confroute.testing import wire
from confroute.testing.faults import MALFORMED
from confroute.testing.scripted import Reply, ScriptedModel, token_at
from confroute.types import Generation, Usage


class _ScriptHandler(wire.RequestHandler):
    served: ScriptedServer

    def respond(self, body: dict[str, Any]) -> None:
        refusal = self.served.refuse(body) if self.served.refuse is not None else None
        if refusal is not None:
            self.send_json({"error": refusal[1]}, code=refusal[0])
            return
        scripted = self.served.reply(body)
        if scripted is None:
            self.fail(404, f"no scripted model {body.get('model')!r}")
            return
        reply, prompt = scripted
        self.served.wait(reply.latency_s)
        answer = reply.generation(prompt, model=str(body.get("model")))
        if reply.fault is not None and not (body.get("stream") and reply.fault_after):
            self._fail(reply.fault)
        elif body.get("stream"):
            self._stream(body, reply, answer)
        else:
            self.send_json(_completion(body, answer))

    def _fail(self, fault: Exception) -> None:
        code = getattr(fault, "status_code", None)
        if isinstance(code, int):
            wait_s = getattr(fault, "retry_after_s", None)
            self.fail(code, "scripted", headers=None if wait_s is None else {"retry-after": f"{wait_s:g}"})
        elif isinstance(fault, json.JSONDecodeError):
            self.send_json(MALFORMED.encode())
        else:
            self._abandon(fault)

    def _abandon(self, fault: Exception) -> None:
        """Close the connection without an answer: after a wait for a time-out, at once for a cut connection."""
        if "Timeout" in type(fault).__name__:
            self.served.wait(self.served.hold_s)
        self.close_connection = True

    def _stream(self, body: dict[str, Any], reply: Reply, answer: Generation) -> None:
        self.begin_events()
        for sent, event in enumerate(_events(body, answer)):
            if reply.fault is not None and sent >= reply.fault_after:
                if isinstance(reply.fault, json.JSONDecodeError):
                    self.event(MALFORMED)
                    break
                # The chunk that ends the HTTP body is never sent.
                self._abandon(reply.fault)
                return
            self.served.wait(self.served.pause_s if sent else 0.0)
            if not self.event(event):
                return
        self.end_events()


class ScriptedServer(wire.LoopbackServer):
    """Serves `/v1/chat/completions` from scripted models, whole and streamed, with log-probabilities on request.

    Parameters
    ----------
    models : ScriptedModel or mapping of str to ScriptedModel
        One model for all requests, or one per model name.
    hold_s : float
        How long a scripted time-out keeps a request waiting at most; the client's own limit should be shorter.
    pause_s : float
        Seconds before each chunk of a stream except the first.
    refuse : callable, optional
        From a request to the status and the error object that it is refused with, or None to answer it.

    Attributes
    ----------
    url : str
        Base URL for clients, once the server has started.
    bodies : list of dict
        The JSON of every request, in order of arrival.
    abandoned : int
        Number of streams that clients closed before the end. Short ones fit into a buffer, and go unnoticed without
        `pause_s`.

    Notes
    -----
    A reply's fault happens on the wire: an exception with a `status_code` becomes that status, a time-out sends no
    answer, `JSONDecodeError` a broken body, and anything else cuts the connection; in streams after `fault_after` words.

    Examples
    --------
    >>> from urllib.request import Request, urlopen
    >>> body = b'{"model": "m", "messages": [{"role": "user", "content": "Capital of France?"}]}'
    >>> with ScriptedServer(ScriptedModel(["Paris"])) as server:
    ...     with urlopen(Request(f"{server.url}/chat/completions", data=body)) as answer:
    ...         json.load(answer)["choices"][0]["message"]["content"]
    'Paris'
    """

    handler = _ScriptHandler

    def __init__(
        self,
        models: ScriptedModel | Mapping[str, ScriptedModel],
        *,
        hold_s: float = 5.0,
        pause_s: float = 0.0,
        refuse: Callable[[Mapping[str, Any]], tuple[int, Mapping[str, Any]] | None] | None = None,
    ) -> None:
        super().__init__()
        self.models = models
        self.refuse = refuse
        self.hold_s = hold_s
        self.pause_s = pause_s

    def reply(self, body: Mapping[str, Any]) -> tuple[Reply, str] | None:
        """Return the reply to a request, and the request's prompt as text; None if no model has that name.

        Override it to script replies by more than the prompt.
        """
        name = str(body.get("model"))
        model = self.models if isinstance(self.models, ScriptedModel) else self.models.get(name)
        if model is None:
            return None
        prompt = _prompt(body)
        return model.reply(prompt, temperature=body.get("temperature")), prompt

    def wait(self, seconds: float) -> None:
        """Wait, but not beyond the server's own end."""
        self.closing.wait(seconds)


def _prompt(body: Mapping[str, Any]) -> str:
    return "\n".join(
        f"{m.get('role')}: {chat_format.text_of(m.get('content'))}" for m in body.get("messages", ())
    )


def _completion(body: Mapping[str, Any], answer: Generation) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": answer.text},
        "finish_reason": chat_format.reason_of(answer.finish),
        "logprobs": wire.logprobs_of(body, answer.tokens or (), answer.logprobs, answer.top_logprobs),
    }
    return chat_format.completion(body, [choice], answer.usage or Usage())


def _events(body: Mapping[str, Any], answer: Generation) -> Iterator[dict[str, Any]]:
    for position, token in enumerate(answer.tokens or ()):
        part = token_at(answer, position)
        logprobs = wire.logprobs_of(body, (token,), part.logprobs, part.top_logprobs)
        yield chat_format.delta(body, {"role": "assistant", "content": token}, logprobs=logprobs)
    yield chat_format.delta(body, {}, finish=answer.finish)
    yield chat_format.usage_delta(body, answer.usage or Usage())
