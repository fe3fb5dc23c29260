"""One child model with one call of the router, in its three kinds: chat, tools, structured output.

Each kind is one method of a LlamaIndex LLM with its arguments, its async form (`a...`) and its streams (`stream_...`,
`astream_...`), and goes to the child whole: tool formats, response formats and chat templates are the provider's.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.instrumentation.events.llm import LLMChatEndEvent
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM
from llama_index.core.program.utils import FlexibleModel
from llama_index.core.prompts import ChatPromptTemplate
from llama_index.core.tools import BaseTool
from llama_index.core.types import BaseOutputParser, PydanticProgramMode
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.event_handlers import BaseEventHandler
from pydantic import BaseModel

from confroute.error_notes import note_answer
from confroute.errors import RequestError
from confroute.hosts.model import ModelCall, ModelFacts
from confroute.hosts.tool_calls import (
    Verdict,
    asking_for_help,
    check_tool_calls,
    fitting,
    schema_asked_for,
    with_flaw_of,
    with_verdict,
)
from confroute.models.provider_answers import answer_behind, no_answer
from confroute.models.resilience import is_transient
from confroute.types import Generation, Message, Usage
from llamaindex_confroute import compat
from llamaindex_confroute.compat import aclosing_all, closing_all, listen, reply_behind
from llamaindex_confroute.local import LocalLLM, to_messages
from llamaindex_confroute.messages import calls_in, from_core, help_tool, offered_tools, portable
from llamaindex_confroute.models import ChildModel
from llamaindex_confroute.responses import ChunkCollector, to_generation, to_generations, usage_of

C = TypeVar("C")
M = TypeVar("M", bound=BaseModel)


class Sent(NamedTuple):
    """What a kind of call sends beside its messages.

    Attributes
    ----------
    text : str
        For rules and for the estimate of the prompt's length.
    tools : frozenset of str
        Names of the tools that are offered; only models that call tools can answer then.
    whole : bool
        Whether an answer can be judged only when it is whole.
    """

    text: str = ""
    tools: frozenset[str] = frozenset()
    whole: bool = True


class Method(NamedTuple):
    """A method of a child by the name of its synchronous form, and its arguments."""

    llm: LLM
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildCall(Generic[C]):
    """What is the same for every kind of call: the four calls and the facts of a `confroute.hosts.model.HostModel`.

    Attributes
    ----------
    child : ChildModel
    messages : sequence of ChatMessage
        What the policy and its rules see.
    kwargs : mapping
        The caller's own keyword arguments.
    facts : ModelFacts
        The child's, as far as they hold for this kind of call.
    """

    child: ChildModel
    messages: Sequence[ChatMessage] = field(repr=False)
    kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    facts: ModelFacts = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "facts", self._facts(self.child.facts))

    @property
    def sent(self) -> Sent:
        """What is sent beside the messages."""
        return Sent()

    @property
    def all_sent(self) -> tuple[object, ...]:
        """Everything that is sent, for rules to read."""
        fixed = getattr(self.child.llm, "additional_kwargs", None)
        return (*self.messages, self.kwargs, self.sent.text, fixed)

    def call(self, call: ModelCall) -> list[Generation]:
        """Make a call of the child."""
        if call.messages is not None:
            return self._plain(call.messages).call(replace(call, messages=None))
        with _in_the_providers_words(self.facts.model):
            response = self._send(call)
        return self._answers(response, call)

    async def acall(self, call: ModelCall) -> list[Generation]:
        """Async form of `call`."""
        if call.messages is not None:
            return await self._plain(call.messages).acall(replace(call, messages=None))
        with _in_the_providers_words(self.facts.model):
            response = await self._send(call, "a")
        return self._answers(response, call)

    def stream(self, call: ModelCall) -> Generator[C | Generation, None, None]:
        """Yield the child's own chunks as they come, then the whole answer."""
        collector = self._collector()
        with closing_all(self._send(call, "stream_")) as chunks:
            for chunk in chunks:
                collector.add(chunk)
                yield chunk
        yield collector.completed(model=self.facts.model)

    async def astream(self, call: ModelCall) -> AsyncGenerator[C | Generation, None]:
        """Async form of `stream`."""
        collector = self._collector()
        async with aclosing_all(await self._send(call, "astream_")) as chunks:
            async for chunk in chunks:
                collector.add(chunk)
                yield chunk
        yield collector.completed(model=self.facts.model)

    def _facts(self, facts: ModelFacts) -> ModelFacts:
        return replace(facts, answers_per_call=False) if facts.answers_per_call else facts

    def _plain(self, messages: Sequence[Message]) -> ChatCall:
        """A signal's own prompt, whatever kind of call is being routed."""
        return ChatCall(child=self.child, messages=from_core(messages))

    def _send(self, call: ModelCall, form: str = "") -> Any:
        """Call a form of the child's method, with copies in its arguments: providers write into what they are given."""
        llm, extra = self.child.prepared(call, self.kwargs)
        messages = portable(self.messages, llm)
        if call.note is not None:
            messages.append(ChatMessage(role=MessageRole.USER, content=call.note))
        if call.n > 1:
            extra["n"] = call.n
        kwargs = {name: _copied(value) for name, value in self.kwargs.items()}
        method = self._method(llm, messages, {**kwargs, **extra})
        return getattr(method.llm, form + method.name)(*method.args, **method.kwargs)

    def _method(self, llm: LLM, messages: list[ChatMessage], kwargs: dict[str, Any]) -> Method:
        return Method(llm, "chat", (messages,), kwargs)

    def _answers(self, response: Any, call: ModelCall) -> list[Generation]:
        return [to_generation(response, model=self.facts.model)]

    def _collector(self) -> ChunkCollector | _LastValue:
        return ChunkCollector()


@contextmanager
def _in_the_providers_words(model: str | None) -> Generator[None, None, None]:
    """Raise what the provider said in place of an answer, instead of what the host's client makes of a reply without one."""
    try:
        yield
    except (TypeError, IndexError) as error:
        reply = reply_behind(error)
        if reply is None or reply.choices:
            raise
        raise no_answer(model, reply) from error


def _copied(value: Any) -> Any:
    if type(value) is dict:
        return {name: _copied(inner) for name, inner in value.items()}
    return [_copied(inner) for inner in value] if type(value) is list else value


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCall(ChildCall[ChatResponse]):
    """`chat`, and everything that comes down to it; `parsers` read the answer once it is there."""

    parsers: Sequence[BaseOutputParser] = ()

    @property
    def sent(self) -> Sent:
        """Whole with tools in a provider's own form, since the answer may be a call, and where a parser reads it."""
        return Sent(whole=bool(self.kwargs.get("tools")) or bool(self._read_by))

    @property
    def _read_by(self) -> list[tuple[str, Callable[[str], object]]]:
        """The parsers that read the answer, by name: what the host's own cannot read, its engines raise about."""
        own: list[tuple[str, Callable[[str], object]]] = [
            (type(one).__name__, one.parse) for one in self.parsers
        ]
        schema = (
            None
            if own
            else schema_asked_for([one.content or "" for one in self.messages], [compat.JSON_FORM])
        )
        return own if schema is None else [("JSON", fitting(schema, compat.read_json))]

    def _facts(self, facts: ModelFacts) -> ModelFacts:
        llm = self.child.llm
        if not isinstance(llm, LocalLLM):
            return facts
        # Of the other kinds, tools and schemas are not in the messages that the model would be shown.
        return replace(facts, inside=lambda: (llm.loaded(), to_messages(self.messages)))

    def _answers(self, response: ChatResponse, call: ModelCall) -> list[Generation]:
        answers = to_generations(response, model=self.facts.model, n=call.n)
        for name, parse in self._read_by:
            answers = [with_flaw_of(answer, name, parse) for answer in answers]
        return answers


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolsCall(ChildCall[ChatResponse]):
    """`chat_with_tools`.

    `required` is told to the provider; `expected` says that the caller can do nothing with an answer that calls no tool.
    """

    tools: Sequence[BaseTool]
    parallel: bool = False
    required: bool = False
    expected: bool = False
    verbose: bool = False

    @property
    def sent(self) -> Sent:
        """The tools' schemas. Without tools, as of an agent that has none, any model can answer; half a call cannot be checked."""
        text = json.dumps([tool.metadata.to_openai_tool(skip_length_check=True) for tool in self.tools])
        names = frozenset(tool.metadata.name for tool in self.tools if tool.metadata.name)
        return Sent(text=text, tools=names, whole=bool(self.tools))

    def _method(self, llm: LLM, messages: list[ChatMessage], kwargs: dict[str, Any]) -> Method:
        if not isinstance(llm, FunctionCallingLLM):
            if not self.tools:
                return Method(llm, "chat", (messages,), kwargs)
            msg = f"{llm.class_name()} cannot call tools: expected a FunctionCallingLLM, or a call without tools"
            raise RequestError(msg)
        # The user's message stands in the history: providers append to the list they get.
        flags = {
            "verbose": self.verbose,
            "allow_parallel_tool_calls": self.parallel,
            "tool_required": self.required,
        }
        given = {"tools": list(self.tools), "chat_history": messages, **flags, **kwargs}
        return Method(llm, "chat_with_tools", (), given)

    def _send(self, call: ModelCall, form: str = "") -> Any:
        if call.help is None:
            return ChildCall._send(self, call, form)
        offered = replace(self, tools=(*self.tools, help_tool(call.help)))
        return ChildCall._send(offered, call, form)

    def _answers(self, response: ChatResponse, call: ModelCall) -> list[Generation]:
        calls = calls_in(response.message)
        if call.help is not None and any(one.name == call.help.name for one in calls):
            return [asking_for_help(to_generation(response, model=self.facts.model))]
        verdict = check_tool_calls(
            calls,
            offered_tools(self.tools),
            parallel=self.parallel,
            required=self.required or self.expected,
        )
        return [with_verdict(to_generation(response, model=self.facts.model), verdict)]


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredCall(ChildCall[M | FlexibleModel], Generic[M]):
    """`structured_predict`. `raw` of its answers is the value, or the error that stands for it."""

    output_cls: type[M]
    mode: PydanticProgramMode = PydanticProgramMode.DEFAULT

    @property
    def sent(self) -> Sent:
        """The schema, which every method sends along."""
        return Sent(text=json.dumps(self.output_cls.model_json_schema(), default=str, ensure_ascii=False))

    def call(self, call: ModelCall) -> list[Generation]:
        """Make a call of the child, keeping the responses behind its value."""
        if call.messages is not None:
            return self._plain(call.messages).call(replace(call, messages=None))
        with _heard() as heard:
            try:
                with _in_the_providers_words(self.facts.model):
                    value = self._send(call)
            except Exception as error:  # noqa: BLE001  any failure of a draft is a reason to escalate
                return [self._unusable(error, heard, call)]
        return [self._usable(value, heard, call)]

    async def acall(self, call: ModelCall) -> list[Generation]:
        """Async form of `call`."""
        if call.messages is not None:
            return await self._plain(call.messages).acall(replace(call, messages=None))
        with _heard() as heard:
            try:
                with _in_the_providers_words(self.facts.model):
                    value = await self._send(call, "a")
            except Exception as error:  # noqa: BLE001  any failure of a draft is a reason to escalate
                return [self._unusable(error, heard, call)]
        return [self._usable(value, heard, call)]

    def _method(self, llm: LLM, messages: list[ChatMessage], kwargs: dict[str, Any]) -> Method:
        if self.mode != PydanticProgramMode.DEFAULT:
            llm = llm.model_copy(update={"pydantic_program_mode": self.mode})
        # Formatted already. The host formats it once more, which leaves braces without a known name alone.
        prompt = ChatPromptTemplate(message_templates=messages)
        return Method(llm, "structured_predict", (self.output_cls, prompt), {"llm_kwargs": kwargs})

    def _collector(self) -> _LastValue:
        return _LastValue()

    def _usable(self, value: object, heard: Sequence[ChatResponse], call: ModelCall) -> Generation:
        if not isinstance(value, self.output_cls):
            error = TypeError(f"expected a {self.output_cls.__name__}, got a {type(value).__name__}")
            return self._unusable(error, heard, call)
        text = value.model_dump_json()
        verdict = Verdict(answer=text, schemas=(self.output_cls,))
        return replace(with_verdict(self._behind(heard), verdict), text=text, raw=value)

    def _unusable(self, error: Exception, heard: Sequence[ChatResponse], call: ModelCall) -> Generation:
        """An answer that came and cannot be used: a rejected draft can do with it.

        Raised as it is: an error without any answer, one that may pass, and that of a final answer.
        """
        answer = self._behind(heard) if heard else answer_behind(error)
        if answer is None or is_transient(error):
            raise error
        note_answer(error, answer.usage)
        if call.role == "final":
            raise error
        flaw = f"no valid {self.output_cls.__name__} ({type(error).__name__})"
        return replace(answer, answer=None, flaw=flaw, raw=error)

    def _behind(self, heard: Sequence[ChatResponse]) -> Generation:
        """The response behind a value. Of several, none is the whole: their usage is kept, and no evidence."""
        model = self.facts.model
        if not heard:
            return Generation(text="", model=model)
        last = to_generation(heard[-1], model=model)
        if len(heard) == 1:
            return last
        usages = [usage for response in heard if (usage := usage_of(response)) is not None]
        usage = sum(usages, Usage()) if usages else None
        return replace(last, logprobs=None, tokens=None, top_logprobs=None, usage=usage)


class _LastValue:
    """The last of the growing values of a stream, which is the whole one."""

    __slots__ = ("_value",)

    def __init__(self) -> None:
        self._value: BaseModel | None = None

    def add(self, value: BaseModel) -> None:
        """Keep the next value."""
        self._value = value

    def completed(self, *, model: str) -> Generation:
        """The answer."""
        text = "" if self._value is None else self._value.model_dump_json()
        return Generation(text=text, model=model, raw=self._value)


_behind_value: ContextVar[list[ChatResponse] | None] = ContextVar(
    "llamaindex_confroute_behind_value", default=None
)


class _ResponseListener(BaseEventHandler):
    """Keeps the responses behind a structured value: they hold the log-probabilities, and the value does not."""

    @classmethod
    def class_name(cls) -> str:
        return "ConfRouteListening"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        kept = _behind_value.get()
        if kept is not None and isinstance(event, LLMChatEndEvent) and event.response is not None:
            kept.append(event.response)


_LISTENER = _ResponseListener()


@contextmanager
def _heard() -> Generator[list[ChatResponse], None, None]:
    """Collect the chat responses of the calls made inside."""
    listen(_LISTENER)
    kept: list[ChatResponse] = []
    token = _behind_value.set(kept)
    try:
        yield kept
    finally:
        _behind_value.reset(token)
