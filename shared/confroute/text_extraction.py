"""Every text that is sent to a model besides its messages (tool definitions, arguments, attachments), for rules to search."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import unquote

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
    return "\n".join([text for value in filled for text in _texts(value, keys)])


def _texts(value: Any, keys: bool) -> Iterator[str]:
    if isinstance(value, str):
        yield from _words(value, keys)
        return
    # A file is not read: that would move its owner's position in it.
    if value is None or isinstance(value, (bool, bytes, bytearray)) or hasattr(value, "read"):
        return
    inside = _inside(value)
    if isinstance(inside, Mapping):
        yield from map(str, inside) if keys else ()
        inside = inside.values()
    for inner in inside:
        yield from _texts(inner, keys)


def _inside(value: Any) -> Iterable[Any]:
    """The parts of a value that is not a text; its own text where it has none."""
    if isinstance(value, type):
        return value.model_json_schema() if hasattr(value, "model_json_schema") else (str(value),)
    if isinstance(value, Collection):
        return value
    fields = getattr(type(value), "model_fields", None)
    return (str(value),) if fields is None else {name: getattr(value, name) for name in fields}


def _words(text: str, keys: bool) -> Iterator[str]:
    if text.lstrip()[:1] in ("{", "["):
        try:
            inner = json.loads(text)
        except ValueError:
            pass  # not JSON after all: it is searched as it is
        else:
            yield from _texts(inner, keys)
            return
    if not text or _ENCODED.fullmatch(text):
        return
    yield text
    if "://" in text and "%" in text:
        yield unquote(text)
