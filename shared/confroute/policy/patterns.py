"""Regular expressions of rules: those that cannot be, and those whose search may take for ever.

Python's `re` tries one way to read a text after the other. A pattern is slow where a text has many ways and none of them ends well. How
their number grows with the text is decided on the pattern's position automaton (Glushkov, 1961), whose edges count the ways from one letter
of the pattern to the next, by the criteria of Weber and Seidl, "On the degree of ambiguity of finite automata" (1991): exponentially if two
different circles around a position read the same text (`(a+)+`, `(a|a)*`), and as a power if two positions that have circles are joined by
a way that reads the same text as both of them (`a+a+`).

What is simplified: conditions of no width (`^`, a word's boundary, looking around, references to a group) are taken to hold, and what is
looked for around is judged by itself; a part that may come 17 times or more often is taken for endless, and
of those that have to come 16 are looked at; letters are those that the pattern names, their
neighbours, and one of each class. What an atomic group or a possessive repeat reads counts as one letter.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import re
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from confroute.errors import PolicyError

# The standard library's own reader of expressions; its name is another one before Python 3.11.
_parser: Any = importlib.import_module("re._parser")
_REPEATS = (_parser.MAX_REPEAT, _parser.MIN_REPEAT)
# There are none before Python 3.11.
_POSSESSIVE, _ATOMIC = getattr(_parser, "POSSESSIVE_REPEAT", None), getattr(_parser, "ATOMIC_GROUP", None)
_COUNTED = 16
_MOST_POSITIONS, _MOST_EDGES, _MOST_STATES = 2_000, 10_000, 100_000
_ADVICE = "Separate the repeats by something that has to stand between them, or search in linear time: detect=re2.compile(...).search"


def check_pattern(pattern: str) -> None:
    """Refuse what is no regular expression, and warn of one whose search may take for ever.

    One that passes takes, from each place of a text where its search starts, a number of steps that is at most proportional to the length
    of the text; the module says what is simplified.

    Raises
    ------
    PolicyError

    Examples
    --------
    >>> check_pattern(r"(?i)salary")
    >>> check_pattern("(")
    Traceback (most recent call last):
    ...
    confroute.errors.PolicyError: pattern '(' is not a regular expression: missing ), unterminated subpattern at position 0
    """
    try:
        parsed = _parser.parse(pattern)
    except re.error as error:
        msg = f"pattern {pattern!r} is not a regular expression: {error}"
        raise PolicyError(msg) from error
    if (found := _growth(parsed)) is not None:
        warnings.warn(f"pattern {pattern!r} {found}. {_ADVICE}", stacklevel=5)


class _TooLarge(Exception):  # noqa: N818  never leaves this module
    """More positions, edges or states than are looked at."""


def _growth(parsed: Any) -> str | None:
    """How the ways to read a text grow with it, in words; None if their number does not grow."""
    try:
        automata = _automata(parsed)
        if any(one.is_exponential() for one in automata):
            return (
                "repeats what can be read in several ways, such as a part that repeats itself or alternatives that begin alike: on "
                "some texts its search takes for ever, and every call of this process waits"
            )
        if any(one.is_polynomial() for one in automata):
            return (
                "has repeats that read the same letters one after the other: on some texts its search takes at least the square of "
                "their length from each place, and every call of this process waits"
            )
    except _TooLarge:
        return "is too large to tell whether its search takes for ever on some texts"
    return None


def _automata(parsed: Any) -> list[_Automaton]:
    """That of the pattern, and those of what it looks for around and of its atomic groups."""
    letters = sorted({*"0a_ \n-\u00e9\u0663", *_named(parsed)})
    found, waiting = [], [parsed]
    while waiting:
        automaton = _Automaton(letters=letters)
        automaton.read(waiting.pop(), parsed.state.flags)
        found.append(automaton)
        waiting += automaton.apart
    return found


def _named(parsed: Any) -> Iterator[str]:
    """The letters that a pattern names, and their neighbours."""
    for part in _parts(parsed):
        for kind, given in part:
            for one in given if kind is _parser.IN else [(kind, given)]:
                ends = one[1] if one[0] is _parser.RANGE else (one[1],)
                if one[0] in (_parser.LITERAL, _parser.NOT_LITERAL, _parser.RANGE):
                    yield from (
                        chr(max(0, min(end + by, sys.maxunicode))) for end in ends for by in (-1, 0, 1)
                    )


def _parts(given: Any) -> Iterator[Any]:
    """A pattern and all that stand inside it."""
    if isinstance(given, _parser.SubPattern):
        yield given
        for _, inner in given:
            yield from _parts(inner)
    elif isinstance(given, (tuple, list)):
        for inner in given:
            yield from _parts(inner)


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a pattern: the positions it may begin and end with, and in how many ways it is empty. Of ways, more than two are two."""

    first: Counter[int] = field(default_factory=Counter)
    last: Counter[int] = field(default_factory=Counter)
    empty: int = 1

    def then(self, other: _Part) -> _Part:
        """One after the other; the edges between them are the caller's."""
        first, last = (
            self.first + _times(other.first, self.empty),
            other.last + _times(self.last, other.empty),
        )
        return _Part(_times(first, 1), _times(last, 1), min(2, self.empty * other.empty))

    def beside(self, other: _Part) -> _Part:
        """One or the other."""
        return _Part(
            _times(self.first + other.first, 1),
            _times(self.last + other.last, 1),
            min(2, self.empty + other.empty),
        )


def _times(ways: Counter[int], by: int) -> Counter[int]:
    return Counter({position: min(2, count * by) for position, count in ways.items() if by})


@dataclass(slots=True, kw_only=True)
class _Automaton:
    """Positions, the letters that each reads as bits, and in how many ways one follows another."""

    letters: list[str]
    reads: list[int] = field(default_factory=list)
    edges: dict[int, Counter[int]] = field(default_factory=dict)
    ends: set[int] = field(default_factory=set)
    apart: list[Any] = field(default_factory=list)

    def read(self, parsed: Any, flags: int) -> None:
        """Take a pattern in."""
        whole = self._sequence(parsed, flags)
        # What follows a repeat at the end cannot fail, so that no other way is tried; a condition can.
        self.ends = {*whole.last} if not any(self.reads[one] == 0 for one in whole.last) else set()

    def _position(self, reads: int, *, empty: int = 0) -> _Part:
        if len(self.reads) >= _MOST_POSITIONS:
            raise _TooLarge
        self.reads.append(reads)
        at = len(self.reads) - 1
        self.edges[at] = Counter()
        return _Part(Counter([at]), Counter([at]), empty)

    def _sequence(self, parsed: Any, flags: int) -> _Part:
        whole = _Part()
        for kind, given in parsed:
            whole = self._joined(whole, self._node(kind, given, flags))
        return whole

    def _joined(self, one: _Part, other: _Part) -> _Part:
        self._connect(one.last, other.first)
        return one.then(other)

    def _connect(self, last: Counter[int], first: Counter[int]) -> None:
        if len(last) * len(first) > _MOST_EDGES:
            raise _TooLarge
        for position, ways in last.items():
            self.edges[position] = _times(self.edges[position] + _times(first, ways), 1)

    def _node(self, kind: Any, given: Any, flags: int) -> _Part:
        if kind is _parser.SUBPATTERN:
            _, added, removed, body = given
            return self._sequence(body, (flags | added) & ~removed)
        if kind in (_parser.BRANCH, _parser.GROUPREF_EXISTS):
            ways = given[1] if kind is _parser.BRANCH else [one or () for one in given[1:]]
            return functools.reduce(_Part.beside, [self._sequence(one, flags) for one in ways])
        if kind in _REPEATS:
            least, most, body = given
            return self._repeat(least, most, body, flags)
        if kind in (_POSSESSIVE, _ATOMIC) and kind is not None:
            return self._atom(given if kind is _ATOMIC else given[2], flags, endless=kind is _POSSESSIVE)
        reads = _reader(kind, given, flags)
        if reads is not None:
            return self._position(sum(1 << at for at, letter in enumerate(self.letters) if reads(letter)))
        self.apart += [body for body in _parts(given) if kind in (_parser.ASSERT, _parser.ASSERT_NOT)][:1]
        return self._position(0, empty=1)

    def _atom(self, body: Any, flags: int, *, endless: bool) -> _Part:
        """What is read in one way only: a position of all its letters, and a pattern of its own."""
        self.apart.append(body)
        inside = _Automaton(letters=self.letters)
        part = inside._sequence(body, flags)
        return self._position(
            functools.reduce(int.__or__, inside.reads, 0), empty=int(endless or part.empty > 0)
        )

    def _repeat(self, least: int, most: Any, body: Any, flags: int) -> _Part:
        whole = _Part()
        for _ in range(min(least, _COUNTED)):
            whole = self._joined(whole, self._sequence(body, flags))
        if most is _parser.MAXREPEAT or most - least > _COUNTED:
            part = self._sequence(body, flags)
            self._connect(part.last, part.first)
            return self._joined(whole, _Part(part.first, part.last, min(2, 1 + part.empty)))
        rest = _Part()
        for _ in range(most - least):
            rest = self._joined(self._sequence(body, flags), rest)
            rest = _Part(rest.first, rest.last, min(2, 1 + rest.empty))
        return self._joined(whole, rest)

    def is_exponential(self) -> bool:
        """Whether two different circles around a position read the same text."""
        for circle in _circles({*range(len(self.reads))}, self._next):
            if any(self.edges[one][to] > 1 for one in circle for to in circle):
                return True
            equal = [(one, one) for one in circle]
            ahead = functools.partial(self._together, within=(circle, circle))
            behind: dict[tuple[int, ...], list[tuple[int, ...]]] = defaultdict(list)
            for pair in [*equal, *(apart := _reachable(equal, ahead))]:
                for to in ahead(pair):
                    behind[to].append(pair)
            # Two ways that part and meet again, in one circle.
            if any(one != other for one, other in apart & _reachable(equal, behind.__getitem__)):
                return True
        return False

    def is_polynomial(self) -> bool:
        """Whether a text leads from one circle into itself, into another one, and around that one; ends of the pattern apart."""
        inside = {*range(len(self.reads))} - self.ends
        circles = _circles(inside, self._next)
        for one, other in itertools.permutations(circles, 2):
            ahead = functools.partial(self._together, within=(one, inside, other))
            joined = [(p, q) for p in one if not other.isdisjoint(_reachable([p], self._next)) for q in other]
            if any((p, q, q) in _reachable([(p, p, q)], ahead) for p, q in joined):
                return True
        return False

    def _next(self, position: int) -> list[int]:
        return [to for to in self.edges[position] if self.reads[to]]

    def _together(self, at: tuple[int, ...], within: tuple[set[int], ...]) -> Iterator[tuple[int, ...]]:
        """Where several positions lead by a letter that all of them read, each to one of its own set."""
        ahead = [[to for to in self._next(one) if to in among] for one, among in zip(at, within, strict=True)]
        for to in itertools.product(*ahead):
            if functools.reduce(int.__and__, (self.reads[one] for one in to)):
                yield to


def _reader(kind: Any, given: Any, flags: int) -> Callable[[str], bool] | None:
    """Whether a letter is read by this element; None for what reads none."""
    if kind is _parser.ANY:
        return lambda letter: bool(flags & re.DOTALL) or letter != "\n"
    if kind is _parser.LITERAL:
        return _any_of([(kind, given)], flags)
    if kind is _parser.NOT_LITERAL:
        among = _any_of([(_parser.LITERAL, given)], flags)
        return lambda letter: not among(letter)
    if kind is not _parser.IN:
        return None
    negated = given[0][0] is _parser.NEGATE
    among = _any_of(given[1:] if negated else given, flags)
    return lambda letter: among(letter) is not negated


def _any_of(members: list[Any], flags: int) -> Callable[[str], bool]:
    def among(letter: str) -> bool:
        forms = {letter, letter.lower(), letter.upper()} if flags & re.IGNORECASE else {letter}
        return any(
            _is_in(form, kind, given, flags) for kind, given in members for form in forms if len(form) == 1
        )

    return among


def _is_in(letter: str, kind: Any, given: Any, flags: int) -> bool:
    if kind is _parser.RANGE:
        return bool(given[0] <= ord(letter) <= given[1])
    if kind is _parser.LITERAL:
        return bool(ord(letter) == given)
    name = str(given).removeprefix("CATEGORY_")
    plain = name.removeprefix("NOT_")
    found = {
        "DIGIT": letter.isdecimal(),
        "SPACE": letter.isspace(),
        "WORD": letter.isalnum() or letter == "_",
    }
    return (found[plain] and (letter.isascii() or not flags & re.ASCII)) is (plain == name)


def _reachable(starts: Iterable[Any], following: Callable[[Any], Iterable[Any]]) -> set[Any]:
    """What is reached by one step or more."""
    found: set[Any] = set()
    waiting = list(starts)
    while waiting:
        for one in following(waiting.pop()):
            if one not in found:
                found.add(one)
                waiting.append(one)
        if len(found) > _MOST_STATES:
            raise _TooLarge
    return found


def _circles(nodes: set[int], following: Callable[[int], Iterable[int]]) -> list[set[int]]:
    """Sets of nodes that lead to each other; those on no circle are in none."""
    ahead = {node: {to for to in following(node) if to in nodes} for node in nodes}
    behind: dict[int, set[int]] = {node: set() for node in nodes}
    for node, others in ahead.items():
        for to in others:
            behind[to].add(node)
    # Most of a pattern stands in a row, which has an end.
    left = nodes - _before_ends(ahead, behind) - _before_ends(behind, ahead)
    found = []
    while left:
        start = left.pop()
        circle = _reachable([start], ahead.__getitem__) & _reachable([start], behind.__getitem__)
        if circle:
            found.append(circle)
            left -= circle
    return found


def _before_ends(ahead: dict[int, set[int]], behind: dict[int, set[int]]) -> set[int]:
    """Nodes from where every way ends."""
    ways = {node: len(others) for node, others in ahead.items()}
    ends = [node for node, count in ways.items() if not count]
    for end in ends:
        for node in behind[end]:
            ways[node] -= 1
            if not ways[node]:
                ends.append(node)
    return set(ends)
