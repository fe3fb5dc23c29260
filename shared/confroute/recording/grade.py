"""Grade an answer against a reference: a number, an option letter, or a text."""

from __future__ import annotations

import re

from confroute.signals.answers import Kind, final_answer, kind_of, normalised
from confroute.types import JSON

_LETTER = re.compile(r"[A-J]")


def kind_of_reference(reference: JSON, question: str) -> Kind:
    r"""Tell the kind of a reference: a number, an option letter if the question lists options, else text.

    Examples
    --------
    >>> (
    ...     kind_of_reference(7.0, "How many?"),
    ...     kind_of_reference("B", "Which?\nA. x\nB. y"),
    ...     kind_of_reference("B", "?"),
    ... )
    ('number', 'option', 'text')
    """
    if isinstance(reference, (int, float)) and not isinstance(reference, bool):
        return "number"
    if isinstance(reference, str) and _LETTER.fullmatch(reference) and kind_of(question) == "option":
        return "option"
    return "text"


def answer_in(text: str, question: str, reference: JSON = None) -> str | None:
    """Find the final answer in a text, in the form that `graded` compares; None if there is none.

    Parameters
    ----------
    text : str
    question : str
        Decides which kind of answer to look for if there is no reference.
    reference : JSON
        See `kind_of_reference`.
    """
    return final_answer(
        text, question, kind="auto" if reference is None else kind_of_reference(reference, question)
    )


def graded(answer: str | None, text: str, question: str, reference: JSON) -> float | None:
    r"""Return 1 if an answer equals the reference, 0 if it differs or is missing, None without a reference.

    Parameters
    ----------
    answer : str or None
        The final answer in `text`.
    text : str
        The whole answer; compared, normalised, with a reference that is a text.
    question : str
    reference : str, number, list or None
        Of a list, any item is right, anywhere in the text as whole words, since models answer in sentences. Anything else
        cannot be graded here and gives None.

    Examples
    --------
    >>> graded("7", "So 7 apples.", "How many?", 7.0), graded(None, "No idea.", "How many?", 7)
    (1.0, 0.0)
    >>> graded(None, "The answer is: Paris.", "Capital?", "paris"), graded("x", "x", "?", None)
    (1.0, None)
    >>> graded(None, "It was Ada Lovelace.", "Who?", ["Ada Lovelace", "Lovelace"])
    1.0
    """
    if isinstance(reference, list):
        return _among(text, reference)
    if isinstance(reference, bool) or not isinstance(reference, (int, float, str)):
        return None
    kind = kind_of_reference(reference, question)
    if kind == "number":
        return float(answer == f"{float(reference):.12g}")
    if kind == "option":
        return float(answer == reference)
    return float(normalised(text) == normalised(str(reference)))


def _among(text: str, references: list[JSON]) -> float | None:
    answer = normalised(text)
    names = [
        normalised(str(one)) for one in references if isinstance(one, (str, int, float)) and str(one).strip()
    ]
    if not names:
        return None
    return float(any(re.search(rf"(?<!\w){re.escape(name)}(?!\w)", answer) for name in names))
