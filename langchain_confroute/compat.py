"""Everything that leans on LangChain's or LangGraph's private parts, so that a new version breaks one file."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from inspect import signature
from typing import Any, TypeAlias, TypeVar, cast

from langchain_core.callbacks import (
    AsyncCallbackHandler,
    AsyncCallbackManagerForLLMRun,
    BaseCallbackHandler,
    CallbackManagerForLLMRun,
)
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.output_parsers.format_instructions import JSON_FORMAT_INSTRUCTIONS
from langchain_core.output_parsers.pydantic import _PYDANTIC_FORMAT_INSTRUCTIONS
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk
from langchain_core.tracers._streaming import _StreamingCallbackHandler
from langchain_core.tracers.base import AsyncBaseTracer, BaseTracer

import confroute
from confroute.models.provider_answers import read_answer_usage

M = TypeVar("M", bound=BaseChatModel)
StreamingHandler = _StreamingCallbackHandler
# The host's signatures are long, and overridden often.
Stop: TypeAlias = list[str] | None
Manager: TypeAlias = CallbackManagerForLLMRun | None
AsyncManager: TypeAlias = AsyncCallbackManagerForLLMRun | None


JSON_FORMS = tuple(
    ("\n".join(head.rsplit("\n", 3)[1:]), tail)
    for head, tail in (
        text.format(schema="\0").split("\0")
        for text in (JSON_FORMAT_INSTRUCTIONS, _PYDANTIC_FORMAT_INSTRUCTIONS)
    )
)
"""The last words that the host's own JSON parsers write before the schema of an answer, and those behind it."""


def fresh(model: M, update: Mapping[str, Any]) -> M:
    """A shallow copy of `model` with other fields and a cache key of its own.

    `model_copy` keeps the cached `_serialized`, from which LangChain builds the key of its answer cache: a copy at
    another temperature would be handed the original's answers.
    """
    copy = model.model_copy(update=dict(update))
    vars(copy).pop("_serialized", None)
    return copy


# Where LangGraph keeps the `Runtime` of a run; `langgraph.runtime.get_runtime` fails outside of one.
_RUNTIME = "__pregel_runtime"
# Says to routers inside a router that the run's context is about the outer one. LangChain copies no name that begins like this.
_INSIDE = "__confroute_inside"


def runtime_context(configurable: Mapping[str, Any]) -> Any:
    """The context that a LangGraph run was given (`Runtime.context`), unless it is about a router around this call; None without."""
    return None if _INSIDE in configurable else getattr(configurable.get(_RUNTIME), "context", None)


def used_up(configurable: Mapping[str, Any]) -> dict[str, Any]:
    """The same for calls below a router that has read it."""
    inside = {_INSIDE: True} if _RUNTIME in configurable else {}
    return {**configurable, **inside}


@lru_cache(maxsize=1)
def _version() -> str:
    return str(confroute.__version__)


def versions() -> dict[str, Any]:
    """What stands in the metadata of traces."""
    return {"lc_versions": {"confroute": _version()}}


def add_version(model: BaseChatModel) -> None:
    """Add it to a chat model's, where this version of LangChain has a place for it."""
    add = getattr(model, "_add_version", None)
    if add is not None:
        add("confroute", _version())


# What OpenAI's Responses API is asked by, and where its answers can carry what the integration would drop: of a response it
# keeps the user's own metadata. Of the parts of a stream it keeps the text alone, so these come with the end of it.
SCORES = "message.output_text.logprobs"
_CARRIER = "metadata"


def uses_responses(model: object, arguments: Mapping[str, Any]) -> bool:
    """Whether a call with these arguments bound goes to OpenAI's Responses API."""
    decides = getattr(model, "_use_responses_api", None)
    return bool(callable(decides) and decides(dict(arguments)))


def scored_responses(model: BaseChatModel) -> dict[str, Any]:
    """The fields of a copy of `model` whose answers carry their log-probabilities; see `lifted`.

    The integration reads no log-probabilities of the Responses API, so the copy's clients write them where it reads.
    """
    clients = {name: getattr(model, name, None) for name in ("root_client", "root_async_client")}
    return {name: _carrying(client) for name, client in clients.items() if client is not None}


_OPENAI = "https://api.openai.com/"


_CHATS = (("root_client", "client"), ("root_async_client", "async_client"))


def bills_apart(model: object) -> bool:
    """Whether a model's server may tell cached tokens where the integration does not read them.

    Of a stream's bill it reads OpenAI's own names alone; other servers of OpenAI's format have names of their own.
    """
    at = [str(client.base_url) for client, _ in _clients(model)]
    return any(not url.startswith(_OPENAI) for url in at)


def _clients(model: object) -> Iterator[tuple[Any, tuple[str, str]]]:
    """OpenAI's own clients of a model, each with the names of the fields that hold it and its chat.

    One of another kind is left as it is, and so is whatever the user put in the place of a client's chat.
    """
    for names in _CHATS:
        client, chat = (getattr(model, name, None) for name in names)
        own = getattr(getattr(client, "chat", None), "completions", None)
        if own is not None and chat is own and type(client).__module__.startswith("openai"):
            yield client, names


def with_whole_bills(model: M, update: Mapping[str, Any]) -> M:
    """A `fresh` copy whose answers tell their cached tokens where the integration reads them."""
    clients: dict[str, Any] = {}
    for client, (root, chat) in _clients(model) if bills_apart(model) else ():
        clients[root] = copy = _billing(client)
        clients[chat] = copy.chat.completions
    return fresh(model, {**clients, **update})


def _billing(client: Any) -> Any:
    from openai import OpenAI
    from openai.resources.chat.completions import AsyncCompletions, Completions

    class Billing(Completions):
        def create(self, **request: Any) -> Any:
            return _written(super().create(**request), _write_bill)

    class AsyncBilling(AsyncCompletions):
        async def create(self, **request: Any) -> Any:
            return _written(await super().create(**request), _write_bill)

    copy: Any = client.copy()
    copy.chat.completions = (Billing if isinstance(client, OpenAI) else AsyncBilling)(copy)
    return copy


def _write_bill(event: Any) -> Any:
    """The same chunk; cached tokens stand in its bill under OpenAI's name as well."""
    bill: Any = getattr(event, "usage", None)
    billed = read_answer_usage(event)
    if bill is not None and billed is not None and billed.cached_tokens:
        from openai.types.completion_usage import PromptTokensDetails

        details = bill.prompt_tokens_details or PromptTokensDetails()
        bill.prompt_tokens_details = details.model_copy(update={"cached_tokens": billed.cached_tokens})
    return event


def _carrying(client: Any) -> Any:
    from openai import AsyncOpenAI, OpenAI
    from openai.resources.responses import AsyncResponses, Responses

    # A client of another kind stays as it is: its answers have no evidence, as those of any model that gives none.
    if not isinstance(client, (OpenAI, AsyncOpenAI)):
        return client

    class Carrying(Responses):
        def create(self, **request: Any) -> Any:
            return _written(super().create(**request), _write_scores)

        def parse(self, **request: Any) -> Any:
            return _written(super().parse(**request), _write_scores)

    class AsyncCarrying(AsyncResponses):
        async def create(self, **request: Any) -> Any:
            return _written(await super().create(**request), _write_scores)

        async def parse(self, **request: Any) -> Any:
            return _written(await super().parse(**request), _write_scores)

    copy: Any = client.copy()
    copy.responses = (Carrying if isinstance(client, OpenAI) else AsyncCarrying)(copy)
    return copy


def _written(answer: Any, write: Callable[[Any], Any]) -> Any:
    """An answer of OpenAI's client, whole, raw or as a stream, with what `write` adds to it or to each event."""
    parsed = answer.parse() if hasattr(answer, "parse") else answer
    if hasattr(parsed, "_iterator"):
        events = parsed._iterator
        parsed._iterator = _awritten(events, write) if hasattr(events, "__anext__") else map(write, events)
    else:
        write(parsed)
    return answer


async def _awritten(events: Any, write: Callable[[Any], Any]) -> AsyncIterator[Any]:
    async for event in events:
        yield write(event)


def _write_scores(event: Any) -> Any:
    """The same response or event; that which ends a stream holds the whole response."""
    response = getattr(event, "response", event)
    blocks = [
        block for item in getattr(response, "output", ()) for block in getattr(item, "content", None) or ()
    ]
    scores = [
        one.model_dump(mode="json") for block in blocks for one in getattr(block, "logprobs", None) or ()
    ]
    if scores:
        response.metadata = {**(response.metadata or {}), SCORES: scores}
    return event


def lifted(message: Any) -> Any:
    """An answer, or a chunk of one, with the log-probabilities that it carries where every other answer has them."""
    metadata = getattr(message, "response_metadata", None) or {}
    carried = metadata.get(_CARRIER)
    if not isinstance(carried, Mapping) or SCORES not in carried:
        return message
    own = {name: value for name, value in carried.items() if name != SCORES}
    return message.model_copy(
        update={"response_metadata": {**metadata, _CARRIER: own, "logprobs": {"content": carried[SCORES]}}}
    )


# Classes whose answers name another provider than their traces do.
_PROVIDERS = {"BaseChatOpenAI": "openai", "ChatAnthropic": "anthropic", "ChatOllama": "ollama"}


def provider_of(model: BaseChatModel) -> str | None:
    """Whom a model's answers name as `model_provider`."""
    # By name: importing every provider's package to ask would cost, and most are not installed.
    named = next(
        (_PROVIDERS[base.__name__] for base in type(model).__mro__ if base.__name__ in _PROVIDERS), None
    )
    return named or model._get_ls_params().get("ls_provider")


@lru_cache(maxsize=64)
def arguments_of(kind: type[BaseChatModel]) -> frozenset[str] | None:
    """The arguments of a call that a class of LangChain's own takes: those of its provider's client, and the few that it reads itself.

    None where they are not known: of a class that is derived from one of these, or of any other provider's.
    """
    where = (kind.__module__.partition(".")[0], kind.__name__)
    clients: list[Any] = []
    own: tuple[str, ...] = ()
    if where == ("langchain_ollama", "ChatOllama"):
        from ollama import Client

        clients, own = [Client.chat], ("reasoning", "response_format", "strict")
    elif where[0] == "langchain_openai":
        from openai.resources.chat.completions import Completions
        from openai.resources.responses import Responses

        clients, own = [Completions.create, Responses.create], ("stream_usage", "strict")
    elif where == ("langchain_anthropic", "ChatAnthropic"):
        from anthropic.resources.beta.messages import Messages as Beta
        from anthropic.resources.messages import Messages

        clients = [Messages.create, Beta.create]
        own = ("effort", "reasoning_effort", "response_format", "output_format", "strict")
    if not clients:
        return None
    return frozenset(name for call in clients for name in signature(call).parameters).union(own)


def streams(model: BaseChatModel) -> bool:
    """Whether a model's class has a stream of its own."""
    own = type(model)
    return own._stream is not BaseChatModel._stream or own._astream is not BaseChatModel._astream


class SilentModel:
    """A chat model and the arguments bound around it, called without runs of its own.

    `invoke` would report to global handlers even with `callbacks=[]`. Its methods are called as a Runnable's.
    """

    __slots__ = ("_bound", "_chat")

    def __init__(self, chat: BaseChatModel, bound: Mapping[str, Any]) -> None:
        self._chat, self._bound = chat, bound

    def invoke(self, messages: list[BaseMessage], config: object, **kwargs: Any) -> AIMessage:
        """One answer."""
        result = self._chat._generate_with_cache(messages, run_manager=None, **self._arguments(kwargs))
        return cast("AIMessage", result.generations[0].message)

    async def ainvoke(self, messages: list[BaseMessage], config: object, **kwargs: Any) -> AIMessage:
        """Async form of `invoke`."""
        result = await self._chat._agenerate_with_cache(messages, run_manager=None, **self._arguments(kwargs))
        return cast("AIMessage", result.generations[0].message)

    def stream(self, messages: list[BaseMessage], config: object, **kwargs: Any) -> Iterator[AIMessage]:
        """An answer in chunks, in one piece where the model cannot stream."""
        if type(self._chat)._stream is BaseChatModel._stream:
            yield self.invoke(messages, config, **kwargs)
            return
        for chunk in self._chat._stream(messages, **self._arguments(kwargs)):
            yield _with_info(chunk)

    async def astream(
        self, messages: list[BaseMessage], config: object, **kwargs: Any
    ) -> AsyncIterator[AIMessage]:
        """Async form of `stream`."""
        own = type(self._chat)
        if own._astream is BaseChatModel._astream and own._stream is BaseChatModel._stream:
            yield await self.ainvoke(messages, config, **kwargs)
            return
        async for chunk in self._chat._astream(messages, **self._arguments(kwargs)):
            yield _with_info(chunk)

    def _arguments(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        messages = {"stop": None, **self._bound, **kwargs}
        # For tracing only; `invoke` takes it off before it calls the model.
        messages.pop("ls_structured_output_format", None)
        return messages


def _with_info(chunk: ChatGenerationChunk) -> AIMessageChunk:
    message = cast("AIMessageChunk", chunk.message)
    if not chunk.generation_info:
        return message
    metadata = {**chunk.generation_info, **message.response_metadata}
    return message.model_copy(update={"response_metadata": metadata})


# Handlers that do nothing with tokens, or only write them into a trace.
_PLAIN_HANDLERS = (BaseCallbackHandler, AsyncCallbackHandler, BaseTracer, AsyncBaseTracer)


def shows_tokens(handler: BaseCallbackHandler) -> bool:
    """Whether a handler does something with an answer's tokens as they come."""
    if isinstance(handler, StreamingHandler):
        return True
    return any(
        getattr(type(handler), event, None) not in [getattr(plain, event, None) for plain in _PLAIN_HANDLERS]
        for event in ("on_llm_new_token", "on_stream_event")
    )


# Where LangGraph keeps, among a call's `configurable`, what the graphs inside a graph stream to.
GRAPH_STREAMS = ("__pregel_stream",)


def shows_messages_of_graphs(handler: object) -> bool:
    """Whether a handler is LangGraph's, which shows whatever messages a graph's nodes return."""
    # By name: LangGraph has it in a private module, and it may not be installed.
    return any(base.__name__ == "StreamMessagesHandler" for base in type(handler).__mro__)


def bubble_ups() -> tuple[type[Exception], ...]:
    """LangGraph's control-flow exceptions; none where LangGraph is not loaded, since none can then be raised."""
    errors = sys.modules.get("langgraph.errors")
    return () if errors is None else (errors.GraphBubbleUp,)


def graph_writer() -> Callable[[Any], None] | None:
    """The custom stream of the LangGraph run around this call, if there is one."""
    config = sys.modules.get("langgraph.config")
    if config is None:
        return None
    try:
        writer: Callable[[Any], None] = config.get_stream_writer()
    except (RuntimeError, KeyError):
        return None
    return writer


def first_messages(results: Sequence[Sequence[Any]]) -> list[AIMessage]:
    """The messages of the first prompt of a `generate` result."""
    return [cast("AIMessage", answer.message) for answer in results[0] if isinstance(answer, ChatGeneration)]


def is_configurable(model: object) -> bool:
    """Whether a model is that of `init_chat_model(configurable_fields=...)`, which is made anew at every call."""
    # By name: it is private, and its package may not be installed.
    return type(model).__name__ == "_ConfigurableModel"
