"""What a caller may set for one call: by keyword argument, or for everything inside `instrument_tags`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from confroute.errors import RequestError
from llamaindex_confroute import _compat

_KEYS = ("route", "threshold", "tags", "purpose")


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """The caller's wishes for one call, and the keyword arguments that are left for the models."""

    kwargs: dict[str, Any]
    route: str | None = None
    threshold: float | Mapping[str, float] | None = None
    tags: frozenset[str] = frozenset()
    purpose: str | None = None


def overrides(kwargs: Mapping[str, Any]) -> Overrides:
    """Split `confroute_route` and `confroute_threshold` from `kwargs`; they win over `instrument_tags`.

    Raises
    ------
    RequestError
        The tag "confroute" is no mapping or holds an unknown key, or its tags are no list of strings.
    """
    rest = dict(kwargs)
    ambient = _ambient()
    route = rest.pop("confroute_route", None)
    threshold = rest.pop("confroute_threshold", None)
    return Overrides(
        kwargs=rest,
        route=ambient.get("route") if route is None else route,
        threshold=ambient.get("threshold") if threshold is None else threshold,
        tags=frozenset(ambient.get("tags") or ()),
        purpose=ambient.get("purpose"),
    )


def _ambient() -> Mapping[str, Any]:
    given = _compat.tags().get("confroute")
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not set(given) <= set(_KEYS):
        msg = f"instrument_tags has 'confroute': {given!r}; expected a dict with {', '.join(_KEYS)}"
        raise RequestError(msg)
    tags = given.get("tags") or ()
    if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
        msg = f"instrument_tags has confroute tags {tags!r}; expected a list of strings"
        raise RequestError(msg)
    return given
