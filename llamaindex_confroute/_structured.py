"""Structured output: `structured_predict` goes whole to a child, which uses its provider's own method."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from contextlib import aclosing, closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
from llama_index.core.llms.llm import LLM
from llama_index.core.program.utils import FlexibleModel
from llama_index.core.prompts import BasePromptTemplate, ChatPromptTemplate
from llama_index.core.types import PydanticProgramMode
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.event_handlers import BaseEventHandler
from pydantic import BaseModel

from confroute.decision import Routed
from confroute.models.resilience import is_transient
from confroute.signals.fields import field_logprobs
from confroute.types import Generation, Usage
from llamaindex_confroute._calls import portable
from llamaindex_confroute._closing import aclosing_all, closing_all
from llamaindex_confroute._compat import listen, with_system_prompt
from llamaindex_confroute._messages import checked
from llamaindex_confroute._overrides import overrides
from llamaindex_confroute._prompts import parts_of
from llamaindex_confroute._reading import generation_of, usage_of
from llamaindex_confroute._routing import Routing
from llamaindex_confroute._tools import ToolRouter
from llamaindex_confroute._work import own

M = TypeVar("M", bound=BaseModel)
_inner: ContextVar[list[ChatResponse] | None] = ContextVar("llamaindex_confroute_inner", default=None)


class _Listening(BaseEventHandler):
    """Keeps the responses behind a structured value: they hold the log-probabilities, and the value does not."""

    @classmethod
    def class_name(cls) -> str:
        return "ConfRouteListening"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        kept = _inner.get()
        if kept is not None and isinstance(event, LLMChatEndEvent) and event.response is not None:
            kept.append(event.response)


_listening = _Listening()


@contextmanager
def _heard() -> Generator[list[ChatResponse], None, None]:
    """Collect the chat responses of the calls made inside."""
    listen(_listening)
    kept: list[ChatResponse] = []
    token = _inner.set(kept)
    try:
        yield kept
    finally:
        _inner.reset(token)


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredWork(Generic[M]):
    """`structured_predict`; see `Work`. `raw` of its answers is the value, or the error that stands for it."""

    output_cls: type[M]
    messages: Sequence[ChatMessage]
    kwargs: dict[str, Any] = field(default_factory=dict)
    mode: PydanticProgramMode = PydanticProgramMode.DEFAULT
    needs_tools: bool = False
    tool_names: frozenset[str] = frozenset()
    whole: bool = True

    @property
    def extra_text(self) -> str:
        """The schema, which every method sends along."""
        return json.dumps(self.output_cls.model_json_schema(), default=str, ensure_ascii=False)

    def call(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """See `Work`."""
        with _heard() as heard:
            try:
                value = self._by(llm).structured_predict(
                    self.output_cls, self._prompt(llm), llm_kwargs=own(self.kwargs, extra)
                )
            except Exception as error:  # noqa: BLE001  any failure of a draft is a reason to escalate
                return self._unusable(error, heard, llm)
        return self._usable(value, heard, llm)

    async def acall(self, llm: LLM, extra: dict[str, Any]) -> Generation:
        """See `Work`."""
        with _heard() as heard:
            try:
                value = await self._by(llm).astructured_predict(
                    self.output_cls, self._prompt(llm), llm_kwargs=own(self.kwargs, extra)
                )
            except Exception as error:  # noqa: BLE001  any failure of a draft is a reason to escalate
                return self._unusable(error, heard, llm)
        return self._usable(value, heard, llm)

    def stream(
        self, llm: LLM, extra: dict[str, Any]
    ) -> Generator[M | FlexibleModel | Generation, None, None]:
        """See `Work`."""
        last: BaseModel | None = None
        items = self._by(llm).stream_structured_predict(
            self.output_cls, self._prompt(llm), llm_kwargs=own(self.kwargs, extra)
        )
        with closing_all(items) as values:
            for value in values:
                last = value
                yield value
        yield Generation(text=last.model_dump_json() if last else "", model=llm.class_name(), raw=last)

    async def astream(
        self, llm: LLM, extra: dict[str, Any]
    ) -> AsyncGenerator[M | FlexibleModel | Generation, None]:
        """See `Work`."""
        last: BaseModel | None = None
        items = await self._by(llm).astream_structured_predict(
            self.output_cls, self._prompt(llm), llm_kwargs=own(self.kwargs, extra)
        )
        async with aclosing_all(items) as values:
            async for value in values:
                last = value
                yield value
        yield Generation(text=last.model_dump_json() if last else "", model=llm.class_name(), raw=last)

    def _by(self, llm: LLM) -> LLM:
        """The model, told the router's way to make values if that was set."""
        if self.mode == PydanticProgramMode.DEFAULT:
            return llm
        return llm.model_copy(update={"pydantic_program_mode": self.mode})

    def _prompt(self, llm: LLM) -> Any:
        # Formatted already. The host formats it once more, which leaves braces without a known name alone.
        return ChatPromptTemplate(message_templates=portable(self.messages, llm))

    def _usable(self, value: object, heard: Sequence[ChatResponse], llm: LLM) -> Generation:
        if not isinstance(value, self.output_cls):
            error = TypeError(f"expected a {self.output_cls.__name__}, got a {type(value).__name__}")
            return self._unusable(error, heard, llm)
        text, said = value.model_dump_json(), _answer(heard, llm)
        fields = field_logprobs(said.tokens, said.logprobs)
        return replace(said, text=text, answer=text, fields=fields, raw=value)

    def _unusable(self, error: Exception, heard: Sequence[ChatResponse], llm: LLM) -> Generation:
        """An answer that came and cannot be used; an error without any answer is raised as it is."""
        if not heard or is_transient(error):
            raise error
        flaw = f"no valid {self.output_cls.__name__} ({type(error).__name__})"
        return replace(_answer(heard, llm), flaw=flaw, raw=error)


def _answer(heard: Sequence[ChatResponse], llm: LLM) -> Generation:
    """The response behind a value. Of several, none is the whole: their usage is kept, and no evidence."""
    if not heard:
        return Generation(text="", model=llm.class_name())
    last = generation_of(heard[-1], model=llm.class_name())
    if len(heard) == 1:
        return last
    usages = [usage for response in heard if (usage := usage_of(response)) is not None]
    return replace(last, logprobs=None, tokens=None, usage=sum(usages, Usage()) if usages else None)


class StructuredRouter(ToolRouter):
    """The four forms of `structured_predict`; see `ConfRouteLLM`."""

    def structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> M:
        """Fill a template and answer it with a value; an edge's value counts only if it validates."""
        routing, work = self._structured_work(output_cls, prompt, llm_kwargs, prompt_args)
        return _value(routing.run(work), output_cls)

    async def astructured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> M:
        """Async form of `structured_predict`."""
        routing, work = self._structured_work(output_cls, prompt, llm_kwargs, prompt_args)
        return _value(await routing.arun(work), output_cls)

    def stream_structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[M | FlexibleModel, None, None]:
        """`structured_predict` in growing values; an edge's value comes whole, once it is kept."""
        routing, work = self._structured_work(output_cls, prompt, llm_kwargs, prompt_args)

        def values() -> Generator[M | FlexibleModel, None, None]:
            shown = False
            routed: Generator[M | FlexibleModel | Routed, None, None] = routing.stream(work)
            with closing(routed) as items:
                for item in items:
                    if not isinstance(item, Routed):
                        shown = True
                        yield item
                    elif not shown:
                        yield _value(item, output_cls)

        return values()

    async def astream_structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[M | FlexibleModel, None]:
        """Async form of `stream_structured_predict`."""
        routing, work = self._structured_work(output_cls, prompt, llm_kwargs, prompt_args)

        async def values() -> AsyncGenerator[M | FlexibleModel, None]:
            shown = False
            routed: AsyncGenerator[M | FlexibleModel | Routed, None] = routing.astream(work)
            async with aclosing(routed) as items:
                async for item in items:
                    if not isinstance(item, Routed):
                        shown = True
                        yield item
                    elif not shown:
                        yield _value(item, output_cls)

        return values()

    def _structured_work(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: Mapping[str, Any] | None,
        args: Mapping[str, Any],
    ) -> tuple[Routing, StructuredWork[M]]:
        given = overrides(llm_kwargs or {})
        # The router's system prompt, since the host applies only that of the LLM it was called on.
        messages = checked(with_system_prompt(self, prompt.format_messages(llm=self, **args)))
        work = StructuredWork(
            output_cls=output_cls, messages=messages, kwargs=given.kwargs, mode=self.pydantic_program_mode
        )
        return self._routing(work, given, parts_of(prompt, args)), work


def _value(routed: Routed, output_cls: type[M]) -> M:
    raw = routed.generation.raw
    if isinstance(raw, Exception):
        raise raw
    if not isinstance(raw, output_cls):
        return output_cls.model_validate_json(routed.generation.text)
    return raw
