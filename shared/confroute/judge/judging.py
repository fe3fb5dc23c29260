"""A judge, or a panel of them, at work: calls, cache, limits and threads around the protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from confroute.concurrency import abounded, bounded, check_concurrency
from confroute.errors import MissingExtraError, ModelError, PolicyError
from confroute.judge.cache import ReplyCache, cache_key
from confroute.judge.protocol import Consulting, Reply, mark, vote
from confroute.judge.verdicts import Comparison, Grading, Mark, Pair, Single, Vote
from confroute.models.resilience import Limits, aattempt, attempt
from confroute.models.resolution import resolve
from confroute.models.text_model import TextModel
from confroute.prices import Price
from confroute.types import Generation, Message, Usage

T = TypeVar("T")
# They hold for every pair: kept as an error of each, a long run would be one error many times.
_SET_UP = (MissingExtraError, ModelError, PolicyError)
_PRIVATE = "private: not sent to a remote judge"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """One model, or several, that compare and grade answers.

    Parameters
    ----------
    panel : sequence of TextModel, str or model
        Whatever `confroute.models.resolution.resolve` takes: a name, a chat model of LangChain or LlamaIndex, a function.
        Take judges of another family than the models they judge: judges favour their own.
    cache : ReplyCache or None
        Replies are kept there and not asked for again.
    concurrency : int
        Pairs or answers judged at a time.
    max_tokens : int
        Longest reply, where the model lets a caller set it.
    limits : Limits
        Time and attempts of one call; transient errors only are tried again.

    Raises
    ------
    PolicyError
        No judge, something that is no model, or a concurrency below 1.

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
        """Compare, each pair in both orders by every judge.

        Parameters
        ----------
        pairs : iterable of Pair
        progress : callable, optional
            Told each result, in order, as it is there.

        Raises
        ------
        MissingExtraError, ModelError, PolicyError
            A judge that was never set up. All other failures are errors of the vote they befell.
        """
        return [*_told(self.comparisons(pairs), progress)]

    def comparisons(self, pairs: Iterable[Pair]) -> Iterator[Comparison]:
        """`compare`, one result at a time."""
        return bounded(self._compared, pairs, concurrency=self.concurrency)

    def grade(
        self, singles: Iterable[Single], *, progress: Callable[[Grading], None] | None = None
    ) -> list[Grading]:
        """Grade each answer by every judge; parameters and errors as of `compare`."""
        return [*_told(self.gradings(singles), progress)]

    def gradings(self, singles: Iterable[Single]) -> Iterator[Grading]:
        """`grade`, one result at a time."""
        return bounded(self._graded, singles, concurrency=self.concurrency)

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

        return [_tell(done, progress) async for done in abounded(one, pairs, concurrency=self.concurrency)]

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

        return [_tell(done, progress) async for done in abounded(one, singles, concurrency=self.concurrency)]

    def _compared(self, pair: Pair) -> Comparison:
        return _comparison(
            pair,
            [self._consult(model, pair, vote(pair, judge=model.name), _no_vote) for model in self.models],
        )

    def _graded(self, single: Single) -> Grading:
        return _grading(
            single,
            [self._consult(model, single, mark(single, judge=model.name), _no_mark) for model in self.models],
        )

    def _consult(
        self, model: TextModel, case: Pair | Single, consulting: Consulting[T], refused: Callable[[str], T]
    ) -> T:
        if case.private and model.remote:
            return refused(model.name)
        try:
            messages = next(consulting)
            while True:
                messages = consulting.send(self._kept(model, messages) or self._asked(model, messages))
        except StopIteration as done:
            result: T = done.value
            return result

    async def _aconsult(
        self, model: TextModel, case: Pair | Single, consulting: Consulting[T], refused: Callable[[str], T]
    ) -> T:
        if case.private and model.remote:
            return refused(model.name)
        try:
            messages = next(consulting)
            while True:
                messages = consulting.send(self._kept(model, messages) or await self._aasked(model, messages))
        except StopIteration as done:
            result: T = done.value
            return result

    def _kept(self, model: TextModel, messages: tuple[Message, ...]) -> Reply | None:
        if self.cache is None:
            return None
        text = self.cache.get(cache_key(messages, model=model.name, max_tokens=self.max_tokens))
        return None if text is None else Reply(text=text, cached=True)

    def _asked(self, model: TextModel, messages: tuple[Message, ...]) -> Reply:
        def call() -> tuple[Generation, ...]:
            return model.generate(messages, max_tokens=self.max_tokens, logprobs=False)

        try:
            said = attempt(self.limits, model.name, call).value
        except _SET_UP:
            raise
        except Exception as error:  # noqa: BLE001  one failed reply must not end a long run
            return Reply(error=f"{type(error).__name__}: {error}")
        return self._reply(model, messages, said)

    async def _aasked(self, model: TextModel, messages: tuple[Message, ...]) -> Reply:
        async def call() -> tuple[Generation, ...]:
            return await model.agenerate(messages, max_tokens=self.max_tokens, logprobs=False)

        try:
            said = (await aattempt(self.limits, model.name, call)).value
        except _SET_UP:
            raise
        except Exception as error:  # noqa: BLE001  as above
            return Reply(error=f"{type(error).__name__}: {error}")
        return self._reply(model, messages, said)

    def _reply(self, model: TextModel, messages: tuple[Message, ...], said: Sequence[Generation]) -> Reply:
        if not said or not said[0].text.strip():
            return Reply(error="an empty reply")
        if self.cache is not None:
            key = cache_key(messages, model=model.name, max_tokens=self.max_tokens)
            self.cache.put(key, model.name, said[0].text)
        return Reply(text=said[0].text, usage=said[0].usage or Usage())


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


def _tell(done: T, progress: Callable[[T], None] | None) -> T:
    if progress is not None:
        progress(done)
    return done


def _told(results: Iterator[T], progress: Callable[[T], None] | None) -> Iterator[T]:
    return (_tell(done, progress) for done in results)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What judging took.

    Attributes
    ----------
    calls, cached : int
        Replies, those from the cache included; those from the cache.
    usage : mapping of str to Usage
        Tokens billed now, by judge.
    """

    calls: int
    cached: int
    usage: Mapping[str, Usage]

    def cost_usd(self, prices: Mapping[str, Price]) -> float | None:
        """US dollars; None unless every judge that was billed has a price."""
        billed = {name: used for name, used in self.usage.items() if used.total_tokens}
        if not billed.keys() <= prices.keys():
            return None
        return sum(prices[name].of(used) for name, used in billed.items())


def spent(results: Iterable[Comparison | Grading]) -> Spent:
    """Add up what results took.

    Examples
    --------
    >>> spent([]).calls
    0
    """
    calls, cached, usage = 0, 0, dict[str, Usage]()
    for result in results:
        for one in result.votes if isinstance(result, Comparison) else result.marks:
            calls, cached = calls + one.calls, cached + one.cached
            usage[one.judge] = usage.get(one.judge, Usage()) + one.usage
    return Spent(calls=calls, cached=cached, usage=usage)
