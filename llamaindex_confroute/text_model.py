"""A LlamaIndex LLM as a `TextModel`, for `confroute.Router` and to record, label and judge with."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from contextlib import aclosing, closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from llama_index.core.llms import LLM, ChatResponse

from confroute.hosts.model import ModelCall, ModelFacts
from confroute.models.text_model import OneByOne, Piece, Settings, scored_piece
from confroute.text_extraction import read
from confroute.types import Generation, Message, Reading
from llamaindex_confroute.local import LocalLLM
from llamaindex_confroute.messages import from_core
from llamaindex_confroute.models import ChildModel
from llamaindex_confroute.responses import part_scores
from llamaindex_confroute.work import ChatCall

if TYPE_CHECKING:
    from confroute.models.local import LocalModel


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMTextModel(OneByOne):
    """A LlamaIndex LLM.

    Parameters
    ----------
    llm : LLM
        Its own settings stay as they are, but the temperature (and a fixed seed, which would make all samples one), set in the
        way that its provider reads. The longest answer is the model's own setting: providers call that parameter by many names.
    name : str
    remote : bool
        Whether text leaves this machine.
    """

    llm: LLM
    name: str
    remote: bool = True
    child: ChildModel = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "child", ChildModel(self.llm))

    @property
    def facts(self) -> ModelFacts:
        """What the model says of itself."""
        return self.child.facts

    @property
    def reading(self) -> Reading:
        """What it sends with every call."""
        return read(getattr(self.llm, "additional_kwargs", None))

    def one(self, messages: Sequence[Message], settings: Settings, number: int) -> Generation:
        """One call of the model."""
        return self._chat(messages).call(self._call(settings, number))[0]

    async def aone(self, messages: Sequence[Message], settings: Settings, number: int) -> Generation:
        """Async form of `one`."""
        return (await self._chat(messages).acall(self._call(settings, number)))[0]

    def stream(self, messages: Sequence[Message], **settings: Any) -> Generator[Piece, None, None]:
        """Answer once, chunk by chunk."""
        call = replace(self._call(Settings(**settings), 0), streamed=True)
        with closing(self._chat(messages).stream(call)) as chunks:
            for chunk in chunks:
                yield _piece(chunk)

    async def astream(self, messages: Sequence[Message], **settings: Any) -> AsyncGenerator[Piece, None]:
        """Async form of `stream`."""
        call = replace(self._call(Settings(**settings), 0), streamed=True)
        async with aclosing(self._chat(messages).astream(call)) as chunks:
            async for chunk in chunks:
                yield _piece(chunk)

    def _chat(self, messages: Sequence[Message]) -> ChatCall:
        return ChatCall(child=self.child, messages=from_core(messages))

    def _call(self, settings: Settings, number: int) -> ModelCall:
        facts = self.child.facts
        asks = settings.logprobs and facts.asks_logprobs
        return ModelCall(
            role="draft",
            drawn=number,
            temperature=settings.temperature,
            logprobs=asks,
            top_logprobs=max(settings.top_logprobs, facts.alternatives) if asks else 0,
        )

    @property
    def loaded(self) -> Callable[[], LocalModel] | None:
        """What gives the network, for a model in this process."""
        return self.llm.loaded if isinstance(self.llm, LocalLLM) else None


def _piece(chunk: ChatResponse | Generation) -> Piece:
    if isinstance(chunk, Generation):
        return Piece(text="", finish=None if chunk.unfinished else chunk.finish, usage=chunk.usage)
    return scored_piece(chunk.delta or "", part_scores(chunk.raw))


def text_model(llm: LLM, *, remote: bool | None = None) -> LLMTextModel:
    """Make a `TextModel` of an LLM.

    Parameters
    ----------
    llm : LLM
    remote : bool, optional
        Whether text leaves this machine; True where not given, but for `LocalLLM`.
    """
    far = not isinstance(llm, LocalLLM) if remote is None else remote
    return LLMTextModel(llm=llm, name=llm.metadata.model_name, remote=far)
