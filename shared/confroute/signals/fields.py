"""Log-probabilities of each value in a structured answer."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from confroute.alignment import Spelling, spellings

_SPACE = re.compile(r"\s*")
_BEGIN = re.compile(r"[{\[]")
_DECODER = json.JSONDecoder()
_CALL = {"arguments", "name"}


def field_logprobs(
    tokens: Sequence[str] | None,
    logprobs: Sequence[float] | None,
    answer: str,
    *,
    names: Collection[str] | None = None,
) -> dict[str, tuple[float, ...]]:
    """Collect the token log-probabilities of each value in an answer's JSON, by path.

    Braces, names and commas are left out: a model is certain of them whatever it knows.

    Parameters
    ----------
    tokens, logprobs : sequence of equal length, or None
        The model's output. Other text, reasoning and other JSON may stand around the answer's.
    answer : str
        What was validated, as JSON: a value, or a list of calls with "name" and "arguments". The output's JSON is the one
        that holds its values, whatever types, names and defaults validation gave them, else the only one with its names.
    names : collection of str, optional
        Those that a schema declares. Any other was written by the model: it may be a private word, and its place stands in the path for
        it ("salaries.*0"). None: all names may be shown.

    Returns
    -------
    dict
        Natural logarithms by path, such as "city.name" or "tags[0]"; of several calls that were written apart, each path begins
        with the call's number. Empty where the output does not hold the whole answer, or where its tokens are unknown.

    Examples
    --------
    >>> tokens = ["{", "draft", "} ", '{"', "age", '": ', "4", "2", "}"]
    >>> field_logprobs(tokens, (-0.0,) * 6 + (-0.7, -0.2, -0.0), '{"age": 42}')
    {'age': (-0.7, -0.2)}
    """
    if not tokens or not logprobs or len(tokens) != len(logprobs):
        return {}
    try:
        expected = json.loads(answer)
        found = (_fields(one, logprobs, expected, names) for one in spellings(tokens))
        return next(filter(None, found), {})
    except (ValueError, RecursionError):  # nested so deeply that Python does not read it
        return {}


def _fields(
    spelling: Spelling, logprobs: Sequence[float], expected: Any, names: Collection[str] | None
) -> dict[str, tuple[float, ...]]:
    text = spelling.data.decode("utf-8", "surrogateescape")
    chosen = _chosen([*_values(text)], expected)
    found: dict[str, tuple[float, ...]] = {}
    for number, start in enumerate(chosen):
        for path, (low, high) in _spans(text, start, f"[{number}]" if len(chosen) > 1 else "", names):
            first, last = (len(text[:at].encode("utf-8", "surrogateescape")) for at in (low, high))
            found[path] = tuple(logprobs[position] for position in spelling.tokens_within(first, last))
    return found


def _values(text: str) -> Iterator[tuple[int, Any]]:
    """Each object and array in a text, outermost ones only, and where it begins."""
    begin = _BEGIN.search(text)
    while begin is not None:
        try:
            value, end = _DECODER.raw_decode(text, begin.start())
        except ValueError:
            end = begin.end()
        except RecursionError:
            return
        else:
            yield begin.start(), value
        begin = _BEGIN.search(text, end)


def _chosen(values: Sequence[tuple[int, Any]], expected: Any) -> list[int]:
    """Where the expected value begins, or each of its calls; empty where any is missing or more than one might be meant."""
    calls = isinstance(expected, list) and all(
        isinstance(one, dict) and set(one) == _CALL for one in expected
    )
    count = len(expected) if calls else 1
    known = set(_leaves(expected))
    chosen: list[int] = []
    # The last ones: models write drafts of their answer before it.
    for start, value in reversed(values):
        leaves = set(_leaves(value))
        if count > 0 and leaves and leaves <= known:
            chosen.insert(0, start)
            count -= len(value) if calls and isinstance(value, list) else 1
    if count == 0 and chosen:
        return chosen
    named = [start for start, value in values if _same_names(value, expected) and known & set(_leaves(value))]
    return named if not chosen and len(named) == 1 else []


def _leaves(value: Any) -> Iterator[str]:
    """The values inside, in one form for those that validation turns into each other."""
    if isinstance(value, (dict, list)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _leaves(inner)
        return
    text = value.strip().lower() if isinstance(value, str) else json.dumps(value)
    try:
        yield f"{float(text):.12g}"
    except ValueError:
        yield text


def _same_names(value: Any, expected: Any) -> bool:
    """Whether a value has the names of the expected one, or of its only call's arguments."""
    if isinstance(expected, list) and len(expected) == 1 and isinstance(expected[0], dict):
        (expected,) = expected
    if not isinstance(value, dict) or not isinstance(expected, dict):
        return False
    inner = expected.get("arguments")
    return any(
        bool(value) and set(value) <= set(names) for names in (expected, inner) if isinstance(names, dict)
    )


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _spans(
    text: str, at: int, path: str, names: Collection[str] | None
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yield path and span of each scalar inside the JSON value at `at`; ValueError where it is not JSON."""
    _, end = _DECODER.raw_decode(text, at)
    if text[at] not in "{[":
        # The quotes of a string are as certain as braces.
        yield path, (at + 1, end - 1) if text[at] == '"' and end - at > 2 else (at, end)
        return
    position, index = _skip_space(text, at + 1), 0
    while position < end - 1:
        inner = f"{path}[{index}]"
        if text[at] == "{":
            name, position = _DECODER.raw_decode(text, position)
            position = _skip_space(text, _skip_space(text, position) + 1)
            shown = name if names is None or name in names else f"*{index}"
            inner = f"{path}.{shown}" if path else str(shown)
        yield from _spans(text, position, inner, names)
        position = _skip_space(text, _DECODER.raw_decode(text, position)[1])
        if text[position] == ",":
            position = _skip_space(text, position + 1)
        index += 1
