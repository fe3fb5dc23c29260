"""Log-probabilities of each value in a structured answer."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence

_SPACE = re.compile(r"\s*")
_DECODER = json.JSONDecoder()


def field_logprobs(
    tokens: Sequence[str] | None, logprobs: Sequence[float] | None
) -> dict[str, tuple[float, ...]]:
    """Collect the token log-probabilities of each value in an answer's JSON, by path.

    Braces, names and commas are left out: a model is certain of them whatever it knows.

    Parameters
    ----------
    tokens, logprobs : sequence of equal length, or None
        The model's output. There may be text before and after the JSON.

    Returns
    -------
    dict
        Natural logarithms by path, such as "city.name" or "tags[0]"; empty where there is no JSON, or where its tokens
        are unknown.

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
    logprobs_by_path: dict[str, list[float]] = {path: [] for path in spans}
    position = 0
    for token, value in zip(tokens, logprobs, strict=True):
        end = position + len(token)
        for path, (low, high) in spans.items():
            if position < high and low < end:
                logprobs_by_path[path].append(value)
        position = end
    return {path: tuple(values) for path, values in logprobs_by_path.items() if values}


def _skip_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def _spans(text: str, at: int, path: str) -> Iterator[tuple[str, tuple[int, int]]]:
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
            inner = f"{path}.{name}" if path else str(name)
        yield from _spans(text, position, inner)
        position = _skip_space(text, _DECODER.raw_decode(text, position)[1])
        if text[position] == ",":
            position = _skip_space(text, position + 1)
        index += 1
