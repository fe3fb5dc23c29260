"""What handlers see of an answer that may be thrown away: its run, and its tokens only once it is the router's answer.

A handler that shows tokens (a user interface, `astream_events`, LangGraph's message stream) cannot take them back. Models report
tokens while an answer is still a draft, some (ChatOllama) even where they were told not to stream.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias, cast

from langchain_core.callbacks import BaseCallbackHandler, BaseCallbackManager
from langchain_core.callbacks.manager import ahandle_event, handle_event
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, LLMResult
from langchain_core.runnables import RunnableConfig

from langchain_confroute.compat import GRAPH_STREAMS, StreamingHandler, shows_messages_of_graphs, shows_tokens
from langchain_confroute.messages import in_chunks

# An event of a handler: its name, its arguments.
Event: TypeAlias = "tuple[str, tuple[Any, ...], dict[str, Any]]"
_TOKENS = ("on_llm_new_token", "on_stream_event")


class Gate:
    """Stands between the handlers and the runs of one answer.

    Parameters
    ----------
    holds : bool
        Whether the answer may become the router's, so that its tokens may be shown later.
    streamed : bool
        Whether the answer is read in chunks, and may be settled before its last.
    """

    __slots__ = ("_behind", "answers", "holds", "opened", "streamed")

    def __init__(self, *, holds: bool, streamed: bool = False) -> None:
        self.holds, self.streamed, self.opened = holds, streamed, False
        self.answers: tuple[Any, ...] = ()
        self._behind: list[_Behind] = []

    def config(self, config: RunnableConfig) -> RunnableConfig:
        """The config with its handlers behind this gate, and without the stream of a graph around the call."""
        callbacks: Any = config.get("callbacks")
        shown = [name for name in GRAPH_STREAMS if name in (config.get("configurable") or {})]
        if not shown and not (
            callbacks.handlers if isinstance(callbacks, BaseCallbackManager) else callbacks
        ):
            return config
        kept = {n: value for n, value in (config.get("configurable") or {}).items() if n not in shown}
        return cast(
            "RunnableConfig", {**config, "configurable": kept, "callbacks": self.callbacks(callbacks)}
        )

    def callbacks(self, callbacks: Any) -> Any:
        """A list or manager of handlers, behind this gate."""
        if not isinstance(callbacks, BaseCallbackManager):
            return self._all(callbacks or ())
        manager = callbacks.copy()
        manager.handlers = self._all(manager.handlers)
        manager.inheritable_handlers = self._all(manager.inheritable_handlers)
        return manager

    def _all(self, handlers: Sequence[BaseCallbackHandler]) -> list[Any]:
        return [self._one(handler) for handler in handlers if not shows_messages_of_graphs(handler)]

    def _one(self, handler: Any) -> Any:
        if not (isinstance(handler, _Behind) or shows_tokens(handler)):
            return handler
        known = next((one for one in self._behind if one == handler), None)
        if known is None:
            self._behind.append(known := _Behind(handler, self))
        return known

    def release(self, *, kept: bool, streaming: bool) -> None:
        """Report what was held back, with the tokens if the answer was kept; `streaming`: whether the caller reads a stream."""
        for handler, (name, args, kwargs) in self._due(kept, streaming):
            handle_event([handler], name, None, *args, **kwargs)

    async def arelease(self, *, kept: bool, streaming: bool) -> None:
        """Async form of `release`."""
        for handler, (name, args, kwargs) in self._due(kept, streaming):
            await ahandle_event([handler], name, None, *args, **kwargs)

    def _due(self, kept: bool, streaming: bool) -> list[tuple[Any, Event]]:
        return [(one.handler, event) for one in self._behind for event in one.last(kept, streaming)]


class _Behind:
    """A handler behind a gate; it passes on everything but tokens, and the end of a run that they have to come before."""

    def __init__(self, handler: Any, gate: Gate) -> None:
        self.handler, self._gate = handler, gate
        # Handlers that follow runs would refuse tokens after a run's end.
        self.streams = isinstance(handler, StreamingHandler) or getattr(handler, "streams", False)
        self._tokens: dict[Any, list[Event]] = {}
        self._ends: dict[Any, Event] = {}
        self._silent: set[Any] = set()

    def __getattr__(self, name: str) -> Any:
        # Without these LangChain does not take it for a handler that wants models to stream.
        if name.startswith("tap_output_"):
            raise AttributeError(name)
        return getattr(self.handler, name)

    # A handler is added to a run once, behind a gate or not.

    def __eq__(self, other: object) -> bool:
        return self is other or self.handler == (other.handler if isinstance(other, _Behind) else other)

    def __hash__(self) -> int:
        return hash(self.handler)

    @property
    def on_llm_new_token(self) -> Callable[..., Any]:
        return self._filtered("on_llm_new_token")

    @property
    def on_stream_event(self) -> Callable[..., Any]:
        return self._filtered("on_stream_event")

    @property
    def on_llm_end(self) -> Callable[..., Any]:
        return self._filtered("on_llm_end")

    def _filtered(self, name: str) -> Callable[..., Any]:
        handle = getattr(self.handler, name)

        def event(*args: Any, **kwargs: Any) -> None:
            for due, given, named in self._passing((name, args, kwargs)):
                getattr(self.handler, due)(*given, **named)

        async def aevent(*args: Any, **kwargs: Any) -> None:
            for due, given, named in self._passing((name, args, kwargs)):
                await getattr(self.handler, due)(*given, **named)

        return aevent if inspect.iscoroutinefunction(handle) else event

    def _passing(self, event: Event) -> list[Event]:
        """What the handler is told at this event."""
        name, _, kwargs = event
        run, gate = kwargs.get("run_id"), self._gate
        if gate.opened:
            return [*self._tokens.pop(run, ()), event]
        if name in _TOKENS:
            if gate.streamed:
                self._tokens.setdefault(run, []).append(event)
            return []
        if not gate.holds:
            return [event]
        self._ends[run] = event
        return [] if self.streams else [event]

    def silence(self, run: Any) -> None:
        """Never report tokens of a run: a router inside this answer threw it away."""
        self._silent.add(run)

    def last(self, kept: bool, streaming: bool) -> Iterator[Event]:
        """What is left to tell the handler once the answer is kept or thrown away."""
        for run, end in self._ends.items():
            kept_run = kept and run not in self._silent
            if kept_run and (self.streams or streaming):
                yield from self._tokens.get(run) or _tokens_of(end)
            elif not kept_run and isinstance(self.handler, _Behind):
                self.handler.silence(run)
            if self.streams:
                yield end
        self._ends, self._tokens = {}, {}


def _tokens_of(end: Event) -> Iterator[Event]:
    """The answer at a run's end, as the tokens that a model which streams would have reported."""
    _, (response, *_), kwargs = end
    answer = _first(response)
    about: Mapping[str, Any] = {name: kwargs.get(name) for name in ("run_id", "parent_run_id", "tags")}
    for chunk in in_chunks(cast("Any", answer.message)) if answer is not None else ():
        yield (
            "on_llm_new_token",
            (str(chunk.text),),
            {**about, "chunk": ChatGenerationChunk(message=chunk)},
        )


def _first(response: LLMResult) -> ChatGeneration | None:
    answer = response.generations[0][0] if response.generations and response.generations[0] else None
    return answer if isinstance(answer, ChatGeneration) else None
