"""What the retriever found, with its scores: LlamaIndex puts only the texts into the prompt."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.schema import MetadataMode
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.event_handlers import BaseEventHandler

from confroute.types import Context
from llamaindex_confroute._prompts import Asked

_found: ContextVar[tuple[tuple[str, float | None], ...]] = ContextVar(
    "llamaindex_confroute_found", default=()
)


class Retrieving(BaseEventHandler):
    """Keeps what was retrieved last, in each task and thread apart."""

    @classmethod
    def class_name(cls) -> str:
        return "ConfRouteRetrieving"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, RetrievalEndEvent):
            nodes = [(one.node.get_content(MetadataMode.NONE).strip(), one.score) for one in event.nodes]
            _found.set(tuple(nodes))


RETRIEVING = Retrieving()


def context_of(asked: Asked) -> Context | None:
    """The context of a call, passage by passage where it is known what was retrieved for it.

    A passage counts only if it stands in the prompt: what an earlier query found, or what a postprocessor dropped, is
    no evidence for this answer.
    """
    if asked.context is None:
        return None
    text = asked.context.strip()
    here = [(passage, score) for passage, score in _found.get() if passage and _in(passage, text)]
    if not here:
        return Context(passages=(text,), existing_answer=asked.existing_answer)
    scores = tuple(score for _, score in here if score is not None)
    return Context(
        passages=tuple(passage for passage, _ in here),
        scores=scores if len(scores) == len(here) else None,
        existing_answer=asked.existing_answer,
    )


def _in(passage: str, text: str) -> bool:
    """Whether a passage is in the prompt; a long one may have been cut to fit, and then the prompt is in it."""
    return passage in text or text in passage
