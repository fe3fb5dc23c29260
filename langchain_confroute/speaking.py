"""A LangChain chat model as recorders, labellers and judges ask it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.runnables import Runnable

from confroute.types import Generation, Message
from langchain_confroute._messages import to_generation
from langchain_confroute.local import ChatLocal


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatSpeaker:
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
        return tuple(to_generation(self.chat.invoke(turns, temperature=temperature)) for _ in range(n))

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
        said = await asyncio.gather(*(self.chat.ainvoke(turns, temperature=temperature) for _ in range(n)))
        return tuple(to_generation(message) for message in said)


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
