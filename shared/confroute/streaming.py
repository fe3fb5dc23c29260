"""A draft that is watched while it is written: released, cut off, or kept back until it is whole."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import AsyncExitStack, aclosing, closing
from typing import Any, Generic, TypeAlias, TypeVar

from confroute.asks import Evidence, Final, Outcome, Seen, Tentative, Watch
from confroute.errors import BadLogprobsError
from confroute.models.resilience import Limits, aattempt, attempt
from confroute.types import Generation, Tier, Usage, checked_logprobs

C = TypeVar("C")
Streamed: TypeAlias = Final | Tentative
Scores: TypeAlias = Callable[[Any], Sequence[float] | None]  # a chunk is the host's own


class Watched:
    """The running evidence of one draft.

    Examples
    --------
    >>> seen = Watched(lambda tokens, nats: "commit" if tokens == 2 and nats < 1 else "wait")
    >>> seen.add((-0.1,)), seen.add((-0.2, -9.0)), seen.outcome
    ('wait', 'commit', 'commit')
    """

    __slots__ = ("_blind", "_watch", "nats", "outcome", "tokens")

    def __init__(self, watch: Watch) -> None:
        self.outcome: Outcome = "wait"
        self.tokens = 0
        self.nats = 0.0
        self._watch, self._blind = watch, False

    def add(self, logprobs: Sequence[float] | None) -> Outcome:
        """Go through the next tokens, one after the other; the first outcome that is not "wait" is final.

        None stands for tokens whose log-probabilities are unknown: from there on there is nothing to judge by.
        """
        if logprobs is None and self.outcome == "wait":
            self._blind = True
        for value in logprobs or ():
            if self.outcome != "wait" or self._blind:
                break
            self._next(value)
        return self.outcome

    @property
    def seen(self) -> Seen:
        """How it ended."""
        return Seen(outcome=self.outcome, tokens=self.tokens, nats=self.nats)

    def _next(self, value: float) -> None:
        try:
            # Finite and at most 0, but for rounding.
            checked_logprobs((value,))
        except BadLogprobsError:
            self._blind = True
            return
        self.tokens += 1
        self.nats += max(0.0, -value)
        self.outcome = self._watch(self.tokens, self.nats)


def replayed(watch: Watch, draft: Generation) -> Seen:
    """What watching a draft would have come to that is whole already."""
    watched = Watched(watch)
    watched.add(draft.logprobs)
    return watched.seen


def streamed(
    wanted: Streamed,
    stream: Callable[[Streamed], Generator[C | Generation, None, None]],
    limits: Limits,
    scores: Scores | None,
    tier: Tier | None,
    *,
    keep_s: float = 0.0,
) -> Generator[C | Evidence, None, None]:
    """The chunks of one answer that may be shown, as soon as they may, and its evidence as the last item.

    Parameters
    ----------
    wanted : Final or Tentative
        Chunks of a `Tentative` are held until its `watch` commits to it, and dropped if it cuts it off.
    stream : callable
        Answers it by chunks and, as its last item, the whole `Generation`.
    limits : Limits
        Of the tier, until the first chunk.
    scores : callable or None
        Log-probabilities of the tokens in a chunk: empty if it holds no token, None if they are unknown.
    tier : Tier or None
        What is known of the tier.
    keep_s : float
        Seconds of a deadline that waiting for the first chunk leaves to the tiers after it.
    """
    start = time.perf_counter()

    def begin() -> tuple[Generator[C | Generation, None, None], C | Generation]:
        items = stream(wanted)
        return items, next(items)

    done = attempt(limits, wanted.tier, begin, keep_s=keep_s)
    items, item = done.value
    held: _Held[C] = _Held(wanted, scores)
    with closing(items):
        while not isinstance(item, Generation):
            yield from held.released(item)
            if held.outcome == "cut":
                break
            item = next(items)
    yield held.evidence(item, tier, latency_s=time.perf_counter() - start, attempts=done.attempts)


async def astreamed(
    wanted: Streamed,
    stream: Callable[[Streamed], AsyncGenerator[C | Generation, None]],
    limits: Limits,
    scores: Scores | None,
    tier: Tier | None,
    *,
    keep_s: float = 0.0,
) -> AsyncGenerator[C | Evidence, None]:
    """Async form of `streamed`."""
    start = time.perf_counter()
    held: _Held[C] = _Held(wanted, scores)
    # Each attempt's: a first chunk that comes just as time runs out is thrown away, and its stream must not stay open.
    async with AsyncExitStack() as opened:

        async def begin() -> tuple[AsyncGenerator[C | Generation, None], C | Generation]:
            items = await opened.enter_async_context(aclosing(stream(wanted)))
            return items, await anext(items)

        done = await aattempt(limits, wanted.tier, begin, keep_s=keep_s)
        items, item = done.value
        while not isinstance(item, Generation):
            for chunk in held.released(item):
                yield chunk
            if held.outcome == "cut":
                break
            item = await anext(items)
    yield held.evidence(item, tier, latency_s=time.perf_counter() - start, attempts=done.attempts)


class _Held(Generic[C]):
    """The chunks of one answer that have to wait."""

    __slots__ = ("_chunks", "_scores", "_seen")

    def __init__(self, wanted: Streamed, scores: Scores | None) -> None:
        self._chunks: list[C] = []
        self._scores = scores
        self._seen = Watched(wanted.watch) if isinstance(wanted, Tentative) else None

    @property
    def outcome(self) -> Outcome:
        return "commit" if self._seen is None else self._seen.outcome

    def released(self, chunk: C) -> list[C]:
        """What may be shown now that `chunk` has come."""
        if self._seen is None or self._seen.outcome == "commit":
            return [chunk]
        self._chunks.append(chunk)
        if self._scores is None or self._seen.add(self._scores(chunk)) != "commit":
            return []
        chunks, self._chunks = self._chunks, []
        return chunks

    def evidence(self, last: object, tier: Tier | None, *, latency_s: float, attempts: int) -> Evidence:
        """What the ask brought; a draft that was cut off has no text, and tokens that we counted ourselves."""
        if isinstance(last, Generation):
            answer = last
        else:
            prompt = (tier.input_tokens if tier is not None else None) or 0
            tokens = self._seen.tokens if self._seen is not None else 0
            usage = Usage(input_tokens=prompt, output_tokens=tokens)
            answer = Generation(text="", usage=usage, finish="cancelled")
        seen = None if self._seen is None else self._seen.seen
        return Evidence(generations=(answer,), latency_s=latency_s, attempts=attempts, seen=seen)
