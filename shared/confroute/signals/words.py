"""Words that carry meaning: what a claim and the passages it should rest on are compared by."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W_]+(?:[.,:]\d+)*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_COMMON = """
    a about after all also am an and any are as at be been before both but by can could did do does each for from had
    has have he her here him his how i if in into is it its just may me more most must my no not of on only or other
    our out over own same she should so some such than that the their them then there these they this those through
    to too under until up very was we were what when where which while who whom whose why will with would yes you your
    answer based context document information given mentioned provided says text according
"""
_STOP = frozenset(_COMMON.split())


def content_words(text: str) -> frozenset[str]:
    """Words and numbers of a text without those that every text has, in lower case and without a plural s.

    Examples
    --------
    >>> sorted(content_words("The ferries leave at 07:30 from both piers."))
    ['07:30', 'ferrie', 'leave', 'pier']
    """
    words = (match.group().lower() for match in _WORD.finditer(text))
    return frozenset(_singular(word) for word in words if word not in _STOP)


def numbers(text: str) -> frozenset[str]:
    """The numbers of a text as they are written.

    Examples
    --------
    >>> sorted(numbers("07:30 for 4.50, twice 3."))
    ['07:30', '3', '4.50']
    """
    return frozenset(word for word in content_words(text) if any(c.isdigit() for c in word))


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text that hold a word.

    Examples
    --------
    >>> sentences("It is open. Is it? Yes!")
    ['It is open.', 'Is it?', 'Yes!']
    """
    return [part.strip() for part in _SENTENCE.split(text) if _WORD.search(part)]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word
