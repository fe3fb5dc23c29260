"""Abstention: a draft says that the context does not hold the answer, and the signal measures the doubt about that claim."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.base import Case, Range
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
_STOP_WORDS = frozenset(_COMMON.split())


def content_words(text: str) -> frozenset[str]:
    """The words and numbers that carry a text's content: in lower case, without stop words and plural s.

    Examples
    --------
    >>> sorted(content_words("The ferries leave at 07:30 from both piers."))
    ['07:30', 'ferrie', 'leave', 'pier']
    """
    words = (match.group().lower() for match in _WORD.finditer(text))
    return frozenset(_singular(word) for word in words if word not in _STOP_WORDS)


def numbers(text: str) -> frozenset[str]:
    """The numbers of a text, as written.

    Examples
    --------
    >>> sorted(numbers("07:30 for 4.50, twice 3."))
    ['07:30', '3', '4.50']
    """
    return frozenset(word for word in content_words(text) if any(c.isdigit() for c in word))


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text that hold at least one word.

    Examples
    --------
    >>> sentences("It is open. Is it? Yes!")
    ['It is open.', 'Is it?', 'Yes!']
    """
    return [part.strip() for part in _SENTENCE.split(text) if _WORD.search(part)]


def _singular(word: str) -> str:
    return word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word


_SOURCE = r"(?:context|texts?|documents?|passages?|information|sources?|excerpts?|articles?)"
_ABSTENTION = re.compile(
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
# An abstention comes at the start; further on, the same words belong to an answer.
MOST_WORDS = 60
_CLAUSE = re.compile(
    r"(?<=[.!?])\s+|\n+|;\s|\s[-\u2013\u2014]\s|,?\s+\b(?:but|yet|although|though|however|while|whereas|nevertheless)\b,?\s*"
    r"|,?\s+\b(?:so|thus|therefore|hence)\b,?\s+(?=(?:the\s+answer|it|this|that)\s+(?:is|was|must|should|would)\b)"
    r"|(?:,|\band|\bso)\s+(?=(?:i\s+(?:believe|think|guess|assume|suspect)|my\s+(?:best\s+)?guess)\b)",
    re.IGNORECASE,
)
# What goes with an abstention and claims nothing: an apology, an offer, a question, what the source is about instead.
_BESIDE = re.compile(
    rf"""
      ^(?:i(?:\ am|'m)|we(?:\ are|'re))?\ ?(?:very\ |so\ |really\ )?sorry\b | ^(?:my\ )?apolog | ^unfortunately\W*$
    | ^(?:please|if\ you|if\ there|would\ you|could\ you|do\ you|can\ you|let\ me\ know|feel\ free)\b
    | ^(?:i\ (?:recommend|suggest|would)|you\ (?:may|might|could|can|should)|for\ (?:more|further|this|that))\b
      .*\b(?:ask|check|consult|contact|look|provid\w*|refer|see|shar\w*|visit)\b
    | ^(?:it|they|this|these|that|(?:the|this|these)\ (?:\w+\ )?{_SOURCE})\ (?:\w+\ )?(?:only|just|merely|solely)\b
    | \?$
    """,
    re.IGNORECASE | re.VERBOSE,
)

_YES_OR_NO = re.compile(r"\W*(?:(?:the\s+answer|it|this|that)\s+(?:is|was)\s+)?(?:yes|no)\b", re.IGNORECASE)


def abstains(text: str, phrases: tuple[str, ...] = ()) -> bool:
    """Whether an answer says that it cannot be given from what was provided, and does not give one all the same.

    Parameters
    ----------
    text : str
        English; give the words of other languages as `phrases`.
    phrases : tuple of str
        Further regular expressions, case-insensitive: what your own prompt asks the model to say.

    Examples
    --------
    >>> abstains("The context does not mention the captain."), abstains("I don't know.")
    (True, True)
    >>> abstains("Paris."), abstains("No ferry runs on Sundays."), abstains("Tickets do not include lunch.")
    (False, False, False)
    >>> abstains("The context does not mention the captain. However, it is Erik Hansen.")
    False
    >>> abstains("KEINE ANGABE", phrases=("keine angabe",))
    True
    """
    custom = re.compile("|".join(f"(?:{phrase})" for phrase in phrases), re.IGNORECASE) if phrases else None
    if custom is not None and custom.search(text):
        # The prompt's own words may be several clauses.
        text = custom.sub("empty response", text)
    plain = text.replace(_APOSTROPHE, "'").replace("n't", " not").replace("cannot", "can not")
    if _ABSTENTION.search(" ".join(plain.split()[:MOST_WORDS])) is None:
        return False
    return not any(_claims(" ".join(clause.split())) for clause in _CLAUSE.split(plain) if clause)


def _claims(clause: str) -> bool:
    """Whether a clause beside an abstention says something of its own: one that neither abstains nor is a courtesy."""
    if _ABSTENTION.search(clause) or _BESIDE.search(clause.strip(" ,:*")):
        return False
    return _YES_OR_NO.match(clause) is not None or bool(content_words(clause))


@register(
    kind="signal",
    needs="retrieved passages, a draft that finds nothing there",
    columns={"context_lacks": {}},
)
@dataclass(frozen=True, slots=True, kw_only=True)
class ContextLacks:
    """Doubt about a draft's claim that the context lacks the answer; in [0, 1], higher means less reliable.

    A larger model that reads the same passages cannot find what is not there, so such a draft is kept unless the
    context seems to hold the answer after all. Drafts that give an answer are left to the other gates.

    Parameters
    ----------
    by : {"words", "scores"}
        "words": the share of the question's content words that stand in the passages. "scores": the best
        retrieval score, where scores are cosines.
    phrases : tuple of str
        Further regular expressions for how your model says that there is no answer; see `abstains`.

    Raises
    ------
    PolicyError
        An unknown choice, or a phrase that is not a regular expression.

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
                msg = f"phrase {phrase!r} is not a regular expression ({error}): escape special characters with re.escape"
                raise PolicyError(msg) from error

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "context_lacks"

    @property
    def range(self) -> Range:
        """0 to 1: the share of the question that the context covers, or its best cosine."""
        return Range(high=1.0, unit="of the question found")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Return how far the context seems to hold the answer after all.

        Raises
        ------
        SignalUnavailableError
            Nothing was retrieved, the draft gives an answer, or the question has no content word.
        """
        yield from ()  # a generator like every other signal, although it asks for nothing
        passages = case.context.passages if case.context is not None else ()
        if not passages:
            raise SignalUnavailableError("nothing was retrieved")
        if not abstains(case.draft.text, self.phrases):
            raise SignalUnavailableError("the draft gives an answer")
        question = content_words(case.question)
        details: dict[str, JSON] = {"by": self.by, "passages": len(passages)}
        if self.by == "scores":
            value = min(1.0, max(0.0, *cosines(case)))
        elif question:
            value = len(question & content_words(" ".join(passages))) / len(question)
        else:
            raise SignalUnavailableError("the question has no word to look for in the passages")
        return Measurement(signal=self.name, uncertainty=value, details=details, abstention=True)
