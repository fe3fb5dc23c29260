r"""Reads numbers, dates and times in the notations that people and models write: whole and exactly, or not at all.

A number is read to its end: with its separators, fraction, power, scale ("million") and unit. What is written like a part
of something else (an expression, a list, a version, a variable's power) is not a number. Two different values never have
the same form; one value has the same form in every notation.

The rules where notations contradict each other: a comma before exactly three digits separates thousands ("1,250"), except
after a zero ("0,125"); any other single comma, and any single point, separates decimals ("3,5"; "1.250" is 1.25). A date
such as 05/01/2021 may have two meanings and keeps the form in which it stands. An exclamation mark that may end its sentence
does ("It is 7!"); any other makes a factorial, which is not read.
"""

# ruff: noqa: RUF001  it reads the characters of many scripts

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise
from typing import Literal, TypeAlias

from confroute.signals.units import PERCENT, Unit, asked, rates_in, scale_after, unit_after, unit_before

Sort: TypeAlias = Literal["number", "date", "time", "other"]

# No one answers with longer numbers, and a short text can spell one that fills the memory ("9^9999999").
_MOST_DIGITS = 400
_ONE = Fraction(1)
# What is farther from a number than this does not change how it is read.
_NEAR = 48
_SPACE = " \u00a0\u2007\u2009\u202f"
_SEPARATOR = r"(?:\{,\}|,\\!|\\[,;! ]|[,._'\u2019\u066c])"
_RUN = re.compile(
    rf"\d{{1,3}}(?:[{_SPACE}]\d{{3}}(?!\d))+(?:[.,]\d+)?(?!\d)"
    rf"|\d+(?:{_SEPARATOR}\d+)*"
    r"|(?<![\w.])\.\d+"
)
_GROUPED = re.compile(
    rf"(?P<first>\d{{1,3}})(?P<by>[{_SPACE}'_]|,)\d{{3}}(?:(?P=by)\d{{3}})*(?:\.(?P<decimals>\d+))?"
)
_GROUPED_BY_POINT = re.compile(r"\d{1,3}(?:\.\d{3})+,(?P<decimals>\d+)|\d{1,3}(?:\.\d{3}){2,}")
_GROUPED_BY_SPACE = re.compile(rf"\d{{1,3}}(?:[{_SPACE}]\d{{3}})+(?:,(?P<decimals>\d+))?")
_GROUPED_IN_INDIA = re.compile(r"\d{1,2}(?:,\d{2})+,\d{3}(?:\.(?P<decimals>\d+))?")
_PLAIN = re.compile(r"\d*(?:[.,](?P<decimals>\d+))?")
_DECIMAL_COMMA = re.compile(r"\d+,\d+")
_COMMA_GROUPS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?!\d|,\d)")
VULGAR = "[¼-¾⅐-⅞]"
"""A fraction that is one character."""
RAISED = "[⁻⁰¹²³⁴-⁹]"
"""A digit or minus of a power that is written without a mark."""
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻\u2212", "0123456789--")
_WHOLE = re.compile(r"[-+]?\d+")
_EXPONENT = re.compile(r"[eE]([-+]?\d+)(?!\w|\.\d)")
_RAISED_TO = r"(?:\{\s*([-+\u2212]?\d+)\s*\}|([-+\u2212]?\d+))"
_TIMES_TEN = re.compile(
    rf"\s*(?:[×x*·]|\\times|\\cdot)\s*10\s*(?:(?:\^|\*\*)\s*{_RAISED_TO}|({RAISED}+))(?!\d|\.\d)"
)
_POWER = re.compile(rf"\s?(?:\^|\*\*)\s?{_RAISED_TO}(?!\d|\.\d)|({RAISED}+)")
_OVER = re.compile(r"\s?[/\u2044]\s?(\d+)(?![\d.,/]*\d)")
_MIXED = re.compile(r"\s+(?:and\s+)?(\d+)\s?[/\u2044]\s?(\d+)(?![\d.,/]*\d)")
_AND_A_HALF = re.compile(r"\s+and\s+(?:a|one)\s+half\b")
_VULGAR = re.compile(rf"\s?({VULGAR})")
_FRACTION = re.compile(rf"{VULGAR}|\\[dtc]?frac(?![a-z])")
_LATEX_FRACTION = re.compile(r"\\[dtc]?frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))", re.ASCII)
_CLOSES_MATHS = re.compile(r"[^$\n]*[^\s$\\]\$(?!\d)")
_SIGN = re.compile(r"(?:[-+\u2212\u2013]|\b(?:minus|negative)\s)\Z", re.IGNORECASE)
# Looked for first: it is cheap, and most numbers have none.
_MAY_SIGN = ("-", "+", "\u2212", "\u2013", "minus", "negative")
_FACTORIAL = re.compile(r"!+(?=[.,;:)}\]$\\\d]|\s?[-+/×÷·^=\\]|\s?\*\s?[\w(\\]|[^\S\n]+[a-z])")
_NAME = re.compile(r"([^\W\d]|\\)[-\u2013]?\Z|[^\W\d]\.\Z")
_WORD_BEHIND = re.compile(r"[^\W_]+")
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_MONTH = (
    r"(?P<month>Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?"
    r"|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\b\.?"
)
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DATES = tuple(
    re.compile(pattern)
    for pattern in (
        r"(?<![\d/.-])(?P<year>\d{4})(?P<by>[-/.])(?P<first>\d{1,2})(?P=by)(?P<second>\d{1,2})(?![\w/-]|\.\d)",
        r"(?<![\d/.-])(?P<first>\d{1,2})(?P<by>[-/.])(?P<second>\d{1,2})(?P=by)(?P<year>\d{4}|\d{2}(?!\d))(?![\w/-]|\.\d)",
        rf"(?<![\w/.])(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.)?\s+(?:of\s+)?{_MONTH}(?:,?\s+(?P<year>\d{{4}})\b)?",
        rf"\b{_MONTH}\s+(?:the\s+)?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\b(?![:.,]\d)(?:,?\s+(?P<year>\d{{4}})\b)?",
        rf"\b{_MONTH},?\s+(?P<year>\d{{4}})\b",
    )
)
_TIME = re.compile(
    r"(?<![\w:.])(?P<hour>\d{1,2}):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?(?![:\d])(?:\s?(?P<half>[AaPp])\.?[Mm]\b\.?)?"
    r"|(?<![\w:.])(?P<only>\d{1,2})\s?(?P<side>[AaPp])\.?[Mm]\b\.?"
)
_RATIO = re.compile(r"(?<![\w:.])\d+(?:\.\d+)?(?:\s?:\s?\d+(?:\.\d+)?)+(?![:\w])")
_FUNCTIONS = ("sqrt", "log", "ln", "sin", "cos", "tan")
_LATEX = (*_FUNCTIONS, "binom", "pi", "pm", "times", "cdot", "div")
# What binds a number to what stands before or behind it, so that alone it would be a part.
_BOUND_BEFORE = re.compile(
    r"(?:[^\W_]|[)\]}%²³])\s*[/×÷·]\s*$"
    r"|[\^_]\s*\{?\s*$"
    rf"|\\(?:{'|'.join(_LATEX)})\b[\s{{(]*$|[√π±]\s*\(?\s*$|\}}\s*\{{\s*$"
    rf"|(?<![^\W_])(?:{'|'.join(_FUNCTIONS)})(?:\s|\s?\()\s*$|\d(?:\.\(|~)$|\b[QH][1-4][\s,/-]+$"
    r"|(?:\d|[)\]}]|\b[^\W\d_])\s*[+*]\s*\(?\s*$|[^\W_]\s+[+*]\s+\(?\s*$"
    r"|(?:[)\]}]|\b[^\W\d_])\s*[-\u2212]\s*\(?\s*$"
)
# One of these ends what may bind, before its spaces and brackets.
_MAY_BIND = (
    *"/×÷·^_√π±+*-\u2212~.,}",
    *_LATEX,
    *(f"{half}{part}" for half in "QH" for part in "1234"),
)
_BOUND_BEHIND = re.compile(
    rf"\s?(?:\\(?:frac|{'|'.join(_LATEX)})\b|[√π±×÷·^])|[′″]|~\d|\s?(?:BCE?\b|B\.C\.)"
    r"|\*[\w(\\]|\s\*\s[\w(\\]|\s?/\s?[\w(\\]|\+[\w(\\]|\s\+\s[\w(\\]"
    r"|\s?[-\u2212]\s?(?:[^\W\d_](?![^\W_])|[(\\])|\("
)
# A bound is not the number that it names. A ">" may also end a tag or an arrow, or begin a quoted line.
_OPENS = "({ \t\n\r\v\f\u00a0\u2007\u2009\u202f\u3000"
_BOUND = re.compile(r"(?:(?<![<=>-])[<≤≥]=?|(?<![<=>-])>=?|\\[lg]eq?\b|\\[lg]t\b)\s*$")
_MAY_COMPARE = ("<", ">", "=", "≤", "≥", "le", "ge", "leq", "geq", "lt", "gt")
_NO_BOUND = re.compile(r"(?:<[^<>]*|(?:^|\n)\s*)>\s*$")
_OPERATOR = re.compile(
    r"(?:\s*[$*\s(]*)?(?:\s[^\W\d_]+){0,2}\s*"
    r"(?:[-+\u2212\u2013*/×÷·^]|\*\*|\\times|\\cdot|\\div|\bx|\bof|\btimes|\bplus|\bminus|\bdivided by|\bmultiplied by|\b(?:less|more|fewer) than)"
    r"\s*[($€£]*\s*",
    re.IGNORECASE,
)
_EQUALS = re.compile(
    r"[)\]}$]*(?:\s[^\W\d_]+){0,3}\s*[)\]}$]*\s*(?:=|\\approx|≈|\bequals)\s*[$*({€£\\]*\s*", re.IGNORECASE
)
_TO = re.compile(r"\s?[-\u2212\u2013\u2014]\s?[$€£]?|\s+to\s+[$€£]?")
_LIST = re.compile(r"\s*(?:,|;|,?\s+(?:and|or)|/|&)\s+[$€£]?", re.IGNORECASE)
_OR = re.compile(r",?\s+(?:and|or)\s+[$€£]?", re.IGNORECASE)
# What stands between the last two members of a list that is nothing else.
_MEMBERS = re.compile(r"[)\]}$\\]*\s*[,;&]\s*[(\[{$€£\\]*")
_ASSIGNED = re.compile(r"[)\]}$\\]*\s*(?:[,;]|,?\s+and\b|[,;]\s+and\b)\s*[($\\]*[^\W\d_][^\W_]?\s*=\s*[$€£]?")
_NEXT_LINE = re.compile(r"[^\S\n]*\n\s*")
_ENDS_LIST = re.compile(r"[)\]}$\\.*\s]*(?:$|\n)")
# Amounts of several things: "4 apples, 6 pears", "$30 for shirts and $20 for hats".
_THING = r"\s+(?:for\s+|of\s+)?(?:the\s+)?[^\W\d_]{2,}"
_NEXT_THING = re.compile(rf"{_THING}\s*(?:[,;]|(?P<joined>,?\s+and\b|&|\n))\s*[$€£]?", re.IGNORECASE)
_LAST_THING = re.compile(
    rf"{_THING}(?:\s+(?:in total|in all|altogether|each))?[)\]}}*$]*\s*(?:[.!;](?!\w)|$|\n)", re.IGNORECASE
)
_BEGINS_CLAUSE = re.compile(
    r"\b(?:in|after|for|with|at|on|by|if|of|from|since|when|as|every|per|within|during)\s+(?:\w+\s+){0,2}[$€£]?$",
    re.IGNORECASE,
)
_REMAINDER = re.compile(r",?\s+(?:R|r|(?:with\s+)?(?:an?\s+)?remainder(?:\s+of)?)\s+")
_OUT_OF = re.compile(r"\s+out\s+of\s+(?:a\s+total\s+of\s+)?")
_JOINED = re.compile(r",?\s*(?:and\s+)?")
_SENTENCES = re.compile(
    r"(?<=[.!?。？])(?<!\bvs\.)(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bDr\.)(?<!\bSt\.)(?<![ie]\.[eg]\.)\s+|\n+"
)
_AND = re.compile(r"\s+and\s+[$€£]?")
_COMMANDS = re.compile(
    r"\W*(?:please\s+)?(?:calculate|compute|evaluate|find|determine|solve)\b", re.IGNORECASE
)
_BETWEEN = re.compile(r"\bbetween\s+[$€£]?$", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantity:
    """A number, date or time in a text.

    Attributes
    ----------
    start, end : int
        Where it stands, in characters, with its sign, scale and unit.
    value : Fraction or None
        Exactly; None for what is not one number (a date, a ratio, a range) or cannot be read.
    unit : Unit or None
    label : str or None
        The form of what is not one number; None, too, where it cannot be read.
    sort : {"number", "date", "time", "other"}
    """

    start: int
    end: int
    value: Fraction | None = None
    unit: Unit | None = None
    label: str | None = None
    sort: Sort = "number"

    @property
    def readable(self) -> bool:
        """Whether there is a value or a form."""
        return self.value is not None or self.label is not None

    def form(self, units: Mapping[str, Unit]) -> str | None:
        """The form to compare it by; None where it cannot be read.

        Parameters
        ----------
        units : mapping of dimension to Unit
            Units that a bare number has, as the question sets them: amounts of that dimension are converted to them.
        """
        if self.value is None:
            return self.label
        if self.unit is None:
            return written(self.value)
        default = units.get(self.unit.dimension)
        if default is not None:
            return written(self.value * self.unit.factor / default.factor)
        if self.unit.dimension == PERCENT:
            return written(self.value * self.unit.factor)
        return f"{written(self.value)} {self.unit.name}"


def written(value: Fraction | float) -> str:
    """A number in its one form: decimal where that is exact, else as a fraction in lowest terms.

    Examples
    --------
    >>> written(Fraction(5, 4)), written(Fraction(-1, 3)), written(1250.0), written(0.1)
    ('1.25', '-1/3', '1250', '0.1')
    """
    if isinstance(value, float) and not math.isfinite(value):
        # It equals no number that an answer holds.
        return str(value)
    exact = Fraction(repr(value)) if isinstance(value, float) else Fraction(value)
    rest, places = exact.denominator, 0
    for prime in (2, 5):
        power = 0
        while rest % prime == 0:
            rest //= prime
            power += 1
        places = max(places, power)
    if rest != 1:
        return f"{exact.numerator}/{exact.denominator}"
    digits = str(abs(exact.numerator) * 10**places // exact.denominator).rjust(places + 1, "0")
    whole = f"{digits[: len(digits) - places]}.{digits[len(digits) - places :]}" if places else digits
    return f"-{whole}" if exact < 0 else whole


def quantities(text: str, *, around: str = "") -> list[Quantity]:
    r"""All numbers, dates and times of a text in order, each whole; those that cannot be read are among them.

    Parameters
    ----------
    text : str
    around : str
        The text of which it is a part, for its decimal separator.

    Examples
    --------
    >>> [written(one.value) for one in quantities(r"1,250 or \frac{1}{3} or 3 x 10^4 or 1.2 million")]
    ['1250', '1/3', '30000', '1200000']
    >>> [one.label for one in quantities("3:2, on 5 May 2021, at 3:55 pm")]
    ['3:2', '2021-05-05', '15:55']
    """
    return _joined(list(_atoms(text, around or text)), text)


def _atoms(text: str, around: str) -> Iterator[Quantity]:
    at = 0
    for start, end, quantity in _starts(text):
        if start >= at:
            if quantity is not None:
                yield quantity
                at = quantity.end
            else:
                number = _number(text, start, end, around)
                at = end if number is None else max(end, number.end)
                if number is not None:
                    yield number


def _starts(text: str) -> list[tuple[int, int, Quantity | None]]:
    """Where something begins that may be a number, with the date, time or ratio that is read already."""
    known = [_date(match) for pattern in _DATES for match in pattern.finditer(text)]
    known += [_time(match) for match in _TIME.finditer(text)]
    known += [
        Quantity(start=m.start(), end=m.end(), label="".join(m[0].split()), sort="other")
        for m in (_RATIO.finditer(text) if ":" in text else ())
    ]
    found: list[tuple[int, int, Quantity | None]] = [(one.start, one.end, one) for one in known if one]
    found += [(m.start(), m.end(), None) for m in _RUN.finditer(text)]
    found += [(m.start(), m.end(), None) for m in _FRACTION.finditer(text)]
    return sorted(found, key=lambda one: (one[0], one[2] is None, -one[1]))


def _date(match: re.Match[str]) -> Quantity | None:
    named = "month" in match.re.groupindex
    label = _date_with_name(match) if named else _date_in_digits(match)
    if label is None:
        return None
    return Quantity(start=match.start(), end=match.end(), label=label, sort="date")


def _date_with_name(match: re.Match[str]) -> str | None:
    """The form of a date whose month is a word; None where there is no such day."""
    parts = match.groupdict()
    month, day = _MONTHS.index(parts["month"][:3].lower()) + 1, int(parts.get("day") or 0)
    if day > 31:
        return None
    return f"{parts['year'] or '-'}-{month:02d}" + (f"-{day:02d}" if day else "")


def _date_in_digits(match: re.Match[str]) -> str | None:
    """The form of a date in digits, as it stands where it may have two meanings; None where there is no such day."""
    year, first, second = match["year"], int(match["first"]), int(match["second"])
    if match.start("year") < match.start("first"):
        month, day = first, second
    elif match["by"] == "." or first > 12:
        month, day = second, first
    elif second > 12 or first == second:
        month, day = first, second
    else:
        return f"{first}/{second}/{year}"
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return None
    return f"{year}-{month:02d}-{day:02d}"


def _time(match: re.Match[str]) -> Quantity | None:
    hour, half = int(match["hour"] or match["only"]), (match["half"] or match["side"] or "").lower()
    rest = f":{match['minute'] or '00'}" + (f":{match['second']}" if match["second"] else "")
    if hour > (12 if half else 24):
        return None
    # Without a or p, "3:55" may be before or after noon, or a ratio; "03:55" counts 24 hours.
    label = f"{hour % 12 + 12 * (half == 'p'):02d}{rest}" if half else f"{match['hour']}{rest}"
    return Quantity(start=match.start(), end=match.end(), label=label, sort="time")


def _number(text: str, start: int, end: int, around: str) -> Quantity | None:
    """The number that begins with these digits; None where they belong to a name ("GPT-4", "H2O")."""
    before, sign, begin, currency = _before(text, start)
    if _names(before):
        return None
    digits = text[start:end]
    value, end = _with_fraction(text, start, end)
    if value is not None:
        value, end = _with_powers(text, value, end)
    if factorial := _FACTORIAL.match(text, end):
        return Quantity(start=begin, end=factorial.end())
    behind = _Behind.of(text, end, currency)
    decade = text[end : end + 1] == "s" and re.fullmatch(r"\d{4}", digits)
    bound = _is_bound_before(before) or _BOUND_BEHIND.match(text, behind.end) or _is_bound(before)
    tuple_like = (
        before.endswith("(") and text[end : end + 1] == ")" and re.fullmatch(r"\d+,\d{1,2}|0,\d+", digits)
    )
    # One text has one decimal separator; such a number was cut off ("100,00" of "100,000").
    mixed = (
        _DECIMAL_COMMA.fullmatch(digits) and not _GROUPED.fullmatch(digits) and _COMMA_GROUPS.search(around)
    )
    if value is None or bound or mixed or tuple_like or decade or behind.glued:
        return Quantity(start=begin, end=behind.end)
    return Quantity(
        start=begin,
        end=behind.end,
        value=value if sign == 1 and behind.scale is _ONE else sign * value * behind.scale,
        unit=behind.unit,
    )


def _is_bound_before(before: str) -> bool:
    """Whether a number is a part of what stands before it: "3 * 5", "x^2"."""
    return before.rstrip(_OPENS).endswith(_MAY_BIND) and bool(_BOUND_BEFORE.search(before))


def _is_bound(before: str) -> bool:
    """Whether a number is said to be the least or the most: "x > 5"."""
    return (
        before.rstrip().endswith(_MAY_COMPARE)
        and bool(_BOUND.search(before))
        and not _NO_BOUND.search(before)
    )


def _before(text: str, start: int) -> tuple[str, int, int, Unit | None]:
    """The text before a number, its sign, where it begins with these, and its currency."""
    near = max(0, start - _NEAR)
    before, sign, begin, unit = text[near:start], 1, start, None
    signed = False
    for _ in range(3):
        match = _SIGN.search(before) if not signed and before.rstrip().lower().endswith(_MAY_SIGN) else None
        rest = before[: match.start()] if match else before
        if match and (match[0][0].isalpha() or not _ends_operand(rest)):
            signed, sign, before, begin = True, 1 if match[0] == "+" else -1, rest, near + match.start()
        elif (
            unit is None
            and (found := unit_before(before)) is not None
            and not _opens_maths(before, text, start)
        ):
            unit, length = found
            before = before[: len(before) - length]
        else:
            break
    return before, sign, begin, unit


def _ends_operand(before: str) -> bool:
    """Whether a hyphen behind it is no sign: "16-3", "(x)-3", "GPT-4"."""
    last = before[-1:]
    return last != "" and (
        last in ")]}%" or (last.isalnum() and unicodedata.east_asian_width(last) not in "WF")
    )


def _opens_maths(before: str, text: str, start: int) -> bool:
    """Whether a dollar sign before a number opens a formula ("$x$"), which one behind closes."""
    return (
        before.rstrip().endswith("$")
        and not before.rstrip().endswith("\\$")
        and bool(_CLOSES_MATHS.match(text, start))
    )


def _names(before: str) -> bool:
    """Whether what stands before digits makes them a part of a name."""
    glued = _NAME.search(before[-2:])
    if glued is None:
        return False
    # Chinese, Japanese and Korean set no space between a word and a number.
    return glued[0][0] == "\\" or unicodedata.east_asian_width(glued[0][0]) not in "WF"


def _with_fraction(text: str, start: int, end: int) -> tuple[Fraction | None, int]:
    """The value of digits with the fraction that follows them; None where they are no number."""
    if text[start] == "\\":
        return _latex_fraction(text, start, end)
    if not text[start].isdecimal() and text[start] != ".":
        return _vulgar(text[start]), end
    value = _digits(text[start:end])
    if value is None:
        return None, end
    if match := _AND_A_HALF.match(text, end):
        return value + Fraction(1, 2), match.end()
    if match := _OVER.match(text, end):
        return _ratio(value, _whole(match[1])), match.end()
    return _mixed(text, value, end) if text[start:end].isdigit() else (value, end)


def _mixed(text: str, value: Fraction, end: int) -> tuple[Fraction | None, int]:
    """A whole number with the fraction that follows it: "2 1/2", "2½"."""
    if match := _VULGAR.match(text, end):
        return value + _vulgar(match[1]), match.end()
    if match := _MIXED.match(text, end):
        part, end = _ratio(_whole(match[1]), _whole(match[2])), match.end()
    elif match := _LATEX_FRACTION.match(text, end):
        part, end = _latex_fraction(text, end, match.end())
    else:
        return value, end
    return (None if part is None else value + part), end


def _whole(spelt: str) -> int | None:
    """The value of digits, raised or not, with their sign; None where they are no number, or longer than any that one writes."""
    plain = spelt.translate(_SUPERSCRIPTS)
    return int(plain) if len(plain) <= _MOST_DIGITS and _WHOLE.fullmatch(plain) else None


def _ratio(above: Fraction | int | None, below: int | None) -> Fraction | None:
    return Fraction(above) / below if above is not None and below else None


def _latex_fraction(text: str, start: int, end: int) -> tuple[Fraction | None, int]:
    match = _LATEX_FRACTION.match(text, start)
    if match is None:
        # A fraction of expressions: what stands in it must not be read either.
        return None, _behind_groups(text, end)
    return _ratio(_whole(match[1] or match[2]), _whole(match[3] or match[4])), match.end()


def _behind_groups(text: str, at: int) -> int:
    for _ in range(2):
        if text.startswith("{", at):
            at = closing(text, at)
    return at


def closing(text: str, at: int) -> int:
    """Behind the brace that closes the one at `at`, or the end of the text."""
    depth = 0
    for place in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return place + 1
    return len(text)


def _vulgar(character: str) -> Fraction:
    above, below = unicodedata.normalize("NFKC", character).split("\u2044")
    return Fraction(int(above), int(below))


def _digits(run: str) -> Fraction | None:
    """The value of digits and separators; None where they follow no notation ("1.2.3", "1,2,3")."""
    plain = re.sub(r"\{,\}|,\\!|\\[,;! ]", ",", run).replace("\u2019", "'").replace("\u066c", ",")
    if len(plain) > _MOST_DIGITS:
        return None
    if plain.isdecimal():
        return Fraction(int(plain))
    if re.fullmatch(r"0,\d+", plain):
        return Fraction(plain.replace(",", "."))
    patterns = (_GROUPED, _GROUPED_BY_POINT, _GROUPED_BY_SPACE, _GROUPED_IN_INDIA, _PLAIN)
    match = next((found for pattern in patterns if (found := pattern.fullmatch(plain))), None)
    if match is None:
        return None
    decimals = match["decimals"] or ""
    whole = re.sub(r"\D", "", plain[: len(plain) - len(decimals)])
    return Fraction(int(whole + decimals or "0"), 10 ** len(decimals))


def _with_powers(text: str, value: Fraction, end: int) -> tuple[Fraction | None, int]:
    if match := _EXPONENT.match(text, end):
        return _power(value, Fraction(10), _whole(match[1])), match.end()
    for pattern, factor, base in ((_TIMES_TEN, value, Fraction(10)), (_POWER, _ONE, value)):
        if match := pattern.match(text, end):
            spelt = next(group for group in match.groups() if group)
            return _power(factor, base, _whole(spelt)), match.end()
    return value, end


def _power(factor: Fraction, base: Fraction, exponent: int | None) -> Fraction | None:
    if exponent is None:
        return None
    size = max(len(str(base.numerator)), len(str(base.denominator)))
    if size * abs(exponent) > _MOST_DIGITS or (base == 0 and exponent <= 0):
        return None
    return factor * base**exponent


@dataclass(frozen=True, slots=True, kw_only=True)
class _Behind:
    """What follows a number and belongs to it; `glued` if it makes the number a part of something else."""

    end: int
    scale: Fraction
    unit: Unit | None
    glued: bool

    @classmethod
    def of(cls, text: str, end: int, currency: Unit | None) -> _Behind:
        scale = _ONE
        if match := _ORDINAL.match(text, end):
            return cls(end=match.end(), scale=scale, unit=None, glued=False)
        if (scaled := scale_after(text, end)) is not None:
            scale, end = scaled
        found = unit_after(text, end, currency)
        if found is not None:
            unit, end = found
            return cls(end=end, scale=scale, unit=unit, glued=False)
        word = _WORD_BEHIND.match(text, end)
        # A noun may be glued to its number ("7apples"), a letter or two make another thing of it ("3x", "0x1F").
        wide = word is not None and unicodedata.east_asian_width(word[0][0]) in "WF"
        glued = (
            word is not None
            and not wide
            and (len(word[0]) < 3 or not word[0].isalpha() or text[word.end() : word.end() + 1] in set("({["))
        )
        return cls(end=end, scale=scale, unit=currency, glued=glued)


def _joined(atoms: Sequence[Quantity], text: str) -> list[Quantity]:
    """Put together what two numbers make: ranges, "9 out of 10", "2 hours 30 minutes"."""
    done: list[Quantity] = []
    for one in atoms:
        if done and (whole := _pair(done[-1], one, text)) is not None:
            done[-1] = whole
        else:
            done.append(one)
    return done


def _pair(left: Quantity, right: Quantity, text: str) -> Quantity | None:
    gap = text[left.end : right.start]
    whole = replace(left, end=right.end, value=None, unit=None, label=None)
    if left.value is None or right.value is None:
        return None
    # Digits after a single space are neither a group of three nor a number of their own.
    spaced = len(gap) == 1 and gap in _SPACE and left.unit is None and text[right.start].isdigit()
    if gap == "" or spaced or _REMAINDER.fullmatch(gap):
        return whole
    if _OUT_OF.fullmatch(gap):
        return replace(whole, value=left.value / right.value if right.value else None)
    if left.unit and right.unit and left.unit.dimension == right.unit.dimension and _JOINED.fullmatch(gap):
        if left.unit.factor > right.unit.factor and right.value >= 0:
            total = left.value + right.value * right.unit.factor / left.unit.factor
            return replace(whole, value=total, unit=left.unit)
        return None
    between = _AND.fullmatch(gap) and _BETWEEN.search(text[max(0, left.start - _NEAR) : left.start])
    return _range(left, right, whole, gap) if between or _TO.fullmatch(gap) else None


def _range(left: Quantity, right: Quantity, whole: Quantity, gap: str) -> Quantity:
    assert left.value is not None
    assert right.value is not None
    minus = "\u2212" in gap or " - " in gap
    if right.value <= left.value or minus or (left.unit and right.unit and left.unit != right.unit):
        return whole
    unit = right.unit or left.unit
    label = f"{written(left.value)}..{written(right.value)}" + (f" {unit.name}" if unit else "")
    return replace(whole, label=label, sort="other")


def result_at(found: Sequence[Quantity], at: int, text: str) -> Quantity:
    """The number at a place, or what it is said to equal: of "3 + 4 = 7" the 7, of "3 + 4" one that cannot be read."""
    bound = False
    one = found[at]
    for left, right in pairwise(found[at:]):
        gap = text[left.end : right.start]
        if _EQUALS.fullmatch(gap):
            one, bound = right, False
        elif _OPERATOR.fullmatch(gap) or (gap == "" and right.start > left.start):
            bound = True
        else:
            break
    return Quantity(start=one.start, end=one.end) if bound else one


def listed_after(found: Sequence[Quantity], at: int, text: str) -> bool:
    """Whether the number at a place begins a list of numbers: alone it would be a part of the answer."""
    if at + 1 == len(found):
        return False
    one, other = found[at : at + 2]
    gap = text[one.end : other.start]
    if _OR.fullmatch(gap) and _same_amount(one, other):
        return False
    return bool(_LIST.fullmatch(gap) or _ASSIGNED.fullmatch(gap)) or _ends_things(one, other, text)


def last_result(found: Sequence[Quantity], text: str) -> Quantity:
    """The last number, where it stands alone; one that cannot be read where it ends an expression or a list."""
    one = found[-1]
    if len(found) == 1:
        return one
    left, gap = found[-2], text[found[-2].end : one.start]
    if _OR.fullmatch(gap) and _same_amount(left, one):
        return one
    if _binds(gap) or _ends_list(left, one, text) or _ends_things(left, one, text):
        return Quantity(start=one.start, end=one.end)
    return one


def _same_amount(one: Quantity, other: Quantity) -> bool:
    """Whether two numbers are one amount in two notations: "50%" and "1/2", "90 minutes" and "1.5 hours"."""
    amounts = {
        (
            None if unit is None or unit.dimension == PERCENT else unit.dimension,
            value if unit is None or value is None else value * unit.factor,
        )
        for unit, value in ((one.unit, one.value), (other.unit, other.value))
    }
    return one.value is not None and len(amounts) == 1


def _binds(gap: str) -> bool:
    return bool(_OR.fullmatch(gap) or _OPERATOR.fullmatch(gap) or _ASSIGNED.fullmatch(gap))


def _ends_list(left: Quantity, last: Quantity, text: str) -> bool:
    """Whether two numbers end a list of numbers, on one line or each on its own; "In 2020, 5 came" is none."""
    gap = text[left.end : last.start]
    if not _ENDS_LIST.match(text, last.end):
        return False
    if _NEXT_LINE.fullmatch(gap):
        return (
            left.form({}) != last.form({})
            and not text[text.rfind("\n", 0, left.start) + 1 : left.start].strip()
        )
    return bool(_MEMBERS.fullmatch(gap))


def _ends_things(left: Quantity, last: Quantity, text: str) -> bool:
    """Whether two numbers end a list of amounts of several things; "In 3 days, 5 people came" is none."""
    gap = _NEXT_THING.fullmatch(text, left.end, last.start)
    if gap is None or not _LAST_THING.match(text, last.end):
        return False
    return bool(gap["joined"]) or not _BEGINS_CLAUSE.search(text[max(0, left.start - _NEAR) : left.start])


def units_of(question: str) -> dict[str, Unit]:
    """The units that a bare number in an answer has: those that the question asks for, or the only one of its dimension.

    Examples
    --------
    >>> {
    ...     kind: unit.name
    ...     for kind, unit in units_of("An egg costs $2. How many hours does she work for 3?").items()
    ... }
    {'USD': 'USD', 'time': 'h'}
    """
    named: dict[str, set[Unit]] = {}
    for one in quantities(question):
        if one.unit is not None:
            named.setdefault(one.unit.dimension, set()).add(one.unit)
            # Of "$5 per bag" a bare number may be the dollars, too.
            whole = one.unit.without_rate()
            named.setdefault(whole.dimension, set()).add(whole)
    only = {dimension: next(iter(units)) for dimension, units in named.items() if len(units) == 1}
    sentence = asking_sentence(question)
    wanted = {unit.dimension: unit for unit in reversed(asked(sentence))}
    rates = rates_in(sentence, only | wanted)
    # Asked for hours, "6 hours a week" are hours, though the question tells of days a week.
    return {name: unit for name, unit in only.items() if name.split("/")[0] not in wanted} | wanted | rates


def asking_sentence(question: str) -> str:
    """The last sentence with a question mark, else the last that asks to calculate, else the last: others may be context."""
    sentences = [one for one in _SENTENCES.split(question) if one.strip()]
    asking = [one for one in sentences if "?" in one or "\uff1f" in one]
    asking = asking or [one for one in sentences if _COMMANDS.match(one)] or sentences
    return asking[-1] if asking else ""


_ONES = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SMALL = dict(zip(_ONES, range(20), strict=True)) | dict(zip(_TENS, range(20, 100, 10), strict=True))
_LARGE = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_WORD = "|".join(sorted([*_SMALL, *_LARGE], key=len, reverse=True))
_WORDS = re.compile(
    rf"\b(?:minus\s+|negative\s+)?(?:{_WORD})(?:(?:[\s-]+(?:and\s+)?)(?:{_WORD}))*\b", re.IGNORECASE
)
_AND_A_PART = re.compile(r"[\s-]*(?:and\s+)?(?:a\s+)?(?:half|third|quarter)s?\b", re.IGNORECASE)
# "No one knows" and "the one that I like" count nothing.
_PRONOUN = re.compile(
    r"\b(?:no|any|every|some|each|this|that|which|the|another|good|right|wrong)[\s-]$", re.IGNORECASE
)


def number_in_words(text: str) -> Quantity | None:
    """The one number that a text spells in words; None where it spells none or several.

    Examples
    --------
    >>> written(number_in_words("It has twenty-one legs.").value), number_in_words("two or three")
    ('21', None)
    """
    found = [
        match
        for match in _WORDS.finditer(text)
        if not (match[0].lower() == "one" and _PRONOUN.search(text[: match.start()]))
    ]
    if len(found) != 1:
        return None
    match = found[0]
    value = _spelt(re.findall(r"[a-z]+", match[0].lower()))
    unit = unit_after(text, match.end())
    if value is None or _AND_A_PART.match(text, match.end()):
        return None
    end = match.end() if unit is None else unit[1]
    return Quantity(start=match.start(), end=end, value=value, unit=None if unit is None else unit[0])


def _spelt(words: Sequence[str]) -> Fraction | None:
    """The value of number words; None where they are not one number ("two three")."""
    negative = words[0] in ("minus", "negative")
    total, part, least, last = 0, 0, 10**12, None
    for word in (word for word in words[negative:] if word != "and"):
        if word in _SMALL:
            if last in _ONES or (last in _TENS and not 1 <= _SMALL[word] <= 9):
                return None
            part += _SMALL[word]
        elif word == "hundred":
            part = (part or 1) * 100
        else:
            if _LARGE[word] >= least:
                return None
            least = _LARGE[word]
            total, part = total + (part or 1) * least, 0
        last = word
    return Fraction(-(total + part) if negative else total + part)
