"""Where a model's tokens spell a text: reasoning, stop strings, byte escapes and names of raw vocabularies lie around it or in it."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import accumulate

# What stands between a model's reasoning and its answer, in the text or among the tokens.
_END_OF_REASONING = re.compile(
    r"</think(?:ing)?>|</reasoning>|\[/THINK\]|<\|END_THINKING\|>|<\|channel\|>final<\|message\|>"
)
_REASONING = ("<think>", "<thinking>", "<reasoning>", "[THINK]", "<|START_THINKING|>", "<|channel|>analysis")
_END_OF_REASONING_BYTES = re.compile(_END_OF_REASONING.pattern.encode())
# Marks of the end of a turn and of a text, which providers may score but never show.
_MARKER = re.compile(rb"<\|[^|<>]{1,40}\|>|</s>|<s>|<(?:eos|bos|end_of_turn|pad)>")
_ESCAPES = re.compile(rb"(?:bytes:)?((?:\\x[0-9a-fA-F]{2})+)")
_BYTE_NAME = re.compile(rb"<0x([0-9A-Fa-f]{2})>")
_RUN = re.compile(rb"[\x80-\xff]+|[\x00-\x7f]")
_OTHER = b"\xff"
# Raw names of vocabularies mark a space, and the byte-level ones a line break and a tab too.
_MARKS = {"\u0120": " ", "\u2581": " ", "\u010a": "\n", "\u0109": "\t"}
_RAW_NAME = re.compile("[" + "".join(_MARKS) + "]")


def is_numbered(token: object) -> bool:
    """Whether a token is named by its number in the vocabulary, as vLLM does on request: nobody can tell what it spells.

    Examples
    --------
    >>> is_numbered("token_id:22"), is_numbered("22")
    (True, False)
    """
    return isinstance(token, str) and token.startswith("token_id:")


def plain_token(token: str) -> str:
    r"""A token's text without the spaces around it, in a vocabulary's raw spelling too.

    Examples
    --------
    >>> plain_token(" A"), plain_token("\u0120A"), plain_token("\u2581A")
    ('A', 'A', 'A')
    """
    return _RAW_NAME.sub(lambda match: _MARKS[match[0]], token).strip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Spelling:
    """What tokens spell, in bytes: a token may be a part of a character.

    Attributes
    ----------
    data : bytes
    ends : tuple of int
        Where each token ends in `data`.
    """

    data: bytes
    ends: tuple[int, ...]

    @classmethod
    def of(cls, tokens: Iterable[bytes]) -> Spelling:
        """What these tokens spell."""
        parts = tuple(tokens)
        return cls(data=b"".join(parts), ends=tuple(accumulate(map(len, parts))))

    def tokens_within(self, start: int, end: int) -> range:
        """Positions of the tokens that share a byte with `data[start:end]`, and of those without bytes between them."""
        return range(bisect_right(self.ends, start), bisect_left(self.ends, end) + 1)


def spellings(tokens: Sequence[str]) -> Iterator[Spelling]:
    """Each way to read tokens as bytes: as they are, with byte escapes, by the raw names of two kinds of vocabulary."""
    plain = [token.encode("utf-8", "surrogatepass") for token in tokens]
    yield Spelling.of(plain)
    joined = "".join(tokens)
    if "\\x" in joined:
        yield Spelling.of(_ESCAPES.sub(_unescaped, token) for token in plain)
    if "\u0120" in joined or "\u010a" in joined:
        yield Spelling.of(map(_from_byte_names, tokens))
    if "\u2581" in joined or "<0x" in joined:
        spaced = (token.replace("\u2581", " ").encode("utf-8", "surrogatepass") for token in tokens)
        yield Spelling.of(_BYTE_NAME.sub(lambda match: bytes([int(match[1], 16)]), token) for token in spaced)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """Where tokens spell an answer.

    Attributes
    ----------
    answer : str
        The text that the tokens spell: without the reasoning before it and the spaces around it.
    spelling : Spelling
    start : int
        Where the answer begins in the spelling's bytes.
    anchors : tuple of two tuples of int, or None
        Offsets in the answer and in the spelling that belong together, where a character is spelt by other bytes.
    """

    answer: str = field(repr=False)
    spelling: Spelling
    start: int
    anchors: tuple[tuple[int, ...], tuple[int, ...]] | None = None

    @property
    def tokens(self) -> range:
        """Positions of all tokens of the answer."""
        return self._within(0, len(_bytes(self.answer)))

    def positions(self, spans: Iterable[tuple[int, int]]) -> list[int]:
        """Positions of the tokens that share a character with a span of `answer`, in order."""
        found: dict[int, None] = {}
        for first, last in spans:
            low = len(_bytes(self.answer[:first]))
            found |= dict.fromkeys(self._within(low, low + len(_bytes(self.answer[first:last]))))
        return sorted(found)

    def _within(self, low: int, high: int) -> range:
        if low >= high:
            return range(0)
        if self.anchors is None:
            return self.spelling.tokens_within(self.start + low, self.start + high)
        own, spelt = self.anchors
        return self.spelling.tokens_within(spelt[bisect_right(own, low) - 1], spelt[bisect_left(own, high)])


def align(tokens: Sequence[str], text: str) -> Alignment | None:
    r"""Find the tokens that spell a text; None where they do not, or where more than one run of them might be meant.

    Parameters
    ----------
    tokens : sequence of str
        As a provider names them: with reasoning before the answer, tokens past a stop string after it, byte escapes, raw
        names of a vocabulary ("<0x0A>").
    text : str
        Of a text that begins with its reasoning, only what follows counts.

    Examples
    --------
    >>> align(["Is it 8?", "</think>", "7", " apples"], "7 apples").tokens
    range(2, 4)
    >>> align(["7", "\n", "Tom has", " 7", " eggs"], "7").tokens
    range(0, 1)
    >>> align(["token_id:22"], "7") is None
    True
    """
    answer = without_reasoning(text)
    target = _bytes(answer)
    if not target:
        return None
    read = [*spellings(tokens)]
    for spelling in read:
        start = _place(spelling, target)
        if start is not None:
            return Alignment(answer=answer, spelling=spelling, start=start)
    # Servers write one replacement character or more for a part of a character.
    return next((one for spelling in read if (one := _align_by_ascii(spelling, answer))), None)


def answer_tokens(tokens: Sequence[str], text: str) -> range | None:
    r"""Positions of the tokens of a text: all where they spell nothing else, the spaces around it included; else see `align`.

    Examples
    --------
    >>> answer_tokens(["7", " apples", "\n"], "7 apples"), answer_tokens(["7", " pears"], "7 apples")
    (range(0, 3), None)
    """
    if "".join(tokens).strip() == without_reasoning(text):
        return spelling_tokens(tokens)
    aligned = align(tokens, text)
    return None if aligned is None else aligned.tokens


def spelling_tokens(tokens: Sequence[str]) -> range:
    """Positions of all tokens but those at the end that have no text, as llama.cpp names the mark of the end of a turn.

    Its log-probability says how sure the model is that it has ended, and streams leave it out: an answer must not be less
    certain for being read whole.

    Examples
    --------
    >>> spelling_tokens(["7", " apples", ""])
    range(0, 2)
    """
    end = len(tokens)
    while end and not tokens[end - 1]:
        end -= 1
    return range(end)


def without_reasoning(text: str) -> str:
    """A text without the reasoning that it begins with, and without the spaces around it.

    Examples
    --------
    >>> without_reasoning("<think>Is it 8?</think> 7 apples")
    '7 apples'
    """
    return _END_OF_REASONING.split(text)[-1].strip()


class ReasoningFilter:
    """Passes the tokens of a text that is still being written, but for reasoning that it begins with.

    Examples
    --------
    >>> reasoning = ReasoningFilter()
    >>> [reasoning.passes(token) for token in ("<th", "ink>", "Hm.", "</think>", "7", " apples")]
    [False, False, False, False, True, True]
    """

    __slots__ = ("_begun", "_over")

    def __init__(self) -> None:
        self._begun, self._over = "", False

    def passes(self, token: str) -> bool:
        """Take the next token; whether it is one of the answer."""
        if self._over:
            return True
        self._begun += token
        begun = self._begun.lstrip()
        if not begun:
            return True
        if begun.startswith(_REASONING):
            self._over = _END_OF_REASONING.search(begun) is not None
            return False
        # A mark may be cut into several tokens.
        self._over = not any(mark.startswith(begun) for mark in _REASONING)
        return self._over


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _unescaped(match: re.Match[bytes]) -> bytes:
    return bytes.fromhex(match[1].replace(b"\\x", b"").decode())


@cache
def _byte_names() -> dict[str, int]:
    """The character by which byte-level vocabularies name each byte: its own where it can be printed, else one past 255."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


def _from_byte_names(token: str) -> bytes:
    names = _byte_names()
    if all(name in names for name in token):
        return bytes(names[name] for name in token)
    return _bytes(token)


def _place(spelling: Spelling, target: bytes) -> int | None:
    """Where the target stands in what tokens spell: its only place, or the only one at either end."""
    data = spelling.data
    reasoning = [match.end() for match in _END_OF_REASONING_BYTES.finditer(data)]
    places: list[int] = []
    at = data.find(target, reasoning[-1] if reasoning else 0)
    while at >= 0:
        if _whole_tokens(spelling, at, at + len(target)):
            places.append(at)
        at = data.find(target, at + 1)
    if len(places) > 1:
        rest = ((data[:at], data[at + len(target) :]) for at in places)
        places = [
            at for at, (before, after) in zip(places, rest, strict=True) if _blank(before) or _blank(after)
        ]
    return places[0] if len(places) == 1 else None


def _whole_tokens(spelling: Spelling, start: int, end: int) -> bool:
    """Whether a place begins with a token, spaces aside, and breaks no word of its last one; a stop string may break that token."""
    data, first = spelling.data, spelling.tokens_within(start, end)[0]
    begins = not data[spelling.ends[first - 1] if first else 0 : start].strip()
    broken = data[end - 1 : end].isalnum() and data[end : end + 1].isalnum() and end not in spelling.ends
    return begins and not broken


def _blank(part: bytes) -> bool:
    return not _MARKER.sub(b"", part).strip()


def _align_by_ascii(spelling: Spelling, answer: str) -> Alignment | None:
    """Align by ASCII alone: each run of other bytes stands for any such run."""
    target, own = _ascii(_bytes(answer))
    data, spelt = _ascii(spelling.data)
    if target.strip(_OTHER) == b"" or _OTHER not in target:
        return None
    place = _place(Spelling(data=data, ends=tuple(bisect_left(spelt, end) for end in spelling.ends)), target)
    if place is None:
        return None
    return Alignment(
        answer=answer, spelling=spelling, start=spelt[place], anchors=(own, spelt[place : place + len(own)])
    )


def _ascii(data: bytes) -> tuple[bytes, tuple[int, ...]]:
    """The data with one byte for each run beyond ASCII, and where each byte of it began; one offset more for the end."""
    runs = [(match[0], match.start()) for match in _RUN.finditer(data)]
    return b"".join(run if run[0] < 128 else _OTHER for run, _ in runs), (*(at for _, at in runs), len(data))
