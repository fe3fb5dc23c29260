"""What can be told of a prompt without a model: length, digits, options and the like."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from confroute.heads.base import Vectors

_OPTION = re.compile(r"(?m)^\s*\(?[A-J][.):]\s")
_NUMBER = re.compile(r"\d[\d,]*\.?\d*")
_WORD = re.compile(r"[^\W\d_]+")
_SENTENCE = re.compile(r"[.!?](?:\s|$)")

FEATURES = (
    "log_characters",
    "log_question_characters",
    "log_option_characters",
    "options",
    "digit_share",
    "log_numbers",
    "distinct_number_share",
    "fraction_or_percent",
    "money",
    "formula_share",
    "lines",
    "log_sentences",
    "mean_word_length",
    "long_word_share",
    "distinct_word_share",
    "capital_share",
    "negation",
    "blank",
    "ends_with_question",
    "statements",
    "of_the_above",
    "code",
)


def prompt_features(texts: Sequence[str]) -> Vectors:
    """Cheap features of prompts, as a baseline and beside an embedding.

    Parameters
    ----------
    texts : sequence of str

    Returns
    -------
    array of float32, shape (len(texts), 22)
        Named by `FEATURES`; counts are log(1 + count), shares lie in [0, 1], the rest are 0 or 1 or small numbers.

    Examples
    --------
    >>> found = dict(zip(FEATURES, prompt_features(["What is 2 + 3?"])[0].tolist()))
    >>> round(found["log_characters"], 2), found["options"], found["ends_with_question"]
    (2.71, 0.0, 1.0)
    """
    return np.array([_features(text) for text in texts], dtype=np.float32).reshape(len(texts), len(FEATURES))


def _features(text: str) -> list[float]:
    marks = [*_OPTION.finditer(text)]
    question = text[: marks[0].start()] if marks else text
    numbers, words = _NUMBER.findall(text), _WORD.findall(text)
    size, low = max(1, len(text)), text.lower()
    log = np.log1p
    return [
        log(len(text)),
        log(len(question)),
        log(len(text) - len(question)),
        min(len(marks), 10) / 10,
        sum(map(str.isdigit, text)) / size,
        log(len(numbers)),
        len({*numbers}) / max(1, len(numbers)),
        float(bool(re.search(r"\d\s*/\s*\d|%|percent|half|third|quarter|twice|times as", low))),
        float("$" in text or "dollar" in low),
        sum(c in "=+*/^<>\\{}_" for c in text) / size,
        min(text.count("\n"), 20) / 10,
        log(len(_SENTENCE.findall(question))),
        float(np.mean([len(word) for word in words])) / 10 if words else 0.0,
        sum(len(word) > 8 for word in words) / max(1, len(words)),
        len({word.lower() for word in words}) / max(1, len(words)),
        sum(map(str.isupper, text)) / size,
        float(bool(re.search(r"\b(?:not|except|least|incorrect|false)\b", question.lower()))),
        float("__" in text),
        float(question.rstrip().endswith("?")),
        float("statement 1" in low or "statement i" in low),
        float("of the above" in low or "both a and" in low),
        float("```" in text or "def " in text or "();" in text),
    ]
