"""Option probability: how sure a model was of its letter in a multiple-choice question."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from confroute.alignment import is_numbered, plain_token
from confroute.asks import AskGenerator
from confroute.decision import Measurement
from confroute.errors import PolicyError, SignalUnavailableError
from confroute.registry import register
from confroute.signals.answers import answer_of, options_in
from confroute.signals.base import Case, Range
from confroute.signals.tokens import draft_tokens, top_alternatives

# Vocabularies hold letters with the marks beside them as tokens of their own.
_DRESSED = re.compile(r"[(\[*\"'`]*([A-Za-z])[)\].:,*\"'`]*")


def letter_of(token: str, *, small: bool = False) -> str | None:
    """The option letter that a token is, with or without marks around it; None for anything else.

    Parameters
    ----------
    token : str
    small : bool
        Whether small letters are options, too: they are where the answer writes its own so. Elsewhere "a" is an article.

    Examples
    --------
    >>> letter_of(" (A"), letter_of("B."), letter_of("A dog"), letter_of("a"), letter_of("a)", small=True)
    ('A', 'B', None, None, 'A')
    """
    dressed = _DRESSED.fullmatch(unicodedata.normalize("NFKC", plain_token(token)))
    return dressed[1].upper() if dressed and (small or dressed[1].isupper()) else None


def letter_logprobs(
    alternatives: Iterable[tuple[str, float]], letters: Sequence[str], *, small: bool = False
) -> dict[str, float]:
    """Log-probability, in nats, of each option letter at one position; letters that no alternative spells are left out.

    Parameters
    ----------
    alternatives : iterable of (token, log-probability)
        Different tokens at one position. "A", " A" (or its raw names, as "\u2581A"), "(A" and "A." are mutually exclusive, so the
        probabilities of all spellings of a letter are added.
    letters : sequence of str
    small : bool
        Whether small letters are options, too.

    Examples
    --------
    >>> logprobs = letter_logprobs(
    ...     [("A", math.log(0.5)), (" A", math.log(0.25)), ("The", math.log(0.2))], ("A", "B")
    ... )
    >>> {letter: round(math.exp(nats), 3) for letter, nats in logprobs.items()}
    {'A': 0.75}
    """
    spellings: dict[str, list[float]] = {}
    for token, nats in alternatives:
        letter = letter_of(token, small=small)
        if letter is not None and letter in letters:
            spellings.setdefault(letter, []).append(nats)
    return {letter: min(0.0, float(np.logaddexp.reduce(nats))) for letter, nats in spellings.items()}


def option_doubt(options: Mapping[str, float], chosen: str) -> float | None:
    """1 - probability of the chosen option, normalised over the known options; in [0, 1].

    Parameters
    ----------
    options : mapping of str to float
        Natural log-probability of each option as the answer's first token. Options outside the provider's top-k are
        missing and count as impossible.
    chosen : str
        The option that the model answered.

    Returns
    -------
    float or None
        None where the chosen option has no finite log-probability.

    Notes
    -----
    The probabilities are divided by their sum: the probability of "The" or of a line break says nothing about
    which option the model prefers. On MMLU answers of a 1.5B model this ranks errors clearly better than the raw token
    probability.

    Examples
    --------
    >>> round(option_doubt({"A": math.log(0.3), "B": math.log(0.1)}, "A"), 3)
    0.25
    """
    if not math.isfinite(options.get(chosen, -math.inf)):
        return None
    highest = max(options.values())
    shares = {name: math.exp(value - highest) for name, value in options.items()}
    rest = math.fsum(share for name, share in shares.items() if name != chosen)
    return rest / (rest + shares[chosen])


@register(kind="signal", needs="alternatives to the first token", columns={"option_probability": {}})
@dataclass(frozen=True, slots=True, kw_only=True)
class OptionProbability:
    """1 - probability of the chosen letter among a question's options; in [0, 1], higher means less reliable.

    Parameters
    ----------
    top_logprobs : int
        Alternatives to request for the first token, 2 or more: enough that every letter is likely to be among them.

    Raises
    ------
    PolicyError
        Fewer than 2 alternatives.

    Notes
    -----
    For questions that list options ("A. Mars") and answers whose first token is the chosen letter. Any other answer is
    refused: where "The" or a line break comes first, its alternatives are other ways to begin, and where the letter comes
    later, the alternatives depend on the text before it. Ask the model for the letter alone.

    No extra cost; needs log-probabilities with alternatives. Letters that are not among the alternatives count as
    impossible; `high` in the details is the value if each of them were as likely as the least likely alternative.
    """

    top_logprobs: int = 10

    def __post_init__(self) -> None:
        if self.top_logprobs < 2:
            msg = f"top_logprobs is {self.top_logprobs}: expected at least 2 alternatives, or there is no choice to measure"
            raise PolicyError(msg)

    @property
    def name(self) -> str:
        """Key in the decision."""
        return "option_probability"

    @property
    def range(self) -> Range:
        """1 - a share of probabilities."""
        return Range(high=1.0, unit="1 - share among options")

    def measure(self, case: Case) -> AskGenerator[Measurement]:
        """Return 1 - probability of the chosen letter; the draft already holds all evidence.

        Raises
        ------
        SignalUnavailableError
            No listed options, no alternatives, or an answer whose first token is not the chosen letter.
        """
        yield from ()  # a generator like every other signal, although it asks for nothing
        letters = options_in(case.question)
        if not letters:
            raise SignalUnavailableError("the question lists no options")
        chosen = answer_of(case.draft, case.question, kind="option")
        first, letter = self._first_token(case)
        small = letter_of(letter) is None
        if chosen not in letters or letter_of(letter, small=small) != chosen:
            raise SignalUnavailableError("the draft's first token is not the letter of a listed option")
        tops = top_alternatives(case, (first,), at_least=2)
        top = list(tops.alternatives[0])
        if any(is_numbered(text) for text, _ in top):
            raise SignalUnavailableError(f"{case.tier.model} names the alternatives by numbers")
        if all(text != letter for text, _ in top):
            top.append((letter, draft_tokens(case).logprobs[first]))
        options = letter_logprobs(top, letters, small=small)
        uncertainty = option_doubt(options, chosen)
        if uncertainty is None:
            raise SignalUnavailableError(f"{case.tier.model} gave its own answer a probability of 0")
        missing = [letter for letter in letters if letter not in options]
        least = float(tops.values.min())
        high = option_doubt({**options, **dict.fromkeys(missing, least)}, chosen)
        assert high is not None, "the chosen option has a probability"
        return Measurement(
            signal=self.name,
            uncertainty=uncertainty,
            details={"options": len(letters), "missing": len(missing), "high": round(high, 6)},
        )

    @staticmethod
    def _first_token(case: Case) -> tuple[int, str]:
        """Position and text of the answer's first token."""
        tokens = case.draft.tokens or ()
        # Without any, what the model did not return is the reason, whichever letter the draft begins with.
        first = draft_tokens(case, "all" if tokens else "answer").positions[0]
        return first, tokens[first]
