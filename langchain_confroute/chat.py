"""`ChatConfRoute`: two or more chat models behind the interface of one."""

from __future__ import annotations

import asyncio
import builtins
import uuid
from collections.abc import AsyncIterator, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from operator import is_
from typing import TYPE_CHECKING, Any, cast

from langchain_core.callbacks import Callbacks
from langchain_core.language_models import BaseChatModel, LanguageModelInput, ModelProfile
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, convert_to_messages
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult, RunInfo
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.utils import ConfigurableFieldSpec
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    InstanceOf,
    PrivateAttr,
    SecretStr,
    field_serializer,
    model_validator,
)
from typing_extensions import override

from confroute.errors import PolicyError
from confroute.flow import Policy
from confroute.hosts.logprob_fallback import LogprobFallback
from confroute.hosts.model import ModelFacts
from confroute.hosts.options import refuse_several
from confroute.hosts.provenance import warn_of_other_models
from confroute.hosts.requests import advertised_window, check_policy, with_one_retry_layer
from confroute.hosts.tiers import (
    check_members,
    default_policy,
    limits_by_tier,
    models_by_tier,
    refuse_same,
)
from confroute.models.resilience import Limits
from confroute.policy import Cascade
from confroute.policy.files import refuse_path
from langchain_confroute import compat
from langchain_confroute.calls import ChatCall, Plan
from langchain_confroute.compat import AsyncManager, Manager, Stop
from langchain_confroute.messages import (
    as_chunk,
)
from langchain_confroute.models import (
    Model,
    TierModel,
    model_name,
    resolve_model,
    same_model,
    with_settings,
)
from langchain_confroute.options import config_specs, refuse_misplaced
from langchain_confroute.run import (
    InOrder,
    arun_chain,
    astream_chain,
    release_escaped,
    run_chain,
    stream_chain,
)
from langchain_confroute.settings import refuse_unknown
from langchain_confroute.structured import Shape, Structured, Tool, ToolCalls, value_of


class ChatConfRoute(InOrder[LanguageModelInput, AIMessage], BaseChatModel):
    """A chat model that answers on its cheapest model where that can be trusted, and on its next one where not.

    Setup
        ``pip install 'confroute[langchain]'`` and whatever the two models need.

    Instantiate
        ::

            from confroute import Cascade, TokenLogprob

            model = ChatConfRoute(
                edge=ChatOllama(model="llama3.2"),
                cloud="openai:gpt-5",
                policy=Cascade.of(TokenLogprob(), 0.25),
            )

        Or any number of models, cheapest first: ``tiers={"edge": ..., "mid": ..., "cloud": ...}`` with a policy that names the same.

    Invoke, stream, batch, async
        As any chat model. A stream carries one answer: a draft is shown only once it is accepted, a forced or
        escalated call streams as its model does. Its own run is a chain run with the models' runs below it, so that
        every token is counted once; drafts and samples are tagged "confroute:draft" and "confroute:sample".

    Per call
        ``config={"configurable": {"confroute_route": "cloud", "confroute_threshold": 0.4}}``; route a tier or "auto", threshold a
        number or numbers by signal, either also under the name of a tier. Rules see the tags and metadata of the config. What was
        retrieved is given as ``"confroute_context": {"question": str, "documents": [...]}``, for signals that look at it.

    Response metadata
        The answering model's own, with the decision under "confroute". Also in the custom event
        "confroute.decision", in LangGraph's custom stream and in ``with confroute.record() as decisions:``.

    Token usage
        `usage_metadata` is the answering model's; the decision holds the usage of all, rejected drafts included.

    Logprobs
        Asked for on drafts, where the edge has them, and dropped from the answer unless `keep_logprobs`.

    Attributes
    ----------
    edge, cloud : chat model, bound chat model, Runnable ending in a message, or name for `init_chat_model`
    tiers : mapping of str to such a model
        In place of `edge` and `cloud`: two or more by name, cheapest first.
    policy : Policy
        The uncalibrated `Cascade` of these tiers if not given: calibrate a threshold before relying on it.
    edge_limits, cloud_limits : Limits
        Time limit and retries of each tier.
    limits : mapping of str to Limits
        By tier, in place of `edge_limits` and `cloud_limits`.
    members : mapping of str to model
        Further models that an `Ensemble` in the policy asks by these names; none of their answers is ever returned.
    keep_logprobs : bool
        Leave the log-probabilities on the answer, and ask the last tier for them as well. An edge that is itself a router does so
        of its own accord.
    cloud_tools : tuple of str
        Tools whose calls are taken from the last tier alone.
    model : str
        The router's own name in traces.
    temperature, max_tokens : optional
        Set on all models, on copies; PolicyError if one of them has no such setting.
    stop : list of str, optional
        For calls that name none.
    timeout, max_retries : optional
        For tiers without limits of their own: seconds, and retries after the first attempt.
    api_key, streaming : optional
        Accepted, since code that builds chat models passes them; keys belong to the models.

    Raises
    ------
    PolicyError
        Two tiers are the same model or one is a chain that ends in an output parser, the policy names other tiers, both forms of tiers or
        limits are given, or `cache` or `rate_limiter` is set here and not on the models.

    Examples
    --------
    >>> from langchain_confroute.testing import ScriptedChat
    >>> model = ChatConfRoute(edge=ScriptedChat.of("4", logprob=-0.01), cloud=ScriptedChat.of("four"))
    >>> answer = model.invoke("2 + 2?")
    >>> answer.text, answer.response_metadata["confroute"]["route"]
    ('4', 'edge')
    """

    # A misspelt `policy` must not leave the default one in its place.
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    edge: InstanceOf[Runnable[Any, Any]] | str | None = None
    cloud: InstanceOf[Runnable[Any, Any]] | str | None = None
    tiers: dict[str, InstanceOf[Runnable[Any, Any]] | str] = Field(default_factory=dict)
    policy: InstanceOf[Policy] = Field(default_factory=Cascade)
    edge_limits: InstanceOf[Limits] = Limits()
    cloud_limits: InstanceOf[Limits] = Limits()
    limits: dict[str, InstanceOf[Limits]] = Field(default_factory=dict)
    members: dict[str, InstanceOf[Runnable[Any, Any]] | str] = Field(default_factory=dict)
    keep_logprobs: bool = False
    model: str = "confroute"
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    timeout: float | None = None
    max_retries: int | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True)
    streaming: bool = False
    cloud_tools: tuple[str, ...] = ()
    _shape: Shape | None = PrivateAttr(default=None)
    _last_tools: tuple[Any, Any, Mapping[str, Any], ChatConfRoute] | None = PrivateAttr(default=None)
    _plan_made: Plan | None = PrivateAttr(default=None)
    # Of all copies together: agents make one at every step.
    _fallback: LogprobFallback = PrivateAttr(default_factory=LogprobFallback)

    if not TYPE_CHECKING:  # the signature made from the fields is the better one

        def __init__(self, **kwargs: Any) -> None:
            refuse_path(kwargs.get("policy"))
            if "policy" not in kwargs:
                kwargs["policy"] = default_policy(kwargs.get("tiers"))
            super().__init__(**kwargs)
            # Not a validator: pydantic would hide a PolicyError in a ValidationError.
            self._check()

    @model_validator(mode="after")
    def _set_confroute_version(self) -> ChatConfRoute:
        compat.add_version(self)
        return self

    @field_serializer("edge", "cloud", "tiers", "members")
    def _named(self, given: Any) -> Any:
        # Of the models their names alone: they hold keys, and passwords in addresses and headers.
        if isinstance(given, dict):
            return {name: self._named(one) for name, one in given.items()}
        return given if given is None or isinstance(given, str) else model_name(given)

    def __repr_args__(self) -> Iterator[tuple[str, object]]:
        yield from self._named({**self._by_tier, **self.members}).items()
        yield "policy", self.policy

    @property
    def _by_tier(self) -> dict[str, Model | str]:
        return models_by_tier(self.edge, self.cloud, self.tiers)

    def _check(self) -> None:
        for name in ("cache", "rate_limiter"):
            if getattr(self, name):
                msg = f"{name} is set on the router: set it on its models, whose calls it is about"
                raise PolicyError(msg)
        tiers = self._by_tier
        check_policy(self.policy, tiers)
        check_members(self.members, tiers)
        self._plan_made = self._plan_of(self._settings())
        if self.profile is None:
            self.profile = common_profile(self._plan_made.tiers)

    def _settings(self) -> tuple[Any, ...]:
        return (
            *(self.edge, self.cloud, self.policy, self.edge_limits, self.cloud_limits, self.keep_logprobs),
            *(self.temperature, self.max_tokens, self.stop, self.timeout, self.max_retries, self.tags),
            *(self.output_version, len(self.members), *self.members, *self.members.values()),
            *(len(self.tiers), *self.tiers, *self.tiers.values()),
            *(len(self.limits), *self.limits, *self.limits.values()),
        )

    @property
    def _plan(self) -> Plan:
        """What all calls share: made once, and anew for a copy with other settings."""
        settings, plan = self._settings(), self._plan_made
        if plan is None or not all(map(is_, plan.made_from, settings)):
            plan = self._plan_made = self._plan_of(settings)
        return plan

    def _plan_of(self, settings: tuple[Any, ...]) -> Plan:
        models = {name: resolve_model(model, name) for name, model in self._by_tier.items()}
        refuse_same(models, same_model, model_name)
        last = [*models][-1]
        own: dict[str, Any] = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        given = {name: value for name, value in own.items() if value is not None}
        # Not by whether it was set: LangChain's configurable models are made anew with every field set.
        if self.output_version is not None and "output_version" in self.model_fields_set:
            given["output_version"] = self.output_version
        tiers = {
            name: self._tier(name, with_settings(name, model, given), last=name == last)
            for name, model in models.items()
        }
        limits = limits_by_tier(
            tiers, self.limits, edge_limits=self.edge_limits, cloud_limits=self.cloud_limits
        )
        warn_of_other_models(self.policy, {name: tier.facts for name, tier in tiers.items()})
        return Plan(
            made_from=settings,
            tiers=tiers,
            models={**tiers, **{name: self._member(name, model) for name, model in self.members.items()}},
            fallback=self._fallback,
            shape=self._shape or ToolCalls.bound_inside(models, self.cloud_tools),
            policy=self.policy,
            limits={name: self._limits(name, limits[name], tier.facts) for name, tier in tiers.items()},
            stop=self.stop or None,
            tags=tuple(self.tags or ()),
            keep_logprobs=self.keep_logprobs,
        )

    def _tier(self, name: str, model: Model, *, last: bool = False) -> TierModel:
        if self._shape is None:
            return TierModel(name, model)
        try:
            return TierModel(name, self._shape.applied(name, model), shaped=True)
        except PolicyError:
            # Not that it cannot do it: this router could not judge its values.
            raise
        except (NotImplementedError, AttributeError, ValueError) as error:
            # What LangChain's models raise that have no tools or structured answers, or not of this form. Such a tier is passed over; where
            # the last cannot, nobody is left to answer.
            if last:
                raise
            return TierModel(name, model, error, self._shape.needs or "structured output")

    def _member(self, name: str, model: Model | str) -> TierModel:
        return self._tier(name, resolve_model(model, name))

    def _limits(self, tier: str, limits: Limits, facts: ModelFacts) -> Limits:
        # Not by whether they were set: LangChain's configurable models are made anew with every field set.
        if limits == Limits():
            attempts = limits.attempts if self.max_retries is None else self.max_retries + 1
            limits = replace(limits, timeout_s=self.timeout, attempts=attempts)
        return with_one_retry_layer(limits, facts, tier)

    def remember_with(self, fallback: LogprobFallback) -> None:
        """Share what models refuse with other routers."""
        self._fallback, self._plan_made = fallback, None

    def _shaped(self, shape: Shape) -> ChatConfRoute:
        copy = self.model_copy()
        copy._shape, copy._last_tools = shape, None
        copy._plan_made = copy._plan_of(copy._settings())
        return copy

    def _for_tools(self, kwargs: Mapping[str, Any]) -> tuple[ChatConfRoute, Mapping[str, Any]]:
        """The router whose models are bound to the tools of this call, and the call's other arguments."""
        bound = self._shape if isinstance(self._shape, ToolCalls) else None
        if bound is not None and kwargs["tools"] is not bound.shown["tools"]:
            bound = None
        tools, own = (kwargs["tools"], ()) if bound is None else (bound.originals, bound.more)
        choice, more = kwargs.get("tool_choice"), {name: kwargs[name] for name in own if name in kwargs}
        rest = {name: value for name, value in kwargs.items() if name not in {"tools", "tool_choice", *more}}
        if bound is not None and bound.matches(choice, more):
            return self, rest
        last = self._last_tools
        if last is None or last[0] is not tools or last[1:3] != (choice, more):
            shape = ToolCalls.of(tools, choice, more, self.cloud_tools)
            last = self._last_tools = (tools, choice, more, self._shaped(shape))
        return last[3], rest

    def _call(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> ChatCall:
        router = self
        if kwargs:
            refuse_misplaced(kwargs)
            refuse_several(kwargs, "the call")
            self._refuse_unknown(kwargs)
            if "tools" in kwargs:
                router, kwargs = self._for_tools(kwargs)
        plan = router._plan
        return ChatCall(
            policy=plan.policy,
            limits=plan.limits,
            plan=plan,
            messages=messages,
            stop=plan.stop if stop is None else stop,
            kwargs=kwargs,
        )

    def _refuse_unknown(self, names: Collection[str]) -> None:
        refuse_unknown(names, {name: tier.chat for name, tier in self._plan.tiers.items()})

    def _read(self, prompt: LanguageModelInput, stop: Stop, kwargs: Mapping[str, Any]) -> ChatCall:
        # The same as `_convert_input`, without a prompt value built for nothing.
        messages = convert_to_messages(prompt) if isinstance(prompt, list) else None
        return self._call(messages or self._convert_input(prompt).to_messages(), stop, kwargs)

    @override
    def bind_tools(
        self, tools: Sequence[Tool], *, tool_choice: str | None = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools to all models, each in its provider's own form.

        A draft that calls tools is kept only if every tool was offered, its arguments fit the schema, none is in
        `cloud_tools`, and the evidence is good. A tier before the last that cannot bind tools is passed over.
        """
        self._refuse_unknown(kwargs)
        shape = ToolCalls.of(tools, tool_choice, kwargs, self.cloud_tools)
        return self._shaped(shape).bind(**shape.shown)

    @override
    def with_structured_output(
        self, schema: builtins.dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, builtins.dict[str, Any] | BaseModel]:
        """Structured values, by each provider's own method.

        A draft whose value does not parse goes to the next tier, as does one without good evidence; samples are compared
        by their values.
        """
        shape = Structured.of(schema, kwargs)
        return self._shaped(shape) | value_of(shape, include_raw=include_raw)

    @override
    def invoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: Stop = None,
        **kwargs: Any,
    ) -> AIMessage:
        call = self._read(input, stop, kwargs)
        return run_chain(self, call.messages, config, call.answer)

    @override
    async def ainvoke(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: Stop = None,
        **kwargs: Any,
    ) -> AIMessage:
        call = self._read(input, stop, kwargs)
        return await arun_chain(self, call.messages, config, call.aanswer)

    @override
    def stream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: Stop = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        if self._in_one_piece(kwargs):
            yield as_chunk(self.invoke(input, config, stop=stop, **kwargs))
            return
        call = self._read(input, stop, kwargs)
        yield from stream_chain(self, call.messages, config, call.chunks)

    @override
    async def astream(
        self,
        input: LanguageModelInput,
        config: RunnableConfig | None = None,
        *,
        stop: Stop = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        if self._in_one_piece(kwargs):
            yield as_chunk(await self.ainvoke(input, config, stop=stop, **kwargs))
            return
        call = self._read(input, stop, kwargs)
        async with aclosing(astream_chain(self, call.messages, config, call.achunks)) as items:
            async for chunk in items:
                yield chunk

    def _in_one_piece(self, kwargs: Mapping[str, Any]) -> bool:
        when = self.disable_streaming
        return when is True or (when == "tool_calling" and bool(kwargs.get("tools")))

    @override
    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: Stop = None,
        callbacks: Callbacks = None,
        *,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        configs, kwargs = _configs(len(messages), callbacks, run_id, kwargs)
        calls = zip(messages, configs, strict=True)
        return _result([self.invoke(given, config, stop=stop, **kwargs) for given, config in calls], configs)

    @override
    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: Stop = None,
        callbacks: Callbacks = None,
        *,
        run_id: uuid.UUID | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        configs, kwargs = _configs(len(messages), callbacks, run_id, kwargs)
        calls = zip(messages, configs, strict=True)
        answers = (self.ainvoke(given, config, stop=stop, **kwargs) for given, config in calls)
        return _result(await asyncio.gather(*answers), configs)

    # LangChain calls these four only inside a run of ours that is a model run (`stream_events(version="v3")`):
    # the models' calls then stay without runs, or every token would count twice.

    @override
    def _generate(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: Manager = None, **kwargs: Any
    ) -> ChatResult:
        with release_escaped():
            answer = self._call(messages, stop, kwargs).answer(None)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    @override
    async def _agenerate(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: AsyncManager = None, **kwargs: Any
    ) -> ChatResult:
        with release_escaped():
            answer = await self._call(messages, stop, kwargs).aanswer(None)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    @override
    def _stream(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: Manager = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        with release_escaped():
            for chunk in self._call(messages, stop, kwargs).chunks(None):
                yield ChatGenerationChunk(message=chunk)

    @override
    async def _astream(
        self, messages: list[BaseMessage], stop: Stop = None, run_manager: AsyncManager = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        with release_escaped():
            async for chunk in self._call(messages, stop, kwargs).achunks(None):
                yield ChatGenerationChunk(message=chunk)

    @property
    def _llm_type(self) -> str:
        return "confroute"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = {name: tier.facts.model for name, tier in self._plan.tiers.items()}
        return {"model": self.model, **names, "policy": repr(self.policy)}

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return config_specs(self._plan.tiers)

    @override
    def get_num_tokens(self, text: str) -> int:
        """The largest of the models' counts; an estimate where none has a tokenizer of its own."""
        return self.get_num_tokens_from_messages([HumanMessage(text)])

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """The largest of the models' counts; an estimate where none has a tokenizer of its own."""
        return max(tier.count(messages, tools) for tier in self._plan.tiers.values())


def common_profile(tiers: Mapping[str, TierModel]) -> ModelProfile | None:
    """What holds whichever model answers: abilities that all have, the smallest of their limits, and the last tier's window.

    A prompt that an earlier tier cannot hold is the last one's, and whatever is drafted may be escalated to it.
    """
    profiles = [tier.profile for tier in tiers.values()]
    shared: set[str] = set.intersection(*map(set, profiles)) if all(profiles) else set()
    common = {name: _least([profile[name] for profile in profiles]) for name in sorted(shared)}
    common["max_input_tokens"] = advertised_window({name: tier.facts for name, tier in tiers.items()})
    return cast("ModelProfile", {name: value for name, value in common.items() if value is not None}) or None


def _least(values: Sequence[Any]) -> Any:
    if all(isinstance(value, bool) for value in values):
        return all(values)
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return min(values)
    return values[0] if all(value == values[0] for value in values) else None


def _configs(
    count: int, callbacks: Callbacks, run_id: uuid.UUID | None, kwargs: Mapping[str, Any]
) -> tuple[list[RunnableConfig], dict[str, Any]]:
    """One config per prompt, and the arguments that are the models'; a run id can be only one run's."""
    names = ("tags", "metadata", "run_name")
    shared = {"callbacks": callbacks, **{name: kwargs.get(name) for name in names}}
    given = {name: value for name, value in shared.items() if value is not None}
    ids = [run_id if run_id is not None and index == 0 else uuid.uuid4() for index in range(count)]
    configs = [cast("RunnableConfig", {**given, "run_id": own}) for own in ids]
    return configs, {name: value for name, value in kwargs.items() if name not in names}


def _result(answers: Sequence[AIMessage], configs: Sequence[RunnableConfig]) -> LLMResult:
    return LLMResult(
        generations=[[ChatGeneration(message=answer)] for answer in answers],
        llm_output={},
        run=[RunInfo(run_id=cast("uuid.UUID", config.get("run_id"))) for config in configs],
    )
