"""The calls of a router between two whole chains, and what the models inside them said."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import ChatGeneration, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig

from confroute.asks import Hidden, ModelAsk, Prompt, Sample, Score, StreamAsk, Tentative
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.models.inside import elsewhere
from confroute.types import Generation, Usage
from langchain_confroute._answers import summed
from langchain_confroute._calls import TAGS
from langchain_confroute._compat import bubble_ups
from langchain_confroute._messages import to_generation
from langchain_confroute._run import Escaped, Opened, aclose, close

Chain: TypeAlias = Runnable[Any, Any]
T = TypeVar("T")


class Heard(BaseCallbackHandler):
    """What the language models inside a chain said of their answers, for this call alone."""

    run_inline = True

    def __init__(self) -> None:
        self.answers: list[Generation] = []
        self._lock = threading.Lock()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """Keep the first answer of the run."""
        answer = response.generations[0][0] if response.generations and response.generations[0] else None
        if isinstance(answer, ChatGeneration):
            with self._lock:
                self.answers.append(to_generation(answer.message))

    def of_all(self, read: Callable[[Generation], tuple[T, ...] | None]) -> tuple[T, ...] | None:
        """One field of all models in order; None if one of them returned none: its part would go unjudged."""
        every = [read(answer) for answer in self.answers]
        if not every or None in every:
            return None
        return tuple(value for values in every if values is not None for value in values)

    def usage(self) -> Usage | None:
        """Tokens of all models together."""
        known = [answer.usage for answer in self.answers if answer.usage is not None]
        return sum(known, Usage()) if known else None

    def generation(self, output: object, text: str, latency_s: float) -> Generation:
        """The chain's answer as the core sees it."""
        models = [answer.model for answer in self.answers if answer.model]
        return Generation(
            text=text,
            logprobs=self.of_all(lambda answer: answer.logprobs),
            tokens=self.of_all(lambda answer: answer.tokens),
            top_logprobs=self.of_all(lambda answer: answer.top_logprobs),
            usage=self.usage(),
            finish=self.answers[-1].finish if self.answers else "unknown",
            model=models[-1] if models else None,
            latency_s=latency_s,
            raw=output,
        )


@dataclass(slots=True, kw_only=True)
class ChainCalls:
    """The calls of one request, as children of the router's run."""

    chains: Mapping[str, Chain]
    sampler: Callable[[float], Chain] | None
    text: Callable[[Any], str]
    given: Any
    opened: Opened
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def _below(self, ask: ModelAsk | Tentative) -> tuple[RunnableConfig, Heard]:
        config, heard = self.opened.child(*TAGS[type(ask)]), Heard()
        callbacks = self.opened.manager.get_child()
        callbacks.add_handler(heard, inherit=True)
        return {**config, "callbacks": callbacks}, heard

    def _chain(self, ask: ModelAsk | Tentative) -> Chain:
        if isinstance(ask, Prompt):
            msg = "a chain takes its own input, no prompt of a signal's: route the chat model with ChatConfRoute"
            raise SignalUnavailableError(msg)
        if getattr(ask, "note", None) is not None:
            msg = "the policy says something to the model beside the conversation, and a chain has no place for it: route the chat model (ChatConfRoute)"
            raise PolicyError(msg)
        if isinstance(ask, Sample) and self.sampler is not None:
            return self.sampler(ask.temperature)
        return self.chains[ask.tier]

    def call(self, ask: ModelAsk) -> list[Generation]:
        """What `confroute.executor.run` wants."""
        if isinstance(ask, (Score, Hidden)):
            raise elsewhere(ask, "a model inside a chain")
        below, start = self._all_below(ask), time.perf_counter()
        try:
            configs = [config for config, _ in below]
            if len(below) == 1:  # a batch would run it in a thread
                outputs = [self._chain(ask).invoke(self.given, configs[0], **self.kwargs)]
            else:
                outputs = self._chain(ask).batch([self.given] * len(below), configs, **self.kwargs)
        except bubble_ups() as error:
            raise Escaped(error) from error
        return self._generations(outputs, below, start)

    async def acall(self, ask: ModelAsk) -> list[Generation]:
        """What `confroute.executor.arun` wants."""
        if isinstance(ask, (Score, Hidden)):
            raise elsewhere(ask, "a model inside a chain")
        below, start = self._all_below(ask), time.perf_counter()
        try:
            configs = [config for config, _ in below]
            if len(below) == 1:
                outputs = [await self._chain(ask).ainvoke(self.given, configs[0], **self.kwargs)]
            else:
                outputs = await self._chain(ask).abatch([self.given] * len(below), configs, **self.kwargs)
        except bubble_ups() as error:
            raise Escaped(error) from error
        return self._generations(outputs, below, start)

    def _all_below(self, ask: ModelAsk) -> list[tuple[RunnableConfig, Heard]]:
        return [self._below(ask) for _ in range(ask.n if isinstance(ask, Sample) else 1)]

    def _generations(
        self, outputs: Sequence[Any], below: Sequence[tuple[RunnableConfig, Heard]], start: float
    ) -> list[Generation]:
        latency_s = time.perf_counter() - start
        return [
            heard.generation(output, self.text(output), latency_s)
            for output, (_, heard) in zip(outputs, below, strict=True)
        ]

    def stream(self, ask: StreamAsk) -> Generator[Any, None, None]:
        """What `confroute.executor.run_stream` wants."""
        config, heard = self._below(ask)
        start, chunks = time.perf_counter(), []
        items = self._chain(ask).stream(self.given, config, **self.kwargs)
        try:
            for chunk in items:
                chunks.append(chunk)
                yield chunk
        except bubble_ups() as error:
            raise Escaped(error) from error
        finally:
            close(items)
        yield self._whole(heard, chunks, start)

    async def astream(self, ask: StreamAsk) -> AsyncGenerator[Any, None]:
        """What `confroute.executor.arun_stream` wants."""
        config, heard = self._below(ask)
        start, chunks = time.perf_counter(), []
        items = self._chain(ask).astream(self.given, config, **self.kwargs)
        try:
            async for chunk in items:
                chunks.append(chunk)
                yield chunk
        except bubble_ups() as error:
            raise Escaped(error) from error
        finally:
            await aclose(items)
        yield self._whole(heard, chunks, start)

    def _whole(self, heard: Heard, chunks: list[Any], start: float) -> Generation:
        output = summed(chunks)
        return heard.generation(output, self.text(output), time.perf_counter() - start)
