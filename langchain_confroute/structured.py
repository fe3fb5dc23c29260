"""Answers of a given shape: tool calls and structured values, asked for in each provider's own way."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableLambda, RunnableSequence
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from confroute.errors import PolicyError
from confroute.hosts.tool_calls import OfferedTool, ToolCall, Verdict, canonical_text, check_tool_calls
from langchain_confroute import compat
from langchain_confroute.messages import KEY
from langchain_confroute.models import Model, bound_settings, chat_of, rebuild
from langchain_confroute.settings import own_settings

# Not a string: LangChain resolves the annotations of `bind_tools` where that stands, and loses fallbacks where it cannot.
Tool: TypeAlias = dict[str, Any] | type | Callable[..., Any] | BaseTool
Shape: TypeAlias = "ToolCalls | Structured"
_FREE = (None, "auto", "none", False)


def _written(*values: object) -> str:
    """About as long as what providers are sent of these values."""
    return json.dumps(values, default=str, ensure_ascii=False)


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
    """Tools bound to all models; the original objects are kept and bound again by each provider.

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
        Tools whose calls are taken from the last tier alone.
    offered : mapping of str to OfferedTool
        Those that have a name, for checks.
    text : str
        Of the tools' definitions and the arguments beside them, as long as they are.
    inside : bool
        Whether the models came with these tools bound.
    """

    originals: Sequence[Tool]
    choice: Any
    more: Mapping[str, Any]
    shown: Mapping[str, Any]
    always_cloud: tuple[str, ...]
    offered: Mapping[str, OfferedTool]
    text: str = field(repr=False)
    inside: bool = False

    @classmethod
    def bound_inside(
        cls, models: Mapping[str, Model], always_cloud: tuple[str, ...] = ()
    ) -> ToolCalls | None:
        """The tools that the user bound to the models before the router was made; None where there are none."""
        settings = {tier: bound_settings(model) for tier, model in models.items()}
        tools = [tool for given in settings.values() for tool in given.get("tools") or ()]
        if not tools:
            return None
        # Drafts are what is judged by them, and the last tier writes none.
        drafting = next((given for given in [*settings.values()][:-1] if given.get("tools")), {})
        more = {name: drafting[name] for name in ("parallel_tool_calls",) if name in drafting}
        return replace(cls.of(tools, drafting.get("tool_choice"), more, always_cloud), inside=True)

    @classmethod
    def of(
        cls, tools: Sequence[Tool], choice: Any, more: Mapping[str, Any], always_cloud: tuple[str, ...] = ()
    ) -> ToolCalls:
        """Bind these tools."""
        forms = [in_openai_form(tool) for tool in tools]
        chosen = {} if choice is None else {"tool_choice": choice}
        shown = {"tools": forms, **chosen, **more}
        return cls(
            originals=tools,
            choice=choice,
            more=more,
            shown=shown,
            always_cloud=always_cloud,
            offered={
                form["function"]["name"]: _offered(tool, form["function"])
                for tool, form in zip(tools, forms, strict=True)
                if isinstance(form.get("function"), dict)
            },
            text=_written(shown),
        )

    @property
    def sent(self) -> tuple[object, ...]:
        """What goes to a model, in whatever form."""
        return self.shown, self.more

    @property
    def needs(self) -> str | None:
        """What the models have to be able to do."""
        return "tools" if self.originals else None

    def applied(self, tier: str, model: Model) -> Model:
        """The model with the tools in its provider's own form, inside the bindings that were around it."""
        if self.inside:
            return model
        chosen = {} if self.choice is None else {"tool_choice": self.choice}

        def bound(inner: Any) -> Model:
            more, fields = own_settings(self.more, inner if isinstance(inner, BaseChatModel) else None)
            chat = compat.fresh(inner, fields) if fields else inner
            with_tools: Model = chat.bind_tools(list(self.originals), **chosen, **more)
            return with_tools

        return rebuild(model, bound)

    def judge(self, tier: str, message: AIMessage) -> Verdict:
        """Refuse calls that no tool could take; compare calls by name and arguments."""
        broken = [ToolCall(name=call["name"] or "", arguments=None) for call in message.invalid_tool_calls]
        return check_tool_calls(
            [*(ToolCall(name=call["name"], arguments=call["args"]) for call in message.tool_calls), *broken],
            self.offered,
            parallel=self.more.get("parallel_tool_calls") is not False,
            required=bool(self.originals) and self.choice not in _FREE,
            forbidden=self.always_cloud,
        )

    def matches(self, choice: Any, more: Mapping[str, Any]) -> bool:
        """Whether these were bound with just this choice and these further arguments."""
        return choice == self.choice and all(more.get(name) is value for name, value in self.more.items())


def _offered(tool: Tool, function: Mapping[str, Any]) -> OfferedTool:
    """A pydantic class checks more than the JSON schema made from it."""
    schema: Any = tool.tool_call_schema if isinstance(tool, BaseTool) else tool
    checks = isinstance(schema, type) and hasattr(schema, "model_validate")
    return OfferedTool(name=function["name"], schema=schema if checks else function.get("parameters"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Structured:
    """A structured value, by each provider's own method."""

    schema: Any
    kwargs: Mapping[str, Any] = field(repr=False)
    text: str = field(repr=False)
    form: Mapping[str, Any] = field(default_factory=dict)
    parsers: dict[str, Runnable[Any, Any]] = field(default_factory=dict)
    offered: Mapping[str, OfferedTool] = field(default_factory=dict)
    needs: str | None = None

    @property
    def sent(self) -> tuple[object, ...]:
        """What goes to a model, in whatever form."""
        return self.schema, self.form, self.kwargs

    @classmethod
    def of(cls, schema: Any, kwargs: Mapping[str, Any]) -> Structured:
        """Ask for values of this schema."""
        form = in_openai_form(schema)
        return cls(schema=schema, kwargs=kwargs, text=_written(form, kwargs), form=form)

    def applied(self, tier: str, model: Model) -> Model:
        """The model with its provider's arguments for this schema, inside the bindings that were around it.

        Raises
        ------
        PolicyError
            The model's structured output is not a model call followed by a parser.
        """
        parsers: list[Runnable[Any, Any]] = []

        def with_schema(inner: Any) -> Model:
            chain = inner.with_structured_output(self.schema, **self.kwargs)
            if not isinstance(chain, RunnableSequence) or chat_of(chain.steps[0]) is None:
                msg = (
                    f"the values of {tier} ({type(inner).__name__}) cannot be judged: its with_structured_output() is no call of a model "
                    "followed by a parser, and of a model that is made anew at every call it never is; give a chat model"
                )
                raise PolicyError(msg)
            first, *rest = chain.steps
            parsers.append(rest[0] if len(rest) == 1 else RunnableSequence(*rest))
            return first

        shaped = rebuild(model, with_schema)
        # Of several models any may have answered, each in its provider's way.
        self.parsers[tier] = parsers[0].with_fallbacks(parsers[1:]) if len(parsers) > 1 else parsers[0]
        return shaped

    def judge(self, tier: str, message: AIMessage) -> Verdict:
        """Refuse what does not parse; compare values."""
        try:
            value = self.parsers[tier].invoke(message)
        except Exception as error:  # noqa: BLE001  whatever the parser says, the answer is of no use
            return Verdict(flaw=f"the structured value does not parse ({type(error).__name__})")
        if value is None:
            return Verdict(flaw="there is no structured value")
        return Verdict(answer=canonical_text(value), schemas=(self.schema, self.form))


def value_of(shape: Structured, *, include_raw: bool) -> Runnable[AIMessage, Any]:
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
