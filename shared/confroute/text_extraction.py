"""Every text of what is sent to a model, for rules to search: all names and values, decoded, and whether something could not be read."""

from __future__ import annotations

import base64
import binascii
import dataclasses
import html
import inspect
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from numbers import Number
from typing import Any
from urllib.parse import unquote

from confroute.types import Reading

_END = object()
# Words of the protocols themselves, which stand in every request and say nothing of its content.
_WORDS = (
    "additional_kwargs arguments args array assistant auto base64 block_type blocks boolean call_id content description enum file "
    "format function function_call human id image image_url index input input_text integer invalid_tool_calls items json_schema "
    "mime_type name null number object output parameters properties required role schema source source_type string strict system "
    "text title tool tool_call tool_call_id tool_calls tool_choice tool_use tools type url user "
)
_PROTOCOL = frozenset(_WORDS.split())
# Encodings inside each other; whoever uses more of them hides something.
_ROUNDS = 5
_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt]))')
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_DATA_URL = re.compile(r"data:([^,;]{0,99})[^,]{0,200};base64,(.*)", re.DOTALL | re.IGNORECASE)
_WORDS_INSIDE = re.compile(r"text/|.*(json|xml|yaml|csv|javascript)|\Z", re.IGNORECASE)
# A single word of so many characters is no word.
_LONG = 256
# In one piece, or in lines of one length as in mail.
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{60,100}\r?\n)*[A-Za-z0-9+/_-]*={0,2}\s*")
# In addresses two characters stand for two others.
_OF_ADDRESSES = str.maketrans("-_", "+/")
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0e-\x1f]|\A%PDF")
_JOINS = ("", "\n", " ")


def read(*values: object, as_sent: Callable[[Any], Any] | None = None) -> Reading:
    r"""Read everything inside nested values that may be sent.

    Parameters
    ----------
    *values : object
        Texts, numbers, mappings (their keys too), sequences (the texts in them joined as well, since models see them so), pydantic
        objects with fields of any name, pydantic classes (their schema), functions (name, parameters, documentation), bytes.
    as_sent : callable, optional
        Given a host's own object, returns what of it is sent; any other value as it is.

    Returns
    -------
    Reading
        Each text once, as it is and without the escapes of JSON, of addresses and of HTML. `unread` is set by what holds no text that
        can be found: images, files, objects that do not say what they hold.

    Examples
    --------
    >>> read("Ada", {"args": '{"who": "Charl\\u0065s"}'}, None).texts
    ('Ada', '{"who": "Charl\\u0065s"}', '{"who": "Charles"}')
    >>> read([{"type": "text", "text": "Ada "}, {"type": "text", "text": "Lovelace"}]).texts[2]
    'Ada Lovelace'
    >>> read(b"\x89PNG").unread
    True
    """
    reader = _Reader(as_sent)
    reader.walk(values)
    return Reading(texts=tuple(reader.texts), unread=reader.unread)


def merged(*readings: Reading) -> Reading:
    """Several readings as one."""
    texts = dict.fromkeys(text for one in readings for text in one.texts)
    return Reading(texts=tuple(texts), unread=any(one.unread for one in readings))


class ReadOnce:
    """What one call sends, read when a rule asks for it, and once for each tier."""

    __slots__ = ("_known", "_read")

    def __init__(self, read: Callable[[str], Reading]) -> None:
        self._read = read
        self._known: dict[str, Reading] = {}

    def __call__(self, tier: str) -> Reading:
        """See `Request.reads`."""
        if tier not in self._known:
            self._known[tier] = self._read(tier)
        return self._known[tier]


class _Reader:
    """Not recursive: users send values that are nested deeper than Python's stack."""

    __slots__ = ("_as_sent", "_seen", "texts", "unread")

    def __init__(self, as_sent: Callable[[Any], Any] | None) -> None:
        self.texts: dict[str, None] = {}
        self.unread = False
        self._as_sent = as_sent
        # Kept, so that no other value gets the id of one that was read.
        self._seen: dict[int, object] = {}

    def walk(self, values: Iterable[object]) -> None:
        """Read values and what is in them; the second of each pair collects the texts that stand side by side."""
        waiting: list[tuple[Any, list[str] | None]] = [(iter(values), None)]
        while waiting:
            items, said = waiting[-1]
            value = next(items, _END)
            if value is _END:
                waiting.pop()
                self._join(said)
                continue
            try:
                if said is not None and isinstance(part := _text_part(value), str):
                    said.append(part)
                inside = self._inside(value)
            except Exception:  # noqa: BLE001  an object of the user's own may raise anything: it is not read then
                self.unread = True
                continue
            if inside is not None:
                waiting.append((iter(inside), [] if isinstance(value, (list, tuple)) else None))

    def _inside(self, value: Any) -> list[Any] | None:
        """The parts of a value; None where it has none, and is read already."""
        if value is None or isinstance(value, bool):
            return None
        if isinstance(value, str):
            self._text(value)
        elif isinstance(value, Number):
            self._text(str(value))
        elif isinstance(value, (bytes, bytearray, memoryview)):
            self._bytes(bytes(value))
        elif id(value) not in self._seen:
            self._seen[id(value)] = value
            sent = value if self._as_sent is None else self._as_sent(value)
            return [sent] if sent is not value else self._parts(value)
        return None

    def _parts(self, value: Any) -> list[Any] | None:
        if isinstance(value, Mapping):
            return [*value, *value.values()]
        if isinstance(value, Collection) and not isinstance(value, type):
            return list(value)
        if isinstance(value, type) or inspect.isroutine(value):
            return _declared(value)
        fields = getattr(type(value), "model_fields", None)
        if fields is not None:
            return [*(getattr(value, name) for name in fields), getattr(value, "model_extra", None)]
        if dataclasses.is_dataclass(value):
            return [getattr(value, one.name) for one in dataclasses.fields(value)]
        # A file is not read: that would move its owner's position in it.
        closed = hasattr(value, "read") or isinstance(value, (os.PathLike, Iterator))
        kind: Any = type(value)
        mute = kind.__str__ is object.__str__ and kind.__repr__ is object.__repr__
        self.unread = self.unread or closed or mute
        self._text(str(value))
        return None

    def _join(self, said: list[str] | None) -> None:
        if said is not None and len(said) > 1:
            for between in _JOINS:
                self._add(between.join(said))

    def _text(self, text: str) -> None:
        if text in _PROTOCOL or text in self.texts:
            return
        url = _DATA_URL.fullmatch(text)
        if url is not None:
            self._add(text[: url.start(2)])
            read = self._base64(url[2], closed=_WORDS_INSIDE.match(url[1]) is None)
        else:
            read = len(text) >= _LONG and self._base64(text)
        if not read:
            self._add(text)

    def _add(self, text: str) -> None:
        """Add a text as it is, and what is left of it without each kind of escape."""
        for _ in range(_ROUNDS):
            before = text
            for decode in (_unescaped, unquote, html.unescape):
                self.texts[text] = None
                text = decode(text)
            if text == before:
                return
        self.texts[text] = None
        self.unread = True

    def _base64(self, word: str, *, closed: bool = False) -> bool:
        """Read what a word encodes, and return whether it is such a word at all."""
        word = unquote(word)
        if _BASE64.fullmatch(word) is None:
            return False
        word = "".join(word.split()).rstrip("=").translate(_OF_ADDRESSES)
        try:
            decoded = base64.b64decode(word + "=" * (-len(word) % 4))
        except binascii.Error:
            return False
        if closed:
            self.unread = True
        else:
            self._words(decoded)
        return True

    def _bytes(self, value: bytes) -> None:
        # Hosts keep files in base64.
        if not value.isascii() or len(value) % 4 or not self._base64(value.decode()) or len(value) < _LONG:
            self._words(value)

    def _words(self, value: bytes) -> None:
        try:
            text = value.decode()
        except UnicodeDecodeError:
            self.unread = True
            return
        if _UNPRINTABLE.search(text):
            self.unread = True
        else:
            self._text(text)


def _text_part(value: Any) -> object:
    """The text of a part of a message; a part without one says nothing."""
    if isinstance(value, str):
        return value
    return value.get("text") if isinstance(value, Mapping) else getattr(value, "text", None)


def _declared(value: Any) -> list[Any]:
    """What hosts send of a class or a function."""
    if hasattr(value, "model_json_schema"):
        return [value.model_json_schema()]
    return [value.__name__, inspect.getdoc(value), {**getattr(value, "__annotations__", {})}]


def _unescaped(text: str) -> str:
    """A text without the escapes of JSON; letters that are written as two stand as one."""
    if "\\" not in text:
        return text
    plain = _ESCAPE.sub(
        lambda found: chr(int(found[1], 16)) if found[1] else _ESCAPED.get(found[2], found[2]), text
    )
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
