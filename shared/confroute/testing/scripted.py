"""Models that say what you scripted, with the log-probabilities, delays and faults you scripted.

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
    """One thing a scripted model says.

    Attributes
    ----------
    text : str
    logprob : float or None
        Natural log-probability of every token; None for a provider that returns none.
    logprobs : tuple of float or None
        One per token instead, right or wrong on purpose: it is passed on as it is.
    top_logprobs : tuple of alternatives or None
        For each token the likeliest ones at its place, for callers that ask for them; see `Generation`.
    usage : Usage or None
        Words of prompt and answer where not given.
    latency_s : float
        Seconds until the (first part of the) answer.
    fault : Exception or None
        Raised instead of the answer, or after `fault_after` parts of a stream.
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
        """The text in words, each with the space before it."""
        return tuple(re.findall(r"\s*\S+\s*$|\s*\S+", self.text))

    def generation(self, prompt: str, *, model: str) -> Generation:
        """Return the reply as the core sees it."""
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
class Heard:
    """One call that a scripted model received."""

    prompt: str
    temperature: float | None = None


@dataclass(slots=True)
class ScriptedModel:
    """A model that gives set replies in turn, and remembers what it was asked.

    Parameters
    ----------
    replies : sequence of Reply or str, or callable
        Answers to calls at temperature 0 or none, the last one repeated for ever; or a function of the prompt.
    samples : sequence of Reply or str
        Answers to calls at a temperature above 0, in a cycle; the replies where not given.
    name : str
    remote : bool
        What it says of itself as a `confroute.models.text_model.TextModel`, which it is.

    Examples
    --------
    >>> model = ScriptedModel(["Paris"], samples=["Paris", "Lyon"])
    >>> model.reply("Capital?").text, model.reply("Capital?", temperature=0.7).text, len(model.heard)
    ('Paris', 'Paris', 2)
    """

    replies: Sequence[Reply | str] | Callable[[str], Reply | str] = ("ok",)
    samples: Sequence[Reply | str] = ()
    name: str = "scripted"
    remote: bool = False
    heard: list[Heard] = field(default_factory=list)
    _greedy: int = 0
    _sampled: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def __reduce__(self) -> tuple[type[ScriptedModel], tuple[object, ...]]:
        # Hosts pickle and deep-copy their models; a lock can neither be pickled nor copied.
        settings = self.replies, self.samples, self.name, self.remote
        return type(self), (*settings, [*self.heard], self._greedy, self._sampled)

    def reply(self, prompt: str, *, temperature: float | None = None) -> Reply:
        """The next reply to `prompt`; neither waits nor raises its fault."""
        with self._lock:
            self.heard.append(Heard(prompt=prompt, temperature=temperature))
            if temperature and self.samples:
                said = self.samples[self._sampled % len(self.samples)]
                self._sampled += 1
            elif callable(self.replies):
                said = self.replies(prompt)
            else:
                said = self.replies[min(self._greedy, len(self.replies) - 1)]
                self._greedy += 1
        return said if isinstance(said, Reply) else Reply(text=said)

    def generate(
        self, messages: Sequence[Message], *, n: int = 1, temperature: float | None = None, **settings: Any
    ) -> tuple[Generation, ...]:
        """Wait as scripted, then answer or raise, `n` times; other settings of a `TextModel` change nothing."""
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
    """Answers a policy's asks from scripted models, without a host.

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
        """What `confroute.executor.run` wants as `call`."""

        def answer(ask: ModelAsk) -> list[Generation]:
            if isinstance(ask, (Score, Hidden)):
                raise elsewhere(ask, self._model(ask.tier).name)
            model, messages = self._model(ask.tier), _asked(ask, request)
            if isinstance(ask, Sample):
                return [*model.generate(messages, n=ask.n, temperature=ask.temperature)]
            return [*model.generate(messages)]

        return answer

    def acall(self, request: Request) -> Callable[[ModelAsk], Coroutine[None, None, list[Generation]]]:
        """What `confroute.executor.arun` wants as `call`."""

        async def answer(ask: ModelAsk) -> list[Generation]:
            if isinstance(ask, (Score, Hidden)):
                raise elsewhere(ask, self._model(ask.tier).name)
            model, messages = self._model(ask.tier), _asked(ask, request)
            if isinstance(ask, Sample):
                return [*await model.agenerate(messages, n=ask.n, temperature=ask.temperature)]
            return [*await model.agenerate(messages)]

        return answer

    def stream(self, request: Request) -> Callable[[StreamAsk], Generator[str | Generation, None, None]]:
        """What `confroute.executor.run_stream` wants as `stream`: tokens, then the whole answer."""

        def answer(ask: StreamAsk) -> Generator[str | Generation, None, None]:
            model, prompt = self._model(ask.tier), transcript(_asked(ask, request))
            reply = model.reply(prompt)
            time.sleep(reply.latency_s)
            yield from parts(reply)
            yield reply.generation(prompt, model=model.name)

        return answer

    def astream(self, request: Request) -> Callable[[StreamAsk], AsyncGenerator[str | Generation, None]]:
        """What `confroute.executor.arun_stream` wants as `stream`."""

        async def answer(ask: StreamAsk) -> AsyncGenerator[str | Generation, None]:
            model, prompt = self._model(ask.tier), transcript(_asked(ask, request))
            reply = model.reply(prompt)
            await asyncio.sleep(reply.latency_s)
            for part in parts(reply):
                yield part
            yield reply.generation(prompt, model=model.name)

        return answer


def parts(reply: Reply) -> Generator[str, None, None]:
    """The tokens of a streamed reply, its fault raised where it was scripted."""
    for position, token in enumerate(reply.tokens):
        if reply.fault is not None and position >= reply.fault_after:
            raise reply.fault
        yield token
    if reply.fault is not None:
        raise reply.fault


def part(said: Generation, position: int) -> Generation:
    """One token of an answer, with what belongs to it."""
    here = slice(position, position + 1)
    return replace(
        said,
        tokens=(said.tokens or ())[here],
        logprobs=(said.logprobs or ())[here] or None,
        top_logprobs=(said.top_logprobs or ())[here] or None,
    )


def _pieces(reply: Reply, said: Generation) -> Generator[Piece, None, None]:
    for position, token in enumerate(parts(reply)):
        own = part(said, position)
        yield Piece(text=token, logprobs=own.logprobs or (), tokens=(token,), top_logprobs=own.top_logprobs)
    yield Piece(text="", finish=said.finish, usage=said.usage)


def prompt_of(request: Request) -> str:
    """A conversation as one text, as scripted models see it."""
    return transcript(request.messages)


def _asked(ask: ModelAsk | StreamAsk, request: Request) -> tuple[Message, ...]:
    """What a model is to read: the conversation or a prompt of the ask's own, and the ask's note."""
    if isinstance(ask, Prompt):
        return ask.messages
    note = getattr(ask, "note", None)
    own = () if note is None else (Message(role="user", text=note),)
    return (*request.messages, *own)
