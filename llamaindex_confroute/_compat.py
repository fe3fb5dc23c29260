"""The host's API that is not public, all of it, as of llama-index-core 0.14."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine.condense_plus_context import DEFAULT_CONDENSE_PROMPT_TEMPLATE
from llama_index.core.llms.llm import LLM
from llama_index.core.retrievers.fusion_retriever import QUERY_GEN_PROMPT
from llama_index_instrumentation import root_dispatcher
from llama_index_instrumentation.dispatcher import active_instrument_tags
from llama_index_instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.span import active_span_id

F = TypeVar("F", bound=Callable[..., Any])


def unspanned(function: F) -> F:
    """Keep the host from opening a span for an override of a method that opens one itself.

    Its span mixin wraps every override of a method with a span; calling `super()` from there would give two spans
    of one name, one in the other.
    """
    function.__dispatcher_span_decorated__ = True  # type: ignore[attr-defined]  # the host's own mark
    return function


def tags() -> Mapping[str, Any]:
    """Return what the user set by `instrument_tags`."""
    return active_instrument_tags.get()


def span_id() -> str | None:
    """Return the span that is open here."""
    return active_span_id.get()


def with_system_prompt(llm: LLM, messages: list[ChatMessage]) -> list[ChatMessage]:
    """Put the LLM's own system prompt before `messages`, as its `predict` does."""
    return llm._extend_messages(messages)


def completion_heads() -> Mapping[str, str]:
    """How the prompts begin that the host fills in itself and sends to `complete`, and what they are for."""
    return {
        DEFAULT_CONDENSE_PROMPT_TEMPLATE.lstrip().split("{", 1)[0]: "condense",
        QUERY_GEN_PROMPT.lstrip().split("{", 1)[0]: "query_gen",
    }


def listen(handler: BaseEventHandler) -> None:
    """Let `handler` see every event of the host, once."""
    if handler not in root_dispatcher.event_handlers:
        root_dispatcher.add_event_handler(handler)
