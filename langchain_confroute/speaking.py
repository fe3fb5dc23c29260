"""A LangChain chat model as recorders, labellers and judges ask it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from confroute.models.one_by_one import OneByOne
from confroute.types import Generation, Message
from langchain_confroute._messages import to_generation
from langchain_confroute.local import ChatLocal


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSpeaker(OneByOne):
    """A LangChain chat model, or a runnable around one.

    Parameters
    ----------
    chat : Runnable
        Its own settings stay as they are, but the temperature, which is passed with each call. The longest answer is the
        model's own setting: providers call that parameter by many names.
    name : str
    remote : bool
        Whether text leaves this machine.
    """

    chat: Runnable[Any, Any]
    name: str
    remote: bool = True

    def one(self, messages: Sequence[Message], *, temperature: float, number: int) -> Generation:
        """One call of the model."""
        return to_generation(self.chat.invoke(_turns(messages), temperature=temperature))

    async def aone(self, messages: Sequence[Message], *, temperature: float, number: int) -> Generation:
        """Async form of `one`."""
        return to_generation(await self.chat.ainvoke(_turns(messages), temperature=temperature))


def speaker(chat: Runnable[Any, Any], *, remote: bool | None = None) -> ChatSpeaker:
    """Make a speaker of a chat model.

    Parameters
    ----------
    chat : Runnable
        A chat model, bound or not.
    remote : bool, optional
        Whether text leaves this machine; True where not given, but for `ChatLocal`.
    """
    inner: Any = chat
    while not isinstance(inner, BaseChatModel) and hasattr(inner, "bound"):
        inner = inner.bound
    named = (getattr(inner, key, None) for key in ("model_name", "model"))
    name = next((found for found in named if isinstance(found, str) and found), type(inner).__name__)
    return ChatSpeaker(
        chat=chat, name=name, remote=not isinstance(inner, ChatLocal) if remote is None else remote
    )


def _turns(messages: Sequence[Message]) -> list[tuple[str, str]]:
    return [(message.role, message.text) for message in messages]
