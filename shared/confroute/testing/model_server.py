"""A local model behind an OpenAI-compatible server on loopback: a stand-in for a provider, with real tokens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from confroute.errors import RequestError
from confroute.models.text_model import local_dtype
from confroute.testing import _wire
from confroute.testing._tool_text import calls_in, messages_of, tools_of
from confroute.types import Generation, Usage

if TYPE_CHECKING:
    from confroute.models.local import LocalModel, Piece


class _Handler(_wire.Wire):
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
            self.send_json(_wire.completion(body, choices, _total(said)))

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
            told = _wire.logprobs_of(body, piece.tokens, piece.logprobs, piece.top_logprobs)
            content = {"role": "assistant", "content": piece.text}
            # Leaving the loop ends the decoding.
            if not self.event(_wire.delta(body, content, finish=piece.finish, logprobs=told)):
                return
            if piece.usage is not None:
                self.event(_wire.usage_delta(body, piece.usage))
        self.end_events()

    def _at_once(self, body: dict[str, Any], said: Generation) -> None:
        """An answer that may call a tool, which is known only at its end."""
        choice = _choice(body, said, 0)
        content = dict(choice["message"])
        if "tool_calls" in content:
            content["tool_calls"] = [{**call, "index": at} for at, call in enumerate(content["tool_calls"])]
        self.begin_events()
        self.event(_wire.delta(body, content, logprobs=choice["logprobs"]))
        self.event(_wire.delta(body, {}, finish=choice["finish_reason"]))
        self.event(_wire.usage_delta(body, said.usage or Usage()))
        self.end_events()


class ModelServer(_wire.LoopbackServer):
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
        "logprobs": _wire.logprobs_of(body, said.tokens or (), said.logprobs, said.top_logprobs),
    }


def _total(said: tuple[Generation, ...]) -> Usage:
    return sum((one.usage for one in said if one.usage is not None), Usage())
