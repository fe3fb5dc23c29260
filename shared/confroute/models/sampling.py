"""From tokens to answers: check the parameters, grow each answer until it ends, cut pieces for streaming."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from confroute.errors import RequestError
from confroute.models.text_model import Piece
from confroute.types import Alternatives, Finish, Generation, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingPlan:
    """How to draw: number of answers, most tokens per answer, temperature (0 is greedy), top-p, seed, alternatives."""

    n: int = 1
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """One token of one row, with its natural log-probability at temperature 1 and the likeliest ones there."""

    row: int
    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


class Draws(Protocol):
    """Whatever draws a token per row at a time, such as `confroute.models.decoding.Decoder`."""

    def step(self) -> list[Drawn] | None:
        """The next token of every row left; None once cancelled."""
        ...

    def drop(self, rows: Collection[int]) -> None:
        """Take rows out of the batch."""
        ...


def check(plan: SamplingPlan, stop: Sequence[str]) -> None:
    """Raise RequestError for the first parameter that is out of range."""
    n, temperature = plan.n, plan.temperature
    wrong = {
        f"n={n}: expected at least 1": n < 1,
        f"max_tokens={plan.max_tokens}: expected at least 1": plan.max_tokens < 1,
        f"temperature={temperature}: expected a number of at least 0; 0 is greedy": not 0
        <= temperature
        < float("inf"),
        f"top_p={plan.top_p}: expected a number in (0, 1]; 1 takes all tokens": not 0 < plan.top_p <= 1,
        f"top_logprobs={plan.top_logprobs}: expected at least 0": plan.top_logprobs < 0,
        f"n={n} with temperature 0 would give the same answer {n} times; raise temperature or set n=1": n > 1
        and temperature == 0,
        f"stop={stop!r}: expected a sequence of non-empty strings, such as ['\\n']": isinstance(stop, str)
        or "" in stop,
    }
    for msg, is_wrong in wrong.items():
        if is_wrong:
            raise RequestError(msg)


def steps(
    decoder: Draws, answers: list[GrowingAnswer], plan: SamplingPlan, ends: frozenset[int]
) -> Iterator[None]:
    """Draw until every answer has ended; yields after each step."""
    for step in range(plan.max_tokens):
        tokens = decoder.step()
        if tokens is None:
            break
        for drawn in tokens:
            answer = answers[drawn.row]
            if drawn.token in ends:
                answer.billed += 1
                answer.end("stop")
                continue
            answer.push(drawn.token, drawn.logprob, drawn.top)
            if step == plan.max_tokens - 1:
                answer.end("length")
        decoder.drop({drawn.row for drawn in tokens if answers[drawn.row].finish})
        yield
        if all(answer.finish for answer in answers):
            return
    for answer in answers:
        answer.end("cancelled")


def generations_of(
    answers: Sequence[GrowingAnswer], *, model: str, prompt_tokens: int, latency_s: float
) -> tuple[Generation, ...]:
    """Convert the ended answers to generations; only the first one counts the prompt."""
    return tuple(
        Generation(
            text=answer.text,
            logprobs=tuple(answer.logprobs),
            tokens=tuple(answer.tokens),
            top_logprobs=answer.alternatives(),
            usage=Usage(input_tokens=0 if index else prompt_tokens, output_tokens=answer.billed),
            finish=answer.finish or "unknown",
            model=model,
            latency_s=latency_s,
            raw=tuple(answer.ids),
        )
        for index, answer in enumerate(answers)
    )


def piece_of(
    answer: GrowingAnswer, start: int, stop: int, *, finish: Finish | None = None, usage: Usage | None = None
) -> Piece:
    """Tokens `start` to `stop` of an answer."""
    tokens = tuple(answer.tokens[start:stop])
    return Piece(
        text="".join(tokens),
        logprobs=tuple(answer.logprobs[start:stop]),
        tokens=tokens,
        top_logprobs=answer.alternatives(start, stop),
        finish=finish,
        usage=usage,
    )


UNFINISHED = "\ufffd"


@dataclass(slots=True, kw_only=True)
class GrowingAnswer:
    """One answer while it is decoded: its tokens with their texts and log-probabilities, its text, and why it ended.

    A character whose bytes span several tokens belongs to the token that completes it; the others have no text.
    """

    decode: Callable[[list[int]], str]
    stop: tuple[str, ...] = field(default=(), repr=False)
    ids: list[int] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list, repr=False)
    logprobs: list[float] = field(default_factory=list)
    tops: list[Alternatives] = field(default_factory=list)
    text: str = field(default="", repr=False)
    finish: Finish | None = None
    billed: int = 0
    _prefix: int = 0
    _complete: int = 0

    def push(self, token: int, logprob: float, top: Sequence[tuple[int, float]] = ()) -> None:
        """Append a token that is not an end token, with the likeliest tokens at its position."""
        self.billed += 1
        self.ids.append(token)
        self.logprobs.append(logprob)
        self.tops.append(tuple((self.decode([other]), value) for other, value in top))
        old, new = self._window()
        if len(new) > len(old) and not new.endswith(UNFINISHED):
            self._prefix, self._complete = self._complete, len(self.ids)
            self._append(new[len(old) :])
        else:
            self.tokens.append("")

    def end(self, finish: Finish) -> None:
        """End the answer; bytes that never completed a character become U+FFFD."""
        if self.finish is None:
            self.finish = finish
            old, new = self._window()
            if len(new) > len(old) and self.tokens:
                self.tokens.pop()
                self._append(new[len(old) :])

    def alternatives(self, start: int = 0, stop: int | None = None) -> tuple[Alternatives, ...] | None:
        """The likeliest tokens at each position; None if none were requested."""
        tops = tuple(self.tops[start:stop])
        return tops if any(tops) else None

    def ready(self) -> int:
        """How many tokens can be streamed now: those whose text cannot turn out to begin a stop string."""
        if self.finish is not None:
            return len(self.tokens)
        safe = len(self.text) - max((_overlap(self.text, stop) for stop in self.stop), default=0)
        count = end = 0
        for position, piece in enumerate(self.tokens):
            end += len(piece)
            if end > safe:
                break
            # A token without text waits for the token that completes its character.
            count = position + 1 if piece else count
        return count

    def _window(self) -> tuple[str, str]:
        return self.decode(self.ids[self._prefix : self._complete]), self.decode(self.ids[self._prefix :])

    def _append(self, piece: str) -> None:
        start = len(self.text)
        self.text += piece
        self.tokens.append(piece)
        hits = [self.text.find(stop, max(0, start - len(stop) + 1)) for stop in self.stop]
        if any(hit >= 0 for hit in hits):
            self._cut(min(hit for hit in hits if hit >= 0))
            self.finish = "stop"

    def _cut(self, length: int) -> None:
        """Keep `length` characters and their tokens; a token that the cut divides keeps the part before the cut."""
        self.text = self.text[:length]
        end = 0
        for position, piece in enumerate(self.tokens):
            if end >= length:
                for column in (self.tokens, self.logprobs, self.tops, self.ids):
                    del column[position:]
                break
            self.tokens[position] = piece[: length - end]
            end += len(piece)
        # Signals refuse an answer in which fewer tokens have a log-probability than were billed.
        self.billed = len(self.tokens)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest suffix of `text` that is a prefix of `stop`.

    Examples
    --------
    >>> _overlap("one, tw", "two"), _overlap("one", "two")
    (2, 0)
    """
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if stop.startswith(text[-size:])), 0)
