"""What a call is about: the parts of its template, the passages that were retrieved for it, and the answer it goes on from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore
from llama_index.core.types import BaseOutputParser
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.event_handlers import BaseEventHandler

from confroute.types import Context
from llamaindex_confroute import compat

_CONTEXT_KEYS = ("context_str", "context_msg")
# A synthesis refines the answer just given: far fewer than this are under way at once.
_REMEMBERED_ANSWERS = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptParts:
    """What a call asks, as far as its template says so.

    Attributes
    ----------
    question : str or None
    context : str or None
        Retrieved text, as it stands in the prompt.
    existing_answer : str or None
    purpose : str or None
        LlamaIndex's prompt type, or what the template's variables tell of it.
    parsers : tuple of BaseOutputParser
        By which the answer is read once it is there.
    """

    question: str | None = field(default=None, repr=False)
    context: str | None = field(default=None, repr=False)
    existing_answer: str | None = field(default=None, repr=False)
    purpose: str | None = None
    parsers: tuple[BaseOutputParser, ...] = ()


NO_PARTS = PromptParts()
_parts: ContextVar[PromptParts] = ContextVar("llamaindex_confroute_parts", default=NO_PARTS)
_passages: ContextVar[tuple[tuple[str, float | None], ...]] = ContextVar(
    "llamaindex_confroute_passages", default=()
)


def current_parts() -> PromptParts:
    """What the template said that the call at hand comes from."""
    return _parts.get()


@contextmanager
def with_parts(parts: PromptParts) -> Generator[None, None, None]:
    """Make the parts of a filled template known to the `chat` that it ends in."""
    token = _parts.set(parts)
    try:
        yield
    finally:
        _parts.reset(token)


def parts_of(
    prompt: BasePromptTemplate, args: Mapping[str, Any], parser: BaseOutputParser | None = None
) -> PromptParts:
    """The parts of a template and its arguments, partial ones included; `parser` is the LLM's own."""
    given = {**prompt.kwargs, **args}
    context = next((text for key in _CONTEXT_KEYS if (text := _text(given.get(key)))), None)
    return PromptParts(
        question=_text(given.get("query_str")),
        context=context,
        existing_answer=_text(given.get("existing_answer")),
        purpose=_purpose(prompt, given),
        parsers=tuple(one for one in (prompt.output_parser, parser) if one is not None),
    )


def parts_of_text(prompt: object) -> PromptParts:
    """The purpose of a text that a chat engine or retriever of LlamaIndex filled in before it called `complete`."""
    if not isinstance(prompt, str):
        return NO_PARTS
    start = prompt.lstrip()
    heads = compat.completion_heads()
    return PromptParts(
        purpose=next((purpose for head, purpose in heads.items() if start.startswith(head)), None)
    )


def _purpose(prompt: BasePromptTemplate, given: Mapping[str, Any]) -> str | None:
    kind = prompt.metadata.get("prompt_type")
    # An enumeration of strings, or a string of the user's own.
    purpose = getattr(kind, "value", kind)
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


class _RetrievalListener(BaseEventHandler):
    """Keeps what was retrieved last, with its scores, in each task and thread apart: prompts hold only the texts."""

    @classmethod
    def class_name(cls) -> str:
        return "ConfRouteRetrieving"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, RetrievalEndEvent):
            _passages.set(tuple((_content(one.node), one.score) for one in event.nodes))


RETRIEVAL = _RetrievalListener()


def context_of(parts: PromptParts) -> Context | None:
    """The context of a call, passage by passage where it is known what was retrieved for it.

    A passage counts only if it stands in the prompt: what an earlier query found, or what a postprocessor dropped, is
    not evidence for this answer.
    """
    if parts.context is None:
        return None
    text = parts.context.strip()
    # A long passage may have been cut to fit, and then the prompt is in it.
    here = [(one, score) for one, score in _passages.get() if one and (one in text or text in one)]
    if not here:
        return Context(passages=(text,), existing_answer=parts.existing_answer)
    scores = tuple(score for _, score in here if score is not None)
    return Context(
        passages=tuple(passage for passage, _ in here),
        scores=scores if len(scores) == len(here) else None,
        existing_answer=parts.existing_answer,
    )


def read_node(document: object) -> tuple[str, float | None] | None:
    """The text and score of a node that a caller gives as context; None for anything else."""
    if isinstance(document, NodeWithScore):
        return _content(document.node), document.score
    return (_content(document), None) if isinstance(document, BaseNode) else None


def _content(node: BaseNode) -> str:
    return node.get_content(MetadataMode.NONE).strip()


class Lineage:
    """The tiers of the last answers, by question and answer; neither text is kept.

    The host's synthesizers say nothing of one call to the next but the answer itself, which comes back as the "existing
    answer". So the steps of one synthesis are found by it, in threads, tasks and lazily read streams alike.
    """

    def __init__(self) -> None:
        self._tiers: OrderedDict[bytes, str] = OrderedDict()

    def note(self, question: str, answer: str, tier: str) -> None:
        """Keep who answered."""
        self._tiers[_key(question, answer)] = tier
        while len(self._tiers) > _REMEMBERED_ANSWERS:
            self._tiers.popitem(last=False)

    def tier_of(self, question: str | None, answer: str | None) -> str | None:
        """Who gave this answer to this question, if it was given here and not long ago."""
        if question is None or answer is None:
            return None
        return self._tiers.get(_key(question, answer))


def _key(question: str, answer: str) -> bytes:
    text = f"{question.strip()}\0{answer.strip()}"
    return blake2b(text.encode("utf-8", "replace"), digest_size=16).digest()
