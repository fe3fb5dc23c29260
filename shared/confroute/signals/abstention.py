"""A draft that says that the context does not hold the answer, and whether to believe it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.base import Asking, Case, Range
from confroute.signals.retrieval import cosines
from confroute.types import JSON

_WORD = re.compile(r"[^\W_]+(?:[.,:]\d+)*")
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_COMMON = """
    a about after all also am an and any are as at be been before both but by can could did do does each for from had
    has have he her here him his how i if in into is it its just may me more most must my no not of on only or other
    our out over own same she should so some such than that the their them then there these they this those through
    to too under until up very was we were what when where which while who whom whose why will with would yes you your
    answer based context document information given mentioned provided says text according
"""
_STOP = frozenset(_COMMON.split())


def content_words(text: str) -> frozenset[str]:
    """Words and numbers of a text without those that every text has, in lower case and without a plural s.

    Examples
    --------
    >>> sorted(content_words("The ferries leave at 07:30 from both piers."))
    ['07:30', 'ferrie', 'leave', 'pier']
    """
    words = (match.group().lower() for match in _WORD.finditer(text))
    return frozenset(_singular(word) for word in words if word not in _STOP)


def numbers(text: str) -> frozenset[str]:
    """The numbers of a text as they are written.

    Examples
    --------
    >>> sorted(numbers("07:30 for 4.50, twice 3."))
    ['07:30', '3', '4.50']
    """
    return frozenset(word for word in content_words(text) if any(c.isdigit() for c in word))


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text that hold a word.

    Examples
    --------
    >>> sentences("It is open. Is it? Yes!")
    ['It is open.', 'Is it?', 'Yes!']
    """
    return [part.strip() for part in _SENTENCE.split(text) if _WORD.search(part)]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


_SOURCE = r"(?:context|texts?|documents?|passages?|information|sources?|excerpts?|articles?)"
_NOT_THERE = re.compile(
    rf"""
      \b{_SOURCE}\b (?:\ \w+){{0,5}}? \ (?:not|nothing)\b (?:\ \w+){{0,2}}?
        \ (?:mention|say|provid|contain|specif|stat|includ|give|indicat|answer|tell|list|about)
    | \bnot (?:\ \w+)? \ (?:mentioned|specified|stated)\b
    | \bnot (?:\ \w+)? \ (?:provided|given|found|available|included|contained|present)\ in\ (?:\w+\ ){{0,2}}{_SOURCE}\b
    | \bno (?:\ \w+){{0,2}}? \ (?:information|mention|answer)\b
    | \b(?:i|we)\ (?:do|can|could)\ not (?:\ \w+)? \ (?:know|answer|find|determine|tell|provide|say)\b
    | \b(?:unable|not\ possible|not\ enough\ information|impossible)\ to (?:\ \w+)? \ (?:answer|find|determine|provide|tell|say)\b
    | \bempty\ response\b
    """,
    re.IGNORECASE | re.VERBOSE,
)
_APOSTROPHE = chr(0x2019)
# "Dogs are not mentioned." is all there is to it; "Not on Sundays, as the table says." goes on.
MOST_WORDS = 60


def abstains(text: str, phrases: tuple[str, ...] = ()) -> bool:
    """Whether an answer says that it cannot be given from what was provided.

    Parameters
    ----------
    text : str
        English; give the words of other languages as `phrases`.
    phrases : tuple of str
        Further regular expressions, searched without regard to case: what your own prompt asks the model to say.

    Examples
    --------
    >>> abstains("The context does not mention the captain."), abstains("I don't know.")
    (True, True)
    >>> abstains("Paris."), abstains("No ferry runs on Sundays."), abstains("Tickets do not include lunch.")
    (False, False, False)
    >>> abstains("KEINE ANGABE", phrases=("keine angabe",))
    True
    """
    if any(re.search(phrase, text, re.IGNORECASE) for phrase in phrases):
        return True
    plain = text.replace(_APOSTROPHE, "'").replace("n't", " not").replace("cannot", "can not")
    return _NOT_THERE.search(" ".join(plain.split()[:MOST_WORDS])) is not None


@register(
    kind="signal",
    needs="retrieved passages, a draft that finds nothing there",
    columns={"context_lacks": {}},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ContextLacks:
    """How doubtful it is that the context lacks the answer, where a draft says so; in [0, 1].

    A larger model that is shown the same passages cannot find what is not there, so such a draft is kept unless the
    context looks as if it held the answer. It says nothing of drafts that give one: other gates judge those.

    Parameters
    ----------
    by : {"words", "scores"}
        "words": the share of the question's content words that stand in the passages. "scores": the best
        retrieval score, where scores are cosines.
    phrases : tuple of str
        Further regular expressions by which your model says that it found nothing; see `abstains`.

    Raises
    ------
    PolicyError
        An unknown choice or a phrase that is no regular expression.

    Examples
    --------
    >>> from confroute.types import Context, Generation, Tier
    >>> case = Case(
    ...     tier=Tier(name="edge", model="m"),
    ...     question="Who is the captain of the Heron?",
    ...     draft=Generation(text="The context does not say who the captain is."),
    ...     context=Context(passages=("The Heron leaves at 07:30.",)),
    ... )
    >>> next(ContextLacks().measure(case))
    Traceback (most recent call last):
    StopIteration: Measurement(signal='context_lacks', uncertainty=0.5, ...
    """

    by: Literal["words", "scores"] = "words"
    phrases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.by not in ("words", "scores"):
            msg = f"by is {self.by!r}: expected 'words' or 'scores'"
            raise PolicyError(msg)
        if isinstance(self.phrases, str):
            msg = "phrases is a string: write ('...',) for a single one"
            raise PolicyError(msg)
        for phrase in self.phrases:
            try:
                re.compile(phrase)
            except re.error as error:
                msg = f"phrase {phrase!r} is no regular expression: {error}"
                raise PolicyError(msg) from error

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "context_lacks"

    @property
    def range(self) -> Range:
        """0 to 1: how much of the question the context is about."""
        return Range(high=1.0, unit="of the question found")

    def measure(self, case: Case) -> Asking[Measurement]:
        """Return how much the context looks as if it held the answer after all.

        Raises
        ------
        SignalUnavailableError
            Nothing was retrieved, the draft gives an answer, or the question has no word to look for.
        """
        yield from ()  # a generator like every other signal, though it asks for nothing
        passages = case.context.passages if case.context is not None else ()
        if not passages:
            raise SignalUnavailableError("nothing was retrieved")
        if not abstains(case.draft.text, self.phrases):
            raise SignalUnavailableError("the draft gives an answer")
        asked = content_words(case.question)
        details: dict[str, JSON] = {"by": self.by, "passages": len(passages)}
        if self.by == "scores":
            value = min(1.0, max(0.0, *cosines(case)))
        elif asked:
            value = len(asked & content_words(" ".join(passages))) / len(asked)
        else:
            raise SignalUnavailableError("the question has no word to look for")
        return Measurement(signal=self.name, uncertainty=value, details=details, lacking=True)
