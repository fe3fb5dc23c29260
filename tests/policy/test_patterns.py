"""Patterns whose search may take for ever are told, and one that is not told takes steps in proportion to the text."""

from __future__ import annotations

import importlib
import re
import warnings

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from confroute.errors import PolicyError
from confroute.policy.patterns import check_pattern

parser = importlib.import_module("re._parser")
LENGTH = 5_000


class Machine:
    """Instructions of a machine that backtracks: read a letter, try one place before another, end a repeat whose round read nothing."""

    def __init__(self, pattern):
        self.code = []
        self.sequence(parser.parse(pattern))
        self.code.append(("end",))

    def sequence(self, parsed):
        for kind, about in parsed:
            if kind is parser.SUBPATTERN:
                self.sequence(about[3])
            elif kind is parser.BRANCH:
                self.branch(about[1])
            elif kind in (parser.MAX_REPEAT, parser.MIN_REPEAT):
                self.repeat(*about, greedy=kind is parser.MAX_REPEAT)
            elif kind is parser.ANY:
                self.code.append(("read", "ab?!"))
            else:
                letters = [about] if kind is parser.LITERAL else [code for _, code in about]
                self.code.append(("read", "".join(map(chr, letters))))

    def branch(self, ways):
        ends = []
        for way in ways[:-1]:
            split = self.hole()
            self.sequence(way)
            ends.append(self.hole())
            self.code[split] = ("try", split + 1, len(self.code))
        self.sequence(ways[-1])
        for end in ends:
            self.code[end] = ("go", len(self.code))

    def repeat(self, least, most, body, *, greedy):
        for _ in range(least):
            self.sequence(body)
        splits = []
        for _ in range(1 if most is parser.MAXREPEAT else most - least):
            splits.append(self.hole())
            self.code.append(("note", splits[-1]))
            self.sequence(body)
            if most is parser.MAXREPEAT:
                self.code.append(("again", splits[-1], len(self.code) + 1))
        for split in splits:
            ways = (split + 1, len(self.code))
            self.code[split] = ("try", *(ways if greedy else ways[::-1]))

    def hole(self):
        self.code.append(())
        return len(self.code) - 1


def steps(pattern, text, most=3_000_000):
    """How many instructions one attempt at the begin of a text takes, as `re` goes about it."""
    code = Machine(pattern).code
    stack, count = [(0, 0, {})], 0
    while stack and count < most:
        at, place, notes = stack.pop()
        count += 1
        do, *what = code[at]
        if do == "end":
            break
        if do == "read":
            if place < len(text) and text[place] in what[0]:
                stack.append((at + 1, place + 1, notes))
        elif do == "note":
            stack.append((at + 1, place, {**notes, what[0]: place}))
        elif do == "again":
            stack.append((what[notes[what[0]] == place], place, notes))
        else:
            stack += [(one, place, notes) for one in reversed(what)]
    return count


def told(pattern):
    """What is said of it, or None."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_pattern(pattern)
    return str(said[0].message) if said else None


LETTERS = st.sampled_from(["a", "b", ".", "ab", "[ab]", "ba"])
PATTERNS = st.recursive(
    LETTERS,
    lambda inner: st.one_of(
        st.builds("{}{}".format, inner, inner),
        st.builds("(?:{}|{})".format, inner, inner),
        st.builds("(?:{}){}".format, inner, st.sampled_from(["*", "+", "?", "*?", "+?", "{1,2}", "{2,}"])),
    ),
    max_leaves=7,
)


@settings(deadline=None, max_examples=80)
@given(pattern=PATTERNS, before=st.text("ab", max_size=2), word=st.text("ab", min_size=1, max_size=3))
@example(pattern="(?:ab)*", before="", word="ab")
@example(pattern="(?:a*b)*(?:ba)*", before="", word="ab")
def test_what_is_not_told_takes_steps_in_proportion_to_the_text(pattern, before, word):
    """Twice the text, twice the steps: on 5,000 letters of a word over and over that end in one that fails."""
    pattern += "!"
    assume(told(pattern) is None)

    def taken(length):
        return steps(pattern, (before + word * length)[:length] + "?")

    assert taken(LENGTH) <= 2.2 * taken(LENGTH // 2) + 2_000


FOR_EVER = {
    "(a|a)+!": "a",
    "(?:a|aa)+!": "a",
    "(a+)+!": "a",
    "(?:a|ab|b)*!": "ab",
    "(?:ab|a|b)+?!": "ab",
    "(?:b(?:a*|b*))*!": "b",
    "(?:b(?:a?)*)*!": "b",
    "(?:a{1,2})+!": "a",
    "(?:.a|a.)*!": "aa",
}
POWERS = {
    "a+a+!": "a",
    "a*a*!": "a",
    "(?:a?)*a*!": "a",
    ".*a.*!": "a",
    "a*[ab]*!": "a",
    "a+(?:ab?)*!": "a",
    "(?:ab)*b?(?:ab)*!": "ab",
    "a{2,}b?a{3,}?!": "a",
}


@pytest.mark.parametrize(("pattern", "word"), FOR_EVER.items())
def test_what_takes_for_ever_is_told(pattern, word):
    """Alternatives that begin alike, and repeats of repeats: a few letters more, many times the steps."""
    assert "takes for ever" in told(pattern)
    assert steps(pattern, word * 11) > 3 * steps(pattern, word * 8)


@pytest.mark.parametrize(("pattern", "word"), POWERS.items())
def test_what_takes_a_power_of_the_length_is_told(pattern, word):
    """Repeats of the same letters, one after the other, with nothing between them that has to stand there."""
    assert "at least the square" in told(pattern)
    assert steps(pattern, word * 400) > 3 * steps(pattern, word * 200)


REAL = {
    r"(\w+\s?)+@corp\.com": True,
    r"\d+\d+-": True,
    r"\s*\s*x": True,
    r"(?i)(straße|STRASSE|s\w+)+!": True,
    r"(.|\s)*x": True,
    r"\w{1,64}\d{1,64}x": True,
    r"(?=.*.*x)y": True,
    r"(?:(?:a+)+)?b": True,
    r"(x)?(?(1)(a|a)*|b)c": True,
    r"[A-Z]{2}\d{2}(?:\s?\w{4}){3,7}": False,
    r"\b(?:\d[ -]*?){13,16}\b": False,
    r"(?:\+\d{1,3}[- ]?)?\(?\d{3}\)?[- ]?\d{3}[- ]?\d{4}": False,
    r"\b\d{1,3}(?:\.\d{1,3}){3}\b": False,
    r"^\s+|\s+$": False,
    r"[\w.]+@[\w.]+\.com": False,
    r".*secret.*": False,
    r"(?:\w+\.)*\w+@": False,
    r"(\w|\d)+x": False,
    r"a{20}a{20,}b": False,
    "|".join(f"name{number} .*x" for number in range(150)): False,
}
REAL |= {r"(?>a+)+b": False, r"(?:a++)+b": False, r"(?>(a|a)*)b": True}


@pytest.mark.parametrize(("pattern", "slow"), REAL.items(), ids=lambda value: str(value)[:40])
def test_patterns_as_people_write_them(pattern, slow):
    """Personal data of several kinds, classes, flags, conditions, looking around, counts and atomic groups."""
    assert re.compile(pattern)
    assert (told(pattern) is not None) is slow


def test_a_pattern_that_is_too_large_to_tell_is_told():
    """Rather than taken for a quick one, or looked at for minutes."""
    assert "too large to tell" in told("(?:" + "|".join(f"{number}x*" for number in range(900)) + ")*!")


def test_what_is_no_pattern_is_refused():
    """With the place."""
    with pytest.raises(PolicyError, match=r"is not a regular expression: .* position 2"):
        check_pattern("a**(")
