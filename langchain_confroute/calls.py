"""One call of a router: what its policy sees, and the calls of models that the policy asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Generic, TypeVar

from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.runnables import RunnableConfig, ensure_config
from langchain_core.runnables.config import run_in_executor
from langchain_core.utils.json import parse_json_markdown

from confroute.clock import now
from confroute.decision import Routed
from confroute.error_notes import note_answer
from confroute.errors import RequestError
from confroute.flow import Policy
from confroute.hosts.dispatch import Dispatcher
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.model import ModelCall, ModelFacts
from confroute.hosts.requests import request_of
from confroute.hosts.tool_calls import asking_for_help, fitting, schema_asked_for, with_flaw_of, with_verdict
from confroute.models.provider_answers import answer_behind, ends_by_reason
from confroute.models.resilience import Limits
from confroute.streaming import ChunkLogprobs
from confroute.text_extraction import ReadOnce, merged, read
from confroute.types import JSON, Generation, Reading, Request
from langchain_confroute import compat
from langchain_confroute.history import portable
from langchain_confroute.local import ChatLocal, to_messages
from langchain_confroute.messages import (
    Ending,
    add_up,
    as_sent,
    chunk_scores,
    from_core,
    in_chunks,
    kinds_of,
    retrieved,
    to_core,
    to_generation,
    with_decision,
    with_wordless_answer,
    without_logprobs,
)
from langchain_confroute.models import (
    PER_SAMPLE,
    Model,
    TierModel,
    chat_of,
    kwargs_of,
    max_tokens_of,
    rebuild,
)
from langchain_confroute.options import options_of, tags_of
from langchain_confroute.run import Escaped, Opened, RoutedCall, aclose, around, close
from langchain_confroute.settings import own_settings
from langchain_confroute.structured import Shape
from langchain_confroute.withheld import Gate

C = TypeVar("C")
TAGS: dict[str, tuple[str, ...]] = {
    # LangGraph streams no run that carries "nostream".
    **{role: ("nostream", f"confroute:{role}") for role in ("draft", "sample", "prompt")},
    "final": ("confroute:final",),
}


def _shielded(call: ModelCall, config: RunnableConfig) -> AbstractContextManager[None]:
    """Where a draft is made: graphs in it add the handlers around the call to those that they are given."""
    return nullcontext() if call.role == "final" else around(config)


class HostedRunnable(ABC, Generic[C]):
    """A Runnable in one call of a router; see `confroute.hosts.model.HostModel`."""

    __slots__ = ("facts",)
    facts: ModelFacts

    @abstractmethod
    def _work(self, call: ModelCall) -> tuple[Any, Any, RunnableConfig, Mapping[str, Any], Any]:
        """What is called, with what (input, config, further arguments), and what `_read` needs beside the answer."""

    @abstractmethod
    def _read(self, answer: Any, call: ModelCall, listener: Any, latency_s: float) -> list[Generation]:
        """The answers that a call brought."""

    def call(self, call: ModelCall) -> list[Generation]:
        """See `HostModel`."""
        runnable, inputs, config, kwargs, listener = self._work(call)
        start = now()
        try:
            with _shielded(call, config):
                answer = runnable.invoke(inputs, config, **kwargs)
            return self._read(answer, call, listener, now() - start)
        except compat.bubble_ups() as error:
            raise Escaped(error) from error
        except Exception as error:
            flawed = self._flawed(error, call)
            if flawed is None:
                raise
            return [flawed]

    async def acall(self, call: ModelCall) -> list[Generation]:
        """See `HostModel`."""
        if self.sync_only:
            return await run_in_executor(None, self.call, call)
        runnable, inputs, config, kwargs, listener = self._work(call)
        start = now()
        try:
            with _shielded(call, config):
                answer = await runnable.ainvoke(inputs, config, **kwargs)
            return self._read(answer, call, listener, now() - start)
        except compat.bubble_ups() as error:
            raise Escaped(error) from error
        except Exception as error:
            if self._has_no_async_form(error):
                return await run_in_executor(None, self.call, call)
            flawed = self._flawed(error, call)
            if flawed is None:
                raise
            return [flawed]

    def stream(self, call: ModelCall) -> Generator[C | Generation, None, None]:
        """See `HostModel`."""
        runnable, inputs, config, kwargs, listener = self._work(call)
        start, chunks, items = now(), [], runnable.stream(inputs, config, **kwargs)
        try:
            for item in items:
                chunk = self._checked(item)
                chunks.append(chunk)
                yield chunk
        except compat.bubble_ups() as error:
            raise Escaped(error) from error
        finally:
            close(items)
        for answer in self._read(add_up(chunks), call, listener, now() - start):
            yield self._ended(answer)

    async def astream(self, call: ModelCall) -> AsyncGenerator[C | Generation, None]:
        """See `HostModel`."""
        runnable, inputs, config, kwargs, listener = self._work(call)
        start, chunks, items = now(), [], runnable.astream(inputs, config, **kwargs)
        try:
            async for item in items:
                chunk = self._checked(item)
                chunks.append(chunk)
                yield chunk
        except compat.bubble_ups() as error:
            raise Escaped(error) from error
        finally:
            await aclose(items)
        for answer in self._read(add_up(chunks), call, listener, now() - start):
            yield self._ended(answer)

    @property
    def sync_only(self) -> bool:
        """Whether it is called in a thread, since it turned out to have no async form."""
        return False

    def _has_no_async_form(self, error: Exception) -> bool:
        """Whether an error means that, and that the call is to be made again in a thread."""
        return False

    def _flawed(self, error: Exception, call: ModelCall) -> Generation | None:
        """The answer behind an error of the client's: of a draft a flaw, of the last answer its bill; None where there is none."""
        answer = answer_behind(error)
        if answer is None:
            return None
        note_answer(error, answer.usage)
        if call.role == "final":
            return None
        flaw = f"the client cannot read it ({type(error).__name__})"
        return replace(answer, flaw=flaw, raw=AIMessage(answer.text), model=answer.model or self.facts.model)

    def _ended(self, answer: Generation) -> Generation:
        """The answer of a stream, flagged where the stream gave no reason to end."""
        said = answer.text or answer.answer is not None
        whole = not self.facts.streams or not said or ends_by_reason(answer.raw.response_metadata)
        return answer if whole else replace(answer, unfinished=True)

    def _checked(self, chunk: Any) -> Any:
        return chunk


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What all calls of one router share.

    Attributes
    ----------
    made_from : tuple
        The router's settings: another tuple needs another plan.
    tiers, models : mapping of str to TierModel
        Those of the policy, cheapest first, and these with what an ensemble asks beside them.
    fallback : LogprobFallback
    shape : ToolCalls, Structured or None
        What answers have to be, where that is more than text.
    """

    made_from: tuple[Any, ...]
    tiers: Mapping[str, TierModel]
    models: Mapping[str, TierModel]
    fallback: LogprobFallback
    policy: Policy
    limits: Mapping[str, Limits]
    shape: Shape | None = None
    stop: list[str] | None = field(default=None, repr=False)
    tags: tuple[str, ...] = ()
    keep_logprobs: bool = False

    @cached_property
    def facts(self) -> Mapping[str, ModelFacts]:
        """What is known of each tier."""
        return {name: tier.facts for name, tier in self.tiers.items()}

    @cached_property
    def elsewhere(self) -> Mapping[str, frozenset[str]]:
        """By model, the tiers that are served from another place."""
        return {
            name: frozenset(tier.name for tier in self.tiers.values() if tier.place != model.place)
            for name, model in self.models.items()
        }

    @cached_property
    def counted(self) -> frozenset[str]:
        """Tiers for which a prompt's tokens are worth counting, and can be counted without a download or a call."""
        local = (tier for tier in self.tiers.values() if isinstance(tier.chat, ChatLocal))
        return frozenset(tier.name for tier in local if tier.facts.context_window is not None)

    def counts(self, messages: list[BaseMessage], lacks: Mapping[str, str]) -> dict[str, int]:
        """Exact tokens of a prompt, for those of `counted` that could answer it."""
        return {name: self.tiers[name].count(messages) for name in self.counted if name not in lacks}

    def lacks(self, kinds: tuple[str, ...]) -> dict[str, str]:
        """What each tier cannot do that a conversation with such content needs; only tiers that lack something are in it."""
        tools = None if self.shape is None else self.shape.needs
        needs = kinds if tools is None else (tools, *kinds)
        lacks = {name: tier.lacks(needs) for name, tier in self.tiers.items()}
        return {name: what for name, what in lacks.items() if what is not None}


@dataclass(slots=True, kw_only=True)
class ChatCall(RoutedCall[AIMessage, AIMessageChunk]):
    """One call of a chat router, from messages to the answer with its decision.

    Attributes
    ----------
    opened : Opened or None
        The router's run, whose children the models' calls are; None for calls that no handler sees.
    hides_logprobs : bool
        Whether the chunks that come now carry log-probabilities that only we asked for.
    reader : callable or None
        Reads an answer as the parser will whose words stand in the prompt; None where they do not.
    """

    plan: Plan
    messages: list[BaseMessage] = field(repr=False)
    stop: list[str] | None = field(default=None, repr=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    opened: Opened | None = None
    hides_logprobs: bool = False
    ending: Ending | None = None
    reader: Callable[[str], object] | None = None
    scores: ChunkLogprobs | None = chunk_scores

    def prepare(self, opened: Opened | None) -> tuple[Request, Dispatcher[AIMessage]]:
        """See `RoutedCall`."""
        plan, shape, messages = self.plan, self.plan.shape, self.messages
        config = ensure_config() if opened is None else opened.config
        options, kinds = options_of(config, plan.tiers), kinds_of(messages)
        lacks = plan.lacks(kinds) if kinds or shape is not None else {}
        text = "" if shape is None else shape.text
        shown = to_core(messages)
        schema = None if shape else schema_asked_for([one.text for one in shown], compat.JSON_FORMS)
        self.reader = None if schema is None else fitting(schema, parse_json_markdown)
        request = request_of(
            shown,
            plan.facts,
            options,
            extra=text,
            max_tokens=max_tokens_of(self.kwargs) if self.kwargs else None,
            counts=plan.counts(messages, lacks) if plan.counted else None,
            lacks=lacks,
            tags=tags_of(config, plan.tags),
            context=retrieved(messages) if options.context is None else None,
            tools=frozenset() if shape is None else frozenset(shape.offered),
            reads=ReadOnce(self.reads),
            attachments=bool(kinds),
            run_id=str(self.call_id(opened).run_id),
            whole=shape is not None or schema is not None,
        )
        self.opened = opened
        models = {name: HostedChat(tier, self) for name, tier in plan.models.items()}
        return request, Dispatcher(
            models=models, fallback=plan.fallback, at_once=config.get("max_concurrency")
        )

    def reads(self, tier: str) -> Reading:
        """Everything that would be sent to the models but that of `tier`."""
        shape = self.plan.shape
        own = read(*self.messages, self.kwargs, self.stop, shape and shape.sent, as_sent=as_sent)
        others = [model.reading for name, model in self.plan.models.items() if name != tier]
        return merged(own, *others)

    def result(self, routed: Routed, record: dict[str, JSON]) -> AIMessage:
        """See `RoutedCall`."""
        ours = self.plan.tiers[routed.decision.route].asks_logprobs and "logprobs" not in self.kwargs
        return with_decision(
            routed.generation.raw, record, drop_logprobs=ours and not self.plan.keep_logprobs
        )

    def show(self, chunk: AIMessage) -> AIMessageChunk | None:
        """See `RoutedCall`."""
        if self.ending is None:
            self.ending = Ending()
        hides_logprobs = self.hides_logprobs and not self.plan.keep_logprobs
        return self.ending.show(without_logprobs(chunk) if hides_logprobs else chunk)

    def end(self, routed: Routed, record: dict[str, JSON]) -> Iterable[AIMessageChunk]:
        """See `RoutedCall`."""
        # Of an empty answer nothing that can be read was shown: the draft follows in its place.
        if self.ending is None or (routed.decision.degraded and not self.ending.shown):
            return in_chunks(self.result(routed, record))
        return [self.ending.last(record)]


class HostedChat(HostedRunnable[AIMessage]):
    """A tier's model in one call of a chat router."""

    __slots__ = ("_about", "_messages", "_tier")

    def __init__(self, tier: TierModel, about: ChatCall) -> None:
        self.facts, self._tier, self._about = tier.facts, tier, about
        self._messages: list[BaseMessage] | None = None
        chat, messages = tier.chat, about.messages
        if isinstance(chat, ChatLocal):
            self.facts = replace(self.facts, inside=lambda: (chat.loaded(), to_messages(messages)))
        if about.plan.keep_logprobs:
            self.facts = replace(self.facts, keeps_logprobs=True)
        if about.opened is None:
            self.facts = replace(self.facts, answers_per_call=False, concurrent=False)

    @property
    def sync_only(self) -> bool:
        """See `HostedRunnable`."""
        return self._tier.sync_only

    def _has_no_async_form(self, error: Exception) -> bool:
        # ChatHuggingFace around a local pipeline has none, raises this error, and does not fall back to a thread.
        self._tier.sync_only = isinstance(error, NotImplementedError)
        return self._tier.sync_only

    def _work(self, call: ModelCall) -> tuple[Any, Any, RunnableConfig, Mapping[str, Any], Any]:
        about, tier = self._about, self._tier
        form: Any = tier.form(call)
        gate = None
        if about.opened is not None:
            config = about.opened.child(*TAGS[call.role])
            if call.role != "final":
                gate = about.gate(draft=call.role == "draft", streamed=call.streamed)
                config = gate.config(config)
        else:
            config, chat = RunnableConfig(callbacks=[]), chat_of(form)
            form = form if chat is None else compat.SilentModel(chat, kwargs_of(form))
        if call.streamed:
            about.hides_logprobs = call.logprobs and tier.asks_logprobs and "logprobs" not in about.kwargs
        if call.messages is not None:  # a signal's prompt goes without the caller's tools and stops
            return form, from_core(call.messages), config, {}, gate
        kwargs, fields = own_settings(about.kwargs, tier.chat)
        if call.role == "sample":
            fields = {name: value for name, value in fields.items() if name not in PER_SAMPLE}
        if fields:
            form = rebuild(form, lambda chat: compat.fresh(chat, fields))
        if call.role == "sample":
            form, kwargs = self._sampling(form, kwargs, call)
        return form, self._given(call), config, self._arguments(kwargs, call), gate

    def _arguments(self, kwargs: Mapping[str, Any], call: ModelCall) -> Mapping[str, Any]:
        """The call's own, with the tool that asks for help and the stop strings where there are any."""
        if call.help is not None:
            kwargs = {**kwargs, **self._tier.with_help(call.help)}
        # Some models refuse a `stop` at all when they have one of their own.
        return kwargs if self._about.stop is None else {**kwargs, "stop": self._about.stop}

    def _given(self, call: ModelCall) -> list[BaseMessage]:
        """The conversation as this provider reads it."""
        messages = self._messages
        if messages is None:
            messages = self._about.messages
            messages = (
                messages
                if self._tier.chat is None
                else portable(messages, self._tier.provider, self._about.plan.elsewhere[self._tier.name])
            )
            self._messages = messages
        return messages if call.note is None else [*messages, HumanMessage(call.note)]

    def _sampling(self, form: Any, kwargs: dict[str, Any], call: ModelCall) -> tuple[Any, dict[str, Any]]:
        kwargs = {name: value for name, value in kwargs.items() if name not in PER_SAMPLE}
        if not self.facts.answers_per_call:
            return form, kwargs
        seed = getattr(self._tier.chat, "seed", None)
        # The same seed would draw the same answers again.
        seeded = {} if seed is None else {"seed": seed + 1 + call.drawn}
        return _Several(form), {**kwargs, **seeded, "n": call.n}

    def _checked(self, chunk: Any) -> Any:
        if chunk is None:
            msg = f"{self._tier.name} gave no answer: its stream ended without a chunk"
            raise RequestError(msg)
        if not isinstance(chunk, AIMessage):
            msg = (
                f"{self._tier.name} returned a {type(chunk).__name__}: expected an AIMessage; leave the output parser out "
                "of this chain, or route between whole chains with ConfidenceRouter"
            )
            raise RequestError(msg)
        return compat.lifted(chunk)

    def _read(
        self, answer: Any, call: ModelCall, listener: Gate | None, latency_s: float
    ) -> list[Generation]:
        if isinstance(answer, _Answers):
            return [one for message in answer for one in self._read(message, call, listener, latency_s)]
        generation = to_generation(self._checked(answer), latency_s=latency_s)
        if listener is not None:
            listener.answers = (answer,)
        shape = self._about.plan.shape
        if call.role == "final":
            return [with_wordless_answer(generation)]
        if call.role == "prompt":
            return [generation]
        if shape is None:
            reader = self._about.reader
            return [generation if reader is None else with_flaw_of(generation, "JSON", reader)]
        if call.help is not None and call.help.name in {one["name"] for one in _written(answer)}:
            return [asking_for_help(generation)]
        return [with_verdict(generation, shape.judge(self._tier.name, answer))]


def _written(message: AIMessage) -> list[Any]:
    return [*message.tool_calls, *message.invalid_tool_calls]


class _Answers(list[AIMessage]):
    """Several answers of one call."""


class _Several:
    """A chat model that is asked for several answers at once; its methods are called as a Runnable's."""

    def __init__(self, form: Model) -> None:
        self._chat: Any = chat_of(form)
        self._bound = kwargs_of(form)

    def invoke(self, inputs: list[BaseMessage], config: RunnableConfig, **kwargs: Any) -> _Answers:
        run = {"callbacks": config.get("callbacks"), "tags": config.get("tags")}
        result = self._chat.generate([inputs], **run, **self._bound, **kwargs)
        return _Answers(compat.first_messages(result.generations))

    async def ainvoke(self, inputs: list[BaseMessage], config: RunnableConfig, **kwargs: Any) -> _Answers:
        run = {"callbacks": config.get("callbacks"), "tags": config.get("tags")}
        result = await self._chat.agenerate([inputs], **run, **self._bound, **kwargs)
        return _Answers(compat.first_messages(result.generations))
