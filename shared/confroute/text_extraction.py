"""Every text that is sent to a model besides its messages (tool definitions, arguments, attachments), for rules to search."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

_END = object()
# Images and the like: they hold no words, and any short pattern occurs in them by chance.
_ENCODED = re.compile(r"(data:[^,]{0,200};base64,.*|[A-Za-z0-9+/_=-]{1024,})", re.DOTALL)


def texts_in(*values: object, keys: bool = False) -> str:
    """Return every text inside nested values, one per line, decoded, so that no escape hides a word from a rule.

    Parameters
    ----------
    *values : object
        Texts, numbers, mappings, sequences, pydantic objects (their fields) and pydantic classes (their schema). A text
        that is a JSON object or array is read as one.
    keys : bool
        Whether to include the keys of mappings, such as the names of a tool's parameters.

    Returns
    -------
    str
        Without bytes, be they raw, in a base64 ``data:`` URL or a single word of 1,024 characters or more.

    Examples
    --------
    >>> print(texts_in("Ada", {"args": '{"who": "Charles", "salary": 4000}'}, None))
    Ada
    Charles
    4000
    >>> print(texts_in({"type": "image_url", "image_url": {"url": "https://example.org/ada.png"}}))
    image_url
    https://example.org/ada.png
    """
    # Most calls bring empty tools, arguments and attachments.
    filled = [value for value in values if value or not isinstance(value, (str, dict, list, tuple))]
    return "\n".join(_texts(filled, keys))


def _texts(values: Iterable[Any], keys: bool) -> Iterator[str]:
    # Not recursive: users send values that are nested deeper than Python's stack. Those in `open_` are being read, so that a value
    # that holds itself is read once.
    waiting: list[tuple[Iterator[Any], int]] = [(iter(values), 0)]
    open_: set[int] = set()
    while waiting:
        items, own = waiting[-1]
        value = next(items, _END)
        if value is _END:
            waiting.pop()
            open_.discard(own)
        elif isinstance(value, str):
            inner = _decoded(value)
            if inner is None:
                yield from _words(value)
            else:
                waiting.append((iter((inner,)), 0))
        elif not (_is_wordless(value) or id(value) in open_):
            inside = _inside(value)
            if isinstance(inside, Mapping):
                yield from map(str, inside) if keys else ()
                inside = inside.values()
            waiting.append((iter(inside), id(value)))
            open_.add(id(value))


def _is_wordless(value: object) -> bool:
    # A file is not read: that would move its owner's position in it.
    return value is None or isinstance(value, (bool, bytes, bytearray)) or hasattr(value, "read")


def _inside(value: Any) -> Iterable[Any]:
    """The parts of a value that is not a text; its own text where it has none."""
    if isinstance(value, type):
        return value.model_json_schema() if hasattr(value, "model_json_schema") else (str(value),)
    if isinstance(value, Collection):
        return value
    fields = getattr(type(value), "model_fields", None)
    return (str(value),) if fields is None else {name: getattr(value, name) for name in fields}


def _decoded(text: str) -> Any:
    """The value of a text that is a JSON object or array; None for any other text, which is searched as it is."""
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        return json.loads(text)
    except (
        ValueError,
        RecursionError,
    ):  # not JSON after all, or nested so deeply that Python does not read it
        return None


def _words(text: str) -> Iterator[str]:
    if not text or _ENCODED.fullmatch(text):
        return
    yield text
    if "://" in text and "%" in text:
        yield unquote(text)
