"""Checked reading of one JSON object's fields."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from confroute.errors import ConfrouteError
from confroute.types import JSON

Fields: TypeAlias = "dict[str, JSON]"


class RecordError(ConfrouteError, ValueError):
    """A recorded run that cannot be read or written; the message holds file, line and field."""


def refused(where: str, value: object, expected: str) -> RecordError:
    """The error for a value that is not what the format says."""
    shown = repr(value)
    return RecordError(f"{where} is {shown if len(shown) <= 60 else shown[:57] + '...'}: expected {expected}")


def fields(value: JSON, where: str) -> Fields:
    """A JSON object, or an error.

    Raises
    ------
    RecordError
        Anything else.
    """
    if not isinstance(value, dict):
        raise refused(where, value, "an object")
    return value


def optional_fields(value: JSON, where: str) -> Fields | None:
    """A JSON object or None."""
    return None if value is None else fields(value, where)


def text(value: JSON, where: str) -> str:
    """A string, or an error.

    Raises
    ------
    RecordError
        Anything else.
    """
    if not isinstance(value, str):
        raise refused(where, value, "a string")
    return value


def optional_text(value: JSON, where: str) -> str | None:
    """A string or None."""
    return None if value is None else text(value, where)


def number(value: JSON, where: str, *, low: float = -math.inf, high: float = math.inf) -> float:
    """A finite number in [low, high], as it was written: an integer stays one.

    Raises
    ------
    RecordError
        Anything else. True and False are no numbers.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise refused(where, value, "a finite number")
    if not low <= value <= high:
        raise refused(where, value, f"a number in [{low:g}, {high:g}]")
    return value


def optional_number(
    value: JSON, where: str, *, low: float = -math.inf, high: float = math.inf
) -> float | None:
    """A finite number in [low, high], or None."""
    return None if value is None else number(value, where, low=low, high=high)


def items(value: JSON, where: str) -> list[JSON]:
    """A list; None stands for the empty one.

    Raises
    ------
    RecordError
        Anything else.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise refused(where, value, "a list")
    return value


def optional_numbers(value: JSON, where: str) -> tuple[float, ...] | None:
    """A list of finite numbers, or None."""
    if value is None:
        return None
    return tuple(number(item, f"{where}[{at}]") for at, item in enumerate(items(value, where)))


def optional_texts(value: JSON, where: str) -> tuple[str, ...] | None:
    """A list of strings, or None."""
    if value is None:
        return None
    return tuple(text(item, f"{where}[{at}]") for at, item in enumerate(items(value, where)))


def unknown(data: Mapping[str, JSON], known: Sequence[str]) -> Fields:
    """The fields that the format does not name; they are kept."""
    return {key: value for key, value in data.items() if key not in known}
