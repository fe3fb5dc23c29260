"""`ChatConfRoute`: two chat models behind the interface of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import ModelProfile
from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable
from langchain_core.runnables.utils import ConfigurableFieldSpec
from pydantic import Field, InstanceOf, PrivateAttr, SecretStr
from typing_extensions import override

from confroute.errors import PolicyError
from confroute.flow import Policy
from confroute.models.resilience import Limits
from confroute.policy import Cascade
from langchain_confroute import _profile
from langchain_confroute._base import RoutedChat
from langchain_confroute._request import TIERS, check_tiers, config_specs
from langchain_confroute._routing import ChatCall, Plan
from langchain_confroute._tiers import TierModel, model_name, resolved, same_model, with_settings


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
        or "auto", threshold a number or numbers by signal. Rules see the tags and metadata of the config.

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
    keep_logprobs : bool
        Leave the draft's log-probabilities on the answer.
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
        Edge and cloud are the same model, the policy names other tiers, or `cache` or `rate_limiter` is set here
        and not on the two models.

    Examples
    --------
    >>> from langchain_confroute.testing import ScriptedChat
    >>> model = ChatConfRoute(edge=ScriptedChat.of("4", logprob=-0.01), cloud=ScriptedChat.of("four"))
    >>> answer = model.invoke("2 + 2?")
    >>> answer.text, answer.response_metadata["confroute"]["route"]
    ('4', 'edge')
    """

    edge: InstanceOf[Runnable[Any, Any]] | str
    cloud: InstanceOf[Runnable[Any, Any]] | str
    policy: InstanceOf[Policy] = Field(default_factory=Cascade)
    edge_limits: InstanceOf[Limits] = Limits()
    cloud_limits: InstanceOf[Limits] = Limits()
    keep_logprobs: bool = False
    model: str = "confroute"
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    timeout: float | None = None
    max_retries: int | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True)
    streaming: bool = False
    _made: Plan | None = PrivateAttr(default=None)

    if not TYPE_CHECKING:  # the signature made from the fields is the better one

        def __init__(self, **kwargs: Any) -> None:
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

    def _settings(self) -> tuple[Any, ...]:
        return (
            *(self.edge, self.cloud, self.policy, self.edge_limits, self.cloud_limits, self.keep_logprobs),
            *(self.temperature, self.max_tokens, self.stop, self.timeout, self.max_retries, self.tags),
            self.output_version,
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
                name: TierModel(name, with_settings(name, model, given))
                for name, model in zip(TIERS, (edge, cloud), strict=True)
            },
            policy=self.policy,
            limits={"edge": self._limits("edge_limits"), "cloud": self._limits("cloud_limits")},
            stop=self.stop or None,
            tags=tuple(self.tags or ()),
            keep_logprobs=self.keep_logprobs,
        )

    def _limits(self, name: str) -> Limits:
        limits: Limits = getattr(self, name)
        if name in self.model_fields_set:
            return limits
        attempts = limits.attempts if self.max_retries is None else self.max_retries + 1
        return replace(limits, timeout_s=self.timeout, attempts=attempts)

    def _call(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> ChatCall:
        return ChatCall(plan=self._plan, messages=messages, stop=stop, kwargs=kwargs)

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

    def _resolve_model_profile(self) -> ModelProfile | None:
        return _profile.common([tier.profile for tier in self._plan.tiers.values()])

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
