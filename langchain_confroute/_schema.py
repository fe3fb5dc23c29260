"""Whether the arguments of a tool call fit the tool's schema. Nothing is ever executed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from langchain_core.tools import BaseTool
from pydantic import BaseModel, ValidationError

Tool: TypeAlias = "dict[str, Any] | type | Callable[..., Any] | BaseTool"
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


def problem(tool: Tool, function: Mapping[str, Any], arguments: Mapping[str, Any]) -> str | None:
    """What is wrong with the arguments, in words that do not repeat them; None if they fit.

    Parameters
    ----------
    tool : tool, class, function or dict
        As the user gave it; pydantic classes check more than a JSON schema says.
    function : mapping
        The same in OpenAI's form.
    """
    model = _model_of(tool)
    if model is None:
        return _misfit(
            function.get("parameters") or {}, arguments, "arguments", function.get("parameters") or {}
        )
    try:
        model.model_validate(dict(arguments))
    except ValidationError as error:
        places = sorted({".".join(map(str, found["loc"])) or "arguments" for found in error.errors()})
        return f"{', '.join(places)} not as the schema asks"
    return None


def _model_of(tool: Tool) -> type[BaseModel] | None:
    schema = tool.tool_call_schema if isinstance(tool, BaseTool) else tool
    return schema if isinstance(schema, type) and issubclass(schema, BaseModel) else None


def _misfit(schema: Mapping[str, Any], value: Any, where: str, root: Mapping[str, Any]) -> str | None:
    """The first place where a value does not fit a JSON schema; keywords that are not known here constrain nothing."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        schema = {**root.get("$defs", {}), **root.get("definitions", {})}.get(name, {})
    if "anyOf" in schema:
        misfits = [_misfit(option, value, where, root) for option in schema["anyOf"]]
        return None if None in misfits else misfits[0]
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} is none of the allowed values"
    if not _of_type(schema.get("type"), value):
        return f"{where} is no {schema['type']}"
    if isinstance(value, dict):
        return _misfit_object(schema, value, where, root)
    if isinstance(value, list):
        found = (
            _misfit(schema.get("items") or {}, item, f"{where}[{i}]", root) for i, item in enumerate(value)
        )
        return next((misfit for misfit in found if misfit), None)
    return None


def _of_type(wanted: Any, value: Any) -> bool:
    if wanted is None:
        return True
    names = wanted if isinstance(wanted, list) else [wanted]
    if isinstance(value, bool):
        return "boolean" in names
    return any(isinstance(value, _TYPES.get(name, (object,))) for name in names)


def _misfit_object(
    schema: Mapping[str, Any], value: Mapping[str, Any], where: str, root: Mapping[str, Any]
) -> str | None:
    missing = [name for name in schema.get("required", ()) if name not in value]
    if missing:
        return f"{where} lacks {', '.join(missing)}"
    known = schema.get("properties", {})
    if schema.get("additionalProperties") is False and any(name not in known for name in value):
        return f"{where} has a name that the schema does not"
    found = (_misfit(known[name], item, name, root) for name, item in value.items() if name in known)
    return next((misfit for misfit in found if misfit), None)
