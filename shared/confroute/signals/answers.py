"""Extract the final answer from a text: a number, a date, an option letter or a short string that samples can be compared by.

Grades, signals and the span of tokens that counts all read an answer here. Different answers never have the same form;
where a text cannot be read whole, it has none. Reasoning in tags ("<think>") is not read.
"""

# ruff: noqa: RUF001  it reads the characters of many scripts

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

from confroute.signals.numbers import (
    RAISED,
    VULGAR,
    Quantity,
    Sort,
    asking_sentence,
    closing,
    last_result,
    listed_after,
    number_in_words,
    quantities,
    result_at,
    units_of,
)
from confroute.types import Generation

Kind: TypeAlias = Literal["auto", "number", "date", "option", "text"]

# Of the texts of one call: every signal reads the same question and answers.
_RECENT = 256
# What is farther from a mark or the last digit than this does not change how the number is read.
_NEAR = 240
_DIGIT = re.compile(rf"\d|{VULGAR}")
_LETTERS = "ABCDEFGHIJ"
_THINK = r"think|thinking|thought|reasoning"
_REASONING_ENDS = re.compile(
    rf"</(?:{_THINK})>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>", re.IGNORECASE
)
_REASONING_BEGINS = re.compile(
    rf"<(?:{_THINK})>|\[THINK\]|◁think▷|<\|channel\|>analysis<\|message\|>", re.IGNORECASE
)

# GSM8K marks its answers with "####"; maths-tuned models write \boxed{}.
_BOXED = r"\\f?boxed\s*\{"
_MARK = re.compile(
    rf"####|{_BOXED}|<answer>|\b(?:answer|result|antwort|ergebnis|lösung|réponse|respuesta|risposta|ответ)\b\W{{0,4}}?"
    r"\s*(?:\b(?:is|was|be|equals|ist|lautet|est|es|è)\b|:|=)|(?:答案|答え)(?:是|は)?",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"(?:[\s*_$€£¥₹:({\\]|\\text|US|\b(?:approximately|about|roughly|around|nearly|therefore|thus|hence|then|exactly|just|only|simply|indeed|now|equal to"
    r"|between|from|Rs\.?|[A-Z]{3}(?=\s?\d))(?!\w)|[a-zA-Z]\s*=)*",
)

_ITEM = re.compile(r"^[^\S\n]*(\d{1,2})[.)]\s+(?=[^\W\d]|[*_\[\"'(])", re.MULTILINE)
_CANNOT = r"(?:cannot|can not|can['\u2019]?t|could not|couldn['\u2019]?t|(?:am |are |['\u2019]m |['\u2019]re )(?:unable|not able) to)"
_REFUSES = re.compile(
    rf"\b(?:I|we)\s?{_CANNOT}\s+(?:\w+\s+)?(?:answer|say|tell|determine|know|provide|give|calculate|compute|solve)\b"
    r"|\bI\s+(?:do not|don['\u2019]?t)\s+know\b"
    r"|\b(?:not possible|impossible) to\s+(?:\w+\s+)?(?:answer|say|tell|determine|know|calculate|compute|solve)\b"
    r"|\b(?:cannot|can['\u2019]?t) be\s+(?:answered|determined|known|calculated|computed|solved)\b",
    re.IGNORECASE,
)

_DATES_NAMED = re.compile(r"\b(MM|DD)\s*[/-]\s*(?:DD|MM)\s*[/-]\s*YYYY\b", re.IGNORECASE)
_AMBIGUOUS_DATE = re.compile(r"(\d+)/(\d+)/(\d{4})")

_OPENING = r"[\s>*_(\[#-]*"
_LISTED_OPTION = re.compile(
    rf"(?:^|\n){_OPENING}([A-J])(?:\*\*)?(?:[).:\]]+|\s+-)(?:\*\*)?[^\S\n]+\S|(?:^|\n)\s*([A-J])(?:[).](?=\w)|[。、．：])"
)
_LISTED_SMALL = re.compile(r"(?:^|\n)\s*\(?([a-j])\)\s+\S")
_LISTED_INLINE = re.compile(r"(?<![^\s(])\(?([A-J])\)\s+\S")

_STYLES = r"text|textbf|mathbf|mathrm|boldsymbol"
_DRESS = rf"(?:[\s*_$`\"'({{\[<]|\\(?:{_STYLES})\s*\{{|\\\(){{0,40}}"
_ONE = r"(?P<letter>[A-Ja-jＡ-Ｊ])(?![\w+#&]|['\u2019]\w|-\w|-\.)"
_CHOICE = r"(?:answer|option|choice|pick|selection|antwort|lösung|solution|réponse|respuesta|risposta|resposta|ответ)"
_MARKED_OPTION = re.compile(
    rf"(?:{_BOXED}|<answer>|[{{,]\s*[\"']answer[\"']\s*:|(?:答案|正解|答え)\s*(?:是|は|[:：])?"
    rf"|\b{_CHOICE}\b(?:\W{{0,4}}\b(?:is|was|be|ist|lautet|est|es|è|é|would be|should be|must be)\b|\W{{0,4}}?[:：=]|\s+[-\u2013])\**)"
    rf"\s{{0,40}}(?:(?:the\s+)?(?:option|choice|letter|answer)\s+|clearly\s+|therefore\s+|definitely\s+)?{_DRESS}{_ONE}",
    re.IGNORECASE,
)
_CUED_OPTION = re.compile(
    rf"(?:\b(?:i['\u2019]d\s+say|i(?:\s+would)?\s+(?:say|choose|pick|select|go\s+with|think)|it['\u2019]s|it\s+is|it\s+must\s+be|must\s+be"
    rf"|(?:is|but|so|therefore|thus|hence|choose|pick|select|final|which\s+is|that\s+is|option|choice|answer|letter)|go\s+with)\b[,:]?\s*(?:option\s+|choice\s+)?|[:：]){_DRESS}{_ONE}",
    re.IGNORECASE,
)
_BRACKETED_OPTION = re.compile(r"[(\[](?P<letter>[A-J])[)\]]")
_LEADING_OPTION = re.compile(rf"(?:\\(?:{_STYLES}|f?boxed)\s?\{{|[\W_])*{_ONE}")
_REJECTED_BEFORE = re.compile(
    r"\b(?:not|isn['\u2019]?t|neither|nor|than|except|(?:every|any)thing but|all but|rule out|rules out|eliminate|unlike)\s+(?:option\s+|choice\s+|necessarily\s+)?\W*$",
    re.IGNORECASE,
)
_REJECTED_BEHIND = re.compile(
    r"\W{0,3}\s*(?:is|are|was|would be|seems|looks|appears|isn['\u2019]t|can(?:not|['\u2019]t))\s+(?:also\s+|clearly\s+|definitely\s+)?(?:be\s+|not|wrong|incorrect|false|too|out|a\s+common)\b"
    r"|\W{0,3}\s*isn['\u2019]t\b",
    re.IGNORECASE,
)
_ALSO = re.compile(
    r"[)\]*.}]*\s*(?:,?\s*\b(?:and|or|und|oder|et|ou|y|и)\b|,|/|&)\s*(?:option\s+)?[\s(\[*]*[A-J](?![\w'\u2019])",
    re.IGNORECASE,
)

_ARITHMETIC = r"[\d(][\d.,]*(?:\s*[-+*/x×÷^]\s*[\d(][\d.,)]*)+"
# What may follow a noun that is not a part of another: "the rate at which", not "the rate fallacy".
_NO_NOUN = (
    r"(?:of|in|for|per|on|at|between|among|over|that|which|is|was|are|were|be|will|would|can|could|did|does|do|has|have|had"
    r"|should|must|he|she|it|they|we|you|the|an?|to|from|by|if|and|or|after|before|when|while|with|without|there|this|each"
    r"|every|his|her|its|their|now|today|\w+ed|\w+ing)\b"
)
# These nouns are asked for as numbers only where there are numbers to reckon with: not "the value of friendship".
_NEEDS_NUMBERS = ("difference", "product", "value", "measure", "share", "balance", "grade", "charge", "score")
_RECKONS = re.compile(
    r"\d|[$\\]|\b(?:two|three|four|five|six|seven|eight|nine|ten|dozen|half|twice|double|triple)\b",
    re.IGNORECASE,
)
_TO_WRITE = re.compile(
    r"\W*(?:please\s+|can you\s+|could you\s+)?(?:write|implement|create|design|develop|generate|compose|draft)\s+(?:me\s+)?an?\b",
    re.IGNORECASE,
)
_ASKS_NUMBER = re.compile(
    r"\bhow (?:many|much|old|far|long|tall|big|fast|heavy|deep|wide|high|often)\b|\b(?:calculate|compute|evaluate)\b"
    r"|\bwie ?(?:viele?|lange?|weit|alt|hoch|groß)\b|\bcombien\b|\bcu[aá]nt[oa]s?\b|\bquant[oiae]\b|\bсколько\b|多少|几个"
    r"|\b(?:what(?:['\u2019]s| is| was| are| were| will| would| does| did| do)?|find|determine)\b(?: [\w'\u2019]+){0,4}? "
    r"(?:(?:number|sum|total|quotient|average|mean|median|percentage|percent|probability|likelihood|distance|cost|costs"
    r"|price|area|volume|capacity|perimeter|amount|age|fraction|speed|length|width|height|depth|weight|weights|profit"
    r"|salary|pension|budget|proceeds|temperature|year)\b"
    rf"|(?:difference|product|value|ratio|rate|score|grade|balance|bill|charge|measure|share)\b(?!\s(?!{_NO_NOUN})(?-i:[a-z])))"
    rf"|\bin (?:what|which) year\b|(?:\bwhat(?:['\u2019]s| is)|=|\bsolve)\s*{_ARITHMETIC}",
    re.IGNORECASE,
)
_ONLY_ARITHMETIC = re.compile(rf"[^\w(]*{_ARITHMETIC}\s*=?\s*\??\s*")
_ASKS_DATE = re.compile(
    r"\b(?:what|which)\s+(?:(?:is|was|will be)\s+)?(?:the\s+)?(?:(?:exact|earliest|latest|first|last|next|current)\s+)?(?:date|time|day)\b(?!\s+of\s+the\s+week)"
    r"|\bat what time\b|^\W*when\b(?!\s+(?:an?|the|i|you|he|she|it|we|they|\w+ing)\b)|\bMM/DD/YYYY\b|\bDD/MM/YYYY\b",
    re.IGNORECASE,
)

# Matched after punctuation is removed.
_LEAD_IN = re.compile(
    r"^(?:(?:the )?(?:final |correct )?answer(?: is)?|its|it is|thats|that is|that would be|this is)(?:\s+|$)"
)
# Prose punctuation only: what stands inside a number, a name or an expression carries meaning.
_PROSE = re.compile(
    r"[;!?'\"()\[\]{}`~\u2018-\u201f\u2026]|[.](?!\d)|(?<!\d),|,(?!\d)|(?<!\d):|:(?!\d)|(?<![^\W_])_|_(?![^\W_])"
)
_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,]|\.\d*,)")
_STARS = re.compile(r"(?<!\w)[*]+|[*]+(?!\w)")
_MINUS = re.compile(r"[\u2212\u2013](?=\d)")
_DASHES = re.compile(r"[\u2013\u2014]|-(?!\d)")
_RAISED = re.compile(rf"({RAISED}+)")
_VULGAR = re.compile(rf"(?<=\d)(?={VULGAR})")
_ARTICLES = re.compile(r"(?<!\S)(?:a|an|the)(?!\S)")
SHORT_WORDS = 8


def without_reasoning(text: str) -> str:
    """The text with spaces in the place of its reasoning, so that positions stay; all of it where the reasoning never ends.

    Examples
    --------
    >>> without_reasoning("<think>5? No.</think>7").strip(), without_reasoning("<think>5, so").strip()
    ('7', '')
    """
    ends = [match.end() for match in _REASONING_ENDS.finditer(text)]
    begun = [
        match.start() for match in _REASONING_BEGINS.finditer(text) if not ends or match.start() >= ends[-1]
    ]
    start, stop = ends[-1] if ends else 0, begun[0] if begun else len(text)
    return " " * start + text[start:stop] + " " * (len(text) - stop) if ends or begun else text


@lru_cache(maxsize=_RECENT)
def normalised(text: str) -> str:
    """Normalise a text for comparison: no reasoning, case, prose punctuation, articles, lead-ins or repeated spaces.

    Symbols that carry meaning stay: what stands inside numbers and names, operators, "C++".

    Examples
    --------
    >>> normalised("The answer is: **Paris**."), normalised("paris"), normalised("1,250.0 km")
    ('paris', 'paris', '1250.0 km')
    >>> normalised("1,5 km"), normalised("3:2"), normalised("user_name")
    ('1,5 km', '3:2', 'user_name')
    """
    raised = _RAISED.sub(lambda found: f"^{found[1]}", _VULGAR.sub(" ", without_reasoning(text)))
    lowered = _MINUS.sub("-", unicodedata.normalize("NFKC", raised).lower())
    whole = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), lowered)
    words = " ".join(_STARS.sub("", _PROSE.sub("", _DASHES.sub(" ", whole))).split())
    while words != (shorter := _LEAD_IN.sub("", " ".join(_ARTICLES.sub(" ", words).split()))):
        words = shorter
    return words or " ".join(lowered.split())


def number_in(text: str, question: str = "") -> str | None:
    """The final number of a text in canonical form: the last marked one ("the answer is 7"), else the last one.

    Parameters
    ----------
    text : str
    question : str
        Sets the units of bare numbers: asked for hours, "3", "3 hours" and "180 minutes" are the same.

    Returns
    -------
    str or None
        None where there is no number, or none that can be read whole: a part of a number never stands for it. None, too,
        where the text says that it cannot answer, unless a number is marked.

    Examples
    --------
    >>> number_in("3 + 4 = 7, so the answer is 7.0 apples"), number_in("about 1,250 km"), number_in("none")
    ('7', '1250 km', None)
    >>> number_in("Eight legs."), number_in("180 minutes", "How many hours?"), number_in("1, 2 or 3")
    ('8', '3', None)
    """
    found = quantity_in(text)
    if found is None:
        return None
    return found.form(units_of(question) if found.unit is not None else {})


@lru_cache(maxsize=_RECENT)
def quantity_in(text: str) -> Quantity | None:
    """The final number, date or time of a text; None where there is none that can be read."""
    read = without_reasoning(text)
    one = _marked(read) or _last(read)
    if one is None and not _DIGIT.search(read):
        one = number_in_words(read)
        return None if one is None or _refuses(read, one.start) else one
    return one if one is not None and one.readable else None


def _refuses(text: str, at: int) -> bool:
    """Whether the sentence at a place, or what follows it, says that there is no answer."""
    begin = max(text.rfind(mark, 0, at) for mark in (". ", "! ", "? ", "\n")) + 1
    return bool(_REFUSES.search(text, begin))


def _marked(text: str, sorts: tuple[Sort, ...] = get_args(Sort)) -> Quantity | None:
    """The number behind the last mark ("####", "the answer is") that has one; one that cannot be read if it is not alone."""
    for mark in reversed(list(_MARK.finditer(text))):
        boxed = mark[0].endswith("{")
        end = closing(text, mark.end() - 1) - 1 if boxed else mark.end() + _NEAR
        found = [one for one in _within(text, mark.end(), end) if one.sort in sorts or not one.readable]
        if boxed and found:
            one = result_at(found, 0, text)
            return one if one.end == found[-1].end else Quantity(start=found[0].start, end=found[-1].end)
        if found and _FILLER.fullmatch(text[mark.end() : found[0].start]):
            one = result_at(found, 0, text)
            return Quantity(start=one.start, end=one.end) if listed_after(found, 0, text) else one
    return None


def _last(text: str, sorts: tuple[Sort, ...] = get_args(Sort)) -> Quantity | None:
    digits = [match.end() for match in _DIGIT.finditer(text)]
    if not digits:
        return None
    # A text of dates only is read whole: the last number in it may be another one.
    begin = 0 if len(sorts) < len(get_args(Sort)) else max(0, digits[-1] - _NEAR)
    begin = max(
        text.rfind(" ", max(0, begin - _NEAR), begin),
        text.rfind("\n", max(0, begin - _NEAR), begin),
        begin - _NEAR,
        0,
    )
    found = [one for one in _within(text, begin, len(text)) if one.sort in sorts]
    items = _items(text, begin)
    while found and found[-1].start in items:
        found.pop()
    return last_result(found, text) if found and not _refuses(text, found[-1].start) else None


def _items(text: str, begin: int) -> set[int]:
    """Where the numerals of a numbered list stand, behind a place."""
    found = list(_ITEM.finditer(text, begin))
    follow = (pair for pair in pairwise(found) if int(pair[1][1]) == int(pair[0][1]) + 1)
    return {one.start(1) for pair in follow for one in pair}


def _within(text: str, begin: int, end: int) -> list[Quantity]:
    """The numbers between two places; what a number that begins there needs to be read is seen even behind `end`."""
    # The mark itself is kept before the first number: it is what stands there.
    start = max(0, begin - 1)
    found = quantities(text[start : end + _NEAR], around=text)
    within = [one for one in found if begin <= one.start + start < end]
    return [replace(one, start=one.start + start, end=one.end + start) for one in within] if start else within


def number_span(text: str) -> tuple[int, int] | None:
    """Start and end, in characters, of the number that `number_in` reads.

    Examples
    --------
    >>> number_span("so 7 apples"), number_span("none")
    ((3, 4), None)
    """
    found = quantity_in(text)
    return None if found is None else (found.start, found.end)


def _date_in(text: str) -> Quantity | None:
    read = without_reasoning(text)
    one = _marked(read, ("date", "time")) or _last(read, ("date", "time"))
    return one if one is not None and one.readable else None


def date_in(text: str, question: str = "") -> str | None:
    """The final date or time of a text in canonical form: the last marked one, else the last one.

    Examples
    --------
    >>> (
    ...     date_in("It is May 5th, 2021."),
    ...     date_in("5/4/2021", "Which date, in MM/DD/YYYY?"),
    ...     date_in("at 3:55 pm"),
    ... )
    ('2021-05-05', '2021-05-04', '15:55')
    """
    found = _date_in(text)
    if found is None:
        return None
    label = found.label
    order, parts = _DATES_NAMED.search(question), _AMBIGUOUS_DATE.fullmatch(label or "")
    if order and parts:
        first, second = int(parts[1]), int(parts[2])
        month, day = (first, second) if order[1].upper() == "MM" else (second, first)
        return f"{parts[3]}-{month:02d}-{day:02d}"
    return label


def option_in(text: str, letters: Sequence[str] = _LETTERS) -> str | None:
    """The option letter that a text chooses; None where it chooses none, or several.

    Parameters
    ----------
    text : str
    letters : sequence of str
        Those that the question lists; by default A to J.

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
    span = option_span(text, letters)
    return None if span is None else _letter(text[slice(*span)])


def option_span(text: str, letters: Sequence[str] = _LETTERS) -> tuple[int, int] | None:
    """Start and end, in characters, of the option letter that `option_in` reads.

    A letter that begins the text beats mentions that follow it; one that is marked ("the answer is B") beats any other
    mention. Articles, pronouns and letters that the text rejects are not choices.

    Examples
    --------
    >>> option_span("I think the answer is (c)."), option_span("Mars")
    ((23, 24), None)
    """
    read = without_reasoning(text)
    leading = _leading(read, letters)
    marked = [match for match in _MARKED_OPTION.finditer(read) if _chosen(read, match, letters)]
    if leading is not None and all(
        _letter(match["letter"]) == _letter(leading["letter"]) for match in marked
    ):
        return _alone(read, leading)
    if marked:
        # Two choices are none: "B ... wait, the answer is C".
        return None if leading is not None else _alone(read, marked[-1])
    cued = [match for match in _CUED_OPTION.finditer(read) if _chosen(read, match, letters)]
    cued += [match for match in _BRACKETED_OPTION.finditer(read) if _chosen(read, match, letters)]
    if len({_letter(match["letter"]) for match in cued}) == 1:
        return _alone(read, cued[-1])
    return None


def _letter(character: str) -> str:
    return unicodedata.normalize("NFKC", character).upper()


def _leading(text: str, letters: Sequence[str]) -> re.Match[str] | None:
    match = _LEADING_OPTION.match(text)
    if match is None or not _chosen(text, match, letters):
        return None
    rest = text[match.end() :]
    # A text that goes through the options one by one does not begin with its choice.
    several = {_letter(found[1] or found[2]) for found in _LISTED_OPTION.finditer(text)}
    several |= {_letter(found[1]) for found in _LISTED_SMALL.finditer(text)}
    ends = re.match(
        r"[\s)\].:,;*_}$\"'`>]*(?:$|\n)|[)\].:,;*}]|\s+(?:is|because|since|as|-|\u2013|\u2026|\.\.|\()", rest
    )
    return match if ends and len(several) < 2 else None


def _chosen(text: str, match: re.Match[str], letters: Sequence[str]) -> bool:
    """Whether a letter is listed, is no article or pronoun, and is not rejected."""
    character, rest = match["letter"], text[match.end("letter") :]
    if _letter(character) not in letters:
        return False
    before = text[max(0, match.start("letter") - _NEAR) : match.start("letter")]
    if _REJECTED_BEFORE.search(before) or _REJECTED_BEHIND.match(rest):
        return False
    if character.islower() and not re.match(r"\)|[\]}.:]*\s*(?:$|\n)|[.:]\s", rest):
        return False
    article = (
        character in "aAI"
        and re.match(r"\s+[a-z]", rest)
        and not re.match(r"\s+(?:is|because|since)\b", rest)
    )
    return not (
        article
        or (character in "ai" and not re.match(r"\)", rest) and len(text.strip()) > 1 and before.strip())
    )


def _alone(text: str, match: re.Match[str]) -> tuple[int, int] | None:
    return None if _ALSO.match(text, match.end("letter")) else match.span("letter")


@lru_cache(maxsize=_RECENT)
def kind_of(question: str) -> Kind:
    r"""What kind of answer a question asks for: "option" if it lists options, "number" or "date" if it asks for one, else "text".

    Only what is asked counts, which is the last sentence with a question mark, else the last one: numbers and questions in
    a context before it say nothing. Name the kind where your prompts ask in another way: `SelfConsistency(kind=...)`,
    `confroute record --kind`.

    Examples
    --------
    >>> (
    ...     kind_of("How many legs has a spider?"),
    ...     kind_of("Which one?\nA. Mars\nB. Venus"),
    ...     kind_of("Capital of Peru?"),
    ...     kind_of("Rossi raced in 1998 and 2002.\nWho won in 1998?"),
    ... )
    ('number', 'option', 'text', 'text')
    """
    if options_in(question):
        return "option"
    sentence = asking_sentence(question)
    if _ASKS_DATE.search(sentence) or re.search(r"\b(?:MM/DD|DD/MM)/YYYY\b", question):
        return "date"
    return "number" if _asks_number(sentence, question) or _ONLY_ARITHMETIC.fullmatch(sentence) else "text"


def _asks_number(sentence: str, question: str) -> bool:
    """Whether a sentence asks for a number: for a difference only where there are numbers to tell apart."""
    if _TO_WRITE.match(sentence):
        return False
    asked = (match[0].lower() for match in _ASKS_NUMBER.finditer(sentence))
    return any(_RECKONS.search(question) or not words.endswith(_NEEDS_NUMBERS) for words in asked)


@lru_cache(maxsize=_RECENT)
def options_in(question: str) -> tuple[str, ...]:
    r"""The letters of the options that a question lists, in order; empty where it lists fewer than two.

    Examples
    --------
    >>> options_in("Which one?\nA. Mars\nB. Venus"), options_in("A. Lincoln was who?")
    (('A', 'B'), ())
    """
    for pattern in (_LISTED_OPTION, _LISTED_SMALL, _LISTED_INLINE):
        found = (next(filter(None, match.groups())).upper() for match in pattern.finditer(question))
        letters = tuple(dict.fromkeys(found))
        if len(letters) > 1:
            return letters
    return ()


@lru_cache(maxsize=_RECENT)
def final_answer(text: str, question: str, *, kind: Kind = "auto") -> str | None:
    """Extract the final answer of a text in a form that can be compared; None where there is none.

    Parameters
    ----------
    text : str
        A model's answer.
    question : str
        The question; it decides the kind where `kind` is "auto", the letters that may be chosen, and the units of numbers.
    kind : {"auto", "number", "date", "option", "text"}
        A "date" may be a time of day. A "text" answer is the normalised text itself if it has at most eight words. Longer
        texts have no short answer to compare.

    Examples
    --------
    >>> final_answer("She has 3 + 4 = 7 apples.", "How many apples?")
    '7'
    >>> final_answer("The capital is a city that ... and so on for many words", "Capital?") is None
    True
    """
    effective = kind_of(question) if kind == "auto" else kind
    if effective == "option":
        return option_in(text, options_in(question) or _LETTERS)
    found = None
    if effective == "number":
        found = number_in(text, question)
    elif effective == "date":
        found = date_in(text, question)
    if found is not None or not _may_be_text(text, effective, kind):
        return found
    short = normalised(text)
    return short if short and len(short.split()) <= SHORT_WORDS else None


def _may_be_text(text: str, effective: Kind, kind: Kind) -> bool:
    """Whether the text's words are compared: not where it holds numbers that cannot be read."""
    if effective == "text":
        return True
    return (
        kind == "auto"
        and effective != "option"
        and not (effective == "number" and _DIGIT.search(without_reasoning(text)))
    )


def final_span(text: str, question: str, *, kind: Kind = "auto") -> tuple[int, int] | None:
    """Start and end, in characters, of what `final_answer` reads; None where it reads nothing.

    Examples
    --------
    >>> final_span("She has 3 + 4 = 7 apples.", "How many apples?"), final_span(" Lima.", "Capital of Peru?")
    ((16, 17), (0, 6))
    """
    if final_answer(text, question, kind=kind) is None:
        return None
    effective = kind_of(question) if kind == "auto" else kind
    if effective == "option":
        return option_span(text, options_in(question) or _LETTERS)
    if effective == "number" and (span := number_span(text)) is not None:
        return span
    if effective == "date" and (date := _date_in(text)) is not None:
        return date.start, date.end
    read = without_reasoning(text)
    return (0 if read == text else len(read) - len(read.lstrip())), len(read)


def answer_of(generation: Generation, question: str, *, kind: Kind = "auto") -> str | None:
    """The comparable final answer of a generation: the host's canonical form where there is one, else `final_answer`."""
    if generation.answer is not None:
        return generation.answer
    return final_answer(generation.text, question, kind=kind)
