"""The parts of a filled template, kept apart: question, context, existing answer, and what the call is for."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from llama_index.core.prompts import BasePromptTemplate

from llamaindex_confroute import _compat

_CONTEXT_KEYS = ("context_str", "context_msg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a call asks, as far as its template says so.

    Attributes
    ----------
    question : str or None
    context : str or None
        Retrieved text, as it stands in the prompt.
    existing_answer : str or None
    purpose : str or None
        LlamaIndex's prompt type, or what the template's variables tell of it.
    """

    question: str | None = None
    context: str | None = None
    existing_answer: str | None = None
    purpose: str | None = None


NOTHING = Asked()
_asked: ContextVar[Asked] = ContextVar("llamaindex_confroute_asked", default=NOTHING)


def asked() -> Asked:
    """What the template said that the call at hand comes from."""
    return _asked.get()


@contextmanager
def asking(parts: Asked) -> Generator[None, None, None]:
    """Make the parts of a filled template known to the `chat` that it ends in."""
    token = _asked.set(parts)
    try:
        yield
    finally:
        _asked.reset(token)


def parts_of(prompt: BasePromptTemplate, args: Mapping[str, Any]) -> Asked:
    """The parts of a template and its arguments, partial ones included."""
    given = {**prompt.kwargs, **args}
    context = next((text for key in _CONTEXT_KEYS if (text := _text(given.get(key)))), None)
    return Asked(
        question=_text(given.get("query_str")),
        context=context,
        existing_answer=_text(given.get("existing_answer")),
        purpose=_purpose(prompt, given),
    )


def parts_of_text(prompt: object) -> Asked:
    """The purpose of a text that a chat engine or retriever of LlamaIndex filled in before it called `complete`."""
    if not isinstance(prompt, str):
        return NOTHING
    start = prompt.lstrip()
    heads = _compat.completion_heads()
    return Asked(purpose=next((purpose for head, purpose in heads.items() if start.startswith(head)), None))


def _purpose(prompt: BasePromptTemplate, given: Mapping[str, Any]) -> str | None:
    said = prompt.metadata.get("prompt_type")
    # An enumeration of strings, or a string of the user's own.
    purpose = getattr(said, "value", said)
    if isinstance(purpose, str) and purpose != "custom":
        return purpose
    # Chat engines, and templates after selection, say "custom": their variables tell what they are for.
    if "existing_answer" in given:
        return "refine"
    if any(key in given for key in _CONTEXT_KEYS) and "query_str" in given:
        return "text_qa"
    return "condense" if {"chat_history", "question"} <= set(given) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value.strip() else None
