"""The two models as `confroute.hosts` calls them: as the user gave them, asked for log-probabilities, at another temperature."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.output_parsers.base import BaseLLMOutputParser
from langchain_core.runnables import Runnable, RunnableSequence, RunnableWithFallbacks
from langchain_core.runnables.base import RunnableBindingBase
from langchain_core.runnables.configurable import DynamicRunnable, RunnableConfigurableAlternatives
from langchain_core.runnables.retry import RunnableRetry

from confroute.asks import HelpTool
from confroute.errors import MissingExtraError, PolicyError, RequestError
from confroute.hosts.model import ModelCall, ModelFacts
from confroute.hosts.options import SEVERAL, refuse_several
from confroute.hosts.requests import estimated_tokens, own_retries
from confroute.models.resolution import local_name
from confroute.text_extraction import read
from confroute.types import Reading
from langchain_confroute import compat
from langchain_confroute.local import ChatLocal
from langchain_confroute.messages import as_sent, missing, to_core
from langchain_confroute.settings import MAX_TOKENS
from langchain_confroute.withheld import Gate

Model: TypeAlias = Runnable[Any, Any]
# Its log-probabilities are objects that LangChain can write to an answer cache but not read back.
_UNCACHEABLE = "ChatOllama"
# Takes log-probabilities as a call argument only; its fields of that name are not sent.
_BY_CALL = "ChatHuggingFace"
# A router as a model of another one: it leaves the log-probabilities of its models on its answers.
_KEEPS = "keep_logprobs"
PER_SAMPLE = ("temperature", "seed", "n")
# What callers bind for their own conversation; a signal's prompt is not part of it.
_CALLERS = (
    *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format"),
    *("ls_structured_output_format", "stop", "n", "max_tokens", "logprobs", "top_logprobs"),
)
# Settings that hold texts and go to no model, or only into its headers.
_NOT_SENT = (
    "metadata",
    "tags",
    "callbacks",
    "cache",
    "profile",
    "default_headers",
    "default_query",
)
_WITHOUT = {"sample": PER_SAMPLE, "prompt": _CALLERS}
_ENDPOINTS = (
    "base_url",
    "openai_api_base",
    "azure_endpoint",
    "anthropic_api_url",
    "endpoint_url",
    "endpoint",
    "server_url",
)


# What the user gave.


def resolve_model(model: Model | str, tier: str) -> Model:
    """The model itself, made by `init_chat_model` where only its name was given.

    Raises
    ------
    PolicyError
        The name of a local model, or a chain that ends in an output parser.
    MissingExtraError
        `langchain` is not installed.
    """
    if not isinstance(model, str):
        _refuse_parser(model, tier)
        return model
    if (name := local_name(model)) is not None:
        msg = f"{tier}={model!r} is not a name for init_chat_model: for a local model give ChatLocal(model={name!r})"
        raise PolicyError(msg)
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        needed_for = f"{tier}={model!r}, a name for init_chat_model,"
        raise MissingExtraError(extra="agents", needed_for=needed_for) from error
    chat: Model = init_chat_model(model)
    return chat


def _refuse_parser(model: Model, tier: str) -> None:
    """Every call of such a chain would fail, and an edge's failures go to the cloud."""
    while isinstance(model, RunnableBindingBase):
        model = model.bound
    last = model.last if isinstance(model, RunnableSequence) else None
    if isinstance(last, BaseLLMOutputParser) and not _gives_message(last):
        msg = (
            f"{tier} is a chain that ends in {type(last).__name__}: expected a chat model or a chain that ends in one; leave "
            "the output parser out (it may follow the router), or route between whole chains with ConfidenceRouter"
        )
        raise PolicyError(msg)


def _gives_message(parser: object) -> bool:
    try:
        kind = getattr(parser, "OutputType", None)
    except TypeError:  # it does not say
        return False
    return isinstance(kind, type) and issubclass(kind, BaseMessage)


def chat_of(model: Model) -> BaseChatModel | None:
    """The chat model inside bindings (`.bind`, `.with_config`, `.with_retry`), if that is what it is."""
    while isinstance(model, RunnableBindingBase):
        model = model.bound
    return model if isinstance(model, BaseChatModel) else None


def models_inside(model: Model) -> tuple[Model, ...]:
    """The models of which one answers, inside a wrapper of LangChain's or at the end of a chain; none in any other Runnable."""
    if isinstance(model, RunnableBindingBase):
        return (model.bound,)
    if isinstance(model, RunnableSequence):
        return (model.last,)
    if isinstance(model, RunnableWithFallbacks):
        return (model.runnable, *model.fallbacks)
    if isinstance(model, DynamicRunnable):
        others = getattr(model, "alternatives", {}).values()
        return (model.default, *(other for other in others if isinstance(other, Runnable)))
    return ()


def first_chat(model: Model) -> BaseChatModel | None:
    """The chat model that answers as a rule, inside whatever wrappers; None where there is none, or it is not known."""
    innermost = _innermost(model)
    return innermost if isinstance(innermost, BaseChatModel) else None


def _innermost(model: Model) -> Model:
    while inside := models_inside(model):
        model = inside[0]
    return model


def every_chat(model: Model) -> Iterator[BaseChatModel]:
    """All chat models that may answer, inside whatever wrappers."""
    if isinstance(model, BaseChatModel):
        yield model
    for inner in models_inside(model):
        yield from every_chat(inner)


def bound_settings(model: Model) -> dict[str, Any]:
    """The arguments bound in any place around the model that answers as a rule."""
    bound: dict[str, Any] = {}
    while inside := models_inside(model):
        own = model.kwargs if isinstance(model, RunnableBindingBase) else {}
        model, bound = inside[0], {**own, **bound}
    return bound


def sent_with(model: Model) -> Iterator[object]:
    """What a model, or any of those inside it, sends with every call."""
    if isinstance(model, RunnableBindingBase):
        yield model.kwargs
    inside: list[object] = [*models_inside(model)]
    if isinstance(model, BaseChatModel):
        for name in type(model).model_fields:
            value = None if name in _NOT_SENT else getattr(model, name)
            # A router's own models are fields of it.
            inside += [value] if not isinstance(value, dict) else value.values()
            if isinstance(value, (Mapping, list)):
                yield value
    for inner in inside:
        if isinstance(inner, Runnable):
            yield from sent_with(inner)


def kwargs_of(model: Model) -> dict[str, Any]:
    """The arguments bound around a chat model."""
    if not isinstance(model, RunnableBindingBase):
        return {}
    return {**kwargs_of(model.bound), **model.kwargs}


def rebuild(
    model: Model, change: Callable[[Any], Model], *, without: Sequence[str] = (), quiet: bool = False
) -> Model:
    """The same wrappers around changed models, less the bound arguments named in `without`; `quiet` as in `_quiet`."""

    def inner(one: Any) -> Any:
        return rebuild(one, change, without=without, quiet=quiet)

    if isinstance(model, RunnableBindingBase):
        kept = {name: value for name, value in model.kwargs.items() if name not in without}
        update: dict[str, Any] = {"bound": inner(model.bound), "kwargs": kept}
        if quiet and model.config.get("callbacks"):
            update["config"] = _quiet(model.config)
        return model.model_copy(update=update)
    if isinstance(model, RunnableSequence):
        return model.model_copy(update={"last": inner(model.last)})
    if isinstance(model, RunnableWithFallbacks):
        others = [inner(other) for other in model.fallbacks]
        return model.model_copy(update={"runnable": inner(model.runnable), "fallbacks": others})
    if isinstance(model, RunnableConfigurableAlternatives):
        choices = {name: inner(one) for name, one in model.alternatives.items() if isinstance(one, Runnable)}
        return model.model_copy(
            update={"default": inner(model.default), "alternatives": {**model.alternatives, **choices}}
        )
    if isinstance(model, DynamicRunnable):
        return _with_default(model, inner(model.default))
    return change(model)


def _with_default(model: DynamicRunnable[Any, Any], default: Any) -> Model:
    # It is made anew from its fields at every call: what is bound has to stand around it, not in it.
    if not isinstance(default, RunnableBindingBase):
        return model.model_copy(update={"default": default})
    return default.model_copy(update={"bound": _with_default(model, default.bound)})


def _quiet(settings: Any) -> dict[str, Any]:
    """The same settings with handlers that are told nothing of an answer's tokens."""
    return {**settings, "callbacks": Gate(holds=False).callbacks(settings["callbacks"])}


def same_model(edge: Model, cloud: Model) -> bool:
    """Whether both are one model with the same settings, so that routing between them decides nothing."""
    if edge is cloud:
        return True
    one, other = chat_of(edge), chat_of(cloud)
    if one is None or other is None or type(one) is not type(other):
        return False
    # Clients and the like are excluded fields: they differ between two equal models.
    names = [name for name, info in type(one).model_fields.items() if not info.exclude]
    return kwargs_of(edge) == kwargs_of(cloud) and all(getattr(one, n) == getattr(other, n) for n in names)


def with_settings(tier: str, model: Model, settings: Mapping[str, Any]) -> Model:
    """A copy of the model with the router's own settings, where the user gave any.

    Raises
    ------
    PolicyError
        The model has no setting of that name.
    """
    if not settings:
        return model
    chat = chat_of(model)
    for name in settings:
        if chat is None or name not in type(chat).model_fields:
            msg = f"{name} is set on the router, but {tier} ({model_name(model)}) has no such field: set it on the model itself"
            raise PolicyError(msg)
    return rebuild(model, lambda inner: compat.fresh(inner, settings))


def endpoint_of(chat: object) -> str:
    """Where a model's calls go, as far as its settings tell; empty for its provider's own servers."""
    values = (getattr(chat, name, None) for name in _ENDPOINTS)
    return next((str(value).rstrip("/") for value in values if value), "")


def model_name(model: Model) -> str:
    """The model's own name, for the record."""
    chat: Any = chat_of(model)
    for name in ("model", "model_name", "model_id", "deployment_name", "azure_deployment"):
        value = getattr(chat, name, None)
        if isinstance(value, str) and value:
            return value
    return type(chat).__name__ if chat is not None else model.get_name()


def _refuse_several(chat: BaseChatModel | None, source: Model, tier: str) -> None:
    """Refuse a model that is set to several answers; of a rejected draft each would be paid."""
    fields = getattr(type(chat), "model_fields", {})
    own = {name: getattr(chat, name) for name in (*SEVERAL, "extra_body") if name in fields}
    try:
        for settings in (own, getattr(chat, "model_kwargs", None) or {}, kwargs_of(source)):
            refuse_several(settings, tier)
    except RequestError as error:
        raise PolicyError(str(error)) from error


def _is_retried(model: Model) -> bool:
    """Whether `with_retry` stands around the model."""
    while isinstance(model, RunnableBindingBase):
        if isinstance(model, RunnableRetry):
            return True
        model = model.bound
    return False


def _can_ask(chat: BaseChatModel | None, source: Model) -> bool:
    if "logprobs" in bound_settings(source) or getattr(chat, "logprobs", None) or getattr(chat, _KEEPS, None):
        return False  # the user decided already
    if chat is None:
        return compat.is_configurable(_innermost(source))
    if {"logprobs", _KEEPS}.isdisjoint(type(chat).model_fields):
        return False
    pipeline = getattr(chat, "llm", None) if _is(chat, _BY_CALL) else None
    return not _is(pipeline, "HuggingFacePipeline")


def _is(model: object, name: str) -> bool:
    # By name: importing every provider's package to ask would cost, and most are not installed.
    return any(base.__name__ == name for base in type(model).__mro__)


# The model of one tier.


@dataclass(slots=True, eq=False)
class TierModel:
    """A tier's model in the forms in which it is called; each form is made once, never per call.

    Attributes
    ----------
    name : str
    source : Runnable
        The model as the user gave it.
    unable : Exception or None
        What the model said when it was asked for something that it cannot do, named in `unable_to`.
    chat : chat model or None
        The model itself, inside its bindings; None for any other Runnable.
    asks_logprobs : bool
        Whether its drafts carry log-probabilities because we ask for them.
    scored_at_end : bool
        Whether the log-probabilities of a stream come with its end, as those of OpenAI's Responses API do through LangChain.
    bills_apart : bool
        Whether cached tokens of its streams have to be carried past the integration.
    place : tuple
        The provider, server and interface that its calls go to.
    sync_only : bool
        Whether its async form turned out not to exist.
    shaped : bool
        Whether tools or a schema are bound to it: servers that refuse log-probabilities beside these may give them elsewhere.
    """

    name: str
    source: Model = field(repr=False)
    unable: Exception | None = None
    unable_to: str = "tools"
    sync_only: bool = False
    shaped: bool = False
    chat: BaseChatModel | None = field(init=False, repr=False)
    provider: str | None = field(init=False)
    asks_logprobs: bool = field(init=False)
    scored_at_end: bool = field(init=False)
    bills_apart: bool = field(init=False)
    place: tuple[Any, ...] = field(init=False)
    facts: ModelFacts = field(init=False)
    _forms: dict[tuple[Any, ...], Model] = field(default_factory=dict, init=False, repr=False)
    _reading: Reading | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        chat = self.chat = chat_of(self.source)
        _refuse_several(chat, self.source, self.name)
        self.provider = None if chat is None else compat.provider_of(chat)
        answers = first_chat(self.source)
        self.asks_logprobs = _can_ask(answers, self.source)
        self.scored_at_end = compat.uses_responses(answers, bound_settings(self.source))
        self.bills_apart = any(map(compat.bills_apart, every_chat(self.source)))
        self.place = (self.provider, endpoint_of(chat), bool(getattr(chat, "use_responses_api", None)))
        alternatives = "top_logprobs" in getattr(type(answers), "model_fields", {})
        name = model_name(self.source)
        limit = max_tokens_of({**vars(chat), **kwargs_of(self.source)}) if chat is not None else None
        self.facts = ModelFacts(
            model=name,
            named=chat is not None and name != type(chat).__name__,
            answer_limit=limit,
            identity=(type(answers), name, endpoint_of(answers), self.shaped),
            context_window=self.profile.get("max_input_tokens"),
            max_output=limit,
            can_sample=answers is not None and self.profile.get("temperature") is not False,
            answers_per_call=isinstance(chat, ChatLocal) or getattr(type(chat), "samples_in_one_call", False),
            # Alternatives can be asked of a model that the user told to return log-probabilities.
            streams=chat is None or compat.streams(chat),
            retries=own_retries(chat) or _is_retried(self.source),
            asks_logprobs=self.asks_logprobs or (alternatives and bool(getattr(answers, "logprobs", None))),
        )

    @property
    def profile(self) -> Mapping[str, Any]:
        """What the model says it can do; empty where it says nothing."""
        return getattr(self.chat, "profile", None) or {}

    def count(self, messages: Sequence[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Tokens of a prompt: counted by a local model, estimated for all others, whose counting may download or call."""
        if isinstance(self.chat, ChatLocal) and not tools:
            return self.chat.get_num_tokens_from_messages(list(messages))
        return estimated_tokens(to_core(messages), extra=json.dumps(tools, default=str) if tools else "")

    @property
    def reading(self) -> Reading:
        """What it sends besides a conversation, whatever that is: arguments bound to it, and settings that hold texts."""
        if self._reading is None:
            self._reading = read(*sent_with(self.source), as_sent=as_sent)
        return self._reading

    def lacks(self, needs: Sequence[str]) -> str | None:
        """The first of `needs` that the model is known not to do."""
        return missing(self.profile, needs) if self.unable is None else self.unable_to

    def form(self, call: ModelCall) -> Model:
        """The model as one call needs it.

        Raises
        ------
        Exception
            What the model said when it was asked for what it cannot do.
        """
        if call.role == "final" and self.unable is not None:
            raise self.unable
        if call.role == "final" and not (call.logprobs or self.bills_apart):
            return self.source
        key = (call.role, call.temperature, call.logprobs, call.top_logprobs, call.max_tokens, call.streamed)
        form = self._forms.get(key)
        if form is None and call.role == "final":
            form = self._forms[key] = rebuild(self.source, lambda inner: self._scored(inner, call))
        elif form is None:
            change = _hot if call.role == "sample" else self._asking
            form = self._forms[key] = rebuild(
                self.source,
                lambda inner: (
                    change(inner, call) if isinstance(inner, BaseChatModel) else self._bound(inner, call)
                ),
                without=_WITHOUT.get(call.role, ()),
                quiet=True,
            )
        return form

    def with_help(self, help_: HelpTool) -> dict[str, Any]:
        """The tools bound to it with another one after them; nothing where several models may answer, each in its provider's form."""
        bound = kwargs_of(self.source).get("tools")
        if self.chat is None or not isinstance(bound, list):
            return {}
        key = ("help", help_)
        if key not in self._forms:
            self._forms[key] = self.chat.bind_tools([help_.form])
        return {"tools": [*bound, *kwargs_of(self._forms[key])["tools"]]}

    def draft(self, top_logprobs: int = 0) -> Model:
        """The model as it drafts, with so many alternatives per token."""
        return self.form(ModelCall(role="draft", logprobs=True, top_logprobs=top_logprobs))

    def sampler(self, temperature: float) -> Model:
        """The model as samples of this temperature are drawn from it."""
        return self.form(ModelCall(role="sample", temperature=temperature))

    def _bound(self, model: Model, call: ModelCall) -> Model:
        """What is made anew at every call is asked by arguments; what takes none of them refuses, and is asked without."""
        if not (compat.is_configurable(model) and call.logprobs):
            return model
        more = {"top_logprobs": call.top_logprobs} if call.top_logprobs else {}
        return model.bind(logprobs=True, **more)

    def _scored(self, model: Any, call: ModelCall) -> Model:
        """The model as the user set it up, which returns log-probabilities as well."""
        if not isinstance(model, BaseChatModel):
            return self._bound(model, call)
        request = self._request(model, call)
        if not _is(model, _BY_CALL):
            return compat.with_whole_bills(model, request)
        return model.bind(**request)

    def _request(self, chat: BaseChatModel, call: ModelCall) -> dict[str, Any]:
        """The settings that ask for log-probabilities. A router inside a router has none, and keeps those of its models."""
        if not (call.logprobs and self.asks_logprobs):
            return {}
        if "logprobs" not in type(chat).model_fields:
            return {_KEEPS: True}
        if self.scored_at_end:
            scores = _with_scores(getattr(chat, "include", None))
            return {**compat.scored_responses(chat), "include": scores}
        return {"logprobs": True, "cache": False} if _is(chat, _UNCACHEABLE) else {"logprobs": True}

    def _asking(self, chat: BaseChatModel, call: ModelCall) -> Model:
        """A copy whose answer may be thrown away: with log-probabilities and alternatives if it has any."""
        fields = type(chat).model_fields
        update = _kept_quiet(chat) if call.streamed else {**_kept_quiet(chat), "disable_streaming": True}
        request = self._request(chat, call)
        if call.top_logprobs and "top_logprobs" in fields and (request or getattr(chat, "logprobs", None)):
            request["top_logprobs"] = max(call.top_logprobs, getattr(chat, "top_logprobs", None) or 0)
        if call.max_tokens:
            # Ollama's name for it is another one.
            update |= {name: call.max_tokens for name in ("max_tokens", "num_predict") if name in fields}
        if request and _is(chat, _BY_CALL):
            return compat.fresh(chat, update).bind(**request)
        return compat.with_whole_bills(chat, update | request)


def _with_scores(include: Sequence[str] | None) -> list[str]:
    return list(dict.fromkeys((*(include or ()), compat.SCORES)))


def _kept_quiet(chat: BaseChatModel) -> dict[str, Any]:
    return _quiet({"callbacks": chat.callbacks}) if chat.callbacks else {}


def _hot(chat: BaseChatModel, call: ModelCall) -> Model:
    """A copy that answers differently each time: its own temperature, no seed, no answer cache."""
    fields = type(chat).model_fields
    update: dict[str, Any] = {**_kept_quiet(chat), "disable_streaming": True, "cache": False}
    update |= {"seed": None} if "seed" in fields else {}
    if "temperature" in fields:
        return compat.fresh(chat, {**update, "temperature": call.temperature})
    return compat.fresh(chat, update).bind(temperature=call.temperature)


def max_tokens_of(settings: Mapping[str, Any]) -> int | None:
    """The longest answer that settings name, by whichever of the providers' names."""
    given = (settings.get(name) for name in MAX_TOKENS)
    return next((value for value in given if isinstance(value, int) and value > 0), None)
