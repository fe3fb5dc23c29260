"""A LangChain chat model as a `TextModel`, for `confroute.Router` and to record, label and judge with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage

from confroute.errors import MissingExtraError, ModelError
from confroute.hosts.model import ModelCall, ModelFacts
from confroute.models.openai import is_loopback
from confroute.models.provider_answers import ends_by_reason, read_answer_logprobs
from confroute.models.text_model import OneByOne, Piece, Settings, scored_piece
from confroute.types import Generation, Message, Reading
from langchain_confroute.compat import fresh, lifted
from langchain_confroute.local import ChatLocal
from langchain_confroute.messages import add_up, from_core, text_of, to_generation
from langchain_confroute.models import Model, TierModel, chat_of, model_name, rebuild
from langchain_confroute.run import aclose, close

if TYPE_CHECKING:
    from confroute.doctor import Trial
    from confroute.models.local import LocalModel


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatTextModel(OneByOne):
    """A LangChain chat model, or a runnable around one.

    Parameters
    ----------
    tier : TierModel
        The model and its copies that are asked for log-probabilities. Its own settings stay as they are, but the temperature.
        The longest answer is the model's own setting: providers call that parameter by many names.
    name : str
    remote : bool
        Whether text leaves this machine.
    """

    tier: TierModel
    name: str
    remote: bool = True
    _copies: dict[tuple[object, ...], Model] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def facts(self) -> ModelFacts:
        """What the model says of itself."""
        return self.tier.facts

    @property
    def reading(self) -> Reading:
        """What it sends with every call."""
        return self.tier.reading

    def one(self, messages: Sequence[Message], settings: Settings, number: int) -> Generation:
        """One call of the model."""
        return to_generation(self._copy(settings).invoke(from_core(messages)))

    async def aone(self, messages: Sequence[Message], settings: Settings, number: int) -> Generation:
        """Async form of `one`."""
        return to_generation(await self._copy(settings).ainvoke(from_core(messages)))

    def stream(self, messages: Sequence[Message], **settings: Any) -> Generator[Piece, None, None]:
        """Answer once, chunk by chunk; at once where the chunks' log-probabilities come with the end."""
        asked = Settings(**settings)
        chunks, items = [], self._copy(asked, streamed=True).stream(from_core(messages))
        held = asked.logprobs and self.tier.scored_at_end
        try:
            for chunk in map(lifted, items):
                chunks.append(chunk)
                if not held:
                    yield _piece(chunk)
        finally:
            close(items)
        if held and chunks:
            yield _piece(add_up(chunks))
        yield _last(chunks)

    async def astream(self, messages: Sequence[Message], **settings: Any) -> AsyncGenerator[Piece, None]:
        """Async form of `stream`."""
        asked = Settings(**settings)
        chunks, items = [], self._copy(asked, streamed=True).astream(from_core(messages))
        held = asked.logprobs and self.tier.scored_at_end
        try:
            async for item in items:
                chunk = lifted(item)
                chunks.append(chunk)
                if not held:
                    yield _piece(chunk)
        finally:
            await aclose(items)
        if held and chunks:
            yield _piece(add_up(chunks))
        yield _last(chunks)

    def _copy(self, settings: Settings, *, streamed: bool = False) -> Model:
        """The model at this temperature, asked for log-probabilities if they are wanted; made once."""
        scored = settings.logprobs and self.facts.asks_logprobs
        key = (settings.temperature, scored, settings.top_logprobs, streamed)
        if key not in self._copies:
            call = ModelCall(
                role="draft", logprobs=True, top_logprobs=settings.top_logprobs, streamed=streamed
            )
            model = self.tier.form(call) if scored else self.tier.source
            self._copies[key] = _at(settings.temperature, model)
        return self._copies[key]

    def trials(self) -> Mapping[str, Trial]:
        """What `confroute doctor` tries in LangChain's own way."""
        from langchain_confroute.doctor import trials

        return trials(self.tier)

    @property
    def loaded(self) -> Callable[[], LocalModel] | None:
        """What gives the network, for a model in this process."""
        chat = self.tier.chat
        return chat.loaded if isinstance(chat, ChatLocal) else None


def text_model(chat: Model, *, remote: bool | None = None) -> ChatTextModel:
    """Make a `TextModel` of a chat model.

    Parameters
    ----------
    chat : Runnable
        A chat model, bound or not.
    remote : bool, optional
        Whether text leaves this machine; True where not given, but for `ChatLocal`.
    """
    tier = TierModel("edge", chat)
    far = not isinstance(tier.chat, ChatLocal) if remote is None else remote
    return ChatTextModel(tier=tier, name=model_name(chat), remote=far)


def named(spec: str, *, base_url: str | None, max_tokens: int | None) -> ChatTextModel | None:
    """Make a `TextModel` of a name for `init_chat_model`; see `chat_named`."""
    chat = chat_named(spec, base_url=base_url, max_tokens=max_tokens)
    return None if chat is None else text_model(chat)


def chat_named(spec: str, *, base_url: str | None, max_tokens: int | None) -> BaseChatModel | None:
    """Make a chat model, greedy, of a name for `init_chat_model`; None if LangChain knows no such provider.

    Raises
    ------
    MissingExtraError
        `langchain` is not installed.
    ModelError
        A missing key or package of the provider.
    """
    try:
        from langchain.chat_models import init_chat_model
    except ImportError as error:
        raise MissingExtraError(extra="agents", needed_for=f"the model {spec!r} in LangChain") from error
    settings: dict[str, Any] = {"base_url": base_url, "max_tokens": max_tokens, "temperature": 0}
    given = {name: value for name, value in settings.items() if value is not None}
    try:
        chat: BaseChatModel = init_chat_model(spec, **given)
    except Exception as error:
        if type(error) is ValueError and "provider" in str(error):
            return None
        # A missing key or package: each provider has its own class for it.
        any_key = is_loopback(base_url) and "credential" in str(error).lower()
        hint = "; a server of this machine mostly takes any text: OPENAI_API_KEY=none" if any_key else ""
        msg = f"{spec} cannot be used: {error}{hint}"
        raise ModelError(msg) from error
    return chat


def _at(temperature: float | None, model: Model) -> Model:
    """A copy at this temperature; answers that are to differ have neither a seed nor an answer cache."""
    if temperature is None or chat_of(model) is None:
        return model

    def change(chat: BaseChatModel) -> Model:
        fields = type(chat).model_fields
        update: dict[str, Any] = {"temperature": temperature} if "temperature" in fields else {}
        if temperature > 0:
            update |= {"cache": False, **({"seed": None} if "seed" in fields else {})}
        copy = fresh(chat, update)
        return copy if "temperature" in fields else copy.bind(temperature=temperature)

    return rebuild(model, change, without=("temperature", "seed") if temperature > 0 else ("temperature",))


def _piece(chunk: Any) -> Piece:
    return scored_piece(text_of(chunk), read_answer_logprobs(chunk.response_metadata))


def _last(chunks: list[Any]) -> Piece:
    """What only all chunks together tell."""
    whole = to_generation(add_up(chunks)) if chunks else Generation(text="")
    told = isinstance(whole.raw, AIMessage) and ends_by_reason(whole.raw.response_metadata)
    return Piece(text="", finish=whole.finish if told else None, usage=whole.usage)
