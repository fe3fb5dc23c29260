"""One tier's model in its roles: as the user gave it, asked for log-probabilities, at another temperature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import BaseMessage
from langchain_core.messages.utils import count_tokens_approximately
from langchain_core.runnables import Runnable
from langchain_core.runnables.base import RunnableBindingBase

from confroute.errors import PolicyError
from confroute.models.resilience import rejects_logprobs
from confroute.types import Tier
from langchain_confroute._compat import fresh, provider_of
from langchain_confroute._history import own_settings, portable
from langchain_confroute._messages import missing
from langchain_confroute.local import ChatLocal

Model: TypeAlias = Runnable[Any, Any]
# Its log-probabilities are objects that LangChain can write to an answer cache but not read back.
_UNCACHEABLE = "ChatOllama"
# Takes log-probabilities as a call argument only; its fields of that name are not sent.
_BY_CALL = "ChatHuggingFace"
_PER_SAMPLE = ("temperature", "seed", "n")
# What callers bind for their own conversation; a signal's prompt is no part of it.
_CALLERS = (
    *("tools", "tool_choice", "parallel_tool_calls", "functions", "function_call", "response_format"),
    *("ls_structured_output_format", "stop", "n", "max_tokens", "logprobs", "top_logprobs"),
)


def chat_of(model: Model) -> BaseChatModel | None:
    """The chat model inside bindings (`.bind`, `.with_config`, `.with_retry`), if that is what it is."""
    while isinstance(model, RunnableBindingBase):
        model = model.bound
    return model if isinstance(model, BaseChatModel) else None


def kwargs_of(model: Model) -> dict[str, Any]:
    """The arguments bound around a chat model."""
    if not isinstance(model, RunnableBindingBase):
        return {}
    return {**kwargs_of(model.bound), **model.kwargs}


def rebuilt(model: Model, change: Callable[[Any], Model], *, without: Sequence[str] = ()) -> Model:
    """The same bindings around a changed model, less the bound arguments named in `without`."""
    if not isinstance(model, RunnableBindingBase):
        return change(model)
    kept = {name: value for name, value in model.kwargs.items() if name not in without}
    bound = rebuilt(model.bound, change, without=without)
    return model.model_copy(update={"bound": bound, "kwargs": kept})


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


@dataclass(slots=True, eq=False)
class TierModel:
    """A tier's model and its cached copies; copies are made once, never per call."""

    name: str
    source: Model
    unable: Exception | None = None
    unable_to: str = "tools"
    chat: BaseChatModel | None = field(init=False)
    asks_logprobs: bool = field(init=False)
    provider: str | None = field(init=False)
    sync_only: bool = False
    asks_alternatives: bool = field(default=True, init=False)
    _drafts: dict[tuple[int, int, bool], Model] = field(default_factory=dict, init=False)
    _samplers: dict[float, Model] = field(default_factory=dict, init=False)
    _plain: Tier = field(init=False)

    def __post_init__(self) -> None:
        self.chat = chat_of(self.source)
        self.provider = None if self.chat is None else provider_of(self.chat)
        self.asks_logprobs = _can_ask(self.chat, self.source)
        profile = self.profile
        self._plain = Tier(
            name=self.name,
            model=model_name(self.source),
            context_window=profile.get("max_input_tokens"),
            can_sample=self.chat is not None and profile.get("temperature") is not False,
        )

    @property
    def profile(self) -> Mapping[str, Any]:
        """What the model says it can do; empty where it says nothing."""
        return (getattr(self.chat, "profile", None) if self.chat is not None else None) or {}

    @property
    def final(self) -> Model:
        """The model as the user gave it.

        Raises
        ------
        Exception
            What it said when it was asked for what it cannot do.
        """
        if self.unable is not None:
            raise self.unable
        return self.source

    def readable(self, messages: list[BaseMessage]) -> list[BaseMessage]:
        """The conversation without what only another provider's model can read."""
        return messages if self.chat is None else portable(messages, self.provider)

    def settings(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """A call's arguments without those that only another provider takes."""
        return dict(kwargs) if self.chat is None else own_settings(kwargs, self.provider)

    @property
    def many_at_once(self) -> bool:
        """Whether one call gives several samples: `n` of most providers neither splits usage nor names the model."""
        return isinstance(self.chat, ChatLocal) or getattr(type(self.chat), "samples_in_one_call", False)

    def facts(self, messages: Sequence[BaseMessage], needs: tuple[str, ...]) -> Tier:
        """What is known of this tier for one request."""
        lacks = missing(self.profile, needs) if needs else None
        if self.unable is not None:
            lacks = self.unable_to
        window = self._plain.context_window
        if lacks is None and window is None:
            return self._plain
        count = None if lacks or window is None else self.count(messages)
        return Tier(
            name=self.name,
            model=self._plain.model,
            context_window=window,
            input_tokens=count,
            lacks=lacks,
            can_sample=self._plain.can_sample,
        )

    @property
    def model_name(self) -> str:
        """The model's own name."""
        return self._plain.model

    def count(self, messages: Sequence[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Tokens of a prompt: counted by a local model, estimated for all others, whose counting may download or call."""
        if isinstance(self.chat, ChatLocal) and not tools:
            return self.chat.get_num_tokens_from_messages(list(messages))
        return count_tokens_approximately(messages)

    def draft(self, top_logprobs: int = 0) -> Model:
        """A copy whose answer may be thrown away: whole, with log-probabilities and alternatives if it has any."""
        return self._evidence(top_logprobs)

    def watched(self, top_logprobs: int = 0) -> Model:
        """The same for a draft that is watched while it streams."""
        return self._evidence(top_logprobs, streams=True)

    def prompter(self, top_logprobs: int, max_tokens: int) -> Model:
        """The same for a signal's own prompt: without the caller's tools, and short."""
        return self._evidence(top_logprobs, max_tokens=max_tokens)

    def _evidence(self, top_logprobs: int, *, max_tokens: int = 0, streams: bool = False) -> Model:
        key = (top_logprobs if self.asks_alternatives else 0, max_tokens, streams)
        if key not in self._drafts and self.chat is None:
            self._drafts[key] = self.source
        elif key not in self._drafts:
            without = _CALLERS if max_tokens else ()
            self._drafts[key] = rebuilt(self.source, partial(self._asking, *key), without=without)
        return self._drafts[key]

    def _asking(self, top_logprobs: int, max_tokens: int, streams: bool, model: BaseChatModel) -> Model:
        fields = type(model).model_fields
        update: dict[str, Any] = {} if streams else {"disable_streaming": True}
        wanted: dict[str, Any] = {"logprobs": True} if self.asks_logprobs else {}
        if top_logprobs and "top_logprobs" in fields and (wanted or getattr(model, "logprobs", None)):
            wanted["top_logprobs"] = max(top_logprobs, getattr(model, "top_logprobs", None) or 0)
        by_call = bool(wanted) and _is(model, _BY_CALL)
        update |= {} if by_call else wanted
        if wanted and _is(model, _UNCACHEABLE):
            update["cache"] = False
        # Ollama's name for it is another one.
        update |= {
            name: max_tokens for name in ("max_tokens", "num_predict") if max_tokens and name in fields
        }
        copy = fresh(model, update)
        return copy.bind(**wanted) if by_call else copy

    def ease(self, error: Exception) -> bool:
        """After a refusal of log-probabilities ask for less of them; False where that was not what failed."""
        asked = any(top for top, _, _ in self._drafts)
        if not rejects_logprobs(error) or not (self.asks_logprobs or (asked and self.asks_alternatives)):
            return False
        if asked and self.asks_alternatives:
            self.asks_alternatives = False
        else:
            self.asks_logprobs = False
        self._drafts = {}
        return True

    def sampler(self, temperature: float) -> Model:
        """A copy that answers differently each time: its own temperature, no seed, no answer cache."""
        if temperature not in self._samplers:

            def at(model: BaseChatModel) -> Model:
                fields = type(model).model_fields
                update: dict[str, Any] = {"disable_streaming": True, "cache": False}
                update |= {name: None for name in ("seed",) if name in fields}
                if "temperature" in fields:
                    return fresh(model, {**update, "temperature": temperature})
                return fresh(model, update).bind(temperature=temperature)

            self._samplers[temperature] = rebuilt(self.source, at, without=_PER_SAMPLE)
        return self._samplers[temperature]


def without_sampling(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments less those that would make all samples the same."""
    return {name: value for name, value in kwargs.items() if name not in _PER_SAMPLE}


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
    return rebuilt(model, lambda inner: fresh(inner, settings))


def model_name(model: Model) -> str:
    """The model's own name, for the record."""
    chat: Any = chat_of(model)
    for name in ("model", "model_name", "model_id", "deployment_name", "azure_deployment"):
        value = getattr(chat, name, None)
        if isinstance(value, str) and value:
            return value
    return type(chat).__name__ if chat is not None else model.get_name()


def _can_ask(chat: BaseChatModel | None, source: Model) -> bool:
    if chat is None or "logprobs" not in type(chat).model_fields:
        return False
    if getattr(chat, "logprobs", None) or "logprobs" in kwargs_of(source):
        return False  # the user decided already
    if _is(chat, _BY_CALL):
        return not any(
            base.__name__ == "HuggingFacePipeline" for base in type(getattr(chat, "llm", None)).__mro__
        )
    return True


def _is(model: object, name: str) -> bool:
    # By name: importing every provider's package to ask would cost, and most are not installed.
    return any(base.__name__ == name for base in type(model).__mro__)
