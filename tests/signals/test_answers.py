"""Reading answers: numbers whole and exactly, dates, option letters, and nothing where nothing can be read."""
# ruff: noqa: RUF001  answers come in many scripts

import time
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from confroute.signals.answers import (
    date_in,
    final_answer,
    final_span,
    kind_of,
    normalised,
    number_in,
    option_in,
    option_span,
    options_in,
    without_reasoning,
)
from confroute.signals.numbers import quantities, written
from confroute.signals.tokens import answer_spans

OPTIONS = "Which planet is red?\nA. Venus\nB. Mars\nC. Earth\nD. Jupiter"
LETTERS = ("A", "B", "C", "D")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (r"\boxed{1{,}250}", "1250"),
        (r"$\boxed{1,\!250}$", "1250"),
        (r"\boxed{\frac{1}{3}}", "1/3"),
        (r"\boxed{\dfrac{2}{3}}", "2/3"),
        (r"-\frac12", "-0.5"),
        (r"\boxed{x = 7}", "7"),
        (r"\boxed{7 \text{ apples}}", "7"),
        ("1,250", "1250"),
        ("1 234 567", "1234567"),
        ("1\u202f234,50", "1234.5"),
        ("1.234,56", "1234.56"),
        ("1.250.000", "1250000"),
        ("12,34,567", "1234567"),
        ("1'250", "1250"),
        ("1_000_000", "1000000"),
        ("3,5", "3.5"),
        ("0,125", "0.125"),
        (".5", "0.5"),
        ("\u22125", "-5"),
        ("minus 5", "-5"),
        ("1234567890123", "1234567890123"),
        ("答案是42", "42"),
        ("٤٢", "42"),
        ("1/2", "0.5"),
        ("2 1/2", "2.5"),
        ("2½", "2.5"),
        ("3 and a half", "3.5"),
        ("10^5.", "100000"),
        ("3 × 10⁸", "300000000"),
        (r"3 \times 10^{-2}", "0.03"),
        ("1e-3", "0.001"),
        ("1.2 million", "1200000"),
        ("5%", "0.05"),
        ("9 out of 10", "0.9"),
        ("twenty-one", "21"),
        ("one hundred and five", "105"),
        ("3 + 4 = 7", "7"),
        ("The answer is 3 + 4 = 7.", "7"),
        ("The answer is 42, not 43.", "42"),
        ("5! = 120", "120"),
        ("7!", "7"),
        ("**7!**", "7"),
        ("7! Great.", "7"),
        ("#### 1,234", "1234"),
    ],
)
def test_a_number_in_any_notation(text, number):
    """Exactly, whatever separates its digits, and wherever in a text it stands."""
    assert number_in(text) == number
    assert number_in(f"So the answer is: {text}") == number


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("05/01/2021", "5/1/2021"),
        ("04/29/2021", "2021-04-29"),
        ("May 1st, 2021", "2021-05-01"),
        ("1 May 2021", "2021-05-01"),
        ("3:55", "3:55"),
        ("3:55 pm", "15:55"),
        ("3:2", "3:2"),
        ("5-10", "5..10"),
        ("between 5 and 10", "5..10"),
        ("5 to 10 km", "5..10 km"),
        ("5 km", "5 km"),
        ("Rs.500", "500 INR"),
        ("USD42", "42 USD"),
        ("-$5", "-5 USD"),
        ("$5 per hour", "5 USD/hour"),
        ("5 m²", "5 square m"),
        ("2 hours 30 minutes", "2.5 h"),
    ],
)
def test_what_is_more_than_a_number_keeps_its_form(text, form):
    """Dates, times, ratios, ranges and amounts of a unit are compared whole."""
    assert number_in(text) == form


@pytest.mark.parametrize(
    "text",
    [
        *(
            "1,234,5",
            "1,2,3",
            "1.2.3",
            "192.168.0.1",
            "(1,2)",
            "1 234 56",
            "0x1F",
            "1e999",
            "9^99999",
            "x^2",
            "3x",
            "1990s",
        ),
        *(
            r"2\sqrt{3}",
            r"\frac{a}{2}",
            r"\boxed{2\sqrt{3}}",
            r"\boxed{3, 5}",
            "16-3",
            "16 - 3",
            "3 * 4",
            "a/2",
            "The answer is 3 + 4.",
        ),
        *(r"\boxed{5!}", "$5!$", r"\(5!\)", "5!.", "5! ways", "5! + 1", "6!/2", "3 * 5!", "10!/(3!7!)"),
        *("4, 6", "So 4; 6.", "(3, 2)", "[1, 2]", "1;5", "4 & 6", "3\n2", "x = 3, y = 2", "x = 3 and y = 2."),
        *("The answer is x = 3, y = 2.", r"\(x = 3\), \(y = 2\)"),
        *(
            "±5",
            "5 ± 1",
            r"5 \pm 1",
            "log 5",
            "sqrt(5)",
            "x > 5",
            "x<5",
            r"x \le 5",
            "≥ 5",
            "44 BC",
            "Q1 2024",
        ),
        *("40° 26′", "3 R 2", "3 remainder 2", "0.(3)", r"\binom{5}{2}", "1~250"),
        *("2 or 3", "The answer is 2 and 3.", "GPT-4", "H2O", "No one knows", "two or three", "1/0"),
    ],
)
def test_a_part_of_a_number_is_not_the_number(text):
    """What cannot be read whole has no form; neither is it compared by its words."""
    assert number_in(text) is None
    if any(map(str.isdigit, text)):
        assert final_answer(text, "How many?") is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (r"\boxed{\frac{1}{3}}", r"\boxed{\frac{2}{3}}"),
        (r"\boxed{1{,}250}", r"\boxed{1{,}900}"),
        ("3,5 m", "3,9 m"),
        ("1234567890123", "1234567890124"),
        ("\u22125", "5"),
        ("05/01/2021", "04/29/2021"),
        ("3/4", "1/4"),
        ("3:55", "4:55"),
        ("2^10", "3^10"),
        ("5 km", "5 m"),
        ("$5", "€5"),
        ("5-10", "6-10"),
        ("3:2", "3/2"),
        ("1.2 billion", "1.2 million"),
        ("5‰", "5"),
        ("x = 3, y = 2", "x = 8, y = 2"),
        ("4, 6", "9, 6"),
        ("x > 5", "x < 5"),
        ("Q1 2024", "Q2 2024"),
        ("44 BC", "44 AD"),
        ("3 R 2", "4 R 2"),
    ],
)
@pytest.mark.parametrize("question", ["How much is it?", "What is it?"])
def test_different_answers_never_agree(first, second, question):
    """As numbers and as short texts."""
    one, other = final_answer(first, question), final_answer(second, question)
    assert one is None or one != other


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("In 2020, 5 people came.", "5"),
        ("<b>5</b>", "5"),
        ("<answer>5</answer>", "5"),
        ("3 + 4 => 7", "7"),
        ("3 + 4 -> 7", "7"),
        ("> 5", "5"),
        ("> The answer is 5", "5"),
        ("Total: 3\n7", "7"),
        ("7\n\n7", "7"),
        ("It is ~250.", "250"),
        ("a = 3, so the sum is 5", "5"),
        ("At 3:00, 5 came", "5"),
        ("5‰", "0.005"),
        ("I logged 5 hours", "5 h"),
        ("She has 3, so 4 are left: 4", "4"),
        ("The total is as follows\n7", "7"),
        ("It follows.\n7", "7"),
        ("In 3 days, 5 people came.", "5"),
        ("Of 10 apples, 6 remain", "6"),
        ("There are 3 boxes and 5 of them hold apples", "5"),
        ("7. That is all.", "7"),
        ("The answer is 5 apples, 3 more than Bob.", "5"),
    ],
)
def test_what_only_looks_like_a_part_is_read(text, number):
    """Tags, arrows, quotes and clauses are no lists and no bounds."""
    assert number_in(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "4 apples, 6 pears",
        "So Sophia bought 3 onions and 1 potato.",
        "The answer is 4 apples, 6 pears.",
        "The answer is 4 apples and 6 pears",
        "It costs $3300 for laptops and $400 for monitors.",
        "4 apples\n6 pears",
    ],
)
def test_amounts_of_several_things_are_no_number(text):
    """One of them is a part of the answer."""
    assert number_in(text) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("I cannot answer that in 2024", None),
        ("I can\u2019t tell you who won in 1998.", None),
        ("There were 3 of them. It is not possible to determine the amount with this.", None),
        ("I'm unable to calculate it from 3 facts.", None),
        ("I don't know what happened in 2024.", None),
        ("I cannot find a mistake. So it is 5.", "5"),
        ("I cannot say for sure, but the answer is 5.", "5"),
        ("She cannot eat the other 5 apples", "5"),
    ],
)
def test_a_number_in_a_refusal_is_no_answer(text, number):
    """Unless it is marked as the answer or stands behind the refusal."""
    assert number_in(text) == number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("Tips:\n1. Sleep well.\n2. Eat well.", None),
        ("1) Add them.\n2) Take half.", None),
        ("1. Add 3 and 4.\n2. That makes 7 apples.", "7"),
        ("It is 42.\n1. Add them.\n2. Take half.", "42"),
    ],
)
def test_numerals_of_a_list_are_no_answers(text, number):
    """They count its lines."""
    assert number_in(text) == number


@pytest.mark.parametrize(
    ("text", "question", "number"),
    [
        ("#### 225 minutes or 3 hours and 45 minutes", "How many minutes?", "225"),
        ("#### 50% or 1/2", "How likely is it?", "0.5"),
        ("It is 50% or 1/2.", "How likely is it?", "0.5"),
        ("The answer is 2 or 3.", "How many?", None),
        ("The answer is 2 km or 2 m.", "How far?", None),
    ],
)
def test_one_amount_in_two_notations_is_one_answer(text, question, number):
    """Two amounts are none."""
    assert number_in(text, question) == number


@pytest.mark.parametrize(
    ("question", "same"),
    [
        ("How many hours?", ("3", "3 hours", "180 minutes", "three hours", "3 h")),
        (
            "An egg costs $2. How much does she earn per day?",
            ("18", "$18", "18 dollars", "$18 per day", "1800 cents"),
        ),
        ("What percentage is it?", ("50", "50%", "50 percent", r"\boxed{50\%}")),
        ("How far is it in m?", ("5000", "5 km", "5,000 metres")),
        ("How many?", ("0.5", "1/2", r"\frac{1}{2}", "½", "50%", ".5", "0,5")),
    ],
)
def test_notations_of_one_value_agree(question, same):
    """A question sets the unit of bare numbers, and amounts are converted to it."""
    assert len({final_answer(text, question) for text in same}) == 1


def _grouped(number, separator):
    return f"{number:,}".replace(",", separator)


_DRESS = st.sampled_from(
    [
        "{}",
        "The answer is {}.",
        r"\boxed{{{}}}",
        "**{}**",
        "#### {}",
        "so it is {} apples",
        "({})",
        "答案是{}",
    ]
)
_WHOLE = st.integers(-(10**30), 10**30)


@given(_WHOLE, st.sampled_from([",", "{,}", r"\,", "_", "\u202f", " ", "'", ""]), _DRESS)
def test_a_grouped_integer_is_read_exactly(number, separator, dress):
    """However long, and by whatever thousands are separated."""
    assert number_in(dress.format(_grouped(number, separator))) == str(number)


@given(
    _WHOLE,
    st.integers(1, 12),
    st.sampled_from([(",", "."), (".", ","), (" ", ","), ("", "."), ("'", ".")]),
    _DRESS,
)
def test_a_decimal_number_is_read_exactly(number, places, marks, dress):
    """By the separators of English, German, French and Swiss texts."""
    group, point = marks
    value = Fraction(number, 10**places)
    whole, rest = divmod(abs(number), 10**places)
    # A lone comma before three digits separates thousands, and in brackets the coordinates of a point.
    if point == "," and dress == "({})":
        return
    if (group, point) == (".", ",") and places == 3 and 0 < whole < 1000:
        return
    if (group, point) == (" ", ",") and places == 3 and 0 < whole < 1000:
        return
    text = "-" * (number < 0) + _grouped(whole, group) + point + f"{rest:0{places}d}"
    assert number_in(dress.format(text)) == written(value)


@given(
    st.integers(-(10**9), 10**9),
    st.integers(1, 10**9),
    st.sampled_from(["{}/{}", r"\frac{{{}}}{{{}}}", r"\dfrac{{{}}}{{{}}}"]),
)
def test_a_fraction_is_read_exactly(above, below, form):
    """Over any whole number, in lowest terms or not."""
    text = "-" * (above < 0) + form.format(abs(above), below)
    assert number_in(text) == written(Fraction(above, below))


@given(
    st.integers(-999, 999),
    st.integers(-40, 40),
    st.sampled_from(["{}e{}", r"{} \times 10^{{{}}}", "{} x 10^{}", "{}*10^{}"]),
)
def test_a_power_of_ten_is_read_exactly(number, exponent, form):
    """As programs, papers and people write it."""
    assert number_in(form.format(number, exponent)) == written(number * Fraction(10) ** exponent)


@given(st.fractions())
def test_the_written_form_is_read_as_itself(value):
    """Exact, and the same when it is read again."""
    assert number_in(written(value)) == written(value)
    assert [one.value for one in quantities(written(value))] == [value]


@given(st.fractions(), st.fractions())
def test_different_values_have_different_forms(one, other):
    """And equal ones the same."""
    assert (written(one) == written(other)) == (one == other)


@given(st.dates(), st.sampled_from(["%Y-%m-%d", "%d %B %Y", "%B %d, %Y", "%d.%m.%Y", "%b %d %Y"]))
def test_a_date_is_read_exactly(date, form):
    """In every form that has one meaning."""
    if date.year < 1000:
        return
    assert date_in(f"It was on {date.strftime(form)}, I think.") == date.isoformat()


_PIECES = [
    "42",
    "1,250",
    "1/2",
    "$5",
    " km",
    "B",
    "(C)",
    "Mars",
    "1 May 2021",
    "3:55",
    "The answer is ",
    "not ",
    " or ",
    "\n",
    ". ",
]
_SAID = st.lists(st.sampled_from(_PIECES), max_size=6).map("".join) | st.text(max_size=80)


@given(_SAID, st.sampled_from([OPTIONS, "How many?", "When was it?"]) | st.text(max_size=40))
def test_spans_and_answers_are_one_reading(text, question):
    """There is a span exactly where there is an answer, within the text, and what stands there reads the same; a number's without its unit."""
    for kind in ("auto", "number", "date", "option", "text"):
        span, answer = final_span(text, question, kind=kind), final_answer(text, question, kind=kind)
        assert (span is None) == (answer is None)
        if span is not None:
            assert 0 <= span[0] < span[1] <= len(text)
            if kind in ("date", "option", "text"):
                assert final_answer(text[slice(*span)], question, kind=kind) == answer


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is a planet: B", "B"),
        ("I'd say B", "B"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{\textbf{(B)}}", "B"),
        ("b)", "B"),
        ("b) Mars", "B"),
        ("It's B", "B"),
        ("Antwort: B", "B"),
        ("Die richtige Antwort ist B.", "B"),
        ("答案：B", "B"),
        ("Ｂ", "B"),
        ("<answer>B</answer>", "B"),
        ('{"answer": "B"}', "B"),
        ("Mars (B)", "B"),
        ("B\n\nExplanation: option C is Earth.", "B"),
        ("Answer: B\nOption A is Venus, which is not red.", "B"),
        ("B is correct; option A is wrong.", "B"),
        ("The correct answer is not A but B.", "B"),
        ("A. Venus is hot.\nB. Mars is red.\nSo the answer is B.", "B"),
        ("<think>maybe the answer is A</think>\nB", "B"),
        ("The answer is a) Venus", "A"),
        ("A", "A"),
    ],
)
def test_an_option_letter(text, letter):
    """A leading letter beats later mentions, a marked one any other, and the span is where it stands."""
    span = option_span(text, LETTERS)
    assert option_in(text, LETTERS) == final_answer(text, OPTIONS) == letter
    assert normalised(text[slice(*span)]).upper() == letter
    # A value of JSON is measured with its quotes.
    ((low, high),) = answer_spans(text, OPTIONS)
    assert low <= span[0] < span[1] <= high
    assert text[low:high].strip('"') == text[slice(*span)]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "I think so",
            "I",
            "A planet",
            "The answer is a bit tricky.",
            "The answer is F",
            "K",
            "The answer is not A.",
            "Option A is wrong.",
            "Everything but B",
            "All but B.",
            "Option B seems wrong.",
            "The answer B looks incorrect",
        ),
        *(
            "A or B",
            "A, B",
            "A/B",
            "The answer is A and C.",
            "vitamin C",
            "Plan B",
            "The answer is C++",
            "The answer is D'Artagnan",
        ),
        *(
            "None of the above",
            "a) Lima is the capital.\nb) Quito is.\nc) Both are.",
            "B ... The answer is C.",
            "B\nWait. The answer is C.",
            "<think>The answer is B",
        ),
    ],
)
def test_no_option_letter(text):
    """Articles, pronouns, letters that are not listed, rejected ones, and several."""
    assert option_in(text, LETTERS) is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<think>The answer is 5? No.</think>\n7", "7"),
        ("The answer is 5?</think>7", "7"),
        ("<thinking>5</thinking> 7", "7"),
        ("[THINK]5[/THINK]7", "7"),
        ("<think>5", ""),
        ("7", "7"),
    ],
)
def test_reasoning_is_not_read(text, rest):
    """What stands after it is; positions stay as they are."""
    read = without_reasoning(text)
    assert (read.strip(), len(read)) == (rest, len(text))
    assert number_in(text) == (rest or None)
    assert answer_spans(text, "How many?") == (((text.rindex("7"), text.rindex("7") + 1),) if rest else ())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("1,5 km", "15 km"),
        ("3:2", "32"),
        ("(1,2)", "12"),
        ("user_name", "username"),
        ("2³", "23"),
        ("\u22125", "5"),
        ("–5", "5"),
        ("5–10", "5 10"),
        ("C++", "C#"),
    ],
)
def test_what_carries_meaning_stays_in_a_text(first, second):
    """Texts that differ by it are not the same."""
    assert normalised(first) != normalised(second)


@pytest.mark.parametrize(
    ("question", "kind"),
    [
        ("Context: Rossi raced in 1998 and 2002.\nWho won in 1998?", "text"),
        ("Context: how many? 3 of 5.\nQuery: Who won?\nAnswer: ", "text"),
        ("Did the war that began in 1618 end in 1648?", "text"),
        ("Is 7 prime?", "text"),
        ("What is the difference between TCP and UDP?", "text"),
        ("What is the difference between their ages, if he is 9 and she 4?", "number"),
        ("What is the difference between their ages, and how old is she?", "number"),
        ("What is the value of friendship?", "text"),
        ("What is the value of f(2)?", "number"),
        ("P is five times Q. What is the measure of angle R?", "number"),
        (r"Find the value of $\dfrac{a}{d}.$", "number"),
        ("What product of photosynthesis shares its name with a fruit?", "text"),
        ("Explain what's base rate fallacy and list five examples.", "text"),
        ("Write a program to find the nth Fibonacci number.", "text"),
        ("Implement a function to find the median of two arrays.", "text"),
        ("Find the 3rd prime number", "number"),
        ("Please find the sum of 3 and 4.", "number"),
        ("What is the total weekly production of 5 mills?", "number"),
        ("What is the total dollar amount in a stack?", "number"),
        ("How much more does she make from the A3 vs. the A9 a month?", "number"),
        ("Calculate the area of the triangle. Base: 5cm; Height: 6cm", "number"),
        ("Calculate the total cost of the following items. 3 laptops - $1100 each", "number"),
        ("What is his current math grade, of 5 scores?", "number"),
        ("Write a website. When a user clicks the button, it shows a joke.", "text"),
        ("When rolling two dice, what is the probability of at least 3?", "number"),
        ("When will it rain?", "date"),
        ("What is the latest time of day that he can start?", "date"),
        ("Janet has 16 eggs. She eats 3. How many are left?", "number"),
        ("What is the total cost of 3 apples?", "number"),
        ("Wie viele Äpfel?", "number"),
        ("Compute 3 - 8", "number"),
        ("2 + 2?", "number"),
        ("What is the date tomorrow in MM/DD/YYYY?", "date"),
        ("When was he born?", "date"),
        ("Which?\n**A.** Mars\n**B.** Venus", "option"),
        ("Which? A) Mars B) Venus", "option"),
        ("Which?\na) Mars\nb) Venus", "option"),
    ],
)
def test_what_a_question_asks_for(question, kind):
    """Not what numbers stand in its context."""
    assert kind_of(question) == kind


def test_ambiguous_dates_are_read_as_the_question_says():
    """Without that, they agree with nothing but themselves."""
    american, british = "What date, in MM/DD/YYYY?", "What date, in DD/MM/YYYY?"
    assert final_answer("05/01/2021", american) == final_answer("1 May 2021", american) == "2021-05-01"
    assert final_answer("05/01/2021", british) == "2021-01-05"
    assert final_answer("05/01/2021", "What date?") == "5/1/2021"


def test_only_listed_letters_are_options():
    """In the notation of the list."""
    assert options_in(OPTIONS) == LETTERS
    assert final_answer("The answer is F", OPTIONS) is None
    assert final_answer("The answer is F", "?", kind="option") == "F"


@pytest.mark.parametrize(
    "text",
    [
        *("5⁻", "5²⁻", "5⁻⁻²", "3 x 10⁻"),
        *(
            "5^{n}",
            "3 x 10^{n}",
            "1e{n}",
            "5^{{-{n}}}",
            "1/{n}",
            "2 1/{n}",
            r"\frac{{1}}{{{n}}}",
            r"2\frac{{{n}}}{{3}}",
        ),
    ],
)
def test_what_is_no_number_or_longer_than_python_reads_is_not_read(text):
    """A raised minus alone, and an exponent or denominator of 5000 digits, of which Python makes no integer."""
    assert number_in(text.format(n="9" * 5000)) is None


@given(
    st.sampled_from(["-7", "7 km", r"\frac{1}{2}", "1,250", "3:55 pm", "-$5"]),
    st.integers(0, 400),
    st.sampled_from(["word ", "3 + 4 = 7. ", "a\n"]),
)
def test_a_long_text_before_it_changes_nothing(number, length, filler):
    """Neither what is read nor where it stands."""
    text = filler * length + f"so it is {number}"
    assert number_in(text) == number_in(number)
    start, end = final_span(text, "How many?")
    assert number_in(text[start:end]) is not None
    assert text[start:end].strip("$") in number


@pytest.mark.parametrize(
    "text",
    [
        "1 " * 20_000,
        "$1" * 20_000,
        "(" * 50_000 + "B",
        r"\frac{" * 10_000,
        "<think>" * 5_000,
        "1," * 20_000,
        "5" + " " * 50_000 + "6",
        "4 apples, " * 10_000 + "6 pears",
        "1. a\n2. b\n" * 5_000,
        "I can't " * 10_000 + "5",
    ],
)
def test_hostile_texts_are_read_in_linear_time(text):
    """What no one writes must not hold a call up."""
    begin = time.process_time()
    for kind in ("number", "date", "option", "text"):
        final_answer(text, OPTIONS, kind=kind)
    assert time.process_time() - begin < 20
