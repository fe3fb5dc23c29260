"""An OpenAI-compatible server on loopback that says what scripted models say: real clients, real bytes, no provider."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from confroute.testing import wire
from confroute.testing.faults import MALFORMED
from confroute.testing.scripted import Reply, ScriptedModel, part
from confroute.types import Generation, Usage


class _Handler(wire.Wire):
    served: ScriptedServer

    def respond(self, body: dict[str, Any]) -> None:
        found = self.served.reply(body)
        if found is None:
            self.fail(404, f"no scripted model {body.get('model')!r}")
            return
        reply, prompt = found
        self.served.wait(reply.latency_s)
        said = reply.generation(prompt, model=str(body.get("model")))
        if reply.fault is not None and not (body.get("stream") and reply.fault_after):
            self._fail(reply.fault)
        elif body.get("stream"):
            self._stream(body, reply, said)
        else:
            self.send_json(_completion(body, said))

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
        """Answer no more: after a wait for a time-out, at once for a cut connection."""
        if "Timeout" in type(fault).__name__:
            self.served.wait(self.served.hold_s)
        self.close_connection = True

    def _stream(self, body: dict[str, Any], reply: Reply, said: Generation) -> None:
        self.begin_events()
        for sent, event in enumerate(_events(body, said)):
            if reply.fault is not None and sent >= reply.fault_after:
                if isinstance(reply.fault, json.JSONDecodeError):
                    self.event(MALFORMED)
                    break
                # The last chunk, which ends an HTTP body, is never sent.
                self._abandon(reply.fault)
                return
            self.served.wait(self.served.pause_s if sent else 0.0)
            if not self.event(event):
                return
        self.end_events()


class ScriptedServer(wire.LoopbackServer):
    """Serves `/v1/chat/completions` from scripted models, whole and streamed, with log-probabilities where asked.

    Parameters
    ----------
    models : ScriptedModel or mapping of str to ScriptedModel
        One for every request, or by the request's model name.
    hold_s : float
        Longest that a scripted time-out keeps a request waiting; the client's own limit should be shorter.
    pause_s : float
        Seconds before each chunk of a stream but the first.

    Attributes
    ----------
    url : str
        What clients take as base URL, once the server has started.
    bodies : list of dict
        Every request's JSON, in order of arrival.
    left : int
        Streams that their clients left before the end. Short ones fit into a buffer and are not noticed without `pause_s`.

    Notes
    -----
    A reply's fault happens on the wire: an exception with a `status_code` becomes that status, a time-out is no
    answer, `JSONDecodeError` is a broken body, and anything else a cut connection; in streams after `fault_after` words.

    Examples
    --------
    >>> from urllib.request import Request, urlopen
    >>> body = b'{"model": "m", "messages": [{"role": "user", "content": "Capital of France?"}]}'
    >>> with ScriptedServer(ScriptedModel(["Paris"])) as server:
    ...     with urlopen(Request(f"{server.url}/chat/completions", data=body)) as answer:
    ...         json.load(answer)["choices"][0]["message"]["content"]
    'Paris'
    """

    handler = _Handler

    def __init__(
        self,
        models: ScriptedModel | Mapping[str, ScriptedModel],
        *,
        hold_s: float = 5.0,
        pause_s: float = 0.0,
    ) -> None:
        super().__init__()
        self.models = models
        self.hold_s = hold_s
        self.pause_s = pause_s

    def reply(self, body: Mapping[str, Any]) -> tuple[Reply, str] | None:
        """What to say to a request, and the prompt as it was read; None if no model has that name.

        Override it to script requests by more than their text.
        """
        name = str(body.get("model"))
        model = self.models if isinstance(self.models, ScriptedModel) else self.models.get(name)
        if model is None:
            return None
        prompt = _prompt(body)
        return model.reply(prompt, temperature=body.get("temperature")), prompt

    def wait(self, seconds: float) -> None:
        """Wait, but no longer than the server lives."""
        self.closing.wait(seconds)


def _prompt(body: Mapping[str, Any]) -> str:
    return "\n".join(f"{m.get('role')}: {wire.text_of(m.get('content'))}" for m in body.get("messages", ()))


def _completion(body: Mapping[str, Any], said: Generation) -> dict[str, Any]:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": said.text},
        "finish_reason": said.finish,
        "logprobs": wire.logprobs_of(body, said.tokens or (), said.logprobs, said.top_logprobs),
    }
    return wire.completion(body, [choice], said.usage or Usage())


def _events(body: Mapping[str, Any], said: Generation) -> Iterator[dict[str, Any]]:
    for position, token in enumerate(said.tokens or ()):
        own = part(said, position)
        logprobs = wire.logprobs_of(body, (token,), own.logprobs, own.top_logprobs)
        yield wire.delta(body, {"role": "assistant", "content": token}, logprobs=logprobs)
    yield wire.delta(body, {}, finish=said.finish)
    yield wire.usage_delta(body, said.usage or Usage())
