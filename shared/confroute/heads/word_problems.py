"""Features of word problems, counted by hand-written rules: what makes a calculation long, without an embedding."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from confroute.heads.base import Vectors

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_WORD = re.compile(r"[a-z]+")
_SENTENCE = re.compile(r"[.!?](?:\s|$)")

# How often each occurs is a feature, log(1 + count).
_KINDS = {
    "number_words": r"\b(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundred|thousand|dozen)\b",
    "decimals": r"\d\.\d",
    "fractions": r"\d\s*/\s*\d|\b(?:half|halves|thirds?|fourths?|quarters?|fifths?|tenths?)\b",
    "percents": r"%|\bpercent",
    "money": r"\$|\b(?:dollars?|cents?|euros?|pounds?)\b",
    "times": r"\b(?:second|minute|hour|day|week|month|year)s?\b",
    "measures": r"\b(?:inch(?:es)?|feet|foot|yards?|miles?|k?m|cm|meters?|grams?|kg|ounces?|gallons?|liters?|degrees?)\b",
    "sums": r"\b(?:total|altogether|combined|sum|in all|both|plus|added?|more)\b",
    "differences": r"\b(?:left|remain(?:s|ing)?|fewer|less|difference|minus|lost|gave|spent|sold)\b",
    "products": r"\b(?:each|every|per|times|twice|double|triple|product)\b|\*",
    "quotients": r"\b(?:split|shared?|divided?|equally|average|ratio|rate)\b",
    "comparisons": r"\b(?:than|as (?:many|much|long|old|far)|compared)\b",
    "conditions": r"\b(?:if|when|unless|until|after|before|then|instead)\b",
    "asked": r"\?|\bhow (?:many|much|long|far|old)\b",
}
_PATTERNS = tuple(re.compile(pattern) for pattern in _KINDS.values())

WORD_PROBLEM_FEATURES = (
    "log_characters",
    "log_words",
    "log_sentences",
    "log_numbers",
    "log_distinct_numbers",
    "log_largest_number",
    *(f"log_{kind}" for kind in _KINDS),
)


def word_problem_features(texts: Sequence[str]) -> Vectors:
    """Count quantities, operations, units, comparisons and what is asked, in English word problems.

    Parameters
    ----------
    texts : sequence of str

    Returns
    -------
    array of float32, shape (len(texts), 20)
        Columns as in `WORD_PROBLEM_FEATURES`, each log(1 + count); "log_largest_number" is log(1 + the largest number).

    Examples
    --------
    >>> row = word_problem_features(["Tom buys 3 pens at $2 each. How much does he pay in total?"])[0]
    >>> features = dict(zip(WORD_PROBLEM_FEATURES, row.tolist()))
    >>> round(np.expm1(features["log_numbers"])), round(np.expm1(features["log_products"]))
    (2, 1)

    `encoder` takes it in place of an embedding model:

    >>> from confroute.heads import encoder
    >>> encoder(word_problem_features)(["Is 2 + 2 = 4?"]).shape
    (1, 20)
    """
    counts = [_counts(text.lower()) for text in texts]
    return np.log1p(np.array(counts, dtype=np.float32)).reshape(len(texts), len(WORD_PROBLEM_FEATURES))


def _counts(low: str) -> list[float]:
    numbers = [float(number.replace(",", "")) for number in _NUMBER.findall(low)]
    return [
        len(low),
        len(_WORD.findall(low)),
        len(_SENTENCE.findall(low)),
        len(numbers),
        len({*numbers}),
        # Beyond the largest float32, which no question asks about.
        min(max(numbers, default=0.0), 1e30),
        *(len(pattern.findall(low)) for pattern in _PATTERNS),
    ]
