"""One streamed answer: what may be shown of it, and when. A draft is watched while it is written: released, cut off, or held back."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, aclosing, closing, contextmanager
from typing import Any, Generic, TypeAlias, TypeVar

from confroute.alignment import ReasoningFilter, answer_tokens
from confroute.asks import Evidence, Outcome, StreamAsk, Tentative, Watch, WatchResult
from confroute.clock import Loads, timing
from confroute.decision import Decision, total_of, untold
from confroute.error_notes import note_inner, note_usage, noted_usage
from confroute.errors import BadLogprobsError
from confroute.models.provider_answers import ScoredTokens
from confroute.models.resilience import Limits, aattempt, attempt
from confroute.observe.trace import nested_in
from confroute.types import Generation, Tier, Usage, checked_logprobs, only_zeros, with_sound_usage

C = TypeVar("C")
# Of one chunk, which is the host's own.
ChunkLogprobs: TypeAlias = Callable[[Any], ScoredTokens | Sequence[float] | None]


class DraftMonitor:
    """Judges a draft token by token; reasoning that its text begins with is passed over.

    Examples
    --------
    >>> monitor = DraftMonitor(lambda tokens, nats: "commit" if tokens == 2 and nats < 1 else "wait")
    >>> monitor.add((-0.1,)), monitor.add((-0.2, -9.0)), monitor.outcome
    ('wait', 'commit', 'commit')
    """

    __slots__ = ("_blind", "_reasoning", "_watch", "nats", "outcome", "tokens")

    def __init__(self, watch: Watch) -> None:
        self.outcome: Outcome = "wait"
        self.tokens = 0
        self.nats = 0.0
        self._watch, self._blind, self._reasoning = watch, False, ReasoningFilter()

    def add(self, chunk: ScoredTokens | Sequence[float] | None) -> Outcome:
        """Take the next tokens one after the other; the first outcome that is not "wait" is final.

        None stands for tokens whose log-probabilities are unknown: from there on there is nothing to judge by.
        """
        if chunk is None and self.outcome == "wait":
            self._blind = True
        for value in self._answer_only(chunk) if isinstance(chunk, ScoredTokens) else chunk or ():
            if self.outcome != "wait" or self._blind:
                break
            self._add_one(value)
        return self.outcome

    def _answer_only(self, chunk: ScoredTokens) -> Iterator[float]:
        if chunk.tokens is None:
            return iter(chunk.logprobs)
        pairs = zip(chunk.tokens, chunk.logprobs, strict=True)
        return (value for token, value in pairs if self._reasoning.passes(token))

    @property
    def result(self) -> WatchResult:
        """The outcome and what it rests on."""
        return WatchResult(outcome=self.outcome, tokens=self.tokens, nats=self.nats)

    def _add_one(self, value: float) -> None:
        try:
            # Finite and at most 0, but for rounding.
            checked_logprobs((value,))
        except BadLogprobsError:
            self._blind = True
            return
        self.tokens += 1
        self.nats += max(0.0, -value)
        # Zeros that a server fills in are no certainty; a single token below 0 ends the suspicion.
        if self.nats or not only_zeros((0.0,) * self.tokens):
            self.outcome = self._watch(self.tokens, self.nats)


def replay(watch: Watch, draft: Generation) -> WatchResult:
    """Watch a draft that is complete already."""
    monitor, logprobs = DraftMonitor(watch), draft.logprobs or ()
    if draft.tokens and len(draft.tokens) == len(logprobs):
        positions = answer_tokens(draft.tokens, draft.text)
        monitor.add(None if positions is None else [logprobs[position] for position in positions])
    else:
        monitor.add(draft.logprobs)
    return monitor.result


def stream_answer(
    ask: StreamAsk,
    stream: Callable[[StreamAsk], Generator[C | Generation, None, None]],
    limits: Limits,
    scores: ChunkLogprobs | None,
    tier: Tier | None,
    *,
    keep_s: float = 0.0,
    private: bool = False,
) -> Generator[C | Evidence, None, None]:
    """Yield the chunks of one answer as soon as they may be shown, and its evidence as the last item.

    Parameters
    ----------
    ask : Final or Tentative
        Chunks of a `Tentative` are held until its `watch` commits to it, and dropped if it cuts it off.
    stream : callable
        Answers the ask by chunks and, as its last item, the whole `Generation`.
    limits : Limits
        Of the tier, until the first chunk.
    scores : callable or None
        Log-probabilities of the tokens in a chunk: empty if it holds no token, None if they are unknown.
    tier : Tier or None
        What is known of the tier.
    keep_s : float
        Seconds of a deadline that waiting for the first chunk leaves to the tiers after it.
    private : bool
        Whether the call may not leave its tier.
    """
    start = time.perf_counter()

    held: _HeldChunks[C] = _HeldChunks(ask, scores, tier, private)

    def begin() -> tuple[Generator[C | Generation, None, None], C | Generation]:
        items = stream(ask)
        return items, step(items)

    def step(items: Generator[C | Generation, None, None]) -> C | Generation:
        with held.nested():
            return next(items)

    with held.noting():
        begun = attempt(limits, ask.tier, begin, keep_s=keep_s, drop=lambda late: late[0].close())
        items, item = begun.value
        with closing(items):
            while not isinstance(item, Generation):
                yield from held.release(item)
                if held.outcome == "cut":
                    break
                item = step(items)
    yield held.evidence(
        item, latency_s=time.perf_counter() - start - held.loads.total_s, attempts=begun.attempts
    )


async def astream_answer(
    ask: StreamAsk,
    stream: Callable[[StreamAsk], AsyncGenerator[C | Generation, None]],
    limits: Limits,
    scores: ChunkLogprobs | None,
    tier: Tier | None,
    *,
    keep_s: float = 0.0,
    private: bool = False,
) -> AsyncGenerator[C | Evidence, None]:
    """Async form of `stream_answer`."""
    start = time.perf_counter()
    held: _HeldChunks[C] = _HeldChunks(ask, scores, tier, private)
    # Each attempt's: a first chunk that comes just as time runs out is thrown away, and its stream must not stay open.
    async with AsyncExitStack() as opened:

        async def begin() -> tuple[AsyncGenerator[C | Generation, None], C | Generation]:
            items = await opened.enter_async_context(aclosing(stream(ask)))
            return items, await step(items)

        async def step(items: AsyncGenerator[C | Generation, None]) -> C | Generation:
            with held.nested():
                return await anext(items)

        with held.noting():
            begun = await aattempt(limits, ask.tier, begin, keep_s=keep_s)
            items, item = begun.value
            while not isinstance(item, Generation):
                for chunk in held.release(item):
                    yield chunk
                if held.outcome == "cut":
                    break
                item = await step(items)
    yield held.evidence(
        item, latency_s=time.perf_counter() - start - held.loads.total_s, attempts=begun.attempts
    )


class _HeldChunks(Generic[C]):
    """The chunks of one answer that may not be shown yet."""

    __slots__ = ("_chunks", "_count", "_monitor", "_private", "_scores", "_tier", "inner", "loads")

    def __init__(
        self, ask: StreamAsk, scores: ChunkLogprobs | None, tier: Tier | None, private: bool
    ) -> None:
        self.inner: list[Decision] = []
        self.loads = Loads()
        self._chunks: list[C] = []
        self._count = 0
        self._scores, self._tier, self._private = scores, tier, private
        self._monitor = DraftMonitor(ask.watch) if isinstance(ask, Tentative) else None

    def nested(self) -> AbstractContextManager[None]:
        """What stands around every step of the stream; between two chunks the context is the caller's."""
        return _Step(nested_in(self.inner, private=self._private), timing(self.loads))

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Note on what ends a stream early what it was billed, and what routers inside it decided.

        Where nobody told the bill, a token is counted for each chunk that came: the provider's own count comes with the last one.
        """
        try:
            yield
        except BaseException as error:
            note_inner(error, self.inner)
            seen = self._usage(self._count) if self._count else None
            note_usage(error, total_of(self.inner) or noted_usage(error) or seen)
            raise

    @property
    def outcome(self) -> Outcome:
        return "commit" if self._monitor is None else self._monitor.outcome

    def release(self, chunk: C) -> list[C]:
        """Take the next chunk, and return those that may be shown now."""
        self._count += 1
        if self._monitor is None or self._monitor.outcome == "commit":
            return [chunk]
        self._chunks.append(chunk)
        if self._scores is None or self._monitor.add(self._scores(chunk)) != "commit":
            return []
        chunks, self._chunks = self._chunks, []
        return chunks

    def _usage(self, tokens: int) -> Usage:
        sent = (self._tier.input_tokens if self._tier is not None else None) or 0
        return Usage(input_tokens=sent, output_tokens=tokens)

    def evidence(self, last: object, *, latency_s: float, attempts: int) -> Evidence:
        """What the ask brought; a draft that was cut off has no text, and tokens that we counted ourselves."""
        if isinstance(last, Generation):
            answer = with_sound_usage(last)
        else:
            usage = self._usage(self._monitor.tokens if self._monitor is not None else 0)
            answer = Generation(text="", usage=usage, finish="cancelled")
        watch = None if self._monitor is None else self._monitor.result
        return Evidence(
            generations=(answer,),
            latency_s=latency_s,
            attempts=attempts,
            watch=watch,
            lost=untold(self.inner, [answer]),
            inner=tuple(self.inner),
        )


class _Step:
    """Two contexts around one step of a stream; a generator's would take several times as long, at every chunk."""

    __slots__ = ("_inner", "_outer")

    def __init__(self, outer: AbstractContextManager[None], inner: AbstractContextManager[None]) -> None:
        self._outer, self._inner = outer, inner

    def __enter__(self) -> None:
        self._outer.__enter__()
        self._inner.__enter__()

    def __exit__(self, *raised: Any) -> None:
        self._inner.__exit__(*raised)
        self._outer.__exit__(*raised)
