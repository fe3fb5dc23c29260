"""Models that give scripted replies, with scripted log-probabilities, delays and faults.

`langchain_confroute.testing.ScriptedChat` and `llamaindex_confroute.testing.ScriptedLLM` put a `ScriptedModel` behind
the host's own interface; `ScriptedCalls` drives a policy without any host.
"""

from __future__ import annotations

import asyncio
import re
import threading
import time
from collections.abc import (
    AsyncGenerator,
    Callable,
    Coroutine,
    Generator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field, replace
from typing import Any

from confroute.asks import Hidden, ModelAsk, Prompt, Sample, Score, StreamAsk
from confroute.errors import PolicyError
from confroute.models.inside import elsewhere
from confroute.models.text_model import Piece
from confroute.types import Alternatives, Finish, Generation, Message, Request, Usage, transcript


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """One reply of a scripted model.

    Attributes
    ----------
    text : str
    logprob : float or None
        Natural log-probability of every token; None for a provider that returns none.
    logprobs : tuple of float or None
        Instead, one value per token; passed on unchecked, so that a test can script wrong ones.
    top_logprobs : tuple of alternatives or None
        The likeliest alternatives at each token, for callers that ask for them; see `Generation`.
    usage : Usage or None
        By default the number of words of prompt and answer.
    latency_s : float
        Seconds until the answer, or until the first chunk of a stream.
    fault : Exception or None
        Raised instead of the answer, or after `fault_after` tokens of a stream.
    fault_after : int
    finish : str
    """

    text: str = ""
    logprob: float | None = -0.05
    logprobs: tuple[float, ...] | None = None
    top_logprobs: tuple[Alternatives, ...] | None = None
    usage: Usage | None = None
    latency_s: float = 0.0
    fault: Exception | None = None
    fault_after: int = 0
    finish: Finish = "stop"

    @property
    def tokens(self) -> tuple[str, ...]:
        """The words of the text, each with the space before it."""
        return tuple(re.findall(r"\s*\S+\s*$|\s*\S+", self.text))

    def generation(self, prompt: str, *, model: str) -> Generation:
        """Return the reply as a `Generation`, with its usage."""
        tokens = self.tokens
        logprobs = self.logprobs
        if logprobs is None and self.logprob is not None:
            logprobs = (self.logprob,) * len(tokens)
        usage = self.usage or Usage(input_tokens=len(prompt.split()), output_tokens=len(tokens))
        return Generation(
            text=self.text,
            logprobs=logprobs,
            tokens=tokens,
            top_logprobs=self.top_logprobs,
            usage=usage,
            finish=self.finish,
            model=model,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelCall:
    """A call that a scripted model received."""

    prompt: str
    temperature: float | None = None


@dataclass(slots=True)
class ScriptedModel:
    """A model that gives scripted replies in turn, and records the calls it receives.

    Parameters
    ----------
    replies : sequence of Reply or str, or callable
        Replies to calls at temperature 0 or without one, the last one repeated for ever; or a function of the prompt.
    samples : sequence of Reply or str
        Replies to calls at a temperature above 0, in a cycle; `replies` by default.
    name : str
    remote : bool
        Whether it claims to be a remote model, as a `confroute.models.text_model.TextModel` does.

    Examples
    --------
    >>> model = ScriptedModel(["Paris"], samples=["Paris", "Lyon"])
    >>> model.reply("Capital?").text, model.reply("Capital?", temperature=0.7).text, len(model.calls)
    ('Paris', 'Paris', 2)
    """

    replies: Sequence[Reply | str] | Callable[[str], Reply | str] = ("ok",)
    samples: Sequence[Reply | str] = ()
    name: str = "scripted"
    remote: bool = False
    calls: list[ModelCall] = field(default_factory=list)
    _greedy: int = 0
    _sampled: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[ScriptedModel], tuple[object, ...]]:
        # Hosts pickle and deep-copy their models; a lock can neither be pickled nor copied.
        settings = self.replies, self.samples, self.name, self.remote
        return type(self), (*settings, [*self.calls], self._greedy, self._sampled)

    def reply(self, prompt: str, *, temperature: float | None = None) -> Reply:
        """Return the next reply to `prompt`, without its delay and its fault."""
        with self._lock:
            self.calls.append(ModelCall(prompt=prompt, temperature=temperature))
            if temperature and self.samples:
                reply = self.samples[self._sampled % len(self.samples)]
                self._sampled += 1
            elif callable(self.replies):
                reply = self.replies(prompt)
            else:
                reply = self.replies[min(self._greedy, len(self.replies) - 1)]
                self._greedy += 1
        return reply if isinstance(reply, Reply) else Reply(text=reply)

    def generate(
        self, messages: Sequence[Message], *, n: int = 1, temperature: float | None = None, **settings: Any
    ) -> tuple[Generation, ...]:
        """Wait as scripted, then answer or raise the fault, `n` times; other settings of a `TextModel` have no effect."""
        prompt = transcript(messages)
        answers = []
        for _ in range(n):
            reply = self.reply(prompt, temperature=temperature)
            time.sleep(reply.latency_s)
            answers.append(self._answer(reply, prompt))
        return tuple(answers)

    async def agenerate(
        self, messages: Sequence[Message], *, n: int = 1, temperature: float | None = None, **settings: Any
    ) -> tuple[Generation, ...]:
        """Async form of `generate`."""
        prompt = transcript(messages)
        answers = []
        for _ in range(n):
            reply = self.reply(prompt, temperature=temperature)
            await asyncio.sleep(reply.latency_s)
            answers.append(self._answer(reply, prompt))
        return tuple(answers)

    def stream(
        self, messages: Sequence[Message], *, temperature: float | None = None, **settings: Any
    ) -> Generator[Piece, None, None]:
        """Answer token by token."""
        prompt = transcript(messages)
        reply = self.reply(prompt, temperature=temperature)
        time.sleep(reply.latency_s)
        yield from _pieces(reply, reply.generation(prompt, model=self.name))

    async def astream(
        self, messages: Sequence[Message], *, temperature: float | None = None, **settings: Any
    ) -> AsyncGenerator[Piece, None]:
        """Async form of `stream`."""
        prompt = transcript(messages)
        reply = self.reply(prompt, temperature=temperature)
        await asyncio.sleep(reply.latency_s)
        for piece in _pieces(reply, reply.generation(prompt, model=self.name)):
            yield piece

    def _answer(self, reply: Reply, prompt: str) -> Generation:
        if reply.fault is not None:
            raise reply.fault
        return reply.generation(prompt, model=self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptedCalls:
    """Answers a policy's asks by scripted models, without a host.

    Examples
    --------
    >>> from confroute import Cascade, Message, TokenLogprob
    >>> from confroute.executor import run
    >>> calls = ScriptedCalls(models={"edge": ScriptedModel(["4"]), "cloud": ScriptedModel(["four"])})
    >>> request = Request(messages=(Message(role="user", text="2 + 2?"),))
    >>> run(Cascade.of(TokenLogprob(), 0.1), request, calls.call(request), {}).decision.route
    'edge'
    """

    models: Mapping[str, ScriptedModel]

    def _model(self, tier: str) -> ScriptedModel:
        if tier not in self.models:
            msg = f"no scripted model for tier {tier!r}: expected one of {', '.join(self.models)}"
            raise PolicyError(msg)
        return self.models[tier]

    def call(self, request: Request) -> Callable[[ModelAsk], list[Generation]]:
        """The `call` argument of `confroute.executor.run`."""

        def answer(ask: ModelAsk) -> list[Generation]:
            if isinstance(ask, (Score, Hidden)):
                raise elsewhere(ask, self._model(ask.tier).name)
            model, messages = self._model(ask.tier), _messages_for(ask, request)
            if isinstance(ask, Sample):
                return [*model.generate(messages, n=ask.n, temperature=ask.temperature)]
            return [*model.generate(messages)]

        return answer

    def acall(self, request: Request) -> Callable[[ModelAsk], Coroutine[None, None, list[Generation]]]:
        """The `call` argument of `confroute.executor.arun`."""

        async def answer(ask: ModelAsk) -> list[Generation]:
            if isinstance(ask, (Score, Hidden)):
                raise elsewhere(ask, self._model(ask.tier).name)
            model, messages = self._model(ask.tier), _messages_for(ask, request)
            if isinstance(ask, Sample):
                return [*await model.agenerate(messages, n=ask.n, temperature=ask.temperature)]
            return [*await model.agenerate(messages)]

        return answer

    def stream(self, request: Request) -> Callable[[StreamAsk], Generator[str | Generation, None, None]]:
        """The `stream` argument of `confroute.executor.run_stream`: tokens, then the whole answer."""

        def answer(ask: StreamAsk) -> Generator[str | Generation, None, None]:
            model, prompt = self._model(ask.tier), transcript(_messages_for(ask, request))
            reply = model.reply(prompt)
            time.sleep(reply.latency_s)
            yield from stream_tokens(reply)
            yield reply.generation(prompt, model=model.name)

        return answer

    def astream(self, request: Request) -> Callable[[StreamAsk], AsyncGenerator[str | Generation, None]]:
        """The `stream` argument of `confroute.executor.arun_stream`."""

        async def answer(ask: StreamAsk) -> AsyncGenerator[str | Generation, None]:
            model, prompt = self._model(ask.tier), transcript(_messages_for(ask, request))
            reply = model.reply(prompt)
            await asyncio.sleep(reply.latency_s)
            for token in stream_tokens(reply):
                yield token
            yield reply.generation(prompt, model=model.name)

        return answer


def stream_tokens(reply: Reply) -> Generator[str, None, None]:
    """Yield the tokens of a reply, and raise its fault after `fault_after` of them."""
    for position, token in enumerate(reply.tokens):
        if reply.fault is not None and position >= reply.fault_after:
            raise reply.fault
        yield token
    if reply.fault is not None:
        raise reply.fault


def token_at(generation: Generation, position: int) -> Generation:
    """Return one token of an answer, with its log-probability and alternatives."""
    at = slice(position, position + 1)
    return replace(
        generation,
        tokens=(generation.tokens or ())[at],
        logprobs=(generation.logprobs or ())[at] or None,
        top_logprobs=(generation.top_logprobs or ())[at] or None,
    )


def _pieces(reply: Reply, answer: Generation) -> Generator[Piece, None, None]:
    for position, token in enumerate(stream_tokens(reply)):
        part = token_at(answer, position)
        yield Piece(text=token, logprobs=part.logprobs or (), tokens=(token,), top_logprobs=part.top_logprobs)
    finish = None if answer.finish == "unknown" else answer.finish
    yield Piece(text="", finish=finish, usage=answer.usage)


def _messages_for(ask: ModelAsk | StreamAsk, request: Request) -> tuple[Message, ...]:
    """The messages that a model reads: the conversation and the ask's note, or the ask's own prompt."""
    if isinstance(ask, Prompt):
        return ask.messages
    note = getattr(ask, "note", None)
    own = () if note is None else (Message(role="user", text=note),)
    return (*request.messages, *own)
