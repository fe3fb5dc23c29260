"""Where the final answer stands in a text: the number, the option letter, the fields' values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from confroute.signals.answers import Kind, final_answer, kind_of, number_span, option_span

Spans: TypeAlias = "tuple[tuple[int, int], ...]"

_OBJECT = re.compile(r"\s*(?:```(?:json)?\s*)?(?=\{)")
_SCALAR = re.compile(
    r'"(?:[^"\\]|\\.)*"(?P<key>\s*:)?|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|true|false|null', re.DOTALL
)


def answer_spans(text: str, question: str, *, kind: Kind = "auto") -> Spans:
    """Start and end, in characters, of each part of a text that is its answer; empty where there is none.

    Parameters
    ----------
    text : str
        What a model said.
    question : str
        What it was asked: decides between number, option and text where `kind` is "auto".
    kind : {"auto", "number", "option", "text"}
        See `confroute.signals.answers.final_answer`.

    Returns
    -------
    tuple of (start, end)
        Of a JSON object (a structured answer, a call's arguments) every value, none of its keys; else the one
        number or option that `final_answer` reads, or all of a short text.

    Examples
    --------
    >>> text = "3 + 4 = 7, so the answer is 7 apples."
    >>> [text[start:end] for start, end in answer_spans(text, "How many apples?")]
    ['7']
    >>> text = '{"city": "Oslo", "age": 31}'
    >>> [text[start:end] for start, end in answer_spans(text, "")]
    ['"Oslo"', '31']
    """
    fields = _value_spans(text)
    if fields:
        return fields
    wanted = kind_of(question) if kind == "auto" else kind
    found = None
    if wanted == "option":
        found = option_span(text)
    elif wanted == "number":
        found = number_span(text)
    if found is not None:
        return (found,)
    if wanted == "text" or (wanted == "number" and kind == "auto"):
        return ((0, len(text)),) if final_answer(text, question, kind="text") is not None else ()
    return ()


def _value_spans(text: str) -> Spans:
    begin = _OBJECT.match(text)
    if begin is None:
        return ()
    try:
        _, end = json.JSONDecoder().raw_decode(text, begin.end())
    except json.JSONDecodeError:
        return ()
    found = _SCALAR.finditer(text, begin.end(), end)
    return tuple(match.span() for match in found if match.lastgroup is None)


def tokens_within(tokens: Sequence[str], spans: Spans) -> list[int]:
    """Places of the tokens that share a character with any of the spans of their joined text, which come in order and apart.

    Examples
    --------
    >>> tokens_within(["The", " answer", " is", " 4", "2", "."], ((14, 16),))
    [3, 4]
    """
    if not spans:
        return []
    firsts, lasts = np.array(spans).T
    ends = np.fromiter(map(len, tokens), np.int64, len(tokens)).cumsum()
    starts = np.concatenate([[0], ends[:-1]])
    # The first span that ends behind a token's start is the only one that it can begin in or before.
    at = np.searchsorted(lasts, starts, side="right")
    found: list[int] = np.flatnonzero((at < len(lasts)) & (firsts[at - (at == len(lasts))] < ends)).tolist()
    return found
