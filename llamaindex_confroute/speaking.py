"""A LlamaIndex LLM as recorders, labellers and judges ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llama_index.core.llms import LLM

from confroute.models.one_by_one import OneByOne
from confroute.types import Generation, Message
from llamaindex_confroute._messages import from_core
from llamaindex_confroute._models import for_sample
from llamaindex_confroute._reading import generation_of
from llamaindex_confroute.local import LocalLLM


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMSpeaker(OneByOne):
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

    def one(self, messages: Sequence[Message], *, temperature: float, number: int) -> Generation:
        """One call of the model."""
        asked = for_sample(self.llm, temperature=temperature, number=number, given={})
        return generation_of(asked.llm.chat(from_core(messages), **asked.kwargs), model=self.name)

    async def aone(self, messages: Sequence[Message], *, temperature: float, number: int) -> Generation:
        """Async form of `one`."""
        asked = for_sample(self.llm, temperature=temperature, number=number, given={})
        return generation_of(await asked.llm.achat(from_core(messages), **asked.kwargs), model=self.name)


def speaker(llm: LLM, *, remote: bool | None = None) -> LLMSpeaker:
    """Make a speaker of an LLM.

    Parameters
    ----------
    llm : LLM
    remote : bool, optional
        Whether text leaves this machine; True where not given, but for `LocalLLM`.
    """
    name = llm.metadata.model_name
    return LLMSpeaker(llm=llm, name=name, remote=not isinstance(llm, LocalLLM) if remote is None else remote)
