"""A LlamaIndex LLM as recorders, labellers and judges ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms import LLM

from confroute.types import Generation, Message
from llamaindex_confroute._reading import generation_of
from llamaindex_confroute.local import LocalLLM


@dataclass(frozen=True, slots=True, kw_only=True)
class LLMSpeaker:
    """A LlamaIndex LLM.

    Parameters
    ----------
    llm : LLM
        Its own settings stay as they are, but the temperature, which is passed with each call. The longest answer is the
        model's own setting: providers call that parameter by many names.
    name : str
    remote : bool
        Whether text leaves this machine.
    """

    llm: LLM
    name: str
    remote: bool = True

    def say(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int | None = None,
    ) -> tuple[Generation, ...]:
        """`n` calls of the model."""
        turns = _turns(messages)
        return tuple(
            generation_of(self.llm.chat(turns, temperature=temperature), model=self.name) for _ in range(n)
        )

    async def asay(
        self,
        messages: Sequence[Message],
        *,
        n: int = 1,
        temperature: float = 0.0,
        max_tokens: int = 512,
        seed: int | None = None,
    ) -> tuple[Generation, ...]:
        """Async form of `say`, all calls at once."""
        turns = _turns(messages)
        said = await asyncio.gather(*(self.llm.achat(turns, temperature=temperature) for _ in range(n)))
        return tuple(generation_of(response, model=self.name) for response in said)


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


def _turns(messages: Sequence[Message]) -> list[ChatMessage]:
    return [ChatMessage(role=message.role, content=message.text) for message in messages]
