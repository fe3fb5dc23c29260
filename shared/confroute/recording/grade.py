"""Grading an answer against a reference: a number, a date, an option letter, or a text."""

from __future__ import annotations

import re

from confroute.recording.rows import Side
from confroute.signals.abstention import abstains
from confroute.signals.answers import (
    Kind,
    date_in,
    kind_of,
    normalised,
    option_in,
    options_in,
    quantity_in,
)
from confroute.signals.numbers import Quantity, asking_sentence, quantities, units_of, written
from confroute.signals.units import PERCENT, Unit, asked
from confroute.types import JSON

_LETTER = re.compile(r"[A-J]")
# GSM8K's references: the solution, then the number.
_SOLUTION = re.compile(r".*####", re.DOTALL)
_CLAUSES = re.compile(r"[.,;:!?](?=\s|$)|\n")
_DENIED_BEFORE = re.compile(
    r"(?:\b(?:not|never|neither|nor|no|without|except|cannot)|nt)(?: (?!but\b|only\b|just\b)\S+)? $"
)
_DENIED_BEHIND = re.compile(
    r" (?:(?:is|was|are|were|would be|be) (?:not|wrong|incorrect|false)\b|(?:is|was|are|were)nt\b)"
)
_BOOLEANS = ("yes", "no", "true", "false")


def kind_of_reference(reference: JSON, question: str) -> Kind:
    r"""What the reference of a question is: a number or date, an option letter where the question lists options, else text.

    A text that is nothing but a number or a date ("1,250", "3/4", "5 km") is one.

    Examples
    --------
    >>> (
    ...     kind_of_reference(7.0, "How many?"),
    ...     kind_of_reference("B", "Which?\nA. x\nB. y"),
    ...     kind_of_reference("B", "?"),
    ... )
    ('number', 'option', 'text')
    """
    if isinstance(reference, str) and _LETTER.fullmatch(reference) and kind_of(question) == "option":
        return "option"
    number = _number_of(reference)
    if number is None:
        return "text"
    return "date" if number.sort in ("date", "time") else "number"


def _number_of(reference: JSON) -> Quantity | None:
    """The number or date that a reference is; None where it is something else."""
    if isinstance(reference, bool) or not isinstance(reference, (int, float, str)):
        return None
    text = written(reference) if not isinstance(reference, str) else _SOLUTION.sub("", reference).strip()
    found = quantities(text)
    if len(found) != 1 or not found[0].readable:
        return None
    rest = text[: found[0].start] + text[found[0].end :]
    return None if rest.strip(" $€£¥₹.") else found[0]


def graded(answer: str | None, text: str, question: str, reference: JSON) -> float | None:
    r"""1 if an answer is the reference, 0 if it is another or none; None without a reference.

    Parameters
    ----------
    answer : str or None
        The final answer in canonical form, where it is known already; else it is read from `text`.
    text : str
    question : str
        The options that may be chosen, and the units of bare numbers.
    reference : str, number, list or None
        A number, date or option letter is right if it is the final answer, in whatever notation. A text is right if it stands
        in the answer as whole words, since models answer in sentences; not where the answer denies it or leaves it open ("Paris
        or Lyon"). "Yes" and "no" have to begin the answer. An answer that says that it cannot be given (`abstains`) is right if the
        reference says so too ("not mentioned"), else wrong. Of a list any is right, each by these rules. Anything else cannot be
        graded here, and gives None.

    Examples
    --------
    >>> graded(None, "So 7 apples.", "How many?", 7.0), graded(None, "No idea.", "How many?", 7)
    (1.0, 0.0)
    >>> graded(None, "The capital of France is Paris.", "Capital?", "paris"), graded("x", "x", "?", None)
    (1.0, None)
    >>> graded(None, "It was Ada Lovelace.", "Who?", ["Ada Lovelace", "Lovelace"])
    1.0
    >>> graded(None, "The text does not say who it was.", "Who?", "The text does not say.")
    1.0
    """
    references = reference if isinstance(reference, list) else [reference]
    known = [
        one
        for one in references
        if isinstance(one, (str, int, float)) and not isinstance(one, bool) and str(one).strip()
    ]
    if not known:
        return None
    names = [normalised(str(one)) for one in known]
    return float(any(_is_right(answer, text, question, one, names) for one in known))


def _is_right(answer: str | None, text: str, question: str, reference: str | float, names: list[str]) -> bool:
    kind = kind_of_reference(reference, question)
    said = text if answer is None else answer
    if kind == "option":
        return option_in(said, options_in(question)) == reference
    if kind == "date":
        return date_in(said, question) == date_in(str(reference), question)
    if kind == "number":
        return _same_number(said, question, reference)
    written_out = text if text.strip() else said
    if abstains(written_out):
        # "No ferry on Christmas Day is mentioned" holds the name and does not answer.
        return abstains(str(reference))
    return _stands_in(written_out, normalised(str(reference)), names)


def _same_number(said: str, question: str, reference: JSON) -> bool:
    wanted, found, units = _number_of(reference), quantity_in(said), units_of(question)
    assert wanted is not None, "the reference is a number"
    if found is None:
        return False
    if found.form(units) == wanted.form(units):
        return True
    open_unit = wanted.unit is None and found.unit is not None and _leaves_open(question, found.unit)
    return open_unit and found.value is not None and found.value == wanted.value


def _leaves_open(question: str, unit: Unit) -> bool:
    """Whether a bare reference may be in this unit, since the question does not ask for another: "5 km" is 5.

    Of a question that tells of seconds alone and asks "how long", the reference may be minutes, too.
    """
    dimension = unit.dimension
    if dimension == PERCENT or dimension in {one.dimension for one in asked(asking_sentence(question))}:
        return False
    told = units_of(question).get(dimension)
    return told is None or unit.factor > told.factor


def _stands_in(text: str, name: str, names: list[str]) -> bool:
    """Whether a normalised name stands in a text as whole words, neither denied nor left open."""
    whole = normalised(text)
    if whole == name:
        return True
    if name in _BOOLEANS:
        return whole.split(" ")[0] == name
    mention = re.compile(rf"(?<![\w])(?<!\d[.,:/-]){re.escape(name)}(?![\w]|[.,:/-]\d)")
    if not mention.search(whole):
        return False
    clauses = [normalised(clause) for clause in _CLAUSES.split(text) if clause.strip()]
    found = [(clause, match) for clause in clauses for match in mention.finditer(clause)]
    # A name that holds punctuation stands in no single clause.
    return not found or any(
        not _denied(clause, match) and not _open(clause, match, names) for clause, match in found
    )


def _denied(clause: str, match: re.Match[str]) -> bool:
    before, behind = clause[: match.start()], clause[match.end() :]
    return bool(_DENIED_BEFORE.search(before) or _DENIED_BEHIND.match(behind))


def _open(clause: str, match: re.Match[str], names: list[str]) -> bool:
    """Whether the text names another answer beside it, that is not right as well."""
    before, behind = clause[: match.start()], clause[match.end() :]
    if before.endswith(" or "):
        return not before.removesuffix(" or ").endswith(tuple(names))
    return behind.startswith(" or ") and not behind.removeprefix(" or ").startswith(tuple(names))


def quality_by_people(side: Side) -> float | None:
    """The quality by a person or a reference; None where there is none, or a judge wrote it.

    Examples
    --------
    >>> (
    ...     quality_by_people(Side(quality=1.0)),
    ...     quality_by_people(Side(quality=1.0, extra={"judge": {"quality": 1.0}})),
    ... )
    (1.0, None)
    """
    details = side.extra.get("judge")
    by_judge = isinstance(details, dict) and details.get("quality") is not None
    return None if by_judge else side.quality
