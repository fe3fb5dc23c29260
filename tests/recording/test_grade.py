"""Grading: a number, an option letter, a text, any of several; and what cannot be graded."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from confroute.recording.grade import graded, kind_of_reference
from confroute.signals.answers import answer_of, normalised
from confroute.types import Generation

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
        (None, "7", "How many?", 7, 1.0),
        (None, "none", "How many?", 7, 0.0),
        ("0.5", "0.5", "How many?", 0.5, 1.0),
        ("B", "I take B, not A.", OPTIONS, "B", 1.0),
        ("A", "B", OPTIONS, "B", 0.0),
        (None, "B", OPTIONS, "B", 1.0),
        (None, "red", OPTIONS, "B", 0.0),
        (None, "The answer is 1{,}250.", "How many?", 1250, 1.0),
        (None, r"\boxed{\frac{3}{4}}", "How much?", 0.75, 1.0),
        (None, r"\boxed{\frac{3}{4}}", "How much?", 4, 0.0),
        (None, "\u22125", "Compute", 5, 0.0),
        (None, "It is 7.", "What is 3 + 4?", "7", 1.0),
        (None, "It is 8.", "What is 3 + 4?", "7", 0.0),
        (None, "7", "How many?", "3 + 4 = 7\n#### 7", 1.0),
        (None, "1 May 2021", "What date, in MM/DD/YYYY?", "05/01/2021", 1.0),
        (None, "05/01/2021", "What date?", "04/29/2021", 0.0),
        (None, "5 km", "How far?", 5, 1.0),
        (None, "5 km", "How far in m?", 5, 0.0),
        (None, "5 km", "How far in m?", 5000, 1.0),
        (None, "It takes 95 minutes.", "Each takes 5 seconds. How long do 1140 take?", 95, 1.0),
        (None, "It takes 5700 seconds.", "Each takes 5 seconds. How long do 1140 take?", 5700, 1.0),
        (None, "95 minutes", "Each takes 5 seconds. How many seconds do 1140 take?", 95, 0.0),
        (None, "$245", "A stamp is 5 cents. How much do 4900 cost?", 245, 1.0),
        (None, "18 cents", "An egg costs $2. How much do 9 cost?", 18, 0.0),
        (None, "5%", "What share?", 0.05, 1.0),
        (None, "15 km", "How far?", "1,5 km", 0.0),
        (None, "The capital of France is Paris.", "Capital?", "Paris", 1.0),
        (None, "It isn't Paris, it is Lyon.", "Capital?", "Paris", 0.0),
        (None, "Paris is not the capital.", "Capital?", "Paris", 0.0),
        (None, "Not only Paris", "Capital?", "Paris", 1.0),
        (None, "No, it is not.", "Is it?", "no", 1.0),
        (None, "There is no doubt: yes", "Is it?", "no", 0.0),
        (None, "username", "Name?", "user_name", 0.0),
        (None, "Apollo 11", "Which?", "Apollo 1", 0.0),
        ("Lyon", "Paris", "Capital?", "paris", 1.0),
        ("paris", "Paris or Lyon", "Capital?", "paris", 0.0),
        ("7", "7", "How many?", None, None),
        ("7", "7", "Is it?", True, None),
        ("7", "7", "How many?", {"answer": 7}, None),
    ],
)
def test_one_reference(answer, text, question, reference, grade):
    """A number and a letter are compared with the final answer; a text stands in what was said as whole words."""
    assert graded(answer, text, question, reference) == grade


@pytest.mark.parametrize(
    ("text", "references", "grade"),
    [
        ("It was Ada Lovelace.", ["Byron", "Lovelace"], 1.0),
        ("It was Ada Lovelace.", ["Byron"], 0.0),
        ("It was Ada Lovelace.", ["love"], 0.0),
        ("It was Ada Lovelace.", ["lace"], 0.0),
        ("In 1815.", [1815], 1.0),
        ("1500", [1500.0], 1.0),
        ("1,500", ["1500"], 1.0),
        ("5.5 apples", [5], 0.0),
        ("It is -5 degrees", [5], 0.0),
        ("$1,500", [500], 0.0),
        ("It was Ada or Byron.", ["Ada", "Byron"], 1.0),
        ("It was Ada or Lord Byron.", ["Ada"], 0.0),
        ("I would not say Byron.", ["Byron"], 0.0),
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
    ("reference", "text"),
    [("Paris", "The capital of France is Paris."), ("Paris", "paris"), ("7", "It is 7."), (7, "7.0")],
)
def test_one_rule_for_one_reference_and_for_a_list(reference, text):
    """Whether a reference stands alone or in a list."""
    assert graded(None, text, "Capital?", reference) == graded(None, text, "Capital?", [reference]) == 1.0
    other = "Lyon" if reference == "Paris" else 8
    assert graded(None, text, "Capital?", other) == graded(None, text, "Capital?", [other]) == 0.0


WORDS = st.text(st.characters(codec="utf-8", categories=("L", "Nd")), min_size=1, max_size=8)


@given(words=st.lists(WORDS, min_size=1, max_size=4), others=st.lists(st.text(max_size=12), max_size=2))
def test_the_reference_itself_is_right(words, others):
    """Whatever it is and however many words it has, alone, with a full stop, and among others."""
    name = " ".join(words)
    assume(normalised(name))
    for text in (name, f"{name}.", f"  {name}\n"):
        assert graded(None, text, "Which?", name) == 1.0
        assert graded(None, text, "Which?", [*others, name]) == 1.0


@pytest.mark.parametrize(
    "name", ["New York", "fish pie", "carbon dioxide", "Leonardo da Vinci", "Otto Brandt"]
)
@pytest.mark.parametrize(
    "form", ["{}", "{}!", "the {}", "It is {}.", "**{}**", "Answer: {}", "{}, of course"]
)
def test_a_name_of_several_words_is_right_at_the_end_of_an_answer(name, form):
    """As at its beginning and in its middle."""
    assert graded(None, form.format(name), "Which?", name) == 1.0
    assert (
        graded(answer_of(Generation(text=form.format(name)), "Which?"), form.format(name), "Which?", name)
        == 1.0
    )


@pytest.mark.parametrize(
    ("text", "reference", "grade"),
    [
        ("The text does not mention a ferry on Christmas Day.", "Christmas Day", 0.0),
        ("I don't know when the Heron leaves.", "Heron", 0.0),
        ("The text does not mention a ferry on Christmas Day.", "not mentioned", 1.0),
        ("The context does not say.", ["not mentioned", "unknown"], 1.0),
        ("It leaves at ten.", "not mentioned", 0.0),
        ("The text does not name her. However, it is Ada Lovelace.", "Ada Lovelace", 1.0),
    ],
)
def test_an_answer_that_says_that_there_is_none(text, reference, grade):
    """It is right where the reference says so too, and never for a name that it holds."""
    assert graded(None, text, "Which day?", reference) == grade
