"""Answers of a given shape: tool calls and structured values, asked for in each provider's own way."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda, RunnableSequence
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import BaseModel

from confroute.errors import PolicyError
from confroute.text_extraction import texts_in
from langchain_confroute._answers import KEY
from langchain_confroute._calls import Judged
from langchain_confroute._schema import Tool, problem
from langchain_confroute._tiers import Model, chat_of, rebuilt

_FREE = (None, "auto", "none", False)


class Shape(Protocol):
    """What a router's answers have to be."""

    @property
    def shown(self) -> Mapping[str, Any]:
        """Arguments that stand in the router's own binding, and are not sent as they are."""
        ...

    @property
    def tools(self) -> bool:
        """Whether the models have to call tools."""
        ...

    @property
    def names(self) -> frozenset[str]:
        """Of the tools that are offered."""
        ...

    @property
    def text(self) -> str:
        """Every text of what is asked for: definitions of tools, a schema."""
        ...

    def applied(self, tier: str, model: Model) -> Model:
        """The tier's model, asked for such answers."""
        ...

    def judge(self, tier: str, message: AIMessage) -> Judged:
        """What to compare in an answer, and why it cannot be used."""
        ...


def in_openai_form(tool: Tool) -> dict[str, Any]:
    """The tool as a dictionary; a provider's own dictionary that has no such form stays as it is."""
    try:
        return convert_to_openai_tool(tool)
    except (ValueError, TypeError, KeyError):
        if isinstance(tool, dict):
            return tool
        raise


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCalls:
    """Tools bound to both models; the original objects are kept and bound again by each provider.

    Attributes
    ----------
    originals : sequence
        As the user gave them.
    choice : str or None
    more : mapping
        Further arguments of `bind_tools`.
    shown : mapping
        The same in OpenAI's form, as agents look for it in the router's binding.
    always_cloud : tuple of str
        Tools whose calls are never taken from the edge.
    """

    originals: Sequence[Tool]
    choice: Any
    more: Mapping[str, Any]
    shown: Mapping[str, Any]
    always_cloud: tuple[str, ...] = ()
    _known: Mapping[str, tuple[Tool, Mapping[str, Any]]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        tools: Sequence[Tool],
        choice: Any,
        more: Mapping[str, Any],
        *,
        always_cloud: tuple[str, ...] = (),
    ) -> ToolCalls:
        """Bind these tools."""
        forms = [in_openai_form(tool) for tool in tools]
        known = {
            form["function"]["name"]: (tool, form["function"])
            for tool, form in zip(tools, forms, strict=True)
            if isinstance(form.get("function"), dict)
        }
        chosen = {} if choice is None else {"tool_choice": choice}
        return cls(
            originals=tools,
            choice=choice,
            more=more,
            shown={"tools": forms, **chosen, **more},
            always_cloud=always_cloud,
            _known=known,
        )

    @property
    def tools(self) -> bool:
        """Whether there are any."""
        return bool(self.originals)

    @property
    def names(self) -> frozenset[str]:
        """Of tools that have one."""
        return frozenset(self._known)

    @property
    def text(self) -> str:
        """Of the tools' definitions and the arguments beside them."""
        return texts_in(self.shown, keys=True)

    def applied(self, tier: str, model: Model) -> Model:
        """The model with the tools in its provider's own form, inside the bindings that were around it."""
        chosen = {} if self.choice is None else {"tool_choice": self.choice}
        return rebuilt(model, lambda inner: inner.bind_tools(list(self.originals), **chosen, **self.more))

    def judge(self, tier: str, message: AIMessage) -> Judged:
        """Refuse calls that no tool could take; compare calls by name and arguments."""
        if message.invalid_tool_calls:
            return Judged(flaw="the arguments of a tool call are no JSON")
        if not message.tool_calls:
            required = self.tools and self.choice not in _FREE
            return Judged(flaw="no tool is called, though one has to be" if required else None)
        calls = [{"name": call["name"], "args": call["args"]} for call in message.tool_calls]
        flaw = next((found for call in calls if (found := self._flaw(call))), None)
        return Judged(answer=canonical(calls), flaw=flaw)

    def _flaw(self, call: Mapping[str, Any]) -> str | None:
        if call["name"] not in self._known:
            return "a tool is called that was not offered"
        if call["name"] in self.always_cloud:
            return f"calls of {call['name']} are always the cloud's"
        tool, function = self._known[call["name"]]
        found = problem(tool, function, call["args"])
        return None if found is None else f"a call of {call['name']} does not fit its schema: {found}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The tools in the arguments of one call, told from those that the router was bound to before.

    Attributes
    ----------
    tools, choice, more
        As of `ToolCalls`; the original objects where they are known.
    rest : mapping
        The call's other arguments.
    as_bound : bool
        Whether they are just what the router is bound to.
    """

    tools: Sequence[Tool]
    choice: Any
    more: Mapping[str, Any]
    rest: Mapping[str, Any]
    as_bound: bool

    @classmethod
    def of(cls, kwargs: Mapping[str, Any], bound: ToolCalls | None) -> Asked:
        """Read a call's arguments."""
        ours = bound is not None and kwargs["tools"] is bound.shown["tools"]
        own: Mapping[str, Any] = bound.more if bound is not None and ours else {}
        choice, more = kwargs.get("tool_choice"), {name: kwargs[name] for name in own if name in kwargs}
        apart = {"tools", "tool_choice", *more}
        return cls(
            tools=bound.originals if bound is not None and ours else kwargs["tools"],
            choice=choice,
            more=more,
            rest={name: value for name, value in kwargs.items() if name not in apart},
            as_bound=ours
            and bound is not None
            and choice == bound.choice
            and all(more.get(name) is value for name, value in own.items()),
        )

    def same(self, other: Asked) -> bool:
        """Whether both ask for the same tools in the same way."""
        return self.tools is other.tools and self.choice == other.choice and self.more == other.more


@dataclass(frozen=True, slots=True, kw_only=True)
class Structured:
    """A structured value, by each provider's own method."""

    schema: Any
    kwargs: Mapping[str, Any]
    parsers: dict[str, Runnable[Any, Any]] = field(default_factory=dict)
    shown: Mapping[str, Any] = field(default_factory=dict)
    tools: bool = False
    names: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        """Of the schema."""
        return texts_in(in_openai_form(self.schema), self.kwargs, keys=True)

    def applied(self, tier: str, model: Model) -> Model:
        """The model with its provider's arguments for this schema, inside the bindings that were around it.

        Raises
        ------
        PolicyError
            The model's structured output is not a model call followed by a parser.
        """

        def asked(inner: Any) -> Model:
            chain = inner.with_structured_output(self.schema, **self.kwargs)
            if not isinstance(chain, RunnableSequence) or chat_of(chain.steps[0]) is None:
                msg = f"{tier} ({type(inner).__name__}) has no structured output that can be judged: give a chat model"
                raise PolicyError(msg)
            first, *rest = chain.steps
            self.parsers[tier] = rest[0] if len(rest) == 1 else RunnableSequence(*rest)
            return first

        return rebuilt(model, asked)

    def judge(self, tier: str, message: AIMessage) -> Judged:
        """Refuse what does not parse; compare values."""
        try:
            value = self.parsers[tier].invoke(message)
        except Exception as error:  # noqa: BLE001  whatever the parser says, the answer is of no use
            return Judged(flaw=f"the structured value does not parse ({type(error).__name__})")
        if value is None:
            return Judged(flaw="there is no structured value")
        return Judged(answer=canonical(value))


def finishing(shape: Structured, *, include_raw: bool) -> Runnable[AIMessage, Any]:
    """From the router's answer to the value, by the parser of the tier that answered."""

    def finish(message: AIMessage) -> Any:
        parser = shape.parsers[message.response_metadata[KEY]["route"]]
        if not include_raw:
            return parser.invoke(message)
        try:
            return {"raw": message, "parsed": parser.invoke(message), "parsing_error": None}
        except Exception as error:  # noqa: BLE001  asked for: the error is part of the result
            return {"raw": message, "parsed": None, "parsing_error": error}

    async def afinish(message: AIMessage) -> Any:
        # Parsers compute, they do not wait: a thread would cost more than it frees.
        return finish(message)

    return RunnableLambda(finish, afunc=afinish).with_config(run_name="StructuredOutput")


def canonical(value: Any) -> str:
    """A value as text that is equal for equal values.

    Examples
    --------
    >>> canonical({"b": 1, "a": [True]})
    '{"a": [true], "b": 1}'
    """
    plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)
