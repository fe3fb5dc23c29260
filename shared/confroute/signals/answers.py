"""Extract the final answer from a text: a number, an option letter or a short string that samples can be compared by."""

from __future__ import annotations

import re
import unicodedata
from typing import Literal, TypeAlias

from confroute.types import Generation

Kind: TypeAlias = Literal["auto", "number", "option", "text"]

_NUMBER = r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?"
# GSM8K marks its answers with "####"; maths-tuned models write \boxed{}.
_MARKED_NUMBER = re.compile(
    rf"(?:####|\\boxed\{{|\banswer\s*(?:is|:|=)|\bresult\s*(?:is|:|=))\s*[*$€£\\( ]*({_NUMBER})",
    re.IGNORECASE,
)
_ANY_NUMBER = re.compile(rf"(?<![\w.]){_NUMBER}")
_LISTED_OPTION = re.compile(r"(?:^|\n)\s*\(?([A-J])[).:]\s+\S")
_MARKED_OPTION = re.compile(
    r"\b(?:answer|option|choice)\s*(?:is|:|=)?\s*\**\(?([A-J])\b(?![a-z'])|\\boxed\{([A-J])\}", re.IGNORECASE
)
_LEADING_OPTION = re.compile(r"^\W*([A-J])(?:\W|$)")
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|old|far|long|tall|big)\b|\bcalculate\b|\bcompute\b|\d\s*[-+*/x\u00d7\u00f7^]\s*\d",
    re.IGNORECASE,
)
# Matched after punctuation is removed.
_LEAD_IN = re.compile(
    r"^(?:(?:the )?(?:final |correct )?answer(?: is)?|its|it is|thats|that is|that would be|this is)(?:\s+|$)"
)
# Prose punctuation only: points and commas inside numbers, stars and hyphens between symbols carry meaning.
_PROSE = re.compile(r"[;:!?'\"()\[\]{}`~_\u2018-\u201f\u2026]|[.](?!\d)|,")
_STARS = re.compile(r"(?<!\w)[*]+|[*]+(?!\w)")
_DASHES = re.compile(r"[\u2013\u2014]|-(?!\d)")
_ARTICLES = re.compile(r"(?<!\S)(?:a|an|the)(?!\S)")
_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
SHORT_WORDS = 8


def normalised(text: str) -> str:
    """Normalise a text for comparison: no case, prose punctuation, articles, lead-ins or repeated spaces.

    Symbols that carry meaning stay: signs and points of numbers, operators, "C++".

    Examples
    --------
    >>> normalised("The answer is: **Paris**."), normalised("paris"), normalised("1,250.0 km")
    ('paris', 'paris', '1250.0 km')
    """
    lowered = unicodedata.normalize("NFKC", text).lower()
    words = " ".join(_STARS.sub("", _PROSE.sub("", _DASHES.sub(" ", lowered))).split())
    while words != (shorter := _LEAD_IN.sub("", " ".join(_ARTICLES.sub(" ", words).split()))):
        words = shorter
    return words or " ".join(lowered.split())


def number_in(text: str) -> str | None:
    """The final number of a text in canonical form: the last marked one ("the answer is 7"), else the last one.

    Examples
    --------
    >>> number_in("3 + 4 = 7, so the answer is 7.0 apples"), number_in("about 1,250 km"), number_in("none")
    ('7', '1250', None)
    >>> number_in("Eight legs.")
    '8'
    """
    span = number_span(text)
    if span is None:
        return None
    number = text[slice(*span)]
    if number.lower() in _NUMBER_WORDS:
        return str(_NUMBER_WORDS.index(number.lower()))
    return f"{float(number.replace(',', '')):.12g}"


def number_span(text: str) -> tuple[int, int] | None:
    """Start and end, in characters, of the number that `number_in` reads.

    Examples
    --------
    >>> number_span("so 7 apples"), number_span("none")
    ((3, 4), None)
    """
    marked = [match.span(1) for match in _MARKED_NUMBER.finditer(text)]
    spans = marked or [match.span() for match in _ANY_NUMBER.finditer(text)]
    if spans:
        return spans[-1]
    words = [word.span() for word in re.finditer(r"[A-Za-z]+", text) if word[0].lower() in _NUMBER_WORDS]
    # Several number words may form one number ("twenty one"), which is not parsed here.
    return words[0] if len(words) == 1 else None


def option_in(text: str) -> str | None:
    """The option letter, A to J, that a text chooses; None where it chooses none.

    Examples
    --------
    >>> (
    ...     option_in("B) Mars"),
    ...     option_in("I think the answer is (c)."),
    ...     option_in("A planet"),
    ...     option_in("Mars"),
    ... )
    ('B', 'C', None, None)
    """
    span = option_span(text)
    return None if span is None else text[slice(*span)].upper()


def option_span(text: str) -> tuple[int, int] | None:
    """Start and end, in characters, of the option letter that `option_in` reads.

    Examples
    --------
    >>> option_span("I think the answer is (c)."), option_span("Mars")
    ((23, 24), None)
    """
    marked = [match.span(match.lastindex or 1) for match in _MARKED_OPTION.finditer(text)]
    if marked:
        return marked[-1]
    leading = _LEADING_OPTION.match(text)
    # "A planet ..." and "I think ..." begin with words, not with option letters.
    if leading and not re.match(r"^\W*[AI]\s+[a-z]", text):
        return leading.span(1)
    return None


def kind_of(question: str) -> Kind:
    r"""What kind of answer a question asks for: "option" if it lists options, "number" if it asks for one, else "text".

    A question with several numbers counts as a word problem.

    Examples
    --------
    >>> (
    ...     kind_of("How many legs has a spider?"),
    ...     kind_of("Which one?\nA. Mars\nB. Venus"),
    ...     kind_of("Capital of Peru?"),
    ... )
    ('number', 'option', 'text')
    """
    if len(set(_LISTED_OPTION.findall(question))) > 1:
        return "option"
    several = len(_ANY_NUMBER.findall(question)) > 1 and "?" in question
    return "number" if several or _ASKS_NUMBER.search(question) else "text"


def options_in(question: str) -> tuple[str, ...]:
    r"""The letters of the options that a question lists, in order; empty where it lists fewer than two.

    Examples
    --------
    >>> options_in("Which one?\nA. Mars\nB. Venus"), options_in("A. Lincoln was who?")
    (('A', 'B'), ())
    """
    letters = tuple(dict.fromkeys(_LISTED_OPTION.findall(question)))
    return letters if len(letters) > 1 else ()


def final_answer(text: str, question: str, *, kind: Kind = "auto") -> str | None:
    """Extract the final answer of a text in a form that can be compared; None where there is none.

    Parameters
    ----------
    text : str
        A model's answer.
    question : str
        The question; it decides the kind where `kind` is "auto".
    kind : {"auto", "number", "option", "text"}
        A "text" answer is the normalised text itself if it has at most eight words. Longer texts have no short
        answer to compare.

    Examples
    --------
    >>> final_answer("She has 3 + 4 = 7 apples.", "How many apples?")
    '7'
    >>> final_answer("The capital is a city that ... and so on for many words", "Capital?") is None
    True
    """
    effective = kind_of(question) if kind == "auto" else kind
    if effective == "option":
        return option_in(text)
    if effective == "number" and (kind == "number" or number_in(text) is not None):
        return number_in(text)
    short = normalised(text)
    return short if short and len(short.split()) <= SHORT_WORDS else None


def answer_of(generation: Generation, question: str, *, kind: Kind = "auto") -> str | None:
    """The comparable final answer of a generation: the host's canonical form where there is one, else `final_answer`."""
    if generation.answer is not None:
        return generation.answer
    return final_answer(generation.text, question, kind=kind)
