"""What two models can do together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from langchain_core.language_models import ModelProfile


def common(profiles: Sequence[Mapping[str, Any]]) -> ModelProfile | None:
    """What holds whichever model answers: abilities that all have, the smallest of their limits; None if unknown.

    Examples
    --------
    >>> common(
    ...     [{"tool_calling": True, "max_input_tokens": 8}, {"tool_calling": False, "max_input_tokens": 4}]
    ... )
    {'max_input_tokens': 4, 'tool_calling': False}
    """
    if not all(profiles):
        return None
    shared = sorted(set.intersection(*(set(profile) for profile in profiles)))
    found = {name: _least([profile[name] for profile in profiles]) for name in shared}
    return cast("ModelProfile", {name: value for name, value in found.items() if value is not None}) or None


def _least(values: Sequence[Any]) -> Any:
    if all(isinstance(value, bool) for value in values):
        return all(values)
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        return min(values)
    return values[0] if all(value == values[0] for value in values) else None
