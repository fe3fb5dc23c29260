"""From one ask to its evidence: sealed, limited and timed, sync and async; and from a policy to a routed answer.

A host (LangChain, LlamaIndex, a test) supplies `call` and, for streams, `stream`. Time limits, retries, embedding, entailment, timing
and the published decision are the same for all hosts and stand here once.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import aclosing, closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from confroute import background
from confroute.asks import (
    Ask,
    Begin,
    Cancel,
    Consult,
    Draft,
    Embed,
    Entails,
    Evidence,
    Final,
    Gather,
    Hidden,
    ModelAsk,
    Prompt,
    Report,
    Sample,
    Score,
    Shadow,
    StreamAsk,
    Tentative,
    WorkAsk,
)
from confroute.clock import now, timing
from confroute.concurrency import atogether, off_the_loop, together
from confroute.decision import ENDED, UNCALIBRATED, Decision, Routed, Stage, total_of, untold
from confroute.display import logger
from confroute.error_notes import note_inner, note_latency, note_usage, noted_usage
from confroute.errors import CallEndedError, PrivacyError, SignalUnavailableError
from confroute.flow import Policy, Return, adrive, adrive_stream, drive, drive_stream, policy_here
from confroute.models.prompt_cache import prompt_caching
from confroute.models.resilience import Attempted, Limits, aattempt, attempt
from confroute.observe.trace import CallId, is_nested, is_nested_in_private, nested_in, publish
from confroute.streaming import ChunkLogprobs, astream_answer, replay, stream_answer
from confroute.types import TIERS, Generation, Request, Usage, total_usage, with_sound_usage

_log = logger()
C = TypeVar("C")
# Of a Score or Hidden the evidence itself, of the others the answers.
Answers: TypeAlias = Sequence[Generation] | Evidence
Call: TypeAlias = Callable[[ModelAsk], Answers]
AsyncCall: TypeAlias = Callable[[ModelAsk], Coroutine[Any, Any, Answers]]
_ONE_CALL = Limits(attempts=1)
# What runs out of time where rules do.
_RULES = "the rules"
_MODEL_ASKS = (Draft, Tentative, Sample, Final, Prompt, Score, Hidden)


@functools.cache
def warn_uncalibrated() -> None:
    """Log once per process how to calibrate."""
    _log.warning(
        "routing by uncalibrated default thresholds, which were not fitted to any of your models: record your own calls "
        "(confroute record) and fit a policy (confroute fit), or let one learn while it routes "
        "(confroute.learning.LearnOnline). Every such decision says so; this is said once."
    )


def finish(
    decision: Decision, call: CallId, *, private: bool = False, question_id: str | None = None
) -> Decision:
    """Publish a decision, and log what its reader should know: a failure, a fallback, thresholds that are not calibrated.

    Returns it with the id of its call and of its question; `private` says that the call was private, whatever its policy knew of it.
    """
    run_id, private = str(call.run_id), decision.private or private
    # A copy of twenty fields takes ten microseconds.
    if (decision.run_id, decision.private, decision.question_id) != (run_id, private, question_id):
        decision = replace(decision, run_id=run_id, private=private, question_id=question_id)
    if decision.stage in {"fallback", "failed"}:
        _log.warning("%s", decision.reason)
    if decision.threshold_source == UNCALIBRATED:
        warn_uncalibrated()
    publish(decision, call)
    return decision


def _finished(routed: Routed, executor: _Seal) -> Routed:
    decision = executor.finish(routed.decision)
    return routed if decision is routed.decision else replace(routed, decision=decision)


def work(ask: WorkAsk) -> npt.NDArray[np.float32]:
    """Compute embeddings or entailment, by the local model that an ask names or the function that it brings.

    Raises
    ------
    SignalUnavailableError
        Numbers that are not finite: a NaN among them would pass every comparison as "certain" or as "the same".
    """
    numbers = _numbers(ask)
    if not np.isfinite(numbers).all():
        raise SignalUnavailableError(f"{ask.model} gave numbers that are not finite")
    return numbers


def _numbers(ask: WorkAsk) -> npt.NDArray[np.float32]:
    if isinstance(ask, Embed):
        if ask.embed is not None:
            return ask.embed(ask.texts)
        from confroute.models.embed import LocalEmbedder

        return LocalEmbedder.load(ask.model)(ask.texts)
    from confroute.models.nli import LocalNLI

    return LocalNLI.load(ask.model)(ask.pairs)


@dataclass(slots=True, kw_only=True)
class _Seal:
    """The limits of each tier, and the tier that a private call may not leave: the same in both forms."""

    limits: Mapping[str, Limits]
    bound_to: str | None = None
    id: CallId = field(default_factory=CallId)
    question_id: str | None = None
    finished: bool = False

    def finish(self, decision: Decision) -> Decision:
        """Publish the decision on this call; see `finish`."""
        self.finished = True
        return finish(decision, self.id, private=self.bound_to is not None, question_id=self.question_id)

    def __enter__(self) -> None:
        """Stand around the whole call, so that one that its caller ends leaves a decision even where its policy reports none."""

    def __exit__(self, kind: type[BaseException] | None, stop: BaseException | None, _: object) -> None:
        if stop is None or self.finished or isinstance(stop, Exception):
            return
        stage: Stage = "abandoned" if isinstance(stop, GeneratorExit) else "cancelled"
        self.finish(Decision(route=next(iter(self.limits), TIERS[0]), stage=stage, reason=ENDED[stage]))

    def check(self, ask: ModelAsk | Tentative) -> None:
        """Refuse whatever would leave the tier that the call is bound to.

        Raises
        ------
        PrivacyError
        """
        if isinstance(ask, Final) and ask.private and self.bound_to is None:
            self.bound_to = ask.tier
        if self.bound_to is not None and ask.tier != self.bound_to:
            raise PrivacyError(tier=ask.tier, bound_to=self.bound_to)

    def check_work(self, ask: WorkAsk) -> None:
        """Refuse a user's own embedding function: it may send a private text anywhere.

        Raises
        ------
        PrivacyError
        """
        if self.bound_to is not None and getattr(ask, "embed", None) is not None:
            raise PrivacyError(tier="the given embedding function", bound_to=self.bound_to)

    def keep_s(self, ask: ModelAsk | Tentative) -> float:
        """Seconds of a deadline that an ask leaves to the tiers after its own; a last answer leaves none."""
        names = [] if isinstance(ask, Final) else list(self.limits)
        later = names[names.index(ask.tier) + 1 :] if ask.tier in names else []
        return sum([self.limits[name].expected_s for name in later])

    def streaming(self, ask: StreamAsk) -> dict[str, Any]:
        """How an answer of this call is streamed."""
        limits = self.limits.get(ask.tier, _ONE_CALL)
        return {"limits": limits, "keep_s": self.keep_s(ask), "private": self.bound_to is not None}


@dataclass(slots=True, kw_only=True)
class Executor(_Seal):
    """Answers the asks of one call.

    Attributes
    ----------
    limits : mapping of str to Limits
        By tier; a tier that is not named gets one attempt without a time limit.
    call : callable
        Makes the calls of one ask of a model and returns its answers, or the evidence of a `Score` or `Hidden`.
    bound_to : str or None
        The tier that a private call may not leave.
    begun : dict
        Answers that were begun ahead; one that is never asked for ends in its own thread.
    """

    call: Call
    begun: dict[Final, Future[Evidence]] = field(default_factory=dict)

    def __call__(self, ask: Ask) -> Evidence:
        """Return the evidence that an ask is for; an error knows how long it took to come."""
        with timing():
            return self._timed(ask, now())

    def _timed(self, ask: Ask, start: float) -> Evidence:
        try:
            if isinstance(ask, _MODEL_ASKS):
                self.check(ask)
                if isinstance(ask, Final) and ask in self.begun:
                    return _awaited(self.begun.pop(ask).result(), start)
                return self._ask_model(ask, start)
            return self._do(ask, start)
        except BaseException as error:
            note_latency(error, start)
            raise

    def _do(self, ask: Ask, start: float) -> Evidence:
        """Whatever is not asked of a model here and now."""
        if isinstance(ask, Gather):
            return Evidence(parts=together(self, ask.asks), latency_s=now() - start)
        if isinstance(ask, (Embed, Entails)):
            self.check_work(ask)
            return Evidence(numbers=work(ask), latency_s=now() - start)
        if isinstance(ask, Consult):
            return Evidence(value=attempt(_ONE_CALL, _RULES, ask.work).value if ask.ends else ask.work())
        if isinstance(ask, Report):
            self.finish(ask.decision)
            return Evidence()
        assert isinstance(ask, (Begin, Cancel, Shadow))
        return self._do_behind(ask)

    def _do_behind(self, ask: Begin | Cancel | Shadow) -> Evidence:
        """Begin, cancel or shadow a call that nobody waits for now."""
        self.check(ask.ask)
        if isinstance(ask, Begin):
            self.begun[ask.ask] = background.start(lambda: self._ask_model(ask.ask, now()))
        elif isinstance(ask, Cancel):
            return _result_so_far(self.begun.pop(ask.ask, None))
        else:
            background.shadow(lambda: self._ask_model(ask.ask, now()), ask.then)
        return Evidence()

    def _ask_model(self, ask: ModelAsk | Tentative, start: float) -> Evidence:
        # Where nothing is streamed, a draft is watched once it is there.
        plain = _draft(ask) if isinstance(ask, Tentative) else ask
        keep_s = self.keep_s(ask)
        limits = self.limits.get(ask.tier, _ONE_CALL)
        bill = _Bill(plain, private=self.bound_to is not None)
        try:
            done = attempt(limits, ask.tier, functools.partial(bill.call, self.call), keep_s=keep_s)
        except BaseException as error:
            bill.note(error)
            raise
        return _evidence(ask, done, start, bill)


@dataclass(slots=True, kw_only=True)
class AsyncExecutor(_Seal):
    """Async form of `Executor`."""

    call: AsyncCall
    begun: dict[Final, asyncio.Task[Evidence]] = field(default_factory=dict)

    async def __call__(self, ask: Ask) -> Evidence:
        """Return the evidence that an ask is for; an error knows how long it took to come."""
        with timing():
            return await self._timed(ask, now())

    async def _timed(self, ask: Ask, start: float) -> Evidence:
        try:
            if isinstance(ask, _MODEL_ASKS):
                self.check(ask)
                if isinstance(ask, Final) and ask in self.begun:
                    # Cancelled while it waits, this cancels what it waits for.
                    return _awaited(await self.begun.pop(ask), start)
                return await self._ask_model(ask, start)
            return await self._do(ask, start)
        except BaseException as error:
            note_latency(error, start)
            raise

    async def _do(self, ask: Ask, start: float) -> Evidence:
        if isinstance(ask, Gather):
            return Evidence(parts=await atogether(self, ask.asks), latency_s=now() - start)
        if isinstance(ask, (Embed, Entails)):
            # CPU-bound: on the event loop it would stop every other request.
            self.check_work(ask)
            numbers = await off_the_loop(work, ask)
            return Evidence(numbers=numbers, latency_s=now() - start)
        if isinstance(ask, Consult):
            return Evidence(value=await _consult(ask))
        if isinstance(ask, Report):
            self.finish(ask.decision)
            return Evidence()
        assert isinstance(ask, (Begin, Cancel, Shadow))
        return await self._do_behind(ask)

    async def _do_behind(self, ask: Begin | Cancel | Shadow) -> Evidence:
        self.check(ask.ask)
        if isinstance(ask, Begin):
            self.begun[ask.ask] = asyncio.create_task(self._ask_model(ask.ask, now()))
        elif isinstance(ask, Cancel):
            return await _cancel(self.begun.pop(ask.ask, None))
        else:
            background.ashadow(lambda: self._ask_model(ask.ask, now()), ask.then)
        return Evidence()

    async def _ask_model(self, ask: ModelAsk | Tentative, start: float) -> Evidence:
        plain = _draft(ask) if isinstance(ask, Tentative) else ask
        keep_s = self.keep_s(ask)
        limits = self.limits.get(ask.tier, _ONE_CALL)
        bill = _Bill(plain, private=self.bound_to is not None)
        try:
            done = await aattempt(limits, ask.tier, functools.partial(bill.acall, self.call), keep_s=keep_s)
        except BaseException as error:
            bill.note(error)
            raise
        return _evidence(ask, done, start, bill)

    async def aclose(self) -> None:
        """Cancel what was begun and never asked for."""
        while self.begun:
            await _cancel(self.begun.popitem()[1])


async def _consult(ask: Consult) -> Any:
    if not ask.waits:
        return ask.work()
    if not ask.ends:
        return await off_the_loop(ask.work)
    return (await aattempt(_ONE_CALL, _RULES, lambda: off_the_loop(ask.work))).value


def _draft(ask: Tentative) -> Draft:
    return Draft(tier=ask.tier, top_logprobs=ask.top_logprobs)


class _Bill:
    """What one ask is billed over all its attempts: of several samples, those that came are kept, and only the others repeated.

    `inner` holds the decisions of routers inside the calls.
    """

    __slots__ = ("_ask", "_private", "inner", "lost")

    def __init__(self, ask: ModelAsk, *, private: bool) -> None:
        self._private = private
        self._ask = replace(ask, arrived={}) if isinstance(ask, Sample) and ask.n > 1 else ask
        self.lost: Usage | None = None
        self.inner: list[Decision] = []

    def call(self, call: Call) -> Answers:
        """Make one attempt."""
        inner: list[Decision] = []
        before = len(self._arrived)
        try:
            with nested_in(inner, private=self._private):
                answers = call(self._ask)
        except BaseException as error:
            self._fail(error, inner, before)
            raise
        self._keep(answers, inner, before)
        return answers

    async def acall(self, call: AsyncCall) -> Answers:
        """Async form of `call`."""
        inner: list[Decision] = []
        before = len(self._arrived)
        try:
            with nested_in(inner, private=self._private):
                answers = await call(self._ask)
        except BaseException as error:
            self._fail(error, inner, before)
            raise
        self._keep(answers, inner, before)
        return answers

    def note(self, error: BaseException) -> None:
        """Note on the error that the ask ends in what was billed all the same."""
        self._lose(total_usage(self._since(0)))
        note_usage(error, self.lost)
        note_inner(error, self.inner)

    @property
    def _arrived(self) -> dict[int, Sequence[Generation]]:
        arrived = self._ask.arrived if isinstance(self._ask, Sample) else None
        return {} if arrived is None else arrived

    def _since(self, before: int) -> list[Generation]:
        """The answers that arrived after the first `before` calls that brought any."""
        # A list first: a thread that was given up may still add to them.
        return [answer for answers in [*self._arrived.values()][before:] for answer in answers]

    def _fail(self, error: BaseException, inner: Sequence[Decision], before: int) -> None:
        """What arrived is kept and tells its own bill; the rest of the attempt's is lost."""
        self.inner += inner
        self._lose(noted_usage(error) if total_of(inner) is None else untold(inner, self._since(before)))

    def _keep(self, answers: Answers, inner: Sequence[Decision], before: int) -> None:
        if not inner:
            return
        self.inner += inner
        if not isinstance(answers, Evidence):
            self._lose(untold(inner, self._since(before) if self._arrived else answers))

    def _lose(self, usage: Usage | None) -> None:
        if usage is not None:
            self.lost = usage if self.lost is None else self.lost + usage


def _evidence(ask: ModelAsk | Tentative, done: Attempted[Answers], start: float, bill: _Bill) -> Evidence:
    latency_s = now() - start
    beside: dict[str, Any] = {"lost": bill.lost, "inner": tuple(bill.inner)}
    if isinstance(done.value, Evidence):
        return replace(done.value, latency_s=latency_s, attempts=done.attempts, **beside)
    answers = tuple([with_sound_usage(answer) for answer in done.value])
    watch = replay(ask.watch, answers[0]) if isinstance(ask, Tentative) and answers else None
    return Evidence(generations=answers, latency_s=latency_s, attempts=done.attempts, watch=watch, **beside)


def _awaited(evidence: Evidence, start: float) -> Evidence:
    """What ran beside other steps takes the call no longer than it is waited for now."""
    return replace(evidence, latency_s=now() - start)


def _result_so_far(begun: Future[Evidence] | None) -> Evidence:
    """What a thread has brought; it cannot be stopped."""
    if begun is None or not begun.done():
        return Evidence()
    error = begun.exception()
    return begun.result() if error is None else Evidence(value=error)


async def _cancel(begun: asyncio.Task[Evidence] | None) -> Evidence:
    if begun is None:
        return Evidence()
    begun.cancel()
    await asyncio.wait({begun})
    if begun.cancelled():
        return Evidence()
    error = begun.exception()
    return begun.result() if error is None else Evidence(value=error)


def _opened(
    policy: Policy, request: Request, limits: Mapping[str, Limits], call_id: CallId | None
) -> tuple[Policy, Request, dict[str, Any]]:
    """The policy and the request of a call, and the settings of its executor; inside a private call of another router it is bound."""
    own = {"limits": limits, "id": call_id or CallId(), "question_id": request.question_id}
    if not is_nested():
        return policy_here(policy), request, {**own, "bound_to": None}
    if not is_nested_in_private():
        return policy, request, {**own, "bound_to": None}
    first: str = getattr(policy, "tiers", TIERS)[0]
    return policy, replace(request, route=first), {**own, "bound_to": first}


def run(
    policy: Policy,
    request: Request,
    call: Call,
    limits: Mapping[str, Limits],
    *,
    call_id: CallId | None = None,
) -> Routed:
    """Route one request.

    Parameters
    ----------
    policy : Policy
    request : Request
    call : callable
        Makes the calls of one ask of a model and returns its answers, or the evidence of a `Score` or `Hidden`.
    limits : mapping of str to Limits
        By tier; a tier that is not named gets one attempt without a time limit.
    call_id : CallId, optional
        What the decision is tied to its call by.
    """
    policy, request, own = _opened(policy, request, limits, call_id)
    # A local edge reads the prompt once for draft, samples, dropout and hidden states. A stream's chunks leave this context
    # in between, so streams do without.
    with prompt_caching():
        executor = Executor(call=call, **own)
        with executor:
            routed = drive(policy.flow(request), executor)
    return _finished(routed, executor)


async def arun(
    policy: Policy,
    request: Request,
    call: AsyncCall,
    limits: Mapping[str, Limits],
    *,
    call_id: CallId | None = None,
) -> Routed:
    """Async form of `run`."""
    policy, request, own = _opened(policy, request, limits, call_id)
    with prompt_caching():
        made = AsyncExecutor(call=call, **own)
        async with aclosing(made) as executor:
            with executor:
                routed = await adrive(policy.flow(request), executor)
    return _finished(routed, executor)


def run_stream(
    policy: Policy,
    request: Request,
    call: Call,
    stream: Callable[[StreamAsk], Generator[C | Generation, None, None]],
    limits: Mapping[str, Limits],
    *,
    scores: ChunkLogprobs | None = None,
    call_id: CallId | None = None,
) -> Generator[C | Routed, None, None]:
    """Route one request, passing on the answer's chunks as soon as it is settled; the last item is the `Routed`.

    Parameters
    ----------
    policy, request, call, limits, call_id
        As in `run`.
    stream : callable
        Answers a `Final` or a `Tentative` by the host's chunks and, as its last item, the whole `Generation`. The time
        limit and the retries of its tier hold until the first chunk: after it nothing can be taken back.
    scores : callable, optional
        Log-probabilities of the tokens in one chunk: empty if it holds no token, None if they are unknown. Without it
        no draft is streamed, and `stream` gets no `Tentative`.
    """
    policy, request, own = _opened(policy, request, limits, call_id)
    executor = Executor(call=call, **own)

    def chunks(ask: StreamAsk) -> Generator[C | Evidence, None, None]:
        if (scores is None and isinstance(ask, Tentative)) or ask in executor.begun:
            yield executor(ask)
            return
        executor.check(ask)
        tier, settings = request.tiers.get(ask.tier), executor.streaming(ask)
        with _noting_latency():
            yield from stream_answer(ask, stream, scores=scores, tier=tier, **settings)

    with executor, closing(drive_stream(policy.flow(request), executor, chunks)) as items:
        for item in items:
            if isinstance(item, Return):
                yield _finished(item.value, executor)
            else:
                yield item


@contextmanager
def _noting_latency() -> Iterator[None]:
    """Note on an error how long its answer had taken."""
    start = now()
    try:
        yield
    except BaseException as error:
        note_latency(error, start)
        raise


async def arun_stream(
    policy: Policy,
    request: Request,
    call: AsyncCall,
    stream: Callable[[StreamAsk], AsyncGenerator[C | Generation, None]],
    limits: Mapping[str, Limits],
    *,
    scores: ChunkLogprobs | None = None,
    call_id: CallId | None = None,
) -> AsyncGenerator[C | Routed, None]:
    """Async form of `run_stream`."""
    policy, request, own = _opened(policy, request, limits, call_id)
    executor = AsyncExecutor(call=call, **own)

    async def chunks(ask: StreamAsk) -> AsyncGenerator[C | Evidence, None]:
        if (scores is None and isinstance(ask, Tentative)) or ask in executor.begun:
            yield await executor(ask)
            return
        executor.check(ask)
        tier, settings = request.tiers.get(ask.tier), executor.streaming(ask)
        answer = astream_answer(ask, stream, scores=scores, tier=tier, **settings)
        with _noting_latency():
            async with aclosing(answer) as items:
                async for item in items:
                    try:
                        yield item
                    except CallEndedError as ended:
                        await items.athrow(ended)

    driven = adrive_stream(policy.flow(request), executor, chunks)
    with executor:
        async with aclosing(executor), aclosing(driven) as items:
            async for item in items:
                if isinstance(item, Return):
                    yield _finished(item.value, executor)
                else:
                    yield item
