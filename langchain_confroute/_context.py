"""What was retrieved for a call: told by the caller, or left by a retrieving tool beside its answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage

from confroute.errors import RequestError
from confroute.types import Context

CONTEXT = "confroute_context"
_KEYS = frozenset({"question", "documents"})


def told(given: object) -> dict[str, Any]:
    """Question and context of a request, from `config["configurable"]["confroute_context"]`.

    Raises
    ------
    RequestError
        Not a mapping of a question (text) and documents (each a `Document`, a text, or a pair of one and its score).
    """
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not set(given) <= _KEYS:
        keys = sorted(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        msg = f"{CONTEXT} is {keys}: expected {{'question': str, 'documents': [...]}}"
        raise RequestError(msg)
    question, documents = given.get("question"), given.get("documents")
    if question is not None and not isinstance(question, str):
        msg = f"{CONTEXT}: question is a {type(question).__name__}: expected a str"
        raise RequestError(msg)
    return {"question": question, "context": None if documents is None else _context(documents)}


def found(messages: Sequence[BaseMessage]) -> Context | None:
    """Documents that tools returned beside their answers, as `artifact`, since the user last spoke."""
    documents: list[Any] = []
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        artifact = message.artifact if isinstance(message, ToolMessage) else None
        if isinstance(artifact, list) and artifact and all(isinstance(one, Document) for one in artifact):
            documents = artifact + documents
    return _context(documents) if documents else None


def _context(documents: object) -> Context:
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Sequence):
        msg = f"{CONTEXT}: documents is a {type(documents).__name__}: expected a list"
        raise RequestError(msg)
    pairs = [_pair(one) for one in documents]
    scores = tuple(score for _, score in pairs if score is not None)
    return Context(
        passages=tuple(text for text, _ in pairs),
        scores=scores if pairs and len(scores) == len(pairs) else None,
    )


def _pair(one: Any) -> tuple[str, float | None]:
    """Text and score; the form of `similarity_search_with_relevance_scores` is taken as it is."""
    given, score = one, None
    if isinstance(one, tuple) and len(one) == 2 and isinstance(one[1], (int, float)):
        given, score = one[0], float(one[1])
    text = given.page_content if isinstance(given, Document) else given
    if not isinstance(text, str):
        msg = (
            f"{CONTEXT}: a document is a {type(given).__name__}: "
            "expected a Document, a str, or a pair of one and its score"
        )
        raise RequestError(msg)
    return text, score
