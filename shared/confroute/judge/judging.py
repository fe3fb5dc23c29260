"""Runs a panel of judges: calls, cache, limits and threads around the protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from confroute.concurrency import abounded, bounded, check_concurrency
from confroute.errors import MissingExtraError, ModelError, PolicyError
from confroute.judge.cache import ReplyCache, cache_key
from confroute.judge.protocol import Consultation, JudgeReply, mark, vote
from confroute.judge.verdicts import Comparison, Grading, Mark, Pair, Single, Vote
from confroute.models.resilience import Limits, aattempt, attempt
from confroute.models.resolution import resolve
from confroute.models.text_model import TextModel
from confroute.prices import Price
from confroute.types import Generation, Message, Usage

T = TypeVar("T")
# Errors of the set-up concern every pair: they end the run, instead of failing each pair with the same error.
_SET_UP = (MissingExtraError, ModelError, PolicyError)
_PRIVATE = "private: not sent to a remote judge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """Compares and grades answers by one model, or by a panel of several.

    Parameters
    ----------
    panel : sequence of TextModel, str or model
        Anything that `confroute.models.resolution.resolve` accepts: a name, a chat model of LangChain or LlamaIndex, a function.
        Use judges of another family than the models they judge: judges favour their own.
    cache : ReplyCache or None
        Stores replies, so that none is asked for twice.
    concurrency : int
        Number of pairs or answers judged at a time.
    max_tokens : int
        Longest reply, if the model lets a caller set it.
    limits : Limits
        Time and attempts per call; only transient errors are retried.

    Raises
    ------
    PolicyError
        No judge, something that is not a model, or a concurrency below 1.

    Examples
    --------
    >>> judge = Judge(panel=(lambda messages: "VERDICT: A",))
    >>> judge.compare([Pair(id="1", question="2+2?", a="4", b="5")])[0].winner
    'tie'
    """

    panel: Sequence[object]
    cache: ReplyCache | None = None
    concurrency: int = 8
    max_tokens: int = 1024
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        check_concurrency(self.concurrency)
        if not self.panel or isinstance(self.panel, str):
            msg = f"panel is {self.panel!r}: expected a sequence of at least one judge"
            raise PolicyError(msg)
        object.__setattr__(self, "panel", tuple(map(resolve, self.panel)))

    @property
    def models(self) -> tuple[TextModel, ...]:
        """The panel."""
        return tuple(model for model in self.panel if isinstance(model, TextModel))

    def compare(
        self, pairs: Iterable[Pair], *, progress: Callable[[Comparison], None] | None = None
    ) -> list[Comparison]:
        """Compare every pair in both orders by every judge.

        Parameters
        ----------
        pairs : iterable of Pair
        progress : callable, optional
            Called with each result, in order, as soon as it is there.

        Raises
        ------
        MissingExtraError, ModelError, PolicyError
            A judge cannot be used at all. Any other failure is the `error` of the vote concerned.
        """
        return [*_report_each(self.comparisons(pairs), progress)]

    def comparisons(self, pairs: Iterable[Pair]) -> Iterator[Comparison]:
        """`compare`, one result at a time."""
        return bounded(self._compare_pair, pairs, concurrency=self.concurrency)

    def grade(
        self, singles: Iterable[Single], *, progress: Callable[[Grading], None] | None = None
    ) -> list[Grading]:
        """Grade each answer by every judge; see `compare` for parameters and errors."""
        return [*_report_each(self.gradings(singles), progress)]

    def gradings(self, singles: Iterable[Single]) -> Iterator[Grading]:
        """`grade`, one result at a time."""
        return bounded(self._grade_single, singles, concurrency=self.concurrency)

    async def acompare(
        self, pairs: Iterable[Pair], *, progress: Callable[[Comparison], None] | None = None
    ) -> list[Comparison]:
        """Async form of `compare`."""

        async def one(pair: Pair) -> Comparison:
            votes = [
                await self._aconsult(model, pair, vote(pair, judge=model.name), _no_vote)
                for model in self.models
            ]
            return _comparison(pair, votes)

        return [_report(done, progress) async for done in abounded(one, pairs, concurrency=self.concurrency)]

    async def agrade(
        self, singles: Iterable[Single], *, progress: Callable[[Grading], None] | None = None
    ) -> list[Grading]:
        """Async form of `grade`."""

        async def one(single: Single) -> Grading:
            marks = [
                await self._aconsult(model, single, mark(single, judge=model.name), _no_mark)
                for model in self.models
            ]
            return _grading(single, marks)

        return [
            _report(done, progress) async for done in abounded(one, singles, concurrency=self.concurrency)
        ]

    def _compare_pair(self, pair: Pair) -> Comparison:
        return _comparison(
            pair,
            [self._consult(model, pair, vote(pair, judge=model.name), _no_vote) for model in self.models],
        )

    def _grade_single(self, single: Single) -> Grading:
        return _grading(
            single,
            [self._consult(model, single, mark(single, judge=model.name), _no_mark) for model in self.models],
        )

    def _consult(
        self,
        model: TextModel,
        case: Pair | Single,
        consultation: Consultation[T],
        private_error: Callable[[str], T],
    ) -> T:
        if case.private and model.remote:
            return private_error(model.name)
        try:
            messages = next(consultation)
            while True:
                messages = consultation.send(
                    self._cached_reply(model, messages) or self._ask(model, messages)
                )
        except StopIteration as done:
            result: T = done.value
            return result

    async def _aconsult(
        self,
        model: TextModel,
        case: Pair | Single,
        consultation: Consultation[T],
        private_error: Callable[[str], T],
    ) -> T:
        if case.private and model.remote:
            return private_error(model.name)
        try:
            messages = next(consultation)
            while True:
                messages = consultation.send(
                    self._cached_reply(model, messages) or await self._aask(model, messages)
                )
        except StopIteration as done:
            result: T = done.value
            return result

    def _cached_reply(self, model: TextModel, messages: tuple[Message, ...]) -> JudgeReply | None:
        if self.cache is None:
            return None
        text = self.cache.get(cache_key(messages, model=model.name, max_tokens=self.max_tokens))
        return None if text is None else JudgeReply(text=text, cached=True)

    def _ask(self, model: TextModel, messages: tuple[Message, ...]) -> JudgeReply:
        def call() -> tuple[Generation, ...]:
            return model.generate(messages, max_tokens=self.max_tokens, logprobs=False)

        try:
            answers = attempt(self.limits, model.name, call).value
        except _SET_UP:
            raise
        except Exception as error:  # noqa: BLE001  one failed reply must not end a long run
            return JudgeReply(error=f"{type(error).__name__}: {error}")
        return self._reply(model, messages, answers)

    async def _aask(self, model: TextModel, messages: tuple[Message, ...]) -> JudgeReply:
        async def call() -> tuple[Generation, ...]:
            return await model.agenerate(messages, max_tokens=self.max_tokens, logprobs=False)

        try:
            answers = (await aattempt(self.limits, model.name, call)).value
        except _SET_UP:
            raise
        except Exception as error:  # noqa: BLE001  as above
            return JudgeReply(error=f"{type(error).__name__}: {error}")
        return self._reply(model, messages, answers)

    def _reply(
        self, model: TextModel, messages: tuple[Message, ...], answers: Sequence[Generation]
    ) -> JudgeReply:
        if not answers or not answers[0].text.strip():
            return JudgeReply(error="an empty reply")
        if self.cache is not None:
            key = cache_key(messages, model=model.name, max_tokens=self.max_tokens)
            self.cache.put(key, model.name, answers[0].text)
        return JudgeReply(text=answers[0].text, usage=answers[0].usage or Usage())


def _no_vote(judge: str) -> Vote:
    return Vote(judge=judge, orders=(None, None), error=_PRIVATE)


def _no_mark(judge: str) -> Mark:
    return Mark(judge=judge, score=None, error=_PRIVATE)


def _comparison(pair: Pair, votes: Sequence[Vote]) -> Comparison:
    return Comparison(
        id=pair.id, votes=tuple(votes), words_a=len(pair.a.split()), words_b=len(pair.b.split())
    )


def _grading(single: Single, marks: Sequence[Mark]) -> Grading:
    return Grading(id=single.id, marks=tuple(marks), words=len(single.answer.split()))


def _report(result: T, progress: Callable[[T], None] | None) -> T:
    if progress is not None:
        progress(result)
    return result


def _report_each(results: Iterator[T], progress: Callable[[T], None] | None) -> Iterator[T]:
    return (_report(result, progress) for result in results)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeUsage:
    """The effort of judging: replies, and tokens billed.

    Attributes
    ----------
    calls, cached : int
        Number of replies, and number of them that came from the cache.
    usage : mapping of str to Usage
        Tokens billed by this run, by judge.
    """

    calls: int
    cached: int
    usage: Mapping[str, Usage]

    def cost_usd(self, prices: Mapping[str, Price]) -> float | None:
        """Cost in US dollars; None unless every judge that was billed has a price."""
        billed = {name: usage for name, usage in self.usage.items() if usage.total_tokens}
        if not billed.keys() <= prices.keys():
            return None
        return sum(prices[name].of(usage) for name, usage in billed.items())


def judge_usage(results: Iterable[Comparison | Grading]) -> JudgeUsage:
    """Add up the effort of several results.

    Examples
    --------
    >>> judge_usage([]).calls
    0
    """
    calls, cached, usage = 0, 0, dict[str, Usage]()
    for result in results:
        for verdict in result.votes if isinstance(result, Comparison) else result.marks:
            calls, cached = calls + verdict.calls, cached + verdict.cached
            usage[verdict.judge] = usage.get(verdict.judge, Usage()) + verdict.usage
    return JudgeUsage(calls=calls, cached=cached, usage=usage)
