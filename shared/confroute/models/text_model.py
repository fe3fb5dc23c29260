"""Models that answer text with text, asked without a host framework: by `confroute.Router`, to record, to label, to judge.

`confroute.models.resolution.resolve` makes one of whatever users name or hold in their hands.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from confroute.concurrency import off_the_loop
from confroute.errors import PolicyError
from confroute.models.chat_format import ChatRequest, GrowingMessage
from confroute.models.provider_answers import (
    ChunkScores,
    ChunkTokens,
    ScoredTokens,
    chunk_tokens,
    generation_of,
)
from confroute.types import Alternatives, Finish, Generation, Message, Usage

MAX_TOKENS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A part of a streamed answer.

    Attributes
    ----------
    text : str
        Never retracted. May be empty on the last piece.
    logprobs : tuple of float
        Natural log-probabilities of `tokens`, in (-inf, 0]; empty beside a text whose log-probabilities are unknown.
    tokens : tuple of str
        They join to `text`; empty where they are unknown.
    top_logprobs : tuple of alternatives or None
        The likeliest tokens at each place, where they were asked for.
    finish : str or None
        Why the answer ended; on the last piece only.
    usage : Usage or None
        Tokens of the whole call; on the last piece only.
    beside : mapping or None
        What else a server sent with it, in OpenAI's chat format: parts of tool calls, of a refusal, of reasoning.
    """

    text: str = field(repr=False)
    logprobs: tuple[float, ...] = ()
    tokens: tuple[str, ...] = field(default=(), repr=False)
    top_logprobs: tuple[Alternatives, ...] | None = field(default=None, repr=False)
    finish: Finish | None = None
    usage: Usage | None = None
    beside: Mapping[str, Any] | None = field(default=None, repr=False)


@runtime_checkable
class TextModel(Protocol):
    """Answers a conversation, once or several times.

    Attributes
    ----------
    name : str
        The model's own name, for caches and records.
    remote : bool
        Whether text leaves this machine: private text is never sent to a remote model.
    """

    @property
    def name(self) -> str:
        """The model's own name."""
        ...

    @property
    def remote(self) -> bool:
        """Whether text leaves this machine."""
        ...

    def generate(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = 0.0,
        max_tokens: int | None = MAX_TOKENS,
        seed: int | None = None,
        logprobs: bool = True,
        top_logprobs: int = 0,
    ) -> tuple[Generation, ...]:
        """Answer `n` times.

        Parameters
        ----------
        messages : sequence of Message
        n : int
            Answers to draw. A model may return fewer: count them.
        temperature : float, optional
            None for the model's own.
        max_tokens : int, optional
            The longest answer, where the model lets a caller set it; None for the model's own.
        seed : int, optional
            Used where the model takes one; several answers of one call differ all the same.
        logprobs : bool
            Whether log-probabilities are wanted, where the model has them.
        top_logprobs : int
            Alternatives per token that are wanted, where the model has them.
        """
        ...

    async def agenerate(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float | None = 0.0,
        max_tokens: int | None = MAX_TOKENS,
        seed: int | None = None,
        logprobs: bool = True,
        top_logprobs: int = 0,
    ) -> tuple[Generation, ...]:
        """Async form of `generate`."""
        ...


@runtime_checkable
class StreamingTextModel(TextModel, Protocol):
    """A `TextModel` that can also answer piece by piece; closing the stream ends the answer."""

    def stream(
        self,
        messages: Sequence[Message],
        *,
        temperature: float | None = 0.0,
        max_tokens: int | None = MAX_TOKENS,
        seed: int | None = None,
        logprobs: bool = True,
        top_logprobs: int = 0,
    ) -> Generator[Piece, None, None]:
        """Answer once, piece by piece; the pieces join to what `generate` gives."""
        ...

    def astream(
        self,
        messages: Sequence[Message],
        *,
        temperature: float | None = 0.0,
        max_tokens: int | None = MAX_TOKENS,
        seed: int | None = None,
        logprobs: bool = True,
        top_logprobs: int = 0,
    ) -> AsyncGenerator[Piece, None]:
        """Async form of `stream`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How answers are wanted: the parameters of `TextModel.generate` and their defaults, and two that not every model takes.

    `stop`, strings that the answer ends before, is given to models whose `takes` has "stop", and `chat`, the request in OpenAI's format that
    the conversation comes from, to those whose `takes` has "chat".
    """

    temperature: float | None = 0.0
    max_tokens: int | None = MAX_TOKENS
    seed: int | None = None
    logprobs: bool = True
    top_logprobs: int = 0
    stop: tuple[str, ...] = field(default=(), repr=False)
    chat: ChatRequest | None = field(default=None, repr=False)

    def seed_of(self, number: int) -> int | None:
        """The seed of answer `number`, 0 for the first: with one seed for all they would be one answer."""
        return None if self.seed is None else self.seed + number


class OneByOne:
    """`generate` and `agenerate` of a `TextModel` that gives one answer per call, from its `one` and `aone`."""

    __slots__ = ()

    def one(self, messages: Sequence[Message], settings: Settings, number: int) -> Generation:
        """Answer number `number`, 0 for the first."""
        raise NotImplementedError  # the class that takes this one in has it

    async def aone(self, messages: Sequence[Message], settings: Settings, number: int) -> Generation:
        """Async form of `one`."""
        raise NotImplementedError  # the class that takes this one in has it

    def generate(self, messages: Sequence[Message], *, n: int = 1, **settings: Any) -> tuple[Generation, ...]:
        """`n` calls of the model, one after the other."""
        request = Settings(**settings)
        return tuple(self.one(messages, request, number) for number in range(n))

    async def agenerate(
        self, messages: Sequence[Message], *, n: int = 1, **settings: Any
    ) -> tuple[Generation, ...]:
        """Async form of `generate`, all calls at once."""
        request = Settings(**settings)
        return tuple(await asyncio.gather(*(self.aone(messages, request, number) for number in range(n))))


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionModel(OneByOne):
    """A function of the conversation, sync or async, that returns a text or a `Generation`.

    Parameters
    ----------
    function : callable
        `function(messages)`; parameters named as those of `TextModel.generate` are filled, and a seed differs from answer
        to answer.
    name : str
        The function's own where not given.
    remote : bool
        True unless you know that the function sends nothing anywhere.

    Examples
    --------
    >>> FunctionModel(function=lambda messages: "yes", name="always").generate(())[0].text
    'yes'
    """

    function: Callable[..., Any]
    name: str = ""
    remote: bool = True

    def __post_init__(self) -> None:
        if not self.name:
            own = getattr(self.function, "__qualname__", type(self.function).__name__)
            object.__setattr__(self, "name", own)

    def one(self, messages: Sequence[Message], settings: Settings, number: int) -> Generation:
        """Call the function."""
        if self._is_async:
            return asyncio.run(self.aone(messages, settings, number))
        return self._generation(self.function(tuple(messages), **self._filled(settings, number)))

    async def aone(self, messages: Sequence[Message], settings: Settings, number: int) -> Generation:
        """Await an async function; a sync one runs in a thread."""
        if not self._is_async:
            return await off_the_loop(self.one, messages, settings, number)
        return self._generation(await self.function(tuple(messages), **self._filled(settings, number)))

    @property
    def _is_async(self) -> bool:
        called = self.function if inspect.isroutine(self.function) else type(self.function).__call__
        return inspect.iscoroutinefunction(called)

    def _filled(self, settings: Settings, number: int) -> dict[str, Any]:
        values = {
            "temperature": settings.temperature,
            "max_tokens": settings.max_tokens,
            "seed": settings.seed_of(number),
            "logprobs": settings.logprobs,
            "top_logprobs": settings.top_logprobs,
        }
        parameters = inspect.signature(self.function).parameters
        return {name: value for name, value in values.items() if name in parameters}

    def _generation(self, answer: object) -> Generation:
        if isinstance(answer, Generation):
            return answer
        if isinstance(answer, str):
            return Generation(text=answer, model=self.name)
        msg = f"{self.name} returned a {type(answer).__name__}: expected a str or a Generation"
        raise PolicyError(msg)


def scored_piece(text: str, scored: ScoredTokens | None, **fields: Any) -> Piece:
    """A part of an answer with its log-probabilities, if there are any; `fields` are the other fields of `Piece`."""
    if scored is None:
        return Piece(text=text, **fields)
    return Piece(
        text=text,
        logprobs=scored.logprobs,
        tokens=scored.tokens or (),
        top_logprobs=scored.alternatives,
        **fields,
    )


def piece_logprobs(piece: Piece) -> ChunkTokens:
    """Those of one piece of a stream: empty if it holds no text, None if it does and they are unknown."""
    return chunk_tokens(_scored(piece), has_text=bool(piece.text))


def _scored(piece: Piece) -> ScoredTokens | None:
    if not piece.logprobs:
        return None
    return ScoredTokens(logprobs=piece.logprobs, tokens=piece.tokens or None, alternatives=piece.top_logprobs)


class Pieces:
    """Puts the pieces of one answer together.

    Examples
    --------
    >>> pieces = Pieces()
    >>> for text in ("It is", " 4."):
    ...     pieces.add(Piece(text=text, logprobs=(-0.1,), tokens=(text,)))
    >>> pieces.whole(model="small").text
    'It is 4.'
    """

    __slots__ = ("_beside", "_finish", "_scores", "_texts", "_usage")

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._beside: GrowingMessage | None = None
        self._scores = ChunkScores()
        self._finish: Finish | None = None
        self._usage: Usage | None = None

    def add(self, piece: Piece) -> None:
        """Add the next piece."""
        self._texts.append(piece.text)
        self._scores.add(_scored(piece), has_text=bool(piece.text))
        self._finish = piece.finish or self._finish
        self._usage = piece.usage or self._usage
        if piece.beside:
            self._beside = self._beside or GrowingMessage()
            self._beside.add(piece.beside)

    def whole(self, *, model: str) -> Generation:
        """The answer that the pieces make; log-probabilities only if every piece with text had its own."""
        return generation_of(
            "".join(self._texts),
            scored=self._scores.whole,
            usage=self._usage,
            finish=self._finish or "unknown",
            unfinished=self._finish is None and any(self._texts),
            model=model,
            raw=None if self._beside is None else self._beside.whole,
        )
