"""What rules search: every text of what is sent, decoded; and that what has none is told."""

import base64
import enum
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from confroute.text_extraction import read
from confroute.types import Reading

WORD = "Jane Doe"
ESCAPED = "".join(f"\\u{ord(letter):04x}" for letter in WORD)
PERCENT = "".join(f"%{ord(letter):02x}" for letter in WORD)


class Open(BaseModel):
    """A class that takes any field."""

    model_config = ConfigDict(extra="allow")
    at: int = 0


class Titled(BaseModel):
    """A field with a title."""

    at: int = Field(0, title=WORD)


@dataclass
class Record:
    """A plain record."""

    name: str


class Kind(str, enum.Enum):  # noqa: UP042  as Google's client declares it: str() of it is the name with its class
    """A text with a name."""

    JANE = WORD


def greet(who: str) -> str:
    """Greet Jane Doe."""
    return who


def encoded(text, times=1):
    """In base64, long enough to be taken for it."""
    for _ in range(times):
        text = base64.b64encode(f"{text:400}".encode()).decode()
    return text


PLACES = {
    "text": WORD,
    "key": {WORD: 1},
    "key of a key": {"a": [{"b": {WORD: None}}]},
    "key that is no text": {("a", WORD): 1},
    "value": {"a": (1, {WORD})},
    "JSON": json.dumps({"a": WORD}),
    "key in JSON": json.dumps({WORD: 4000}),
    "duplicate key in JSON": f'{{"a": "{WORD}", "a": 1}}',
    "duplicate key in JSON, last": f'{{"a": 1, "a": "{WORD}"}}',
    "escaped key": f'{{"{ESCAPED}": 1}}',
    "JSON in JSON": json.dumps({"a": json.dumps({"b": json.dumps([ESCAPED])})}),
    "JSON that is cut off": f'{{"a": "{ESCAPED}',
    "JSON in a text": f'call f with {{"a": "{ESCAPED}"}}',
    "JSON, too deep to parse": "[" * 5000 + f'"{ESCAPED}"' + "]" * 5000,
    "JSON with a number that is too long": f'{{"{ESCAPED}": {"9" * 5000}}}',
    "address": f"https://e.org/{PERCENT}.png",
    "address without a scheme": f"//e.org/{PERCENT}",
    "encoded twice": f"https://e.org/{PERCENT.replace('%', '%25')}",
    "encoded three times": f"/{PERCENT.replace('%', '%2525')}",
    "HTML": "&#74;ane&#x20;Doe",
    "like a data URL": f"data:image/png;base64,{WORD}",
    "data URL of a text": f"data:text/plain;base64,{base64.b64encode(WORD.encode()).decode()}",
    "data URL without base64": f"data:text/plain,{PERCENT}",
    "name in a data URL": f"data:image/png;name={WORD};base64,AAAA",
    "base64": encoded(WORD),
    "base64 twice": encoded(WORD, times=2),
    "base64 of addresses": base64.urlsafe_b64encode((WORD + "\u00ff\u00fe?>" * 99).encode()).decode(),
    "word that is no base64": "-" * 2000 + WORD,
    "words on many lines": "\n".join(["abcdefgh"] * 99 + [WORD]),
    "base64 in lines": base64.encodebytes(f"{WORD:400}".encode()).decode(),
    "bytes": WORD.encode(),
    "bytes in base64": base64.b64encode(WORD.encode()),
    "pydantic extra": Open(who=WORD),
    "name of a pydantic extra": Open(**{WORD: 1}),
    "pydantic field": Titled.model_construct(at=WORD),
    "schema": Titled,
    "dataclass": Record(name=WORD),
    "enumeration": Kind.JANE,
    "array": np.array(["a", WORD]),
    "function": greet,
    "blocks side by side": [{"type": "text", "text": "Jane "}, {"type": "text", "text": "Doe"}],
    "blocks joined by a line": [{"text": "Jane\u00a0"}, {"text": WORD[5:]}, {"text": f"x{WORD}"}],
    "texts side by side": ["Jane ", "Doe"],
}


@pytest.mark.parametrize("place", PLACES)
def test_a_word_is_found_wherever_it_stands(place):
    """As a pattern would look for it."""
    assert any(WORD in text for text in read(PLACES[place]).texts)
    assert any(WORD in text for text in read({"a": [PLACES[place]]}).texts)


@pytest.mark.parametrize("between", ["", "\n", " "])
def test_blocks_are_read_as_any_host_joins_them(between):
    """Hosts send them side by side, in lines, or one after the other; something else may stand between them."""
    blocks = [{"type": "text", "text": "Jane"}, {"type": "image_url"}, {"type": "text", "text": "Doe"}]
    assert f"Jane{between}Doe" in read(blocks).texts
    assert f"Jane{between}Doe" in read({"system": blocks}).texts


@pytest.mark.parametrize(
    ("number", "written"), [(4000, "4000"), (1e22, "1e+22"), (12345678901234567.0, "1.2345678901234568e+16")]
)
def test_numbers_are_read_as_they_are_sent(number, written):
    """Large ones too."""
    assert read({"a": number}).texts[-1] == written
    assert written in read(json.dumps({"a": number})).texts[0]


class Closed:
    """An object that says nothing of itself."""


class Broken:
    """An object that cannot be read."""

    def __str__(self):
        raise OSError


class BrokenField(BaseModel):
    """A class whose field is not there."""

    a: int


UNREAD = {
    "bytes": b"\x89PNG\r\n",
    "zeros": b"\x00Jane",
    "a PDF": b"%PDF-1.7 (Jane) Tj",
    "bytes in base64": base64.b64encode(bytes(range(256))).decode(),
    "bytes as hosts keep them": base64.b64encode(bytes(range(256))),
    "an image": f"data:image/png;base64,{base64.b64encode(bytes(range(20))).decode()}",
    "a file that seems a text": f"data:application/pdf;base64,{base64.b64encode(b'1 0 obj').decode()}",
    "an open file": None,
    "a path": Path("a.png"),
    "an object without a text": Closed(),
    "an object that raises": Broken(),
    "a field that is not there": BrokenField.model_construct(),
    "a number without end": 10**5000,
    "a text encoded again and again": f"%{'25' * 9}41",
    "a generator": (one for one in "ab"),
}


@pytest.mark.parametrize("what", UNREAD)
def test_what_holds_no_text_that_can_be_found_is_told(what, tmp_path):
    """Inside other values too; and nothing of it is searched, as any short pattern is found in bytes by chance."""
    with (tmp_path / "f").open("w+") as file:
        value = file if what == "an open file" else UNREAD[what]
        assert read(value).unread
        assert read({"a": ["b", value]}).unread
        assert "b" in read({"a": [value, "b"]}).texts
        assert not any("PNG" in text for text in read(value).texts)


@pytest.mark.parametrize(
    "value", ["", None, True, {}, [], "q", {"a": [None]}, {"type": "text"}, "a b" * 2000, "x" * 255]
)
def test_plain_values_hide_nothing(value):
    """They are read whole."""
    assert not read(value).unread


def test_words_of_the_protocols_are_no_texts():
    """They stand in every request: a pattern that is one of them would find all."""
    assert read({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}) == Reading(
        texts=("f",)
    )


def test_an_object_is_read_as_its_host_sends_it():
    """Not what the host knows of it besides."""
    reading = read([Record(name="a")], as_sent=lambda value: {"b": 1} if isinstance(value, Record) else value)
    assert reading.texts == ("b", "1")


JSON = st.recursive(
    st.text() | st.integers() | st.none(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=9,
)


@given(JSON, st.integers(0, 3))
def test_every_name_and_text_of_a_value_is_found(value, times):
    """Also in JSON inside JSON."""
    sent = value
    for _ in range(times):
        sent = json.dumps({"a": sent})
    texts = "\n".join(read(sent).texts)

    def check(part):
        if isinstance(part, dict):
            for name, inner in part.items():
                check(name), check(inner)
        elif isinstance(part, list):
            for inner in part:
                check(inner)
        elif isinstance(part, str) and "\\" not in part and "%" not in part and "&" not in part:
            from confroute.text_extraction import _PROTOCOL

            assert part in texts or part in _PROTOCOL

    check(value)


@given(st.binary())
def test_no_bytes_are_lost(value):
    """They are a text that is searched, or cannot be read."""
    for given_ in (value, bytearray(value), f"data:image/png;base64,{base64.b64encode(value).decode()}"):
        reading = read(given_)
        assert reading.unread or not value or any(value.decode() in text for text in reading.texts)
