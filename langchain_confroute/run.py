"""The router's own run, and what a router does in it: from the request to the answer with its decision.

It is a chain run, so that the models' runs are its children and every token is counted once: LangChain gives no run below a chat
model's run. Its own helpers for chain runs inspect signatures at every call and leave a closed stream's inner generator to the
garbage collector.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import aclosing, closing, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar, cast
from uuid import UUID, uuid4

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForChainRun,
    CallbackManager,
    CallbackManagerForChainRun,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.runnables import Runnable, RunnableConfig, ensure_config
from langchain_core.runnables.config import (
    get_config_list,
    set_config_context,
    var_child_runnable_config,
)
from langchain_core.runnables.utils import coro_with_context
from langchain_core.tracers import LangChainTracer
from typing_extensions import override

from confroute.decision import Decision, Routed
from confroute.executor import arun, arun_stream, run, run_stream
from confroute.flow import Policy
from confroute.hosts.dispatch import Dispatcher
from confroute.hosts.options import PREFIX
from confroute.models.resilience import Limits
from confroute.observe.trace import CallId, in_this_order, next_place
from confroute.streaming import ChunkLogprobs
from confroute.types import JSON, Request
from langchain_confroute import compat
from langchain_confroute.compat import StreamingHandler, graph_writer
from langchain_confroute.messages import add_up
from langchain_confroute.withheld import Gate

T = TypeVar("T")
C = TypeVar("C")
In = TypeVar("In")
Out = TypeVar("Out")
EVENT = "confroute.decision"
_OWN = ("run_name", "run_id")


class Escaped(BaseException):
    """Carries a control-flow exception of the host past the policy, which judges every other failure."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


@contextmanager
def release_escaped() -> Iterator[None]:
    """Let a carried exception out again."""
    try:
        yield
    except Escaped as escaped:
        raise escaped.error from escaped.error.__cause__


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A run that has begun.

    Attributes
    ----------
    config : RunnableConfig
        For the children.
    manager : run manager
    """

    config: RunnableConfig
    manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun

    def child(self, *tags: str) -> RunnableConfig:
        """Config of one call below this run, its runs tagged; the caller's options are this router's, not those of one inside."""
        given = self.config.get("configurable") or {}
        below = {name: value for name, value in given.items() if not name.startswith(PREFIX)}
        tagged = [*(self.config.get("tags") or ()), *tags]
        return cast("RunnableConfig", {**self.config, "tags": tagged, "configurable": compat.used_up(below)})


def _settings(runnable: Runnable[Any, Any], config: RunnableConfig) -> tuple[Any, ...]:
    return (
        config.get("callbacks"),
        getattr(runnable, "callbacks", None),
        getattr(runnable, "verbose", False),
        config.get("tags"),
        getattr(runnable, "tags", None),
        config.get("metadata"),
        getattr(runnable, "metadata", None),
    )


def _opened(
    config: RunnableConfig, manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun
) -> Opened:
    below: Any = {name: value for name, value in config.items() if name not in _OWN}
    below["callbacks"] = manager.get_child()
    return Opened(config=below, manager=manager)


def _open(
    runnable: Runnable[Any, Any], inputs: Any, config: RunnableConfig | None
) -> tuple[Opened, CallbackManagerForChainRun]:
    config = ensure_config(config)
    manager = CallbackManager.configure(*_settings(runnable, config)).on_chain_start(
        None, inputs, name=config.get("run_name") or runnable.get_name(), run_id=config.get("run_id")
    )
    return _opened(config, manager), manager


async def _aopen(
    runnable: Runnable[Any, Any], inputs: Any, config: RunnableConfig | None
) -> tuple[Opened, AsyncCallbackManagerForChainRun]:
    config = ensure_config(config)
    above, run_id = AsyncCallbackManager.configure(*_settings(runnable, config)), config.get("run_id")
    if above.handlers:
        name = config.get("run_name") or runnable.get_name()
        manager = await above.on_chain_start(None, inputs, name=name, run_id=run_id)
    else:
        manager = _unheard(above, run_id or uuid4())
    return _opened(config, manager), manager


def _unheard(above: AsyncCallbackManager, run_id: UUID) -> AsyncCallbackManagerForChainRun:
    """The run that `on_chain_start` makes, without the turn that it gives the event loop even where nobody listens."""
    return AsyncCallbackManagerForChainRun(
        run_id=run_id,
        handlers=above.handlers,
        inheritable_handlers=above.inheritable_handlers,
        parent_run_id=above.parent_run_id,
        tags=above.tags,
        inheritable_tags=above.inheritable_tags,
        metadata=above.metadata,
        inheritable_metadata=above.inheritable_metadata,
    )


async def _ended(manager: AsyncCallbackManagerForChainRun, result: Any) -> None:
    # The host starts a task for it even where nobody listens.
    if manager.handlers:
        await manager.on_chain_end(result)


async def _failed(manager: AsyncCallbackManagerForChainRun, error: BaseException) -> None:
    if manager.handlers:
        await manager.on_chain_error(error)


class around:  # noqa: N801  used as a function; a generator's context takes three times as long
    """What `set_config_context` does where nobody traces, without a copy of the context or a task of its own."""

    __slots__ = ("_config", "_token")

    def __init__(self, config: RunnableConfig) -> None:
        self._config = config

    def __enter__(self) -> None:
        self._token = var_child_runnable_config.set(self._config)

    def __exit__(self, *_: object) -> None:
        # An abandoned coroutine is closed in whichever context collects it.
        with suppress(ValueError):
            var_child_runnable_config.reset(self._token)


def run_chain(
    runnable: Runnable[Any, Any], inputs: Any, config: RunnableConfig | None, body: Callable[[Opened], T]
) -> T:
    """Call `body` inside a chain run of `runnable`."""
    opened, manager = _open(runnable, inputs, config)
    try:
        if manager.handlers:
            with set_config_context(opened.config) as context:
                result = context.run(body, opened)
        else:
            with around(opened.config):
                result = body(opened)
    except Escaped as escaped:
        manager.on_chain_error(escaped.error)
        raise escaped.error from escaped.error.__cause__
    except BaseException as error:
        manager.on_chain_error(error)
        raise
    manager.on_chain_end(result)
    return result


async def arun_chain(
    runnable: Runnable[Any, Any],
    inputs: Any,
    config: RunnableConfig | None,
    body: Callable[[Opened], Awaitable[T]],
) -> T:
    """Async form of `run_chain`."""
    opened, manager = await _aopen(runnable, inputs, config)
    try:
        if manager.handlers:
            with set_config_context(opened.config) as context:
                result = cast("T", await coro_with_context(body(opened), context))
        else:
            with around(opened.config):
                result = await body(opened)
    except Escaped as escaped:
        await _failed(manager, escaped.error)
        raise escaped.error from escaped.error.__cause__
    except BaseException as error:
        await _failed(manager, error)
        raise
    await _ended(manager, result)
    return result


def _tap(
    manager: CallbackManagerForChainRun | AsyncCallbackManagerForChainRun,
) -> StreamingHandler[Any] | None:
    return next((h for h in manager.handlers if isinstance(h, StreamingHandler)), None)


def _whole(manager: Any, chunks: list[Any]) -> Any:
    """What the run's observers are told it gave; nobody pays for it where nobody looks."""
    return add_up(chunks) if manager.handlers else None


def stream_chain(
    runnable: Runnable[Any, Any],
    inputs: Any,
    config: RunnableConfig | None,
    body: Callable[[Opened], Iterator[T]],
) -> Iterator[T]:
    """Pass on what `body` yields inside a chain run of `runnable`; closing this closes `body`."""
    opened, manager = _open(runnable, inputs, config)
    chunks: list[T] = []
    try:
        with set_config_context(opened.config) as context:
            inner = context.run(body, opened)
            handler = _tap(manager)
            items = inner if handler is None else handler.tap_output_iter(manager.run_id, inner)
            try:
                while (chunk := context.run(next, items, _DONE)) is not _DONE:
                    chunks.append(cast("T", chunk))
                    yield chunks[-1]
            except GeneratorExit:
                pass  # the caller has enough: the run ends here, without an error
            finally:
                context.run(close, inner)
    except Escaped as escaped:
        manager.on_chain_error(escaped.error)
        raise escaped.error from escaped.error.__cause__
    except BaseException as error:
        manager.on_chain_error(error)
        raise
    manager.on_chain_end(_whole(manager, chunks))


async def astream_chain(
    runnable: Runnable[Any, Any],
    inputs: Any,
    config: RunnableConfig | None,
    body: Callable[[Opened], AsyncIterator[T]],
) -> AsyncGenerator[T, None]:
    """Async form of `stream_chain`."""
    opened, manager = await _aopen(runnable, inputs, config)
    chunks: list[T] = []
    try:
        with set_config_context(opened.config) as context:
            inner = context.run(body, opened)
            handler = _tap(manager)
            items = inner if handler is None else handler.tap_output_aiter(manager.run_id, inner)
            try:
                while (chunk := await coro_with_context(_next(items), context)) is not _DONE:
                    chunks.append(cast("T", chunk))
                    yield chunks[-1]
            except GeneratorExit:
                pass  # the caller has enough: the run ends here, without an error
            finally:
                await coro_with_context(aclose(inner), context)
    except Escaped as escaped:
        await _failed(manager, escaped.error)
        raise escaped.error from escaped.error.__cause__
    except BaseException as error:
        await _failed(manager, error)
        raise
    await _ended(manager, _whole(manager, chunks))


_DONE: Any = object()


async def _next(items: AsyncIterator[Any]) -> Any:
    return await anext(items, _DONE)


def close(items: object) -> None:
    """Close a generator; other iterators have nothing to close."""
    closing = getattr(items, "close", None)
    if closing is not None:
        closing()


async def aclose(items: object) -> None:
    """Async form of `close`."""
    closing = getattr(items, "aclose", None)
    if closing is not None:
        await closing()


@dataclass(slots=True, kw_only=True)
class RoutedCall(ABC, Generic[T, C]):
    """One call of a router: four bodies of its run, which get None where there is no run; `C` is a chunk of the answer.

    Attributes
    ----------
    policy : Policy
    limits : mapping of str to Limits
        By tier.
    scores : callable or None
        Log-probabilities of one chunk; None where chunks hold none.
    """

    policy: Policy
    limits: Mapping[str, Limits]
    scores: ChunkLogprobs | None = None
    gates: list[Gate] = field(default_factory=list, init=False)
    id: CallId | None = field(default=None, init=False)
    place: int = field(default_factory=next_place)

    def call_id(self, opened: Opened | None) -> CallId:
        """The id of the call: that of its run, where it has one."""
        if self.id is None:
            self.id = CallId.of(None if opened is None else opened.manager.run_id, self.place)
        return self.id

    @abstractmethod
    def prepare(self, opened: Opened | None) -> tuple[Request, Dispatcher[Any]]:
        """What the policy sees, and what answers its asks."""

    @abstractmethod
    def result(self, routed: Routed, record: dict[str, JSON]) -> T:
        """The whole answer, with the decision."""

    @abstractmethod
    def show(self, chunk: Any) -> C | None:
        """A chunk as the caller sees it; None while it has to wait."""

    @abstractmethod
    def end(self, routed: Routed, record: dict[str, JSON]) -> Iterable[C]:
        """What a stream ends in: the whole answer if none of it was shown."""

    def gate(self, *, draft: bool, streamed: bool) -> Gate:
        """What stands between the handlers and an answer that may be thrown away."""
        gate = Gate(holds=draft, streamed=streamed)
        self.gates.append(gate)
        return gate

    def answer(self, opened: Opened | None) -> T:
        """Answer as a whole."""
        request, models = self.prepare(opened)
        try:
            routed = run(self.policy, request, models.call, self.limits, call_id=self.call_id(opened))
        except BaseException:
            self._release(None)
            raise
        self._release(routed)
        return self.result(routed, announce(routed.decision, opened))

    async def aanswer(self, opened: Opened | None) -> T:
        """Async form of `answer`."""
        request, models = self.prepare(opened)
        try:
            routed = await arun(self.policy, request, models.acall, self.limits, call_id=self.call_id(opened))
        except BaseException:
            await self._arelease(None)
            raise
        await self._arelease(routed)
        return self.result(routed, await aannounce(routed.decision, opened))

    def _release(self, routed: Routed | None, *, streaming: bool = False) -> None:
        """Tell the handlers what was held back: the ends of all drafts, and the tokens of the one that is returned."""
        for gate in self._gates_to_open():
            gate.release(kept=_is_of(routed, gate), streaming=streaming)

    async def _arelease(self, routed: Routed | None, *, streaming: bool = False) -> None:
        for gate in self._gates_to_open():
            await gate.arelease(kept=_is_of(routed, gate), streaming=streaming)

    def _gates_to_open(self) -> list[Gate]:
        gates, self.gates = self.gates, []
        return gates

    def chunks(self, opened: Opened | None) -> Iterator[C]:
        """Answer in chunks."""
        request, models = self.prepare(opened)
        given: dict[str, Any] = {"scores": self.scores, "call_id": self.call_id(opened)}
        items = run_stream(self.policy, request, models.call, models.stream, self.limits, **given)
        try:
            with closing(items):
                for item in items:
                    if isinstance(item, Routed):
                        self._release(item, streaming=True)
                        yield from self.end(item, announce(item.decision, opened))
                    elif (chunk := self._shown(item)) is not None:
                        yield chunk
        finally:
            self._release(None)

    async def achunks(self, opened: Opened | None) -> AsyncIterator[C]:
        """Async form of `chunks`."""
        request, models = self.prepare(opened)
        given: dict[str, Any] = {"scores": self.scores, "call_id": self.call_id(opened)}
        items = arun_stream(self.policy, request, models.acall, models.astream, self.limits, **given)
        try:
            async with aclosing(items):
                async for item in items:
                    if isinstance(item, Routed):
                        await self._arelease(item, streaming=True)
                        for chunk in self.end(item, await aannounce(item.decision, opened)):
                            yield chunk
                    elif (piece := self._shown(item)) is not None:
                        yield piece
        finally:
            await self._arelease(None)

    def _shown(self, item: Any) -> C | None:
        # What is read in chunks is settled once the first of them is shown.
        for gate in self.gates:
            gate.opened = gate.opened or gate.streamed
        return self.show(item)


def _is_of(routed: Routed | None, gate: Gate) -> bool:
    return routed is not None and any(answer is routed.generation.raw for answer in gate.answers)


class InOrder(Runnable[In, Out]):
    """Calls of a batch, whose decisions `record()` has in the order of the inputs."""

    @override
    def batch(
        self,
        inputs: list[In],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Out]:
        configs, ids = _with_ids(config, len(inputs))
        with in_this_order(ids):
            return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    @override
    async def abatch(
        self,
        inputs: list[In],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Out]:
        configs, ids = _with_ids(config, len(inputs))
        with in_this_order(ids):
            return await super().abatch(inputs, configs, return_exceptions=return_exceptions, **kwargs)


def _with_ids(
    config: RunnableConfig | list[RunnableConfig] | None, count: int
) -> tuple[list[RunnableConfig], list[UUID]]:
    configs = get_config_list(config, count)
    ids = [one.get("run_id") or uuid4() for one in configs]
    return [
        cast("RunnableConfig", {**one, "run_id": own}) for one, own in zip(configs, ids, strict=True)
    ], ids


def announce(decision: Decision, opened: Opened | None) -> dict[str, JSON]:
    """Send the decision to LangChain's handlers and to LangGraph's custom stream; return its JSON form."""
    record = decision.to_dict()
    if opened is not None and opened.manager.handlers:
        _to_langsmith(decision, opened)
        dispatch_custom_event(EVENT, record, config=opened.config)
    if (writer := graph_writer()) is not None:
        writer({EVENT: record})
    return record


async def aannounce(decision: Decision, opened: Opened | None) -> dict[str, JSON]:
    """Async form of `announce`."""
    record = decision.to_dict()
    if opened is not None and opened.manager.handlers:
        _to_langsmith(decision, opened)
        await adispatch_custom_event(EVENT, record, config=opened.config)
    if (writer := graph_writer()) is not None:
        writer({EVENT: record})
    return record


def _to_langsmith(decision: Decision, opened: Opened) -> None:
    """What runs are filtered by, as metadata of the router's run; the whole decision stands in its output."""
    names = ("route", "stage", "signal", "uncertainty", "threshold", "degraded")
    fields = {f"confroute_{name}": getattr(decision, name) for name in names}
    for handler in opened.manager.handlers:
        run = (
            handler.run_map.get(str(opened.manager.run_id)) if isinstance(handler, LangChainTracer) else None
        )
        if run is not None:
            run.add_metadata({name: value for name, value in fields.items() if value is not None})
