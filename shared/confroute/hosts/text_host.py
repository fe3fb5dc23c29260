"""A `TextModel` as the host layer calls it: the smallest `HostModel`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import replace
from typing import Any

from confroute.errors import PolicyError, RequestError
from confroute.hosts.chat import ChatCall
from confroute.hosts.model import ModelCall, ModelFacts
from confroute.models.text_model import FunctionModel, OneByOne, Piece, Pieces, StreamingTextModel, TextModel
from confroute.types import Generation, Message


def facts_of(model: TextModel) -> ModelFacts:
    """What is known of a model without I/O; compute it once per model."""
    known: ModelFacts | None = getattr(model, "facts", None)
    if known is not None:
        return replace(known, model=model.name, answers_per_call=False, blocking=False)
    return ModelFacts(
        model=model.name,
        # Whoever keeps these facts keeps the model too.
        identity=id(model),
        context_window=getattr(model, "context_window", None),
        max_output=getattr(model, "max_tokens", None),
        answer_limit=getattr(model, "max_tokens", None),
        named=not isinstance(model, FunctionModel),
        answers_per_call=not isinstance(model, OneByOne),
    )


def lacking(model: TextModel, chat: ChatCall) -> str | None:
    """What a call needs that a model does not take, in words; None where it takes all of it."""
    return chat.lacking(getattr(model, "takes", frozenset()))


class TextHost:
    """One model with the conversation of one call.

    Parameters
    ----------
    model : TextModel
    chat : ChatCall
    facts : ModelFacts
        Those of `facts_of`.
    """

    __slots__ = ("_chat", "_model", "facts")

    def __init__(self, model: TextModel, chat: ChatCall, facts: ModelFacts) -> None:
        self._model, self._chat = model, chat
        loaded = getattr(model, "loaded", None)
        if loaded is not None:
            facts = replace(facts, inside=lambda: (loaded(), chat.messages))
        if chat.logprobs:
            alternatives = max(facts.alternatives, chat.top_logprobs)
            facts = replace(facts, keeps_logprobs=True, alternatives=alternatives)
        self.facts = facts

    def call(self, call: ModelCall) -> Sequence[Generation]:
        """Make the call and return its answers.

        Raises
        ------
        RequestError
            The call needs something that the model does not take, such as tools.
        """
        return self._checked(self._model.generate(self._sent(call), n=call.n, **self._settings(call)), call)

    async def acall(self, call: ModelCall) -> Sequence[Generation]:
        """Async form of `call`."""
        answers = await self._model.agenerate(self._sent(call), n=call.n, **self._settings(call))
        return self._checked(answers, call)

    def stream(self, call: ModelCall) -> Generator[Piece | Generation, None, None]:
        """Yield the pieces of the answer, one where the model does not stream, and then the whole of it."""
        if not isinstance(self._model, StreamingTextModel):
            yield from _whole(self.call(call))
            return
        pieces = Pieces()
        with closing(self._model.stream(self._sent(call), **self._settings(call))) as stream:
            for piece in stream:
                pieces.add(piece)
                if piece.text or piece.logprobs or piece.beside:
                    yield piece
        yield self._ended(pieces, call)

    async def astream(self, call: ModelCall) -> AsyncGenerator[Piece | Generation, None]:
        """Async form of `stream`."""
        if not isinstance(self._model, StreamingTextModel):
            for item in _whole(await self.acall(call)):
                yield item
            return
        pieces = Pieces()
        async with aclosing(self._model.astream(self._sent(call), **self._settings(call))) as stream:
            async for piece in stream:
                pieces.add(piece)
                if piece.text or piece.logprobs or piece.beside:
                    yield piece
        yield self._ended(pieces, call)

    def _checked(self, answers: object, call: ModelCall) -> Sequence[Generation]:
        """The answers of a model that may be the user's own; an edge that answers anything else would fail at every call."""
        if not isinstance(answers, (tuple, list)):
            said = f"a {type(answers).__name__}"
        elif wrong := [one for one in answers if not isinstance(one, Generation)]:
            said = f"an answer that is a {type(wrong[0]).__name__}"
        elif call.messages is not None or self._chat.sent is None:
            return answers
        else:
            return [self._judged(answer, call) for answer in answers]
        msg = f"{self.facts.model} returned {said}: expected a tuple of Generation"
        raise PolicyError(msg)

    def _judged(self, answer: Generation, call: ModelCall) -> Generation:
        judged = self._chat.judged(answer, call.help)
        # What was paid for and says nothing in words is an answer all the same.
        return self._chat.with_wordless_answer(judged) if call.role == "final" else judged

    def _ended(self, pieces: Pieces, call: ModelCall) -> Generation:
        answer = self._judged(pieces.whole(model=self.facts.model), call)
        return answer if self.facts.streams else replace(answer, unfinished=False)

    def _sent(self, call: ModelCall) -> tuple[Message, ...]:
        if call.messages is not None:
            return call.messages
        messages = self._chat.messages
        return messages if call.note is None else (*messages, Message(role="user", text=call.note))

    def _settings(self, call: ModelCall) -> dict[str, Any]:
        """How the answer is wanted: as the call says, else as the caller of the router does."""
        settings = {
            "temperature": call.temperature,
            "max_tokens": call.max_tokens,
            "logprobs": call.logprobs,
            "top_logprobs": call.top_logprobs,
        }
        chat = self._chat
        if call.messages is not None or chat.sent is None:
            return settings
        if lacks := lacking(self._model, chat):
            msg = f"{self.facts.model} cannot be given {lacks}: leave it out, or use a model behind a server (openai:MODEL, ollama:MODEL)"
            raise RequestError(msg)
        sampled = call.role == "sample"
        own = {
            "temperature": chat.temperature,
            "max_tokens": chat.max_tokens,
            # A sample with the draft's own seed would be the draft.
            "seed": None if chat.seed is None else chat.seed + call.drawn + sampled,
            "stop": chat.stop or None,
            "chat": chat.sent if "chat" in getattr(self._model, "takes", ()) else None,
        }
        if own["chat"] is not None:
            # Where the caller forbids calls, or has no functions, there is nothing to hand on.
            tool = None if call.help is None or not chat.tools else call.help.form
            own["chat"] = chat.sent.made_for(note=call.note, seeded=not sampled, tool=tool)
        return settings | {
            name: value for name, value in own.items() if value is not None and settings.get(name) is None
        }


def _whole(answers: Sequence[Generation]) -> Generator[Piece | Generation, None, None]:
    answer = answers[0] if answers else Generation(text="")
    if answer.text:
        yield Piece(text=answer.text, logprobs=answer.logprobs or (), tokens=answer.tokens or ())
    yield answer
