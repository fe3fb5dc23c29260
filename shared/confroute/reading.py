"""The one reader of files that anybody may have written: strict JSON, and fields whose types are checked.

Every other reader stands on it, so that a hostile or damaged file ends in an error that names file, line and field.
"""

from __future__ import annotations

import gzip
import json
import math
import os
import re
import types
import typing
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import IO, Any, BinaryIO, NoReturn, TypeAlias, TypeVar, cast

from confroute.errors import ConfrouteError, FormatError
from confroute.types import JSON

Fields: TypeAlias = "dict[str, JSON]"
Place: TypeAlias = "tuple[str | int, ...]"
E = TypeVar("E", bound=ConfrouteError)

DEPTH = 100
"""How deep lists and objects may lie in each other: far less than what Python's own stack bears."""
# A whole number of so many digits is still a float.
_DIGITS = 308
GZIP = b"\x1f\x8b"
_SHOWN = 60
_SHOWN_IDS = 5
_BLOCK = 65_536
_EXPECTED = "one JSON object in UTF-8"
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_WORD = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},:]|[^\s\[\]{},:"]+', re.DOTALL)
_NUMBER = re.compile(r"-?\d+(\.\d+)?([eE][+-]?\d+)?")


class _RefusedError(ValueError):
    """Ends the fast reading; `_problem` then looks for the place."""


def read_json(text: str | bytes, *, infinite: bool = False) -> JSON:
    """Read JSON as its standard has it, and nothing that two readers could take for two things.

    Parameters
    ----------
    text : str or bytes
        Bytes are UTF-8.
    infinite : bool
        Whether NaN and infinities may stand in it, as Python writes them.

    Raises
    ------
    FormatError
        No JSON, a key that appears twice in one object, a number that no float holds, or more than `DEPTH` levels.

    Examples
    --------
    >>> read_json('{"a": [1, 2.5]}')
    {'a': [1, 2.5]}
    >>> read_json('{"a": {"b": 1, "b": 2}}')
    Traceback (most recent call last):
    confroute.errors.FormatError: a.b appears twice: expected each key once
    """
    given = _decoded(text) if isinstance(text, bytes) else text.removeprefix("\ufeff")
    try:
        if not _is_deep(given):
            read: JSON = json.loads(
                given,
                object_pairs_hook=_object,
                parse_int=_whole,
                parse_float=_finite,
                parse_constant=float if infinite else _refuse,
            )
            return read
    except json.JSONDecodeError as error:
        where = f"column {error.colno}" if error.pos < len(given.rstrip()) else "its end"
        found = "nothing" if not given.strip() else f"{error.msg} at {where}"
        msg = f"{found}; expected {_EXPECTED}"
        raise FormatError(msg, line=error.lineno) from error
    except (_RefusedError, RecursionError):
        # The fast reader does not know where it is.
        pass
    raise _problem(given, infinite=infinite)


def _decoded(text: bytes) -> str:
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        msg = f"byte {error.object[error.start]:#04x} is no text; expected {_EXPECTED}"
        raise FormatError(msg, line=text.count(b"\n", 0, error.start) + 1) from error


def _is_deep(text: str) -> bool:
    """Whether the text is nested too deeply, decided without a loop over its characters: most texts are long and flat."""
    brackets = text.encode("utf-8", "surrogatepass").translate(None, _NOT_BRACKETS)
    for _ in range(DEPTH):
        fewer = brackets.replace(b"[]", b"").replace(b"{}", b"")
        if fewer == brackets:
            break
        brackets = fewer
    # Brackets inside texts need not match.
    return bool(brackets) and any(len(place) >= DEPTH for place, _, _ in _values(text))


def _object(pairs: list[tuple[str, JSON]]) -> Fields:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise _RefusedError
    return made


def _whole(digits: str) -> int:
    if len(digits) > _DIGITS:
        raise _RefusedError
    return int(digits)


def _finite(number: str) -> float:
    value = float(number)
    if math.isinf(value):
        raise _RefusedError
    return value


def _refuse(_: str) -> NoReturn:
    raise _RefusedError


def _problem(text: str, *, infinite: bool) -> FormatError:
    """The first thing in a text that the fast reader refused."""
    for place, word, at in _values(text):
        what = _what_is_wrong(place, word, infinite=infinite)
        if what is not None:
            return FormatError(f"{dotted(place) or 'the value'}{what}", line=text.count("\n", 0, at) + 1)
    return FormatError(f"expected {_EXPECTED}")


def _what_is_wrong(place: Place, word: str, *, infinite: bool) -> str | None:
    if not word:
        return " appears twice: expected each key once"
    if len(place) >= DEPTH:
        return f" lies deeper than {DEPTH} levels of lists and objects"
    if not infinite and word in {"NaN", "Infinity", "-Infinity"}:
        return f": {word} is not a JSON number: expected a finite number or null"
    if _NUMBER.fullmatch(word) and (len(word) > _DIGITS or math.isinf(float(word))):
        return f": {word if len(word) <= 20 else f'{word[:20]}... of {len(word)} characters'} is larger than any number that a float holds: expected one below 1.8e308"
    return None


def _values(text: str) -> Iterator[tuple[Place, str, int]]:
    """Where each value of a JSON text stands, its first word and offset; a key that appears twice has an empty word."""
    walk = _Walk()
    for match in _WORD.finditer(text):
        word = match[0]
        if word in ",]}":
            walk.go_on(ends=word != ",")
        elif walk.awaits_key and word[0] == '"':
            if walk.is_second(_unquoted(word)):
                yield tuple(walk.place), "", match.start()
        elif word != ":":
            yield tuple(walk.place), word, match.start()
            if word in "[{":
                walk.enter(is_object=word == "{")
        if len(walk.place) > DEPTH:
            return


class _Walk:
    """Where one is in a JSON text. Not recursive: this also reads what is nested too deeply."""

    def __init__(self) -> None:
        self.place: list[str | int] = []
        # Of each open container the keys so far, None for a list.
        self._keys: list[set[str] | None] = []
        self._named = False

    @property
    def awaits_key(self) -> bool:
        return bool(self._keys) and self._keys[-1] is not None and not self._named

    def is_second(self, key: str) -> bool:
        """Take the next key, and tell whether the object had it already."""
        keys = self._keys[-1]
        assert keys is not None, "only an object awaits keys"
        known = key in keys
        keys.add(key)
        self.place[-1], self._named = key, True
        return known

    def go_on(self, *, ends: bool) -> None:
        """On to what follows in this container, or, where it ends, in the one around it."""
        self._named = ends
        if ends:
            del self._keys[-1:], self.place[-1:]
        elif self.place and isinstance(self.place[-1], int):
            self.place[-1] += 1

    def enter(self, *, is_object: bool) -> None:
        self._keys.append(set() if is_object else None)
        self.place.append("" if is_object else 0)
        self._named = False


def _unquoted(word: str) -> str:
    try:
        return str(json.loads(word))
    except ValueError:
        return word


def dotted(place: Iterable[str | int]) -> str:
    """A place in words.

    Examples
    --------
    >>> dotted(("policy", "gates", 0, "signal"))
    'policy.gates[0].signal'
    """
    steps = [f"[{step}]" if isinstance(step, int) else f".{step[:_SHOWN]}" for step in islice(place, 9)]
    return "".join(steps).removeprefix(".")


def line_of(text: str, place: Place) -> int:
    r"""The line in which a value of a JSON text begins, or else the innermost value around it.

    Examples
    --------
    >>> line_of('{"a":\n [1,\n 2]}', ("a", 1))
    3
    """
    found, deepest = 0, -1
    for here, _, at in _values(text):
        if len(here) > deepest and here == place[: len(here)]:
            found, deepest = at, len(here)
    return text.count("\n", 0, found) + 1


@contextmanager
def refusing(error: Callable[[str], Exception], where: str = "") -> Iterator[None]:
    """Raise a `FormatError` as the error of a kind of file, with where it was found; also a decorator."""
    try:
        yield
    except FormatError as refusal:
        raise error(f"{where}: {refusal}" if where else str(refusal)) from refusal


def json_file(path: str | os.PathLike[str], error: Callable[[str], Exception]) -> JSON:
    """Read a file that holds one JSON value.

    Parameters
    ----------
    path : path-like
    error : callable
        Makes the error of this kind of file.
    """
    text = file_text(path, error)
    try:
        return read_json(text)
    except FormatError as refusal:
        msg = f"{path}, line {refusal.line}: {refusal}"
        raise error(msg) from refusal


def file_text(path: str | os.PathLike[str], error: Callable[[str], Exception]) -> bytes:
    """All bytes of a file; `error` where it cannot be read."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as refusal:  # ValueError: a path that holds a null character
        reason = "no such file" if isinstance(refusal, FileNotFoundError) else f"cannot be read ({refusal})"
        msg = f"{path}: {reason}"
        raise error(msg) from refusal


def json_lines(
    path: str | os.PathLike[str],
    error: Callable[[str], Exception],
    *,
    torn: Callable[[int], None] | None = None,
    start: bytes = b"",
) -> Iterator[tuple[int, JSON]]:
    """Read JSON lines one by one, plain or gzip, told apart by content; empty lines are skipped.

    Parameters
    ----------
    path : path-like
    error : callable
        Makes the error of this kind of file; its message names file and line.
    torn : callable, optional
        Called with the number of a last line that was cut off in the middle, which is skipped then; without it, it is an
        error as any other line.
    start : bytes
        How every line begins: what does not is no torn line.

    Yields
    ------
    tuple of (int, JSON)
        The line's number, from 1, and its value.
    """
    at = 0
    try:
        with _opened(Path(path)) as lines:
            for line in lines:
                at += 1
                if not line.strip():
                    continue
                try:
                    value = read_json(line)
                except FormatError as refusal:
                    if torn is None or line.endswith(b"\n") or not _is_torn(line, start):
                        msg = f"{path}, line {at}: {refusal}"
                        raise error(msg) from refusal
                    torn(at)
                    return
                yield at, value
    except FileNotFoundError as missing:
        msg = f"{path}: no such file"
        raise error(msg) from missing
    except (OSError, EOFError, zlib.error) as unreadable:
        msg = f"{path}, after line {at}: {unreadable}; expected a readable file of JSON lines, plain or gzip"
        raise error(msg) from unreadable


def _opened(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        packed = file.read(len(GZIP)) == GZIP
    return cast("IO[bytes]", gzip.open(path, "rb")) if packed else path.open("rb")


def end_whole(path: Path, start: bytes, error: Callable[[str], Exception]) -> None:
    """End a file of JSON lines with a whole line, so that more can be appended to it.

    Parameters
    ----------
    path : Path
    start : bytes
        How every line begins: a last line that begins so and is not whole was left by a crash, and is cut off.
    error : callable
        Makes the error for any other end; the file stays as it is.
    """
    with path.open("rb+") as file:
        end = _end_of_lines(file)
        file.seek(end)
        rest = file.read()
        if is_json(rest):
            file.write(b"\n")
        elif _is_torn(rest, start):
            file.truncate(end)
        else:
            msg = f"{path} ends with {shown(rest)}: expected a line that begins with {start.decode()}; name another file"
            raise error(msg)


def _is_torn(line: bytes, start: bytes) -> bool:
    return line.startswith(start) or start.startswith(line)


def is_json(line: bytes) -> bool:
    """Whether a line is JSON as `read_json` has it."""
    try:
        read_json(line)
    except FormatError:
        return False
    return True


def _end_of_lines(file: BinaryIO) -> int:
    """Where the last complete line ends, read from the end of the file, since runs are long."""
    at = file.seek(0, os.SEEK_END)
    while at > 0:
        start = max(0, at - _BLOCK)
        file.seek(start)
        found = file.read(at - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0


def refused(where: str, value: object, expected: str) -> FormatError:
    """Make the error for a value that does not fit the format."""
    return FormatError(f"{where} is {shown(value)}: expected {expected}")


def shown_ids(ids: Sequence[str]) -> str:
    """The first few ids of many, as an error message lists them."""
    return ", ".join(map(repr, ids[:_SHOWN_IDS])) + (", ..." if len(ids) > _SHOWN_IDS else "")


def shown(value: object) -> str:
    """A value as an error message shows it, cut to a length that one can read."""
    text = repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def fields(value: JSON, where: str) -> Fields:
    """A JSON object, or an error.

    Raises
    ------
    FormatError
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
    FormatError
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
    FormatError
        Anything else. True and False are not numbers here.
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


def whole(value: JSON, where: str, *, low: int = 0) -> int:
    """A whole number of at least `low`.

    Raises
    ------
    FormatError
        Anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise refused(where, value, f"a whole number of {low} or more")
    return value


def items(value: JSON, where: str) -> list[JSON]:
    """A list, or an error; None counts as an empty list.

    Raises
    ------
    FormatError
        Anything else.
    """
    if value is None:
        return []
    if not isinstance(value, list):
        raise refused(where, value, "a list")
    return value


def numbers(value: JSON, where: str, *, low: float = -math.inf) -> list[float]:
    """A list of finite numbers of at least `low`; None counts as an empty one."""
    found = items(value, where)
    # Most lists are long and flawless: the place of a fault is only named where there is one.
    plain = cast("list[float]", found)
    finite = set(map(type, found)) <= {float, int} and all(map(math.isfinite, plain))
    if finite and (low == -math.inf or min(plain, default=low) >= low):
        return plain.copy()
    return [number(item, f"{where}[{at}]", low=low) for at, item in enumerate(found)]


def texts(value: JSON, where: str) -> list[str]:
    """A list of strings; None counts as an empty one."""
    found = items(value, where)
    if set(map(type, found)) <= {str}:
        return cast("list[str]", found.copy())
    return [text(item, f"{where}[{at}]") for at, item in enumerate(found)]


def optional_numbers(value: JSON, where: str) -> tuple[float, ...] | None:
    """A list of finite numbers, or None."""
    return None if value is None else tuple(numbers(value, where))


def optional_texts(value: JSON, where: str) -> tuple[str, ...] | None:
    """A list of strings, or None."""
    return None if value is None else tuple(texts(value, where))


def unknown(data: Mapping[str, JSON], known: Sequence[str]) -> Fields:
    """The fields that the format does not name, which are kept."""
    return {key: value for key, value in data.items() if key not in known}


def is_version(value: object, version: int) -> bool:
    """Whether a file's version is this one: True and 1.0 equal 1 in Python, and are no versions."""
    return type(value) is int and value == version


def fits(value: object, hint: Any) -> bool:
    """Whether a value is of an annotated type; what cannot be checked fits.

    Examples
    --------
    >>> fits(3, float), fits(True, float), fits((1, "a"), tuple[int, ...]), fits(None, str | None)
    (True, False, False, True)
    """
    return fitting(hint)(value)


@lru_cache(maxsize=1024)
def fitting(hint: Any) -> Callable[[object], bool]:
    """Make the function that tells for a value whether it is of an annotated type, as `fits` does: a log holds many of few types."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in {typing.Union, types.UnionType}:
        any_of = [*map(fitting, inner)]
        return lambda value: any(fit(value) for fit in any_of)
    if origin is typing.Literal:
        return lambda value: any(type(value) is type(one) and value == one for one in inner)
    if isinstance(origin, type):
        return _fitting_parts(origin, inner)
    return _instances(hint) if isinstance(hint, type) else lambda _: True


def _instances(kind: type) -> Callable[[object], bool]:
    """As Python has it, but True and False are no numbers, and whole numbers do where any are asked for."""
    if kind in {int, float}:
        return lambda value: isinstance(value, (int, kind)) and not isinstance(value, bool)
    if getattr(kind, "_is_protocol", False) and not getattr(kind, "_is_runtime_protocol", False):
        return lambda value: not isinstance(value, (str, int, float, tuple, type(None)))
    return lambda value: isinstance(value, kind)


def _fitting_parts(origin: type, inner: tuple[Any, ...]) -> Callable[[object], bool]:
    """As `fitting`, for a type with parameters."""
    if issubclass(origin, Mapping):
        fit_value = fitting(inner[1])
        return lambda value: isinstance(value, Mapping) and all(map(fit_value, value.values()))
    if not issubclass(origin, Sequence):
        return lambda value: isinstance(value, origin)
    if origin is tuple and inner[-1] is not ...:
        fits_of = [*map(fitting, inner)]
        return lambda value: (
            isinstance(value, (tuple, list))
            and len(value) == len(fits_of)
            and all(fit(one) for fit, one in zip(fits_of, value, strict=True))
        )
    fit_one = fitting(inner[0])
    return lambda value: isinstance(value, (tuple, list)) and all(map(fit_one, value))
