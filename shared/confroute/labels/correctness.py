"""Which of two answers is right, where a reference tells."""

from __future__ import annotations

from confroute.judge.verdicts import Winner
from confroute.recording.grade import answer_in, graded
from confroute.types import JSON


def quality_of(text: str, question: str, reference: JSON) -> float | None:
    """1 for a right answer, 0 for a wrong one, None without a reference.

    Parameters
    ----------
    text : str
    question : str
    reference : JSON
        A number, an option letter, a text, or a list of texts any of which is right: one of a list may stand anywhere
        in the answer as whole words, since models answer in sentences; the words of a single text must be all.

    Examples
    --------
    >>> (
    ...     quality_of("It was Ada Lovelace.", "Who?", ["Ada Lovelace", "Lovelace"]),
    ...     quality_of("So 7.", "How many?", 8),
    ... )
    (1.0, 0.0)
    """
    return graded(answer_in(text, question, reference), text, question, reference)


def better(a: float, b: float) -> Winner:
    """The side of the higher quality; equal ones are a tie."""
    if a == b:
        return "tie"
    return "a" if a > b else "b"
