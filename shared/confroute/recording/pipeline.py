"""Recording a user's own pipeline: a query engine, a chain or a function around a router, with the router's evidence of each question.

Each question goes through the pipeline twice: once with all of the router's calls kept at the edge, once with all of them sent to the
cloud. So the two answers of a row are the pipeline's own, and the evidence is what the router has on a new call.
"""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from confroute.asks import Ask, AskGenerator, Consult, Embed, Entails, Evidence, Final, Report
from confroute.decision import Decision, Routed, Step
from confroute.errors import CallEndedError, PolicyError
from confroute.flow import Policy, Return, advance, in_place_of_policies, intercept
from confroute.policy.head_first import HeadFirst
from confroute.policy.steps import steps_of
from confroute.policy.wrapper import Wrapper, inner_of
from confroute.recording.evidence import SET_UP, Gathered, Wanted
from confroute.recording.prompts import read_prompts
from confroute.recording.rows import Row, Side
from confroute.recording.runner import RunSummary, record_into
from confroute.remediation import describe
from confroute.types import JSON, TIERS, Generation, Request, Tier

SideName = Literal["edge", "cloud"]
_HOSTS = frozenset({"langchain_core", "llama_index", "langgraph"})
NO_CALL = (
    "no call of a router was seen while this question was answered: expected a pipeline whose model is a router, and whose calls are "
    "made in the context of the question (not in a thread of its own)"
)
SETTLED = "every call of this question was settled without a draft, by a rule, the caller or what the edge cannot do"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCall:
    """One call of the router: its answer and, of one that was drafted on the edge, the evidence.

    Attributes
    ----------
    answer : Generation
    gathered : Gathered or None
        None where the policy would not have drafted: a rule, the caller or a lack of the edge settled it.
    tier : str
        That answered.
    private : bool
        Whether a rule kept it on its tier.
    """

    answer: Generation
    gathered: Gathered | None = None
    tier: str
    private: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """The policy of a router while its pipeline is recorded: every draft is kept, or every call goes to the cloud.

    What the router's own policy settles without a draft stays settled: above all, a private call never goes to the cloud.

    Attributes
    ----------
    policy : Policy
        The router's own, without the wrappers that ship: recording spends none of their budgets.
    side : {"edge", "cloud"}
        The first of the policy's tiers answers, or the last.
    name : str
        Id of the row.
    wanted : Wanted
    seen : list of SeenCall
        Gets the calls, as they end.
    """

    policy: Policy
    side: SideName
    name: str
    wanted: Wanted
    seen: list[SeenCall]

    def flow(self, request: Request) -> AskGenerator[Routed]:
        """Route one call; see `confroute.flow.Policy`."""
        settled = yield from self._settled(request)
        if settled is not None:
            return settled
        steps: list[Step] = []
        tiers: tuple[str, ...] = getattr(self.policy, "tiers", TIERS)
        tier = _tier(request, tiers[0] if self.side == "edge" else tiers[-1])
        answer = self._draft(request, tier) if self.side == "edge" else self._final(tier)
        generation = yield from intercept(answer, partial(_noted, steps, tier.model))
        why = (
            "kept at the edge, to record its answer"
            if self.side == "edge"
            else "sent to the cloud, to record its answer"
        )
        decision = Decision(
            route=tier.name, stage="forced", reason=why, steps=tuple(steps), run_id=request.run_id
        )
        return Routed(generation=generation, decision=decision)

    def _final(self, tier: Tier) -> AskGenerator[Generation]:
        evidence = yield Final(tier=tier.name)
        answer = evidence.generations[0] if evidence.generations else Generation(text="")
        self.seen.append(SeenCall(answer=answer, tier=tier.name))
        return answer

    def _settled(self, request: Request) -> AskGenerator[Routed | None]:
        """Let the policy settle the call, if it does so before it asks for any evidence; else None."""
        own = self.policy.flow(request)
        evidence: Evidence | None = None
        error: BaseException | None = None
        final: Final | None = None
        try:
            while not isinstance(ask := advance(own, evidence, error), Return):
                evidence, error = None, None
                if isinstance(ask, Final):
                    final = ask
                elif final is None and not isinstance(ask, (Consult, Report, Embed, Entails)):
                    return None
                try:
                    evidence = yield ask
                except (Exception, CallEndedError) as caught:  # noqa: BLE001  the policy judges it
                    error = caught
        except BaseException:
            if final is not None and final.private:
                # What failed is private all the same, and so is its row.
                self.seen.append(SeenCall(answer=Generation(text=""), tier=final.tier, private=True))
            raise
        finally:
            own.close()
        routed = ask.value
        private = routed.decision.private or (final is not None and final.private)
        self.seen.append(SeenCall(answer=routed.generation, tier=routed.decision.route, private=private))
        return routed

    def _draft(self, request: Request, tier: Tier) -> AskGenerator[Generation]:
        number = len(self.seen) + 1
        given = _row_of(request, self.name if number == 1 else f"{self.name}.{number}")
        gathered = yield from self.wanted.gather(
            given, tier, request.messages, question=request.asked, context=request.context
        )
        if gathered.draft is None:
            assert gathered.error is not None, "without a draft there is an error"
            raise gathered.error
        self.seen.append(SeenCall(answer=gathered.draft, gathered=gathered, tier=tier.name))
        return gathered.draft


def _tier(request: Request, name: str) -> Tier:
    return request.tiers.get(name) or Tier(name=name, model=name)


def _noted(steps: list[Step], model: str, ask: Ask) -> AskGenerator[Evidence]:
    evidence = yield ask
    steps += steps_of(ask, evidence, model, before=len(steps))
    return evidence


def _row_of(request: Request, name: str) -> Row:
    """The prompt of one call, as its policy saw it."""
    context: dict[str, JSON] = {}
    if request.question is not None:
        context["question"] = request.question
    if (found := request.context) is not None:
        context["passages"] = [*found.passages]
        context["scores"] = None if found.scores is None else [*found.scores]
        context.update({} if found.existing_answer is None else {"existing_answer": found.existing_answer})
    messages: tuple[dict[str, JSON], ...] = tuple(
        {"role": one.role, "content": one.text} for one in request.messages
    )
    tags: dict[str, JSON] = {"tags": [*sorted(request.tags)]} if request.tags else {}
    return Row(
        id=name, messages=messages, edge=Side(), extra={**({"context": context} if context else {}), **tags}
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One way of a question through the pipeline."""

    calls: Sequence[SeenCall]
    text: str | None = field(default=None, repr=False)
    error: str | None = None

    @property
    def last(self) -> SeenCall | None:
        """The call whose answer the result is; the last drafted one where it is none's, else the last."""
        said = (self.text or "").strip()
        drafted = [call for call in self.calls if call.gathered is not None]
        mine = [call for call in self.calls if said and said in _texts(call.answer)]
        return next((found[-1] for found in (mine, drafted, self.calls) if found), None)


def _texts(answer: Generation) -> set[str]:
    return {answer.text.strip(), (answer.answer or "").strip()}


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineRecorder(Wanted):
    """Turns questions into rows by a pipeline around a router, which is not changed.

    Attributes
    ----------
    pipeline : object
        A query engine (`query`), a chain (`invoke`) or a function of one question; it may be async. The router in it decides by
        `Recording` while it answers. Its result is a text, or an object of LangChain or LlamaIndex that holds one; whatever else is
        written as JSON.

    Examples
    --------
    >>> from confroute import Router
    >>> from confroute.testing import Reply, ScriptedModel
    >>> router = Router(
    ...     edge=ScriptedModel([Reply(text="Lyon", logprob=-0.7)]), cloud=lambda messages: "Paris"
    ... )
    >>> recorder = PipelineRecorder(pipeline=lambda question: router.ask(question).text)
    >>> row = recorder.row(Row(id="1", prompt="Capital of France?", reference="Paris", edge=Side()))
    >>> row.edge.quality, row.cloud.quality, row.signals["token_logprob.mean"]
    (0.0, 1.0, 0.7)
    """

    pipeline: Any

    def __post_init__(self) -> None:
        _check_pipeline(self.pipeline)

    def row(self, given: Row) -> Row:
        """Record one question; an error of the pipeline is kept in the row.

        The row holds the conversation and the context of the call whose answer is the pipeline's result (else of the last one), with the
        number of calls under "calls", and the question under "question". A row whose call is private says so, and has no cloud.

        Raises
        ------
        MissingExtraError, ModelError, PolicyError
            A model that was never set up, a result that holds no text, or a grade that is none.
        """
        edge = self._run(given, "edge")
        private = any(call.private for call in edge.calls)
        cloud = None if private else self._run(given, "cloud")
        private = private or (cloud is not None and any(call.private for call in cloud.calls))
        row = self._edge_row(given, edge)
        extra: dict[str, JSON] = {**given.extra, **row.extra, "question": given.question}
        extra["calls"] = len([call for call in edge.calls if call.gathered is not None])
        if private or cloud is None:
            return replace(row, extra={**extra, "private": True})
        return replace(row, cloud=self._cloud_side(given, cloud), extra=extra)

    def _run(self, given: Row, side: SideName) -> _Run:
        seen: list[SeenCall] = []

        def recording(policy: Policy) -> Policy:
            return Recording(policy=_innermost(policy), side=side, name=given.id, wanted=self, seen=seen)

        try:
            with in_place_of_policies(recording):
                text = text_of(answered_by(self.pipeline, given.question))
        except SET_UP:
            raise
        except Exception as error:  # noqa: BLE001  kept in the row, so that one bad question does not end a run
            return _Run(calls=seen, error=describe(error))
        return _Run(calls=seen, text=text, error=None if seen else NO_CALL)

    def _edge_row(self, given: Row, run: _Run) -> Row:
        call = run.last
        about = replace(given, edge=Side(error=run.error), cloud=None, extra={}, signals={}, measured_by={})
        if call is None:
            return about
        if call.gathered is None:
            # Of a private call the answer is the pipeline's; other settled calls have no edge to judge.
            error = run.error or (None if call.private else SETTLED)
            side = self.answered(given, call.answer, call.tier, self.edge_price)
            return replace(about, edge=self._graded(given, replace(side, error=error), run))
        row = call.gathered.row
        failed = run.error or row.edge.error
        drafts = [one.gathered.row.edge for one in run.calls if one.gathered is not None]
        side = replace(row.edge, error=failed, **_together(drafts))
        kept = replace(about, prompt=None, messages=row.messages, extra=row.extra, signals=row.signals)
        return replace(kept, edge=self._graded(given, side, run), measured_by=row.measured_by)

    def _cloud_side(self, given: Row, run: _Run) -> Side:
        call = run.last
        if call is None:
            return Side(error=run.error or NO_CALL)
        sides = [self.answered(given, one.answer, one.tier, self.cloud_price) for one in run.calls]
        side = sides[[*run.calls].index(call)]
        return self._graded(given, replace(side, error=run.error, **_together(sides)), run)

    def _graded(self, given: Row, side: Side, run: _Run) -> Side:
        """A side with the grade of the pipeline's result, and the result itself where it is another text than the answer."""
        if run.text is None:
            return replace(side, quality=None)
        same = run.text.strip() == (side.text or "").strip()
        extra = side.extra if same else {**side.extra, "result": run.text}
        return replace(side, quality=self.quality(given, None, run.text), extra=extra)


def _together(sides: Sequence[Side]) -> dict[str, Any]:
    """Seconds and US dollars of all calls; the tokens stay those of the call whose evidence the row holds."""
    seconds = [side.latency_s for side in sides if side.latency_s is not None]
    costs = [side.cost_usd for side in sides if side.cost_usd is not None]
    return {
        "latency_s": round(sum(seconds), 4) if seconds else None,
        "cost_usd": sum(costs) if costs and len(costs) == len(sides) else None,
    }


def _innermost(policy: Policy) -> Policy:
    """The policy inside the wrappers that ship; one of the user's own stays, since it may be what keeps text private."""
    while isinstance(policy, (Wrapper, HeadFirst)):
        (policy,) = inner_of(policy).values()
    return policy


def _check_pipeline(pipeline: object) -> None:
    if callable(getattr(pipeline, "query", None)) or callable(getattr(pipeline, "invoke", None)):
        return
    if callable(getattr(pipeline, "chat", None)):
        msg = (
            f"a {type(pipeline).__name__} keeps a history from question to question: give a function that makes a new one for each, "
            "such as lambda question: index.as_chat_engine(llm=router).chat(question)"
        )
        raise PolicyError(msg)
    if not callable(pipeline):
        msg = f"a {type(pipeline).__name__} is not a pipeline: expected an object with query() or invoke(), or a function of one question"
        raise PolicyError(msg)


def answered_by(pipeline: Any, question: str) -> object:
    """The result of a pipeline; what is awaitable is awaited.

    Examples
    --------
    >>> answered_by(str.upper, "why?")
    'WHY?'
    """
    ways = (getattr(pipeline, name, None) for name in ("query", "invoke"))
    ask = next((way for way in ways if callable(way)), pipeline)
    result = ask(question)
    return _awaited(result) if inspect.isawaitable(result) else result


def _awaited(result: Awaitable[Any]) -> Any:
    async def wait() -> Any:
        return await result

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(wait())
    # A notebook's own loop runs in this thread.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(contextvars.copy_context().run, asyncio.run, wait()).result()


def text_of(result: Any) -> str:
    """The text of what a pipeline returned.

    Raises
    ------
    PolicyError
        Nothing, or an object that neither is of a host nor can be written as JSON.

    Examples
    --------
    >>> text_of("Paris"), text_of({"city": "Paris"})
    ('Paris', '{"city": "Paris"}')
    """
    if isinstance(result, Mapping) and _is_of_host(last := (result.get("messages") or [None])[-1]):
        # The state of an agent.
        result = last
    if isinstance(result, (str, Routed)) or _is_of_host(result):
        return _host_text(result)
    if (dump := getattr(result, "model_dump_json", None)) is not None:
        return str(dump())
    try:
        return _json(result)
    except (TypeError, ValueError) as error:
        msg = f"the pipeline returned a {type(result).__name__}: expected a text, or JSON; give a function that returns its text"
        raise PolicyError(msg) from error


def _host_text(result: Any) -> str:
    """The text of an answer, a message or a response."""
    held = [getattr(getattr(result, "message", result), name, None) for name in ("text", "content")]
    return str(next((text for text in held if isinstance(text, str)), result))


def _json(result: object) -> str:
    if result is None:
        raise ValueError("nothing was returned")
    return json.dumps(result, ensure_ascii=False, sort_keys=True)


def _is_of_host(value: object) -> bool:
    return any(base.__module__.partition(".")[0] in _HOSTS for base in type(value).__mro__)


def record_pipeline(
    pipeline: object,
    questions: str | os.PathLike[str] | Iterable[Row | str],
    out: str | os.PathLike[str],
    *,
    limit: int | None = None,
    retry_errors: bool = False,
    concurrency: int = 1,
    tick: Callable[[RunSummary], object] | None = None,
    **wanted: Any,
) -> RunSummary:
    """Record a pipeline around a router on one's own questions; called again, it goes on where it was stopped.

    Parameters
    ----------
    pipeline : object
        See `PipelineRecorder`.
    questions : path-like, or iterable of Row or str
        A file as ``confroute record`` reads it, or the questions; texts get their numbers, from 1, as ids.
    out : path-like
        The run; each row is appended as soon as it is done.
    limit, retry_errors, concurrency, tick
        See `confroute.recording.runner.record_into`.
    **wanted
        Fields of `confroute.recording.evidence.Wanted`: `samples`, `signals`, `grade`, ...

    Returns
    -------
    RunSummary

    Raises
    ------
    RecordError
        `questions` or `out` cannot be read.
    PolicyError
        An object that is no pipeline, or another process records into `out`.
    """
    recorder = PipelineRecorder(pipeline=pipeline, **wanted)
    if isinstance(questions, (str, os.PathLike)):
        prompts = read_prompts(questions)
    else:
        prompts = [
            one if isinstance(one, Row) else Row(id=str(number), prompt=one, edge=Side())
            for number, one in enumerate(questions, start=1)
        ]
    return record_into(
        Path(out),
        prompts,
        lambda: recorder,
        limit=limit,
        retry_errors=retry_errors,
        concurrency=concurrency,
        tick=tick,
    )
