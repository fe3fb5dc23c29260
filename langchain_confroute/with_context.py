"""`WithContext`: what a retrieval chain looked up, told to the routers in the rest of the chain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, TypeVar, cast

from langchain_core.messages import BaseMessage, HumanMessage
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.base import RunnableLike, coerce_to_runnable
from langchain_core.runnables.config import merge_configs
from langchain_core.runnables.utils import ConfigurableFieldSpec
from typing_extensions import override

from confroute.errors import RequestError
from confroute.hosts.options import PREFIX
from langchain_confroute.run import aclose, close

Out = TypeVar("Out")
_OPTION = f"{PREFIX}context"


class WithContext(Runnable[dict[str, Any], Out]):
    """The rest of a retrieval chain, whose routers see question and documents apart from the prompt.

    ``{"context": retriever, "question": RunnablePassthrough()} | prompt | model`` becomes
    ``{"context": retriever, "question": RunnablePassthrough()} | WithContext(prompt | model)``. Signals that look at what was
    retrieved (`ContextSupport`, `RetrievalScore`, `ContextLacks`) then work, and rules see the question alone as
    `Request.question`. Inputs and outputs are those of the rest, whole, in batches and in streams.

    Parameters
    ----------
    then : Runnable, function or mapping of those
        What comes after retrieval; every `ChatConfRoute` and `ConfidenceRouter` in it is told.
    question, documents : str
        Keys of the input: a text, a message or messages, whose last human one counts; and the documents: each a `Document`, a text, or a
        pair of one of these and its score; or all of them in one text.

    Notes
    -----
    The input is handed on as it came. A caller's own ``confroute_context`` in the config counts instead. A document's score is only
    known where it comes in a pair.

    Examples
    --------
    >>> from confroute import Cascade, ContextSupport
    >>> from langchain_confroute import ChatConfRoute
    >>> from langchain_confroute.testing import ScriptedChat
    >>> from langchain_core.prompts import ChatPromptTemplate
    >>> from langchain_core.runnables import RunnablePassthrough
    >>> small, large = ScriptedChat.of("At ten.", name="small"), ScriptedChat.of("At 07:30.", name="large")
    >>> model = ChatConfRoute(edge=small, cloud=large, policy=Cascade.of(ContextSupport(), 0.3))
    >>> prompt = ChatPromptTemplate.from_template("{context} {question}")
    >>> found = {"context": lambda _: ["The Heron leaves at 07:30."], "question": RunnablePassthrough()}
    >>> (found | WithContext(prompt | model)).invoke("When does the Heron leave?").text
    'At 07:30.'
    """

    def __init__(
        self,
        then: RunnableLike[dict[str, Any], Out],
        *,
        question: str = "question",
        documents: str = "context",
    ) -> None:
        self.then: Runnable[dict[str, Any], Out] = coerce_to_runnable(cast("Any", then))
        self.question, self.documents = question, documents

    @property
    @override
    def config_specs(self) -> list[ConfigurableFieldSpec]:
        return self.then.config_specs

    @override
    def invoke(self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any) -> Out:
        return self.then.invoke(input, self._told(input, config), **kwargs)

    @override
    async def ainvoke(
        self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Out:
        return await self.then.ainvoke(input, self._told(input, config), **kwargs)

    @override
    def stream(
        self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Out]:
        chunks = self.then.stream(input, self._told(input, config), **kwargs)
        try:
            yield from chunks
        finally:
            close(chunks)

    @override
    async def astream(
        self, input: dict[str, Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Out]:
        chunks = self.then.astream(input, self._told(input, config), **kwargs)
        try:
            async for chunk in chunks:
                yield chunk
        finally:
            await aclose(chunks)

    def _told(self, given: object, config: RunnableConfig | None) -> RunnableConfig:
        told = (config or {}).get("configurable") or {}
        if told.get(_OPTION) is not None:
            return cast("RunnableConfig", config)
        keys = (self.question, self.documents)
        if not isinstance(given, Mapping) or not all(key in given for key in keys):
            # Names only: the values are the caller's texts.
            kind = f"has {', '.join(map(str, given))}" if isinstance(given, Mapping) else type(given).__name__
            msg = (
                f"the input of WithContext {kind}: expected a dictionary with {keys[0]!r} and {keys[1]!r}; name other keys with "
                "question= and documents="
            )
            raise RequestError(msg)
        documents = given[self.documents]
        context = {
            "question": _text(given[self.question], self.question),
            "documents": [documents] if isinstance(documents, str) else documents,
        }
        return merge_configs(config, {"configurable": {_OPTION: context}})


def _text(question: object, key: str) -> str:
    """The words of a question: of a conversation those of its last human message."""
    if isinstance(question, str):
        return question
    messages = question if isinstance(question, (list, tuple)) else [question]
    said = [one for one in messages if isinstance(one, BaseMessage)]
    human = [one for one in said if isinstance(one, HumanMessage)] or said
    if not human:
        msg = f"{key} of WithContext is a {type(question).__name__}: expected a text, a message or messages"
        raise RequestError(msg)
    return str(human[-1].text)
