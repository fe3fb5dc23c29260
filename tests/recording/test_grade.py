"""Grading: a number, an option letter, a text, any of several; and what cannot be graded."""

import pytest

from confroute.recording.grade import answer_in, graded, kind_of_reference

OPTIONS = "Which colour?\nA. red\nB. blue"


@pytest.mark.parametrize(
    ("reference", "question", "kind"),
    [
        (7, "How many?", "number"),
        (7.0, OPTIONS, "number"),
        (True, "Is it?", "text"),
        ("B", OPTIONS, "option"),
        ("K", OPTIONS, "text"),
        ("AB", OPTIONS, "text"),
        ("B", "Which letter?", "text"),
        (None, OPTIONS, "text"),
    ],
)
def test_what_a_reference_is(reference, question, kind):
    """A letter is an option only where the question lists some, and a truth value is no number."""
    assert kind_of_reference(reference, question) == kind


@pytest.mark.parametrize(
    ("answer", "text", "question", "reference", "grade"),
    [
        ("7", "It is 7.", "How many?", 7.0, 1.0),
        ("7", "It is 7.", "How many?", 8, 0.0),
        (None, "7", "How many?", 7, 0.0),
        ("0.5", "0.5", "How many?", 0.5, 1.0),
        ("B", "I take B, not A.", OPTIONS, "B", 1.0),
        ("A", "B", OPTIONS, "B", 0.0),
        (None, "B", OPTIONS, "B", 0.0),
        ("Lyon", "Paris", "Capital?", "paris", 1.0),
        ("paris", "Paris or Lyon", "Capital?", "paris", 0.0),
        ("7", "7", "How many?", None, None),
        ("7", "7", "Is it?", True, None),
        ("7", "7", "How many?", {"answer": 7}, None),
    ],
)
def test_one_reference(answer, text, question, reference, grade):
    """A number and a letter are compared with the final answer, a text with all of what was said."""
    assert graded(answer, text, question, reference) == grade


@pytest.mark.parametrize(
    ("text", "references", "grade"),
    [
        ("It was Ada Lovelace.", ["Byron", "Lovelace"], 1.0),
        ("It was Ada Lovelace.", ["Byron"], 0.0),
        ("It was Ada Lovelace.", ["love"], 0.0),
        ("It was Ada Lovelace.", ["lace"], 0.0),
        ("In 1815.", [1815], 1.0),
        ("In 1815.", [181], 0.0),
        ("In 1815.", [], None),
        ("In 1815.", ["", " ", None], None),
        ("In 1815.", ["", "1815"], 1.0),
        ("In 1815.", ["", "1816"], 0.0),
    ],
)
def test_any_of_several_references(text, references, grade):
    """As whole words anywhere; blanks are none, and without any reference there is no grade."""
    assert graded(None, text, "Who?", references) == grade


@pytest.mark.parametrize(
    ("text", "question", "reference", "answer"),
    [
        ("So there are 7 apples.", "How many?", None, "7"),
        ("So there are 7 apples.", "How many?", 8, "7"),
        ("The answer is B.", OPTIONS, "B", "B"),
        ("I do not know.", "How many?", 7, None),
    ],
)
def test_the_answer_in_a_text(text, question, reference, answer):
    """Of the kind of the reference, else of the question."""
    assert answer_in(text, question, reference) == answer
