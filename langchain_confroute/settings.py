"""Which arguments of a call a model takes: the rest would be a TypeError, or an error of its provider, at every call."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import lru_cache
from typing import Any

from langchain_core.language_models import BaseChatModel

from confroute.errors import RequestError
from langchain_confroute import compat

# What LangChain and its agents pass to any chat model.
_ANYBODYS = frozenset({"stop", "tools", "tool_choice", "ls_structured_output_format"})
# By provider: settings of a call, and of a block of content, that no other takes.
_OWN_SETTINGS: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("cache_control",),
    "openai": ("prompt_cache_key", "prompt_cache_retention"),
}
_OF_A_PROVIDER = frozenset(name for names in _OWN_SETTINGS.values() for name in names)
# Names of the longest answer; Ollama's own is a field, and no argument.
MAX_TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens", "max_new_tokens", "num_predict")


def own_settings(
    kwargs: Mapping[str, Any], chat: BaseChatModel | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A call's arguments as a model takes them: as arguments, and as fields of a copy where it has those instead.

    What it takes in neither way is left out: it is another model's.
    """
    if not kwargs or chat is None:
        return dict(kwargs), {}
    passed, fields = {}, {}
    for name, value in kwargs.items():
        if _takes(chat, name):
            passed[name] = value
        elif (own := _field(chat, name)) is not None:
            fields[own] = value
    return passed, fields


def refuse_unknown(names: Collection[str], chats: Mapping[str, BaseChatModel | None]) -> None:
    """Refuse arguments that none of the models takes: left out everywhere, they would be missed by nobody.

    What middleware sets for one provider is never refused: it is set whatever the models are.

    Raises
    ------
    RequestError
    """
    for name in set(names) - _OF_A_PROVIDER:
        if not any(chat is None or _takes(chat, name) or _field(chat, name) for chat in chats.values()):
            models = " nor ".join(f"{tier} ({type(chat).__name__})" for tier, chat in chats.items())
            msg = f"{name}: neither {models} takes an argument of this name"
            raise RequestError(msg)


def _takes(chat: BaseChatModel, name: str) -> bool:
    provider = compat.provider_of(chat)
    if any(name in names for owner, names in _OWN_SETTINGS.items() if owner != provider):
        return False
    known = compat.arguments_of(type(chat))
    return known is None or name in known or name in _ANYBODYS or name in _bindable(type(chat).bind_tools)


def _field(chat: BaseChatModel, name: str) -> str | None:
    fields = type(chat).model_fields
    if name in _ANYBODYS or name in _OF_A_PROVIDER:
        return None
    names = MAX_TOKENS if name in MAX_TOKENS else (name,)
    return next((own for own in names if own in fields), None)


@lru_cache(maxsize=64)
def _bindable(method: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(method).parameters)
