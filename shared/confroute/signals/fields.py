"""Which tokens of a structured answer wrote which value."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()


def field_logprobs(
    tokens: Sequence[str] | None, logprobs: Sequence[float] | None
) -> dict[str, tuple[float, ...]]:
    """Log-probabilities of the tokens of each value in the JSON that an answer holds, by path.

    Braces, names and commas are left out: a model is certain of them whatever it knows.

    Parameters
    ----------
    tokens, logprobs : sequence of equal length, or None
        As the model gave them. Their text may have words before the JSON and after it.

    Returns
    -------
    dict
        Paths such as "city.name" or "tags[0]" with natural logarithms; empty where there is no JSON, or where its tokens
        are not known.

    Examples
    --------
    >>> field_logprobs(['{"', "age", '": ', "4", "2", "}"], (-0.0, -0.1, -0.0, -0.7, -0.2, -0.0))
    {'age': (-0.7, -0.2)}
    """
    if not tokens or not logprobs or len(tokens) != len(logprobs):
        return {}
    text = "".join(tokens)
    start = min((at for at in map(text.find, "{[") if at >= 0), default=-1)
    if start < 0:
        return {}
    try:
        spans = dict(_spans(text, start, ""))
    except ValueError:
        return {}
    found: dict[str, list[float]] = {path: [] for path in spans}
    position = 0
    for token, value in zip(tokens, logprobs, strict=True):
        end = position + len(token)
        for path, (low, high) in spans.items():
            if position < high and low < end:
                found[path].append(value)
        position = end
    return {path: tuple(values) for path, values in found.items() if values}


def _after(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _spans(text: str, at: int, path: str) -> Iterator[tuple[str, tuple[int, int]]]:
    """Path and extent of each value that is no object and no list, from the JSON value at `at`.

    Raises
    ------
    ValueError
        It is not JSON.
    """
    _, end = _DECODER.raw_decode(text, at)
    if text[at] not in "{[":
        # The quotes of a text are as certain as braces are.
        yield path, (at + 1, end - 1) if text[at] == '"' and end - at > 2 else (at, end)
        return
    place, number = _after(text, at + 1), 0
    while place < end - 1:
        inner = f"{path}[{number}]"
        if text[at] == "{":
            name, place = _DECODER.raw_decode(text, place)
            place = _after(text, _after(text, place) + 1)
            inner = f"{path}.{name}" if path else str(name)
        yield from _spans(text, place, inner)
        place = _after(text, _DECODER.raw_decode(text, place)[1])
        if text[place] == ",":
            place = _after(text, place + 1)
        number += 1
