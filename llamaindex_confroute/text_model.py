"""A LlamaIndex LLM as a `TextModel`, for `confroute.Router` and to record, label and judge with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llama_index.core.llms import LLM

from confroute.models.text_model import OneByOne, Settings
from confroute.types import Generation, Message
from llamaindex_confroute._messages import from_core
from llamaindex_confroute._models import Prepared, for_draft, for_sample
from llamaindex_confroute._reading import generation_of
from llamaindex_confroute.local import LocalLLM

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

    def one(self, messages: Sequence[Message], settings: Settings, number: int) -> Generation:
        """One call of the model."""
        asked = self._asked(settings, number)
        return generation_of(asked.llm.chat(from_core(messages), **asked.kwargs), model=self.name)

    async def aone(self, messages: Sequence[Message], settings: Settings, number: int) -> Generation:
        """Async form of `one`."""
        asked = self._asked(settings, number)
        return generation_of(await asked.llm.achat(from_core(messages), **asked.kwargs), model=self.name)

    def _asked(self, settings: Settings, number: int) -> Prepared:
        scored = (
            for_draft(self.llm, {}, top_logprobs=settings.top_logprobs).kwargs if settings.logprobs else {}
        )
        if settings.temperature is None:
            return Prepared(llm=self.llm, kwargs=scored)
        asked = for_sample(self.llm, temperature=settings.temperature, number=number, given={})
        return Prepared(llm=asked.llm, kwargs={**scored, **asked.kwargs})

    @property
    def loaded(self) -> Callable[[], LocalModel] | None:
        """What gives the network, for a model in this process."""
        return self.llm.loaded if isinstance(self.llm, LocalLLM) else None


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
