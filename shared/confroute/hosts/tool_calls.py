"""Whether the tool calls of an answer could be made, and the text by which they are compared. Nothing is ever executed.

An edge's call counts only if its tool was offered and its arguments fit: a call that the framework would refuse or that would
raise inside the tool is as useless as a wrong answer, however certain the model was. Flaws name tools and parameters, never the
arguments of a call: those may be private.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from confroute.models.provider_answers import field as part_of
from confroute.signals.fields import field_logprobs
from confroute.types import Generation

# How models that have no form of their own write a call.
_CALL = frozenset({"name", "arguments", "parameters"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One call as a model wrote it; `arguments` is None where they are not a JSON object."""

    name: str
    arguments: Mapping[str, Any] | None = field(repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferedTool:
    """A tool that the model may call.

    Attributes
    ----------
    name : str
    schema : pydantic class, mapping or None
        What the arguments have to fit: a class, which checks more than a JSON schema says, or a JSON schema. None if anything
        fits.
    open : bool
        Whether the tool takes arguments that its class does not name.
    """

    name: str
    schema: Any = None
    open: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What to compare in an answer that is more than text, and why it cannot be used.

    Attributes
    ----------
    answer : str or None
        Tool calls or a structured value in canonical form; None where there are none.
    flaw : str or None
        In words that do not repeat the answer; None if it can be used.
    calls : tuple of str
        The digests of the calls as they were written; see `call_digest`.
    schemas : tuple
        What the calls or the value have to fit, pydantic classes or JSON schemas: the names that they declare may be recorded.
    """

    answer: str | None = field(default=None, repr=False)
    flaw: str | None = None
    calls: tuple[str, ...] = field(default=(), compare=False, repr=False)
    schemas: tuple[Any, ...] = field(default=(), compare=False, repr=False)


def check_tool_calls(
    calls: Sequence[ToolCall],
    tools: Mapping[str, OfferedTool],
    *,
    parallel: bool = True,
    required: bool = False,
    forbidden: Collection[str] = (),
) -> Verdict:
    """Compare the calls of an answer with the tools that were offered.

    Parameters
    ----------
    calls : sequence of ToolCall
    tools : mapping of str to OfferedTool
        By every name under which a model may call them.
    parallel : bool
        Whether more than one call is allowed.
    required : bool
        Whether an answer without a call is useless.
    forbidden : collection of str
        Names of tools whose calls are never taken from this model.

    Returns
    -------
    Verdict
        Its answer holds the calls with the types and defaults of their schema, so that equal calls have equal texts.

    Examples
    --------
    >>> tools = {
    ...     "add": OfferedTool(
    ...         name="add", schema={"properties": {"a": {"type": "integer"}}, "required": ["a"]}
    ...     )
    ... }
    >>> check_tool_calls([ToolCall(name="add", arguments={"a": 1})], tools).answer
    '[{"arguments": {"a": 1}, "name": "add"}]'
    >>> check_tool_calls([ToolCall(name="add", arguments={"a": "one"})], tools).flaw
    "a call of 'add' does not fit its schema: a is not of type integer"
    """
    if not calls:
        return Verdict(flaw="no tool is called, though one has to be" if required else None)
    flaws: dict[str, None] = {}
    if len(calls) > 1 and not parallel:
        flaws[f"{len(calls)} tool calls where one is allowed"] = None
    canonical = []
    for call in calls:
        arguments, flaw = _checked(call, tools.get(call.name), forbidden)
        canonical.append({"name": call.name, "arguments": arguments})
        if flaw is not None:
            flaws[flaw] = None
    schemas = tuple(tools[call.name].schema for call in calls if call.name in tools)
    return Verdict(
        answer=canonical_text(canonical),
        flaw="; ".join(flaws) or None,
        calls=tuple(call_digest(call.name, call.arguments) for call in calls),
        schemas=schemas,
    )


def call_digest(name: str, arguments: object) -> str:
    """A digest of a tool call, equal for equal calls: evidence of repetition that holds no arguments.

    Parameters
    ----------
    name : str
    arguments : object
        A mapping, or JSON text of one.

    Examples
    --------
    >>> call_digest("add", {"a": 1, "b": 2}) == call_digest("add", '{"b": 2, "a": 1}')
    True
    """
    if isinstance(arguments, str):
        with contextlib.suppress(ValueError, RecursionError):  # then it is compared as it was written
            arguments = json.loads(arguments)
    return hashlib.sha256(canonical_text([name, arguments]).encode()).hexdigest()[:16]


def written_calls(message: Mapping[str, Any]) -> list[ToolCall]:
    """The tool calls of a message in the form of OpenAI's API, or with name and arguments side by side.

    Examples
    --------
    >>> call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    >>> [(call.name, call.arguments) for call in written_calls({"role": "assistant", "tool_calls": [call]})]
    [('add', {'a': 1})]
    """
    found = message.get("tool_calls")
    parts = [part_of(call, "function") or call for call in found] if isinstance(found, list) else []
    return [
        ToolCall(
            name=str(part_of(part, "name") or ""),
            arguments=_object(part_of(part, "arguments") or part_of(part, "args") or {}),
        )
        for part in parts
    ]


def tool_facts(message: Mapping[str, Any]) -> dict[str, Any]:
    """What a `Message` holds of a written message beside its words: `calls` and `failed`."""
    calls = written_calls(message)
    return {
        "calls": tuple(call_digest(call.name, call.arguments) for call in calls),
        "failed": says_failed(message),
    }


def says_failed(message: Mapping[str, Any]) -> bool:
    """Whether a tool's result is marked as failed: LangChain's `status`, Anthropic's and LlamaIndex's `is_error`."""
    return message.get("status") == "error" or message.get("is_error") is True


def _object(arguments: object) -> Mapping[str, Any] | None:
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            return None
    return arguments if isinstance(arguments, Mapping) else None


def canonical_text(value: Any) -> str:
    """Write a value, or a pydantic object, as text that is equal for equal values.

    Examples
    --------
    >>> canonical_text({"b": 1, "a": [True]})
    '{"a": [true], "b": 1}'
    """
    plain = value.model_dump(mode="json") if hasattr(value, "model_dump") else value
    return json.dumps(plain, sort_keys=True, ensure_ascii=False, default=str)


def schema_asked_for(texts: Sequence[str], forms: Sequence[tuple[str, str]]) -> Mapping[str, Any] | None:
    """Read the JSON schema that a framework's parser has put into a prompt, for answers to fit; None where there is none.

    Parameters
    ----------
    texts : sequence of str
        The prompt's texts, oldest first; the last schema counts.
    forms : sequence of pairs of str
        What the framework writes before and behind the schema.

    Examples
    --------
    >>> schema_asked_for(['Fit this: {"required": ["a"]} No more.'], [("Fit this:", "No more.")])
    {'type': 'object', 'required': ['a']}
    """
    for text in reversed(texts):
        for head, tail in forms:
            _, found, rest = text.rpartition(head)
            schema, ended, _ = rest.partition(tail)
            value = _schema(schema) if found and ended else None
            if value is not None:
                # Some leave the type of the outermost value out.
                return {"type": "object", **value}
    return None


def _schema(text: str) -> Mapping[str, Any] | None:
    # Braces that a template would have undone stay doubled where the schema came behind it.
    for written in (text, text.replace("{{", "{").replace("}}", "}")):
        try:
            value = json.loads(written)
        except ValueError:
            continue
        return value if isinstance(value, dict) else None
    return None


def with_flaw_of(answer: Generation, parser: str, read: Callable[[str], object]) -> Generation:
    """Return the answer, flawed where the caller's parser cannot read it.

    Examples
    --------
    >>> with_flaw_of(Generation(text='{"a": '), "JSON", json.loads).flaw
    'the JSON parser cannot read it (JSONDecodeError)'
    """
    try:
        read(answer.text)
    except Exception as error:  # noqa: BLE001  parsers may be the user's: whatever they raise, the caller would get
        return replace(answer, flaw=f"the {parser} parser cannot read it ({type(error).__name__})")
    return answer


def fitting(schema: Mapping[str, Any], read: Callable[[str], object]) -> Callable[[str], object]:
    """Return a parser that refuses, too, what does not fit a JSON schema."""

    def parse(text: str) -> object:
        value = read(text)
        wrong = misfit(schema, value, where="the value")
        if wrong is not None:
            raise ValueError(wrong)
        return value

    return parse


def with_verdict(generation: Generation, verdict: Verdict) -> Generation:
    """Return an answer with what was found out about its calls or its value, and the log-probabilities of each field of it.

    Where those of the fields are not known, those of other tokens are left out: words before a call and braces say nothing
    about its arguments.
    """
    judged = replace(generation, answer=verdict.answer, flaw=verdict.flaw, calls=verdict.calls, fields={})
    if verdict.answer is None or generation.logprobs is None:
        return judged
    names = _CALL.union(*map(declared_names, verdict.schemas))
    fields = field_logprobs(generation.tokens, generation.logprobs, verdict.answer, names=names)
    if not fields:
        return replace(judged, logprobs=None, tokens=None, top_logprobs=None)
    return replace(judged, fields=fields)


def asking_for_help(generation: Generation) -> Generation:
    """Mark an answer that calls the tool by which a model asks for a larger one: it is no answer, whatever else it holds."""
    return replace(generation, asks_for_help=True, flaw="it asks for a larger model")


def declared_names(schema: Any) -> frozenset[str]:
    """Every name that a pydantic class or a JSON schema declares, at any depth.

    Examples
    --------
    >>> schema = {"properties": {"salaries": {"type": "object", "additionalProperties": {"type": "integer"}}}}
    >>> sorted(declared_names(schema))
    ['salaries']
    """
    return _names_of_class(schema) if isinstance(schema, type) else frozenset(_property_names(schema))


@lru_cache(maxsize=256)
def _names_of_class(schema: Any) -> frozenset[str]:
    if not hasattr(schema, "model_json_schema"):
        return frozenset()
    try:
        form = schema.model_json_schema()
    except Exception:  # noqa: BLE001  a class may hold what JSON has no form for: its own names are known all the same
        form = {}
    return frozenset(_property_names(form)) | _parameters(schema)


def _property_names(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        properties = schema.get("properties")
        yield from map(str, properties if isinstance(properties, Mapping) else ())
    for inner in (
        schema.values() if isinstance(schema, Mapping) else schema if isinstance(schema, list) else ()
    ):
        yield from _property_names(inner)


def misfit(schema: Any, value: Any, *, where: str = "arguments") -> str | None:
    """Name the first place where a value does not fit a JSON schema; None if it fits.

    Read are `$ref` into the schema's own definitions, `anyOf`, `oneOf`, `allOf`, `enum`, `const`, `type`, `properties`,
    `required`, `additionalProperties` and `items`; other keywords constrain nothing.

    Examples
    --------
    >>> misfit({"type": "object", "required": ["city"]}, {})
    'arguments lacks city'
    """
    root = schema if isinstance(schema, Mapping) else {}
    return _misfit(schema, value, where, {**root.get("definitions", {}), **root.get("$defs", {})})


def _checked(
    call: ToolCall, tool: OfferedTool | None, forbidden: Collection[str]
) -> tuple[Mapping[str, Any] | None, str | None]:
    """The arguments in canonical form, and what is wrong with the call."""
    if tool is None:
        return call.arguments, "a call of a tool that was not offered"
    if tool.name in forbidden:
        return call.arguments, f"calls of {tool.name!r} are always the cloud's"
    if call.arguments is None:
        return None, f"the arguments of a call of {tool.name!r} are not a JSON object"
    if hasattr(tool.schema, "model_validate"):
        arguments, wrong = _by_class(tool, call.arguments)
    else:
        arguments, wrong = call.arguments, misfit(tool.schema, call.arguments)
    return arguments, f"a call of {tool.name!r} does not fit its schema: {wrong}" if wrong else None


def _by_class(tool: OfferedTool, arguments: Mapping[str, Any]) -> tuple[Mapping[str, Any], str | None]:
    schema = tool.schema
    names = _parameters(schema)
    try:
        value = schema.model_validate(dict(arguments))
    except Exception as error:  # noqa: BLE001  validators are the user's own code: whatever they raise is a misfit
        return arguments, _places(error, names)
    if set(arguments) - names and not tool.open and schema.model_config.get("extra") != "allow":
        return arguments, "arguments has a name that the schema does not"
    try:
        plain: Mapping[str, Any] = value.model_dump(mode="json", warnings=False)
    except ValueError:  # a field of a type that JSON does not have
        return arguments, None
    return plain, None


def _parameters(schema: Any) -> set[str]:
    """The names under which a class takes values."""
    names = set(schema.model_fields)
    for one in schema.model_fields.values():
        for alias in (one.alias, *getattr(one.validation_alias, "choices", (one.validation_alias,))):
            names |= {alias} if isinstance(alias, str) else set()
    return names


def _places(error: Exception, names: Collection[str]) -> str:
    """Where a class found its arguments wrong, and of which kind the errors are."""
    errors = getattr(error, "errors", None)
    if errors is None:
        return f"arguments ({type(error).__name__})"
    places = ((str(one["loc"][0]) if one["loc"] else "", one["type"]) for one in errors())
    # Deeper places, and names that the schema does not have, come from the call.
    return ", ".join(sorted({f"{name if name in names else 'arguments'} ({kind})" for name, kind in places}))


_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def _misfit(schema: Any, value: Any, where: str, definitions: Mapping[str, Any]) -> str | None:
    if not isinstance(schema, Mapping):
        return f"{where} is not allowed" if schema is False else None
    if "$ref" in schema:
        return _misfit(definitions.get(schema["$ref"].rsplit("/", 1)[-1]), value, where, definitions)
    if not _of_type(schema.get("type"), value):
        return f"{where} is not of type {_names(schema['type'])}"
    if value not in schema.get("enum", [value]) or value != schema.get("const", value):
        return f"{where} is none of the allowed values"
    return next((wrong for wrong in _inner(schema, value, where, definitions) if wrong), None)


def _inner(
    schema: Mapping[str, Any], value: Any, where: str, definitions: Mapping[str, Any]
) -> Iterator[str | None]:
    for part in schema.get("allOf", ()):
        yield _misfit(part, value, where, definitions)
    for choices in (schema.get("anyOf"), schema.get("oneOf")):
        misfits = [_misfit(choice, value, where, definitions) for choice in choices or ()]
        yield misfits[0] if misfits and None not in misfits else None
    if isinstance(value, dict):
        yield from _in_object(schema, value, where, definitions)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield _misfit(schema.get("items"), item, f"{where}[{position}]", definitions)


def _in_object(
    schema: Mapping[str, Any], value: Mapping[str, Any], where: str, definitions: Mapping[str, Any]
) -> Iterator[str | None]:
    missing = [name for name in schema.get("required", ()) if name not in value]
    yield f"{where} lacks {', '.join(missing)}" if missing else None
    known = schema.get("properties", {})
    for name, item in value.items():
        if name in known:
            yield _misfit(known[name], item, name, definitions)
        elif schema.get("additionalProperties") is False:
            yield f"{where} has a name that the schema does not"
        else:
            yield _misfit(schema.get("additionalProperties"), item, f"a value of {where}", definitions)


def _of_type(kinds: Any, value: Any) -> bool:
    if kinds is None:
        return True
    names = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(value, bool):
        return "boolean" in names or any(name not in _TYPES for name in names)
    return any(isinstance(value, _TYPES.get(name, (object,))) for name in names)


def _names(kinds: Any) -> str:
    return kinds if isinstance(kinds, str) else " or ".join(kinds)
