"""`ChatConfRoute`: two chat models behind the interface of one."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.runnables import Runnable
from langchain_core.runnables.utils import ConfigurableFieldSpec
from langchain_core.tools import BaseTool
from pydantic import BaseModel, ConfigDict, Field, InstanceOf, PrivateAttr, SecretStr
from typing_extensions import override

from confroute.errors import PolicyError, RequestError
from confroute.flow import Policy
from confroute.models.resilience import Limits
from confroute.policy import Cascade
from confroute.policy.files import refuse_path
from langchain_confroute import _profile
from langchain_confroute._base import RoutedChat
from langchain_confroute._given import resolved
from langchain_confroute._request import check_tiers, config_specs
from langchain_confroute._routing import ChatCall, Plan
from langchain_confroute._shapes import Asked, Shape, Structured, ToolCalls, finishing
from langchain_confroute._tiers import Model, TierModel, model_name, same_model, with_settings


class ChatConfRoute(RoutedChat):
    """A chat model that answers on its edge model where that can be trusted, and on its cloud model where not.

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

    Invoke, stream, batch, async
        As any chat model. A stream carries one answer: a draft is shown only once it is accepted, a forced or
        escalated call streams as its model does. Its own run is a chain run with the models' runs below it, so that
        every token is counted once; drafts and samples are tagged "confroute:draft" and "confroute:sample".

    Per call
        ``config={"configurable": {"confroute_route": "cloud", "confroute_threshold": 0.4}}``; route "edge", "cloud"
        or "auto", threshold a number or numbers by signal. Rules see the tags and metadata of the config. What was
        retrieved is told as ``"confroute_context": {"question": str, "documents": [...]}``, for signals that look at it.

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
    policy : Policy
        The uncalibrated `Cascade()` if not given: calibrate a threshold before relying on it.
    edge_limits, cloud_limits : Limits
        Time limit and retries of each tier.
    members : mapping of str to model
        Further models that an `Ensemble` in the policy asks by these names; none of their answers is ever returned.
    keep_logprobs : bool
        Leave the draft's log-probabilities on the answer.
    cloud_tools : tuple of str
        Tools whose calls are never taken from the edge.
    model : str
        The router's own name in traces.
    temperature, max_tokens : optional
        Set on both models, on copies; PolicyError if one of them has no such setting.
    stop : list of str, optional
        For calls that name none.
    timeout, max_retries : optional
        For tiers without limits of their own: seconds, and retries after the first attempt.
    api_key, streaming : optional
        Accepted, since code that builds chat models passes them; keys belong to the two models.

    Raises
    ------
    PolicyError
        Edge and cloud are the same model or one is a chain that ends in an output parser, the policy names other tiers, or `cache` or `rate_limiter` is set here
        and not on the two models.

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

    edge: InstanceOf[Runnable[Any, Any]] | str
    cloud: InstanceOf[Runnable[Any, Any]] | str
    policy: InstanceOf[Policy] = Field(default_factory=Cascade)
    edge_limits: InstanceOf[Limits] = Limits()
    cloud_limits: InstanceOf[Limits] = Limits()
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
    _held: tuple[Asked, ChatConfRoute] | None = PrivateAttr(default=None)
    _made: Plan | None = PrivateAttr(default=None)

    if not TYPE_CHECKING:  # the signature made from the fields is the better one

        def __init__(self, **kwargs: Any) -> None:
            refuse_path(kwargs.get("policy"))
            super().__init__(**kwargs)
            # Not a validator: pydantic would hide a PolicyError in a ValidationError.
            self._check()

    def _check(self) -> None:
        for name in ("cache", "rate_limiter"):
            if getattr(self, name):
                msg = f"{name} is set on the router: set it on edge and cloud, whose calls it is about"
                raise PolicyError(msg)
        check_tiers(self.policy)
        self._made = self._plan_of(self._settings())
        if self.profile is None:
            self.profile = _profile.common([tier.profile for tier in self._made.tiers.values()])

    def _settings(self) -> tuple[Any, ...]:
        return (
            *(self.edge, self.cloud, self.policy, self.edge_limits, self.cloud_limits, self.keep_logprobs),
            *(self.temperature, self.max_tokens, self.stop, self.timeout, self.max_retries, self.tags),
            *(self.output_version, len(self.members), *self.members, *self.members.values()),
        )

    @property
    def _plan(self) -> Plan:
        """What all calls share: made once, and anew for a copy with other settings."""
        settings, made = self._settings(), self._made
        if made is None or not made.serves(settings):
            made = self._made = self._plan_of(settings)
        return made

    def _plan_of(self, settings: tuple[Any, ...]) -> Plan:
        edge, cloud = resolved(self.edge, "edge"), resolved(self.cloud, "cloud")
        if same_model(edge, cloud):
            msg = f"edge and cloud are the same model ({model_name(edge)}): routing between them decides nothing"
            raise PolicyError(msg)
        own: dict[str, Any] = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        given = {name: value for name, value in own.items() if value is not None}
        if "output_version" in self.model_fields_set:
            given["output_version"] = self.output_version
        return Plan(
            made_from=settings,
            tiers={
                "edge": self._tier("edge", with_settings("edge", edge, given)),
                "cloud": self._tier("cloud", with_settings("cloud", cloud, given)),
            },
            members={name: self._member(name, model) for name, model in self.members.items()},
            judge=None if self._shape is None else self._shape.judge,
            tools=self._shape is not None and self._shape.tools,
            tool_names=frozenset() if self._shape is None else self._shape.names,
            shape_text="" if self._shape is None else self._shape.text,
            policy=self.policy,
            limits={"edge": self._limits("edge_limits"), "cloud": self._limits("cloud_limits")},
            stop=self.stop or None,
            tags=tuple(self.tags or ()),
            keep_logprobs=self.keep_logprobs,
        )

    def _tier(self, name: str, model: Model) -> TierModel:
        if self._shape is None:
            return TierModel(name, model)
        try:
            return TierModel(name, self._shape.applied(name, model))
        except (NotImplementedError, AttributeError, ValueError) as error:
            # An edge that cannot do it is passed over; a cloud that cannot leaves nobody to answer.
            if name == "cloud":
                raise
            return TierModel(name, model, error, "tools" if self._shape.tools else "structured output")

    def _member(self, name: str, model: Model | str) -> TierModel:
        if name in ("edge", "cloud"):
            msg = f"a member is named {name!r}: expected a name that is not a tier's"
            raise PolicyError(msg)
        return self._tier(name, resolved(model, name))

    def _limits(self, name: str) -> Limits:
        limits: Limits = getattr(self, name)
        if name in self.model_fields_set:
            return limits
        attempts = limits.attempts if self.max_retries is None else self.max_retries + 1
        return replace(limits, timeout_s=self.timeout, attempts=attempts)

    def _call(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> ChatCall:
        misplaced = sorted(name for name in kwargs if name.startswith("confroute_"))
        if misplaced:
            msg = f"{', '.join(misplaced)}: give it in the config, as {{'configurable': {{{misplaced[0]!r}: ...}}}}"
            raise RequestError(msg)
        router = self
        if "tools" in kwargs:
            router, kwargs = self._for_tools(kwargs)
        return ChatCall(plan=router._plan, messages=messages, stop=stop, kwargs=kwargs)

    def _for_tools(self, kwargs: Mapping[str, Any]) -> tuple[ChatConfRoute, Mapping[str, Any]]:
        """The router whose models are bound to the tools of this call, and the other arguments."""
        bound = self._shape if isinstance(self._shape, ToolCalls) else None
        asked = Asked.of(kwargs, bound)
        if asked.as_bound:
            return self, asked.rest
        held = self._held
        if held is None or not held[0].same(asked):
            shape = ToolCalls.of(asked.tools, asked.choice, asked.more, always_cloud=self.cloud_tools)
            held = self._held = (asked, self._shaped(shape))
        return held[1], asked.rest

    def _shaped(self, shape: Shape) -> ChatConfRoute:
        copy = self.model_copy()
        copy._shape, copy._held = shape, None
        copy._made = copy._plan_of(copy._settings())
        return copy

    @override
    def bind_tools(
        self,
        tools: Sequence[builtins.dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Bind tools to both models, each in its provider's own form.

        A draft that calls tools is kept only if every tool was offered, its arguments fit the schema, none is in
        `cloud_tools`, and the evidence is good. An edge that cannot bind tools is passed over.
        """
        shape = ToolCalls.of(tools, tool_choice, kwargs, always_cloud=self.cloud_tools)
        return self._shaped(shape).bind(**shape.shown)

    @override
    def with_structured_output(
        self, schema: builtins.dict[str, Any] | type, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, builtins.dict[str, Any] | BaseModel]:
        """Structured values, by each provider's own method.

        A draft whose value does not parse goes to the cloud, as does one without good evidence; samples are compared
        by their values.
        """
        shape = Structured(schema=schema, kwargs=kwargs)
        return self._shaped(shape) | finishing(shape, include_raw=include_raw)

    @property
    def _llm_type(self) -> str:
        return "confroute"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        names = {name: tier.model_name for name, tier in self._plan.tiers.items()}
        return {"model": self.model, **names, "policy": repr(self.policy)}

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return config_specs()

    @override
    def get_num_tokens(self, text: str) -> int:
        """The larger of the two models' counts; an estimate where neither has a tokenizer of its own."""
        return max(tier.count([HumanMessage(text)]) for tier in self._plan.tiers.values())

    @override
    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """The larger of the two models' counts; an estimate where neither has a tokenizer of its own."""
        return max(tier.count(messages, tools) for tier in self._plan.tiers.values())
